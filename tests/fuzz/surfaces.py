"""The code that reads untrusted bytes, as functions that take any bytes.

A function raises only if a promise is broken: a documented exception is a valid result, everything else is a finding.
The last bytes of an input make the choices that the peer does not make (limits, cuts, settings), so that recorded
traffic is a valid input.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress

from extproc.aim import protocol
from extproc.core.chunk import MARK
from extproc.core.content.document import Document
from extproc.core.dialects.endpoints import NAMES
from extproc.core.errors import DetectionError, ProtocolError, Reason
from extproc.core.events import (
    BodyReceived,
    ChunkVerified,
    Event,
    HeadersReceived,
    SessionDone,
    SessionFailed,
    StreamBlocked,
    TrailersReceived,
)
from extproc.core.policy import Limits
from extproc.core.verdict import Allow, Anonymize, Block, Failed, Monitor, Outcome
from extproc.core.vocabulary import BodyMode, Hook, Leg
from extproc.processor import wire
from tests.fakes.rig import chat_event
from tests.fakes.world import World, policy
from tests.fuzz import reading
from tests.fuzz.knobs import Knobs

_PATHS = {
    "openai-chat": "/v1/chat/completions",
    "openai-completions": "/v1/completions",
    "openai-responses": "/v1/responses",
    "anthropic-messages": "/v1/messages",
    "gemini": "/v1beta/models/m:streamGenerateContent",
    "openai-embeddings": "/v1/embeddings",
    "openai-images": "/v1/images/generations",
    "openai-speech": "/v1/audio/speech",
    "rerank": "/v1/rerank",
    "generic": "/unknown",
}
_LIMITS = Limits(request_bytes=65536, response_bytes=65536, event_bytes=16384, held_bytes=32768)


# -- what a model says -------------------------------------------------------------------------------------------------


def answer(data: bytes) -> None:
    """Send a whole answer in any dialect through an exchange, and redact each of its texts."""
    knobs = Knobs(data)
    name = knobs.pick(list(NAMES))
    world = _asked(name, knobs)
    media_type = knobs.pick(("application/json", "application/json", "text/plain", "application/x-ndjson"))
    world.head(media_type)
    for piece in knobs.cut(knobs.payload):
        world.body(piece)
    world.body(b"", end=True)
    manner = knobs.number(4)
    if world.detections:
        (detection,) = world.detections.values()
        texts = [one.output or "" for one in detection.inputs]
        outcomes: list[Outcome] = [
            (
                Allow(),
                Anonymize((None, _WORD.sub(reading.MASK, text))),
                Block("no"),
                Failed(Reason.TIMEOUT),
            )[manner]
            for text in texts
        ]
        world.judge(*outcomes)
    _finish(world, "echo")
    outcome = world.record.outcome
    if outcome == "allowed":
        assert world.response.body == knobs.payload
    if outcome == "redacted" and name != "generic" and media_type == "application/json":
        Document.from_bytes(world.response.body)


_WORD = re.compile("(?<= )[A-Za-z]+")
"""The words of a text that are no keys of JSON."""


def _asked(name: str, knobs: Knobs, *, stream: bool = False) -> World:
    """Return an exchange in a dialect whose request was released."""
    profile = policy(hooks=["output"], failure_mode_allow=knobs.flag(), paths={"/fuzzed": name})
    return World(profile, _LIMITS).request(json.dumps({"stream": stream}).encode(), path="/fuzzed")


def stream(data: bytes) -> None:
    """Send an event stream in any dialect through an exchange, with an Aim that echoes, rewrites, empties or blocks."""
    knobs = Knobs(data)
    name = knobs.pick(list(NAMES))
    world = _asked(name, knobs, stream=True)
    manner = knobs.pick(("echo", "echo", "rewrite", "empty", "block", "unmarked", "mismarked", "swap"))
    media_type = knobs.pick(("text/event-stream", "text/event-stream", "application/x-ndjson", "text/plain"))
    coding = knobs.pick(("", "", "", "gzip", "deflate", "br", "zstd"))
    world.head(media_type, "200", *([("content-encoding", coding)] if coding else []))
    for piece in knobs.cut(knobs.payload):
        world.body(piece)
        _answer(world, manner)
    world.body(b"", end=True)
    _finish(world, manner)
    if world.record.outcome == "allowed" and not coding:
        reading.check_lines(world.response.body, knobs.payload)


def _finish(world: World, manner: str) -> None:
    """Answer all chunks of an ended answer, if it is a stream, and check that the exchange ends."""
    _answer(world, manner)
    if world.is_submitted_done and world.session is not None and not world.is_complete:
        world.done()
    assert world.is_complete
    _check_end(world)


def _answer(world: World, manner: str) -> None:
    chunks, world.chunks[:] = list(world.chunks), []
    if manner == "swap":
        chunks.reverse()
    for number, chunk in enumerate(chunks):
        if world.is_closed or world.session is None:
            return
        if manner == "block" and number == 2:
            world.block("no")
            return
        if manner == "unmarked":
            chunk.pop(MARK, None)
        elif manner == "mismarked" and MARK in chunk:
            chunk[MARK] += number % 5 - 2
        if manner in ("rewrite", "empty", "unmarked", "mismarked") and number % 2:
            for choice in chunk["choices"]:
                if (
                    isinstance(choice, dict)
                    and isinstance(choice.get("delta"), dict)
                    and choice["delta"].get("content")
                ):
                    choice["delta"]["content"] = "" if manner == "empty" else reading.MASK
        _frame(world, json.dumps({"verified_chunk": chunk}))


def _frame(world: World, data: str | bytes) -> None:
    """Deliver a frame of a session."""
    session = world.opened[-1]
    event: Event
    try:
        match protocol.frame(data):
            case protocol.Verified(texts, chunk):
                event = ChunkVerified(session, texts, chunk)
            case protocol.Blocked(message):
                event = StreamBlocked(session, message)
            case protocol.Done():
                event = SessionDone(session)
    except DetectionError as error:
        event = SessionFailed(session, error.reason)
    world.send(event)


# -- what Aim says -----------------------------------------------------------------------------------------------------


def verdict(data: bytes) -> None:
    """Read an answer of Aim's REST API in any form, and redact a request as it says."""
    knobs = Knobs(data)
    form = knobs.pick(reading.FORMS)
    status = knobs.pick((200, 200, 200, 204, 302, 401, 422, 429, 500))
    prompt = {
        "messages": [{"role": "user", "content": "one"}, {"role": "user", "content": [{"text": "two", "type": "text"}]}]
    }
    world = World(policy(), _LIMITS).request(json.dumps(prompt).encode())
    ((number, detection),) = world.detections.items()
    (asked,) = detection.inputs
    outcome: Outcome
    try:
        outcome = protocol.answer(form, asked, status, knobs.payload)
    except DetectionError as error:
        outcome = Failed(error.reason)
    assert status == 200 or status == 204 or isinstance(outcome, Failed)
    world.judge(outcome)
    assert number not in world.detections
    match outcome:
        case Allow() | Monitor():
            assert world.upstream.buffered is not None
            assert world.upstream.buffered.body is None
        case Anonymize():
            if world.reply is None:
                assert world.upstream.buffered is not None
                assert world.upstream.buffered.body is not None
                Document.from_bytes(world.upstream.buffered.body)
        case Block() | Failed():
            assert world.reply is not None
            assert world.upstream.buffered is None
    _check_end(world)


