"""The scheduling core: pure, numpy only, no I/O, no clock."""
