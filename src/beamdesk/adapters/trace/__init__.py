"""Traces: files of hosts and requests for replays, read and written here so that the scheduling core does no I/O."""
