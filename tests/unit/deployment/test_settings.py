"""Settings: defaults, order of sources, and errors that name file and key."""

import pytest

from beamdesk.domain.errors import ConfigurationError
from beamdesk.scheduling.policy import POLICIES
from beamdesk.scheduling.vocabulary import Words
from beamdesk.settings import load_settings

SIZE = "id = 'g'\ntitle_en = 'G'\ntitle_zh = 'G'\nvcpus = 4\nmemory_mib = 8192\ndisk_gib = 10"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    import os

    for name in list(os.environ):
        if name.startswith("BEAMDESK_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr("beamdesk.settings.DEFAULT_CONFIG", tmp_path / "absent.toml")


def test_defaults_need_no_file():
    settings = load_settings()
    assert settings.origin == "http://localhost:8080"
    assert [flavor.id for flavor in settings.flavors] == ["small", "medium", "large", "gpu.small"]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_of_the_core_may_be_named(tmp_path, policy):
    file = tmp_path / "b.toml"
    file.write_text(f"[scheduling]\npolicy = '{policy}'")
    assert load_settings(file).scheduling.policy == policy


def test_the_environment_wins_over_the_file(tmp_path, monkeypatch):
    file = tmp_path / "b.toml"
    file.write_text("port = 9000\n[lease]\ninitial_hours = 3\nidle_hours = 1\n")
    monkeypatch.setenv("BEAMDESK_PORT", "9001")
    monkeypatch.setenv("BEAMDESK_LEASE__IDLE_HOURS", "5")
    settings = load_settings(file)
    assert settings.port == 9001
    assert (settings.lease.initial_hours, settings.lease.idle_hours) == (3, 5)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("port = ", "not valid TOML"),
        ("port = 'many'", "port"),
        ("prot = 8080", "prot"),
        ("[lease]\ninitial_hours = -1", "lease.initial_hours"),
        ("[lease]\ninitial_hours = inf", "lease.initial_hours"),
        ("[lease]\nextension_hours = nan", "lease.extension_hours"),
        ("[lease]\nidle_warn_minutes = 1e300", "lease.idle_warn_minutes"),
        ("state_dir = 'relative'", "state_dir"),
        ("gateway_port = 8080", "must differ"),
        ("tls_key = '/k.pem'", "belong together"),
        ("database_url = 'mysql://x'", "database_url"),
        ("flavors = []", "flavors"),
        ("[scheduling]\npolicy = 'fastest'", "scheduling.policy"),
        (f"[[flavors]]\n{SIZE}\nspecs = {{'beamdesk:gpu_memry_mib' = '1'}}", "Did you mean beamdesk:gpu_memory_mib"),
        (f"[[flavors]]\n{SIZE}\nspecs = {{'beamdesk:gpu_memory_mib' = '1'}}", "size g: beamdesk:gpus is 0"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path, text, named):
    file = tmp_path / "b.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        load_settings(file)
    assert named in refused.value.message
    assert str(file) in refused.value.message


def test_a_size_may_ask_for_more_than_amounts(tmp_path):
    file = tmp_path / "b.toml"
    file.write_text(f"[[flavors]]\n{SIZE}\ngpus = 1\nspecs = {{'beamdesk:gpu_models' = 'A100', 'beamdesk:aggregates' = 'B7|B8'}}")
    (size,) = (one.flavor() for one in load_settings(file).flavors)
    assert size.words == Words(gpu_models=frozenset({"A100"}), aggregates=frozenset({"B7", "B8"}))


def test_binary_garbage_is_a_configuration_error(tmp_path):
    file = tmp_path / "b.toml"
    file.write_bytes(b"\xff\xfe\x00garbage")
    with pytest.raises(ConfigurationError):
        load_settings(file)


def test_a_named_file_that_is_missing_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("BEAMDESK_CONFIG", str(tmp_path / "nowhere.toml"))
    with pytest.raises(ConfigurationError, match="nowhere"):
        load_settings()
