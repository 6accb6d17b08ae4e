"""The programs that make a desktop: how each is started, what it waits for, and how urgent it is.

Order matters for the first picture: window manager, wallpaper and panel run side by side with the streaming server's imports; what
nobody sees at once (settings, sound) starts when the desktop is on the screen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from beamdesk.guest import encoder
from beamdesk.guest.accounts import Person
from beamdesk.guest.cards import RenderNode
from beamdesk.guest.errors import SetupError
from beamdesk.protocol.guest import Identity, Stream

DISPLAY_NUMBER = 0
SCREEN = (5120, 2880)
"""The largest size the screen can get: Debian's Xvfb cannot grow past its first one. Costs 59 MB."""
FIRST_SIZE = (1920, 1080)
BACKGROUND = 0x173A56
"""The wallpaper's middle tone: what is seen until the wallpaper is drawn."""
_XFCONFD = "/usr/lib/x86_64-linux-gnu/xfce4/xfconf/xfconfd"
_LOCALES = {"zh": ("zh_CN.UTF-8", "zh_CN:zh:en")}


class Stage(StrEnum):
    """What must be true before a program is started."""

    NOTHING = "nothing"
    DISPLAY = "display"
    DESKTOP = "desktop"


@dataclass(frozen=True, slots=True)
class Component:
    """One program. ``vital``: without it all others are started anew. ``spare``: started in its place when it ends again."""

    name: str
    title: str
    command: tuple[str, ...]
    after: Stage = Stage.DISPLAY
    vital: bool = False
    nice: int = 0
    victim: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    spare: Component | None = None


def environment(person: Person, identity: Identity, nodes: Sequence[RenderNode] = ()) -> dict[str, str]:
    """Return the environment of everything that runs as the person. ``nodes``: the cards that Mesa drives."""
    # without one Mesa would look for a card before it draws on the CPUs; NVIDIA's own libraries do not read this
    graphics = {} if nodes else {"LIBGL_ALWAYS_SOFTWARE": "1"}
    lang, language = _LOCALES.get(identity.language, ("en_US.UTF-8", "en"))
    return {
        "HOME": str(person.home),
        "USER": person.login,
        "LOGNAME": person.login,
        "SHELL": "/bin/bash",
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games",
        "LANG": lang,
        "LANGUAGE": language,
        "DISPLAY": f":{DISPLAY_NUMBER}",
        "XAUTHORITY": str(person.runtime / "Xauthority"),
        "XDG_RUNTIME_DIR": str(person.runtime),
        "XDG_CURRENT_DESKTOP": "XFCE",
        "XDG_SESSION_DESKTOP": "xfce",
        "DESKTOP_SESSION": "xfce",
        "XDG_SESSION_TYPE": "x11",
        "XDG_MENU_PREFIX": "xfce-",
        "XDG_CONFIG_DIRS": "/etc/xdg",
        "XDG_DATA_DIRS": "/usr/local/share:/usr/share",
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={person.runtime}/bus",
        "PULSE_SERVER": f"unix:{person.runtime}/pulse/native",
        # neither accessibility bus nor GVFS daemons: nobody uses them here and each delays every program
        "NO_AT_BRIDGE": "1",
        "GTK_A11Y": "none",
        "GIO_USE_VFS": "local",
        "GTK_CSD": "0",
        "QT_QPA_PLATFORMTHEME": "gtk3",
        "QT_X11_NO_MITSHM": "0",
        "BEAMDESK_DESKTOP": identity.desktop_id,
        **graphics,
    }


def components(person: Person, stream: Stream, coding: Mapping[str, str]) -> tuple[Component, ...]:
    """Return all programs of a desktop, in the order to start them. ``coding``: on what the picture is coded."""
    runtime = person.runtime
    return (
        Component("xserver", "the X server", x_server(runtime), Stage.NOTHING, vital=True),
        Component("bus", "the message bus", _bus(runtime), Stage.NOTHING, vital=True),
        streaming_server(person, stream, coding),
        Component("wm", "the window manager", ("/usr/bin/xfwm4", "--replace", "--compositor=off", "--sm-client-disable")),
        Component("desktop", "the wallpaper and icons", ("/usr/bin/xfdesktop", "--sm-client-disable"), victim=True),
        Component("panel", "the panel", ("/usr/bin/xfce4-panel", "--sm-client-disable"), victim=True),
        Component(
            "settings", "the settings", ("/usr/bin/xfsettingsd", "--no-daemon", "--sm-client-disable"), Stage.DESKTOP, nice=5
        ),
        Component("sound", "the sound server", _SOUND, Stage.DESKTOP, nice=2),
    )


def streaming_server(person: Person, stream: Stream, coding: Mapping[str, str]) -> Component:
    """Return the streaming server; one that codes on a card has a spare that touches none."""

    def coded(how: Mapping[str, str], spare: Component | None) -> Component:
        settings = selkies_environment(person, stream, how)
        return Component("stream", "the streaming server", selkies_command(), environment=settings, spare=spare)

    on_cpus = coded(encoder.SOFTWARE, None)
    return on_cpus if coding == encoder.SOFTWARE else coded(coding, on_cpus)


