"""The tables of the part `costs`: the summary, CPU, what two cores carry, latency and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from tests.bench import capacity, costs
from tests.bench.rig import ALONE, FLOOR, LITELLM, NULL, SIDECAR
from tests.bench.table import KINDS, MISSING, Rows, p50_p99, table, whole

_SEVERAL: Final = costs.buffered(8)
_CARRIED: Final = f"{capacity.CORES} cores, {capacity.USED:.0%} used"
_RATE: Final = f"at {capacity.TOKENS_PER_SECOND} chunks a second"


def sections(found: dict[str, Any], results: dict[str, Any]) -> dict[str, list[str]]:
    """Return the tables of each section; `found` is the part `costs` of `results`."""
    measured, memory = found["measured"], found["memory"]
    columns = {name: name for name in (NULL, FLOOR, SIDECAR, LITELLM) if name in memory}
    made = {"memory": [_memory(memory, list(columns), results["plan"]["held_streams"])]}
    if "saturation" in found:
        columns[LITELLM] = f"{LITELLM}, half load"  # unlike the others, whose load is that of the row
    made |= {
        "summary": [_summary(measured, memory, columns)],
        "cpu": _cpu(measured, columns),
        "latency": [_latency(measured, {ALONE: ALONE, **columns})],
    }
    if "around_us" in measured[_SEVERAL]["chains"][SIDECAR]:
        made["capacity"] = [_capacity(measured, columns)]
    if "saturation" in found:
        made["cpu"].append(_saturation(found["saturation"]))
    return made


def label(what: str) -> str:
    """Return the label of a measurement."""
    return "streamed chunk" if what == costs.STREAMED else f"exchange, {what.removeprefix('buffered ')} at once"


def _summary(measured: dict[str, Any], memory: dict[str, Any], columns: dict[str, str]) -> str:
    """Return the few figures that most readers look for."""
    guards = [name for name in (SIDECAR, LITELLM) if name in columns]
    single, several, streamed = measured[costs.buffered(1)], measured[_SEVERAL], measured[costs.STREAMED]

    def added(one: dict[str, Any], kind: str) -> list[str]:
        chains = one["chains"]
        alone = chains[ALONE][kind]
        return [p50_p99({key: value - alone[key] for key, value in chains[name][kind].items()}) for name in guards]

    def cpu(one: dict[str, Any]) -> list[str]:
        return [whole(one["chains"][name]["guard_us"]) for name in guards]

    def carried(one: dict[str, Any], computed: Callable[[float], float]) -> list[str]:
        return [whole(computed(capacity.spent(one["chains"][name]))) for name in guards]

    rows: Rows = [
        ("added to a whole answer, 1 at once: ms p50 / p99", added(single, "total_ms")),
        ("added to a streamed chunk: ms p50 / p99", added(streamed, "delay_ms")),
        ("CPU of an exchange, 8 at once: us", cpu(several)),
        ("CPU of a streamed chunk: us", cpu(streamed)),
        (f"exchanges a second, with Envoy: {_CARRIED}", carried(several, capacity.exchanges)),
        (f"streams {_RATE}, with Envoy: {_CARRIED}", carried(streamed, capacity.streams)),
        ("memory at rest: MiB", [whole(memory[name]["rest_mib"]) for name in guards]),
        ("memory for each held stream: KiB", [whole(memory[name].get("held_kib")) for name in guards]),
    ]
    return table("in short", rows, [columns[name] for name in guards])


def _cpu(measured: dict[str, Any], columns: dict[str, str]) -> list[str]:
    pairs = list(measured[costs.STREAMED]["ratios"])
    with_envoy = (ALONE, *(name for name in columns if name != LITELLM))
    return [
        table(
            "CPU of what guards, us",
            [
                (label(what), [whole(one["chains"].get(name, {}).get("guard_us")) for name in columns])
                for what, one in measured.items()
            ],
            list(columns.values()),
        ),
        table(
            "ratios (each run's)",
            [(label(what), [_ratio(one, pair) for pair in pairs]) for what, one in measured.items()],
            pairs,
        ),
        table(
            "CPU of Envoy, us",
            [
                (label(what), [whole(one["chains"][name]["envoy_us"]) for name in with_envoy])
                for what, one in measured.items()
            ],
            with_envoy,
        ),
    ]


def _saturation(found: dict[str, float]) -> str:
    rows: Rows = [
        ("exchanges a second", [f"{found['exchanges']:.1f}", f"{found['exchanges'] / 2:.1f}"]),
        ("chunks a second", [f"{found['chunks']:.0f}", f"{found['chunks'] / 2:.0f}"]),
    ]
    return table(f"load of {LITELLM}", rows, ("the most that it carries", "half, at which it is measured"))


def _capacity(measured: dict[str, Any], columns: dict[str, str]) -> str:
    rows: Rows = []
    for unit, what, carried, computed in (
        ("an exchange", _SEVERAL, "exchanges a second", capacity.exchanges),
        ("a chunk", costs.STREAMED, f"streams {_RATE}", capacity.streams),
    ):
        chains = [measured[what]["chains"][name] for name in columns]
        own, whole_us = ([capacity.spent(chain, parts) for chain in chains] for parts in (capacity.CHAIN, capacity.ALL))
        rows += [
            (f"CPU of {unit}, us: what guards and Envoy", list(map(whole, own))),
            (f"CPU of {unit}, us: the client and the stand-ins too", list(map(whole, whole_us))),
            (f"{carried}: what guards and Envoy alone on the cores", [whole(computed(us)) for us in own]),
            (f"{carried}: the client and the stand-ins on them too", [whole(computed(us)) for us in whole_us]),
        ]
    return table(_CARRIED, rows, list(columns.values()))


def _latency(measured: dict[str, Any], columns: dict[str, str]) -> str:
    return table(
        "ms: p50 / p99",
        [row for what, one in measured.items() for row in _latencies(what, one["chains"], list(columns))],
        (*columns.values(), "over alone", "over null"),
    )


def _latencies(what: str, found: dict[str, Any], chains: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    for kind in (each for each in KINDS if each in found[SIDECAR]):
        ours = found[SIDECAR][kind]
        over = [{key: ours[key] - found[peer][kind][key] for key in ours} for peer in (ALONE, NULL)]
        cells = [p50_p99(found[name][kind]) if name in found else MISSING for name in chains]
        yield f"{label(what)}: {KINDS[kind]}", [*cells, *map(p50_p99, over)]


def _memory(found: dict[str, Any], guards: Sequence[str], held_streams: int) -> str:
    rows: Rows = [
        ("at rest, MiB", [whole(found[name]["rest_mib"]) for name in guards]),
        (f"for each of {held_streams} held streams, KiB", [whole(found[name].get("held_kib")) for name in guards]),
    ]
    return table("memory (RSS)", rows, guards)


def _ratio(one: dict[str, Any], pair: str) -> str:
    if pair not in one["ratios"]:
        return MISSING
    return f"{one['ratios'][pair]:.2f} ({', '.join(f'{run[pair]:.2f}' for run in one['ratios_by_run'])})"
