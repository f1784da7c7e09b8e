"""The results of a soak, as JSON and as a table."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.bench.report import machine
from tests.soak.checker import Span, Tally
from tests.soak.samples import MEBIBYTE, Memory, Sample

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Found:
    """The results of a soak."""

    tally: Tally
    spans: Sequence[Span]
    samples: Sequence[Sample]
    memory: Memory | None
    slow: dict[str, int]
    verified: int
    """The number of marks that Aim verified."""
    wrongs: Sequence[str] = field(default_factory=list)


def results(plan: dict[str, Any], envoy_version: str, found: Found) -> dict[str, Any]:
    """Return the results as JSON."""
    tally = found.tally
    faults: dict[str, int] = {}
    for span in found.spans:
        faults[span.name] = faults.get(span.name, 0) + 1
    return {
        "machine": machine() | {"envoy": envoy_version},
        "plan": plan,
        "exchanges": sum(tally.endings.values()),
        "endings": {str(ending): count for ending, count in tally.endings.items()},
        "failed_in_a_fault": len(tally.failures),
        "longest_seconds_over": round(tally.longest, 1),
        "marks": {"verified": found.verified, "seen": len(tally.marks)},
        "streams_at_once": _spread([sample.streams for sample in found.samples]),
        "memory_mib": {} if found.memory is None else found.memory.described(),
        "files": _spread([sample.files for sample in found.samples]),
        "envoy_mib": _spread([sample.envoy // MEBIBYTE for sample in found.samples]),
        "load_average": _spread([round(sample.load, 1) for sample in found.samples]),
        "slow_clients": found.slow,
        "faults": faults,
        "wrongs": list(found.wrongs),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "max": max(values)} if values else {}


def tables(results: dict[str, Any]) -> str:
    """Return the results as a table in Markdown."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: dict[str, Any]) -> Iterator[str]:
    where, plan = results["machine"], results["plan"]
    yield f"{where['cpu']}, {where['nproc']} cores, Python {where['python']}, Envoy {where['envoy']}, {where['date']}"
    yield f"{plan['seconds'] / 60:g} minutes, {plan['streams']} exchanges at a time, seed {plan['seed']}"
    yield ""
    rows = list(_rows(results))
    width = max(len(label) for label, _ in rows)
    last = max(len(value) for _, value in rows)
    yield f"| {'':{width}} | {'':{last}} |"
    yield f"| {'-' * width} | {'-' * last} |"
    for label, value in rows:
        yield f"| {label:{width}} | {value:{last}} |"
    yield ""
    wrongs = results["wrongs"]
    yield f"WRONG, {len(wrongs)}:" if wrongs else "nothing wrong"
    yield from wrongs[:_SHOWN]


def _rows(results: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "exchanges", str(results["exchanges"])
    yield "how they ended", ", ".join(f"{count} {ending}" for ending, count in results["endings"].items())
    yield "failed of an injected fault", str(results["failed_in_a_fault"])
    yield "longest over its script, s", f"{results['longest_seconds_over']:g}"
    marks = results["marks"]
    yield "texts: Aim verified / clients saw", f"{marks['verified']} / {marks['seen']}"
    yield from _spreads(results)
    if memory := results["memory_mib"]:
        sizes = " / ".join(f"{memory[name]:.0f}" for name in ("rest", "warm", "end", "peak"))
        yield "memory of the sidecar, MiB: rest / warm / end / peak", sizes
        yield f"its slope when warm, MiB a minute, over {memory['minutes']:.1f} minutes", f"{memory['slope']:+.2f}"
    if slow := results["slow_clients"]:
        what = f"Envoy's memory for each of {slow['clients']} clients that do not read"
        answer = slow["answer_bytes"] / MEBIBYTE
        yield f"{what}, MiB, of an answer of {answer:.1f}", f"{slow['envoy_bytes_per_client'] / MEBIBYTE:.1f}"
    yield "faults", ", ".join(f"{count} x {name}" for name, count in results["faults"].items())


def _spreads(results: dict[str, Any]) -> Iterator[tuple[str, str]]:
    named = {
        "streams_at_once": "streams at once: median / max",
        "files": "open files of the sidecar: median / max",
        "envoy_mib": "memory of Envoy, MiB: median / max",
        "load_average": "load average of the machine: median / max",
    }
    for name, label in named.items():
        if values := results[name]:
            yield label, f"{values['median']:g} / {values['max']:g}"
