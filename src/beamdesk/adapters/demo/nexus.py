"""Small pieces to write NeXus files with h5py: groups with a class, fields with units, links with a target.

NeXus: https://manual.nexusformat.org. Only what the sample data need; no reading.
"""

from __future__ import annotations

from typing import Any, Final

import h5py

Node = Any
"""An h5py group or dataset; h5py ships no types."""

CREATOR: Final = "beamdesk sample data"


def new_file(path: str) -> Node:
    """Create a file with the root attributes that NeXus asks for and an empty ``entry``, the default."""
    file = h5py.File(path, "w")
    file.attrs.update({"NX_class": "NXroot", "creator": CREATOR, "default": "entry"})
    group(file, "entry", "NXentry")
    return file


def group(parent: Node, name: str, nx_class: str, /, **fields: object) -> Node:
    """Create a group of class ``nx_class``; ``fields`` become datasets, a pair (value, units) one with units."""
    made = parent.create_group(name)
    made.attrs["NX_class"] = nx_class
    for key, value in fields.items():
        if isinstance(value, tuple):
            field(made, key, *value)
        else:
            field(made, key, value)
    return made


def field(parent: Node, name: str, value: object, units: str = "", **attributes: object) -> Node:
    """Create a dataset, compressed where it is an array that is worth it."""
    large = getattr(value, "nbytes", 0) > 65536
    made = parent.create_dataset(name, data=value, **({"compression": "gzip", "shuffle": True} if large else {}))
    if units:
        made.attrs["units"] = units
    made.attrs.update(attributes)
    return made


def link(parent: Node, name: str, target: Node) -> None:
    """Make a NeXus link: a hard link, and an attribute that says which of the two names is the original."""
    target.attrs["target"] = target.name
    parent[name] = target


def plot(entry: Node, name: str, signal: str, axes: list[str], title: str) -> Node:
    """Create an NXdata group, ready to be filled with the fields that ``signal`` and ``axes`` name."""
    made = group(entry, name, "NXdata", title=title)
    made.attrs.update({"signal": signal, "axes": axes})
    return made
