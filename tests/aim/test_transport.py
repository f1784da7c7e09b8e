"""HTTP/1.1 to Aim, and scripted peers: whatever they say, nobody takes another's answer, waits for ever, or leaks."""

from __future__ import annotations

import asyncio
import base64
import gc
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from yarl import URL

from extproc import __version__
from extproc.aim import transport as pool
from extproc.aim.connection import Connection, Response
from extproc.aim.transport import Transport
from extproc.core.errors import DetectionError, Reason
from tests.fakes.http_peer import (
    AUTHORITY,
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

SMALL = 1000
BOTH = pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])


@pytest.fixture(autouse=True)
def _silence(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail for what reaches the log, such as an error that nobody retrieved."""
    yield
    gc.collect(1)
    assert caplog.messages == []


class Client:
    """Aim's URL, and a transport to it."""

    def __init__(self, base: str, proxy: str | None) -> None:
        self.url = URL(base) / "ask"
        proxy_tls = client_tls() if proxy is not None and proxy.startswith("https") else None
        self.transport = Transport(URL(base), client_tls() if base.startswith("https") else None, proxy, proxy_tls)

    async def ask(
        self, body: bytes | None = b"?", *, method: str = "POST", limit: int = SMALL, headers: Any = ()
    ) -> Response:
        async with asyncio.timeout(20):
            return await self.transport.send(method, self.url, headers, body, limit=limit)

    async def body(self, body: bytes = b"?") -> bytes:
        return (await self.ask(body)).content

    async def fails(self, kind: Reason = Reason.UNREACHABLE) -> None:
        with pytest.raises(DetectionError) as caught:
            await self.ask()
        assert caught.value.reason is kind


@asynccontextmanager
async def client(base: str, proxy: str | None = None) -> AsyncIterator[Client]:
    it = Client(base, proxy)
    try:
        yield it
    finally:
        await it.transport.aclose()


@asynccontextmanager
async def talking(*scripts: Script, tls: bool = False) -> AsyncIterator[tuple[Client, Peer]]:
    async with Peer(*scripts, tls=server_tls() if tls else None) as peer, client(peer.url) as it:
        yield it, peer


HELLO = b"Hello"
WHOLE = {
    "content-length": (answer("200 OK", "Content-Length: 5", "Retry-After: 7", body=HELLO), Response(200, "7", HELLO)),
    "empty": (answer("500 ", "content-length: 0"), Response(500, None, b"")),
    "chunked": (CHUNKED + b"3\r\nHel\r\n2;a=b\r\nlo\r\n0\r\n\r\n", Response(200, None, HELLO)),
    "trailers": (CHUNKED + b"5\r\nHello\r\n0\r\nx: y\r\nz: \r\n\r\n", Response(200, None, HELLO)),
    "to the end": (answer("200 OK", body=HELLO), Response(200, None, HELLO)),
    "1.0": (answer("HTTP/1.0 200 OK", body=HELLO), Response(200, None, HELLO)),
    "204": (answer("204 No Content"), Response(204, None, b"")),
    "304": (answer("304 Not Modified", "content-length: 5"), Response(304, None, b"")),
    "1xx": (answer("100 Continue") + answer("103 Early", "link: x") + reply(HELLO), Response(200, None, HELLO)),
    "101": (answer("101 Switching", "connection: upgrade", "upgrade: x", body=HELLO), Response(101, None, b"")),
}
CUT = {
    "nothing": b"",
    "head": b"HTTP/1.1 200 OK\r\n",
    "body": answer("200 OK", "content-length: 6", body=HELLO),
    "chunks": CHUNKED + b"5\r\nHello\r\n",
    "not chunked": answer("200 OK", "transfer-encoding: gzip", body=HELLO),
    "1xx": answer("100 Continue"),
}
GARBAGE = {
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "no status": answer("OK"),
    "two lengths": answer("200 OK", "content-length: 1", "content-length: 2", body=b"ab"),
    "length and chunks": answer("200 OK", "content-length: 1", "transfer-encoding: chunked", body=b"0\r\n\r\n"),
    "negative": answer("200 OK", "content-length: -1"),
    "a space": answer("200 OK", "content-length : 1", body=b"a"),
    "a folded field": answer("200 OK", "x: y", " content-length: 1", body=b"a"),
    "a huge chunk": CHUNKED + b"fffffffffffffffff\r\n",
    "a long chunk": CHUNKED + b"1\r\nab\r\n",
}
ENDLESS = {
    "fields": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"),
    "a field": (b"HTTP/1.1 200 OK\r\nx: ", b"yyyy"),
    "1xx": (b"", answer("100 Continue")),
    "a chunk's extension": (CHUNKED + b"5;", b"extension"),
    "trailers": (CHUNKED + b"1\r\na\r\n0\r\n", b"trailer: x\r\n"),
}
LARGE = {
    "to the end": (answer("200 OK"), b"x"),
    "chunked": (CHUNKED, b"1\r\nx\r\n"),
    "content-length": (answer("200 OK", "content-length: 99999999"), b"x"),
}
LEAVES = {
    "connection: close": (answer("200 OK", "connection: close", "content-length: 0"), 2),
    "1.0": (answer("HTTP/1.0 200 OK", "content-length: 0"), 2),
    "1.0, kept": (answer("HTTP/1.0 200 OK", "connection: keep-alive", "content-length: 0"), 1),
    "204": (answer("204 No Content"), 1),
    "304": (answer("304 Not Modified", "content-length: 5"), 1),
    "101": (answer("101 Switching"), 2),
    "204 with a body": (answer("204 No Content", "content-length: 5", body=HELLO), 2),
    "two": (reply(b"") + reply(b"another's"), 2),
    "one and a bit": (reply(b"") + b"H", 2),
}
REFUSES = {
    "403": answer("403 Forbidden", "content-length: 2", body=b"No"),
    "407": answer("407 Proxy Authentication Required"),
    "garbage": b"garbage\r\n\r\n",
    "half": b"HTTP/1.1 20",
    "nothing": b"",
    "leaves": CREATED,
    "injects": CREATED + reply(b"injected"),
    "injects after no body": reply(b"") + reply(b"injected"),
}


def each(name: str, cases: Mapping[str, object]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(name, cases.values(), ids=cases)


def pieces_of(data: bytes, chance: random.Random) -> list[bytes]:
    cuts = sorted(chance.sample(range(1, len(data)), chance.randrange(1, 9)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


class TestResponse:
    @each("case", WHOLE)
    async def test_it_is_the_same_in_any_pieces(self, case: tuple[bytes, Response]) -> None:
        raw, expected = case
        ways = [[raw], [raw[i : i + 1] for i in range(len(raw))]]
        ways += [pieces_of(raw, random.Random(seed)) for seed in range(6)]
        async with talking(*(says(pieces, leaves=True) for pieces in ways)) as (it, peer):
            assert [await it.ask() for _ in ways] == [expected] * len(ways)
            assert peer.connections == len(ways)

    @BOTH
    @each("raw", CUT)
    async def test_one_that_is_cut_short_is_none(self, raw: bytes, tls: bool) -> None:
        async with talking(says(raw, leaves=True), tls=tls) as (it, peer):
            await it.fails()
            assert peer.connections == 1

    async def test_the_end_of_a_secured_connection_delimits_one(self) -> None:
        async with talking(says(answer("200 OK", body=HELLO), leaves=True), tls=True) as (it, _):
            assert await it.body() == HELLO

    @each("raw", GARBAGE)
    async def test_garbage_ends_the_connection(self, raw: bytes) -> None:
        async with talking(says(raw)) as (it, peer):
            await it.fails()
            await peer.ended()

    @each("case", ENDLESS)
    async def test_what_never_ends_is_ended(self, case: tuple[bytes, bytes]) -> None:
        async with talking(repeats(*case)) as (it, peer):
            await it.fails()
            await peer.ended()

    @each("case", LARGE)
    async def test_a_body_beyond_the_limit_is_refused(self, case: tuple[bytes, bytes]) -> None:
        async with talking(repeats(*case)) as (it, peer):
            await it.fails(Reason.UNREADABLE_ANSWER)
            await peer.ended()

    async def test_a_body_of_the_limit_is_read_however_it_is_framed(self) -> None:
        body = random.Random(1).randbytes(SMALL)
        chunked = CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
        async with talking(says(reply(body), chunked)) as (it, _):
            assert [await it.body(), await it.body()] == [body, body]

    async def test_head_has_no_body(self) -> None:
        raw = answer("103 Early") + answer("200 OK", "content-length: 5")
        async with talking(says(raw), echo) as (it, peer):
            assert await it.ask(None, method="HEAD") == Response(200, None, b"")
            assert await it.body() == b"?"
            assert peer.heads[0].startswith(b"HEAD /ask HTTP/1.1\r\nhost: 127.0.0.1:")
            assert b"content-length" not in peer.heads[0]


class TestRequest:
    async def test_its_head(self) -> None:
        async with talking(echo) as (it, peer):
            assert await it.ask(b"ab", headers=[("x-user", "Zoë")]) == Response(200, None, b"ab")
            first, *fields = peer.heads[0].decode().split("\r\n")
            assert first == "POST /ask HTTP/1.1"
            assert {f"host: 127.0.0.1:{peer.port}", "x-user: Zoë", "content-length: 2"} <= set(fields)
            assert {f"user-agent: aim-extproc/{__version__}", "accept: */*"} <= set(fields)

    @pytest.mark.parametrize("text", ["a\r\nb: c", "a\nb", "a\rb", "a\0b"])
    async def test_a_field_of_more_than_one_line_is_refused(self, text: str) -> None:
        async with talking(echo) as (it, peer):
            for header in (("x", text), (text, "x")):
                with pytest.raises(ValueError):
                    await it.ask(headers=[header])
            assert await it.body() == b"?"
            assert (peer.connections, len(peer.heads)) == (1, 1)

    @BOTH
    async def test_a_large_body_arrives_whole(self, tls: bool) -> None:
        body = random.Random(1).randbytes(8_000_000)
        async with talking(echo, tls=tls) as (it, _):
            assert (await it.ask(body, limit=len(body))).content == body

    @BOTH
    async def test_a_response_that_does_not_wait_for_the_body(self, tls: bool) -> None:
        told = asyncio.Event()

        async def early(link: Link) -> None:
            await link.head()
            await link.send(reply(b"early"))
            await told.wait()

        async with talking(early, echo, tls=tls) as (it, peer):
            assert (await it.ask(bytes(30_000_000))).content == b"early"
            assert await it.body() == b"?"  # not behind the rest of the other's
            told.set()
            assert peer.connections == 2


class TestReuse:
    async def test_a_connection_is_used_again(self) -> None:
        async with talking(echo) as (it, peer):
            assert [await it.body(b"%d" % i) for i in range(5)] == [b"%d" % i for i in range(5)]
            assert peer.connections == 1

    @each("case", LEAVES)
    async def test_which_response_leaves_a_connection(self, case: tuple[bytes, int]) -> None:
        first, connections = case
        async with talking(says(first, reply(b"1")), says(reply(b"2"))) as (it, peer):
            assert await it.body() == b""
            assert await it.body() == b"%d" % connections
            assert peer.connections == connections

    async def test_one_request_at_a_time_on_the_connection_that_was_kept_last(self) -> None:
        gates = [asyncio.Event(), asyncio.Event()]
        scripts = [waits(gate, b"%d" % i) for i, gate in enumerate(gates)]
        async with talking(*scripts) as (it, peer), asyncio.TaskGroup() as group:
            tasks = []
            for _ in scripts:
                tasks.append(group.create_task(it.body()))
                await peer.asked.acquire()
            for i in (1, 0):
                gates[i].set()
                assert await tasks[i] == b"%d" % i
            assert [await it.body() for _ in range(3)] == [b"0"] * 3

    async def test_requests_beyond_the_connections_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pool, "_CONNECTIONS", 2)
        gate = asyncio.Event()
        async with talking(waits(gate)) as (it, peer):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(it.body(b"%d" % i)) for i in range(9)]
                gave_up = group.create_task(it.body(b"none"))
                await peer.asked.acquire()
                await peer.asked.acquire()
                gave_up.cancel()
                gate.set()
            assert [task.result() for task in tasks] == [b"%d" % i for i in range(9)]
            assert (peer.connections, len(peer.heads)) == (2, 9)

    @BOTH
    async def test_a_kept_connection_that_is_lost_is_made_good_once(self, tls: bool) -> None:
        async with talking(says(reply(b"1"), b"", leaves=True), number, tls=tls) as (it, peer):
            assert [await it.body(), await it.body()] == [b"1", b"2"]
            assert (peer.connections, len(peer.heads)) == (2, 3)

    async def test_a_kept_connection_that_ended_is_not_asked(self) -> None:
        async with talking(says(reply(b"1"), leaves=True), number) as (it, peer):
            assert await it.body() == b"1"
            await peer.ended()
            assert await it.body() == b"2"

    async def test_a_timeout_of_an_idle_connection_is_no_answer(self) -> None:
        late = answer("408 Request Timeout", "connection: close", "content-length: 0")
        async with talking(says(reply(b"1"), late, leaves=True), says(late, leaves=True)) as (it, peer):
            assert await it.body() == b"1"
            assert (await it.ask()).status == 408  # of the new one it is
            assert (peer.connections, len(peer.heads)) == (2, 3)

    async def test_one_that_is_lost_later_is_the_callers_to_make_good(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pool, "_ENDED_SECONDS", -1)
        async with talking(says(reply(b"1"), b"", leaves=True), number) as (it, peer):
            assert await it.body() == b"1"
            await it.fails()
            assert (peer.connections, len(peer.heads)) == (1, 2)

    async def test_the_new_one_lost_as_well_is_an_error(self) -> None:
        async with talking(says(reply(b"1"), b"", leaves=True), says(b"", leaves=True)) as (it, peer):
            assert await it.body() == b"1"
            await it.fails()
            assert (peer.connections, len(peer.heads)) == (2, 3)

    @pytest.mark.parametrize("raw", [b"garbage", CUT["body"]])
    async def test_who_answered_is_not_asked_again(self, raw: bytes) -> None:
        async with talking(says(reply(b"1"), raw, leaves=True)) as (it, peer):
            assert await it.body() == b"1"
            await it.fails()
            assert (peer.connections, len(peer.heads)) == (1, 2)

    async def test_what_nobody_asked_for_is_nobodys_answer(self) -> None:
        go = asyncio.Event()

        async def unasked(link: Link) -> None:
            await says(reply(b"1"), leaves=True)(link)
            await go.wait()
            await link.send(reply(b"1"))
            await link.end()

        async with talking(unasked, number) as (it, peer):
            assert await it.body() == b"1"
            go.set()
            await peer.ended()
            assert await it.body() == b"2"

    async def test_what_is_idle_is_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pool, "_IDLE_SECONDS", 0.05)
        async with talking(number) as (it, peer):
            for i in (1, 2):
                assert await it.body() == b"%d" % i
                await peer.ended()

    async def test_leaving_closes_what_is_idle_and_later_what_is_in_use(self) -> None:
        gate = asyncio.Event()
        async with talking(waits(gate), number) as (it, peer), asyncio.TaskGroup() as group:
            late = group.create_task(it.body(b"late"))
            await peer.asked.acquire()
            assert await it.body() == b"2"
            await it.transport.aclose()
            await peer.ended()
            gate.set()
            assert await late == b"late"
            await peer.ended()

    async def test_a_request_leaves_no_cycle(self) -> None:
        scripts = says(reply(b"1"), LEAVES["connection: close"][0]), says(b"garbage"), says(reply(bytes(2 * SMALL)))
        async with talking(*scripts) as (it, peer):
            gc.collect()
            gc.disable()
            gc.set_debug(gc.DEBUG_SAVEALL)
            try:
                for _ in range(4):
                    with suppress(DetectionError):
                        await it.ask()
                await peer.ended(3)
                gc.collect()
                assert not [one for one in gc.garbage if type(one).__module__.startswith(("extproc", "httptools"))]
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()


class TestCancellation:
    async def test_the_next_request_gets_its_own_answer(self) -> None:
        gate = asyncio.Event()
        async with talking(waits(gate), echo) as (it, peer):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await it.body(b"late")
            gate.set()
            assert await it.body() == b"?"
            await peer.ended()

    @pytest.mark.parametrize("way", ["http", "https", "tunnel"])
    async def test_it_leaves_nothing_whenever_it_comes(self, way: str) -> None:
        async with Peer(echo, tls=None if way == "http" else server_tls()) as peer, Peer(tunnel()) as proxy:
            for turns in range(50):
                by = proxy.url if way == "tunnel" else None
                async with client(peer.url, by) as it, asyncio.TaskGroup() as group:
                    task = group.create_task(it.body(b"other"))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    task.cancel()
                    assert await it.body(b"own") == b"own"
            await peer.ended(peer.connections)
            await proxy.ended(proxy.connections)

    @BOTH
    async def test_as_it_is_connected(self, tls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        made = Connection.connection_made
        tasks: list[asyncio.Task[bytes]] = []

        def cancel(self: Connection, transport: asyncio.BaseTransport) -> None:
            made(self, transport)
            for task in tasks:
                task.cancel()

        async with talking(echo, tls=tls) as (it, peer), asyncio.TaskGroup() as group:
            monkeypatch.setattr(Connection, "connection_made", cancel)
            tasks.append(group.create_task(it.body()))
            await asyncio.wait(tasks)
            assert tasks.pop().cancelled()
            assert await it.body(b"own") == b"own"
            await it.transport.aclose()
            await peer.ended(peer.connections)


class TestConnect:
    @pytest.mark.parametrize("host", ["name.invalid", "a..b", "x" * 64 + ".invalid"])
    async def test_a_name_without_address_is_unreachable(self, host: str) -> None:
        async with client(f"http://{host}") as it:
            await it.fails()

    async def test_nobody_listens(self, unused_tcp_port: int) -> None:
        for proxy in (None, f"http://127.0.0.1:{unused_tcp_port}"):
            async with client(f"https://127.0.0.1:{unused_tcp_port}", proxy) as it:
                await it.fails()

    @pytest.mark.parametrize("is_ours", [False, True])
    async def test_a_certificate_that_is_not_trusted(self, is_ours: bool) -> None:
        tls = server_tls("another") if is_ours else server_tls(authority=trustme.CA())
        async with Peer(echo, tls=tls) as peer, client(peer.url) as it:
            await it.fails()
            assert peer.heads == []

    async def test_who_does_not_speak_tls(self) -> None:
        async def speak(link: Link) -> None:
            await link.send(answer("400 Bad Request"))
            await link.end()

        async with Peer(speak) as peer, client(f"https://127.0.0.1:{peer.port}") as it:
            await it.fails()
            await peer.ended()

    async def test_an_ipv6_address(self) -> None:
        try:
            async with Peer(echo, host="::1") as peer, client(peer.url) as it:
                assert await it.body() == b"?"
                assert b"\r\nhost: [::1]:%d\r\n" % peer.port in peer.heads[0]
        except OSError:
            pytest.skip("no ::1 here")


LOGIN = b"\r\nproxy-authorization: Basic %s\r\n" % base64.b64encode(b"us er:p@ss")


def with_login(proxy: Peer) -> str:
    return proxy.url.replace("://", "://us%20er:p%40ss@")


class TestProxy:
    @BOTH
    async def test_a_request_in_the_clear_names_the_whole_url(
        self, tls: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        async with (
            Peer(echo, tls=server_tls() if tls else None) as proxy,
            client("http://aim.invalid:8080", with_login(proxy)) as it,
        ):
            assert [await it.body(b"a"), await it.body(b"b")] == [b"a", b"b"]
            assert proxy.connections == 1
            for head in proxy.heads:
                assert head.startswith(b"POST http://aim.invalid:8080/ask HTTP/1.1\r\nhost: aim.invalid:8080\r\n")
                assert LOGIN in head

    @BOTH
    @pytest.mark.parametrize("created", [CREATED, answer("HTTP/1.0 200 OK", "connection: close")], ids=["1.1", "1.0"])
    async def test_a_secured_request_goes_through_a_tunnel_that_is_kept(self, tls: bool, created: bytes) -> None:
        async with (
            Peer(echo, tls=server_tls()) as peer,
            Peer(tunnel(created), tls=server_tls() if tls else None) as proxy,
            client(peer.url, with_login(proxy)) as it,
        ):
            body = random.Random(1).randbytes(2_000_000)
            assert [await it.body(b"a"), await it.body(b"b")] == [b"a", b"b"]
            assert (await it.ask(body, limit=len(body))).content == body
            assert (proxy.connections, peer.connections) == (1, 1)
            (head,) = proxy.heads
            assert head.startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % (peer.port, peer.port))
            assert LOGIN in head
            assert all(head.startswith(b"POST /ask HTTP/1.1\r\n") and LOGIN not in head for head in peer.heads)

    async def test_a_tunnel_that_is_lost_is_made_good(self) -> None:
        async with (
            Peer(says(reply(b"1"), b"", leaves=True), number, tls=server_tls()) as peer,
            Peer(tunnel()) as proxy,
            client(peer.url, proxy.url) as it,
        ):
            assert [await it.body(), await it.body()] == [b"1", b"2"]
            assert proxy.connections == 2

    async def test_a_name_with_the_dot_of_the_root(self) -> None:
        async with (
            Peer(echo, tls=server_tls("aim.invalid")) as peer,
            Peer(tunnel(port=peer.port)) as proxy,
            client("https://aim.invalid.", proxy.url) as it,
        ):
            assert await it.body() == b"?"
            assert b"\r\nhost: aim.invalid\r\n" in peer.heads[0]

    @each("raw", REFUSES)
    async def test_one_that_does_not_connect_through(self, raw: bytes) -> None:
        async with Peer(says(raw, leaves=True)) as proxy, client("https://aim.invalid", proxy.url) as it:
            await it.fails()
            await proxy.ended()
            assert (proxy.connections, len(proxy.heads)) == (1, 1)

    async def test_what_it_says_before_the_tunnel_is_no_answer(self) -> None:
        async with (
            Peer(echo, tls=server_tls()) as peer,
            Peer(tunnel(REFUSES["injects"])) as proxy,
            client(peer.url, proxy.url) as it,
        ):
            await it.fails()
            assert peer.heads == []
