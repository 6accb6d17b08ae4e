"""Libraries that stand in for those of a graphics card's driver, in a desktop that is not ours to compile in.

Written byte by byte, so that no compiler is needed: one segment, a dynamic section (System V ABI, chapters 4 and 5), a table of symbols, and
some machine code. x86-64 only.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

CRASH = b"\x0f\x0b"
"""``ud2``: ends the process with SIGILL."""
HANG = b"\xb8\x22\x00\x00\x00\x0f\x05\xeb\xf7"
"""``pause(2)``, again and again."""
NOTHING = b"\xc3"
"""``ret``."""
_DONE = b"\x31\xc0\xc3"
"""``return 0``."""
_HEADER, _PROGRAM_HEADER, _PROGRAM_HEADERS, _SYMBOL = 64, 56, 2, 24
_DYNAMIC = _HEADER + _PROGRAM_HEADERS * _PROGRAM_HEADER
_NULL, _HASH, _STRTAB, _SYMTAB, _STRSZ, _SYMENT, _INIT = 0, 4, 5, 6, 10, 11, 12
_GLOBAL_FUNCTION = 0x12


def library(initialiser: bytes = NOTHING, functions: Mapping[str, bytes] | None = None) -> bytes:
    """Return a shared library that runs ``initialiser`` when it is loaded and has these functions, all given as machine code."""
    functions = functions or {}
    count = len(functions) + 1
    names = b"\0" + b"".join(name.encode() + b"\0" for name in functions)
    hash_at = _DYNAMIC + 7 * 16
    symbols_at = hash_at + _padded(4 * (3 + count))
    names_at = symbols_at + count * _SYMBOL
    code_at = names_at + _padded(len(names))
    entries = (
        (_HASH, hash_at),
        (_STRTAB, names_at),
        (_SYMTAB, symbols_at),
        (_STRSZ, len(names)),
        (_SYMENT, _SYMBOL),
        (_INIT, code_at),
        (_NULL, 0),
    )
    dynamic = b"".join(struct.pack("<QQ", tag, value) for tag, value in entries)
    # one bucket with all symbols behind each other
    chain = [0, *range(2, count), 0][:count]
    hashes = struct.pack(f"<{3 + count}I", 1, count, 1 if functions else 0, *chain)
    symbols, code = bytes(_SYMBOL), initialiser
    for name, body in functions.items():
        symbols += struct.pack(
            "<IBBHQQ", names.index(b"\0" + name.encode() + b"\0") + 1, _GLOBAL_FUNCTION, 0, 1, code_at + len(code), len(body)
        )
        code += body
    size = code_at + len(code)
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = identity + struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, _HEADER, 0, 0, _HEADER, _PROGRAM_HEADER, _PROGRAM_HEADERS, 64, 0, 0
    )
    load = struct.pack("<IIQQQQQQ", 1, 7, 0, 0, 0, size, size, 0x1000)
    where = struct.pack("<IIQQQQQQ", 2, 6, _DYNAMIC, _DYNAMIC, _DYNAMIC, len(dynamic), len(dynamic), 8)
    tables = dynamic + hashes.ljust(_padded(len(hashes)), b"\0") + symbols + names.ljust(_padded(len(names)), b"\0")
    return header + load + where + tables + code


def nvml(percent: int, minor: int = 0) -> bytes:
    """Return a libnvidia-ml.so.1 of a driver with one card, ``/dev/nvidia<minor>``, that is so busy."""
    return library(
        functions={
            "nvmlInit_v2": _DONE,
            "nvmlDeviceGetCount_v2": _into_first(1),
            "nvmlDeviceGetHandleByIndex_v2": _into_second(1),
            "nvmlDeviceGetMinorNumber": _into_second(minor),
            "nvmlDeviceGetUtilizationRates": _into_second(percent),
        }
    )


def _into_first(value: int) -> bytes:
    """``*first = value; return 0``: ``mov dword [rdi]``."""
    return b"\xc7\x07" + struct.pack("<I", value) + _DONE


def _into_second(value: int) -> bytes:
    """``*second = value; return 0``: ``mov dword [rsi]``."""
    return b"\xc7\x06" + struct.pack("<I", value) + _DONE


def _padded(size: int) -> int:
    return -(-size // 8) * 8
