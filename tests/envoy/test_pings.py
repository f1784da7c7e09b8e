"""Pings through a real Envoy: comments that keep a waiting client's connection alive."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from extproc.config.profile import Profile
from tests.envoy.apis import CHAT, DONE
from tests.fakes.aim import AimSession, echo
from tests.fakes.envoy import needs_envoy
from tests.fakes.rig import rig
from tests.fakes.upstream import pieces

pytestmark = needs_envoy

PING = b": ping\n\n"


async def test_client_gets_pings_while_aim_is_slow_and_then_every_event() -> None:
    heard = asyncio.Event()

    async def think(session: AimSession) -> None:
        await heard.wait()
        await echo(session)

    # Shorter than the settings allow, so that the test need not wait.
    profiles = {"default": Profile.model_construct(stream_head_seconds=0, stream_ping_seconds=0.01)}
    async with rig(profiles=profiles) as chain:
        chain.upstream.answer = pieces(CHAT.events("One", " two"))
        chain.aim.script = think
        where = urlsplit(chain.envoy.url)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        body = CHAT.request("Hello", stream=True)
        writer.write(f"POST {CHAT.path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        async with asyncio.timeout(30):
            got = await reader.readuntil(PING) + await reader.readuntil(PING)
            assert b"One" not in got
            heard.set()
            got += await reader.readuntil(DONE)
        writer.close()
    events = b"".join(CHAT.events("One", " two"))
    lines = [line for line in got.replace(PING, b"").splitlines(keepends=True) if line.endswith(b"\n")]
    assert [line for line in lines if line.startswith(b"data:")] == [
        line for line in events.splitlines(keepends=True) if line.startswith(b"data:")
    ]
