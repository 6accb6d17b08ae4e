"""A cloud and its guests in memory (or one file): for tests, demonstrations without containers, and as an example of a driver."""
