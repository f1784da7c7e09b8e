"""Aim as a witness: it drives an exchange to its end and records each text that it was asked about."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from extproc.aim import protocol
from extproc.core.errors import DetectionError
from extproc.core.events import ChunkVerified, SessionFailed
from extproc.core.verdict import Allow, Anonymize, Outcome
from extproc.core.vocabulary import Headers, Input, Leg
from tests.fakes.planted import units_of
from tests.fakes.reading import strings
from tests.fakes.world import World, policy

INSPECT = ("embeddings", "tools")

_NOTHING = re.compile("(?!)")

_PATIENCE = 3.0
"""Seconds: more than the head of a stream waits for its first verdict, less than Aim may be silent."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """One request and, unless `answer` is None, its answer."""

    path: str
    request: bytes | None
    answer: bytes | None = None
    method: str = "POST"
    status: int = 200
    content_type: str = "application/json"
    headers: Headers = (("content-type", "application/json"),)

    @property
    def is_stream(self) -> bool:
        """Return whether the answer is a stream of events or of lines."""
        return self.content_type.partition(";")[0] in ("text/event-stream", "application/x-ndjson")


@dataclass
class Witness:
    """One exchange and its Aim.

    Aim allows all texts that `redact` does not change, and asks for the redaction of the others. A stream is verified
    event by event if `is_eager`, else only after the last event.
    """

    traffic: Traffic
    redact: Callable[[str], str] = str
    is_eager: bool = True
    watched: re.Pattern[str] = _NOTHING
    """The texts whose release is watched. What the pattern captures identifies a text."""
    inspect: tuple[str, ...] = INSPECT
    texts: dict[Leg, list[str]] = field(default_factory=lambda: {leg: [] for leg in Leg})
    early: set[str] = field(default_factory=set)
    """Those of the watched texts that were released before Aim had verified them."""

    def __post_init__(self) -> None:
        self.world = World(policy(inspect=self.inspect))
        self._passed = dict.fromkeys(Leg, 0)
        self._verified: set[str] = set()
        self._running: dict[Any, str] = {}
        self._run()

    # -- what happened ---------------------------------------------------------------------------------------------

    @property
    def is_refused(self) -> bool:
        """Return whether the sidecar ended the exchange, at any point of it."""
        world = self.world
        return world.reply is not None or world.reset is not None or world.record.outcome in ("refused", "blocked")

    @property
    def why(self) -> str:
        """The reason of the refusal."""
        world = self.world
        return repr(world.reset.message) if world.reset is not None else world.record.code or world.record.outcome

    def released(self, leg: Leg) -> bytes:
        """Return the bytes that were released."""
        out = self.world.out[leg]
        if leg is Leg.REQUEST and out.headers is not None:
            body = self.traffic.request or b""
            if out.headers.replace_body:
                return body  # Envoy sends it past the sidecar
            if out.buffered is not None:
                return body if out.buffered.body is None else out.buffered.body
        return out.body

    def has_seen(self, leg: Leg, text: str) -> bool:
        """Return whether Aim was asked about `text` on this leg.

        It may be a part of a text, or of the chunks of one choice.
        """
        texts = [*self.texts[leg], *(self._running.values() if leg is Leg.RESPONSE else ())]
        return any(text in seen for seen in texts)

    # -- the exchange ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        world, traffic = self.world, self.traffic
        world.request(traffic.request, *traffic.headers, path=traffic.path, method=traffic.method)
        self._watch(Leg.REQUEST)
        self._answer_detections(Leg.REQUEST)
        if self.is_refused or traffic.answer is None:
            return
        assert traffic.request is None or self.released(Leg.REQUEST), "the request hangs"
        world.head(traffic.content_type, str(traffic.status))
        if traffic.is_stream:
            for event in units_of(traffic.answer):
                self._receive(event.raw)
            self._receive(b"", end=True)
        else:
            self._receive(traffic.answer, end=True)
        if not (self.is_eager or world.is_closed):
            world.wait(_PATIENCE)  # the head of the stream may leave now, but no text
            self._watch(Leg.RESPONSE)
            self._answer_all()
        assert self.is_refused or world.response.is_ended, "the answer hangs"
        assert world.session is None, "the session was left open"
        assert not world.detections, "a detection was left open"

    def _receive(self, data: bytes, *, end: bool = False) -> None:
        if self.world.is_closed or self.is_refused:
            return
        self.world.body(data, end=end)
        self._watch(Leg.RESPONSE)
        if self.is_eager or not self.traffic.is_stream:
            self._answer_all()

    def _answer_all(self) -> None:
        self._answer_detections(Leg.RESPONSE)
        world = self.world
        while world.chunks and not world.is_closed:
            self._verify(world.chunks.pop(0))
            self._answer_detections(Leg.RESPONSE)
        if world.is_submitted_done and world.session is not None:
            world.done()
            self._watch(Leg.RESPONSE)

    def _answer_detections(self, leg: Leg) -> None:
        world = self.world
        while world.detections:
            detection = world.detections[next(iter(world.detections))]
            outcomes: list[Outcome] = []
            for each in detection.inputs:
                self._see(leg, *([each.output] if each.output is not None else _judged(each)))
                outcomes.append(self._outcome(each))
            world.judge(*outcomes)
            self._watch(leg)

    def _outcome(self, each: Input) -> Outcome:
        texts = [message.get("content") for message in each.messages]
        said = [text if isinstance(text, str) else None for text in (*texts, *_listed(each.output))]
        redacted = [None if text is None else self.redact(text) for text in said]
        judged = [each.output] if each.output is not None else _judged(each)
        return Allow() if all(self.redact(text) == text for text in judged) else Anonymize(tuple(redacted))

    def _verify(self, chunk: dict[str, Any]) -> None:
        """Verify a chunk as the real client does: Aim echoes it, and the protocol's reader reads the frame."""
        world = self.world
        for index, delta in _deltas(chunk):
            self._see(Leg.RESPONSE, delta["content"])
            self._running[index] = self._running.get(index, "") + delta["content"]
            delta["content"] = self.redact(delta["content"])
        try:
            frame = protocol.frame(json.dumps({"verified_chunk": chunk}))
        except DetectionError as error:
            world.send(SessionFailed(world.opened[-1], error.reason))
        else:
            assert isinstance(frame, protocol.Verified)
            world.send(ChunkVerified(world.opened[-1], frame.texts, frame.chunk))
        self._watch(Leg.RESPONSE)

    def _see(self, leg: Leg, *texts: str) -> None:
        self.texts[leg].extend(texts)
        for text in texts:
            self._verified.update(self.watched.findall(text))

    def _watch(self, leg: Leg) -> None:
        released = self.released(leg)
        fresh, self._passed[leg] = released[self._passed[leg] :], len(released)
        self.early |= set(self.watched.findall(fresh.decode(errors="replace"))) - self._verified


def _judged(each: Input) -> list[str]:
    """Return the texts that Aim judges in the messages of a request."""
    texts: list[str] = []
    for message in each.messages:
        texts.extend(text for _, text in strings(message.get("content")))
        texts.extend(text for _, text in strings(message.get("tool_calls")))
    return texts


def _deltas(chunk: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield index and delta of the choices that have a text for Aim: it judges the content of a delta."""
    choices = chunk.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if isinstance(delta, dict) and isinstance(delta.get("content"), str) and delta["content"]:
            yield json.dumps(choice.get("index")), delta


def _listed(text: str | None) -> list[str]:
    return [] if text is None else [text]
