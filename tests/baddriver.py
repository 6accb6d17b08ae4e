"""Libraries that stand in for a graphics card's driver which fails the moment it is loaded: the smallest that the loader takes.

Written byte by byte, so that no compiler is needed: one segment, a dynamic section that names an initialiser (System V ABI, chapters
4 and 5), and the initialiser. x86-64 only.
"""

from __future__ import annotations

import struct

CRASH = b"\x0f\x0b"
"""``ud2``: ends the process with SIGILL."""
HANG = b"\xb8\x22\x00\x00\x00\x0f\x05\xeb\xf7"
"""``pause(2)``, again and again."""
_HEADER, _PROGRAM_HEADER, _PROGRAM_HEADERS = 64, 56, 2
_DYNAMIC = _HEADER + _PROGRAM_HEADERS * _PROGRAM_HEADER
_NULL, _HASH, _STRTAB, _SYMTAB, _STRSZ, _SYMENT, _INIT = 0, 4, 5, 6, 10, 11, 12


def library(initialiser: bytes) -> bytes:
    """Return a shared library that runs ``initialiser``, machine code, when it is loaded."""
    tables = _DYNAMIC + 7 * 16
    hash_at, symbols_at, strings_at, code_at = tables, tables + 24, tables + 48, tables + 56
    entries = (
        (_HASH, hash_at),
        (_STRTAB, strings_at),
        (_SYMTAB, symbols_at),
        (_STRSZ, 8),
        (_SYMENT, 24),
        (_INIT, code_at),
        (_NULL, 0),
    )
    dynamic = b"".join(struct.pack("<QQ", tag, value) for tag, value in entries)
    no_symbols = struct.pack("<5I", 1, 1, 0, 0, 0).ljust(24, b"\0") + bytes(24) + bytes(8)
    size = code_at + len(initialiser)
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = identity + struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, _HEADER, 0, 0, _HEADER, _PROGRAM_HEADER, _PROGRAM_HEADERS, 64, 0, 0
    )
    load = struct.pack("<IIQQQQQQ", 1, 7, 0, 0, 0, size, size, 0x1000)
    where = struct.pack("<IIQQQQQQ", 2, 6, _DYNAMIC, _DYNAMIC, _DYNAMIC, len(dynamic), len(dynamic), 8)
    return header + load + where + dynamic + no_symbols + initialiser
