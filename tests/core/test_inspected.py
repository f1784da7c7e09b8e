"""Which answers are inspected: each row of the contract, for every way in which the body may arrive."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

import pytest

from extproc.core.commands import Detect, OpenSession, ReleaseBody, ReleaseHeaders, SubmitChunk
from extproc.core.dry_run import DryRun
from extproc.core.events import BodyReceived, Event, HeadersReceived, StreamEnded, TrailersReceived, VerdictReached
from extproc.core.policy import Limits
from extproc.core.verdict import Allow
from extproc.core.vocabulary import Headers, Leg
from tests.fakes.rig import chat_event, chat_request
from tests.fakes.world import World, policy


class Path(Enum):
    """The exchanges whose answers are sent."""

    KNOWN = auto()
    DATA = auto()
    """answers of the API may be images"""
    STORED = auto()
    CANCELLED = auto()
    UNMATCHED = auto()
    UNMATCHED_GET = auto()

    @property
    def request(self) -> tuple[str, str, bytes | None]:
        """The method, the path and the body."""
        return _REQUESTS[self]


_REQUESTS: dict[Path, tuple[str, str, bytes | None]] = {
    Path.KNOWN: ("POST", "/v1/chat/completions", json.dumps(chat_request("Hello")).encode()),
    Path.DATA: ("POST", "/v1/images/generations", b'{"prompt":"Hello you"}'),
    Path.STORED: ("GET", "/v1/responses/resp_1", None),
    Path.CANCELLED: ("POST", "/v1/responses/resp_1/cancel", None),
    Path.UNMATCHED: ("POST", "/other", None),
    Path.UNMATCHED_GET: ("GET", "/other", None),
}
KNOWN = (Path.KNOWN, Path.DATA, Path.CANCELLED)
MATCHED = (*KNOWN, Path.STORED)
UNMATCHED = (Path.UNMATCHED, Path.UNMATCHED_GET)
EVERY = (*MATCHED, *UNMATCHED)


class Is(Enum):
    """What becomes of an answer."""

    JUDGED = auto()
    """Aim judges its text before anything leaves"""
    STREAMED = auto()
    """its text is submitted to a session"""
    PASSED = auto()
    UNREADABLE = auto()
    EMPTY = auto()
    """it is read, but holds no text"""


@dataclass(frozen=True)
class Row:
    """Answers that are treated alike."""

    paths: tuple[Path, ...]
    statuses: tuple[str, ...]
    kinds: tuple[str, ...]
    bodies: tuple[bytes, ...]
    becomes: Is
    headers: Headers = ()


GOOD = ("200", "201")
BAD = ("400", "404", "503")
JSON = ("application/json", "Application/JSON; charset=utf-8", "application/problem+json", "text/json")
JSON_LINES = ("application/x-ndjson", "application/jsonl; charset=utf-8")
DISGUISES = ("", "text/plain", "text/html; charset=utf-8", "application/octet-stream", "image/png", "audio/mpeg")
ONE = (b'{"new":{"key":"I am Jane"}}', b' \n["I am Jane"]', b'"I am Jane"', b'\xef\xbb\xbf{"x":"I am Jane"}')
LINES = (b'{"a":1}\n\n{"x":"I am Jane"}\n', b'{"x":"I am Jane"}\r\n{"y":"Hi you"}')
EVENTS = (chat_event("I am Jane"), b': ping\r\n\r\ndata: {"x":"I am Jane"}\r\n\r\n', b'id: 1\ndata: "I am Jane"\n\n')
PAGES = (b"<p>I am Jane", b"I am Jane")
PNG = b"\x89PNG\r\n\x1a\nI am Jane" + bytes(99)
BROKEN = (b'{"x":"I am Jane', b'{"x":"I am Jane"} y', b'{"x":"I am Jane","x":"y"}')
NO_TEXT = (b'{"xs":"I am \xff Jane"}',)
GZIP: Headers = (("content-encoding", "gzip"),)
UNKNOWN: Headers = (("content-encoding", "x"),)
STACKED: Headers = (("content-encoding", "gzip, gzip"),)


def zipped(bodies: Iterable[bytes]) -> tuple[bytes, ...]:
    return tuple(map(gzip.compress, bodies))


ROWS = {
    # Known types, on every path.
    "json": Row(EVERY, GOOD + BAD, JSON, ONE, Is.JUDGED),
    "compressed json": Row(EVERY, GOOD + BAD, JSON[:1], zipped(ONE), Is.JUDGED, GZIP),
    "lines called json": Row(EVERY, GOOD + BAD, JSON, LINES, Is.JUDGED),
    "lines": Row(EVERY, GOOD, JSON_LINES, LINES, Is.STREAMED),
    "events": Row(EVERY, GOOD, ("text/event-stream", *JSON_LINES), EVENTS, Is.STREAMED),
    "compressed events": Row(EVERY, GOOD, ("text/event-stream",), zipped(EVENTS), Is.STREAMED, GZIP),
    "foreign lines": Row(EVERY, GOOD, ("text/event-stream",), (b'error: {"x":"I am Jane"}\n\n',), Is.STREAMED),
    "failed lines": Row(EVERY, BAD, JSON_LINES, LINES, Is.JUDGED),
    "failed events": Row(EVERY, BAD, ("text/event-stream", *JSON_LINES), EVENTS, Is.JUDGED),
    "empty": Row(EVERY, GOOD + BAD, (*JSON, *JSON_LINES, "text/event-stream"), (b"", b" \n"), Is.EMPTY),
    "not utf-8": Row(EVERY, GOOD + BAD, JSON, NO_TEXT, Is.UNREADABLE),
    "unknown encoding": Row(EVERY, GOOD + BAD, JSON, ONE, Is.UNREADABLE, UNKNOWN),
    "unknown encoding of events": Row(EVERY, GOOD, ("text/event-stream",), EVENTS, Is.UNREADABLE, UNKNOWN),
    "stacked encodings": Row(EVERY, GOOD + BAD, JSON, ONE, Is.UNREADABLE, STACKED),
    "broken encoding": Row(EVERY, GOOD + BAD, JSON, ONE, Is.UNREADABLE, GZIP),
    # Other types on known paths.
    "json in disguise": Row(MATCHED, GOOD + BAD, DISGUISES, ONE, Is.JUDGED),
    "lines in disguise": Row(MATCHED, GOOD + BAD, DISGUISES, LINES, Is.JUDGED),
    "compressed json in disguise": Row(MATCHED, GOOD + BAD, DISGUISES, zipped(ONE), Is.JUDGED, GZIP),
    "events in disguise": Row(MATCHED, GOOD, DISGUISES, EVENTS, Is.STREAMED),
    "compressed events in disguise": Row(MATCHED, GOOD, DISGUISES, zipped(EVENTS), Is.STREAMED, GZIP),
    "failed events in disguise": Row(MATCHED, BAD, DISGUISES, EVENTS, Is.JUDGED),
    "broken json": Row(MATCHED, GOOD + BAD, (*JSON, ""), BROKEN, Is.UNREADABLE),
    "pages": Row(KNOWN, GOOD, DISGUISES, PAGES, Is.UNREADABLE),
    "media": Row((Path.KNOWN, Path.CANCELLED), GOOD, DISGUISES, (PNG,), Is.UNREADABLE),
    "media of another type": Row((Path.DATA,), GOOD, DISGUISES[:4], (PNG,), Is.UNREADABLE),
    "media where they may be": Row((Path.DATA,), GOOD, DISGUISES[4:], (PNG,), Is.PASSED),
    "pages and media of a get": Row((Path.STORED,), GOOD, DISGUISES, (*PAGES, PNG, b""), Is.PASSED),
    "encoded pages of a get": Row((Path.STORED,), GOOD, DISGUISES, PAGES, Is.PASSED, UNKNOWN),
    "pages and media of an error": Row(MATCHED, BAD, DISGUISES, (*PAGES, PNG, b""), Is.PASSED),
    # Unmatched paths.
    "what does not parse": Row(UNMATCHED, GOOD + BAD, JSON, (*BROKEN, *PAGES, *EVENTS), Is.JUDGED),
    "lines that do not parse": Row(UNMATCHED, GOOD, JSON_LINES, BROKEN, Is.STREAMED),
    "events that do not parse": Row(UNMATCHED, GOOD, ("text/event-stream",), (b"data: I am Jane\n\n",), Is.STREAMED),
    "failed events that do not parse": Row(UNMATCHED, BAD, JSON_LINES, (b"data: I am Jane\n\n",), Is.JUDGED),
    "other types": Row(UNMATCHED, GOOD + BAD, DISGUISES, (*ONE, *EVENTS, *PAGES, PNG, b""), Is.PASSED),
    "other encoded types": Row(UNMATCHED, GOOD + BAD, DISGUISES, ONE, Is.PASSED, UNKNOWN),
    # Sizes and statuses.
    "large errors": Row(EVERY, BAD, (*JSON, *DISGUISES), (b'{"x":"' + b"I am Jane " * 7000 + b'"}',), Is.PASSED),
    "other statuses": Row(EVERY, ("302", "304"), (*JSON, *DISGUISES), ONE, Is.PASSED),
}

CASES = [pytest.param(row, path, id=f"{name}-{path.name}") for name, row in ROWS.items() for path in row.paths]


def cut(body: bytes, length: int | None) -> list[bytes]:
    """Return a body of declared length as one piece, and another in small pieces."""
    size = 7 if len(body) < 1000 else 9999
    return [body[start : start + size] for start in range(0, len(body), size)] if body and length is None else [body]


def events(row: Row, status: str, kind: str, pieces: list[bytes], *, trailers: bool, length: int | None) -> list[Event]:
    """Return the answer as it arrives."""
    named = (("content-type", kind),) if kind else ()
    declared = () if length is None else (("content-length", str(length)),)
    head = HeadersReceived(Leg.RESPONSE, ((":status", status), *named, *declared, *row.headers))
    *most, last = (BodyReceived(Leg.RESPONSE, piece) for piece in pieces)
    if trailers:
        return [head, *most, last, TrailersReceived(Leg.RESPONSE)]
    return [head, *most, BodyReceived(Leg.RESPONSE, last.data, end_of_stream=True)]


@pytest.mark.parametrize("trailers", [False, True])
@pytest.mark.parametrize(("row", "path"), CASES)
def test_answers_are_inspected_as_the_contract_says(row: Row, path: Path, trailers: bool) -> None:
    for status in row.statuses:
        for kind in row.kinds:
            for body in row.bodies:
                for length in (None, len(body)):
                    it = exchange(path)
                    before = len(it.asked)
                    for event in events(row, status, kind, cut(body, length), trailers=trailers, length=length):
                        it.send(event)
                    check(it, row.becomes, status, body, before)


def exchange(path: Path) -> World:
    """Return an exchange whose request was released."""
    method, name, body = path.request
    it = World(policy()).request(body, path=name, method=method)
    return it.judge() if it.detections else it


def check(it: World, becomes: Is, status: str, body: bytes, before: int) -> None:
    asked, is_unmatched = it.asked[before:], it.record.dialect in ("", "generic")
    named = it.response.headers.set if it.response.headers is not None else ()
    match becomes:
        case Is.JUDGED:
            assert it.response.headers is None
            assert it.reply is None
            assert any("Jane" in str(one.output) for one in asked[0].inputs)
            it.judge()
            assert (it.response.body, it.response.is_ended) == (body, True)
            assert it.response.headers is not None
            assert it.response.headers.set == (("x-aim-call-id", "call-1"),)
            assert it.record.outcome == "allowed"
        case Is.STREAMED:
            assert it.response.body == b""
            assert len(it.opened) == 1
            assert "Jane" in json.dumps(it.chunks)
            it.verify_all().done()
            assert it.response.is_ended
            assert it.record.outcome == "allowed"
            assert not asked
        case Is.PASSED:
            assert (it.response.body, it.response.is_ended) == (body, True)
            assert not asked
            assert not it.opened
            if is_unmatched:
                assert named == ()
                assert (it.record.dialect, it.record.outcome) == ("", "unmatched")
        case Is.EMPTY:
            if it.session is not None:
                it.done()
            assert (it.response.body, it.response.is_ended) == (body, True)
            assert not asked
        case Is.UNREADABLE:
            assert not asked
            if status.startswith("2"):
                assert (it.status, it.code) == (502, "guardrail_unreadable_response")
            else:
                assert it.reply is None
                assert it.response.is_ended
                assert b"Jane" not in it.response.body
                assert json.loads(it.response.body)["error"]["code"] == "guardrail_unreadable_response"


@pytest.mark.parametrize("trailers", [False, True])
@pytest.mark.parametrize(("row", "path"), CASES)
def test_dry_run_reads_the_same_and_changes_nothing(row: Row, path: Path, trailers: bool) -> None:
    for status in row.statuses[::2]:
        for kind in row.kinds[::2]:
            for body in row.bodies:
                method, name, sent = path.request
                run = DryRun("call-1", policy(), Limits())
                head: Headers = ((":method", method), (":path", name))
                run.handle(HeadersReceived(Leg.REQUEST, head, end_of_stream=sent is None), 0)
                if sent is not None:
                    run.handle(BodyReceived(Leg.REQUEST, sent, end_of_stream=True), 0)
                    run.handle(VerdictReached(1, (Allow(),), 7), 0)
                commands = [
                    command
                    for event in (
                        *events(row, status, kind, cut(body, None), trailers=trailers, length=None),
                        StreamEnded(),
                    )
                    for command in run.handle(event, 0)
                ]
                released = [command.data for command in commands if isinstance(command, ReleaseBody)]
                assert b"".join(released) == body
                assert sum(isinstance(command, ReleaseHeaders) for command in commands) == 1
                assert sum(isinstance(command, Detect) for command in commands) == (row.becomes is Is.JUDGED)
                if row.becomes is Is.STREAMED:
                    assert any(isinstance(command, SubmitChunk) for command in commands)
                elif row.becomes is not Is.EMPTY:
                    assert not any(isinstance(command, OpenSession) for command in commands)


@pytest.mark.parametrize("path", [Path.KNOWN, Path.DATA])
def test_envoys_own_replies_pass(path: Path) -> None:
    method, name, sent = path.request
    for status in ("401", "503"):
        for body in (*ONE, *PAGES, *BROKEN):
            it = World(policy()).request(sent, path=name, method=method)
            it.head("application/json", status).body(body, end=True)
            assert (it.response.body, it.response.is_ended) == (body, True)
            assert not it.detections
