"""Curves of a replay as PNG and SVG. Needs matplotlib (the extra ``plots``), which nothing else imports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from beamdesk.domain.errors import ConfigurationError

Curve = Sequence[tuple[float, float]]
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's colours, told apart by everybody; marks differ as well."""
_MARKS = "osD^vP"


def draw(path: Path, title: str, panels: Mapping[str, Mapping[str, Curve]], across: str) -> tuple[Path, Path]:
    """Draw one panel per measure with one curve per policy; return the two files written (``path`` with .png and .svg).

    Raises:
        ConfigurationError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigurationError("Curves need matplotlib: install beamdesk[plots].") from error
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    # Fixed salt and no date: the same numbers make the same file.
    with mpl.rc_context({"svg.hashsalt": "beamdesk", "font.size": 9}):
        figure = Figure(figsize=(5.2 * columns, 3.6 * rows), layout="constrained")
        for number, (measure, curves) in enumerate(panels.items(), start=1):
            axes = figure.add_subplot(rows, columns, number)
            for place, (policy, points) in enumerate(curves.items()):
                axes.plot(
                    [x for x, _ in points],
                    [y for _, y in points],
                    label=policy,
                    color=_COLOURS[place % len(_COLOURS)],
                    marker=_MARKS[place % len(_MARKS)] if len(points) <= 20 else None,
                    markersize=4,
                    linewidth=1.6,
                )
            axes.set(title=measure, xlabel=across, ylabel="%")
            axes.grid(visible=True, alpha=0.3)
            if number == 1:
                axes.legend(frameon=False)
        figure.suptitle(title)
        png, svg = path.with_suffix(".png"), path.with_suffix(".svg")
        figure.savefig(png, dpi=140, metadata={"Software": "beamdesk"})
        figure.savefig(svg, metadata={"Date": None, "Creator": "beamdesk"})
    return png, svg
