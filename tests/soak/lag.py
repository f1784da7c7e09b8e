"""How far Aim was behind with the large answers of a soak, and whether the sidecar's memory was bounded meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from tests.soak import journal
from tests.soak.samples import Sample

_MORE_HELD = 1.5
"""What is held for a large answer, as a share of the limit: what was read before reading paused counts too."""
_OTHER_BYTES = 65_536
"""What is held for each of the other exchanges."""


@dataclass(frozen=True, slots=True)
class Lag:
    """The large answers of a soak."""

    clients: int
    """Clients at a time."""
    complete: int
    """Answers that arrived whole."""
    behind: float
    """The longest time from the model's last byte until the client had it, in seconds."""
    paused: float
    """The longest time for which a model could send nothing, in seconds."""

    def described(self) -> dict[str, float]:
        """Return the values as JSON, rounded."""
        return {name: round(value, 1) for name, value in asdict(self).items()}

    def problems(self, least_behind: float, least_paused: float) -> Iterator[str]:
        """Yield why the soak shows nothing of an Aim that is behind; both figures are in seconds."""
        if not self.complete:
            yield "no large answer arrived whole"
        elif self.behind < least_behind:
            yield f"Aim was never more than {self.behind:.1f} s behind: that shows nothing"
        if self.paused < least_paused:
            yield f"reading from a model paused for at most {self.paused:.1f} s: that shows nothing"


def lag(clients: int, arrived: Mapping[int, float], noted: Mapping[str, set[str]]) -> Lag:
    """Return the lag of the large answers that `arrived`, a time for each exchange."""
    sent, paused = (journal.latest(noted[kind]) for kind in (journal.SENT, journal.PAUSED))
    behind = [at - sent[str(number)] for number, at in arrived.items() if str(number) in sent]
    return Lag(clients, len(arrived), max(behind, default=0.0), max(paused.values(), default=0.0))


def held_problems(samples: Sequence[Sample], clients: int, streams: int, limit: int) -> Iterator[str]:
    """Yield what is wrong with the held bytes: `limit` is that of one stream, and some must have reached it."""
    most = max((sample.held for sample in samples), default=0)
    bound = round(_MORE_HELD * limit * clients + _OTHER_BYTES * streams)
    if most > bound:
        yield f"{most} bytes were held, more than {bound}"
    if most < limit:
        yield f"at most {most} bytes were held: that shows nothing"
