"""On what the streaming server codes the picture: on the desktop's card where it has one, on the CPUs otherwise.

Selkies finds NVENC and VA-API by itself and codes on the CPUs where neither works. What it cannot survive is a driver that ends or
hangs the whole server; then the supervisor starts it with :data:`SOFTWARE`, and no driver is touched any more.
"""

from __future__ import annotations

from collections.abc import Sequence

from beamdesk.guest.cards import RenderNode

SOFTWARE = {"USE_CPU": "true|locked", "GPU_ID": "-1"}
"""Locked: a viewer's page must not switch the card's encoder on again."""
FALLEN_BACK = (
    "The streaming server failed while it used the graphics card ({how}). The CPUs encode the picture now, which takes some of "
    "their time."
)


def settings(nvidia: Sequence[int], nodes: Sequence[RenderNode]) -> dict[str, str]:
    """Return the streaming server's settings for these cards.

    Selkies takes the first card when it is not told: ``renderD128``, which in a container is often another desktop's. NVIDIA's
    are found through their driver, which shows the desktop's own only.
    """
    if not nvidia and not nodes:
        return dict(SOFTWARE)  # skips the search for encoders that cannot be there
    return {} if nvidia else {"ENCODE_DRI": str(nodes[0].path)}
