"""One gRPC stream is one exchange: its profile, its limits, the filter's configuration, and its end."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any, cast

import grpc
import pytest
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import ProcessingModeBodySendMode as Mode
from structlog.testing import capture_logs

from extproc.aim.client import AimClient
from extproc.core.exchange import Exchange
from extproc.processor.effects import Effects
from extproc.processor.servicer import ExternalProcessor
from extproc.processor.stream import Patience
from extproc.telemetry.metrics import Telemetry
from tests.fakes.aim import AimSession, Answer, ScriptedAim, block, echo
from tests.fakes.envoy_stream import EnvoyStream, envoy_stream
from tests.fakes.process import environment
from tests.fakes.rig import DONE, chat_answer, chat_event, chat_request
from tests.fakes.sidecar import Sidecar, settings_for, sidecar

REQUEST = json.dumps(chat_request("Hello")).encode()
STREAMED = json.dumps(chat_request("Hello", stream=True)).encode()
SSE = ("content-type", "text/event-stream")


def address(guard: Sidecar) -> str:
    return f"127.0.0.1:{guard.port}"


async def request(stream: EnvoyStream, body: bytes = REQUEST, *headers: tuple[str, str]) -> Any:
    """Send a request; return the answer to its body."""
    await stream.request_headers(*headers)
    assert (await stream.read()).HasField("request_headers")
    await stream.body("request", body)
    return await stream.read()


async def status_of(stream: EnvoyStream) -> tuple[grpc.StatusCode, str]:
    while await stream.read() is not None:
        pass
    return await stream.call.code(), await stream.call.details()


async def test_exchange_is_guarded_and_recorded(aim: ScriptedAim) -> None:
    async with sidecar(settings_for(aim.base)) as guard, envoy_stream(address(guard)) as stream:
        answer = await request(stream, REQUEST, ("x-aim-user-email", "a@b.c"), ("x-aim-call-id", "theirs"))
        assert answer.HasField("request_body")
        metadata = answer.dynamic_metadata.fields["aim"].struct_value.fields
        assert metadata["request"].struct_value.fields["action"].string_value == "allow"
        await stream.response_headers(("content-type", "application/json"))
        await stream.body("response", b"{}")
        headers = (await stream.read()).response_headers.response.header_mutation.set_headers
        ((name, value),) = [(each.header.key, each.header.raw_value) for each in headers]
        call_id = value.decode()
        assert name == "x-aim-call-id"
        assert (await stream.read()).response_body.response.body_mutation.streamed_response.body == b"{}"
        await stream.done()
        assert await status_of(stream) == (grpc.StatusCode.OK, "")
        (question,) = aim.questions
        assert question.headers["x-aim-user-email"] == "a@b.c"
        assert question.headers["x-aim-call-id"] == call_id != "theirs"
        await asyncio.wait_for(guard.service.idle.wait(), 10)
        labels = {"profile": "default", "dialect": "openai-chat", "outcome": "allowed"}
        assert guard.metric("extproc_exchanges_total", **labels) == 1
        assert guard.metric("extproc_added_latency_seconds_count", leg="request") == 1
        assert guard.metric("extproc_detection_seconds_count", hook="pre_call") == 1
        assert guard.service.load.held_bytes == 0


@pytest.mark.parametrize(
    ("modes", "setting"),
    [
        ((Mode.BUFFERED, Mode.STREAMED), "response_body_mode"),
        ((Mode.NONE, Mode.FULL_DUPLEX_STREAMED), "request_body_mode"),
    ],
)
async def test_misconfigured_filter_is_refused(aim: ScriptedAim, modes: tuple[int, int], setting: str) -> None:
    async with sidecar(settings_for(aim.base)) as guard, envoy_stream(address(guard)) as stream:
        await stream.request_headers(modes=modes)
        code, details = await status_of(stream)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert setting in details
        await asyncio.wait_for(guard.service.idle.wait(), 10)
        assert guard.metric("extproc_exchanges_total", profile="", dialect="", outcome="aborted") == 1


async def test_garbage_is_refused(aim: ScriptedAim) -> None:
    async with sidecar(settings_for(aim.base)) as guard, envoy_stream(address(guard)) as stream:
        await stream.call.write(b"\xff\xff")
        assert (await status_of(stream))[0] is grpc.StatusCode.FAILED_PRECONDITION
        await asyncio.wait_for(guard.service.idle.wait(), 10)
        assert guard.metric("extproc_exchanges_total", profile="", dialect="", outcome="aborted") == 1


async def test_unknown_profile_is_refused_and_counted(aim: ScriptedAim) -> None:
    metadata = (("x-extproc-profile", "nobody"),)
    async with sidecar(settings_for(aim.base)) as guard:
        async with envoy_stream(address(guard), metadata) as stream:
            await stream.request_headers()
            assert (await stream.read()).immediate_response.status.code == 500
            await stream.done()
            assert await stream.read() is None
        await asyncio.wait_for(guard.service.idle.wait(), 10)
        assert guard.metric("extproc_exchanges_total", profile="", dialect="", outcome="refused") == 1


async def test_message_out_of_order_is_an_error_and_no_clean_end(aim: ScriptedAim) -> None:
    async with sidecar(settings_for(aim.base)) as guard, envoy_stream(address(guard)) as stream:
        await stream.request_headers()
        await stream.request_headers()
        assert (await status_of(stream))[0] is grpc.StatusCode.INTERNAL
        await asyncio.wait_for(guard.service.idle.wait(), 10)
        labels = {"profile": "default", "dialect": "openai-chat", "outcome": "aborted"}
        assert guard.metric("extproc_exchanges_total", **labels) == 1


@pytest.mark.parametrize("is_garbage", [False, True])
async def test_end_before_the_verdict_is_no_clean_end(aim: ScriptedAim, is_garbage: bool) -> None:
    """After a clean end Envoy would let the request pass."""
    asked = asyncio.Event()

    async def judge(_: object) -> Any:
        asked.set()
        await asyncio.Event().wait()

    aim.judge = judge
    async with sidecar(settings_for(aim.base)) as guard, envoy_stream(address(guard)) as stream:
        await stream.request_headers()
        await stream.read()
        await stream.body("request", REQUEST)
        await asyncio.wait_for(asked.wait(), 10)
        if is_garbage:
            await stream.call.write(b"\xff\xff")
        else:
            await stream.done()
        assert (await status_of(stream))[0] is grpc.StatusCode.INTERNAL


class TestProfiles:
    PROFILES: dict[str, Any] = {  # noqa: RUF012
        "default": {"block_message": "default"},
        "strict": {"block_message": "strict"},
        "routed": {"block_message": "routed", "routes": ["chat-*"]},
    }

    async def _message(self, aim: ScriptedAim, metadata: tuple[tuple[str, str], ...], route: str = "") -> str:
        async def judge(_: object) -> Any:
            return block("Aim's")

        aim.judge = judge
        settings = settings_for(aim.base, profiles=self.PROFILES)
        async with sidecar(settings) as guard, envoy_stream(address(guard), metadata) as stream:
            from extproc.processor import wire

            message: Any = wire.Request()
            message.protocol_config.request_body_mode = Mode.BUFFERED
            message.protocol_config.response_body_mode = Mode.FULL_DUPLEX_STREAMED
            for name, value in (
                (":method", "POST"),
                (":path", "/v1/chat/completions"),
                ("x-extproc-profile", "strict"),
            ):
                message.request_headers.headers.headers.add(key=name, raw_value=value.encode())
            if route:
                attributes = message.attributes["envoy.filters.http.ext_proc"]
                attributes.fields["xds.route_name"].string_value = route
            await stream.send(message)
            first = await stream.read()
            if first.HasField("immediate_response"):
                return str(json.loads(first.immediate_response.body)["error"]["code"])
            await stream.body("request", REQUEST)
            reply = (await stream.read()).immediate_response
            return str(json.loads(reply.body)["error"]["message"])

    @pytest.mark.parametrize(
        ("metadata", "route", "expected"),
        [
            ((), "", "default"),
            ((("x-extproc-profile", "strict"),), "chat-1", "strict"),
            ((), "chat-1", "routed"),
            ((), "other", "default"),
            ((("x-extproc-profile", "nobody"),), "", "guardrail_misconfigured"),
        ],
    )
    async def test_profile_is_chosen_by_metadata_then_route(
        self, aim: ScriptedAim, metadata: Any, route: str, expected: str
    ) -> None:
        assert await self._message(aim, metadata, route) == expected


class TestLimits:
    async def test_number_of_streams_is_limited(self, aim: ScriptedAim) -> None:
        settings = settings_for(aim.base, limits={"streams": 1})
        async with sidecar(settings) as guard, envoy_stream(address(guard)) as first:
            await first.request_headers()
            await first.read()
            async with envoy_stream(address(guard)) as second:
                await second.request_headers()
                reply = (await second.read()).immediate_response
                assert reply.status.code == 503
                assert json.loads(reply.body)["error"]["code"] == "guardrail_overloaded"

    async def test_held_bytes_of_the_process_are_limited(self, aim: ScriptedAim) -> None:
        asked = asyncio.Event()

        async def judge(_: object) -> Any:
            asked.set()
            await asyncio.Event().wait()

        aim.judge = judge
        settings = settings_for(aim.base, limits={"total_held_bytes": 1024})
        async with sidecar(settings) as guard, envoy_stream(address(guard)) as first:
            await first.request_headers()
            await first.read()
            await first.body("request", json.dumps(chat_request("x" * 2000)).encode())
            await asyncio.wait_for(asked.wait(), 10)
            async with envoy_stream(address(guard)) as second:
                await second.request_headers()
                assert (await second.read()).immediate_response.status.code == 503

    async def test_body_is_refused_in_an_overloaded_process(self, aim: ScriptedAim) -> None:
        asked = asyncio.Event()

        async def judge(_: object) -> Any:
            asked.set()
            await asyncio.Event().wait()

        aim.judge = judge
        body = json.dumps(chat_request("x" * 2000)).encode()
        async with (
            sidecar(settings_for(aim.base, limits={"total_held_bytes": 1024})) as guard,
            envoy_stream(address(guard)) as first,
            envoy_stream(address(guard)) as second,
        ):
            for stream in (first, second):
                await stream.request_headers()
                await stream.read()
            await first.body("request", body)
            await asyncio.wait_for(asked.wait(), 10)
            await second.body("request", body)
            assert (await second.read()).immediate_response.status.code == 503


async def test_stream_that_cannot_be_made_is_not_counted(aim: ScriptedAim) -> None:
    class Broken(ExternalProcessor):
        def stream_of(self, _: object) -> Any:
            raise RuntimeError("no stream")

    settings = settings_for(aim.base)
    async with AimClient(settings) as client, Broken(settings, client, Telemetry()) as service:
        with pytest.raises(RuntimeError, match="no stream"):
            await service.process(cast("Any", None), cast("Any", None))
        assert service.load.streams == 0
        assert service.idle.is_set()


async def test_full_hold_pauses_reading(aim: ScriptedAim) -> None:
    async def script(session: AimSession) -> None:
        await session.closed.wait()

    aim.script = script
    settings = settings_for(aim.base, limits={"held_bytes": 65536}, aim={"verdict_timeout_seconds": 60})
    async with sidecar(settings) as guard, envoy_stream(address(guard)) as stream:
        await request(stream, STREAMED)
        await stream.response_headers(SSE)
        event = chat_event("x" * 30_000)
        sent = 0
        try:
            while sent < 200_000_000:
                # The writes stop: how long to look for that is a bound of the test, not a claim about speed.
                await asyncio.wait_for(stream.body("response", event * 10, end=False), 1)
                sent += len(event) * 10
        except TimeoutError:
            pass
        # The held bytes, a window of gRPC and a message that waits in it; much less than was sent.
        assert guard.service.load.held_bytes < 1_000_000
        assert sent < 2_000_000


async def test_aim_that_is_behind_pauses_reading(aim: ScriptedAim) -> None:
    """The exchange may hold much more, but Aim reads nothing. Once it reads, everything is sent and verified."""
    go = asyncio.Event()

    async def script(session: AimSession) -> None:
        await session.be_deaf(go)
        await echo(session)

    aim.script = script
    settings = settings_for(aim.base, limits={"held_bytes": 60_000_000}, aim={"verdict_timeout_seconds": 60})
    async with sidecar(settings) as guard, envoy_stream(address(guard)) as stream:
        await request(stream, STREAMED)
        await stream.response_headers(SSE)
        event, sent = chat_event("x" * 30_000), 0

        async def send() -> None:
            nonlocal sent
            while not go.is_set() and sent < 100_000_000:
                await stream.body("response", event * 2, end=False)
                sent += 2 * len(event)
            await stream.body("response", DONE)

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            sending = group.create_task(send())
            before = -1
            while sent != before or not sent:  # the writes stop: how long to look for that is a bound of the test
                before = sent
                await asyncio.wait({sending}, timeout=1)
            # What the sockets hold, of 60 MB that the exchange could hold, and what waits to be sent.
            assert sent < 30_000_000
            assert guard.service.load.held_bytes > 65_536
            go.set()
            assert (await stream.read()).HasField("response_headers")
            taken, is_over = 0, False
            while not is_over:
                piece = (await stream.read()).response_body.response.body_mutation.streamed_response
                taken, is_over = taken + len(piece.body), piece.end_of_stream
        assert taken == sent + len(DONE)
        async with asyncio.timeout(20):
            while guard.service.load.held_bytes:  # noqa: ASYNC110 - the message was taken, but the writer goes on later
                await asyncio.sleep(0)


async def test_slow_envoy_pauses_reading(aim: ScriptedAim) -> None:
    async with (
        sidecar(settings_for(aim.base)) as guard,
        envoy_stream(address(guard)) as stream,
        asyncio.TaskGroup() as group,
    ):
        await stream.request_headers(path="/elsewhere", end=True)
        await stream.read()
        await stream.response_headers(("content-type", "audio/mpeg"))

        async def send() -> None:
            for _ in range(200):
                await stream.body("response", b"x" * 100_000, end=False)
            await stream.body("response", b"")

        sending = group.create_task(send())
        # The writes stop: how long to look for that is a bound of the test, not a claim about speed.
        done, _ = await asyncio.wait({sending}, timeout=1)
        assert not done
        assert guard.service.load.held_bytes < 1_000_000
        assert (await stream.read()).HasField("response_headers")
        taken, is_over = 0, False
        while not is_over:
            piece = (await stream.read()).response_body.response.body_mutation.streamed_response
            taken, is_over = taken + len(piece.body), piece.end_of_stream
        assert taken == 200 * 100_000
        assert guard.service.load.held_bytes == 0


async def test_everything_is_freed_when_the_client_leaves(aim: ScriptedAim) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def judge(_: object) -> Any:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    aim.judge = judge
    async with sidecar(settings_for(aim.base)) as guard:
        async with envoy_stream(address(guard)) as stream:
            await stream.request_headers()
            await stream.body("request", REQUEST)
            await asyncio.wait_for(asked.wait(), 10)
        await asyncio.wait_for(left.wait(), 10)
        await asyncio.wait_for(guard.service.idle.wait(), 10)
        assert guard.service.load.held_bytes == 0
        labels = {"profile": "default", "dialect": "openai-chat", "outcome": "aborted"}
        assert guard.metric("extproc_exchanges_total", **labels) == 1


async def test_session_is_closed_when_the_client_leaves(aim: ScriptedAim) -> None:
    async with sidecar(settings_for(aim.base)) as guard:
        async with envoy_stream(address(guard)) as stream:
            await request(stream, STREAMED)
            await stream.response_headers(SSE)
            await stream.body("response", chat_event("a"), end=False)
            await stream.read()
            assert guard.metric("extproc_sessions") == 1
        await asyncio.wait_for(aim.sessions[0].closed.wait(), 10)
        await asyncio.wait_for(guard.service.idle.wait(), 10)
        assert guard.metric("extproc_sessions") == 0


async def test_everything_is_freed_when_the_client_leaves_during_a_write(aim: ScriptedAim) -> None:
    """The session's task writes the verified text, and Envoy does not read it."""
    async with sidecar(settings_for(aim.base)) as guard:
        async with envoy_stream(address(guard)) as stream:
            await request(stream, STREAMED)
            await stream.response_headers(SSE)
            event = chat_event("x" * 30_000)

            async def send() -> None:
                with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    while True:
                        await stream.body("response", event, end=False)

            # The writes stop: how long to look for that is a bound of the test, not a claim about speed.
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(send())
                await asyncio.wait({sending}, timeout=1)
                assert guard.service.load.held_bytes > 0
                stream.call.cancel()
        await asyncio.wait_for(aim.sessions[0].closed.wait(), 10)
        await asyncio.wait_for(guard.service.idle.wait(), 10)
        assert guard.metric("extproc_sessions") == 0
        assert guard.service.load.held_bytes == 0


