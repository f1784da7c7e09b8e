"""Readiness that follows whether Aim can be reached, where that is asked for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from extproc.serve import operator as serving
from extproc.serve.operator import Serving, start_client
from tests.fakes.process import free_port
from tests.fakes.sidecar import settings_for, sidecar


class Address:
    """What listens where Aim should be: it answers every request with one status."""

    def __init__(self) -> None:
        self.port = free_port()
        self.status = 404
        self.heads: list[str] = []
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                self.heads.append(head.lower())
                self.asked.set()
                await self.answers.wait()
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % self.status)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        async with server:
            yield


@asynccontextmanager
async def watching(base: str, *, aim: bool) -> AsyncIterator[tuple[Serving, asyncio.Queue[bool]]]:
    """Serve, and look at Aim; yield what is told of each change of readiness."""
    changes: asyncio.Queue[bool] = asyncio.Queue()
    settings = settings_for(base, readiness={"aim": aim})
    async with sidecar(settings) as guard, asyncio.TaskGroup() as group:
        it = Serving(guard.service, None, group, changes.put_nowait)
        it.serve(is_serving=True)
        task = group.create_task(it.watch_aim())
        try:
            yield it, changes
        finally:
            task.cancel()


async def change(changes: asyncio.Queue[bool]) -> bool:
    return await asyncio.wait_for(changes.get(), 30)


async def test_it_is_ready_while_aim_answers_whatever_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_PROBE_SECONDS", 0.02)
    there = Address()
    async with watching(there.base, aim=True) as (it, changes):
        assert not it.is_ready
        async with there.listening():
            assert await change(changes) is True
            there.status = 502  # what a proxy says for one that is away
            assert await change(changes) is False
            there.status = 401
            assert await change(changes) is True
            it.serve(is_serving=False)
            assert await change(changes) is False
    assert all(head.startswith("head / ") for head in there.heads)
    assert not any("authorization" in head or "test-key" in head for head in there.heads)


async def test_nothing_is_asked_unless_it_is_to_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_PROBE_SECONDS", 0)
    there = Address()
    async with there.listening(), watching(there.base, aim=False) as (it, changes):
        assert await change(changes) is True
        for _ in range(100):
            await asyncio.sleep(0)
        assert it.is_ready
        assert changes.empty()
    assert there.heads == []


async def test_a_client_that_is_retired_meanwhile_still_gets_its_answer() -> None:
    there = Address()
    there.answers.clear()
    async with there.listening(), asyncio.TaskGroup() as group:
        client = start_client(settings_for(there.base), group)
        probe = group.create_task(client.is_reachable())
        await asyncio.wait_for(there.asked.wait(), 10)
        client.retire()  # as a reload does
        there.answers.set()
        assert await probe is True


async def test_what_nobody_foresaw_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LookupError

    errors: asyncio.Queue[Exception] = asyncio.Queue()
    monkeypatch.setattr(serving, "_PROBE_SECONDS", 0.02)
    monkeypatch.setattr(serving, "log_internal_error", errors.put_nowait)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    async with watching("http://aim.test", aim=True) as (it, changes):
        for _ in range(2):
            assert isinstance(await asyncio.wait_for(errors.get(), 30), LookupError)
        assert not it.is_ready
        assert changes.empty()
