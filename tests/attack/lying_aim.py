"""An Aim that lies, or somebody in its place: answers and frames that are no verdict."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from tests.attack.attack import SERVED, UNSEEN_REQUEST, UNVERIFIED, Attack, Script
from tests.attack.target import SECRET, Target
from tests.fakes.aim import AimSession, Answer, Question, chunk_of
from tests.fakes.rig import chat_request, chat_stream
from tests.fakes.upstream import Received, pieces

ANSWERS: Final[Mapping[str, Answer]] = {
    "nothing": (200, b""),
    "an empty object": {},
    "a list": [],
    "null": (200, b"null"),
    "a verdict that is a string": {"detected": "false"},
    "a verdict that is null": {"detected": None},
    "HTML": (200, b"<html>detected: false</html>"),
    "a redirect to a verdict": (302, b"", {"location": "/allow"}),
    "a verdict with status 500": (500, {"detected": False, "details": {}}),
    "a verdict with status 204": (204, b""),
    "100,000 brackets": (200, b"[" * 100_000),
    "10 MB of white space before a verdict": (200, b" " * 10_000_000 + b'{"detected": false}'),
    "a key twice": (200, b'{"detected": true, "detected": false}'),
}
"""What Aim says to a request. With none of these may the request pass."""

WORDS: Final = ("ALPHA", "BRAVO", "CHARLIE")


async def _other_index(session: AimSession) -> None:
    while await session.receive() is not None:
        await session.verify(chunk_of("ALPHA", index=5))


async def _empty(session: AimSession) -> None:
    while await session.receive() is not None:
        await session.verify({})


async def _unknown(session: AimSession) -> None:
    await session.receive()
    await session.socket.send_str('{"verified": true}')


async def _not_json(session: AimSession) -> None:
    await session.receive()
    await session.socket.send_str("[" * 100_000)


async def _silent(session: AimSession) -> None:
    await session.closed.wait()


async def _drops(session: AimSession) -> None:
    await session.receive()
    session.abort()


async def _large(session: AimSession) -> None:
    await session.receive()
    await session.verify({"choices": [], "x": "y" * 5_000_000})


async def _chatters(session: AimSession) -> None:
    await session.receive()
    while not session.socket.closed:
        await session.verify({"choices": [{"index": 0, "delta": {}}]})
        await asyncio.sleep(0.02)


SCRIPTS: Final[Mapping[str, Any]] = {
    "verifies another choice": _other_index,
    "verifies nothing, in a frame": _empty,
    "an unknown frame": _unknown,
    "a frame that is no JSON": _not_json,
    "silence": _silent,
    "a dropped connection": _drops,
    "a frame of 5 MB": _large,
    "chatter without a verdict": _chatters,
}
"""What Aim does in a session. None of the texts may leave."""


def _answers(answer: Answer) -> Script:
    async def run(target: Target) -> None:
        async def judge(_: Question) -> Answer:
            return answer

        target.aim.judge = judge
        got = await target.ask(json.dumps(chat_request(SECRET)).encode())
        assert not target.model.requests, f"the model got it, the client {got.status}"

    return run


def _speaks(script: Any) -> Script:
    async def run(target: Target) -> None:
        target.aim.script = script
        target.model.answer = pieces(chat_stream(*WORDS))
        got = await target.ask(json.dumps(chat_request("Hello", stream=True)).encode())
        shown = got.body.decode()
        assert not any(word in shown for word in WORDS), shown
        assert got.status != 200 or "error" in shown or not got.is_whole, f"it looks complete: {shown!r}"

    return run


async def _ends_early(target: Target) -> None:
    """Say `done` while the model is still speaking."""
    begins = chat_stream(*WORDS)[:2]

    async def script(session: AimSession) -> None:
        await session.receive()
        await session.done()

    async def answer(request: Received) -> None:
        await request.head(200, [("content-type", "text/event-stream"), ("transfer-encoding", "chunked")])
        for event in begins:
            await request.chunk(event)
        while not target.aim.sessions:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
        await target.aim.sessions[0].closed.wait()  # the sidecar does not wait for more of it
        for event in chat_stream(*WORDS)[2:]:
            await request.chunk(event)
        await request.end()

    target.aim.script, target.model.answer = script, answer
    got = await target.ask(json.dumps(chat_request("Hello", stream=True)).encode())
    assert got.status == 503, got
    assert not any(word.encode() in got.body for word in WORDS)


async def _drips(target: Target) -> None:
    """Answer a byte a second, while others are served by an Aim that works."""
    first = asyncio.Event()
    honest = target.aim.judge

    async def judge(question: Question) -> Answer:
        if "slow" in str(question.body):
            first.set()
            await asyncio.Event().wait()
        return await honest(question)

    target.aim.judge = judge
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(target.ask(json.dumps(chat_request("slow")).encode())) for _ in range(50)]
        await first.wait()
        await target.serves()
    assert {each.result().status for each in waiting} == {503}


async def _mixes_up(target: Target) -> None:
    """Give each of two exchanges the answer to the other."""
    seen: list[str] = []
    both = asyncio.Event()

    async def judge(question: Question) -> Answer:
        seen.append(str(question.body))
        if len(seen) == 2:
            both.set()
        await both.wait()
        return {"detected": SECRET not in str(question.body), "details": {}, "detection_message": SECRET}

    target.aim.judge = judge
    harmless = json.dumps(chat_request("Hello")).encode()
    got, _ = await asyncio.gather(target.ask(harmless), target.ask(harmless.replace(b"Hello", b"Bye")))
    assert got.status == 400
    assert not target.model.requests


ATTACKS: Final = [
    *(Attack(f"Aim says: {name}", UNSEEN_REQUEST, _answers(answer)) for name, answer in ANSWERS.items()),
    *(Attack(f"Aim in a session: {name}", UNVERIFIED, _speaks(script)) for name, script in SCRIPTS.items()),
    Attack("Aim in a session: done while the model speaks", UNVERIFIED, _ends_early),
    Attack("Aim never answers fifty exchanges", SERVED, _drips),
    Attack("Aim blocks what it is asked", UNSEEN_REQUEST, _mixes_up),
]
