"""The device filter's program, run on a small model of the BPF machine."""

from __future__ import annotations

import struct

import pytest

from beamdesk.adapters.local.helper.bpf import assemble
from beamdesk.adapters.local.helper.devices import STANDARD, DeviceRule

RULES = (*STANDARD, DeviceRule("c", 195, 0, "rw"), DeviceRule("b", 8, None, "r"))
BLOCK, CHAR = 1, 2
MAKE, READ, WRITE = 1, 2, 4


def run(program: bytes, access: int, kind: int, major: int, minor: int) -> int:
    context = struct.pack("=III", access << 16 | kind, major, minor)
    registers = [0] * 11
    at = 0
    while True:
        opcode, pair, offset, immediate = struct.unpack_from("=BBhi", program, at * 8)
        target, source = pair & 15, pair >> 4
        at += 1
        match opcode:
            case 0x61:
                (registers[target],) = struct.unpack_from("=I", context, offset)
            case 0xBF:
                registers[target] = registers[source]
            case 0xB7:
                registers[target] = immediate
            case 0x57:
                registers[target] &= immediate
            case 0x77:
                registers[target] >>= immediate
            case 0x55:
                at += offset if registers[target] != immediate else 0
            case 0x95:
                return registers[0]
            case other:
                raise AssertionError(other)


@pytest.mark.parametrize(
    ("access", "kind", "major", "minor", "allowed"),
    [
        (READ, CHAR, 1, 3, True),
        (MAKE | READ | WRITE, CHAR, 1, 3, True),
        (READ, BLOCK, 1, 3, False),
        (READ, CHAR, 1, 1, False),
        (READ | WRITE, CHAR, 136, 17, True),
        (READ | WRITE, CHAR, 195, 0, True),
        (MAKE, CHAR, 195, 0, False),
        (READ, CHAR, 195, 1, False),
        (READ, BLOCK, 8, 99, True),
        (WRITE, BLOCK, 8, 99, False),
        (READ, BLOCK, 7, 0, False),
        (READ | WRITE, CHAR, 10, 229, False),
    ],
)
def test_only_what_a_rule_names_is_allowed(access: int, kind: int, major: int, minor: int, allowed: bool) -> None:
    assert run(assemble(RULES), access, kind, major, minor) == allowed


def test_without_rules_nothing_is_allowed() -> None:
    assert run(assemble(()), READ, CHAR, 1, 3) == 0
