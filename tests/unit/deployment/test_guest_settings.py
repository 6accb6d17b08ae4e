"""What a site may say of its desktops: nothing that could not work gets past the start."""

import pytest

from beamdesk.domain.errors import ConfigurationError
from beamdesk.pace import timings
from beamdesk.settings import load_settings
from beamdesk.wiring import guest_site

RAW = 'area = "raw"\nkind = "nfs4"\nsource = "nfs.example:/export/${folder}/raw"\n'


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.delenv("BEAMDESK_CONFIG", raising=False)

    def load(text):
        path = tmp_path / "beamdesk.toml"
        path.write_text(text)
        return load_settings(path)

    return load


def test_one_machine_needs_no_settings_and_has_the_hosts_mounts(load):
    site = guest_site(load(""))
    assert [area.kind for area in site.areas] == ["bind", "bind"]
    assert site.stream_listen.startswith("unix:")


def test_in_a_cloud_desktops_listen_on_the_network_and_mount_the_sites_storage(load):
    site = guest_site(load(f'cloud = "openstack"\n[openstack]\nstream_port = 9000\n[[guest.storage]]\n{RAW}'))
    assert site.stream_listen == "tcp:0.0.0.0:9000"
    assert [area.mount("e1").source for area in site.areas] == ["nfs.example:/export/e1/raw"]


def test_machines_get_more_time_than_containers(load):
    assert timings(load('cloud = "openstack"')).silent > timings(load("")).silent
    assert timings(load("[guest]\nsilent_after_s = 7")).silent.total_seconds() == 7


def test_a_storage_secret_is_read_from_its_file_only(load, tmp_path):
    (tmp_path / "key").write_text("AQB==\n")
    text = f'cloud = "openstack"\n[[guest.storage]]\narea = "raw"\nkind = "ceph"\nsource = "h:/x"\nsecret_file = "{tmp_path}/key"'
    assert guest_site(load(text)).areas[0].secret == "AQB=="
    (tmp_path / "key").unlink()
    with pytest.raises(ConfigurationError, match="secret"):
        guest_site(load(text))


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('[guest]\nhost = "0.0.0.0"', "HTTPS only"),
        ('[guest]\ntls_certificate = "/x"', "belong together"),
        (f"[[guest.storage]]\n{RAW}[[guest.storage]]\n{RAW}", "twice"),
        ('[[guest.storage]]\narea = "raw"\nkind = "cifs"\nsource = "//h/x"', "kind"),
        ('[[guest.storage]]\narea = "raw"\nkind = "nfs4"\nsource = "h:/x,suid"', "not understood"),
        ('[[guest.storage]]\narea = "raw"\nkind = "nfs4"\nsource = "h:/x"\noptions = "rw"', "not allowed"),
        ('[[guest.storage]]\narea = "raw"\nkind = "nfs4"\nsource = "h:/${login}"', "folder"),
    ],
)
def test_what_cannot_work_is_said_at_the_start(load, text, cause):
    with pytest.raises(ConfigurationError, match=cause):
        load(text)
