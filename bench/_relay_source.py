"""A stream server that sends as fast as a kernel lets it, for measuring relays: ``python -m bench._relay_source SOCKET``.

Commands are text messages: ``echo ...`` comes back; ``send SIZE RATE COUNT`` sends binary messages that begin with the monotonic
time of their sending (rate 0: as fast as possible). ``POST /api/tokens`` is answered with 200, as the streaming server does.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import struct
import sys
import threading
import time

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame_head(size: int, opcode: int = 2) -> bytes:
    first = bytes([0x80 | opcode])
    if size < 126:
        return first + bytes([size])
    return first + (b"\x7e" + struct.pack(">H", size) if size < 65536 else b"\x7f" + struct.pack(">Q", size))


def receive(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def serve(connection: socket.socket) -> None:
    with connection, contextlib.suppress(EOFError, OSError):
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(4096) or b"\r\n\r\n"
        if head.startswith(b"POST "):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            connection.recv(65536)
            return
        key = next(line.split(b": ", 1)[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        connection.sendall(answer + accept + b"\r\n\r\n")
        while True:
            obey(connection, read_command(connection))


def read_command(connection: socket.socket) -> bytes:
    head = receive(connection, 2)
    mask = receive(connection, 4)
    data = receive(connection, head[1] & 127)
    return bytes(byte ^ mask[index & 3] for index, byte in enumerate(data))


def obey(connection: socket.socket, command: bytes) -> None:
    word, *arguments = command.split()
    if word == b"echo":
        connection.sendall(frame_head(len(command)) + command)
        return
    size, rate, count = int(arguments[0]), float(arguments[1]), int(arguments[2])
    head, padding, due = frame_head(size), bytes(size - 8), time.monotonic()
    for _ in range(count):
        if rate:
            due += 1 / rate
            time.sleep(max(0.0, due - time.monotonic()))
        connection.sendall(head + struct.pack(">d", time.monotonic()) + padding)


def main() -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(sys.argv[1])
    server.listen()
    while True:
        connection, _ = server.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
