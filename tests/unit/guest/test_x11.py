import contextlib
import socket
import struct
import threading

import pytest

from beamdesk.guest.errors import DisplayError
from beamdesk.guest.x11 import MAX_REPLY_BYTES, Display


def greeting(body_words=None):
    """A correct answer to a connection: one screen, root 0x2a, depth 24."""
    body = struct.pack("<IIIIHHBBBBBBBB4x", 0, 0x200000, 0x1FFFFF, 0, 4, 65535, 1, 0, 0, 0, 32, 32, 8, 255) + b"Test"
    body += struct.pack("<IIIIIHHHHHHIBBBB", 0x2A, 0, 0, 0, 0, 640, 480, 100, 100, 1, 1, 0x21, 0, 0, 24, 0)
    return struct.pack("<BxHHH", 1, 11, 0, len(body) // 4 if body_words is None else body_words) + body


@contextlib.contextmanager
def server(folder, *answers):
    """An X server that reads and then sends ``answers``, one for each thing it is told."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "X7"))
    listener.listen()

    def serve():
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            for answer in answers:
                connection.recv(65536)
                connection.sendall(answer)
            connection.settimeout(2)
            while connection.recv(65536):
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as last:
            last.connect(str(folder / "X7"))
        thread.join()
        listener.close()


def connect(folder, timeout=0.5):
    return Display(7, bytes(16), timeout=timeout, sockets=folder)


def test_greeting_is_understood(tmp_path):
    with server(tmp_path, greeting()):
        display = connect(tmp_path)
        assert (display.root, display.root_visual, display.root_depth) == (0x2A, 0x21, 24)
        display.close()


def test_a_missing_server_is_an_error(tmp_path):
    with pytest.raises(DisplayError, match="does not answer"):
        connect(tmp_path)


def test_a_refused_cookie_is_an_error(tmp_path):
    with server(tmp_path, struct.pack("<BBHHH", 0, 4, 11, 0, 1) + b"nope"), pytest.raises(DisplayError, match="refuses"):
        connect(tmp_path)


@pytest.mark.parametrize(
    "answer", [b"", b"\x01\x00\x00", greeting()[:20], struct.pack("<BxHHH", 1, 11, 0, 2) + bytes(8), b"\xff" * 8]
)
def test_a_strange_or_silent_server_is_an_error_in_time(tmp_path, answer):
    with server(tmp_path, answer), pytest.raises(DisplayError):
        connect(tmp_path, timeout=0.2)


def reply(sequence, data=b"", *, kind=1, detail=0, words=None):
    extra = data[24:]
    return (
        struct.pack("<BBHI", kind, detail, sequence, len(extra) // 4 if words is None else words)
        + data[:24].ljust(24, b"\0")
        + extra
    )


def test_events_before_a_reply_are_passed_over(tmp_path):
    event = bytes([28]) + bytes(31)
    size = struct.pack("<IhhHH", 0, 0, 0, 640, 480)
    with server(tmp_path, greeting(), event + event + reply(1, size)):
        display = connect(tmp_path)
        assert display.size(display.root) == (640, 480)
        display.close()


def test_an_error_reply_is_raised(tmp_path):
    with server(tmp_path, greeting(), reply(1, kind=0, detail=3)):
        display = connect(tmp_path)
        with pytest.raises(DisplayError, match="refused"):
            display.size(99)
        display.close()


def test_an_endless_answer_is_refused_before_it_is_read(tmp_path):
    with server(tmp_path, greeting(), reply(1, words=MAX_REPLY_BYTES)):
        display = connect(tmp_path)
        with pytest.raises(DisplayError, match="too long"):
            display.size(1)
        display.close()


def test_a_property_that_claims_more_than_it_brings_is_an_error(tmp_path):
    atom = reply(1, struct.pack("<I", 77))
    lying = reply(2, struct.pack("<III", 4, 0, 500) + bytes(12), detail=32)
    with server(tmp_path, greeting(), atom, lying):
        display = connect(tmp_path)
        with pytest.raises(DisplayError, match="too short"):
            display.words(1, "_NET_WM_WINDOW_TYPE")
        display.close()


def test_a_server_that_dies_is_an_error(tmp_path):
    with server(tmp_path, greeting()):
        display = connect(tmp_path)
        display._socket.shutdown(socket.SHUT_RDWR)
        with pytest.raises(DisplayError):
            display.sync()
        display.close()
