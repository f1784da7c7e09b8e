"""Names are looked up once at a time, and every address of a name is tried."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from extproc.aim.names import Names
from extproc.core.errors import Reason
from extproc.core.events import SessionDone, SessionFailed
from tests.fakes.aim import ScriptedAim
from tests.fakes.aim_client import CALLER, Events, client_of
from tests.fakes.http_peer import Peer, tunnel


class Directory:
    """Stands in for the system's look-up, which a test cannot give a name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
        """Give every name these addresses from now on."""
        self.asked: list[tuple[Any, ...]] = []
        self.answers = threading.Event()
        self.answers.set()
        self._addresses = addresses
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: str, port: int, *more: Any, **options: Any) -> list[Any]:
        self.asked.append((host, port))
        self.answers.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self._addresses]


async def test_equal_look_ups_at_once_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    directory, names = Directory(monkeypatch, "192.0.2.1", "192.0.2.2", "192.0.2.1"), Names()
    directory.answers.clear()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(names.addresses("aim.example", 443)) for _ in range(5)]
        gone = group.create_task(names.addresses("aim.example", 443))
        await asyncio.sleep(0)
        gone.cancel()  # the others need the answer
        directory.answers.set()
    assert [task.result() for task in tasks] == [["192.0.2.1", "192.0.2.2"]] * 5
    assert directory.asked == [("aim.example", 443)]
    await names.addresses("aim.example", 443)
    assert len(directory.asked) == 2


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
async def test_address_needs_no_look_up(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    directory = Directory(monkeypatch)
    assert await Names().addresses(address, 443) == [address]
    assert directory.asked == []


@pytest.mark.parametrize("host", ["aim.invalid", "x" * 70 + ".example", "a\0b"])
async def test_name_without_an_address_is_an_error(host: str) -> None:
    with pytest.raises(OSError, match=r"."):
        await Names().addresses(host, 443)


async def test_session_tries_each_address(monkeypatch: pytest.MonkeyPatch, aim: ScriptedAim) -> None:
    Directory(monkeypatch, "127.0.0.2", "127.0.0.1")  # nothing listens on the first one
    events = Events()
    async with client_of(aim.base.replace("127.0.0.1", "aim.example")) as client:
        client.open_session(1, CALLER, events).done()
        assert isinstance(await events.next(), SessionDone)


async def test_session_without_an_address_that_answers_is_unreachable(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    Directory(monkeypatch, "127.0.0.2", "127.0.0.1")
    events = Events()
    async with client_of(f"http://aim.example:{unused_tcp_port}") as client:
        client.open_session(1, CALLER, events)
        assert await events.next() == SessionFailed(1, Reason.UNREACHABLE, opened=False)


async def test_name_of_a_proxy_is_looked_up(monkeypatch: pytest.MonkeyPatch, aim: ScriptedAim) -> None:
    async with Peer(tunnel()) as proxy:
        directory = Directory(monkeypatch, "127.0.0.2", "127.0.0.1")
        events = Events()
        async with client_of(aim.base, proxy=proxy.url.replace("127.0.0.1", "user:pass@proxy.example")) as client:
            client.open_session(1, CALLER, events).done()
            assert isinstance(await events.next(), SessionDone)
    assert {host for host, _ in directory.asked} == {"proxy.example"}
    assert any(b"CONNECT 127.0.0.1" in head for head in proxy.heads)