async def test_stream_without_a_message_is_reset_in_time(aim: ScriptedAim) -> None:
    patience = Patience(first_seconds=0.01)
    async with sidecar(settings_for(aim.base), patience) as guard, envoy_stream(address(guard)) as stream:
        async with asyncio.timeout(10):
            assert await status_of(stream) == (grpc.StatusCode.INTERNAL, "no message in time")


async def test_stream_that_stays_open_after_a_refusal_is_ended(aim: ScriptedAim) -> None:
    async def judge(_: object) -> Answer:
        return block("no")

    aim.judge = judge
    patience = Patience(last_seconds=0.01)
    async with sidecar(settings_for(aim.base), patience) as guard, envoy_stream(address(guard)) as stream:
        assert (await request(stream)).HasField("immediate_response")
        async with asyncio.timeout(10):
            assert await status_of(stream) == (grpc.StatusCode.OK, "")


async def test_slow_reader_gets_the_whole_answer(aim: ScriptedAim) -> None:
    """The answer is larger than the bytes that may wait: reading pauses, and resumes when the reader reads."""
    events = [chat_event("x" * 100_000)] * 200 + [DONE]
    async with sidecar(settings_for(aim.base)) as guard, envoy_stream(address(guard)) as stream:
        await request(stream, STREAMED)
        await stream.response_headers(SSE)

        async def send() -> None:
            for event in events:
                await stream.body("response", event, end=event is DONE)

        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(send())
            while guard.service.load.held_bytes < 262_144:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0)
            assert (await stream.read()).HasField("response_headers")
            taken, is_over = b"", False
            while not is_over:
                piece = (await stream.read()).response_body.response.body_mutation.streamed_response
                taken, is_over = taken + piece.body, piece.end_of_stream
        assert taken == b"".join(events)


