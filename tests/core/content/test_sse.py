"""Event streams: the rules and examples of the WHATWG HTML standard, section 9.2.6, for any cut of the bytes."""

from __future__ import annotations

import json
import random
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from extproc.core.content.server_sent_event import ServerSentEvent
from extproc.core.content.sse import EventDecoder
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
    return [(event.type, event.data) for event in events if event.data is not None and not event.is_foreign]


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
        b": connected\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
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
    "comments": (b":\n\n: ping\n\ndata: a\n:ok\n: keep-alive\n\n", [("", "a")]),
    "colons in the value": (b"data: a: b: c\ndata::\ndata: :\n\n", [("", "a: b: c\n:\n:")]),
    "one space is cut, no tab and no other": (b"data:  a\ndata:\tb\ndata: c \n\n", [("", " a\n\tb\nc ")]),
    "empty data lines": (b"data\ndata:\ndata: \ndata: a\n\n", [("", "\n\n\na")]),
    "the last event type counts": (b"event: a\ndata: x\nevent:b\n\n", [("b", "x")]),
    "an event type without value resets it": (b"event: a\nevent\ndata: x\n\n", [("", "x")]),
    "the event type does not outlive its event": (b"event: a\ndata: x\n\ndata: y\n\n", [("a", "x"), ("", "y")]),
    "the type of a block without data is dropped": (b"event: a\n\ndata: y\n\n", [("", "y")]),
    "id and retry": (b"id: 1\nretry: 10\ndata: a\n\nid: 2\n\nretry:\n\n", [("", "a")]),
    "field names match exactly": (b"Data: a\n data: b\ndata : c\ndat: d\ndatas: e\nEVENT: f\n\n", []),
    "unknown fields": (b"foo: bar\nfoo\ndata: a\n\n", [("", "a")]),
    "other line separators do not count": (
        "data: a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\n\n".encode(),
        [("", "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg")],
    ),
    "NUL": (b"data: a\0b\n\n", [("", "a\0b")]),
    "UTF-8": ("data: \U0001f600 \u05d0\n\n".encode(), [("", "\U0001f600 \u05d0")]),
    "BOM": (BOM + b"data: a\n\n", [("", "a")]),
    "BOM before an event type": (BOM + b"event: e\ndata: a\n\n", [("e", "a")]),
    "BOM alone on the first line": (BOM + b"\ndata: a\n\n", [("", "a")]),
    "BOM before a comment": (BOM + b": ok\r\n\r\ndata: a\r\n\r\n", [("", "a")]),
    "only one BOM is cut": (BOM + BOM + b"data: a\n\n", []),
    "no BOM behind a comment": (b":\n" + BOM + b"data: a\n\n", []),
    "no BOM behind a blank line": (b"\n" + BOM + b"data: a\n\ndata: b\n\n", [("", "b")]),
    "BOM in data": (b"data: " + BOM + b"a\n\n", [("", "\ufeffa")]),
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
    stream = b": ok\n\ndata: a\r\n\r\nid: 1\revent: e\rdata: b\r\rretry: 5\n\n\ndata: c"
    assert decode(stream) == [
        ServerSentEvent(b": ok\n\n", is_first=True),
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
    assert list(decoder.feed(b"\ndata: c\n\n")) == [ServerSentEvent(b"\n"), ServerSentEvent(b"data: c\n\n", "c")]


def test_lf_after_the_final_cr_is_kept() -> None:
    assert decode(b"data: a\r\r", b"\n") == [
        ServerSentEvent(b"data: a\r\r", "a", is_first=True),
        ServerSentEvent(b"\n"),
    ]


def test_pending_counts_the_held_bytes() -> None:
    decoder = EventDecoder(AMPLE)
    for piece, pending in ((b"dat", 3), (b"a: x\r", 8), (b"\n", 9), (b"\r", 0), (b"\n", 0), (b": c", 3)):
        list(decoder.feed(piece))
        assert decoder.pending == pending
    list(decoder.finish())
    assert decoder.pending == 0
    assert list(decoder.finish()) == []


# -- errors ------------------------------------------------------------------------------------------------------

MALFORMED = {
    "data": b"data: a\xff\n\n",
    "later data line": b"data: a\ndata: \xc3\n\n",
    "a foreign line": b"\xfdx: y\n\n",
    "a foreign line before data": b"\xfdx: y\ndata: a\n\n",
    "half a BOM": BOM[:2] + b"data: a\n\n",
    "a character cut by a line end": b"data: \xc3\ndata: \xa9\n\n",
}


@pytest.mark.parametrize("broken", MALFORMED.values(), ids=MALFORMED)
def test_data_that_is_not_utf8_is_malformed(broken: bytes) -> None:
    before, behind = b"data: before\n\n", b"data: behind\n\n: ok"
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
    for pieces in ([event], [b": ok\n\n" + event], bytewise(event)):
        with pytest.raises(BodyTooLarge):
            decode(*pieces, limit=EDGE)


def test_incomplete_event_at_the_limit_is_accepted() -> None:
    event = b"data: ".ljust(EDGE, b"x")
    for pieces in ([event], bytewise(event)):
        assert [item.raw for item in decode(*pieces, limit=EDGE)] == [event]


def test_incomplete_event_over_the_limit_is_refused() -> None:
    event = b"data: ".ljust(EDGE + 1, b"x")
    for pieces in ([event], [b": ok\n\n" + event], bytewise(event)):
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
        (b": ok\n\n", AMPLE),
        (b": c\n\n", AMPLE),
        (b"odd\n\n", AMPLE),
        (b'error: {"a":1}\n\n', AMPLE),
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
        (b"data: a\n: ok\ndata: b\nid: 7\n\n", "x\ny", b"data: x\ndata: y\n: ok\nid: 7\n\n"),
        (b"data: a\n\n", "x\r\ny\rz", b"data: x\ndata: y\ndata: z\n\n"),
        (b"id: 7\nevent: e\nretry:\ndata: a\n\n", "b", b"id: 7\nevent: e\nretry:\ndata: b\n\n"),
        (BOM + b"data: a\n\n", "b", BOM + b"data: b\n\n"),
        (BOM + b"event: e\ndata:a\n\n", "b", BOM + b"event: e\ndata:b\n\n"),
        (b": ok\n\n", "b", b": ok\n\n"),
    ],
)
def test_with_data_replaces_the_data_lines(raw: bytes, data: str, expected: bytes) -> None:
    (event,) = decode(raw)
    assert event.with_data(data) == expected
    (again,) = decode(expected)
    assert again.type == event.type
    assert again.data == ("\n".join(data.splitlines()) + "\n" * data.endswith("\n") if event.data is not None else None)


