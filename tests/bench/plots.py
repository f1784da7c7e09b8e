"""Plots of the results, as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.bench import costs
from tests.bench.rig import ALONE, FLOOR, LITELLM, NULL, SIDECAR

_COLOURS: Final = {ALONE: "#9aa5b1", NULL: "#9aa5b1", FLOOR: "#52606d", SIDECAR: "#2680c2", LITELLM: "#de911d"}
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "bench",  # the same figures give the same file
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_WIDTH = 7.2
_STEPS = 60
"""Enough for a straight line to look smooth on two logarithmic axes."""


def draw(results: dict[str, Any], folder: Path) -> None:
    """Draw each plot of docs/performance.md into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE):
        for name, figure in (
            ("cpu", _cpu(results["costs"]["measured"])),
            ("latency", _latency(results["costs"]["measured"])),
            ("growth", _growth(results["growth"])),
            ("crowd", _crowd(results["crowd"])),
        ):
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})


def _figure(panels: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _bars(axes: Axes, title: str, values: dict[str, float], form: str) -> None:
    names = list(reversed(values))
    bars = axes.barh(names, [values[name] for name in names], color=[_COLOURS[name] for name in names], height=0.6)
    axes.bar_label(bars, [format(values[name], form) for name in names], padding=3)
    axes.set_title(title, loc="left", fontsize=9)
    axes.margins(x=0.2)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(left=False)


def _cpu(measured: dict[str, Any]) -> Figure:
    figure, panels = _figure(2, 1.9)
    for axes, what, title in (
        (panels[0], costs.buffered(8), "CPU for each exchange, us (8 at once)"),
        (panels[1], costs.STREAMED, "CPU for each streamed chunk, us"),
    ):
        chains = measured[what]["chains"]
        _bars(axes, title, {name: one["guard_us"] for name, one in chains.items() if "guard_us" in one}, ",.0f")
    return figure


def _latency(measured: dict[str, Any]) -> Figure:
    figure, panels = _figure(2, 2.1)
    for axes, what, kind, title in (
        (panels[0], costs.buffered(1), "first_byte_ms", "time to the first byte, ms (p50, 1 at once)"),
        (panels[1], costs.STREAMED, "delay_ms", "delay of a streamed chunk, ms (p50)"),
    ):
        _bars(axes, title, {name: one[kind]["p50"] for name, one in measured[what]["chains"].items()}, ".2f")
    return figure


def _growth(found: dict[str, Any]) -> Figure:
    names = ("chunks of a stream", "bytes of a prompt", "bytes of an answer")
    figure, panels = _figure(len(names), 2.5)
    for axes, name in zip(panels, names, strict=True):
        series = found[name]
        sizes = [point["size"] for point in series["points"]]
        between = [sizes[0] * (sizes[-1] / sizes[0]) ** (step / _STEPS) for step in range(_STEPS + 1)]
        on_line = [(series["fixed_us"] + series["each_us"] * size) / 1e3 for size in between]
        axes.loglog(between, on_line, color=_COLOURS[ALONE], linewidth=1, label="line")
        cpu_ms = [point["cpu_us"] / 1e3 for point in series["points"]]
        axes.loglog(sizes, cpu_ms, "o", color=_COLOURS[SIDECAR], markersize=4, label="measured")
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("CPU of the sidecar, ms")
    panels[0].legend(frameon=False)
    return figure


def _crowd(found: dict[str, Any]) -> Figure:
    figure, (axes,) = _figure(1, 2.4)
    for name, one in found["chains"].items():
        shares, delays = zip(*one["delays_ms"], strict=True)
        axes.semilogx(delays, [share * 100 for share in shares], color=_COLOURS[name], label=name)
    axes.set_xlabel(f"delay of a chunk, ms ({found['streams']:,} streams at once)")
    axes.set_ylabel("% of the chunks")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure
