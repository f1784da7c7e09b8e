"""Where Aim is: its name is looked up once for all who wait, and its addresses are used in turn."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from yarl import URL

from extproc.aim.connection import Response
from extproc.aim.transport import Transport, _peer
from extproc.core.errors import DetectionUnavailable, Reason
from tests.fakes.http_peer import Link, Peer, client_tls, number, server_tls

NAME = "aim.test"


class Resolver:
    """What `socket.getaddrinfo` says of the name, once it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.peers: list[Peer] = []
        self.times = 0
        self.asked = asyncio.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._loop = asyncio.get_running_loop()
        self._others = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host != NAME:
            return self._others(host, port, *arguments, **options)
        self.times += 1
        self._loop.call_soon_threadsafe(self.asked.set)
        assert self.may_answer.wait(10)
        if not self.peers:
            raise socket.gaierror(socket.EAI_AGAIN, "not now")
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, ("127.0.0.1", peer.port)) for peer in self.peers]


@pytest.fixture
async def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    return Resolver(monkeypatch)


def asking(scheme: str = "http") -> tuple[Transport, Callable[[], Coroutine[Any, Any, Response]]]:
    """Return a transport to the name, and what asks through it."""
    url = URL(f"{scheme}://{NAME}:1/ask")
    transport = Transport(url.origin(), client_tls() if scheme == "https" else None)
    return transport, lambda: transport.send("POST", url, (), b"?", limit=1000)


def test_a_socket_that_is_gone_has_no_peer() -> None:
    with socket.socket() as sock:
        assert _peer(sock) is None


async def closes(link: Link) -> None:
    await link.request()
    await link.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\n%d" % link.peer.port)


async def test_it_is_looked_up_once_for_all(resolver: Resolver) -> None:
    async with Peer(number) as peer:
        resolver.peers = [peer]
        transport, ask = asking()
        assert {response.status for response in await asyncio.gather(ask(), ask(), ask())} == {200}
        await transport.aclose()
        assert (resolver.times, peer.connections) == (1, 3)


async def test_who_gives_up_ends_it_for_nobody(resolver: Resolver) -> None:
    async with Peer(number) as peer, asyncio.TaskGroup() as group:
        resolver.peers = [peer]
        resolver.may_answer.clear()
        transport, ask = asking()
        first, second = group.create_task(ask()), group.create_task(ask())
        await resolver.asked.wait()
        first.cancel()
        await asyncio.wait([first])
        resolver.may_answer.set()
        assert (await second).content == b"1"
        await transport.aclose()
        assert resolver.times == 1


async def abandoned(resolver: Resolver) -> tuple[Transport, asyncio.Task[Any]]:
    """Return a transport, and its look-up, which goes on although whoever asked has given up."""
    resolver.may_answer.clear()
    transport, ask = asking()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(ask())
        await resolver.asked.wait()
        task.cancel()
    (looking,) = asyncio.all_tasks() - {asyncio.current_task()}
    return transport, looking


async def test_nobody_need_wait_for_its_failure(resolver: Resolver) -> None:
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    transport, looking = await abandoned(resolver)
    resolver.may_answer.set()
    await asyncio.wait([looking])
    del looking
    gc.collect()
    assert (problems, resolver.times) == ([], 1)
    await transport.aclose()


async def test_that_it_is_unknown_is_said_to_all(resolver: Resolver) -> None:
    transport, ask = asking()
    errors = await asyncio.gather(ask(), ask(), ask(), return_exceptions=True)
    assert {type(error) for error in errors} == {DetectionUnavailable}
    assert resolver.times == 1
    with pytest.raises(DetectionUnavailable):
        await ask()
    assert resolver.times == 2
    await transport.aclose()


async def test_leaving_ends_it(resolver: Resolver) -> None:
    transport, looking = await abandoned(resolver)
    await transport.aclose()
    await asyncio.wait([looking], timeout=5)
    resolver.may_answer.set()
    assert looking.cancelled()


async def test_addresses_are_used_in_turn(resolver: Resolver) -> None:
    async with Peer(closes) as one, Peer(closes) as other:
        resolver.peers = [one, other]
        transport, ask = asking()
        for _ in range(4):
            await ask()
        await transport.aclose()
        assert (one.connections, other.connections) == (2, 2)


@pytest.mark.parametrize("is_there_one", [True, False])
async def test_one_that_cannot_be_secured_is_passed_over(resolver: Resolver, is_there_one: bool) -> None:
    """A balancer without anybody behind it takes connections, and ends them."""

    async def nobody(_: Link) -> None:
        pass

    tls = server_tls(NAME)
    async with Peer(nobody) as away, Peer(nobody) as out, Peer(number, tls=tls) as there:
        resolver.peers = [away, out, there] if is_there_one else [away, out]
        transport, ask = asking("https")
        if is_there_one:
            assert (await ask()).content == b"1"
        else:
            with pytest.raises(DetectionUnavailable) as caught:
                await ask()
            assert caught.value.reason is Reason.UNREACHABLE
            assert (away.connections, out.connections) == (1, 1)
        await transport.aclose()