@pytest.mark.parametrize(
    "raw", [b"data: a\rdata: b\n\n", b"data: a\nid: 1\rdata: b\n\n", b"data: a\r: ok\rdata: b\n\n"]
)
def test_with_data_keeps_the_end_of_the_event(raw: bytes) -> None:
    (event,) = decode(raw)
    assert told(decode(event.with_data("x") + b"data: next\n\n")) == [("", "x"), ("", "next")]


def test_with_data_replaces_only_data_lines() -> None:
    raw = BOM + b"data: not data\ndata: a\n\n"
    _, foreign, event = decode(b": ok\n\n" + raw)
    assert (foreign.data, event.data) == ("\ufeffdata: not data", "a")
    assert event.with_data("b") == b"data: b\n\n"
    assert foreign.with_data("b") == b"b\n"


@pytest.mark.parametrize("data", [" b", "{\n  1}"])
def test_with_data_keeps_leading_spaces(data: str) -> None:
    (event,) = decode(b"data:a\n\n")
    assert [again.data for again in decode(event.with_data(data))] == [data]


# -- lines without data ------------------------------------------------------------------------------------------

INERT = [
    *("", " ", " ping", "PING", "keep-alive", "Keepalive", " OPENROUTER PROCESSING", " stream complete", "heartbeat"),
    *("connected", "ok", "hb", "7", " 1735689600.123456", " ping - 2025-01-01 10:00:00.123456+00:00", "heartbeat 17"),
    "2025-01-01T10:00:00Z",
]
WORDY = [
    "x",
    "data: x",
    "my name is Tom",
    " ping Tom",
    "ping\x0bdata: x",
    "ok\u2028x",
    " " * 70,
    "okok",
    "1" * 17,
    "\0",
]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("comment", INERT)
def test_known_comments_pass(comment: str, end: str) -> None:
    assert len(comment) <= 64
    block = f":{comment}{end}"
    for stream in (block, block + end, f"data: a{end}{block}data: b{end}{end}", f"event: e{end}{block}{end}"):
        for pieces in ([stream.encode()], bytewise(stream.encode())):
            assert b"".join(event.raw for event in decode(*pieces)) == stream.encode()


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("comment", [*WORDY, "\u00e9"])
def test_other_comments_leave_empty(comment: str, end: str) -> None:
    for around in ("{}", "{}" + end, f"data: a{end}{{}}data: b{end}{end}", f"event: e{end}{{}}{end}"):
        stream = around.format(f":{comment}{end}").encode()
        for pieces in ([stream], bytewise(stream)):
            events = decode(*pieces)
            assert b"".join(event.raw for event in events) == around.format(f":{end}").encode()
            assert not any(event.is_foreign for event in events)


