"""The admin port as an HTTP server within the process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from extproc.admin.port import listening
from extproc.config.address import Address
from extproc.core.errors import SettingsError
from tests.fakes.connection import abort
from tests.fakes.process import free_port, get


async def answer(_: object) -> Response:
    return PlainTextResponse("answer")


APP = Starlette(routes=[Route("/", answer)])


async def test_port_answers_while_the_context_lasts() -> None:
    address = Address(host="127.0.0.1", port=free_port())
    async with listening(APP, address):
        assert (await get(address.port, "/")).text == "answer"
    with pytest.raises(OSError):
        await asyncio.open_connection(address.host, address.port)


async def test_signals_stay_with_the_process() -> None:
    received = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, received.set)
    address = Address(host="127.0.0.1", port=free_port())
    try:
        async with listening(APP, address):
            assert (await get(address.port, "/")).text == "answer"
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(received.wait(), 10)
            assert (await get(address.port, "/")).text == "answer"
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def test_address_in_use_is_named() -> None:
    address = Address(host="127.0.0.1", port=free_port())
    async with listening(APP, address):
        with pytest.raises(SettingsError, match=f"cannot listen on {address}"):
            async with listening(APP, address):
                pass


@asynccontextmanager
async def idle(port: int, count: int, source: str) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Hold connections open that say nothing, or only the start of a request."""
    writers: list[asyncio.StreamWriter] = []
    readers: list[asyncio.StreamReader] = []
    try:
        for number in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
            readers.append(reader)
            writers.append(writer)
            if number % 2:
                writer.write(b"GET / HTTP/1.1\r\nhost: ")
        yield readers
    finally:
        for writer in writers:
            await abort(writer)


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
async def test_port_answers_whatever_a_stranger_holds_open(source: str) -> None:
    address = Address(host="127.0.0.1", port=free_port())
    async with listening(APP, address), idle(address.port, 560, source):
        for _ in range(20):
            assert (await get(address.port, "/")).text == "answer"


async def test_stranger_takes_only_its_own_places() -> None:
    """A connection that waits for its next request keeps its place while another address opens many."""
    address = Address(host="127.0.0.1", port=free_port())
    async with (
        listening(APP, address),
        idle(address.port, 1, "127.0.0.1") as (first,),
        idle(address.port, 300, "127.0.0.2") as strangers,
    ):
        with suppress(ConnectionError):
            await asyncio.wait_for(strangers[0].read(), 10)  # it had to leave
        assert not first.at_eof()
        assert (await get(address.port, "/")).text == "answer"
        assert not first.at_eof()
