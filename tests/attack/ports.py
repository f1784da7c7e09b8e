"""Strangers at the two ports: connections that are held open, garbage, floods, and a false name of the admin port."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import httpx

from tests.attack.attack import PRIVATE, PROBED, SERVED, Attack, Script
from tests.attack.target import KEY, Target
from tests.fakes.connection import abort

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS: Final = b"\0\0\0\x04\0\0\0\0\0"
_PING: Final = b"\0\0\x08\x06\0\0\0\0\0" + b"12345678"

BEGINNINGS: Final = {
    "nothing": b"",
    "half a request": b"GET /metrics HTTP/1.1\r\nx: ",
    "half a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2 without frames": _PREFACE,
    "garbage": os.urandom(4096),
}


@asynccontextmanager
async def _held(port: int, count: int, data: bytes) -> AsyncIterator[Sequence[asyncio.StreamWriter]]:
    """Open connections that say `data`, and hold them."""
    writers = []
    try:
        for _ in range(count):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(writer)
            with suppress(ConnectionError):
                writer.write(data)
        yield writers
    finally:
        for writer in writers:
            await abort(writer)


def _holds_admin(data: bytes) -> Script:
    async def run(target: Target) -> None:
        async with _held(target.admin, 560, data):
            await target.answers_probes()
            await target.serves()

    return run


def _holds_listener(data: bytes) -> Script:
    async def run(target: Target) -> None:
        async with _held(target.port, 300, data):
            await target.serves()
            await target.answers_probes()

    return run


def _floods(frame: bytes) -> Script:
    async def run(target: Target) -> None:
        async with _held(target.port, 1, _PREFACE + _SETTINGS) as (writer,):
            for _ in range(200):
                writer.write(frame * 100)
                with suppress(ConnectionError):
                    await writer.drain()
            await target.serves()
            await target.answers_probes()

    return run


async def _reads_slowly(target: Target) -> None:
    """Ask for the metrics over and over on many connections, and read nothing."""
    async with _held(target.admin, 100, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n" * 50):
        await target.answers_probes()
        await target.serves()


def _asks(host: str, path: str) -> Script:
    async def run(target: Target) -> None:
        async with target.client() as client:
            got = await client.get(path, headers={"host": host})
        assert got.status_code == 421, f"{path} as {host} answered {got.status_code}"
        assert "extproc" not in got.text

    return run


async def _wanders(target: Target) -> None:
    """Ask for files and other paths, in ways that clients may not."""
    async with target.client() as client:
        for path in (
            "/../../etc/passwd",
            "/%2e%2e/etc/passwd",
            "/docs",
            "/openapi.json",
            "/settings.yaml",
            "/metrics/x",
        ):
            got = await client.get(path)
            assert got.status_code == 404, f"{path} answered {got.status_code}"
        for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE"):
            with suppress(httpx.HTTPError):
                assert (await client.request(method, "/metrics")).status_code in (405, 404)


async def _looks_for_secrets(target: Target) -> None:
    """Read all that the port shows."""
    async with target.client() as client:
        for path in ("/", "/metrics"):
            text = (await client.get(path)).text
            assert KEY not in text, f"{path} shows the key"


async def _large_head(target: Target) -> None:
    """Send a head of a megabyte."""
    async with _held(target.admin, 4, b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200_000):
        await target.answers_probes()


ATTACKS: Final = [
    *(
        Attack(f"admin port: 560 connections with {name}", PROBED, _holds_admin(data))
        for name, data in BEGINNINGS.items()
    ),
    Attack("admin port: answers that nobody reads", PROBED, _reads_slowly),
    Attack("admin port: a head of a megabyte", PROBED, _large_head),
    *(
        Attack(f"admin port: {path} as {host}", PRIVATE, _asks(host, path))
        for host in ("evil.example", "127.0.0.1.evil.example:9902")
        for path in ("/", "/metrics")
    ),
    Attack("admin port: other paths and methods", PRIVATE, _wanders),
    Attack("admin port: what it shows", PRIVATE, _looks_for_secrets),
    *(
        Attack(f"listener: 300 connections with {name}", SERVED, _holds_listener(data))
        for name, data in BEGINNINGS.items()
    ),
    Attack("listener: twenty thousand pings", SERVED, _floods(_PING)),
    Attack("listener: twenty thousand settings", SERVED, _floods(_SETTINGS)),
]