@pytest.mark.parametrize(
    ("line", "passes"),
    [
        ("event: content_block_delta", True),
        ("event:thread.message.delta", True),
        ("event", True),
        ("event: ", True),
        ("event: two words", False),
        ("event: tom@example.com", False),
        ("event: \u05d0", False),
        ("event: " + "a" * 257, False),
        ("event: a\x0bdata: b", False),
        ("id: 7", True),
        ("id: @a/b=%2F+c:d.e-f_g", True),
        ("id: \0", False),
        ("id: a\u2028data: b", False),
        ("retry: 3000", True),
        ("retry", True),
        ("retry: soon", False),
        ("retry: 3000 or so", False),
    ],
)
def test_field_without_data_passes_only_if_it_looks_inert(line: str, passes: bool) -> None:
    for around in ("{}\n\n", "{}\ndata: x\n\n", "data: x\r\n{}\r\n\r\n", "{}"):
        stream = around.format(line).encode()
        for pieces in ([stream], bytewise(stream)):
            raw = b"".join(event.raw for event in decode(*pieces))
            assert raw == (stream if passes else around.format(":").encode())


def test_first_line_keeps_its_bom_when_it_is_emptied() -> None:
    assert [event.raw for event in decode(BOM + b": Tom\ndata: a\n\n")] == [BOM + b":\ndata: a\n\n"]


def test_field_that_does_not_pass_changes_nothing_else() -> None:
    (event,) = decode(b"event: a\nevent: b c\nid: d e\ndata: x\n\n")
    assert (event.raw, event.type, event.data) == (b"event: a\n:\n:\ndata: x\n\n", "a", "x")
    assert event.with_data("y") == b"event: a\n:\n:\ndata: y\n\n"


@pytest.mark.parametrize("line", [b"\n", b"\r\n", b"\r", b":\n", b": ping\n\n"])
def test_run_of_lines_without_text_is_one_event(line: bytes) -> None:
    run = line * 10_000
    assert [event.raw for event in decode(run)] == [run]
    first, second, third = decode(b"data: a\n\n" + run + b"data: b\n\n")
    assert (first.data, second.raw, second.data, third.data) == ("a", run, None, "b")


def test_run_within_an_event_belongs_to_it() -> None:
    (event,) = decode(b"data: a\n" + b": ping\n" * 1000 + b"data: b\n\n")
    assert event.data == "a\nb"


def test_run_is_cut_at_the_limit() -> None:
    assert [len(event.raw) for event in decode(b"\n" * 40, limit=EDGE)] == [16, 16, 8]
    assert [len(event.raw) for event in decode(b": ping\n" * 5, limit=EDGE)] == [14, 14, 7]


# -- foreign lines -----------------------------------------------------------------------------------------------


