"""The transport over real sockets: the bytes it sends, how it reads answers, and its httpx exception for each fault."""

from __future__ import annotations

import asyncio
import base64
import gzip
import random
import socket
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trustme

from extproc.aim.transport import (
    PREPARED,
    AiohttpTransport,
    Prepared,
    ProxyRefused,
    ServerDisconnected,
    Target,
)
from tests.fakes.http_peer import (
    CHUNKED,
    CREATED,
    Link,
    Peer,
    Script,
    answer,
    client_tls,
    echo,
    number,
    repeats,
    reply,
    says,
    server_tls,
    tunnel,
    waits,
)

BOTH = pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


class Client:
    """A transport, and the URL that it calls."""

    def __init__(self, base: str, proxy: str | None, options: dict[str, Any]) -> None:
        self.url = httpx.URL(f"{base}/ask")
        self.transport = AiohttpTransport(client_tls(), None if proxy is None else httpx.Proxy(proxy), **options)

    async def ask(self, body: bytes = b"?", method: str = "POST", fields: Any = ()) -> httpx.Response:
        """Return the response with its body read."""
        prepared = Prepared(Target.of(self.url), list(fields), 2**24)
        request = httpx.Request(method, self.url, stream=httpx.ByteStream(body), extensions={PREPARED: prepared})
        async with asyncio.timeout(20):
            response = await self.transport.handle_async_request(request)
            await response.aread()
        return response

    async def body(self, body: bytes = b"?") -> bytes:
        return (await self.ask(body)).content

    async def fails(self, kind: type[httpx.TransportError] = httpx.TransportError) -> httpx.TransportError:
        with pytest.raises(kind) as caught:
            await self.ask()
        return caught.value


@asynccontextmanager
async def client(base: str, proxy: str | None = None, **options: Any) -> AsyncIterator[Client]:
    it = Client(base, proxy, options)
    async with it.transport:
        yield it


@asynccontextmanager
async def talking(*scripts: Script, tls: bool = False, **options: Any) -> AsyncIterator[tuple[Client, Peer]]:
    async with Peer(*scripts, tls=server_tls() if tls else None) as peer, client(peer.url, **options) as it:
        yield it, peer


HELLO = b"Hello"
CUT = {
    "nothing": b"",
    "head": b"HTTP/1.1 200 OK\r\n",
    "body": answer("200 OK", "content-length: 6", body=HELLO),
    "chunks": CHUNKED + b"5\r\nHello\r\n",
    "1xx": answer("100 Continue"),
}
GARBAGE = {
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "two lengths": answer("200 OK", "content-length: 1", "content-length: 2", body=b"ab"),
    "length and chunks": answer("200 OK", "content-length: 1", "transfer-encoding: chunked", body=b"0\r\n\r\n"),
    "a long chunk": CHUNKED + b"1\r\nab\r\n",
}
ENDLESS = {
    "fields": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"),
    "a field": (b"HTTP/1.1 200 OK\r\nx: ", b"yyyy"),
    "trailers": (CHUNKED + b"1\r\na\r\n0\r\n", b"trailer: x\r\n"),
}
REFUSES = {
    "403": (answer("403 Forbidden", "content-length: 2", body=b"No"), ProxyRefused),
    "407": (answer("407 Proxy Authentication Required"), ProxyRefused),
    "garbage": (b"garbage\r\n\r\n", httpx.TransportError),
    "nothing": (b"", httpx.TransportError),
    "leaves": (CREATED, httpx.ConnectError),
}


