"""In Nova's own handlers, without services: the plugins choose host and cards as the core does, over 250 hosts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from beamdesk.plugins.nova.journal import entries
from beamdesk.scheduling.cards import CardState
from beamdesk.scheduling.vocabulary import from_extra_specs
from controlplane.environment import ensure_venv
from novakit import MODELS, Site, card, host
from novaplane import SnapshotApi, decide_inside, python_path

pytestmark = pytest.mark.openstack

KINDS: tuple[dict[str, Any], ...] = (
    {"vcpus": 8, "memory_mib": 32768, "extra_specs": {}},
    {"vcpus": 8, "memory_mib": 32768, "extra_specs": {"beamdesk:gpus": "1"}, "devices": 1},
    {"vcpus": 8, "memory_mib": 32768, "extra_specs": {"beamdesk:gpu_memory_mib": "20000"}, "devices": 1, "product": "20b5"},
    {
        "vcpus": 16,
        "memory_mib": 65536,
        "extra_specs": {"beamdesk:gpus": "2", "beamdesk:gpu_models": "T4"},
        "devices": 2,
        "product": "1eb8",
    },
)


def site(hosts: int) -> Site:
    def one(number: int) -> Any:
        if number % 3 == 0:
            return host(f"h-{number:03d}")
        model = "A100" if number % 3 == 1 else "T4"
        states = [CardState.DIRTY if (number + at) % 7 == 0 else CardState.FREE for at in range(4)]
        return host(f"h-{number:03d}", cards=tuple(card(at, model, state=state) for at, state in enumerate(states)))

    return Site([one(number) for number in range(hosts)])


@pytest.fixture(scope="module")
def python() -> Path:
    """Nova's Python."""
    return ensure_venv(print) / "bin/python"


def job(world: Site, requests: list[dict[str, Any]], api: SnapshotApi, journal: Path) -> dict[str, Any]:
    hosts = [
        {
            "name": one.name,
            "vcpus": one.cpu_milli // 1000,
            "memory_mib": one.memory_mib,
            "cards": [[each.address, MODELS[each.model][4]] for each in one.cards],
        }
        for one in world.table.hosts
    ]
    options = {"api_url": api.url, "credential_file": str(api.credential_file), "journal": str(journal)}
    return {"ours": True, "options": options, "hosts": hosts, "requests": requests}


def test_host_and_cards_are_those_of_the_core_in_every_decision(python: Path, tmp_path: Path) -> None:
    world, chance = site(250), random.Random(4)
    requests = [chance.choice(KINDS) for _ in range(150)]
    api = SnapshotApi(tmp_path)
    try:
        api.serve(world.held.published)
        answers = decide_inside(python, python_path(tmp_path / "path"), job(world, requests, api, tmp_path / "journal"))
    finally:
        api.stop()
    for number, (asked, answer) in enumerate(zip(requests, answers, strict=True)):
        request = from_extra_specs(f"r-{number}", vcpus=asked["vcpus"], memory_mib=asked["memory_mib"], flavor=asked["extra_specs"])
        expected = world.core.place(request, 0.0)
        assert (answer["host"], answer["cards"]) == (expected.host, sorted(one.address for one in expected.grants)), number
    assert sum(answer["host"] is not None for answer in answers) == 150
    kept = list(entries(tmp_path / "journal"))
    assert [one.source for one in kept] == ["records"] * 150
    assert [one.decision.host for one in kept if one.decision] == [answer["host"] for answer in answers]


def test_a_misspelt_word_finds_no_host_and_the_journal_says_why(python: Path, tmp_path: Path) -> None:
    world = site(6)
    api = SnapshotApi(tmp_path)
    requests = [
        {"vcpus": 1, "memory_mib": 1024, "extra_specs": {"beamdesk:gpu_memry_mib": "1"}},
        {"vcpus": 1, "memory_mib": 1024, "extra_specs": {}, "hints": {"beamdesk_gpus": "1"}},
    ]
    try:
        api.serve(world.held.published)
        answers = decide_inside(python, python_path(tmp_path / "path"), job(world, requests, api, tmp_path / "journal"))
    finally:
        api.stop()
    assert [answer["host"] for answer in answers] == [None, None]
    first, second = (str(one.refused) for one in entries(tmp_path / "journal"))
    assert "Did you mean beamdesk:gpu_memory_mib" in first
    assert "PCI aliases give 0" in second