_WORDS = ("ALPHA", "BRAVO", "CHARLIE", "DELTA")


def frames(data: bytes) -> None:
    """Deliver any frames of a session, one per line, while a stream waits; check that only verified texts leave."""
    knobs = Knobs(data)
    world = World(policy(hooks=["output"]), _LIMITS)
    world.request(b'{"stream": true}', path=_PATHS["openai-chat"]).head()
    waiting = [chat_event(role="assistant", text=""), *map(chat_event, _WORDS), b"data: [DONE]\n\n"]
    if knobs.flag():
        waiting.insert(2, chat_event(refusal="ECHO", index=1))
    said = ""
    for line in knobs.payload.split(b"\n"):
        for _ in range(knobs.number(3) + 1):
            if waiting:
                world.body(waiting.pop(0))
        if world.is_closed or world.session is None:
            break
        with suppress(DetectionError):
            if isinstance(read := protocol.frame(line), protocol.Verified):
                said += "\0".join(text or "" for _, text in read.texts) + "\0"
        _frame(world, line)
    shown = world.response.body + (world.reply.body if world.reply is not None else b"")
    for word in (*_WORDS, "ECHO"):
        assert word.encode() not in shown or word in said, f"{word} was released but never verified"
    if world.session is not None:
        world.lose()
    world.body(b"", end=True)
    assert world.is_complete
    _check_end(world)


