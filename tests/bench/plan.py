"""The plans of the bench: how much is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Costs:
    """Interleaved rounds: `rounds` of them in each of `processes` sets of new processes, all of it `runs` times.

    The cost of a process depends slightly on its memory layout, so that one set is not enough for a run. `exchanges`
    has the exchanges of a round by their number at once. `peer_exchanges` are those of LiteLLM, at half of its
    saturation; 0 leaves it out.
    """

    runs: int
    processes: int
    rounds: int
    exchanges: dict[int, int]
    peer_exchanges: int
    streams: int
    stream_seconds: float


@dataclass(frozen=True, slots=True)
class Crowd:
    """Streams at once, opened over `ramp` seconds. Each has `chunks` chunks, one every `interval` seconds."""

    streams: int
    ramp: float
    chunks: int
    interval: float


@dataclass(frozen=True, slots=True)
class Growth:
    """Sizes and the number of measurements of each: chunks of a stream, bytes of a body, choices of an answer."""

    chunks: dict[int, int]
    body_bytes: dict[int, int]
    choices: dict[int, int]


@dataclass(frozen=True, slots=True)
class DocumentSize:
    """The most values of a document, as `limits.values` counts them, and its most bytes."""

    values: int
    body_bytes: int


@dataclass(frozen=True, slots=True)
class Documents:
    """Documents of each shape in each of `sizes`, smaller ones first.

    A sidecar reads `shapes_each` shapes before a new one is started. With more than one shape, what an earlier one left
    behind counts as memory of later ones.
    """

    sizes: tuple[DocumentSize, ...]
    shapes_each: int


@dataclass(frozen=True, slots=True)
class Instructions:
    """Exchanges, and streams with their seconds and the interval of their chunks, that are counted under valgrind."""

    exchanges: int
    streams: int
    stream_seconds: float
    interval: float


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of each part is measured. The bench is given up after `seconds`."""

    costs: Costs
    held_streams: int
    worker_rounds: int
    worker_exchanges: int
    transport_rounds: int
    crowd: Crowd
    handshakes: int
    growth: Growth
    documents: Documents
    instructions: Instructions
    starts: int
    seconds: int


COUNTED: Final = Instructions(150, streams=2, stream_seconds=10, interval=0.1)
"""What `make bench` and the gate count. It is slow, because under valgrind everything takes forty times as long."""

PLANS: Final = {
    "default": Plan(
        costs=Costs(2, 2, 4, {1: 150, 8: 400, 32: 400}, 100, streams=8, stream_seconds=2.5),
        held_streams=500,
        worker_rounds=5,
        worker_exchanges=800,
        transport_rounds=5,
        crowd=Crowd(2000, ramp=24, chunks=36, interval=1),
        handshakes=15,
        growth=Growth(
            chunks={10: 100, 100: 30, 1_000: 6, 10_000: 2, 100_000: 1},
            body_bytes={1024: 200, 16_384: 200, 262_144: 50, 4_194_304: 5, 16_777_216: 3},
            choices={1: 40, 4: 20, 16: 10, 64: 5},
        ),
        documents=Documents((DocumentSize(500_000, 1_000_000), DocumentSize(500_000, 16_000_000)), shapes_each=1),
        instructions=COUNTED,
        starts=7,
        seconds=2700,
    ),
    "tiny": Plan(
        costs=Costs(1, 1, 1, {1: 4, 8: 16, 32: 32}, 8, streams=2, stream_seconds=0.3),
        held_streams=50,
        worker_rounds=1,
        worker_exchanges=64,
        transport_rounds=1,
        crowd=Crowd(40, ramp=0.5, chunks=4, interval=0.25),
        handshakes=1,
        growth=Growth({10: 3, 100: 1, 1000: 1}, {1024: 4, 65_536: 2, 1_048_576: 1}, {1: 4, 4: 2, 16: 1}),
        documents=Documents((DocumentSize(1_000, 5_000),), shapes_each=99),
        instructions=Instructions(8, streams=1, stream_seconds=1, interval=0.1),
        starts=1,
        seconds=900,
    ),
}
"""`default` is for docs/performance.md, `tiny` only checks that everything runs."""

GATE: Final = Costs(1, 2, 2, {1: 100, 8: 240}, 0, streams=8, stream_seconds=1.5)
"""The plan of the gate."""
