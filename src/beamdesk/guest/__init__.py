"""The agent inside a desktop. Imports the protocol only."""
