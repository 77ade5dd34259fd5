"""The figures, as a picture: SVG or PNG, by the file's name."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.figures import Figures
from bench.processes import ROLES

_COLOURS: Final = {
    "api": "#3b6fb6",
    "processor": "#5aa469",
    "notifier": "#d98032",
    "postgres": "#7a6fac",
    "rabbitmq": "#b5504b",
    "load": "#b8b8b8",
}


def draw(found: Sequence[Figures], file: Path) -> None:
    """Payments a second through each run, what a payment costs each process, and latency by rate
    where several were offered."""
    mpl.rcParams["svg.hashsalt"] = "florin"
    parts: list[tuple[float, Callable[[Axes, Sequence[Figures]], None], Sequence[Figures]]] = [
        (3, _draw_rates, found),
        (1 + 0.34 * len(found), _draw_costs, found),
    ]
    by_rate = sorted((one for one in found if one.offered), key=lambda one: one.offered or 0)
    if len(by_rate) > 1:
        parts.append((3, _draw_latencies, by_rate))
    heights = [height for height, _, _ in parts]
    figure = Figure(figsize=(11, sum(heights)), layout="constrained")
    axes = figure.subplots(len(parts), 1, height_ratios=heights)
    for one, (_, draw_part, figures) in zip(axes, parts, strict=True):
        draw_part(one, figures)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def _draw_rates(axes: Axes, found: Sequence[Figures]) -> None:
    for one in found:
        windows = one.rates.windows
        axes.plot(range(1, len(windows) + 1), windows, label=one.scenario, linewidth=1.6)
    axes.set_title("payments in each second", loc="left", fontsize=10)
    axes.set_xlabel("second")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)


def _draw_latencies(axes: Axes, found: Sequence[Figures]) -> None:
    rates = [one.offered or 0 for one in found]
    for colour, name, figures in (
        (_COLOURS["api"], "accept", [one.accept for one in found]),
        (_COLOURS["notifier"], "to webhook", [one.delivered for one in found]),
    ):
        for style, of in (("-", "p50"), ("--", "p99")):
            values = [getattr(one, of) if one else float("nan") for one in figures]
            axes.plot(rates, values, style, color=colour, marker="o", label=f"{name}, {of}")
    axes.set_title("milliseconds, by payments offered a second", loc="left", fontsize=10)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)


def _draw_costs(axes: Axes, found: Sequence[Figures]) -> None:
    names = [one.scenario for one in found]
    left = [0.0] * len(found)
    for role in ROLES:
        widths = [one.cpu[role] for one in found]
        axes.barh(names, widths, left=left, label=role, color=_COLOURS[role])
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_title("CPU for each payment, microseconds", loc="left", fontsize=10)
    axes.invert_yaxis()
    axes.grid(alpha=0.25, axis="x")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
