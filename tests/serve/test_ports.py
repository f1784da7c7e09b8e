"""Clients that break the protocol of a port: the process keeps serving, and nothing of them is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import trustme

from extproc.processor import wire
from extproc.serve.listener import grpc_server
from tests.fakes.aim import ScriptedAim
from tests.fakes.connection import abort
from tests.fakes.envoy_stream import envoy_stream
from tests.fakes.process import Running, get, serving, written
from tests.fakes.rig import chat_answer, chat_request
from tests.fakes.sidecar import settings_for

REQUEST = json.dumps(chat_request("Hello")).encode()
METHOD = f"/{wire.SERVICE}/Process"
HEAD = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "sidecar"),
    (":path", METHOD),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
GARBAGE = (
    b"\0" * 4096,
    os.urandom(4096),
    b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    b"POST / HTTP/1.1\r\ncontent-length: 999999\r\n\r\n" + b"x" * 4096,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 4096,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + struct.pack(">I", 0x7FFFFF)[1:] + b"\x04\0\0\0\0\0",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 256,
)


class Port:
    """A serving process and its resources."""

    def __init__(self, process: Running, port: int, admin: int) -> None:
        self.process = process
        self.port = port
        self.admin = admin

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def resident(self) -> int:
        """Memory in KiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0])

    async def gauges(self) -> list[float]:
        """Return streams, sessions and held bytes."""
        text = (await get(self.admin, "/metrics")).text
        names = ("extproc_streams", "extproc_sessions", "extproc_held_bytes")
        return [float(re.findall(rf"^{name} (\S+)", text, re.MULTILINE)[0]) for name in names]

    async def serves(self, credentials: grpc.ChannelCredentials | None = None) -> None:
        """Check that a whole exchange works."""
        async with asyncio.timeout(30), envoy_stream(f"127.0.0.1:{self.port}", (), credentials) as stream:
            await stream.request_headers()
            assert (await stream.read()).HasField("request_headers")
            await stream.body("request", REQUEST)
            assert (await stream.read()).HasField("request_body")
            await stream.response_headers(("content-type", "application/json"))
            await stream.body("response", chat_answer("Hi"))
            assert (await stream.read()).HasField("response_headers")
            assert (await stream.read()).HasField("response_body")
            await stream.done()
            assert await stream.read() is None
            assert await stream.call.code() is grpc.StatusCode.OK

    async def settles(self, descriptors: int, credentials: grpc.ChannelCredentials | None = None) -> None:
        """Wait until nothing of other clients is left behind, and check that the process serves."""
        await self.serves(credentials)
        async with asyncio.timeout(60):
            while await self.gauges() != [0, 0, 0] or self.descriptors > descriptors + 8:  # noqa: ASYNC110 - a process
                await asyncio.sleep(0.1)


@asynccontextmanager
async def running(tmp_path: Path, aim: ScriptedAim, **changes: Any) -> AsyncIterator[Port]:
    config, port, admin = written(tmp_path, aim, **changes)
    async with serving(config) as process:
        yield Port(process, port, admin)


