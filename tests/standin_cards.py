"""A machine with two graphics cards, for the one command that is started in it: its own /dev has nodes with a harmless device's numbers.

The cards belong to NVIDIA by their names and to nobody by their drivers: there is none behind them.
"""

_PRIVATE_DEV = """
set -e
folder=$(mktemp -d) && mount -t tmpfs none "$folder" && mkdir "$folder/upper" "$folder/work"
mount -t overlay overlay -o "lowerdir=/dev,upperdir=$folder/upper,workdir=$folder/work" /dev
rm -f /dev/nvidia* && mknod -m 0600 /dev/nvidia0 c 10 229 && mknod -m 0600 /dev/nvidia1 c 10 229 && mknod -m 0600 /dev/nvidiactl c 1 7
umount -l "$folder" && rmdir "$folder"
exec "$@"
"""
TWO_CARDS = ("unshare", "--mount", "--propagation", "private", "sh", "-c", _PRIVATE_DEV, "sh")
"""Put before a command. Needs root."""
