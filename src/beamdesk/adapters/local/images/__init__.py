"""Builds the root file systems of desktops from the recipes in ``deploy/images/`` and publishes them by content hash.

Runs as root when a deployment is installed (``python -m beamdesk.adapters.local.images build --cache DIR``). Standard library
only, and nothing of Beamdesk but this package: it must work before any virtual environment exists, with Debian's own Python.
It must not know desktops, people or the helper; it only leaves directories and JSON behind.

Recipes
-------
``layers/<layer>/layer.toml``::

    parent = "base"                     # absent in the one root layer, which names a Debian suite instead
    suite = "bookworm"
    dpkg = ["path-exclude=...", ...]    # options of dpkg and apt, kept in the root for all layers above
    apt = [...]
    packages = ["xvfb", ...]            # apt, without recommended packages
    venvs = [{path = "/opt/x", requirements = "x.lock", system_site_packages = false}]
    copies = [{source = "../../icons", target = "/usr/share/..."}]

Beside it, both optional: ``files/`` is copied over the root, then ``setup.sh`` runs inside it (``bash -eu``, no network).

``<image>/image.toml`` names its top ``layer``, ``order``, ``[title]``, ``[description]`` (``en``, ``zh``), ``beamlines`` and the
``[[software]]`` that the catalogue shows; ``default = false`` if it is only built when asked for. ``[scheduling]``, optional, says
what it asks of a host and its cards, such as ``gpu_memory_mib = "40000"`` (docs/reference/scheduling-vocabulary.md).

The cache
---------
::

    layers/<hash>/            one overlay layer: root:root, no set-uid files; the directory above it is closed to everybody else
    index/<hash>.json         {"layers": ["/.../layers/<guest layer>", ..., "/.../layers/<base>"]}, absolute, topmost first
    icons/<icon>.svg          the pictures that ``software[].icon`` names
    catalog.json              {"format": 1, "images": [IMAGE, ...]} in the order to show them
    log/<layer>.log           output of the last build of that layer

A container's root is an overlay of exactly the listed layers. ``IMAGE``::

    {"id": "imaging", "hash": "<64 hex>", "title": {"en": "...", "zh": "..."}, "description": {"en": "...", "zh": "..."},
     "beamlines": ["B7"],              # empty: for every experiment
     "software": [{"name": "silx view", "command": "silx view", "icon": "silx", "description": {"en": "...", "zh": "..."}}],
     "words": {"gpu_memory_mib": "40000"},
     "size_bytes": 1234567890}         # of all layers, shared ones included

A layer's hash covers its recipe's files, its copies and its parent's hash; the guest layer's covers the source of
``beamdesk.guest`` and ``beamdesk.protocol``. An image's hash covers its layers, so whoever starts by hash gets what was built.
Every file appears by rename, complete: readers need no lock. Layers no image uses any more are kept until ``prune`` is run.
"""
