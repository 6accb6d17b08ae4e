"""How quick the machine is while something is measured on it: the same small piece of work again and again, in CPU seconds.

Virtual machines share caches and clocks with others, so that the same work takes a fifth more at one time than at another. Two
storms are only comparable as far as this piece of work took as long in both.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

PAUSE_S = 2.0
"""Between two pieces: together they take less than a hundredth of a CPU."""


class Speed:
    """What the pieces took: (when, seconds of CPU)."""

    def __init__(self) -> None:
        self.pieces: list[tuple[float, float]] = []

    def piece_ms(self, begun: float, ended: float) -> float:
        """Return the median piece between two times, in milliseconds; NaN where there was none."""
        between = sorted(took for at, took in self.pieces if begun <= at <= ended)
        return between[len(between) // 2] * 1000 if between else float("nan")


@contextmanager
def watched() -> Iterator[Speed]:
    """Do pieces in a process of its own; they can be read at the end."""
    speed = Speed()
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(theirs,), daemon=True)
    process.start()
    try:
        yield speed
    finally:
        ours.send("end")
        speed.pieces += ours.recv()
        process.join()


def _work(told: Connection) -> None:
    pieces = []
    while not told.poll(PAUSE_S):
        before = time.process_time()
        _piece()
        pieces.append((time.time(), time.process_time() - before))
    told.send(pieces)


def _piece() -> None:
    """Do what services do all day: make records, write them down, read them, sort them."""
    records = [{"id": f"{number:08x}", "name": f"server-{number}", "host": number % 250} for number in range(2000)]
    read = json.loads(json.dumps(records))
    sorted(read, key=lambda record: (record["host"], record["id"]))
