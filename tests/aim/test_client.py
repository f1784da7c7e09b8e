"""Talking to Aim: every fault becomes a reason, every call is bounded, nothing is left behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from structlog.testing import capture_logs

from extproc import __version__
from extproc.aim.client import AimClient, Caller
from extproc.aim.retry import MAX_RETRIES
from extproc.aim.session import Session
from extproc.core.errors import DetectionError, Reason
from extproc.core.events import ChunkVerified, Event, SessionDone, SessionFailed, StreamBlocked
from extproc.core.identity import Identity
from extproc.core.verdict import Allow, Anonymize, Block, Failed
from extproc.core.vocabulary import Hook, Input
from tests.fakes.aim import AimSession, Script, ScriptedAim, anonymize, block, chunk_of
from tests.fakes.http_peer import CHUNKED, Peer, answer, repeats, reply, says, server_tls, tunnel
from tests.fakes.http_peer import Script as HttpScript
from tests.fakes.sidecar import settings_for

CALLER = Caller("default", "call-1", Identity("a@b.c", "alias", "s1"))
ALLOWED = reply(b'{"detected": false}')
ASKED = Input(({"role": "user", "content": "Hello"},))


@asynccontextmanager
async def client_of(base: str, **aim: Any) -> AsyncIterator[AimClient]:
    async with AimClient(settings_for(base, aim=aim)) as client:
        yield client


async def reason_of(client: AimClient) -> Reason:
    with pytest.raises(DetectionError) as caught:
        await client.detect(Hook.PRE_CALL, ASKED, CALLER)
    return caught.value.reason


class TestAnalysis:
    @pytest.mark.parametrize(
        ("form", "prefix", "alias", "path"),
        [
            ("detect", "x-aim-", "litellm-key-alias", "/detect/openai"),
            ("firewall", "x-aim-", "gateway-key-alias", "/fw/v1/analyze"),
            ("cato", "x-cato-", "gateway-key-alias", "/fw/v1/analyze"),
        ],
    )
    async def test_the_question(self, aim: ScriptedAim, form: str, prefix: str, alias: str, path: str) -> None:
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
            ((200, b" " * 3_000_000), Reason.UNREADABLE_ANSWER),
        ],
    )
    async def test_every_answer_that_is_none_has_a_reason(self, aim: ScriptedAim, answer: Any, reason: Reason) -> None:
        async def judge(_: object) -> Any:
            return answer

        aim.judge = judge
        async with client_of(aim.base) as client:
            assert await reason_of(client) is reason

    async def test_silence_is_a_timeout(self, aim: ScriptedAim) -> None:
        async def judge(_: object) -> Any:
            await asyncio.Event().wait()

        aim.judge = judge
        async with client_of(aim.base, timeout_seconds=0.2) as client:
            assert await reason_of(client) is Reason.TIMEOUT

    async def test_nobody_there_is_unreachable(self, unused_tcp_port: int) -> None:
        async with client_of(f"http://127.0.0.1:{unused_tcp_port}") as client:
            assert await reason_of(client) is Reason.UNREACHABLE

    async def test_a_dropped_connection_is_tried_again(self) -> None:
        async with Peer(says(b"", leaves=True), says(ALLOWED)) as peer, client_of(peer.url) as client:
            assert await client.detect(Hook.PRE_CALL, ASKED, CALLER) == Allow()
            assert len(peer.heads) == 2

    async def test_a_refused_key_is_not_asked_again(self, aim: ScriptedAim) -> None:
        async def judge(_: object) -> Any:
            return (401, {})

        aim.judge = judge
        async with client_of(aim.base) as client:
            await reason_of(client)
        assert len(aim.questions) == 1

    async def test_no_key_is_a_refused_key(self, aim: ScriptedAim) -> None:
        async with client_of(aim.base, api_key="") as client:
            assert await reason_of(client) is Reason.KEY_REFUSED
        assert aim.questions == []

    @pytest.mark.parametrize("content", ["abc\ndef\n", "a b", ""])
    async def test_a_file_that_holds_no_key_is_a_refused_key(
        self, aim: ScriptedAim, tmp_path: Path, content: str
    ) -> None:
        (tmp_path / "key").write_text(content)
        async with client_of(aim.base, api_key="", api_key_file=tmp_path / "key") as client:
            assert await reason_of(client) is Reason.KEY_REFUSED
        assert aim.questions == []

    async def test_the_breaker_opens_and_probes(self, aim: ScriptedAim) -> None:
        async def judge(_: object) -> Any:
            return (500, {})

        aim.judge = judge
        async with client_of(aim.base, breaker={"failures": 2, "open_seconds": 3600}) as client:
            reasons = [await reason_of(client) for _ in range(3)]
        assert reasons == [Reason.SERVER_ERROR, Reason.SERVER_ERROR, Reason.BREAKER_OPEN]
        assert len(aim.questions) == 2 * (1 + MAX_RETRIES)

    async def test_a_passing_fault_is_asked_again(self, aim: ScriptedAim) -> None:
        async def judge(_: object) -> Any:
            return (503, {}) if len(aim.questions) == 1 else {"detected": False}

        aim.judge = judge
        async with client_of(aim.base) as client:
            assert isinstance(await client.detect(Hook.PRE_CALL, ASKED, CALLER), Allow)

    async def test_a_wait_beyond_the_deadline_is_not_begun(self, aim: ScriptedAim) -> None:
        async def judge(_: object) -> Any:
            return 429, {}, {"retry-after": "3600"}

        aim.judge = judge
        async with client_of(aim.base) as client:
            assert await reason_of(client) is Reason.RATE_LIMITED
        assert len(aim.questions) == 1

    async def test_retries_cannot_double_the_load(self, aim: ScriptedAim) -> None:
        async def judge(_: object) -> Any:
            return (500, {})

        aim.judge = judge
        async with client_of(aim.base, breaker={"failures": 10_000}, timeout_seconds=60) as client:
            await asyncio.gather(*(reason_of(client) for _ in range(60)))
        assert len(aim.questions) < 60 + 10 + 60 * 0.2 + 1

    async def test_texts_are_judged_side_by_side_and_a_block_ends_the_rest(self, aim: ScriptedAim) -> None:
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
            outcomes = await client.analyze(Hook.OUTPUT, inputs, CALLER)
        assert outcomes == (Block("No."),)

    async def test_each_text_has_its_own_outcome(self, aim: ScriptedAim) -> None:
        async def judge(question: Any) -> Any:
            if question.texts[-1] == "bad":
                return (500, {})
            return anonymize(question, str.upper)

        aim.judge = judge
        inputs = [Input((), text) for text in ("a", "bad")]
        async with client_of(aim.base, api="firewall") as client:
            outcomes = await client.analyze(Hook.OUTPUT, inputs, CALLER)
        assert outcomes == (Anonymize(("A",), ("PII",)), Failed(Reason.SERVER_ERROR))


class TestAnswersOverTheWire:
    @pytest.mark.parametrize(
        "script",
        [
            repeats(answer("200 OK"), b" "),
            repeats(CHUNKED, b"1\r\n \r\n"),
            repeats(answer("200 OK", "content-length: 999999999"), b" "),
        ],
        ids=["to the end", "chunked", "content-length"],
    )
    async def test_answer_beyond_the_limit_is_not_read_on(self, script: HttpScript) -> None:
        async with Peer(script) as peer, client_of(peer.url, timeout_seconds=60) as client:
            assert await reason_of(client) is Reason.UNREADABLE_ANSWER
            await peer.ended()
            assert len(peer.heads) == 1

    @pytest.mark.parametrize(
        "script",
        [repeats(b"", answer("100 Continue")), repeats(CHUNKED + b"5;", b"extension")],
        ids=["1xx", "a chunk's extension"],
    )
    async def test_endless_framing_ends_with_the_deadline(self, script: HttpScript) -> None:
        async with Peer(script) as peer, client_of(peer.url, timeout_seconds=0.5) as client:
            assert await reason_of(client) is Reason.TIMEOUT
            await peer.ended()

    async def test_dead_kept_connection_is_retried(self) -> None:
        async with Peer(says(ALLOWED, b"", leaves=True), says(ALLOWED)) as peer, client_of(peer.url) as client:
            assert await client.detect(Hook.PRE_CALL, ASKED, CALLER) == Allow()
            assert await client.detect(Hook.PRE_CALL, ASKED, CALLER) == Allow()
            assert (peer.connections, len(peer.heads)) == (2, 3)

    async def test_idle_connection_that_the_peer_closed_costs_no_question(self) -> None:
        async with Peer(says(ALLOWED, leaves=True), says(ALLOWED)) as peer, client_of(peer.url) as client:
            assert await client.detect(Hook.PRE_CALL, ASKED, CALLER) == Allow()
            await peer.ended()
            assert await client.detect(Hook.PRE_CALL, ASKED, CALLER) == Allow()

    async def test_timeout_of_an_idle_connection_is_retried(self) -> None:
        late = answer("408 Request Timeout", "connection: close", "content-length: 0")
        async with Peer(says(ALLOWED, late, leaves=True), says(ALLOWED)) as peer, client_of(peer.url) as client:
            for _ in range(2):
                assert await client.detect(Hook.PRE_CALL, ASKED, CALLER) == Allow()

    async def test_header_fields(self) -> None:
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


class TestTls:
    @asynccontextmanager
    async def _aim(self) -> AsyncIterator[tuple[str, trustme.CA]]:
        async def script(session: AimSession) -> None:
            await session.done()
            await session.socket.close()

        authority = trustme.CA()
        aim = ScriptedAim()
        aim.script = script
        async with aim.running(tls=server_tls(authority=authority)):
            yield aim.base, authority

    async def test_the_ca_file_reaches_rest_and_websocket(self, tmp_path: Path) -> None:
        async with self._aim() as (base, authority):
            authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
            async with client_of(base, ca_file=tmp_path / "ca.pem") as client:
                assert isinstance(await client.detect(Hook.PRE_CALL, ASKED, CALLER), Allow)
                events = Events()
                client.open_session(1, CALLER, events)
                assert isinstance(await events.next(), SessionDone)

    async def test_a_secured_proxy_is_trusted_by_the_same_file_and_needs_no_password(self, tmp_path: Path) -> None:
        async with self._aim() as (base, authority), Peer(tunnel(), tls=server_tls(authority=authority)) as proxy:
            authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
            by = proxy.url.replace("://", "://token@")
            async with client_of(base, ca_file=tmp_path / "ca.pem", proxy=by) as client:
                assert isinstance(await client.detect(Hook.PRE_CALL, ASKED, CALLER), Allow)
                events = Events()
                client.open_session(1, CALLER, events)
                assert isinstance(await events.next(), SessionDone)
            assert len(proxy.heads) == 2
            for head in proxy.heads:
                assert b"\r\nproxy-authorization: basic dg9rzw46\r\n" in head.lower()

    @pytest.mark.parametrize(("verify", "reached"), [(True, False), (False, True)])
    async def test_verification_reaches_both(self, verify: bool, reached: bool) -> None:
        async with self._aim() as (base, _), client_of(base, verify=verify) as client:
            events = Events()
            client.open_session(1, CALLER, events)
            if reached:
                assert isinstance(await client.detect(Hook.PRE_CALL, ASKED, CALLER), Allow)
                assert isinstance(await events.next(), SessionDone)
            else:
                assert await reason_of(client) is Reason.UNREACHABLE
                assert await events.next() == SessionFailed(1, Reason.UNREACHABLE, opened=False)


class Events:
    """What a session delivered."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Event] = asyncio.Queue()

    def __call__(self, event: Event) -> None:
        self.queue.put_nowait(event)

    async def next(self) -> Event:
        return await asyncio.wait_for(self.queue.get(), 10)