# -- what Envoy says ---------------------------------------------------------------------------------------------------

_OUTCOMES: tuple[Outcome, ...] = (
    Allow(),
    Allow(),
    Monitor(),
    Block("no"),
    Failed(Reason.TIMEOUT),
    Anonymize(("[X]",)),
    Anonymize(("[X]", None)),
)


def messages(data: bytes) -> None:
    """Send any `ProcessingRequest`s, each preceded by its length in two bytes, through a whole exchange."""
    knobs = Knobs(data)
    world = _world(knobs)
    rest = knobs.payload
    while len(rest) > 2:
        size = int.from_bytes(rest[:2], "big")
        message, rest = rest[2 : 2 + size], rest[2 + size :]
        try:
            request = wire.parse(message)
            with suppress(ProtocolError):
                wire.body_modes(request, assume_full_duplex=knobs.flag())
            event = wire.decode(request)
        except ProtocolError:
            break
        if event is not None:
            _deliver(world, event)
            _play(world, knobs)
    _settle(world)


def exchange(data: bytes) -> None:
    """Perform steps of Envoy, Aim and the clocks in any order; each byte chooses one step."""
    knobs = Knobs(data)
    world = _world(knobs)
    steps = list(_STEPS)
    for byte in knobs.payload[:400]:
        step, choice = steps[byte % len(steps)], byte // len(steps)
        step(world, choice)
        if world.is_closed:
            assert world.held == 0
    _settle(world)


def _world(knobs: Knobs) -> World:
    hooks = knobs.pick(
        (
            {Hook.PRE_CALL, Hook.OUTPUT},
            {Hook.PRE_CALL},
            {Hook.OUTPUT},
            {Hook.MODERATION, Hook.OUTPUT},
            {Hook.PRE_CALL, Hook.MODERATION, Hook.OUTPUT},
            set(),
        )
    )
    it = policy(
        hooks=hooks,
        failure_mode_allow=knobs.flag(),
        unmatched=knobs.pick(("inspect", "pass", "block")),
        inspect=["embeddings", "tools"],
    )
    mode = knobs.pick((BodyMode.BUFFERED, BodyMode.FULL_DUPLEX_STREAMED))
    limits = knobs.pick((_LIMITS, Limits(request_bytes=1024, response_bytes=1024, event_bytes=1024, held_bytes=1024)))
    return World(it, limits, mode, is_overloaded=knobs.number(16) == 15)


def _deliver(world: World, event: Event) -> None:
    """Deliver an event; check that the exchange answers with few commands, and with none after its end."""
    was_closed = world.is_closed
    commands = world.send(event)
    assert not (was_closed and commands)
    assert len(commands) <= 64 + (len(event.data) if isinstance(event, BodyReceived) else 0)


def _play(world: World, knobs: Knobs) -> None:
    """Answer Aim's open detections and chunks in a way that the choices select."""
    if world.detections:
        _judge(world, knobs.number(8))
    if world.session is not None and world.chunks:
        _answer(world, knobs.pick(("echo", "rewrite")))
    if world.session is not None and world.is_submitted_done:
        world.done()


def _judge(world: World, choice: int) -> None:
    detection = next(iter(world.detections.values()))
    outcome = _OUTCOMES[choice % len(_OUTCOMES)]
    world.judge(*(outcome,) * len(detection.inputs))


_CHAT = json.dumps({"messages": [{"role": "user", "content": "Hello"}], "stream": True}).encode()
_BODIES = (
    _CHAT,
    _CHAT[:20],
    _CHAT[20:],
    b"",
    b"{}",
    b"\xff",
    b'{"messages": [{"role": "user", "content": "' + b"x" * 1200 + b'"}]}',
    b'{"choices": [{"message": {"content": "Hi"}}, {"message": {"content": "you"}}]}',
    chat_event(role="assistant", text=""),
    chat_event("Hi"),
    chat_event("Hi") + chat_event("you"),
    chat_event("Hi")[:30],
    chat_event("Hi")[30:],
    b": ping\n\n",
    b"data: [DONE]\n\n",
    b"data: junk\n\n",
)
_HEADS = (
    (":status", "200"),
    (":status", "500"),
    (":status", "413"),
    ("content-type", "text/event-stream"),
    ("content-type", "application/json"),
    ("content-type", "image/png"),
    ("content-encoding", "gzip"),
    ("content-length", "99999999"),
)


