"""Payload parts of SageMaker's streams: their payloads are joined, and cut into the units of the stream inside."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from extproc.core.content.aws_event_stream import Frame, FrameDecoder
from extproc.core.content.framing import Decoder, Framing, Unit, decoder_of
from extproc.core.errors import BodyTooLarge, MalformedBody
from tests.fakes.aws import frame, string

LIMIT = 4096
EVENTS = [b'data: {"a": "\xc3\xa9 one"}\n\n', b": ping\n\n", b'data: {"a": "two"}\r\n\r\n', b"data: [DONE]\n\n"]
LINES = [b'{"a": "\xc3\xa9 one"}\n', b"\n", b'{"a": "two"}\r\n', b'{"a": 3}']


def part(payload: bytes) -> bytes:
    kind, content = string(":event-type", "PayloadPart"), string(":content-type", "application/octet-stream")
    return frame(payload, kind, content, string(":message-type", "event"))


def exception(message: bytes = b'{"Message": "Bad"}') -> bytes:
    return frame(message, string(":exception-type", "ModelStreamError"), string(":message-type", "exception"))


def decoder(limit: int = LIMIT) -> Decoder:
    return decoder_of(Framing.AWS_EVENT_STREAM, limit)


def cut(body: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted({at for at in cuts if 0 < at < len(body)}), len(body)]
    return [body[start:end] for start, end in pairwise(bounds)]


def read(body: bytes, cuts: list[int] | None = None) -> list[Unit]:
    it = decoder()
    units = [unit for piece in cut(body, cuts or []) for unit in it.feed(piece)]
    units += it.finish()
    assert it.pending == 0
    return units


def collect(it: Decoder, body: bytes, into: list[Unit]) -> None:
    """Feed a decoder, and keep the units before an error."""
    for unit in it.feed(body):
        into.append(unit)  # noqa: PERF402 - see above


def payloads(body: bytes) -> bytes:
    """Return what a client reads: the joined payloads."""
    return b"".join(each.payload for each in FrameDecoder(LIMIT).feed(body))


def said(units: list[Unit]) -> list[str]:
    return [unit.data for unit in units if unit.data is not None]


def raws(units: list[Unit]) -> bytes:
    return b"".join(unit.raw for unit in units)


@pytest.mark.parametrize("inside", [EVENTS, LINES])
def test_unit_that_is_one_frame_keeps_its_bytes(inside: list[bytes]) -> None:
    body = b"".join(map(part, inside))
    for cuts in ([], list(range(len(body)))):
        units = read(body, cuts)
        assert [unit.raw for unit in units] == [part(each) for each in inside]
    assert units[0].data == '{"a": "é one"}'


@pytest.mark.parametrize("inside", [EVENTS, LINES])
def test_unit_of_several_frames_keeps_their_bytes(inside: list[bytes]) -> None:
    body = b"".join(part(each[:6]) + part(each[6:14]) + part(each[14:]) for each in inside if len(each) > 14)
    assert raws(read(body)) == body
    assert len(read(body)) == len([each for each in inside if len(each) > 14])


@pytest.mark.parametrize("inside", [EVENTS, LINES])
@pytest.mark.parametrize("seed", range(40))
def test_frames_may_be_cut_anywhere(inside: list[bytes], seed: int) -> None:
    draw = random.Random(seed)
    whole = b"".join(inside)
    parts = cut(whole, [draw.randrange(len(whole)) for _ in range(draw.randrange(12))])
    body = b"".join(map(part, parts))
    units = read(body, [draw.randrange(len(body)) for _ in range(draw.randrange(12))])
    assert payloads(raws(units)) == whole
    assert said(units) == said(read(b"".join(map(part, inside))))


def test_every_cut_into_two_frames() -> None:
    whole = b"".join(EVENTS)
    for at in range(1, len(whole)):
        units = read(part(whole[:at]) + part(whole[at:]))
        assert payloads(raws(units)) == whole
        assert said(units) == ['{"a": "é one"}', '{"a": "two"}', "[DONE]"]


def test_rewritten_unit_is_one_frame() -> None:
    body = part(EVENTS[0][:9]) + part(EVENTS[0][9:])
    (unit,) = read(body)
    assert unit.with_data('{"a": "x"}') == part(b'data: {"a": "x"}\n\n')
    assert not unit.is_foreign


def test_frames_of_other_types_keep_their_place() -> None:
    body = part(EVENTS[0]) + part(b'data: {"b"') + exception() + part(EVENTS[2])
    units = read(body)
    assert raws(units) == body
    assert [unit.data for unit in units] == ['{"a": "é one"}', '{"b"', '{"Message": "Bad"}', '{"a": "two"}']
    assert read(part(b"da") + exception())[0].data == "da"


def test_empty_payload_keeps_its_frame() -> None:
    body = part(b"") + part(EVENTS[0]) + part(b"")
    assert raws(read(body)) == body


@pytest.mark.parametrize("texts", [[b"Hello", b" there", b" 42"], ["é".encode(), b"4111"], [b"d", b"ay", b" after"]])
def test_other_streams_are_read_frame_by_frame(texts: list[bytes]) -> None:
    units = read(b"".join(map(part, texts)))
    assert [unit.data for unit in units] == [text.decode() for text in texts]
    assert all(isinstance(unit, Frame) and unit.is_foreign for unit in units)
    assert raws(units) == b"".join(map(part, texts))


@pytest.mark.parametrize(
    "body",
    [
        part(b"data: \xff\n\n"),
        part(EVENTS[0]) + part(b"data: \xff\n\n"),
        part(EVENTS[0] + b"data: \xff\n\n"),
        part(b"Hello") + part(b"\xff"),
        part(b"d") + part(b"\xff"),
        part(b"Hel\xff") + part(b"lo"),
    ],
)
def test_bytes_that_cannot_be_read_are_not_lost(body: bytes) -> None:
    it = decoder()
    units: list[Unit] = []
    with pytest.raises(MalformedBody):
        collect(it, body + exception(), units)
    rest = it.take_rest()
    assert payloads(raws(units) + rest) == payloads(body + exception())
    assert it.take_rest() == b""


def test_rest_of_a_reader_that_stops() -> None:
    body = part(EVENTS[0] + EVENTS[2]) + part(EVENTS[3])
    it = decoder()
    first = next(it.feed(body))
    assert it.pending > len(part(EVENTS[3]))  # the second event waits
    assert payloads(first.raw + it.take_rest()) == payloads(body)
    it = decoder()
    assert list(it.feed(part(b"data: a"))) == []
    assert it.pending > 0
    assert it.take_rest() == part(b"data: a")
    it = decoder()
    list(it.feed(part(EVENTS[0] + b"data: a")))
    assert payloads(it.take_rest()) == b"data: a"


def test_limits() -> None:
    it = decoder(200)
    with pytest.raises(BodyTooLarge):
        collect(it, part(b"data: aaaaaaaaaa") * 300, [])
    # Frames around few bytes are not kept beyond the limit.
    it = decoder(200)
    list(it.feed(part(b"data:")))
    for _ in range(50):
        list(it.feed(part(b"x")))
    assert it.pending <= 200 + 200 + len(part(b"x"))
    (unit,) = it.feed(part(b"\n\n"))
    assert unit.raw == part(b"data:" + b"x" * 50 + b"\n\n")
