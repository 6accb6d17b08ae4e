"""Ranges and validators of RFC 9110."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamdesk.app.ranges import Span, Unsatisfiable, entity_tag, http_date, not_modified, parse_range, range_still_valid

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-99", Span(0, 99)),
        ("bytes=0-0", Span(0, 0)),
        ("bytes=900-", Span(900, 999)),
        ("bytes=-100", Span(900, 999)),
        ("bytes=-5000", Span(0, 999)),
        ("bytes=10-5000", Span(10, 999)),
        ("BYTES = 1 - 2", Span(1, 2)),
    ],
)
def test_one_range_is_understood(header: str, expected: Span) -> None:
    assert parse_range(header, 1000) == expected


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-1",
        "items=0-9",
        "bytes=0-9,20-29",
        "bytes=0x1-5",
        "bytes=1-²",
        "bytes=+1-2",
    ],
)
def test_anything_else_means_the_whole_file(header: str | None) -> None:
    assert parse_range(header, 1000) is None


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=1000-", 1000), ("bytes=5000-6000", 1000), ("bytes=-0", 1000), ("bytes=0-", 0), ("bytes=-5", 0)]
)
def test_a_range_behind_the_end_cannot_be_served(header: str, size: int) -> None:
    with pytest.raises(Unsatisfiable):
        parse_range(header, size)


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(1, 10**12))
def test_a_span_is_always_within_the_file(first: int, last: int, size: int) -> None:
    try:
        span = parse_range(f"bytes={first}-{last}", size)
    except Unsatisfiable:
        assert first >= size
    else:
        assert span is None or (0 <= span.first <= span.last < size and span.length >= 1)


def facts_of(path: Path, content: bytes, age: timedelta) -> os.stat_result:
    path.write_bytes(content)
    moment = (NOW - age).timestamp()
    os.utime(path, (moment, moment))
    return path.stat()


def test_a_rested_file_has_a_strong_tag(tmp_path: Path) -> None:
    tag = entity_tag(facts_of(tmp_path / "a", b"x", timedelta(hours=1)), NOW)
    assert tag.startswith('"')
    assert tag.endswith('"')


def test_a_fresh_file_has_a_weak_tag(tmp_path: Path) -> None:
    assert entity_tag(facts_of(tmp_path / "a", b"x", timedelta(seconds=1)), NOW).startswith('W/"')


def test_the_tag_changes_with_size_time_and_identity(tmp_path: Path) -> None:
    hour = timedelta(hours=1)
    tags = [
        entity_tag(facts_of(tmp_path / "a", b"x", hour), NOW),
        entity_tag(facts_of(tmp_path / "a", b"xy", hour), NOW),
        entity_tag(facts_of(tmp_path / "a", b"x", 2 * hour), NOW),
        entity_tag(facts_of(tmp_path / "b", b"x", hour), NOW),
    ]
    assert len(set(tags)) == 4


@pytest.mark.parametrize(
    ("if_range", "tag", "valid"),
    [
        (None, '"a"', True),
        ('"a"', '"a"', True),
        ('"b"', '"a"', False),
        ('W/"a"', 'W/"a"', False),
        ('"a"', 'W/"a"', False),
        (http_date(NOW), '"a"', True),
        (http_date(NOW), 'W/"a"', False),
        (http_date(NOW - timedelta(seconds=1)), '"a"', False),
        ("yesterday", '"a"', False),
        ("Sun, 99 Foo 2026 99:99:99 GMT", '"a"', False),
    ],
)
def test_a_range_is_served_only_of_the_same_version(if_range: str | None, tag: str, valid: bool) -> None:
    assert range_still_valid(if_range, tag, NOW + timedelta(microseconds=7)) is valid


@pytest.mark.parametrize(
    ("header", "expected"),
    [(None, False), ('"a"', True), ('W/"a"', True), ('"b", "a"', True), ('"b"', False), ("*", True), ("", False)],
)
def test_not_modified_compares_weakly(header: str | None, expected: bool) -> None:
    assert not_modified(header, 'W/"a"') is expected
