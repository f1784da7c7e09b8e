"""The results of soaks, as JSON and as a table in Markdown.

python -m tests.soak.report FILE...     one table with a column for each file that a soak has written, for docs/soak.md
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.report import machine
from tests.soak.checker import Span, Tally
from tests.soak.lag import Lag
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
    openings: Mapping[str, int] = field(default_factory=dict)
    """The legs that failed open, by leg and reason."""
    large: Lag | None = None
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
        "failed_open": dict(found.openings),
        "held_mib": _spread([round(sample.held / MEBIBYTE, 1) for sample in found.samples]),
        "large_answers": {} if found.large is None else found.large.described(),
        "faults": faults,
        "wrongs": list(found.wrongs),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "max": max(values)} if values else {}


def tables(results: dict[str, Any]) -> str:
    """Return the results of one soak: a table in Markdown, and what was wrong."""
    wrongs = results["wrongs"]
    verdict = f"WRONG, {len(wrongs)}:" if wrongs else "nothing wrong"
    return "\n".join([table([results]), "", verdict, *wrongs[:_SHOWN]]) + "\n"


def table(soaks: Sequence[dict[str, Any]]) -> str:
    """Return a table in Markdown, with a column for each soak."""
    columns = [dict(_rows(results)) for results in soaks]
    labels = list(dict.fromkeys(label for column in columns for label in column))
    head = ["", *(results["plan"]["variant"] for results in soaks)]
    lines = [head, ["---"] * len(head), *([label, *(each.get(label, "") for each in columns)] for label in labels)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _rows(results: dict[str, Any]) -> Iterator[tuple[str, str]]:
    where, plan = results["machine"], results["plan"]
    yield "date", where["date"]
    yield "machine", f"{where['cpu']}, {where['nproc']} cores, Python {where['python']}, Envoy {where['envoy']}"
    options = f"--minutes {plan['seconds'] / 60:.3g} --streams {plan['streams']} --seed {plan['seed']}"
    yield "options", f"`{options}`"
    yield "exchanges", str(results["exchanges"])
    yield "how they ended", ", ".join(f"{count} {_ENDINGS[ending]}" for ending, count in results["endings"].items())
    yield "failed because of an injected fault", str(results["failed_in_a_fault"])
    if opened := results["failed_open"]:
        yield "legs that failed open, each one explained", _by_leg(opened)
    yield "longest delay beyond its script, s", f"{results['longest_seconds_over']:g}"
    marks = results["marks"]
    yield "texts: verified by Aim / seen by clients", f"{marks['verified']} / {marks['seen']}"
    yield from _spreads(results)
    if memory := results["memory_mib"]:
        sizes = " / ".join(f"{memory[name]:.0f}" for name in ("rest", "warm", "end", "peak"))
        yield "memory of the sidecar, MiB: rest / warm / end / peak", sizes
        yield "its growth when warm, MiB a minute / over minutes", f"{memory['slope']:+.2f} / {memory['minutes']:.1f}"
    if slow := results["slow_clients"]:
        answer = slow["answer_bytes"] / MEBIBYTE
        what = f"Envoy's memory for each client that does not read an answer of {answer:.0f} MiB, MiB"
        yield what, f"{slow['envoy_bytes_per_client'] / MEBIBYTE:.1f}"
    if large := results["large_answers"]:
        yield "large answers: at a time / complete", f"{large['clients']} / {large['complete']}"
        yield "their longest delay from the model to the client, s", f"{large['behind']:g}"
        yield "the longest pause of reading from a model, s", f"{large['paused']:g}"
    yield "faults", str(sum(results["faults"].values()))
    yield "found to be wrong", str(len(results["wrongs"])) if results["wrongs"] else "nothing"


_ENDINGS = {
    "complete": "complete",
    "blocked": "blocked",
    "refused": "refused",
    "cut": "cut",
    "left": "left by the client",
}


def _by_leg(opened: Mapping[str, int]) -> str:
    legs: dict[str, int] = {}
    for name, count in opened.items():
        leg, _, _ = name.partition(" ")
        legs[leg] = legs.get(leg, 0) + count
    return ", ".join(f"{count} {leg}s" for leg, count in legs.items())


def _spreads(results: dict[str, Any]) -> Iterator[tuple[str, str]]:
    named = {
        "streams_at_once": "streams at once: median / max",
        "files": "open files of the sidecar: median / max",
        "envoy_mib": "memory of Envoy, MiB: median / max",
        "held_mib": "text that waits for Aim, MiB: median / max",
        "load_average": "load average of the machine: median / max",
    }
    for name, label in named.items():
        if values := results[name]:
            yield label, f"{values['median']:g} / {values['max']:g}"


if __name__ == "__main__":
    print(table([json.loads(Path(name).read_text()) for name in sys.argv[1:]]))
