# Experiment folders belong to a team: what one member writes, the others may change.
umask 002
