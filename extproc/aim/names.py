"""Names are looked up in threads that never keep the process alive.

The system's look-up cannot be interrupted. The event loop's own threads are waited for when a process ends, so a name
server that does not answer would delay that end, and a few such look-ups would hold up all others.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from contextlib import suppress
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

_Key = tuple[str, int, socket.AddressFamily]


class Names(AbstractResolver):
    """Looks up names for aiohttp and for sessions. Equal look-ups that are under way at once are one."""

    def __init__(self) -> None:
        """Begin with no look-up under way."""
        self._under_way: dict[_Key, asyncio.Future[list[Any]]] = {}

    async def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of `host`, in the order in which to try them; `host` itself if it is an address.

        Raises OSError.
        """
        with suppress(ValueError):
            return [str(ipaddress.ip_address(host))]
        found = await self.resolve(host, port, socket.AF_UNSPEC)
        return list(dict.fromkeys(result["host"] for result in found))

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return what aiohttp needs to connect to `host`; raises OSError."""
        key = host, port, family
        looking = self._under_way.get(key)
        if looking is None:
            looking = self._under_way[key] = asyncio.get_running_loop().create_future()
            looking.add_done_callback(lambda _: self._under_way.pop(key))
            threading.Thread(target=_look_up, args=(looking, key), name=f"look-up of {host}", daemon=True).start()
        infos = await asyncio.shield(looking)
        return [
            ResolveResult(
                hostname=host,
                host=_with_scope(address),
                port=address[1],
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in infos
        ]

    async def close(self) -> None:
        """Do nothing: nothing waits for a look-up that is under way."""


def _look_up(looking: asyncio.Future[list[Any]], key: _Key) -> None:
    host, port, family = key
    infos: list[Any] = []
    error: OSError | None = None
    try:
        infos = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except OSError as failure:
        error = failure
    except Exception:  # a name that cannot be encoded, for example
        error = socket.gaierror(socket.EAI_NONAME, "not the name of a host")
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        looking.get_loop().call_soon_threadsafe(_settle, looking, infos, error)


def _settle(looking: asyncio.Future[list[Any]], infos: list[Any], error: OSError | None) -> None:
    if looking.cancelled():
        return
    if error is None:
        looking.set_result(infos)
    else:
        looking.set_exception(error)
        looking.exception()  # it may be that nobody waits any more


def _with_scope(address: tuple[Any, ...]) -> str:
    """Return the host of a socket's address; a link-local IPv6 address needs its scope."""
    host: str = address[0]
    return f"{host}%{address[3]}" if len(address) == 4 and address[3] and "%" not in host else host
