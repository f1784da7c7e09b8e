"""What the core alone takes to read a document, and to redact it: without gRPC, Aim and the rest of an exchange."""

from __future__ import annotations

import gc
import json
import time
from dataclasses import dataclass

from extproc.core.commands import Command, Detect
from extproc.core.events import BodyReceived, Event, HeadersReceived, VerdictReached, Woken
from extproc.core.exchange import Exchange
from extproc.core.policy import Limits, Policy
from extproc.core.verdict import Allow, Anonymize, Outcome
from extproc.core.vocabulary import REQUEST, RESPONSE, Hook, Input
from tests.bench.shapes import Carrier, Shape

_HEAD = (
    (":method", "POST"),
    (":path", "/v1/chat/completions"),
    ("content-type", "application/json"),
)
_LIMITS = Limits(values=500_000)
_BOTH = Policy(hooks=frozenset((Hook.PRE_CALL, Hook.OUTPUT)))


@dataclass(slots=True)
class Reading:
    """The core's CPU time, in microseconds."""

    read_us: float = 0.0
    """to read the document and to ask for its verdict"""
    redact_us: float = 0.0
    """to put back the redacted text, which reads the document again"""


def measure(shape: Shape, text: str) -> Reading:
    """Read the document in this process; redact its last text if the shape says so."""
    body = text.encode()
    exchange = Exchange("bench", _BOTH, _LIMITS)
    reading = Reading()
    exchange.handle(HeadersReceived(REQUEST, _HEAD), 1.0)
    if shape.carrier is Carrier.REQUEST:
        event: Event = BodyReceived(REQUEST, body, True)
    else:
        is_stream = shape.carrier is Carrier.EVENT
        asked = {"model": "bench", "messages": [{"role": "user", "content": "Hello"}], "stream": is_stream}
        first = _detect(exchange.handle(BodyReceived(REQUEST, json.dumps(asked).encode(), True), 1.0))
        exchange.handle(VerdictReached(first.detection, (Allow(),)), 1.0)
        kind = "text/event-stream" if is_stream else "application/json"
        exchange.handle(HeadersReceived(RESPONSE, ((":status", "200"), ("content-type", kind))), 1.0)
        event = BodyReceived(RESPONSE, b"data: " + body + b"\n\n" if is_stream else body, True)
    commands = _timed(exchange, event, reading, "read_us")
    if shape.is_redacted:
        detection = _detect(commands)
        outcomes = tuple(map(_redacted, detection.inputs))
        _timed(exchange, VerdictReached(detection.detection, outcomes), reading, "redact_us")
    return reading


def _timed(exchange: Exchange, event: Event, reading: Reading, name: str) -> list[Command]:
    """Handle `event`; add the CPU time under `name`. Python's collector works as in the sidecar."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 5, 5)
    try:
        began = time.process_time_ns()
        commands = exchange.handle(event, 2.0)
        while exchange.deadline is not None and exchange.deadline <= 2.0:
            commands += exchange.handle(Woken(), 2.0)  # a long stream is read in turns
        setattr(reading, name, (time.process_time_ns() - began) / 1e3)
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
    return commands


def _detect(commands: list[Command]) -> Detect:
    return next(command for command in commands if isinstance(command, Detect))


def _redacted(asked: Input) -> Outcome:
    """Return the verdict that changes one letter of the last text, as the bench's Aim does."""
    if asked.output is not None:
        return Anonymize((asked.output[:-1] + "*",))
    texts = [message["content"] for message in asked.messages]
    return Anonymize((*texts[:-1], texts[-1][:-1] + "*"))