def each(name: str, cases: Mapping[str, object]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(name, cases.values(), ids=cases)


class TestRequest:
    async def test_head_holds_the_given_fields_in_their_order(self) -> None:
        async with talking(echo) as (it, peer):
            fields = [("user-agent", "a"), ("accept", "*/*"), ("x-user", "Zoë"), ("accept-encoding", "identity")]
            assert (await it.ask(b"ab", fields=[*fields, ("content-type", "b")])).content == b"ab"
        lines = peer.heads[0].decode().split("\r\n")
        assert lines == [
            "POST /ask HTTP/1.1",
            f"Host: 127.0.0.1:{peer.port}",
            *(f"{name}: {value}" for name, value in fields),
            "content-type: b",
            "Content-Length: 2",
            "",
            "",
        ]

    @pytest.mark.parametrize("text", ["a\r\nb: c", "a\nb", "a\0b"])
    async def test_field_of_more_than_one_line_is_not_sent(self, text: str) -> None:
        async with talking(echo) as (it, peer):
            for field in (("x", text), (text, "x")):
                with pytest.raises(httpx.LocalProtocolError):
                    await it.ask(fields=[field])
            assert await it.body() == b"?"
            assert len(peer.heads) == 1

    @BOTH
    async def test_large_body_arrives_whole(self, tls: bool) -> None:
        body = random.Random(1).randbytes(8_000_000)
        async with talking(echo, tls=tls) as (it, _):
            assert await it.body(body) == body

    async def test_response_that_does_not_wait_for_the_body(self) -> None:
        told = asyncio.Event()

        async def early(link: Link) -> None:
            await link.head()
            await link.send(reply(b"early"))
            await told.wait()

        async with talking(early, echo) as (it, peer):
            assert await it.body(bytes(30_000_000)) == b"early"
            assert await it.body() == b"?"  # the second request does not follow the rest of the first body
            told.set()
            assert peer.connections == 2


class TestResponse:
    async def test_status_fields_and_body(self) -> None:
        final = answer("429 Slow down", "Retry-After: 7", "content-length: 2", body=b"No")
        raw = answer("103 Early", "link: x") + final
        async with talking(says(raw, CHUNKED + b"3\r\nHel\r\n2;a=b\r\nlo\r\n0\r\n\r\n")) as (it, _):
            response = await it.ask()
            assert (response.status_code, response.headers["retry-after"], response.content) == (429, "7", b"No")
            assert await it.body() == HELLO

    async def test_redirect_is_not_followed_and_cookie_not_kept(self) -> None:
        found = answer("307 There", "location: /other", "set-cookie: a=b", "content-length: 0")
        async with talking(says(found, reply(b"1"))) as (it, peer):
            assert (await it.ask()).status_code == 307
            assert await it.body() == b"1"
            assert [head.split(b" ")[1] for head in peer.heads] == [b"/ask", b"/ask"]
            assert b"cookie" not in peer.heads[1].lower()

    async def test_stream_holds_the_body_as_sent(self) -> None:
        sent = gzip.compress(HELLO)
        raw = answer("200 OK", "content-encoding: gzip", f"content-length: {len(sent)}", body=sent)
        async with talking(says(raw)) as (it, _):
            response = await it.transport.handle_async_request(httpx.Request("POST", it.url))
            assert isinstance(response.stream, httpx.AsyncByteStream)
            assert b"".join([piece async for piece in response.stream]) == sent

    async def test_head_has_no_body(self) -> None:
        async with talking(says(answer("200 OK", "content-length: 5")), echo) as (it, peer):
            assert (await it.ask(b"", method="HEAD")).content == b""
            assert peer.heads[0].startswith(b"HEAD /ask HTTP/1.1\r\n")

    @BOTH
    @each("raw", CUT)
    async def test_cut_response_is_an_error(self, raw: bytes, tls: bool) -> None:
        async with talking(says(raw, leaves=True), tls=tls) as (it, peer):
            await it.fails()
            assert peer.connections == 1

    @each("raw", GARBAGE)
    async def test_garbage_is_an_error_and_ends_the_connection(self, raw: bytes) -> None:
        async with talking(says(raw)) as (it, peer):
            await it.fails(httpx.RemoteProtocolError)
            await peer.ended()

    @each("case", ENDLESS)
    async def test_endless_fields_are_an_error(self, case: tuple[bytes, bytes]) -> None:
        async with talking(repeats(*case)) as (it, peer):
            await it.fails()
            await peer.ended()

    async def test_unread_body_ends_the_connection_and_waits_in_the_socket(self) -> None:
        async with talking(repeats(answer("200 OK"), b"x")) as (it, peer):
            response = await it.transport.handle_async_request(httpx.Request("POST", it.url))
            assert isinstance(response.stream, httpx.AsyncByteStream)
            async for piece in response.stream:
                assert set(piece) == {ord("x")}
                break
            await response.aclose()
            await peer.ended()


class TestConnections:
    async def test_connection_is_used_again(self) -> None:
        async with talking(echo) as (it, peer):
            assert [await it.body(b"%d" % i) for i in range(5)] == [b"%d" % i for i in range(5)]
            assert peer.connections == 1

    @pytest.mark.parametrize(
        "raw", [answer("200 OK", "connection: close", "content-length: 0"), reply(b"") + reply(b"another's")]
    )
    async def test_connection_is_not_used_again_after(self, raw: bytes) -> None:
        async with talking(says(raw, reply(b"1")), says(reply(b"2"))) as (it, _):
            assert [await it.body(), await it.body()] == [b"", b"2"]

    async def test_requests_beyond_the_limit_wait(self) -> None:
        gate = asyncio.Event()
        async with talking(waits(gate), connections=2) as (it, peer):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(it.body(b"%d" % i)) for i in range(9)]
                await peer.asked.acquire()
                await peer.asked.acquire()
                gate.set()
            assert [task.result() for task in tasks] == [b"%d" % i for i in range(9)]
            assert (peer.connections, len(peer.heads)) == (2, 9)

    @BOTH
    async def test_connection_lost_after_the_request_is_not_retried(self, tls: bool) -> None:
        async with talking(says(reply(b"1"), b"", leaves=True), number, tls=tls) as (it, peer):
            assert await it.body() == b"1"
            await it.fails(ServerDisconnected)
            assert await it.body() == b"2"
            assert (peer.connections, len(peer.heads)) == (2, 3)

    @BOTH
    async def test_unrequested_answer_is_discarded(self, tls: bool) -> None:
        go = asyncio.Event()

        async def unasked(link: Link) -> None:
            await link.request()
            await link.send(reply(b"1"))
            await go.wait()
            await link.send(reply(b"unasked"))
            await link.end()

        async with talking(unasked, number, tls=tls) as (it, peer), client(peer.url) as other:
            assert await it.body() == b"1"
            go.set()
            assert await other.body() == b"2"  # the event loop has read the unrequested answer meanwhile
            await it.fails(httpx.RemoteProtocolError)
            assert await it.body() == b"3"

    async def test_idle_connection_is_closed(self) -> None:
        async with talking(number, idle_seconds=0.05) as (it, peer):
            for i in (1, 2):
                assert await it.body() == b"%d" % i
                await peer.ended()

    async def test_closing_ends_the_connections(self) -> None:
        async with talking(echo) as (it, peer):
            assert await it.body() == b"?"
            await it.transport.aclose()
            await peer.ended()


