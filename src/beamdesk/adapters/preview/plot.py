"""Draw a curve as SVG, from numbers and labels that came out of the sandbox: every text is escaped, every number formatted here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Final

from beamdesk.adapters.preview.wire import Curve
from beamdesk.ports.files import printable
from beamdesk.ports.previews import Theme

WIDTH: Final = 880
HEIGHT: Final = 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 18, 40, 56
_LABEL_LENGTH = 90

_LIGHT = "--ink:#1d2733;--quiet:#5b6875;--grid:#d9dfe6;--line:#0b62c4"
_DARK = "--ink:#e8edf3;--quiet:#a3afbd;--grid:#36414e;--line:#6cb2ff"


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear or logarithmic axis from ``low`` to ``high`` over ``start`` to ``end`` pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high, at = (math.log10(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> Iterator[float]:
        """Yield round values within the axis: whole decades, or steps of 1, 2 or 5."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            yield from (10.0**power for power in range(first, last + 1, max(1, (last - first) // 6)))
            return
        step = _round_step((self.high - self.low) / 7)
        for number in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1):
            yield number * step


def _round_step(rough: float) -> float:
    power = float(10.0 ** math.floor(math.log10(rough)))
    return power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def draw(curve: Curve, theme: Theme) -> bytes:
    """Return the SVG document; transparent, in the theme's colours."""
    points = [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if y is not None and (y > 0 or not curve.log)]
    body = _nothing() if not points else _chart(curve, points)
    title = _text(WIDTH / 2, 24, curve.title or curve.dataset, "middle", "title")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{_safe(curve.title or curve.dataset)}"><style>{_style(theme)}</style>{title}{body}</svg>'
    ).encode()


def _chart(curve: Curve, points: list[tuple[float, float]]) -> str:
    across = Scale(*_span([x for x, _ in points], log=False, margin=0.01), _LEFT, WIDTH - _RIGHT)
    up = Scale(*_span([y for _, y in points], log=curve.log, margin=0.05), HEIGHT - _BOTTOM, _TOP, curve.log)
    parts = []
    for value in across.ticks():
        x = across.place(value)
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>')
        parts.append(_text(x, HEIGHT - _BOTTOM + 20, _number(value, across), "middle", "tick"))
    for value in up.ticks():
        y = up.place(value)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(_text(_LEFT - 8, y + 4, _number(value, up), "end", "tick"))
    parts.append(f'<path class="line" d="{_path(curve, across, up)}"/>')
    parts.append(_text(WIDTH / 2, HEIGHT - 12, curve.x_label, "middle", "label"))
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    turned = f' transform="rotate(-90 16 {middle:.0f})"'
    parts.append(_text(16, middle, curve.y_label, "middle", "label", turned))
    return "".join(parts)


def _path(curve: Curve, across: Scale, up: Scale) -> str:
    """Return the line, broken where values are missing."""
    steps, pen_up = [], True
    for x, y in zip(curve.x, curve.y, strict=True):
        if y is None or (curve.log and y <= 0):
            pen_up = True
            continue
        steps.append(f"{'M' if pen_up else 'L'}{across.place(x):.1f} {up.place(y):.1f}")
        pen_up = False
    return "".join(steps)


def _span(values: list[float], *, log: bool, margin: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    if log:
        ratio = (high / low) ** margin if high > low else 2.0
        return low / ratio, high * ratio
    if low == high:
        extra = abs(low) * 0.1 or 1.0
        return low - extra, high + extra
    room = (high - low) * margin
    # Halves first: a span from -1.7e308 to 1.7e308 has no finite difference.
    return (low - room, high + room) if math.isfinite(high - low) else (low / 2, high / 2)


def _number(value: float, scale: Scale) -> str:
    if scale.log:
        return f"{value:g}" if 1e-3 <= value < 1e5 else f"1e{math.log10(value):.0f}"
    biggest = max(abs(scale.low), abs(scale.high))
    return f"{value:.4g}" if biggest < 1e-3 else f"{value:.10g}" if biggest < 1e5 else f"{value:.6g}"


def _nothing() -> str:
    return _text(WIDTH / 2, HEIGHT / 2, "no finite values", "middle", "label")


def _text(x: float, y: float, text: str, anchor: str, kind: str, extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}"{extra}>{_safe(text)}</text>'


def _safe(text: str) -> str:
    short = text if len(text) <= _LABEL_LENGTH else f"{text[: _LABEL_LENGTH - 1]}…"
    return escape(printable(short))


def _style(theme: Theme) -> str:
    """Return the style sheet; an SVG in an <img> sees the browser's preference, not the page's."""
    colours = {Theme.LIGHT: f":root{{{_LIGHT}}}", Theme.DARK: f":root{{{_DARK}}}"}
    automatic = f":root{{{_LIGHT}}}@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}"
    return (
        colours.get(theme, automatic) + "text{font:13px system-ui,'Noto Sans','Noto Sans CJK SC',sans-serif;fill:var(--quiet)}"
        ".title{font-size:15px;font-weight:600;fill:var(--ink)}.label{fill:var(--ink)}.grid{stroke:var(--grid);fill:none}"
        ".line{stroke:var(--line);stroke-width:1.6;fill:none;stroke-linejoin:round}"
    )
