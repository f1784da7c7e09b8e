"""Detections over REST: each fault has a reason, each call is bounded."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import Any

import pytest

from extproc import __version__
from extproc.aim.client import Caller
from extproc.aim.detector import CONCURRENT
from extproc.aim.retry import MAX_RETRIES
from extproc.core.errors import Reason
from extproc.core.identity import Identity
from extproc.core.verdict import Allow, Anonymize, Block, Failed
from extproc.core.vocabulary import Hook, Input
from tests.fakes.aim import ScriptedAim, anonymize, block
from tests.fakes.aim_client import ASKED, CALLER, client_of, reason_of
from tests.fakes.http_peer import CHUNKED, Peer, Script, answer, repeats, reply, says


def uncounted(_: int) -> None:
    """Ignore the sizes of bodies."""


ALLOWED = reply(b'{"detected": false}')


@pytest.mark.parametrize(
    ("form", "prefix", "alias", "path"),
    [
        ("detect", "x-aim-", "litellm-key-alias", "/detect/openai"),
        ("firewall", "x-aim-", "gateway-key-alias", "/fw/v1/analyze"),
        ("cato", "x-cato-", "gateway-key-alias", "/fw/v1/analyze"),
    ],
)
async def test_call_has_the_right_path_headers_and_body(
    aim: ScriptedAim, form: str, prefix: str, alias: str, path: str
) -> None:
    async with client_of(aim.base, api=form) as client:
        assert isinstance(await client.detect(Hook.PRE_CALL, ASKED, CALLER), Allow)
    (question,) = aim.questions
    assert (question.path, question.body) == (path, {"messages": [{"role": "user", "content": "Hello"}]})
    headers = question.headers
    assert headers["authorization"] == "Bearer test-key"
    expected = {
        "litellm-hook": "pre_call",
        "user-email": "a@b.c",
        alias: "alias",
        "call-id": "call-1",
        "session-id": "s1",
    }
    assert {name: headers[prefix + name] for name in expected} == expected
    assert headers[prefix + "litellm-version"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((401, {"detail": "Invalid API token"}), Reason.KEY_REFUSED),
        ((403, {}), Reason.KEY_REFUSED),
        ((422, {}), Reason.REJECTED),
        ((429, {}), Reason.RATE_LIMITED),
        ((500, {}), Reason.SERVER_ERROR),
        ((302, {}), Reason.UNREADABLE_ANSWER),
        ((200, b"<html>"), Reason.UNREADABLE_ANSWER),
        ((200, {"detected": None}), Reason.UNREADABLE_ANSWER),
        ((200, b'{"detected": true, "detected": false}'), Reason.UNREADABLE_ANSWER),
        ((200, b" " * 3_000_000), Reason.UNREADABLE_ANSWER),
        ((200, {"detected": False}, {"content-encoding": "gzip"}), Reason.UNREADABLE_ANSWER),
        ((200, gzip.compress(b'{"detected": false}'), {"content-encoding": "gzip"}), Reason.UNREADABLE_ANSWER),
        ((503, {}, {"content-encoding": "gzip"}), Reason.SERVER_ERROR),
    ],
)
async def test_reason_for_each_unusable_answer(aim: ScriptedAim, answer: Any, reason: Reason) -> None:
    async def judge(_: object) -> Any:
        return answer

    aim.judge = judge
    async with client_of(aim.base) as client:
        assert await reason_of(client) is reason


async def test_silence_is_a_timeout(aim: ScriptedAim) -> None:
    async def judge(_: object) -> Any:
        await asyncio.Event().wait()

    aim.judge = judge
    async with client_of(aim.base, timeout_seconds=0.2) as client:
        assert await reason_of(client) is Reason.TIMEOUT


async def test_closed_port_is_unreachable(unused_tcp_port: int) -> None:
    async with client_of(f"http://127.0.0.1:{unused_tcp_port}") as client:
        assert await reason_of(client) is Reason.UNREACHABLE


async def test_dropped_connection_is_retried() -> None:
    async with Peer(says(b"", leaves=True), says(ALLOWED)) as peer, client_of(peer.url) as client:
        assert await client.detect(Hook.PRE_CALL, ASKED, CALLER) == Allow()
        assert len(peer.heads) == 2


async def test_refused_key_is_not_retried(aim: ScriptedAim) -> None:
    async def judge(_: object) -> Any:
        return (401, {})

    aim.judge = judge
    async with client_of(aim.base) as client:
        await reason_of(client)
    assert len(aim.questions) == 1


async def test_missing_key_counts_as_refused(aim: ScriptedAim) -> None:
    async with client_of(aim.base, api_key="") as client:
        assert await reason_of(client) is Reason.KEY_REFUSED
    assert aim.questions == []


@pytest.mark.parametrize("content", ["abc\ndef\n", "a b", ""])
async def test_file_without_a_key_counts_as_refused(aim: ScriptedAim, tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_text(content)
    async with client_of(aim.base, api_key="", api_key_file=tmp_path / "key") as client:
        assert await reason_of(client) is Reason.KEY_REFUSED
    assert aim.questions == []


async def test_breaker_opens_after_failures(aim: ScriptedAim) -> None:
    async def judge(_: object) -> Any:
        return (500, {})

    aim.judge = judge
    async with client_of(aim.base, breaker={"failures": 2, "open_seconds": 3600}) as client:
        reasons = [await reason_of(client) for _ in range(3)]
    assert reasons == [Reason.SERVER_ERROR, Reason.SERVER_ERROR, Reason.BREAKER_OPEN]
    assert len(aim.questions) == 2 * (1 + MAX_RETRIES)


async def test_temporary_fault_is_retried(aim: ScriptedAim) -> None:
    async def judge(_: object) -> Any:
        return (503, {}) if len(aim.questions) == 1 else {"detected": False}

    aim.judge = judge
    async with client_of(aim.base) as client:
        assert isinstance(await client.detect(Hook.PRE_CALL, ASKED, CALLER), Allow)


async def test_retry_after_beyond_the_deadline_is_not_awaited(aim: ScriptedAim) -> None:
    async def judge(_: object) -> Any:
        return 429, {}, {"retry-after": "3600"}

    aim.judge = judge
    async with client_of(aim.base) as client:
        assert await reason_of(client) is Reason.RATE_LIMITED
    assert len(aim.questions) == 1


async def test_retries_cannot_double_the_load(aim: ScriptedAim) -> None:
    async def judge(_: object) -> Any:
        return (500, {})

    aim.judge = judge
    async with client_of(aim.base, breaker={"failures": 10_000}, timeout_seconds=60) as client:
        await asyncio.gather(*(reason_of(client) for _ in range(60)))
    assert len(aim.questions) < 60 + 10 + 60 * 0.2 + 1


async def test_texts_are_detected_concurrently_and_a_block_cancels_the_rest(aim: ScriptedAim) -> None:
    arrived = asyncio.Semaphore(0)

    async def judge(question: Any) -> Any:
        arrived.release()
        if question.body["output"] != "bad":
            await asyncio.Event().wait()
        for _ in range(3):
            await arrived.acquire()
        return block("No.")

    aim.judge = judge
    inputs = [Input((), text) for text in ("a", "bad", "c")]
    async with client_of(aim.base) as client:
        outcomes = await client.detect_all(Hook.OUTPUT, inputs, CALLER, uncounted)
    assert outcomes == (Block("No.", input=1),)


async def test_each_text_has_its_own_outcome(aim: ScriptedAim) -> None:
    async def judge(question: Any) -> Any:
        if question.texts[-1] == "bad":
            return (500, {})
        return anonymize(question, str.upper)

    aim.judge = judge
    inputs = [Input((), text) for text in ("a", "bad")]
    async with client_of(aim.base, api="firewall") as client:
        sizes: list[int] = []
        outcomes = await client.detect_all(Hook.OUTPUT, inputs, CALLER, sizes.append)
    assert len(sizes) == len(aim.questions) == 2 + MAX_RETRIES
    assert outcomes == (Anonymize(("A",), ("PII",)), Failed(Reason.SERVER_ERROR))


@pytest.mark.parametrize(("hook", "rounds"), [(Hook.PRE_CALL, 1), (Hook.OUTPUT, 3)])
async def test_records_of_a_request_share_the_time_of_one_detection(aim: ScriptedAim, hook: Hook, rounds: int) -> None:
    """Envoy does not wait longer for a request. An answer may take several rounds of concurrent calls."""

    async def judge(_: object) -> Any:
        await asyncio.Event().wait()

    aim.judge = judge
    inputs = [Input(({"role": "user", "content": str(number)},)) for number in range(rounds * CONCURRENT + 4)]
    async with client_of(aim.base, timeout_seconds=1, breaker={"failures": 10_000}) as client:
        outcomes = await client.detect_all(hook, inputs[: 3 * CONCURRENT], CALLER, uncounted)
    assert set(outcomes) == {Failed(Reason.TIMEOUT)}
    assert len(aim.questions) <= rounds * CONCURRENT
    assert len(aim.questions) > (rounds - 1) * CONCURRENT


@pytest.mark.parametrize("form", ["detect", "firewall"])
async def test_inputs_that_share_messages_send_all_of_them(aim: ScriptedAim, form: str) -> None:
    messages = ({"role": "user", "content": "Hello"}, {"role": "user", "content": "again"})
    last = messages[1:]
    inputs = [Input(messages, "a"), Input(last, "b"), Input(last, "c"), Input(messages, "d"), Input((), "e")]
    async with client_of(aim.base, api=form) as client:
        outcomes = await client.detect_all(Hook.OUTPUT, inputs, CALLER, uncounted)
    assert outcomes == (Allow(),) * 5
    sent = [
        question.texts if form == "firewall" else [*question.texts, question.body["output"]]
        for question in aim.questions
    ]
    assert sorted(sent) == [["Hello", "again", "a"], ["Hello", "again", "d"], ["again", "b"], ["again", "c"], ["e"]]


async def test_bytes_are_counted_each_time_that_a_body_is_sent() -> None:
    sizes: list[int] = []
    failed = answer("503 Service Unavailable", "content-length: 0")
    async with Peer(says(ALLOWED, b"", leaves=True), says(failed, ALLOWED)) as peer, client_of(peer.url) as client:
        for _ in range(2):  # the second call meets a connection that ends, then a failure, and then gets its answer
            await client.detect_all(Hook.PRE_CALL, [ASKED], CALLER, sizes.append)
        assert len(peer.heads) == 4
    assert sizes == [48] * 4


async def test_call_that_is_not_sent_has_no_bytes() -> None:
    sizes: list[int] = []
    async with client_of("http://aim.invalid", api_key="") as client:
        outcomes = await client.detect_all(Hook.PRE_CALL, [ASKED], CALLER, sizes.append)
    assert outcomes == (Failed(Reason.KEY_REFUSED),)
    assert sizes == []


@pytest.mark.parametrize(
    "script",
    [
        repeats(answer("200 OK"), b" "),
        repeats(CHUNKED, b"1\r\n \r\n"),
        repeats(answer("200 OK", "content-length: 999999999"), b" "),
    ],
    ids=["to the end", "chunked", "content-length"],
)
async def test_answer_over_the_limit_is_not_read_further(script: Script) -> None:
    async with Peer(script) as peer, client_of(peer.url, timeout_seconds=60) as client:
        assert await reason_of(client) is Reason.UNREADABLE_ANSWER
        await peer.ended()
        assert len(peer.heads) == 1


@pytest.mark.parametrize(
    "script",
    [repeats(b"", answer("100 Continue")), repeats(CHUNKED + b"5;", b"extension")],
    ids=["1xx", "a chunk's extension"],
)
async def test_endless_framing_ends_with_the_deadline(script: Script) -> None:
    async with Peer(script) as peer, client_of(peer.url, timeout_seconds=0.5) as client:
        assert await reason_of(client) is Reason.TIMEOUT
        await peer.ended()


async def test_dead_kept_connection_is_retried() -> None:
    async with Peer(says(ALLOWED, b"", leaves=True), says(ALLOWED)) as peer, client_of(peer.url) as client:
        assert await client.detect(Hook.PRE_CALL, ASKED, CALLER) == Allow()
        assert await client.detect(Hook.PRE_CALL, ASKED, CALLER) == Allow()
        assert (peer.connections, len(peer.heads)) == (2, 3)


async def test_idle_connection_that_the_peer_closed_fails_no_call() -> None:
    async with Peer(says(ALLOWED, leaves=True), says(ALLOWED)) as peer, client_of(peer.url) as client:
        assert await client.detect(Hook.PRE_CALL, ASKED, CALLER) == Allow()
        await peer.ended()
        assert await client.detect(Hook.PRE_CALL, ASKED, CALLER) == Allow()


async def test_timeout_of_an_idle_connection_is_retried() -> None:
    late = answer("408 Request Timeout", "connection: close", "content-length: 0")
    async with Peer(says(ALLOWED, late, leaves=True), says(ALLOWED)) as peer, client_of(peer.url) as client:
        for _ in range(2):
            assert await client.detect(Hook.PRE_CALL, ASKED, CALLER) == Allow()


async def test_request_has_these_header_fields() -> None:
    async with Peer(says(ALLOWED)) as peer, client_of(peer.url) as client:
        await client.detect(Hook.PRE_CALL, ASKED, Caller("default", "call-1", Identity("Zoë")))
    lines = peer.heads[0].decode().split("\r\n")
    assert lines == [
        "POST /detect/openai HTTP/1.1",
        f"Host: 127.0.0.1:{peer.port}",
        "authorization: Bearer test-key",
        "x-aim-litellm-hook: pre_call",
        f"x-aim-litellm-version: {__version__}",
        "x-aim-call-id: call-1",
        "x-aim-user-email: Zoë",
        f"user-agent: aim-extproc/{__version__}",
        "accept: */*",
        "accept-encoding: identity",
        "content-type: application/json",
        "Content-Length: 48",
        "",
        "",
    ]