class TestCancellation:
    async def test_next_request_gets_its_own_answer(self) -> None:
        gate = asyncio.Event()
        async with talking(waits(gate), echo) as (it, peer), asyncio.TaskGroup() as group:
            task = group.create_task(it.body(b"late"))
            await peer.asked.acquire()
            task.cancel()
            await asyncio.wait([task])
            gate.set()
            assert await it.body() == b"?"
            await peer.ended()

    @pytest.mark.parametrize("way", ["http", "https", "tunnel"])
    async def test_cancellation_at_any_turn_leaves_nothing(self, way: str) -> None:
        async with Peer(echo, tls=None if way == "http" else server_tls()) as peer, Peer(tunnel()) as proxy:
            for turns in range(30):
                by = proxy.url if way == "tunnel" else None
                async with client(peer.url, by) as it, asyncio.TaskGroup() as group:
                    task = group.create_task(it.body(b"other"))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    task.cancel()
                    assert await it.body(b"own") == b"own"
            await peer.ended(peer.connections)
            await proxy.ended(proxy.connections)

    async def test_closing_ends_a_name_lookup(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked, may_answer = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def look_up(*_: object, **__: object) -> Any:
            loop.call_soon_threadsafe(asked.set)
            assert may_answer.wait(10)
            raise socket.gaierror(socket.EAI_AGAIN, "not now")

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        try:
            async with client("http://aim.test") as it, asyncio.TaskGroup() as group:
                task = group.create_task(it.fails(httpx.ConnectError))
                if isinstance(loop, asyncio.SelectorEventLoop):  # uvloop has a resolver of its own
                    await asked.wait()
                task.cancel()
            assert asyncio.all_tasks() == {asyncio.current_task()}
        finally:
            may_answer.set()


class TestConnect:
    @pytest.mark.parametrize("host", ["name.invalid", "a..b", "x" * 64 + ".invalid"])
    async def test_name_without_address_is_an_error(self, host: str) -> None:
        async with client(f"http://{host}") as it:
            await it.fails()

    async def test_refused_connection_is_an_error(self, unused_tcp_port: int) -> None:
        for proxy in (None, f"http://127.0.0.1:{unused_tcp_port}"):
            async with client(f"https://127.0.0.1:{unused_tcp_port}", proxy) as it:
                await it.fails(httpx.ConnectError if proxy is None else httpx.ProxyError)

    @pytest.mark.parametrize("is_ours", [False, True])
    async def test_untrusted_certificate_is_an_error(self, is_ours: bool) -> None:
        tls = server_tls("another") if is_ours else server_tls(authority=trustme.CA())
        async with Peer(echo, tls=tls) as peer, client(peer.url) as it:
            await it.fails(httpx.ConnectError)
            assert peer.heads == []

    async def test_server_without_tls_is_an_error(self) -> None:
        async def speak(link: Link) -> None:
            await link.send(answer("400 Bad Request"))
            await link.end()

        async with Peer(speak) as peer, client(f"https://127.0.0.1:{peer.port}") as it:
            await it.fails(httpx.ConnectError)
            await peer.ended()

    @pytest.mark.skipif(not _has_ipv6(), reason="the machine has no address ::1")
    async def test_ipv6_address_is_reached(self) -> None:
        async with Peer(echo, host="::1") as peer, client(peer.url) as it:
            assert await it.body() == b"?"
            assert b"\r\nHost: [::1]:%d\r\n" % peer.port in peer.heads[0]


LOGIN = b"\r\nproxy-authorization: basic %s\r\n" % base64.b64encode("us er:pä@ss".encode()).lower()


def with_login(proxy: Peer) -> str:
    return proxy.url.replace("://", "://us%20er:p%C3%A4%40ss@")


class TestProxy:
    @BOTH
    async def test_http_request_names_the_whole_url(self, tls: bool) -> None:
        async with (
            Peer(echo, tls=server_tls() if tls else None) as proxy,
            client("http://aim.invalid:8080", with_login(proxy)) as it,
        ):
            assert [await it.body(b"a"), await it.body(b"b")] == [b"a", b"b"]
            assert proxy.connections == 1
            for head in proxy.heads:
                assert head.startswith(b"POST http://aim.invalid:8080/ask HTTP/1.1\r\nHost: aim.invalid:8080\r\n")
                assert LOGIN in head.lower()

    @BOTH
    async def test_https_request_goes_through_a_tunnel_that_is_kept(self, tls: bool) -> None:
        async with (
            Peer(echo, tls=server_tls()) as peer,
            Peer(tunnel(), tls=server_tls() if tls else None) as proxy,
            client(peer.url, with_login(proxy)) as it,
        ):
            body = random.Random(1).randbytes(2_000_000)
            assert [await it.body(b"a"), await it.body(b"b"), await it.body(body)] == [b"a", b"b", body]
            assert (proxy.connections, peer.connections) == (1, 1)
            (head,) = proxy.heads
            assert head.startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n" % peer.port)
            assert LOGIN in head.lower()
            assert all(head.startswith(b"POST /ask HTTP/1.1\r\n") and LOGIN not in head.lower() for head in peer.heads)

    async def test_trailing_dot_of_a_name_is_sent_to_the_proxy(self) -> None:
        async with (
            Peer(echo, tls=server_tls("aim.invalid")) as peer,
            Peer(tunnel(port=peer.port)) as proxy,
            client("https://aim.invalid.", proxy.url) as it,
        ):
            assert await it.body() == b"?"

    @each("case", REFUSES)
    async def test_refused_tunnel_is_an_error(self, case: tuple[bytes, type[httpx.TransportError]]) -> None:
        raw, kind = case
        async with Peer(says(raw, leaves=True)) as proxy, client("https://aim.invalid", proxy.url) as it:
            error = await it.fails(kind)
            await proxy.ended()
            assert (proxy.connections, len(proxy.heads)) == (1, 1)
            if isinstance(error, ProxyRefused):
                assert raw.startswith(b"HTTP/1.1 %d " % error.status)

    async def test_bytes_before_the_tunnel_are_not_an_answer(self) -> None:
        async with (
            Peer(echo, tls=server_tls()) as peer,
            Peer(tunnel(CREATED + reply(b"injected"))) as proxy,
            client(peer.url, proxy.url) as it,
        ):
            assert await it.body() == b"?"


class TestAsyncClient:
    """`httpx.AsyncClient` over the transport, as the demo and `extproc check --envoy` use it."""

    async def test_answer_is_decoded(self) -> None:
        sent = gzip.compress(b'{"a": 1}')
        raw = answer("200 OK", "content-encoding: gzip", f"content-length: {len(sent)}", body=sent)
        async with Peer(says(raw)) as peer, httpx.AsyncClient(transport=AiohttpTransport(client_tls())) as http:
            assert (await http.post(peer.url, json={"b": 2}, params={"q": "ü"})).json() == {"a": 1}
        assert peer.heads[0].startswith(b"POST /?q=%C3%BC HTTP/1.1\r\n")
        assert peer.heads[0].lower().count(b"\r\nhost: ") == 1
        assert peer.heads[0].lower().count(b"\r\ncontent-length: ") == 1

    async def test_silence_is_a_timeout(self) -> None:
        async def silent(link: Link) -> None:
            await link.end()

        async with (
            Peer(silent) as peer,
            httpx.AsyncClient(transport=AiohttpTransport(client_tls()), timeout=0.2) as http,
        ):
            with pytest.raises(httpx.ReadTimeout):
                await http.get(peer.url)
