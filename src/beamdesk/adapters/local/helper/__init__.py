"""The privileged helper of the local driver: the only part of Beamdesk that runs as root.

It starts, stops, lists and deletes desktop containers and opens data files with a person's own rights, on request of the
service account over a Unix socket. Standard library and :mod:`beamdesk.protocol` only: nothing else of Beamdesk may be imported
here. It stays single-threaded, because it forks; every slow step runs in a child.
"""