def foreign(*pieces: bytes) -> list[tuple[bytes, str | None, bool]]:
    return [(event.raw, event.data, event.is_foreign) for event in decode(*pieces)]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b'error: {"a":"b"}\n\n', [(b'error: {"a":"b"}\n', '{"a":"b"}', True), (b"\n", None, False)]),
        (b'{"a":1}\n[2]\n"c"\n', [(b'{"a":1}\n', '{"a":1}', True), (b"[2]\n", "[2]", True), (b'"c"\n', '"c"', True)]),
        (b'{"a":1}\r\n{}\r\n', [(b'{"a":1}\r\n', '{"a":1}', True), (b"{}\r\n", "{}", True)]),
        (b" x:{}", [(b" x:{}", "{}", True)]),
        (b'{\n "a":\n{}}\n\n', [(b'{\n "a":\n{}}\n\n', '{\n "a":\n{}}', True)]),
        (b"error: {\n}\n\n", [(b"error: {\n}\n\n", "{\n}", True)]),
        (b"some\nwords: a\n\nmore", [(b"some\nwords: a\n\n", "some\nwords: a", True), (b"more", "more", True)]),
        (b"words\n{}\nmore\n\n", [(b"words\n", "words", True), (b"{}\n", "{}", True), (b"more\n\n", "more", True)]),
        (
            b"event: e\nfoo: bar\ndata: a\n\n",
            [(b"event: e\nfoo: bar\n", "foo: bar", True), (b"data: a\n\n", "a", False)],
        ),
        (b"data: a\nfoo: bar\nid: 1\n\n", [(b"data: a\n", "a", False), (b"foo: bar\nid: 1\n\n", "foo: bar", True)]),
        (b"data: a\n{}\nb\n\n", [(b"data: a\n", "a", False), (b"{}\n", "{}", True), (b"b\n\n", "b", True)]),
        (b"x\ndata: a\ny\n", [(b"x\n", "x", True), (b"data: a\n", "a", False), (b"y\n", "y", True)]),
        (b"data: a\n{}\nx\ndata: b\n\n", [(b"data: a\n:\n:\ndata: b\n\n", "a\nb", False)]),
        (b"data: a\nx\n: y\ndata: b\nz\n\n", [(b"data: a\n:\n:\ndata: b\n", "a\nb", False), (b"z\n\n", "z", True)]),
        (b"x\n: y\ndata: b\n\n", [(b"x\n:\n", "x", True), (b"data: b\n\n", "b", False)]),
        (b"x\ndata: b\n: y\n\n", [(b"x\n", "x", True), (b"data: b\n:\n\n", "b", False)]),
        (b"{\ndata: b\n\n", [(b"{\n", "{", True), (b"data: b\n\n", "b", False)]),
        ("x\u2028data: y\n\n".encode(), [("x\u2028data: y\n\n".encode(), "x\u2028data: y", True)]),
        (BOM + b"{}\n", [(BOM + b"{}\n", "{}", True)]),
        (b"event: e\n" + BOM + b"data: a\n\n", [(b"event: e\n" + BOM + b"data: a\n\n", "\ufeffdata: a", True)]),
        (BOM + b"x\n" + BOM + b"data: a\n\n", [(BOM + b"x\n" + BOM + b"data: a\n\n", "x\n\ufeffdata: a", True)]),
    ],
)
def test_foreign_lines_are_read(stream: bytes, expected: list[tuple[bytes, str | None, bool]]) -> None:
    assert foreign(stream) == expected
    for pieces in cuts(stream):
        read = [each for each in foreign(*pieces) if each[1] is not None]
        assert [each[1:] for each in read] == [each[1:] for each in expected if each[1] is not None]
        assert b"".join(raw for raw, _, _ in foreign(*pieces)) == b"".join(raw for raw, _, _ in expected)


def test_foreign_line_of_json_is_yielded_at_its_end() -> None:
    assert [event.data for event in EventDecoder(AMPLE).feed(b'error: {"a":1}\n')] == ['{"a":1}']


