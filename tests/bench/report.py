"""What was measured, as JSON and as tables."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.bench.rig import ALONE, FLOOR, NULL, SIDECAR
from tests.bench.rounds import Plan, Round

_PACKAGES = ("aim-extproc", "grpcio", "protobuf", "aiohttp", "httpx", "websockets")

Rounds = dict[str, list[Round]]
"""The rounds of one measurement by the name of the chain, those of one number side by side."""


def machine(envoy_version: str) -> dict[str, Any]:
    """Return where this was measured."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "nproc": len(os.sched_getaffinity(0)),
        "cpu": models[0] if models else platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "envoy": envoy_version,
        "packages": {name: version(name) for name in _PACKAGES},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def summary(rounds: Rounds) -> dict[str, Any]:
    """Return medians over the rounds, and of the ratios within a round."""
    chains: dict[str, Any] = {}
    for name, each in rounds.items():
        chains[name] = {
            "envoy_us": statistics.median(one.envoy_us for one in each),
            **{
                kind: {
                    quantile: statistics.median(one.latencies[kind][quantile] for one in each)
                    for quantile in each[0].latencies[kind]
                }
                for kind in each[0].latencies
            },
        }
        if name != ALONE:
            chains[name]["cpu_us"] = statistics.median(_cpu(each))
    ratios = {
        f"{SIDECAR} / {peer}": statistics.median(
            ours / theirs for ours, theirs in zip(_cpu(rounds[SIDECAR]), _cpu(rounds[peer]), strict=True)
        )
        for peer in (NULL, FLOOR)
    }
    return {"chains": chains, "ratios": ratios}


def _cpu(rounds: Sequence[Round]) -> list[float]:
    return [one.processor_us for one in rounds if one.processor_us is not None]


def tables(results: dict[str, Any]) -> str:
    """Return the results for a reader, in Markdown."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: dict[str, Any]) -> Iterator[str]:
    where, plan = results["machine"], results["plan"]
    yield f"{where['cpu']}, {where['nproc']} cores, Python {where['python']}, Envoy {where['envoy']}, {where['date']}"
    yield f"medians of {plan['rounds']} interleaved rounds"
    yield ""
    yield from _table("CPU of the processor, us", _cpu_rows(results), (NULL, FLOOR, SIDECAR, "/ null", "/ floor"))
    yield from _table("CPU of Envoy, us", _envoy_rows(results), (ALONE, NULL, FLOOR, SIDECAR))
    yield from _table("latency, ms: p50 / p99", _latency_rows(results), (ALONE, NULL, FLOOR, SIDECAR, "sidecar adds"))
    memory = results["memory"]
    rows = [
        ("at rest, MiB", [f"{memory[name]['rest_mib']:.0f}" for name in (NULL, FLOOR, SIDECAR)]),
        (
            f"for each of {plan['held_streams']} held streams, KiB",
            [f"{memory[name]['held_kib']:.0f}" for name in (NULL, FLOOR, SIDECAR)],
        ),
    ]
    yield from _table("memory (RSS)", rows, (NULL, FLOOR, SIDECAR))


Rows = list[tuple[str, list[str]]]


def _table(what: str, rows: Rows, columns: Sequence[str]) -> Iterator[str]:
    body = [[label, *cells] for label, cells in rows]
    widths = [max(map(len, column)) for column in zip([what, *columns], *body, strict=True)]
    for cells in ([what, *columns], ["-" * width for width in widths], *body):
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
    yield ""


def _measurements(results: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for at_once, measured in results["buffered"].items():
        yield f"buffered exchange, {at_once} at once", measured
    yield f"streamed chunk, {results['plan']['streams']} streams", results["streamed"]


def _cpu_rows(results: dict[str, Any]) -> Rows:
    return [
        (
            label,
            [f"{measured['chains'][name]['cpu_us']:.0f}" for name in (NULL, FLOOR, SIDECAR)]
            + [f"{measured['ratios'][f'{SIDECAR} / {peer}']:.2f}" for peer in (NULL, FLOOR)],
        )
        for label, measured in _measurements(results)
    ]


def _envoy_rows(results: dict[str, Any]) -> Rows:
    return [
        (label, [f"{measured['chains'][name]['envoy_us']:.0f}" for name in (ALONE, NULL, FLOOR, SIDECAR)])
        for label, measured in _measurements(results)
    ]


def _latency_rows(results: dict[str, Any]) -> Rows:
    rows: Rows = []
    for label, measured in _measurements(results):
        chains = measured["chains"]
        for kind, name in (("first_byte_ms", "first byte"), ("total_ms", "total"), ("delay_ms", "delay")):
            if kind in chains[ALONE]:
                cells = [_pair(chains[chain][kind]) for chain in (ALONE, NULL, FLOOR, SIDECAR)]
                added = {key: chains[SIDECAR][kind][key] - value for key, value in chains[ALONE][kind].items()}
                rows.append((f"{label}: {name}", [*cells, _pair(added)]))
    return rows


def _pair(values: dict[str, float]) -> str:
    return f"{values['p50']:.2f} / {values['p99']:.2f}"


def describe(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON."""
    return {
        "rounds": plan.rounds,
        "exchanges": {str(at_once): count for at_once, count in plan.exchanges.items()},
        "streams": plan.streams,
        "stream_seconds": plan.stream_seconds,
        "held_streams": plan.held_streams,
    }
