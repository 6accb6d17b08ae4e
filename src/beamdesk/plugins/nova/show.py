"""Decisions of the journal in words: ``python -m beamdesk.plugins.nova.show FILE [SERVER]``. Needs no more than the plugins do."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from beamdesk.plugins.nova.journal import Entry, entries
from beamdesk.scheduling.decision import Decision
from beamdesk.scheduling.errors import SchedulingError
from beamdesk.scheduling.filters import REASONS

SOURCES = {
    "records": "the records of the cards",
    "fallback-refuse": "Nova's data only: the API was silent, no cards were lent",
    "fallback-count": "Nova's data only: the API was silent, cards were counted",
}


def lines(entry: Entry) -> Iterator[str]:
    """Tell of one decision; the first line is a summary."""
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(entry.at))
    if entry.refused is not None or entry.decision is None:
        yield f"{when}  {entry.server}  refused: {entry.refused}"
        return
    decision = entry.decision
    yield f"{when}  {entry.server}  {decision.host or 'no host'}"
    source = SOURCES.get(entry.source, entry.source)
    yield f"  policy {decision.policy}, by {source}; {entry.offered} hosts offered, {entry.took * 1e3:.1f} ms"
    if entry.cards:
        yield f"  cards: {', '.join(entry.cards)}"
    if decision.impossible is not None:
        yield f"  {decision.impossible}"
    yield from _ranking(decision)
    for reason, count in decision.refusals:
        yield f"  {count:4} hosts: {REASONS.get(reason, reason)}"


def _ranking(decision: Decision) -> Iterator[str]:
    for number, one in enumerate(decision.ranking, start=1):
        parts = "  ".join(f"{name} {value:+.4f}" for name, value in one.contributions)
        tier = f"tier {one.tier}  " if any(other.tier for other in decision.ranking) else ""
        yield f"  {number}. {one.host}  {tier}{one.total:+.4f} = {parts}"
    if decision.possible > len(decision.ranking):
        yield f"  {decision.possible - len(decision.ranking)} more hosts could take it"


def main(arguments: list[str]) -> int:
    """Print the summaries of all decisions, or all that is known of one server's."""
    if len(arguments) not in {1, 2}:
        sys.stderr.write("usage: python -m beamdesk.plugins.nova.show FILE [SERVER]\n")
        return 2
    path, server = Path(arguments[0]), arguments[1] if len(arguments) == 2 else None
    shown = 0
    try:
        for entry in entries(path):
            if server is None:
                sys.stdout.write(f"{next(lines(entry))}\n")
            elif entry.server == server:
                sys.stdout.write("".join(f"{line}\n" for line in lines(entry)))
            else:
                continue
            shown += 1
    except (OSError, SchedulingError) as error:
        sys.stderr.write(f"{path}: {error}\n")
        return 1
    if not shown:
        sys.stderr.write(f"{path} has no decision{f' for {server}' if server else ''}.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