async def test_slow_reader_does_not_count_as_silence_of_aim(aim: ScriptedAim) -> None:
    """Aim's frames are read although Envoy does not read: a block must not become a timeout, which may fail open."""

    async def script(session: AimSession) -> None:
        while (chunk := await session.receive()) is not None:
            if "SECRET" in json.dumps(chunk):
                await session.block("no")
                return
            await session.verify(chunk)

    aim.script = script
    settings = settings_for(aim.base, profiles={"default": {"failure_mode_allow": True}})
    async with sidecar(settings) as guard, envoy_stream(address(guard)) as stream:
        await request(stream, STREAMED)
        await stream.response_headers(SSE)
        for _ in range(20):
            await stream.body("response", chat_event("x" * 30_000), end=False)
        await stream.body("response", chat_event("SECRET"), end=False)
        await asyncio.wait_for(aim.sessions[0].closed.wait(), 10)
        assert (await stream.read()).HasField("response_headers")
        taken, is_over = b"", False
        while not is_over:
            piece = (await stream.read()).response_body.response.body_mutation.streamed_response
            taken, is_over = taken + piece.body, piece.end_of_stream
        assert b"SECRET" not in taken
        assert b"content_policy_violation" in taken
        await stream.done()
        await asyncio.wait_for(guard.service.idle.wait(), 10)
        assert guard.metric("extproc_exchanges_total", profile="default", dialect="openai-chat", outcome="blocked") == 1


