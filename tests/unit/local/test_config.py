from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from beamdesk.adapters.local.helper.config import IdRange, load, parse, require_root_only
from beamdesk.adapters.local.helper.errors import BadConfig

GOOD: dict[str, Any] = {
    "allowed_uid": 990,
    "socket_gid": 990,
    "run_dir": "/srv/run",
    "state_dir": "/srv/state",
    "homes_dir": "/srv/homes",
    "images_index_dir": "/srv/images",
    "data_root": "/srv/data",
    "guest_api_dir": "/srv/api",
}


def test_the_least_configuration_has_safe_defaults() -> None:
    config = parse(GOOD)
    assert config.socket == Path("/srv/run/helper.sock")
    assert config.person_ids == IdRange(20000, 29999)
    assert config.experiment_gids == IdRange(30000, 39999)
    assert config.container_ids.first > 65535
    assert config.init == ("/usr/bin/python3", "-m", "beamdesk.guest")


def test_ranges_are_inclusive() -> None:
    config = parse({**GOOD, "person_ids": [100, 200]})
    assert 100 in config.person_ids
    assert 200 in config.person_ids
    assert 99 not in config.person_ids
    assert 201 not in config.person_ids


@pytest.mark.parametrize(
    "change",
    [
        {"allowed_uid": "990"},
        {"allowed_uid": True},
        {"allowed_uid": -1},
        {"socket_gid": None},
        {"run_dir": "run"},
        {"run_dir": "/srv/../etc"},
        {"run_dir": "/srv/a,b"},
        {"run_dir": "/srv/a:b"},
        {"run_dir": ""},
        {"person_ids": [1]},
        {"person_ids": [200, 100]},
        {"person_ids": [0, 100]},
        {"init": []},
        {"init": "python3"},
        {"vcpus": 1.5},
        {"pids_max": 0},
        {"surprise": 1},
        {"person_ids": [20000, 70000]},
        {"container_ids": [1000, 90000000]},
        {"container_ids": [100000, 200000]},
    ],
)
def test_a_wrong_key_or_value_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadConfig, match=next(iter(change))):
        parse({**GOOD, **change})


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_missing_key_is_named(name: str) -> None:
    with pytest.raises(BadConfig, match=name):
        parse({key: value for key, value in GOOD.items() if key != name})


def write(path: Path, mode: int = 0o600) -> Path:
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in GOOD.items()))
    path.chmod(mode)
    return path


@pytest.mark.root
def test_a_file_that_only_root_writes_is_read(tmp_path: Path) -> None:
    assert load(write(tmp_path / "helper.toml", 0o644)).allowed_uid == 990


@pytest.mark.root
@pytest.mark.parametrize("mode", [0o660, 0o602, 0o666])
def test_a_file_that_others_write_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(BadConfig, match="nobody else can write"):
        load(write(tmp_path / "helper.toml", mode))


@pytest.mark.root
def test_a_link_or_a_missing_or_broken_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "helper.toml")
    (tmp_path / "link.toml").symlink_to("helper.toml")
    (tmp_path / "broken.toml").write_text("= nonsense")
    for name in ("link.toml", "absent.toml", "broken.toml"):
        with pytest.raises(BadConfig, match=name):
            load(tmp_path / name)


@pytest.mark.root
def test_a_folder_that_others_can_exchange_is_refused(tmp_path: Path) -> None:
    safe = tmp_path / "safe"
    (safe / "below").mkdir(parents=True)
    require_root_only(safe / "below")
    safe.chmod(0o777)
    with pytest.raises(BadConfig, match="safe: must be a folder of root"):
        require_root_only(safe / "below")
    safe.chmod(0o1777)
    require_root_only(safe / "below")
    (tmp_path / "link").symlink_to("safe")
    with pytest.raises(BadConfig, match="link"):
        require_root_only(tmp_path / "link/below")
