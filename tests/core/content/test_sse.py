"""Event streams: the rules and examples of the WHATWG HTML standard, section 9.2.6, for any cut of the bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from extproc.core.content.sse import EventDecoder, ServerSentEvent
from extproc.core.errors import BodyTooLarge, MalformedBody

CORPUS = Path(__file__).parents[3].parent / "shared/corpus"
BOM = b"\xef\xbb\xbf"
AMPLE = 1 << 20

Told = tuple[str, str]  # type and data, as a client's listener gets them


def decode(*pieces: bytes, limit: int = AMPLE) -> list[ServerSentEvent]:
    decoder = EventDecoder(limit)
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events + list(decoder.finish())


def feed_all(decoder: EventDecoder, pieces: list[bytes], events: list[ServerSentEvent]) -> None:
    """Move pieces from one list to events in the other. An error leaves both lists in their current state."""
    while pieces:
        events.extend(decoder.feed(pieces.pop(0)))


def told(events: list[ServerSentEvent]) -> list[Told]:
    return [(event.type, event.data) for event in events if event.data is not None]


def bytewise(stream: bytes) -> list[bytes]:
    return [stream[i : i + 1] for i in range(len(stream))]


def cuts(stream: bytes) -> Iterator[list[bytes]]:
    """Yield the stream whole, byte by byte, with empty pieces, and in random pieces."""
    yield [stream]
    yield bytewise(stream)
    yield [b"", stream, b""]
    yield [piece for byte in bytewise(stream) for piece in (b"", byte)]
    chance = random.Random(len(stream))
    for _ in range(20):
        places = sorted(chance.choices(range(len(stream) + 1), k=4))
        yield [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]


SAMPLES: dict[str, tuple[bytes, list[Told]]] = {
    # -- the standard's own examples ---------------------------------------------------------------------------
    "two messages, one of two lines": (
        b"data: This is the first message.\n\n"
        b"data: This is the second message, it\ndata: has two lines.\n\n"
        b"data: This is the third message.\n\n",
        [
            ("", "This is the first message."),
            ("", "This is the second message, it\nhas two lines."),
            ("", "This is the third message."),
        ],
    ),
    "named events": (
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
        [("add", "73857293"), ("remove", "2153"), ("add", "113411")],
    ),
    "stock ticker": (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("", "YHOO\n+2\n10")]),
    "comment, ids, one space only": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [("", "first event"), ("", "second event"), ("", " third event")],
    ),
    # The standard fires two events here and discards the last block. The sidecar counts it, as some clients do.
    "data without a colon": (b"data\n\ndata\ndata\n\ndata:", [("", ""), ("", "\n"), ("", "")]),
    "the space behind the colon is optional": (b"data:test\n\ndata: test\n\n", [("", "test"), ("", "test")]),
    # -- the rules ---------------------------------------------------------------------------------------------
    "nothing": (b"", []),
    "blank lines only": (b"\n\r\n\r\n\n", []),
    "LF": (b"data: a\n\ndata: b\n\n", [("", "a"), ("", "b")]),
    "CR": (b"data: a\r\rdata: b\r\r", [("", "a"), ("", "b")]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [("", "a"), ("", "b")]),
    "mixed line ends": (b"data: a\r\n\ndata: b\n\rdata: c\r\r\ndata: d\n\r\n", [("", c) for c in "abcd"]),
    "CR CRLF is a line end and a blank line": (b"data: a\r\r\ndata: b\n\n", [("", "a"), ("", "b")]),
    "LF CR is a line end and a blank line": (b"data: a\n\rdata: b\n\n", [("", "a"), ("", "b")]),
    "CRLF is one line end": (b"data: a\r\ndata: b\r\n\r\n", [("", "a\nb")]),
    "many blank lines": (b"data: a\n\n\n\n\ndata: b\n\n\n", [("", "a"), ("", "b")]),
    "no final blank line": (b"data: a\n\ndata: b\n", [("", "a"), ("", "b")]),
    "no final line end": (b"data: a\n\ndata: b", [("", "a"), ("", "b")]),
    "ends in CR": (b"data: a\r\rdata: b\r", [("", "a"), ("", "b")]),
    "comments": (b":\n\n: x\n\ndata: a\n:data: no\n: data: no\n\n", [("", "a")]),
    "colons in the value": (b"data: a: b: c\ndata::\ndata: :\n\n", [("", "a: b: c\n:\n:")]),
    "one space is cut, no tab and no other": (b"data:  a\ndata:\tb\ndata: c \n\n", [("", " a\n\tb\nc ")]),
    "empty data lines": (b"data\ndata:\ndata: \ndata: a\n\n", [("", "\n\n\na")]),
    "the last event type counts": (b"event: a\ndata: x\nevent:b\n\n", [("b", "x")]),
    "an event type without value resets it": (b"event: a\nevent\ndata: x\n\n", [("", "x")]),
    "the event type does not outlive its event": (b"event: a\ndata: x\n\ndata: y\n\n", [("a", "x"), ("", "y")]),
    "the type of a block without data is dropped": (b"event: a\n\ndata: y\n\n", [("", "y")]),
    "id and retry": (b"id: 1\nretry: 10\ndata: a\nid: \0\n\nretry: x\n\n", [("", "a")]),
    "field names match exactly": (b"Data: a\n data: b\ndata : c\ndat: d\ndatas: e\nEVENT: f\n\n", []),
    "unknown fields": (b"foo: bar\nfoo\ndata: a\n\n", [("", "a")]),
    "other line separators do not count": (
        "data: a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\n\n".encode(),
        [("", "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg")],
    ),
    "NUL": (b"data: a\0b\n\n", [("", "a\0b")]),
    "UTF-8": ("event: é\ndata: \U0001f600 \u05d0\n\n".encode(), [("é", "\U0001f600 \u05d0")]),
    "BOM": (BOM + b"data: a\n\n", [("", "a")]),
    "BOM before an event type": (BOM + b"event: e\ndata: a\n\n", [("e", "a")]),
    "BOM alone on the first line": (BOM + b"\ndata: a\n\n", [("", "a")]),
    "BOM before a comment": (BOM + b": c\r\n\r\ndata: a\r\n\r\n", [("", "a")]),
    "only one BOM is cut": (BOM + BOM + b"data: a\n\n", []),
    "no BOM behind a comment": (b":\n" + BOM + b"data: a\n\n", []),
    "no BOM behind a blank line": (b"\n" + BOM + b"data: a\n\ndata: b\n\n", [("", "b")]),
    "BOM in data": (b"data: " + BOM + b"a\n\n", [("", "\ufeffa")]),
    "half a BOM": (BOM[:2] + b"data: a\n\n", []),
    "bytes that are not UTF-8 in ignored fields": (b": \xff\nid: \xfe\n\xfdx: y\ndata: a\n\n", [("", "a")]),
}

sample = pytest.mark.parametrize("name", SAMPLES)


@sample
def test_events_do_not_depend_on_the_cut(name: str) -> None:
    stream, expected = SAMPLES[name]
    for pieces in cuts(stream):
        events = decode(*pieces)
        assert told(events) == expected
        assert b"".join(event.raw for event in events) == stream


@sample
def test_further_event_does_not_change_the_events_before_it(name: str) -> None:
    """The events before it are the same, however the bytes are cut."""
    stream, expected = SAMPLES[name]
    whole = stream if stream.endswith((b"\n\n", b"\r\r", b"\r\n\r\n")) else stream + b"\n\n"
    assert told(decode(whole + b"data: more\n\n"))[-1] == ("", "more")
    assert told(decode(whole + b"data: more\n\n"))[: len(expected)] == expected


def test_raw_bytes_include_the_blank_line() -> None:
    stream = b": c\n\ndata: a\r\n\r\nid: 1\revent: e\rdata: b\r\rretry: 5\n\n\ndata: c"
    assert decode(stream) == [
        ServerSentEvent(b": c\n\n", is_first=True),
        ServerSentEvent(b"data: a\r\n\r\n", "a"),
        ServerSentEvent(b"id: 1\revent: e\rdata: b\r\r", "b", "e"),
        ServerSentEvent(b"retry: 5\n\n"),
        ServerSentEvent(b"\n"),
        ServerSentEvent(b"data: c", "c"),
    ]


def test_event_is_yielded_as_soon_as_it_is_complete() -> None:
    decoder = EventDecoder(AMPLE)
    assert [list(decoder.feed(piece)) for piece in bytewise(b"data: a\n\n")][-2:] == [
        [],
        [ServerSentEvent(b"data: a\n\n", "a", is_first=True)],
    ]
    # The CR of a second line end completes the event too. The decoder must not wait for a LF.
    assert list(decoder.feed(b"data: b\r\n\r")) == [ServerSentEvent(b"data: b\r\n\r", "b")]
    assert decoder.pending == 0
    assert list(decoder.feed(b"\ndata: c\n\n")) == [ServerSentEvent(b"\ndata: c\n\n", "c")]


def test_lf_after_the_final_cr_is_kept() -> None:
    assert decode(b"data: a\r\r", b"\n") == [
        ServerSentEvent(b"data: a\r\r", "a", is_first=True),
        ServerSentEvent(b"\n"),
    ]


def test_pending_counts_the_held_bytes() -> None:
    decoder = EventDecoder(AMPLE)
    for piece, pending in ((b"dat", 3), (b"a: x\r", 8), (b"\n", 9), (b"\r", 0), (b"\n", 1), (b": c", 4)):
        list(decoder.feed(piece))
        assert decoder.pending == pending
    list(decoder.finish())
    assert decoder.pending == 0
    assert list(decoder.finish()) == []


# -- errors ------------------------------------------------------------------------------------------------------

MALFORMED = {
    "data": b"data: a\xff\n\n",
    "later data line": b"data: a\ndata: \xc3\n\n",
    "event type": b"event: \xed\xa0\x80\ndata: a\n\n",
    "event type without data": b"event: \xff\n\n",
    "a character cut by a line end": b"data: \xc3\ndata: \xa9\n\n",
}


@pytest.mark.parametrize("broken", MALFORMED.values(), ids=MALFORMED)
def test_data_that_is_not_utf8_is_malformed(broken: bytes) -> None:
    before, behind = b"data: before\n\n", b"data: behind\n\n: rest"
    for pieces in cuts(before + broken + behind):
        decoder = EventDecoder(AMPLE)
        events: list[ServerSentEvent] = []
        unfed = list(pieces)
        with pytest.raises(MalformedBody):
            feed_all(decoder, unfed, events)
        assert told(events) == [("", "before")]
        lost = b"".join(event.raw for event in events) + decoder.take_rest() + b"".join(unfed)
        assert lost == before + broken + behind


def test_last_event_that_is_not_utf8_is_malformed() -> None:
    decoder = EventDecoder(AMPLE)
    assert list(decoder.feed(b"data: \xff")) == []
    with pytest.raises(MalformedBody):
        list(decoder.finish())
    assert decoder.take_rest() == b"data: \xff"


EDGE = 16


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_complete_event_at_the_limit_is_accepted(line_end: bytes) -> None:
    event = b"data: ".ljust(EDGE - 2 * len(line_end), b"x") + 2 * line_end
    assert len(event) == EDGE
    for pieces in ([event + event], bytewise(event + event)):
        assert len(told(decode(*pieces, limit=EDGE))) == 2


def test_complete_event_over_the_limit_is_refused() -> None:
    event = b"data: ".ljust(EDGE - 1, b"x") + b"\n\n"
    assert len(event) == EDGE + 1
    for pieces in ([event], [b": c\n\n" + event], bytewise(event)):
        with pytest.raises(BodyTooLarge):
            decode(*pieces, limit=EDGE)


def test_incomplete_event_at_the_limit_is_accepted() -> None:
    event = b"data: ".ljust(EDGE, b"x")
    for pieces in ([event], bytewise(event)):
        assert [item.raw for item in decode(*pieces, limit=EDGE)] == [event]


def test_incomplete_event_over_the_limit_is_refused() -> None:
    event = b"data: ".ljust(EDGE + 1, b"x")
    for pieces in ([event], [b": c\n\n" + event], bytewise(event)):
        decoder = EventDecoder(EDGE)
        with pytest.raises(BodyTooLarge):
            feed_all(decoder, pieces, [])
        assert decoder.take_rest() == event


def test_limit_applies_to_each_event() -> None:
    assert len(told(decode(b"data: a\n\n" * 100, limit=EDGE))) == 100


@pytest.mark.parametrize(
    ("stream", "limit"),
    [
        (b"data: abc\n\n", 10),
        (b"data: abc\n\n", 11),
        (b"data: \xff\n\n", AMPLE),
        (BOM + b"data: a\n\n", AMPLE),
        (BOM + b"\n\n", AMPLE),
        (b": c\n\n", AMPLE),
        (b"odd\n\n", AMPLE),
        (b"event: e\n\n", AMPLE),
        (b"data: a\rdata: b\n\n", AMPLE),
        (b"\n\n", AMPLE),
        (b"data: a\n\n\n", AMPLE),
    ],
)
@pytest.mark.parametrize("before", [b"", b"data: x\n\n", b"data: x\r\r", b"data: x\r\n\r\n", b"data"])
def test_fast_path_for_one_event_gives_the_same_result(stream: bytes, limit: int, before: bytes) -> None:
    if b"\r" in before:
        limit = AMPLE  # the length of an event may depend on the cut, too
    outcomes = []
    for pieces in ([before, stream], [before + stream], bytewise(before + stream)):
        decoder = EventDecoder(limit)
        events: list[ServerSentEvent] = []
        problem = None
        try:
            feed_all(decoder, pieces, events)
            events += decoder.finish()
        except (BodyTooLarge, MalformedBody) as error:
            problem = type(error)
        # After a CR, the cut decides to which of two events a LF belongs.
        read = [(event.type, event.data, event.is_first, event.is_foreign) for event in events if event.raw.strip()]
        raw = b"".join(event.raw for event in events) + decoder.take_rest() + b"".join(pieces)
        outcomes.append((read, problem, raw))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_rest_contains_what_was_not_yielded() -> None:
    before, big, behind = b"data: a\n\n", b"data: ".ljust(EDGE + 9, b"x") + b"\n\n", b"data: b\n\ndata: c"
    decoder = EventDecoder(EDGE)
    events: list[ServerSentEvent] = []
    with pytest.raises(BodyTooLarge):
        feed_all(decoder, [before, big + behind], events)
    assert [event.raw for event in events] == [before]
    assert decoder.take_rest() == big + behind
    assert decoder.take_rest() == b""
    assert decoder.pending == 0


# -- with_data -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "data", "expected"),
    [
        (b"data: a\n\n", "b", b"data: b\n\n"),
        (b"data: a\n\n", "", b"data: \n\n"),
        (b"data: a\n\n", "\u00e9\U0001f600", "data: \u00e9\U0001f600\n\n".encode()),
        (b"data:a\r\n\r\n", "b", b"data:b\r\n\r\n"),
        (b"data\r\r", "b", b"data: b\r\r"),
        (b"data: a", "b", b"data: b"),
        (b"data", "b", b"data: b"),
        (b"data: a", "b\nc", b"data: b\ndata: c"),
        (b"data:a\r\n\r\n", "b\nc\n", b"data:b\r\ndata:c\r\ndata:\r\n\r\n"),
        (b"data: a\ndata: b\ndata: c\n\n", "x", b"data: x\n\n"),
        (b"data: a\n: k\ndata: b\nid: 7\n\n", "x\ny", b"data: x\ndata: y\n: k\nid: 7\n\n"),
        (
            b"id: 7\nevent: e\nretry:\nfoo\n: data: k\ndata: a\n\n",
            "b",
            b"id: 7\nevent: e\nretry:\nfoo\n: data: k\ndata: b\n\n",
        ),
        (BOM + b"data: a\n\n", "b", BOM + b"data: b\n\n"),
        (BOM + b"event: e\ndata:a\n\n", "b", BOM + b"event: e\ndata:b\n\n"),
        (b"data : a\nDATA: a\ndata: b\n\n", "c", b"data : a\nDATA: a\ndata: c\n\n"),
        (b": \xff\ndata: a\n\n", "b", b": \xff\ndata: b\n\n"),
        (b": c\n\n", "b", b": c\n\n"),
    ],
)
def test_with_data_replaces_the_data_lines(raw: bytes, data: str, expected: bytes) -> None:
    (event,) = decode(raw)
    assert event.with_data(data) == expected
    (again,) = decode(expected)
    assert again.type == event.type
    assert again.data == (data if event.data is not None else None)


def test_with_data_keeps_a_lf_left_over_from_the_event_before() -> None:
    event = decode(b"data: a\r\n\r", b"\ndata: b\n\n")[1]
    assert event.with_data("c") == b"\ndata: c\n\n"


@pytest.mark.parametrize("raw", [b"data: a\rdata: b\n\n", b"data: a\nid: 1\rdata: b\n\n", b"data: a\r: c\rdata: b\n\n"])
def test_with_data_keeps_the_end_of_the_event(raw: bytes) -> None:
    (event,) = decode(raw)
    assert told(decode(event.with_data("x") + b"data: next\n\n")) == [("", "x"), ("", "next")]


def test_with_data_replaces_only_data_lines() -> None:
    raw = BOM + b"data: not data\ndata: a\n\n"
    event = decode(b": first\n\n" + raw)[1]
    assert event.data == "a"
    assert event.with_data("b") == BOM + b"data: not data\ndata: b\n\n"


@pytest.mark.parametrize("data", [" b", "{\n  1}"])
def test_with_data_keeps_leading_spaces(data: str) -> None:
    (event,) = decode(b"data:a\n\n")
    assert [again.data for again in decode(event.with_data(data))] == [data]


# -- recorded streams --------------------------------------------------------------------------------------------


def recordings() -> list[Path]:
    """Return the recorded event streams, if any."""
    return [
        meta.parent
        for meta in sorted(CORPUS.glob("*/meta.json"))
        if "event-stream" in (json.loads(meta.read_bytes()).get("content_type") or "")
    ]


@pytest.mark.corpus
@pytest.mark.skipif(not CORPUS.is_dir(), reason="no recorded traffic in ../shared/corpus")
@pytest.mark.parametrize("case", recordings(), ids=lambda case: case.name)
def test_recorded_streams_are_read_without_losing_a_byte(case: Path) -> None:
    stream = (case / "response.body").read_bytes()
    events = decode(stream)
    datas = [event.data for event in events if event.data is not None]
    assert len(datas) >= 3
    assert all(data == "[DONE]" or isinstance(json.loads(data), dict) for data in datas)
    assert b"".join(event.raw for event in events) == stream
    assert told(decode(*bytewise(stream))) == told(events)
    assert b"".join(event.raw if event.data is None else event.with_data(event.data) for event in events) == stream