async def test_verdict_applies_even_if_counting_it_fails(aim: ScriptedAim, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in telemetry does not affect the exchange."""

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    async with sidecar(settings_for(aim.base)) as guard, envoy_stream(address(guard)) as stream:
        monkeypatch.setattr(guard.service.telemetry, "detected", full)
        async with asyncio.timeout(10):
            assert (await request(stream)).HasField("request_body")


async def test_head_without_a_wait_is_released_at_once(aim: ScriptedAim) -> None:
    """The clock of the head is due at once, and the later clocks still work."""
    settings = settings_for(aim.base, profiles={"default": {"stream_head_seconds": 0}})
    async with sidecar(settings) as guard, envoy_stream(address(guard)) as stream:
        await request(stream, STREAMED)
        await stream.response_headers(SSE)
        await stream.body("response", chat_event("a"), end=False)
        assert (await stream.read()).HasField("response_headers")
        assert (await stream.read()).response_body.response.body_mutation.streamed_response.body == chat_event("a")


UNREADING = """
import asyncio, sys
from tests.fakes.envoy_stream import envoy_stream

async def main():
    async with envoy_stream(sys.argv[1]) as stream:
        await stream.request_headers(path="/other")
        await stream.read()
        await stream.response_headers(("content-type", "application/octet-stream"))
        try:
            for _ in range(200):
                # The writes stop: how long to look for that is a bound of the test, not a claim about speed.
                await asyncio.wait_for(stream.body("response", bytes(900_000), end=False), 1)
        except TimeoutError:
            print("stuck", flush=True)
            await asyncio.Event().wait()

asyncio.run(main())
"""
"""An Envoy that does not read the answer."""


@pytest.mark.parametrize("enforce", [True, False])
async def test_vanished_envoy_with_unsent_messages_is_no_internal_error(aim: ScriptedAim, enforce: bool) -> None:
    settings = settings_for(aim.base, profiles={"default": {"enforce": enforce}})
    async with sidecar(settings) as guard:
        with capture_logs() as logs:
            envoy = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", UNREADING, address(guard)), stdout=asyncio.subprocess.PIPE, env=environment()
            )
            assert envoy.stdout is not None
            assert await asyncio.wait_for(envoy.stdout.readline(), 60) == b"stuck\n"
            envoy.kill()
            await envoy.wait()
            await asyncio.wait_for(guard.service.idle.wait(), 60)
        events = [record["event"] for record in logs]
        # gRPC cancels the stream or fails its write, whichever it notices first.
        assert events.count("exchange") == 1
        assert set(events) <= {"stream_broken", "exchange"}
        assert guard.service.load.held_bytes == 0
        if enforce:
            assert guard.metric("extproc_exchanges_total", profile="default", dialect="", outcome="aborted") == 1


async def test_reload_keeps_the_client_of_a_stream_that_has_sent_nothing_yet(aim: ScriptedAim) -> None:
    async with sidecar(settings_for(aim.base)) as guard, asyncio.TaskGroup() as group:
        client = guard.service.client
        async with envoy_stream(address(guard)) as stream:
            async with asyncio.timeout(10):
                while not guard.service.load.streams:  # noqa: ASYNC110 - there is no event for it
                    await asyncio.sleep(0)
            client.retire()
            unused = group.create_task(client.unused())
            for _ in range(10):
                await asyncio.sleep(0)
            assert not unused.done()
            assert (await request(stream)).HasField("request_body")
        await asyncio.wait_for(unused, 10)


@pytest.mark.parametrize("enforce", [True, False])
async def test_failing_telemetry_does_not_affect_the_exchange(
    aim: ScriptedAim, monkeypatch: pytest.MonkeyPatch, enforce: bool
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    settings = settings_for(aim.base, profiles={"default": {"enforce": enforce}})
    async with sidecar(settings) as guard, envoy_stream(address(guard)) as stream:
        monkeypatch.setattr(guard.service.telemetry, "report", full)
        assert (await request(stream)).HasField("request_body")
        await stream.response_headers(("content-type", "application/json"))
        await stream.body("response", chat_answer("Hi"))
        assert (await stream.read()).HasField("response_headers")
        assert (await stream.read()).response_body.response.body_mutation.streamed_response.body == chat_answer("Hi")
        await stream.done()
        assert await status_of(stream) == (grpc.StatusCode.OK, "")
        await asyncio.wait_for(guard.service.idle.wait(), 10)


async def test_internal_error_is_counted_as_aborted(aim: ScriptedAim, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    async with sidecar(settings_for(aim.base)) as guard, envoy_stream(address(guard)) as stream:
        await stream.request_headers()
        await stream.read()
        monkeypatch.setattr(Exchange, "handle", fail)
        await stream.body("request", REQUEST)
        assert await status_of(stream) == (grpc.StatusCode.INTERNAL, "internal error")
        await asyncio.wait_for(guard.service.idle.wait(), 10)
        labels = {"profile": "default", "dialect": "openai-chat", "outcome": "aborted"}
        assert guard.metric("extproc_exchanges_total", **labels) == 1
        assert guard.service.load.held_bytes == 0


async def test_failing_effects_end_a_dry_run_and_not_its_exchange(
    aim: ScriptedAim, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    settings = settings_for(aim.base, profiles={"default": {"enforce": False}})
    async with sidecar(settings) as guard, envoy_stream(address(guard)) as stream:
        monkeypatch.setattr(Effects, "perform", fail)
        assert (await request(stream)).HasField("request_body")
        await stream.response_headers(("content-type", "application/json"))
        assert (await stream.read()).HasField("response_headers")
        await stream.body("response", chat_answer("Hi"))
        assert (await stream.read()).response_body.response.body_mutation.streamed_response.body == chat_answer("Hi")
        await stream.done()
        assert await status_of(stream) == (grpc.StatusCode.OK, "")
        await asyncio.wait_for(guard.service.idle.wait(), 10)
        assert guard.service.load.held_bytes == 0
