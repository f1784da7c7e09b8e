"""State machines as tables: a mapping from (state, type of event) to the method that handles the event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from extproc.core.errors import IllegalEvent
from extproc.core.events import BodyReceived, FromEnvoy, HeadersReceived, TrailersReceived

Table = Mapping[tuple[StrEnum, type], Callable[[Any, Any], None]]
"""(state, type of event) -> method, called with the machine and the event."""


def find(table: Table, state: StrEnum, event: object) -> Callable[[Any, Any], None]:
    """Return the method for `event` in `state`; raise IllegalEvent if the table has none."""
    method = table.get((state, type(event)))
    if method is None:
        raise IllegalEvent(f"{type(event).__name__} in state {state}")
    return method


def ignore(_machine: object, _event: object) -> None:
    """Do nothing: the event no longer matters."""


class Inbound(StrEnum):
    """How much of a leg Envoy has sent."""

    NOTHING = "nothing"
    OPEN = "open"
    ENDED = "ended"


NOTHING, OPEN, ENDED = Inbound
"""The members by short names, which are found faster in Python 3.11."""

INBOUND: Mapping[tuple[Inbound, type], Inbound] = {
    (Inbound.NOTHING, HeadersReceived): Inbound.OPEN,
    (Inbound.OPEN, BodyReceived): Inbound.OPEN,
    (Inbound.OPEN, TrailersReceived): Inbound.ENDED,
    (Inbound.ENDED, BodyReceived): Inbound.ENDED,  # ignored: Envoy may send an empty body after the end
}
"""The order in which the messages of a leg may arrive. A message with end_of_stream leads to ENDED."""


def advance(state: Inbound, event: FromEnvoy) -> Inbound:
    """Return the state after `event`; raise IllegalEvent for a message out of order."""
    following = INBOUND.get((state, type(event)))
    if following is None:
        raise IllegalEvent(f"{event.leg} {type(event).__name__} when {state} had arrived")
    if not isinstance(event, TrailersReceived) and event.end_of_stream:
        return ENDED
    return following
