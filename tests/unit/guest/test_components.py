from pathlib import Path

import pytest

from beamdesk.guest import components, encoder
from beamdesk.guest.accounts import Person
from beamdesk.guest.cards import RenderNode
from beamdesk.guest.errors import SetupError
from beamdesk.protocol.guest import Account, Identity, Stream

PERSON = Person("ada", 20001, 20001, (20001, 30001), Path("/home/ada"))
STREAM = Stream("unix:/run/beamdesk/stream/stream.sock", "planted-secret")
IDENTITY = Identity("d1", "planted-token", "t", Account("ada", 20001, 20001, "Ada", (), "/home/ada"), (), STREAM, "zh")


def every():
    return components.components(PERSON, STREAM, encoder.SOFTWARE)


def test_no_secret_is_on_a_command_line():
    assert "planted" not in str([component.command for component in every()])


def test_only_the_streaming_server_is_told_the_secret():
    holders = [component.name for component in every() if "planted" in str(component.environment)]
    assert holders == ["stream"]
    assert "planted" not in str(components.environment(PERSON, IDENTITY))


def test_the_display_is_local_and_needs_the_cookie():
    command = next(component.command for component in every() if component.name == "xserver")
    assert "-ac" not in command
    assert command[command.index("-nolisten") + 1] == "tcp"
    assert "-auth" in command


@pytest.mark.parametrize("name", ["COMMAND", "PRINTING", "MICROPHONE", "WEBCAM", "GAMEPAD"])
def test_other_ways_in_and_out_are_locked_off(name):
    assert components.selkies_environment(PERSON, STREAM, encoder.SOFTWARE)[f"SELKIES_{name}_ENABLED"] == "false|locked"


def test_the_stream_serves_no_files_and_no_pages():
    settings = components.selkies_environment(PERSON, STREAM, encoder.SOFTWARE)
    assert settings["SELKIES_FILE_TRANSFERS"] == "none"
    assert not Path(settings["SELKIES_WEB_ROOT"]).exists() or not any(Path(settings["SELKIES_WEB_ROOT"]).iterdir())


def test_the_language_reaches_programs():
    assert components.environment(PERSON, IDENTITY)["LANG"] == "zh_CN.UTF-8"


@pytest.mark.parametrize(
    ("listen", "address"),
    [("unix:/a/b", ("unix", "/a/b", 0)), ("tcp:10.0.0.1:8080", ("tcp", "10.0.0.1", 8080)), ("tcp:[::1]:80", ("tcp", "::1", 80))],
)
def test_listen_addresses_are_split(listen, address):
    assert components.listen_address(listen) == address


@pytest.mark.parametrize("listen", ["", "unix:relative", "tcp:1.2.3.4", "tcp:1.2.3.4:99999", "http://x"])
def test_other_addresses_are_refused(listen):
    with pytest.raises(SetupError):
        components.listen_address(listen)


def stream(coding):
    return components.streaming_server(PERSON, STREAM, coding)


def test_a_streaming_server_that_uses_no_card_has_no_spare():
    assert stream(encoder.settings((), ())).spare is None
    assert stream(encoder.settings((), ())).environment["SELKIES_GPU_ID"] == "-1"


def test_the_spare_of_one_that_uses_a_card_touches_none_and_is_the_same_otherwise():
    server = stream(encoder.settings((0,), ()))
    assert "SELKIES_GPU_ID" not in server.environment
    assert server.spare == stream(encoder.SOFTWARE)
    assert server.spare.environment["SELKIES_USE_CPU"] == "true|locked"
    assert server.spare.environment["SELKIES_MASTER_TOKEN"] == server.environment["SELKIES_MASTER_TOKEN"]


def test_the_card_of_another_desktop_is_not_looked_for():
    node = RenderNode(Path("/dev/dri/renderD130"), "amdgpu", Path("/sys/x"))
    assert stream(encoder.settings((), (node,))).environment["SELKIES_ENCODE_DRI"] == "/dev/dri/renderD130"


def test_programs_draw_on_the_cpus_only_where_no_card_can():
    node = RenderNode(Path("/dev/dri/renderD130"), "amdgpu", Path("/sys/x"))
    assert components.environment(PERSON, IDENTITY)["LIBGL_ALWAYS_SOFTWARE"] == "1"
    assert "LIBGL_ALWAYS_SOFTWARE" not in components.environment(PERSON, IDENTITY, (node,))