def _request_head(world: World, choice: int) -> None:
    path = list(_PATHS.values())[choice % len(_PATHS)] if choice < 14 else "/other"
    head = ((":method", "POST"), (":path", path), *([("upgrade", "websocket")] if choice == 13 else []))
    _deliver(world, HeadersReceived(Leg.REQUEST, head, end_of_stream=choice == 12))


def _response_head(world: World, choice: int) -> None:
    status, kind = _HEADS[choice % 3 if choice < 8 else 0], _HEADS[3 + choice % 3]
    more = [_HEADS[6 + choice % 2]] if choice > 12 else []
    _deliver(world, HeadersReceived(Leg.RESPONSE, (status, kind, *more), end_of_stream=choice == 11))


def _request_body(world: World, choice: int) -> None:
    _deliver(world, BodyReceived(Leg.REQUEST, _BODIES[choice % 8], end_of_stream=choice < 8))


def _response_body(world: World, choice: int) -> None:
    _deliver(world, BodyReceived(Leg.RESPONSE, _BODIES[choice % len(_BODIES)]))


def _response_end(world: World, choice: int) -> None:
    _deliver(world, BodyReceived(Leg.RESPONSE, _BODIES[(choice + 3) % len(_BODIES)], end_of_stream=True))


def _trailers(world: World, choice: int) -> None:
    _deliver(world, TrailersReceived((Leg.REQUEST, Leg.RESPONSE)[choice % 2]))


def _verdict(world: World, choice: int) -> None:
    if world.detections:
        _judge(world, choice)


def _chunk(world: World, choice: int) -> None:
    if world.session is not None and world.chunks:
        _frame(world, json.dumps({"verified_chunk": world.chunks.pop(choice % len(world.chunks))}))


def _word(world: World, choice: int) -> None:
    frame = (
        '{"done": true}',
        '{"blocking_message": "no"}',
        "{}",
        '{"verified_chunk": {"choices": [{"index": 0, "delta": {"content": "[X]"}}]}}',
        '{"verified_chunk": {"choices": [{"index": 0, "delta": {"content": "Hiyou"}}]}}',
        '{"verified_chunk": {"choices": [{"index": 0, "delta": {}}]}}',
        '{"verified_chunk": {"choices": []}}',
        '{"verified_chunk": {"choices": [{"index": 9, "delta": {"content": "Hi"}}]}}',
    )[choice % 8]
    if world.session is not None:
        _frame(world, frame)


def _loss(world: World, choice: int) -> None:
    if world.session is not None:
        world.lose((Reason.SESSION, Reason.UNREACHABLE)[choice % 2], opened=choice % 2 == 0)


def _clock(world: World, choice: int) -> None:
    world.wait((1, 2, 15)[choice % 3])


_STEPS: tuple[Callable[[World, int], None], ...] = (
    _request_head,
    _request_body,
    _verdict,
    _response_head,
    _response_body,
    _chunk,
    _response_end,
    _word,
    _loss,
    _clock,
    _trailers,
)
"""The possible steps. A byte selects one, and the rest of the byte selects its variant."""


def _settle(world: World) -> None:
    """Let everything in progress fail, so that the exchange has to end."""
    for _ in range(1000):
        if world.detections:
            detection = next(iter(world.detections.values()))
            world.judge(*(Failed(Reason.TIMEOUT),) * len(detection.inputs))
        elif world.session is not None:
            world.lose()
        elif world.exchange.deadline is not None:
            world.wake()
        else:
            break
    else:
        raise AssertionError("the exchange starts detections without end")
    if world.is_complete:
        _check_end(world)


def _check_end(world: World) -> None:
    """Check that a complete exchange holds nothing and waits for nothing."""
    if world.is_closed:
        assert world.held == 0
        assert world.session is None
        assert not world.detections
        assert world.exchange.deadline is None
        for event in (BodyReceived(Leg.RESPONSE, b"x"), TrailersReceived(Leg.RESPONSE)):
            assert world.exchange.handle(event, world.now) == []
    if world.reply is None and world.reset is None and world.response.is_ended:
        assert world.held == 0
        assert world.session is None
        assert world.exchange.deadline is None


SURFACES: dict[str, Callable[[bytes], None]] = {
    one.__name__: one
    for one in (
        reading.events,
        reading.lines,
        reading.units,
        reading.framing,
        reading.body,
        reading.document,
        reading.escapes,
        reading.request,
        reading.walk,
        answer,
        stream,
        verdict,
        frames,
        messages,
        exchange,
    )
}
"""Every surface by its name."""
