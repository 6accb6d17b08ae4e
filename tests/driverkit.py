"""What the driver's tests look at the real cloud with: another account's eyes, and Nova's and Neutron's own names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from beamdesk.adapters.openstack.names import Names, split_server_id
from beamdesk.domain.ids import ServerId
from controlplane.clouds import ADMIN
from controlplane.fixture import shared


@contextmanager
def eyes(account: str = ADMIN) -> Iterator[Any]:
    """Look at the cloud as somebody else."""
    with shared().connect(account) as sdk:
        yield sdk


def nova_id(server_id: ServerId | None) -> str:
    """Return Nova's own id of a server."""
    assert server_id is not None
    split = split_server_id(server_id)
    assert split is not None
    return split[1]


def ports_of(deployment: str) -> list[Any]:
    """Return the ports of a deployment, whoever looks."""
    with eyes() as sdk:
        return list(sdk.network.ports(description=Names(deployment).description))
