"""A connection to Aim takes any bytes: an answer, an error or patience, and the same however they are cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.aim.connection import Connection, Response
from extproc.core.errors import DetectionError

LIMIT = 40


class Wire(asyncio.Transport):
    """The transport of a connection: what is written, and whether it was dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_dropped = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def abort(self) -> None:
        self.is_dropped = True

    def is_closing(self) -> bool:
        return self.is_dropped

    def get_write_buffer_size(self) -> int:
        return 0


LINES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n",
        b"HTTP/1.1 503 Busy\r\n",
        b"content-length: 5\r\n",
        b"content-length: 41\r\n",
        b"transfer-encoding: chunked\r\n",
        b"retry-after: 1\r\n",
        b"connection: close\r\n",
        b"\r\n",
        b"hello",
        b"5\r\nhello\r\n",
        b"29\r\n",
        b"0\r\n\r\n",
        b"\n",
    ]
)
STREAMS = st.lists(LINES | st.binary(max_size=4), max_size=12).map(b"".join)
CUTS = st.lists(st.integers(1, 9), min_size=1, max_size=8)


async def _outcome(data: bytes, cuts: list[int], *, ends: bool) -> tuple[object, bool, bool]:
    """Return what a request comes to, whether the connection may be kept, and whether it was dropped."""
    connection, wire = Connection(), Wire()
    connection.connection_made(wire)
    answer = connection.ask(b"POST / HTTP/1.1\r\n\r\n", b"", limit=LIMIT)
    assert wire.written == b"POST / HTTP/1.1\r\n\r\n"
    position = turn = 0
    while position < len(data) and not wire.is_dropped:
        size = cuts[turn % len(cuts)]
        connection.data_received(data[position : position + size])
        position, turn = position + size, turn + 1
    if ends or wire.is_dropped:
        connection.connection_lost(None)
        assert answer.done()
    if not answer.done():
        connection.close()
        assert isinstance(answer.exception(), DetectionError)
        return "patience", False, False
    error = answer.exception()
    if error is None:
        response = answer.result()
        assert isinstance(response, Response)
        assert len(response.content) <= LIMIT
        assert response.status >= 200
    else:
        assert isinstance(error, DetectionError)
    is_reusable = connection.is_reusable
    assert not (is_reusable and (ends or error is not None))
    return (error.reason if isinstance(error, DetectionError) else answer.result()), is_reusable, wire.is_dropped


def _run(data: bytes, cuts: list[int], *, ends: bool) -> tuple[object, bool, bool]:
    return asyncio.run(_outcome(data, cuts, ends=ends))


def _same(cut: Callable[[list[int]], tuple[object, bool, bool]], cuts: list[int]) -> None:
    assert cut(cuts) == cut([1]) == cut([10_000])


@given(STREAMS, CUTS, st.booleans())
@settings(max_examples=400, deadline=None)
def test_however_it_is_cut(data: bytes, cuts: list[int], ends: bool) -> None:
    _same(lambda cuts: _run(data, cuts, ends=ends), cuts)


@given(st.integers(0, LIMIT), st.integers(0, 30), CUTS)
@settings(max_examples=100, deadline=None)
def test_a_whole_answer_is_read_and_what_stands_behind_it_is_not(size: int, more: int, cuts: list[int]) -> None:
    body = bytes(range(size))
    whole = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nretry-after: 3\r\n\r\n" % size + body
    for behind in (b"", b"x" * more, whole):
        outcome, is_reusable, _ = _run(whole + behind, cuts, ends=False)
        assert outcome == Response(200, "3", body)
        assert is_reusable is not bool(behind)
