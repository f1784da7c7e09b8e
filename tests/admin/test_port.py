"""The admin port as an HTTP server within the process."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from extproc.admin.port import listening
from extproc.config.address import Address
from extproc.core.errors import SettingsError
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
