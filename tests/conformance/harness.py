"""What the tests of all SDKs share: a chain, a client through it and one without it, and an Aim in three moods."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests.envoy.case import blocks, fails, redacts
from tests.fakes.rig import Rig

MESSAGE = "Not that."


async def same_with_and_without(talk: Callable[[Any], Awaitable[list[Any]]], guarded: Any, direct: Any) -> list[Any]:
    """Have the same conversation through the chain and without it; return what was got, which has to be the same."""
    through = await talk(guarded)
    assert through == await talk(direct)
    return through


async def collect(stream: AsyncIterator[Any], into: list[Any]) -> None:
    """Move what a stream yields into a list, which keeps it when the stream raises."""
    async for item in stream:
        into.append(item)  # noqa: PERF401 - see above


def sent(chain: Rig) -> str:
    """Return the body of the last request that reached the model."""
    return chain.upstream.requests[-1].body.decode()


def blocks_requests(chain: Rig) -> None:
    """Block prompts that hold `secret`."""
    blocks("secret", MESSAGE)(chain.aim)


def blocks_answers(chain: Rig) -> None:
    """Block what says that it rains; nothing in a prompt does."""
    blocks("rains", MESSAGE)(chain.aim)


def blocks_at_once(chain: Rig) -> None:
    """Block a stream at its first words, before the client got any byte of it."""
    blocks("It ", MESSAGE)(chain.aim)


def redacts_the_city(chain: Rig) -> None:
    """Replace the city's name, in prompts and in answers."""
    redacts("Oslo", "[CITY]")(chain.aim)


def is_down(chain: Rig) -> None:
    """Fail whatever is asked."""
    fails(503)(chain.aim)