@pytest.mark.parametrize(
    ("raw", "data", "expected"),
    [
        (b'error: {"a":"b"}\n', '{"a":"c"}', b'error: {"a":"c"}\n'),
        (b'{"a":"b"}\r\n', '{"a":\n"c"}', b'{"a": "c"}\r\n'),
        (b'error: {\n"a":"b"}\n\n', '{\n"a":"c"}', b'error: { "a":"c"}\n\n'),
        (b"event: e\nsome\nid: 1\nwords\n\n", "x\r\ny\rz", b"event: e\nx y z\nid: 1\n\n"),
        (b"some\rwords\r\n\n", "x", b"x\n\n"),
        (b"words\n\n", "", b":\n\n"),
        (b"words\n\n", "data: x", b" data: x\n\n"),
        (b"words\n\n", ": x", b" : x\n\n"),
        (BOM + b'x:{"a":1}\n', "{}", BOM + b"x:{}\n"),
        (b"event: e\n" + BOM + b"data: a\n\n", "\ufeffdata: b", b"event: e\n" + BOM + b"data: b\n\n"),
        (b"x\n" + BOM + b"data: a\n\n", "x y", b"x y\n\n"),
        (BOM + b"x\n" + BOM + b"data: a\n\n", "x y", BOM + b"x y\n\n"),
        (BOM + BOM + b"data: a\n\n", "b", BOM + b"b\n\n"),
    ],
)
def test_foreign_lines_are_rewritten(raw: bytes, data: str, expected: bytes) -> None:
    (event,) = [event for event in decode(raw) if event.data is not None]
    assert event.with_data(data) == expected


def test_many_foreign_lines_between_data_take_linear_time() -> None:
    stream = (b"data: x\n" + b"{}\n" * 100) * 500
    events = decode(stream)
    assert len(events) == 101
    assert len(b"".join(event.raw for event in events)) == 500 * 8 + 499 * 100 * 2 + 100 * 3


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


SHORT_LINES = {
    "comments": b":x\n",
    "foreign lines": b"x\n",
    "foreign lines and comments": b"x\n:y\n",
    "unclosed JSON": b"{\n",
    "ids": b"id:a b\n",
    "event names": b"event:a b\n",
    "data": b"data\n",
    "data and foreign lines": b"data\nx\n",
    "CR": b":x\r",
}


@pytest.mark.parametrize("unit", SHORT_LINES.values(), ids=SHORT_LINES)
@pytest.mark.parametrize("before", [b"", b"data: {}\n"])
def test_short_lines_take_at_most_ten_times_their_bytes(before: bytes, unit: bytes) -> None:
    stream = before + unit * (300_000 // len(unit)) + b"\n"
    decoder = EventDecoder(AMPLE)
    tracemalloc.start()
    try:
        for start in range(0, len(stream), 16_384):
            for event in decoder.feed(stream[start : start + 16_384]):
                assert event.raw
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Lines are read in slices of 4 KiB, which take more.
    assert peak < 10 * len(stream) + 300_000


@pytest.mark.parametrize("unit", SHORT_LINES.values(), ids=SHORT_LINES)
def test_runs_of_short_lines_are_read_at_once(unit: bytes) -> None:
    """Except for lines of data and names, which are read one by one."""

    def calls(count: int) -> int:
        found = 0

        def profile(_: object, event: str, __: object) -> None:
            nonlocal found
            found += event in ("call", "c_call")

        sys.setprofile(profile)
        try:
            decode(unit * count + b"\n")
        finally:
            sys.setprofile(None)
        return found

    lines = 2000 * (unit.count(b"\n") + unit.count(b"\r"))
    growth = calls(4000) - calls(2000)
    assert growth <= (30 * lines if b"data" in unit or b"event" in unit else lines // 20)


def test_parts_that_were_not_taken_are_in_the_rest() -> None:
    decoder = EventDecoder(AMPLE)
    events = decoder.feed(b"x\ndata: a\n{}\n\ndata: b\n\n")
    assert [next(events).data, next(events).data] == ["x", "a"]
    del events
    assert decoder.take_rest() == b"{}\n\ndata: b\n\n"
