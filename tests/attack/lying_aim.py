"""An Aim that lies, or somebody in its place: answers and frames that are no verdict."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Mapping
from typing import Any, Final

from tests.attack.attack import SERVED, UNSEEN_REQUEST, UNVERIFIED, Attack, Script
from tests.attack.target import SECRET, Target
from tests.fakes.aim import AimSession, Answer, Question, chunk_of
from tests.fakes.aim import Script as AimScript
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
    "a key twice, once escaped": (200, b'{"detected": true, "d\\u0065tected": false}'),
    "a verdict that claims to be gzip": (200, {"detected": False}, {"content-encoding": "gzip"}),
    "a verdict that claims two encodings": (200, {"detected": False}, {"content-encoding": "identity, br"}),
    "a verdict in gzip": (200, gzip.compress(b'{"detected": false}'), {"content-encoding": "gzip"}),
    "a bomb in gzip": (200, gzip.compress(b" " * 50_000_000 + b'{"detected": false}'), {"content-encoding": "gzip"}),
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


async def _repeats_a_key(session: AimSession) -> None:
    """Send a chunk with two texts under one key: of which one is the verdict?"""
    while (chunk := await session.receive()) is not None:
        text = json.dumps(chunk)
        await session.socket.send_str(f'{{"verified_chunk": {{"choices": []}}, "verified_chunk": {text}}}')


async def _blocks_and_verifies(session: AimSession) -> None:
    """Block under a key that a later one with the same name takes back."""
    while (chunk := await session.receive()) is not None:
        text = json.dumps(chunk)
        await session.socket.send_str(
            f'{{"blocking_message": "No.", "verified_chunk": {text}, "blocking_message": null}}'
        )


async def _unknown_mark(session: AimSession) -> None:
    """Rewrite a submission that does not exist, and take that for a verdict on all before it."""
    while await session.receive() is not None:
        await session.verify({**chunk_of("x"), "x_aim_extproc": 10**9})


async def _mark_of_another_type(session: AimSession) -> None:
    while await session.receive() is not None:
        await session.verify({**chunk_of("x"), "x_aim_extproc": "0"})


async def _tiny_frames(session: AimSession) -> None:
    """Send ten thousand frames that verify nothing, as fast as the connection takes them."""
    await session.receive()
    for _ in range(10_000):
        await session.verify({"choices": []})


async def _tiny_pings(session: AimSession) -> None:
    """Send ten thousand pings, which all have to be answered, then fall silent."""
    await session.receive()
    for _ in range(10_000):
        await session.socket.ping()
    await session.closed.wait()


async def _fragments(session: AimSession) -> None:
    """Send the beginning of a message, and ten thousand empty fragments of it."""
    await session.receive()
    session.transport.write(b"\x01\x00" + b"\x00\x00" * 10_000)
    await session.closed.wait()


def _compressed(data: bytes) -> AimScript:
    """Return a script that sends `data` in a frame marked as compressed, which was not negotiated."""
    packer = zlib.compressobj(wbits=-15)
    packed = (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")

    async def script(session: AimSession) -> None:
        await session.receive()
        session.transport.write(b"\xc1\x7f" + len(packed).to_bytes(8) + packed)
        await session.closed.wait()

    return script


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
    "a key twice": _repeats_a_key,
    "a block that a repeated key takes back": _blocks_and_verifies,
    "a verdict for an unknown mark": _unknown_mark,
    "a verdict for a mark that is a string": _mark_of_another_type,
    "ten thousand tiny frames": _tiny_frames,
    "ten thousand pings, then silence": _tiny_pings,
    "ten thousand empty fragments": _fragments,
    "a compressed frame that was not agreed": _compressed(b'{"done": true}'),
    "a compressed bomb that was not agreed": _compressed(b" " * 100_000_000 + b'{"done": true}'),
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


async def _speaks_after_done(target: Target) -> None:
    """Verify the first text, say that it is all, and send frames with other texts behind that."""

    async def script(session: AimSession) -> None:
        while (chunk := await session.receive()) is not None:
            if not any(word in json.dumps(chunk) for word in WORDS[1:]):
                await session.verify(chunk)
        frames = [
            {"done": True},
            {"verified_chunk": chunk_of("SMUGGLED")},
            {"blocking_message": "late"},
            {"done": True},
        ]
        session.transport.write(b"".join(_frame(json.dumps(each).encode()) for each in frames))
        await session.closed.wait()

    target.aim.script, target.model.answer = script, pieces(chat_stream(*WORDS))
    got = await target.ask(json.dumps(chat_request("Hello", stream=True)).encode())
    shown = got.body.decode()
    assert "SMUGGLED" not in shown
    assert not any(word in shown for word in WORDS[1:]), shown  # Aim ended without a word on them: they are dropped


def _frame(data: bytes) -> bytes:
    """Return a text frame of at most 125 bytes."""
    return b"\x81" + len(data).to_bytes(1) + data


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
    Attack("Aim in a session: frames behind done", UNVERIFIED, _speaks_after_done),
    Attack("Aim never answers fifty exchanges", SERVED, _drips),
    Attack("Aim blocks what it is asked", UNSEEN_REQUEST, _mixes_up),
]
