"""What people and programs read."""

import json
from datetime import UTC, datetime

import pytest

from beamdesk.cli.output import clean, left_until, print_fields, print_json, print_table, size

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_columns_line_up_also_with_wide_characters(capsys):
    print_table(("NAME", "STATE"), (("成像线站", "ready"), ("abc", "queued")), empty="")
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["NAME      STATE", "成像线站  ready", "abc       queued"]


def test_an_empty_table_says_so_where_it_does_not_disturb(capsys):
    print_table(("NAME",), (), empty="Nothing here.")
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "Nothing here.\n")


def test_text_from_elsewhere_cannot_drive_the_terminal(capsys):
    print_table(("NAME",), (("\x1b]0;owned\x07\x9b31m\u202eabc",),), empty="")
    print_fields((("Name", "\x1b[2J"), ("Nothing", "")))
    output = capsys.readouterr().out
    assert not set(output) & set("\x1b\x07\x9b\u202e")
    assert "Nothing" not in output


def test_json_is_json(capsys):
    print_json([{"name": "成像\u202e"}])
    assert json.loads(capsys.readouterr().out) == [{"name": "成像\u202e"}]


@pytest.mark.parametrize(
    ("until", "words"),
    [
        ("2026-03-01T11:59:00Z", "ended"),
        ("2026-03-01T12:30:00Z", "30 min"),
        ("2026-03-01T20:00:00+00:00", "8 h"),
        ("2026-03-08T12:00:00Z", "7 d"),
    ],
)
def test_time_left_in_the_unit_that_says_enough(until, words):
    assert left_until(until, NOW) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(None, ""), (0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (188743680, "180.0 MiB"), (5 * 10**13, "45.5 TiB")],
)
def test_sizes(count, words):
    assert size(count) == words


def test_clean_leaves_honest_text_alone():
    assert clean("Sandstone · run 3 成像") == "Sandstone · run 3 成像"