async def test_what_goes_wrong_in_one_task_ends_no_other(aim: ScriptedAim) -> None:
    async def odd(number: int) -> None:
        raise ValueError(number)

    async with client_of(aim.base) as client:
        with capture_logs() as logs:
            await client.start(odd, 1)
        assert [record["event"] for record in logs] == ["internal_error"]
        assert await client.detect(Hook.PRE_CALL, Input(({"role": "user", "content": "x"},)), CALLER) == Allow()


class TestSession:
    async def test_a_whole_session(self, aim: ScriptedAim) -> None:
        events = Events()
        async with client_of(aim.base) as client:
            session = client.open_session(3, CALLER, events)
            chunk = chunk_of("x" * 2_000_000)  # larger than the library's default
            session.submit(json.dumps(chunk))
            session.done()
            verified = await events.next()
            assert isinstance(verified, ChunkVerified)
            assert (verified.session, verified.texts) == (3, ((0, "x" * 2_000_000),))
            assert isinstance(await events.next(), SessionDone)
            session.close()
            await asyncio.wait_for(aim.sessions[0].closed.wait(), 10)
        headers = aim.sessions[0].headers
        assert headers["x-aim-litellm-hook"] == "output"
        assert headers["x-aim-call-id"] == "call-1"
        assert aim.sessions[0].chunks == [chunk]

    @pytest.mark.parametrize(
        ("frame", "expected"),
        [
            ('{"blocking_message": "No."}', StreamBlocked),
            ('{"done": true}', SessionDone),
            ("junk", SessionFailed),
            ('{"verified_chunk": null}', SessionFailed),
            (None, SessionFailed),
        ],
    )
    async def test_what_ends_it(self, aim: ScriptedAim, frame: str | None, expected: type) -> None:
        async def script(session: AimSession) -> None:
            if frame is None:
                await session.socket.close()
            else:
                await session.socket.send_str(frame)

        aim.script = script
        events = Events()
        async with client_of(aim.base) as client:
            session = client.open_session(1, CALLER, events)
            event = await events.next()
            assert isinstance(event, expected)
            if isinstance(event, SessionFailed):
                assert (event.reason, event.opened) == (Reason.SESSION, True)
            session.close()
        assert events.queue.empty()

    async def test_an_aim_that_says_ever_more_is_left(self, aim: ScriptedAim) -> None:
        async def script(session: AimSession) -> None:
            while not session.socket.closed:
                await session.verify(chunk_of("x"))

        aim.script = script
        events = Events()
        async with client_of(aim.base) as client:
            session = client.open_session(1, CALLER, events)
            session.submit(json.dumps(chunk_of("x")))
            for _ in range(100):
                if (event := await events.next()) == SessionFailed(1, Reason.SESSION, opened=True):
                    break
                assert isinstance(event, ChunkVerified)
            else:
                raise AssertionError("a hundred frames were taken for one chunk")
            session.close()
            await asyncio.wait_for(aim.sessions[0].closed.wait(), 10)

    @pytest.mark.parametrize(("status", "reason"), [(401, Reason.KEY_REFUSED), (503, Reason.SERVER_ERROR)])
    async def test_a_refused_handshake(self, aim: ScriptedAim, status: int, reason: Reason) -> None:
        async def handshake() -> int:
            return status

        aim.handshake = handshake
        events = Events()
        async with client_of(aim.base) as client:
            client.open_session(1, CALLER, events)
            assert await events.next() == SessionFailed(1, reason, opened=False)

    async def test_an_opening_is_bounded(self, aim: ScriptedAim) -> None:
        async def handshake() -> None:
            await asyncio.Event().wait()

        aim.handshake = handshake
        events = Events()
        async with client_of(aim.base, timeout_seconds=0.2) as client:
            client.open_session(1, CALLER, events)
            assert await events.next() == SessionFailed(1, Reason.TIMEOUT, opened=False)

    async def test_a_redirect_is_not_followed(self, aim: ScriptedAim) -> None:
        elsewhere = answer("302 Found", f"location: {aim.base}/detect/output/ws", "content-length: 0")
        async with Peer(says(elsewhere)) as peer, client_of(peer.url) as client:
            events = Events()
            client.open_session(1, CALLER, events)
            event = await events.next()
            assert isinstance(event, SessionFailed)
            assert not event.opened
        assert aim.sessions == []

    async def test_nobody_there(self, unused_tcp_port: int) -> None:
        events = Events()
        async with client_of(f"http://127.0.0.1:{unused_tcp_port}") as client:
            client.open_session(1, CALLER, events)
            assert await events.next() == SessionFailed(1, Reason.UNREACHABLE, opened=False)

    async def test_closing_while_it_opens_leaves_nothing(self, aim: ScriptedAim) -> None:
        arrived, left = asyncio.Event(), asyncio.Event()

        async def handshake() -> None:
            arrived.set()
            try:
                await asyncio.Event().wait()
            finally:
                left.set()

        aim.handshake = handshake
        events = Events()
        async with client_of(aim.base) as client:
            session = client.open_session(1, CALLER, events)
            await asyncio.wait_for(arrived.wait(), 10)
            session.close()
            await asyncio.wait_for(left.wait(), 10)
        assert events.queue.empty()

    async def test_leaving_the_client_closes_its_sessions(self, aim: ScriptedAim) -> None:
        events = Events()
        async with client_of(aim.base) as client:
            session = client.open_session(1, CALLER, events)
            session.submit(json.dumps(chunk_of("a")))
            await events.next()
        await asyncio.wait_for(aim.sessions[0].closed.wait(), 10)

    @pytest.mark.parametrize("is_open", [False, True])
    async def test_what_waits_for_an_aim_that_does_not_read_is_bounded(self, aim: ScriptedAim, is_open: bool) -> None:
        go = asyncio.Event()
        aim.script = reading_one(go)
        events = Events()
        async with asyncio.timeout(30), client_of(aim.base) as client:
            session = client.open_session(1, CALLER, events)
            if is_open:
                await verified_one(session, events)
            for _ in range(40):
                session.submit(json.dumps(chunk_of("x" * 1_000_000)))
            assert await events.next() == SessionFailed(1, Reason.SESSION, opened=False)
            session.close()
            go.set()

    async def test_an_aim_that_does_not_read_holds_nobody_up(self, aim: ScriptedAim) -> None:
        go = asyncio.Event()
        aim.script = reading_one(go)
        events = Events()
        async with asyncio.timeout(15), client_of(aim.base) as client:
            session = client.open_session(1, CALLER, events)
            await verified_one(session, events)
            for _ in range(10):  # more than the connection takes, less than what ends the session
                session.submit(json.dumps(chunk_of("x" * 1_000_000)))
            session.close()
        # The client has left: its closing handshake is bounded, although Aim answers none. (Without a bound, the
        # keep-alive pings would end it after 20 s.)
        go.set()
        assert events.queue.empty()


def reading_one(go: asyncio.Event) -> Script:
    """Return an Aim that verifies a chunk, and reads nothing more until `go`."""

    async def script(session: AimSession) -> None:
        chunk = await session.receive()
        assert chunk is not None
        await session.verify(chunk)
        await go.wait()

    return script


async def verified_one(session: Session, events: Events) -> None:
    """Have a chunk verified: the session is open at our end, too, then."""
    session.submit(json.dumps(chunk_of("Hello")))
    assert isinstance(await events.next(), ChunkVerified)
