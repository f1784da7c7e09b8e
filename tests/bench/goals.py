"""The project's goals, next to the measured figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from tests.bench import costs, handshake
from tests.bench.rig import FLOOR, LITELLM, NULL, SIDECAR
from tests.bench.shapes import PLAIN

_AT_8: Final = costs.buffered(8)
_PEER: Final = f"{LITELLM} / {SIDECAR}"
_FIRST_TOKEN_MS: Final = 10
"""The most that a handshake may add to the first token if the model is slower. It is within the noise."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure with its goal and its measured value."""

    figure: str
    wanted: str
    measured: str
    is_met: bool


def goals(results: dict[str, Any]) -> Iterator[Goal]:
    """Yield the goals for which `results` has figures."""
    if "costs" in results:
        yield from _costs(results["costs"])
    if "handshake" in results:
        yield _handshake(results["handshake"])
    if "crowd" in results:
        yield _crowd(results["crowd"])
    if "growth" in results:
        worst, name = max((series["off_line"], name) for name, series in results["growth"].items())
        yield _most("CPU grows in a line: the worst point is off by", 0.1, worst, ".0%", f" ({name})")
    if "documents" in results:
        yield from _documents(results["documents"])
    if "start" in results:
        yield _most("from the command to ready, s", 1.5, results["start"][SIDECAR], ".2f")


def _costs(found: dict[str, Any]) -> Iterator[Goal]:
    measured, memory = found["measured"], found["memory"]
    exchange, chunk = measured[_AT_8], measured[costs.STREAMED]
    both = (("exchange, 8 at once", exchange), ("streamed chunk", chunk))
    for (label, one), times in zip(both, (13, 2.7), strict=True):
        ratio = one["ratios"].get(_PEER)
        if ratio is not None:
            yield Goal(f"CPU of LiteLLM / sidecar: {label}", f"{times} or more", f"{ratio:.1f}", ratio >= times)
    for name, most in ((NULL, (2.4, 1.9)), (FLOOR, (1.2, 1.2))):
        for (label, one), times in zip(both, most, strict=True):
            yield _most(f"CPU of sidecar / {name}: {label}", times, one["ratios"][f"{SIDECAR} / {name}"], ".2f")
    for label, what, kind, ms in (
        ("whole answer, 1 at once", costs.buffered(1), "total_ms", 1.2),
        ("streamed chunk", costs.STREAMED, "delay_ms", 0.3),
    ):
        ours, null = (measured[what]["chains"][name][kind]["p50"] for name in (SIDECAR, NULL))
        yield _most(f"added over the null, p50 ms: {label}", ms, ours - null, ".2f")
    yield _most("memory at rest, MB", 105, memory[SIDECAR]["rest_mib"] * 2**20 / 1e6, ".0f")
    yield _most("memory for each held stream, KB", 80, memory[SIDECAR]["held_kib"] * 1024 / 1e3, ".0f")
    if len(exchange["ratios_by_run"]) > 1:
        apart = max(_apart(one, pair) for _, one in both for pair in one["ratios"])
        yield _most("the ratios above, of the same run repeated, differ by", 0.1, apart, ".0%")


def _apart(one: dict[str, Any], pair: str) -> float:
    """Return the largest difference between the ratios of two runs."""
    by_run = [run[pair] for run in one["ratios_by_run"]]
    return float(max(by_run) / min(by_run) - 1)


def _handshake(found: dict[str, Any]) -> Goal:
    behind = f"model_{handshake.MODEL * 1e3:.0f}_ms"
    late, at_once = (found["chains"][name][behind] for name in (handshake.LATE, handshake.AT_ONCE))
    figure = f"handshake of {found['handshake_ms']:.0f} ms behind a model of {handshake.MODEL * 1e3:.0f} ms adds, ms"
    return _most(figure, _FIRST_TOKEN_MS, late - at_once, ".1f")


def _documents(found: dict[str, Any]) -> Iterator[Goal]:
    """Yield the goals for the worst documents. A plain prompt is only a comparison: `json.loads` copies it."""
    points = [(name, point) for name, each in found.items() if name != PLAIN for point in each]

    def goal(figure: str, most: float, form: str, value: Callable[[dict[str, float]], float]) -> Goal:
        worst, name = max((value(point), name) for name, point in points)
        return _most(figure, most, worst, form, f" ({name})")

    yield goal("CPU of reading a document / `json.loads`", 10, ".1f", lambda one: one["read_us"] / one["loads_us"])
    yield goal("CPU of redacting a document / `json.loads`", 20, ".1f", lambda one: one["redact_us"] / one["loads_us"])
    yield goal("memory for each byte of a document", 32, ".0f", lambda one: one["peak_bytes"] / one["size"])
    yield goal("others wait for a document, ms", 1000, ".0f", lambda one: max(one["others_ms"], one["health_ms"]))


def _crowd(found: dict[str, Any]) -> Goal:
    ours = found["chains"][SIDECAR]
    return Goal(
        f"{found['streams']:,} streams at 1 chunk/s",
        "all end, none late by 5 %",
        f"{ours['finished']:,} ended, {ours['late_streams']:.1%} late",
        ours["finished"] == found["streams"] and not ours["late_streams"],
    )


def _most(figure: str, most: float, value: float, form: str, more: str = "") -> Goal:
    return Goal(figure, f"{most:{form}} or less", f"{value:z{form}}{more}", value <= most)
