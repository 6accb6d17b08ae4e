"""The device filter of cgroup v2: a BPF program that lets a group open the listed devices and no other.

Builds the few instructions by hand, so that root needs no compiler and no library. See the kernel's
``include/uapi/linux/bpf.h``: ``struct bpf_cgroup_dev_ctx`` holds access and type, major, minor.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from beamdesk.adapters.local.helper import syscalls
from beamdesk.adapters.local.helper.devices import DeviceRule

_BPF_PROG_LOAD = 5
_BPF_PROG_ATTACH = 8
_PROG_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_ALLOW_MULTI = 2
_TYPES = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}

# opcode = class | mode: 64-bit ALU and jumps against an immediate, 32-bit loads from the context in r1.
_LOAD_W = 0x61
_MOVE_REGISTER = 0xBF
_MOVE = 0xB7
_AND = 0x57
_SHIFT_RIGHT = 0x77
_JUMP_IF_NOT = 0x55
_EXIT = 0x95


class _Load(ctypes.Structure):
    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
    )


class _Attach(ctypes.Structure):
    _fields_ = (
        ("target_fd", ctypes.c_uint32),
        ("attach_bpf_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
    )


def _instruction(opcode: int, target: int, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("=BBhi", opcode, target | source << 4, offset, immediate)


def assemble(rules: Sequence[DeviceRule]) -> bytes:
    """Return the program: 1 (allowed) when one rule matches type, numbers and every kind of access asked for, else 0."""
    program = [
        _instruction(_LOAD_W, 2, 1, 0),
        _instruction(_MOVE_REGISTER, 3, 2),
        _instruction(_AND, 2, immediate=0xFFFF),
        _instruction(_SHIFT_RIGHT, 3, immediate=16),
        _instruction(_LOAD_W, 4, 1, 4),
        _instruction(_LOAD_W, 5, 1, 8),
    ]
    for rule in rules:
        forbidden = 7 & ~sum(_ACCESS[letter] for letter in rule.access)
        tests = [(2, _TYPES[rule.kind]), (4, rule.major)]
        if rule.minor is not None:
            tests.append((5, rule.minor))
        length = len(tests) + 5
        program += [
            _instruction(_JUMP_IF_NOT, register, offset=length - 1 - index, immediate=value)
            for index, (register, value) in enumerate(tests)
        ]
        program += [
            _instruction(_MOVE_REGISTER, 6, 3),
            _instruction(_AND, 6, immediate=forbidden),
            _instruction(_JUMP_IF_NOT, 6, offset=2, immediate=0),
            _instruction(_MOVE, 0, immediate=1),
            _instruction(_EXIT, 0),
        ]
    return b"".join((*program, _instruction(_MOVE, 0, immediate=0), _instruction(_EXIT, 0)))


def attach(group: Path, rules: Sequence[DeviceRule]) -> None:
    """Attach the filter to a cgroup v2 folder; it lives as long as the group.

    Raises:
        OSError: the kernel has no BPF or no device filter.
    """
    program = ctypes.create_string_buffer(assemble(rules))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    load = _Load(
        prog_type=_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt=(len(program) - 1) // 8,
        insns=ctypes.addressof(program),
        license=ctypes.addressof(licence),
    )
    program_fd = syscalls.bpf(_BPF_PROG_LOAD, load)
    try:
        group_fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscalls.bpf(
                _BPF_PROG_ATTACH,
                _Attach(
                    target_fd=group_fd,
                    attach_bpf_fd=program_fd,
                    attach_type=_ATTACH_CGROUP_DEVICE,
                    attach_flags=_ALLOW_MULTI,
                ),
            )
        finally:
            os.close(group_fd)
    finally:
        os.close(program_fd)
