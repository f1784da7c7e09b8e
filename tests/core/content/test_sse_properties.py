"""Event streams: for any bytes and any cut, no byte is lost and the events are the same."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.content.server_sent_event import ServerSentEvent
from extproc.core.content.sse import EventDecoder
from extproc.core.errors import BodyTooLarge, ContentError

AMPLE = 1 << 20

PIECES = (
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"data", b"data:", b"data: ", b"event: ", b"id: 1"),
    *(b"{", b"}", b"error: {}", b": ping", b": Tom", b"event: a b"),
    *(b":", b" ", b"\xef\xbb\xbf", b"\xc3", b"\xa9", b"\xff", b"x", b"{}", b"\0", "é".encode(), "\u2028".encode()),
)
STREAMS = st.lists(st.sampled_from(PIECES) | st.binary(max_size=4), max_size=40).map(b"".join)
LIMITS = st.integers(1, 40) | st.just(AMPLE)


@st.composite
def cut_streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    stream = draw(STREAMS)
    places = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return stream, [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]


def run(pieces: list[bytes], limit: int) -> tuple[list[ServerSentEvent], type[ContentError] | None, bytes]:
    """Return the events, the error that ended them, and the bytes that were not turned into events."""
    decoder = EventDecoder(limit)
    events: list[ServerSentEvent] = []
    unfed = list(pieces)
    try:
        while unfed:
            events.extend(decoder.feed(unfed.pop(0)))
            assert decoder.pending <= limit
        events.extend(decoder.finish())
    except ContentError as error:
        return events, type(error), decoder.take_rest() + b"".join(unfed)
    return events, None, decoder.take_rest()


def told(events: list[ServerSentEvent]) -> list[tuple[str, str]]:
    return [(event.type, event.data) for event in events if event.data is not None and not event.is_foreign]


def foreign(events: list[ServerSentEvent]) -> list[str | None]:
    return [event.data for event in events if event.is_foreign]


def lines(stream: bytes) -> list[tuple[bytes, bytes]]:
    """Return the lines of a stream with their ends, without the byte order mark."""
    return re.findall(rb"([^\r\n]*)(\r\n|\r|\n|\Z)", stream.removeprefix(b"\xef\xbb\xbf"))


INERT = re.compile(rb"[ \t]*(@?[A-Za-z0-9._:/+=%-]{1,256})?[ \t]*").fullmatch


@given(cut_streams(), LIMITS)
@settings(max_examples=150)
def test_each_line_leaves_unchanged_or_as_an_empty_comment(case: tuple[bytes, list[bytes]], limit: int) -> None:
    stream, pieces = case
    events, error, rest = run(pieces, limit)
    left = b"".join(event.raw for event in events) + rest
    for (line, end), (new, new_end) in zip(lines(stream), lines(left), strict=True):
        assert end == new_end
        assert new == line or (new == b":" and line.partition(b":")[0] != b"data")
    assert all(0 < len(event.raw) <= limit for event in events)
    if error is None:
        assert rest == b""


@given(cut_streams())
@settings(max_examples=150)
def test_events_do_not_depend_on_the_cut(case: tuple[bytes, list[bytes]]) -> None:
    stream, pieces = case
    events, error, _ = run(pieces, AMPLE)
    whole, whole_error, _ = run([stream], AMPLE)
    assert told(events) == told(whole)
    assert foreign(events) == foreign(whole)
    assert b"".join(event.raw for event in events) == b"".join(event.raw for event in whole) or error
    assert error is whole_error
    bytewise, bytewise_error, _ = run([stream[i : i + 1] for i in range(len(stream))], AMPLE)
    assert told(bytewise) == told(whole)
    assert bytewise_error is whole_error


@given(cut_streams(), st.integers(1, 40))
@settings(max_examples=120)
def test_cut_moves_the_limit_by_at_most_one_lf(case: tuple[bytes, list[bytes]], limit: int) -> None:
    """If a CR ends an event and a piece, a following LF counts for the next event. Nothing else moves the limit."""
    stream, pieces = case
    _, whole_error, _ = run([stream], limit)
    _, error, _ = run(pieces, limit + 1)
    if error is BodyTooLarge:
        assert whole_error is not None


@given(cut_streams())
@settings(max_examples=120)
def test_events_follow_the_rules_of_the_standard(case: tuple[bytes, list[bytes]]) -> None:
    """The result is compared with a simple parser that reads the whole text line by line."""
    stream, pieces = case
    text = stream.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    expected: list[tuple[str, str]] = []
    data: list[str] = []
    kind = ""
    for line in [*text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), ""]:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event" and INERT(value.encode("utf-8", "surrogateescape")):
            kind = value.strip(" \t")
        elif not line:
            if data:
                expected.append((kind, "\n".join(data)))
            data, kind = [], ""
    events, error, _ = run(pieces, AMPLE)
    found = told(events)
    assert found == expected[: len(found)]
    if error is None:
        assert found == expected


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12)
LINES = st.one_of(
    TEXT.map(lambda text: f"data: {text}"),
    st.sampled_from([": ping", ":", "id: 7", "event: e", "retry: 3", "data", "data: "]),
)


@given(
    st.lists(LINES, max_size=6),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(TEXT, min_size=1, max_size=3).map("\n".join),
)
@settings(max_examples=120)
def test_new_data_does_not_change_the_rest_of_the_event(lines: list[str], line_end: str, data: str) -> None:
    raw = "".join(line + line_end for line in ["data: old", *lines, ""]).encode()
    ((event,), _, _) = run([raw], AMPLE)
    changed = event.with_data(data)
    (again, following), error, _ = run([changed + b"data: next\n\n"], AMPLE)
    assert (error, again.raw, again.data, again.type) == (None, changed, data, event.type)
    assert following.data == "next"

    def other(block: bytes) -> list[str]:
        return [line for line in block.decode().split(line_end) if line.partition(":")[0] != "data"]

    assert other(changed) == other(raw)


FOREIGN = st.one_of(
    TEXT.map(lambda text: f"x {text}"),
    st.sampled_from(["{}", 'error: {"a": 1}', "[", "]", ' "a"', "x: [", "event: e", ":", "id: 1"]),
)


@given(
    st.lists(FOREIGN, min_size=1, max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(TEXT | st.sampled_from(["data: x", ": x", "{}"]), min_size=1, max_size=3).map("\n".join),
)
@settings(max_examples=150)
def test_new_text_of_foreign_lines_does_not_reach_other_events(block: list[str], line_end: str, data: str) -> None:
    raw = "".join(line + line_end for line in [*block, ""]).encode()
    (events, error, _) = run([raw], AMPLE)
    assert error is None
    assert b"".join(event.raw for event in events) == raw
    changed = b"".join(event.with_data(data) if event.is_foreign else event.raw for event in events)
    again, error, _ = run([changed + b"data: next\n\n"], AMPLE)
    assert error is None
    assert told(again) == [("", "next")]
    assert len(lines(changed)) <= len(lines(raw))


MARKED = st.sampled_from(
    [
        *("data: OLD", "\ufeffdata: OLD", "\ufeffdata:OLD", "data : OLD", "OLD", "\ufeffOLD", '{"OLD": 1}', "x: OLD"),
        *("", ": ping", "event: e", "\ufeffevent: an OLD", "id: 1", "\ufeff: OLD", "\ufeff"),
    ]
)


@given(st.sampled_from(["", "\ufeff"]), st.lists(MARKED, max_size=8), st.sampled_from(["\n", "\r\n", "\r"]))
@settings(max_examples=200)
def test_nothing_of_the_old_texts_stays(start: str, block: list[str], line_end: str) -> None:
    raw = (start + "".join(line + line_end for line in block)).encode()
    events, _, _ = run([raw], AMPLE)
    changed = b"".join(event.raw if event.data is None else event.with_data("new") for event in events)
    assert b"OLD" not in changed
    assert told(run([changed], AMPLE)[0]) == [(kind, "new") for kind, _ in told(events)]