def x_server(runtime: Path) -> tuple[str, ...]:
    """Return the command of the X server: local clients only, each with the cookie."""
    width, height = SCREEN
    size = f"{width}x{height}x24"
    # "-s 0": no screen saver; "-noreset": lives on when its last client goes
    return (
        "/usr/bin/Xvfb",
        f":{DISPLAY_NUMBER}",
        "-screen",
        "0",
        size,
        "-dpi",
        "96",
        "-auth",
        str(runtime / "Xauthority"),
        "-nolisten",
        "tcp",
        "-noreset",
        "-s",
        "0",
    )


def _bus(runtime: Path) -> tuple[str, ...]:
    return ("/usr/bin/dbus-daemon", "--session", "--nofork", "--nopidfile", "--nosyslog", f"--address=unix:path={runtime}/bus")


_SOUND = (
    "/usr/bin/pulseaudio",
    "-n",
    "--daemonize=no",
    "--exit-idle-time=-1",
    "--disallow-exit",
    "--use-pid-file=no",
    "--log-target=stderr",
    "--log-level=error",
    "--realtime=no",
    "--high-priority=no",
    "--file=/etc/pulse/beamdesk.pa",
)


def selkies_command() -> tuple[str, ...]:
    """Return the command of the streaming server; its settings are in its environment, where other accounts cannot read them."""
    # isolated: nothing in the person's home can slip a module under the server
    return ("/opt/selkies/bin/python3", "-I", str(Path(__file__).with_name("selkies_launcher.py")))


def selkies_environment(person: Person, stream: Stream, coding: Mapping[str, str]) -> dict[str, str]:
    """Return the streaming server's settings: the picture, sound and clipboard on, every other way in or out off and locked.

    ``coding``: on what it codes the picture (:mod:`beamdesk.guest.encoder`).

    Raises:
        SetupError: ``stream.listen`` is neither ``unix:PATH`` nor ``tcp:ADDRESS:PORT``.
    """
    settings = {
        "MASTER_TOKEN": stream.secret,
        **_listen(stream.listen),
        "MODE": "websockets",
        "ENABLE_DUAL_MODE": "false",
        "ENABLE_BASIC_AUTH": "false",
        "WAYLAND": "false",
        # picture: code what changes, not 60 frames a second of a still screen
        "ENCODER": "h264enc",
        "VIDEO_STREAMING_MODE": "false",
        "FRAMERATE": "60,8-120",
        "ENABLE_RESIZE": "true",
        "SECOND_SCREEN": "false",
        # sound and clipboard, both directions, pictures too
        "AUDIO_ENABLED": "true",
        "AUDIO_DEVICE_NAME": "output.monitor",
        "ENABLE_CLIPBOARD": "true",
        "ENABLE_BINARY_CLIPBOARD": "true",
        # what the portal does better or nobody may do from a browser
        "MICROPHONE_ENABLED": "false|locked",
        "WEBCAM_ENABLED": "false|locked",
        "WEBCAM_DEVICE": "false",
        "GAMEPAD_ENABLED": "false|locked",
        "UINPUT_GAMEPAD": "false",
        "COMMAND_ENABLED": "false|locked",
        "FILE_TRANSFERS": "none",
        "FILE_MANAGER_PATH": str(person.runtime / "no-files"),
        "PRINTING_ENABLED": "false|locked",
        "PRINT_SPOOL_PATH": str(person.runtime / "no-print"),
        "UI_SIDEBAR_SHOW_APPS": "false",
        "ENABLE_SHARING": "false",
        "ENABLE_SHARED": "false",
        "ENABLE_PLAYER2": "false",
        "ENABLE_PLAYER3": "false",
        "ENABLE_PLAYER4": "false",
        "ENABLE_METRICS_HTTP": "false",
        # no pages from the desktop: they come from the gateway
        "WEB_ROOT": "/var/empty",
    }
    return {f"SELKIES_{name}": value for name, value in (settings | dict(coding)).items()}


def listen_address(listen: str) -> tuple[str, str, int]:
    """Split ``unix:PATH`` or ``tcp:ADDRESS:PORT`` into kind, path or address, and port."""
    kind, _colon, rest = listen.partition(":")
    if kind == "unix" and rest.startswith("/"):
        return kind, rest, 0
    address, _colon, port = rest.rpartition(":")
    if kind == "tcp" and address and port.isdigit() and 0 < int(port) < 65536:
        return kind, address.strip("[]"), int(port)
    raise SetupError("the stream's address is neither unix:PATH nor tcp:ADDRESS:PORT")


def _listen(listen: str) -> dict[str, str]:
    kind, where, port = listen_address(listen)
    return {"UNIX_SOCKET": where} if kind == "unix" else {"ADDR": where, "PORT": str(port)}