async def say(port: int, data: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """Connect, send `data`, and return the first bytes that are received within a second."""
    with suppress(OSError, ssl.SSLError, TimeoutError):
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
            with closing(writer):
                writer.write(data)
                await writer.drain()
                with suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        return await reader.read(4096)
    return b""


class Peer:
    """A client that speaks HTTP/2 and misuses it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        config = h2.config.H2Configuration(client_side=True, validate_outbound_headers=False)
        self.wire = h2.connection.H2Connection(config)
        self.wire.initiate_connection()
        self.ended: set[int] = set()

    async def flush(self) -> None:
        self._writer.write(self.wire.data_to_send())
        await self._writer.drain()

    async def read(self) -> list[h2.events.Event]:
        """Return the next events; an empty list at the end of the connection."""
        data = await self._reader.read(65536)
        events = self.wire.receive_data(data) if data else []
        for event in events:
            if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset) and event.stream_id is not None:
                self.ended.add(event.stream_id)
        return events if data else []

    async def ready(self) -> None:
        """Perform the HTTP/2 handshake."""
        await self.flush()
        while not any(isinstance(event, h2.events.RemoteSettingsChanged) for event in await self.read()):
            pass
        await self.flush()

    def open(self, *more: tuple[str, str], path: str = METHOD) -> int:
        stream = self.wire.get_next_available_stream_id()
        head = [(name, path if name == ":path" else value) for name, value in HEAD]
        self.wire.send_headers(stream, [*head, *more])
        return stream


@asynccontextmanager
async def peer(port: int) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(100):
            yield Peer(reader, writer)
    finally:
        await abort(writer)


def message(path: str = "/v1/chat/completions") -> bytes:
    """Return the first message of an exchange, in gRPC's framing."""
    first = wire.Request()
    first.protocol_config.request_body_mode, first.protocol_config.response_body_mode = 2, 4
    for name, value in ((":method", "POST"), (":path", path)):
        first.request_headers.headers.headers.add(key=name, raw_value=value.encode())
    data: bytes = first.SerializeToString()
    return b"\0" + struct.pack(">I", len(data)) + data


async def test_garbage_in_plain_text_leaves_nothing_behind(tmp_path: Path, aim: ScriptedAim) -> None:
    async with running(tmp_path, aim) as it:
        await it.serves()
        before = it.descriptors
        unverified = ssl.create_default_context()
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
        for port in (it.port, it.admin):
            await asyncio.gather(*(say(port, data) for data in GARBAGE))
            assert await say(port, b"", unverified) == b""
        await it.settles(before)


async def test_garbage_instead_of_tls_leaves_nothing_behind(tmp_path: Path, aim: ScriptedAim) -> None:
    authority, other = trustme.CA(), trustme.CA()
    files = {name: tmp_path / f"{name}.pem" for name in ("cert", "key", "ca")}
    leaf = authority.issue_cert("127.0.0.1")
    leaf.private_key_pem.write_to_path(str(files["key"]))
    leaf.cert_chain_pems[0].write_to_path(str(files["cert"]))
    authority.cert_pem.write_to_path(str(files["ca"]))

    def shown(issuer: trustme.CA | None, root: trustme.CA = authority) -> grpc.ChannelCredentials:
        if issuer is None:
            return grpc.ssl_channel_credentials(root.cert_pem.bytes())
        mine = issuer.issue_cert("envoy")
        return grpc.ssl_channel_credentials(
            root.cert_pem.bytes(), mine.private_key_pem.bytes(), mine.cert_chain_pems[0].bytes()
        )

    tls = {"cert_file": str(files["cert"]), "key_file": str(files["key"]), "client_ca_file": str(files["ca"])}
    async with running(tmp_path, aim, tls=tls) as it:
        good = shown(authority)
        await it.serves(good)
        before = it.descriptors
        await asyncio.gather(*(say(it.port, data) for data in GARBAGE))
        for credentials in (shown(other), shown(None), shown(authority, other), None):
            async with envoy_stream(f"127.0.0.1:{it.port}", (), credentials) as stream:
                with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    await stream.request_headers()
                assert await stream.read() is None
                assert await stream.call.code() is grpc.StatusCode.UNAVAILABLE
        await it.settles(before, good)
        it.process.signal()
        assert await it.process.ended() == 0
        # gRPC's core would log each failed handshake, and block if stderr is not read.
        assert "unreadable" not in {record["event"] for record in it.process.lines}


async def test_half_open_connection_is_closed_in_time(tmp_path: Path, aim: ScriptedAim) -> None:
    """Half-open connections are closed in time, whether they are silent or send a little now and then."""
    beginnings = (b"", b"PRI * HTTP/2.0\r\n", b"GET /metrics HTTP/1.1\r\nx: ", b"\x16\x03\x01")

    async def drip(port: int, beginning: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with closing(writer), suppress(ConnectionError):
            writer.write(beginning)
            ended = asyncio.ensure_future(reader.read())  # noqa: TID251 - a test's own
            while not ended.done():
                await asyncio.wait([ended], timeout=1)
                if beginning:
                    writer.write(b"x")
            ended.exception()

    async with running(tmp_path, aim) as it, asyncio.timeout(100):
        await it.serves()
        before = it.descriptors
        async with asyncio.TaskGroup() as group:
            for port in (it.port, it.admin):
                for beginning in beginnings * 50:
                    group.create_task(drip(port, beginning))
            await it.serves()
        await it.settles(before)


async def test_stream_without_a_message_is_closed_in_time(tmp_path: Path, aim: ScriptedAim) -> None:
    async with running(tmp_path, aim) as it, peer(it.port) as other:
        await it.serves()
        await other.ready()
        opened = {other.open() for _ in range(50)}
        await other.flush()
        while not opened <= other.ended:
            assert await other.read()
            await other.flush()
        assert (await it.gauges())[0] == 0


async def test_ten_thousand_dropped_streams_leave_nothing_behind(tmp_path: Path, aim: ScriptedAim) -> None:
    """The streams are dropped in the middle of a message, after one, and before any."""
    ways = (message(), message()[:20], b"", message() + message()[:7])
    async with running(tmp_path, aim) as it:
        await it.serves()
        before, resident = it.descriptors, it.resident
        for _ in range(10):
            async with peer(it.port) as other:
                await other.ready()
                reading = asyncio.ensure_future(_drain(other))  # noqa: TID251 - a test's own
                for number in range(1000):
                    stream = other.open()
                    with suppress(h2.exceptions.ProtocolError):
                        if data := ways[number % len(ways)]:
                            other.wire.send_data(stream, data)
                        other.wire.reset_stream(stream)
                    if number % 50 == 49:
                        await other.flush()
                        await asyncio.sleep(0)
                reading.cancel()
        await it.settles(before)  # this exchange is served after all streams that still wait
        assert it.resident < resident + 200 * 1024
        it.process.signal()
        assert await it.process.ended() == 0


async def _drain(other: Peer) -> None:
    while await other.read():
        await other.flush()


async def test_grpc_refusals_leave_nothing_behind(tmp_path: Path, aim: ScriptedAim) -> None:
    async with running(tmp_path, aim, limits={"request_bytes": 65536}) as it:
        await it.serves()
        before = it.descriptors
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{it.port}", options=[("grpc.max_send_message_length", -1), ("grpc.max_metadata_size", 2**24)]
        ) as channel:
            large = channel.stream_stream(METHOD)()
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await large.write(b"\0" * (65536 + 3 * 1024 * 1024))
            assert await large.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            unknown = channel.stream_stream("/envoy.service.ext_proc.v3.ExternalProcessor/Other")()
            assert await unknown.code() is grpc.StatusCode.UNIMPLEMENTED
            crowded = channel.stream_stream(METHOD)(metadata=[("x-much", "x" * 200_000)])
            assert await crowded.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await it.settles(before)


async def test_flood_of_pings_leaves_nothing_behind(tmp_path: Path, aim: ScriptedAim) -> None:
    async with running(tmp_path, aim) as it, peer(it.port) as other:
        await it.serves()
        before, resident = it.descriptors, it.resident
        await other.ready()
        acknowledged = 0
        for number in range(2000):
            other.wire.ping(struct.pack(">Q", number))
            if number % 100 == 99:
                await other.flush()
        while acknowledged < 2000 and (events := await other.read()):
            acknowledged += sum(isinstance(event, h2.events.PingAckReceived) for event in events)
        await it.settles(before)
        assert it.resident < resident + 100 * 1024


async def test_large_request_on_the_admin_port_is_refused(tmp_path: Path, aim: ScriptedAim) -> None:
    async with running(tmp_path, aim) as it:
        before = it.descriptors
        answers = [
            await say(it.admin, b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\n\r\n"),
            await say(it.admin, b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 50_000 + b"\r\n"),
        ]
        assert all(answer == b"" or answer.startswith(b"HTTP/1.1 4") for answer in answers)
        assert (await get(it.admin, "/healthz")).status_code == 200
        await it.settles(before)


async def test_connection_of_a_peer_that_answers_no_ping_ends(aim: ScriptedAim) -> None:
    guard = grpc_server(settings_for(aim.base), keepalive_seconds=1.0, keepalive_timeout_seconds=1.0)
    port = guard.add_insecure_port("127.0.0.1:0")
    await guard.start()
    try:
        async with peer(port) as other:
            await other.ready()
            pings = 0
            while events := await other.read():  # the client never sends its own answers
                pings += sum(isinstance(event, h2.events.PingReceived) for event in events)
            assert pings
    finally:
        await guard.stop(0)


async def test_ping_of_envoy_is_answered_while_the_event_loop_is_busy(aim: ScriptedAim) -> None:
    """Envoy would take a late answer for a dead sidecar, and reset all streams of the connection."""
    guard = grpc_server(settings_for(aim.base))
    port = guard.add_insecure_port("127.0.0.1:0")
    await guard.start()
    answered = threading.Event()

    def ping() -> None:
        wire = h2.connection.H2Connection()
        wire.initiate_connection()
        wire.ping(b"envoy-is")
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(wire.data_to_send())
            while data := connection.recv(65536):
                if any(isinstance(event, h2.events.PingAckReceived) for event in wire.receive_data(data)):
                    answered.set()
                    return

    thread = threading.Thread(target=ping)
    try:
        thread.start()
        assert answered.wait(60)  # this blocks the event loop
    finally:
        thread.join()
        await guard.stop(0)
