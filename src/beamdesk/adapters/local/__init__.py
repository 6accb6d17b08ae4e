"""The embedded compute driver: each desktop is a container on this machine, started by a small privileged helper."""
