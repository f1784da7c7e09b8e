"""A harness for exchanges through a real Envoy: a `Case` says what is sent, answered and expected; `run` compares.

By default Aim allows everything, the upstream gets the request's bytes, and the client gets 200 and the upstream's
bytes. `run` also checks what holds for all exchanges.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import pytest

from tests.envoy.apis import CHAT, Api
from tests.envoy.told import reason, told
from tests.fakes.aim import AimSession, Question, ScriptedAim, allow, anonymize, block, echo
from tests.fakes.client import Got, exchange
from tests.fakes.rig import Rig, Rigs, cluster_of, manager_of, processor_of
from tests.fakes.upstream import Received

Headers = tuple[tuple[str, str], ...]

# -- the rigs: sidecars with other settings, Envoys wired in other ways ---------------------------------------------


def _trailers(tree: Any) -> None:
    """Let trailers through over HTTP/1.1, on both sides of Envoy."""
    manager_of(tree)["http_protocol_options"] = {"enable_trailers": True}
    processor_of(tree)["processing_mode"]["request_trailer_mode"] = "SEND"
    _http_options(cluster_of(tree))["explicit_http_config"] = {"http_protocol_options": {"enable_trailers": True}}


def _http_options(cluster: Any) -> Any:
    (options,) = cluster["typed_extension_protocol_options"].values()
    return options


def _bare(tree: Any) -> None:
    """Keep paths as clients spell them, and let upgrades reach the sidecar."""
    _trailers(tree)
    manager = manager_of(tree)
    for option in ("normalize_path", "merge_slashes", "path_with_escaped_slashes_action"):
        del manager[option]
    manager["upgrade_configs"] = [{"upgrade_type": "websocket"}]


def _full_duplex(tree: Any) -> None:
    """Send the request's body in full duplex too."""
    _trailers(tree)
    processor_of(tree)["processing_mode"]["request_body_mode"] = "FULL_DUPLEX_STREAMED"


def _http2_upstream(tree: Any) -> None:
    """Use HTTP/2 to the upstream, which is a second listener of the same Envoy that converts it back to HTTP/1.1."""
    _trailers(tree)
    cluster = cluster_of(tree)
    behind = json.loads(json.dumps(cluster)) | {"name": "behind"}
    _http_options(cluster)["explicit_http_config"] = {"http2_protocol_options": {}}
    pipe = {"pipe": {"path": f"@aim-extproc-{uuid.uuid4()}"}}
    (endpoints,) = cluster["load_assignment"]["endpoints"]
    endpoints["lb_endpoints"] = [{"endpoint": {"address": pipe}}]
    first = tree["static_resources"]["listeners"][0]
    second = json.loads(json.dumps(first)) | {"name": "behind", "address": pipe}
    manager = second["filter_chains"][0]["filters"][0]["typed_config"]
    manager["codec_type"] = "HTTP2"
    del manager["http_filters"][0]
    del manager["access_log"]
    manager["route_config"]["virtual_hosts"][0]["routes"] = [
        {"match": {"prefix": "/"}, "route": {"cluster": "behind", "timeout": "0s"}}
    ]
    tree["static_resources"]["listeners"].append(second)
    tree["static_resources"]["clusters"].append(behind)


_PATHS = {"/mcp": "mcp"}


def _profile(**fields: Any) -> dict[str, Any]:
    return {"profiles": {"default": {"paths": _PATHS} | fields}}


RIGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "default": _profile(),
    "firewall": {"aim": {"api": "firewall"}, **_profile()},
    "cato": {"aim": {"api": "cato"}},
    "moderation": _profile(hooks=["moderation"]),
    "moderation firewall": {"aim": {"api": "firewall"}, **_profile(hooks=["moderation"])},
    "all hooks": _profile(hooks=["pre_call", "moderation", "output"]),
    "output only": _profile(hooks=["output"]),
    "open": _profile(failure_mode_allow=True),
    "custom": _profile(
        unmatched="block",
        block_message="Ask the help desk.",
        paths={"/llm/*": "openai-chat"},
        inspect={"embeddings": True, "tools": False},
        user_email=["static:ann@example.com"],
        key_alias=["header:x-key"],
    ),
    "teapot": _profile(refusal={"status": 418}),
    "answers": _profile(refusal={"as": "answer"}),
    "small": {"limits": {"request_bytes": 4096, "response_bytes": 4096, "event_bytes": 1024}},
    "small open": {
        "limits": {"request_bytes": 4096, "response_bytes": 4096, "event_bytes": 1024},
        **_profile(failure_mode_allow=True),
    },
    "files": _profile(inspect={"files": True}),
    "firewall files": {"aim": {"api": "firewall"}, **_profile(inspect={"files": True})},
    "firewall embeddings": {"aim": {"api": "firewall"}, **_profile(inspect={"embeddings": True})},
    "small files": {"limits": {"request_bytes": 4096}, **_profile(inspect={"files": True})},
    "few fields": {"limits": {"headers": 16}},
    "dry run": {"aim": {"api": "firewall"}, **_profile(enforce=False)},
    "bare": {"edit": _bare},
    "bare firewall": {"edit": _bare, "aim": {"api": "firewall"}},
    "full duplex": {"edit": _full_duplex, "aim": {"api": "firewall"}},
    "http2 upstream": {"edit": _http2_upstream, "aim": {"api": "firewall"}},
}
"""Name -> the arguments of `tests.fakes.rig.rig`."""


# -- what Aim does ------------------------------------------------------------------------------------------------

Behaviour = Callable[[ScriptedAim], None]


def allows(aim: ScriptedAim) -> None:
    """Allow everything."""
    aim.judge, aim.script = allow, echo


def blocks(word: str, message: str | None = "Not that.") -> Behaviour:
    """Block a prompt or an answer that contains `word`, and a stream at the chunk that contains it."""

    async def judge(question: Question) -> Any:
        if word not in _judged(question):
            return await allow(question)
        if question.path.startswith("/detect"):
            return block(message, secrets={})
        return {"required_action": {"action_type": "block_action", "detection_message": message}}

    async def script(session: AimSession) -> None:
        while (chunk := await session.receive()) is not None:
            if word in "".join(texts_of(chunk)):
                await session.block(message or "")
                return
            await session.verify(chunk)
        await session.done()

    return lambda aim: _set(aim, judge, script)


def redacts(word: str, by: str, *, merges: bool = False) -> Behaviour:
    """Replace `word` by `by`. With `merges`, join all texts of a stream and verify them as one chunk."""

    async def judge(question: Question) -> Any:
        if word not in _judged(question):
            return await allow(question)
        return anonymize(question, lambda text: text.replace(word, by))

    async def script(session: AimSession) -> None:
        held: list[Any] = []
        while (chunk := await session.receive()) is not None:
            if merges and any(texts_of(chunk)):
                held.append(chunk)
            else:
                await session.verify(_replaced(chunk, word, by))
        if held:
            merged = deepcopy(held[0])
            merged["choices"][0]["delta"]["content"] = "".join(text for chunk in held for text in texts_of(chunk))
            await session.verify(_replaced(merged, word, by))
        await session.done()

    return lambda aim: _set(aim, judge, script)


def fails(status: int = 503, body: Any = b"upstream connect error", *, leg: str = "both") -> Behaviour:
    """Answer calls and handshakes with `status`; `leg` may be request or response."""

    async def judge(question: Question) -> Any:
        failing = leg == "both" or (leg == "response") == (question.hook == "output")
        return (status, body) if failing else await allow(question)

    async def handshake() -> int | None:
        return None if leg == "request" else status

    def apply(aim: ScriptedAim) -> None:
        _set(aim, judge, echo)
        aim.handshake = handshake

    return apply


def says(body: Any) -> Behaviour:
    """Answer every call with `body`."""

    async def judge(_: Question) -> Any:
        return body

    return lambda aim: _set(aim, judge, echo)


def drops_at(word: str, *, say: str | None = None) -> Behaviour:
    """Verify a stream up to the chunk that contains `word`; then send the frame `say`, if any, and close the socket."""

    async def script(session: AimSession) -> None:
        while (chunk := await session.receive()) is not None:
            if word in "".join(texts_of(chunk)):
                if say is not None:
                    await session.socket.send_str(say)
                await session.socket.close()
                return
            await session.verify(chunk)
        await session.done()

    return lambda aim: _set(aim, allow, script)


def _set(aim: ScriptedAim, judge: Any, script: Any) -> None:
    aim.judge, aim.script = judge, script


def _seen(question: Question) -> list[str]:
    """Return the texts of a call, in order: those of the request, then that of the answer."""
    texts = []
    for message in question.body["messages"]:
        text = message["content"]
        texts.append(text if text is not None else "".join(c["function"]["arguments"] for c in message["tool_calls"]))
    return texts + ([question.body["output"]] if "output" in question.body else [])


def _judged(question: Question) -> str:
    """Return what a call judges: the whole request, or only the answer."""
    return "\n".join(_seen(question)) if question.hook != "output" else _seen(question)[-1]


def texts_of(chunk: Any) -> list[str]:
    """Return the texts of all choices of a chunk."""
    return [text for choice in chunk["choices"] if (text := choice["delta"].get("content"))]


def _replaced(chunk: Any, word: str, by: str) -> Any:
    changed = deepcopy(chunk)
    for choice in changed["choices"]:
        if choice["delta"].get("content"):
            choice["delta"]["content"] = choice["delta"]["content"].replace(word, by)
    return changed


# -- what the upstream does ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """An upstream's answer: with its length, or chunked if `body` is a sequence. None means no body."""

    body: bytes | Sequence[bytes] | None
    type: str | None = "application/json"
    status: int = 200
    headers: Headers = ()
    trailers: Headers = ()

    @property
    def whole(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else b"".join(self.body or ())

    async def __call__(self, request: Received) -> None:
        fields = [*self.headers] + ([("content-type", self.type)] if self.type else [])
        if isinstance(self.body, bytes):
            await request.head(self.status, [*fields, ("content-length", str(len(self.body)))])
            request.writer.write(self.body)
            await request.writer.drain()
        elif self.body is None:
            await request.head(self.status, fields)
        else:
            await request.head(self.status, [*fields, ("transfer-encoding", "chunked")])
            for piece in self.body:
                await request.chunk(piece)
            await request.end(self.trailers)


def streams(*pieces: bytes, **more: Any) -> Said:
    """Answer with an event stream."""
    return Said(pieces, "text/event-stream", **more)


# -- cases --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Refused:
    """The client gets a refusal in the API's shape. Without `message`, the sidecar may choose any sentence."""

    code: str
    message: str | None = None


@dataclass(frozen=True)
class Ended:
    """The client gets `before`, then the refusal's event, then the end."""

    before: bytes
    code: str
    message: str | None = None
    sequence: int = 0


@dataclass(frozen=True)
class Answered:
    """The client gets `before`, then what makes it an answer of the API with this text, which ends for a block."""

    text: str
    before: bytes = b""
    type: str = "application/json"


class Never:
    """No request reaches the upstream."""


NEVER = Never()
ANY = object()


@dataclass(frozen=True)
class Case:
    """A row of the table. The module's docstring describes the defaults."""

    name: str
    api: Api = CHAT
    request: bytes | Sequence[bytes] | None = b""
    answer: Said | Callable[[Received], Awaitable[None]] = Said(b"{}")
    aim: Behaviour = allows
    rig: str = field(default="default", kw_only=True)
    method: str = field(default="POST", kw_only=True)
    path: str = field(default="", kw_only=True)
    headers: Headers = field(default=(), kw_only=True)
    trailers: Headers = field(default=(), kw_only=True)
    http2: bool = field(default=False, kw_only=True)
    stream: bool = field(default=False, kw_only=True)
    is_inspected: bool = field(default=True, kw_only=True)
    """whether a dialect knows the path"""
    has_id: bool | None = field(default=None, kw_only=True)
    """whether the answer has the call id; None: if a dialect knows the path"""
    # what is expected
    status: int = field(default=200, kw_only=True)
    client: bytes | Refused | Ended | Answered | object | None = field(default=None, kw_only=True)
    client_headers: Mapping[str, str | None] = field(default_factory=dict, kw_only=True)
    client_trailers: Headers | Any = field(default=(), kw_only=True)
    upstream: bytes | Never | object | None = field(default=None, kw_only=True)
    upstream_path: str = field(default="", kw_only=True)
    upstream_headers: Mapping[str, str | None] = field(default_factory=dict, kw_only=True)
    upstream_trailers: Headers | Any = field(default=(), kw_only=True)
    asked: Sequence[tuple[str, ...]] | Any = field(default=(), kw_only=True)
    aim_headers: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    @property
    def id(self) -> str:
        return f"{self.api.name}, {self.rig}: {self.name}"


ASK = CHAT.request("Hello")
ASK_STREAM = CHAT.request("Hello", stream=True)
ANSWER = Said(CHAT.answer("Hi"))
PRE_CALL = ("pre_call", "Hello")
OUTPUT = ("output", "Hello", "Hi")
JUDGED = [PRE_CALL, OUTPUT]
"""A request, its answer, and what Aim gets of them."""

BLOCKED = Refused("content_policy_violation", "Not that.")
OWN_MESSAGE = Refused("content_policy_violation", "Ask the help desk.")
"""What is blocked in the rig "custom"."""
UNAVAILABLE = Refused("guardrail_unavailable")
TAGGED = redacts("Jane", "[NAME_1]")


def blocked_request(
    name: str, api: Api, request: bytes | Sequence[bytes] | None = None, *, client: Refused = BLOCKED, **more: Any
) -> Case:
    """Return a row with a request, by default the API's own, that has "a secret", and that Aim blocks."""
    request = api.request("a secret") if request is None else request
    asked = [("pre_call", "a secret")]
    return Case(
        name, api, request, aim=blocks("secret"), status=400, client=client, upstream=NEVER, asked=asked, **more
    )


async def shared(rigs: Rigs, name: str) -> Rig:
    """Return the chain `name` of RIGS."""
    return await rigs.get(name, **RIGS[name])


FORGED: Headers = (
    ("x-aim-call-id", "forged"),
    ("x-aim-litellm-hook", "forged"),
    ("x-cato-user-email", "forged"),
    ("accept-encoding", "gzip, br"),
)
"""Headers of every request. None of them may reach the upstream."""


async def run(rigs: Rigs, case: Case) -> None:
    """Run a case and compare everything that happened with the case."""
    chain = await shared(rigs, case.rig)
    case.aim(chain.aim)
    chain.upstream.answer = case.answer
    held = chain.sidecar.service.load.held_bytes
    tag = str(uuid.uuid4())
    path = case.path or case.api.path_of(stream=case.stream)
    headers: Headers = (*FORGED, ("x-aim-session-id", tag), *case.headers)
    if "content-type" not in dict(case.headers):
        headers += (("content-type", "application/json"),)

    def heard() -> None:
        for request in chain.upstream.requests:
            request.heard.set()

    send = _over_http2 if case.http2 else exchange
    async with asyncio.timeout(20):
        got = await send(chain.envoy.url, case.method, path, headers, case.request, case.trailers, heard)
        await chain.sidecar.service.idle.wait()
        for session in chain.aim.sessions:
            await session.closed.wait()
    await _all_freed(chain, held)
    _check_client(case, got)
    _check_upstream(case, chain, path)
    _check_aim(case, chain, tag, got)


REPEATED = ("redaction_failed", "guardrail_unreadable_response", "request_too_large")
"""The codes of refusals that the same request meets again."""


async def _all_freed(chain: Rig, before: int) -> None:
    """Check that no byte of the exchange is held any more. A dry run's shadow may live a little longer."""
    for _ in range(200):
        if chain.sidecar.service.load.held_bytes <= before:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"{chain.sidecar.service.load.held_bytes - before} bytes are still counted as held")


async def _over_http2(
    url: str, method: str, target: str, headers: Headers, body: Any, trailers: Headers, _: object
) -> Got:
    assert not trailers
    async with (
        httpx.AsyncClient(http1=False, http2=True, trust_env=False, timeout=15) as client,
        client.stream(method, url + target, headers=list(headers), content=body) as response,
    ):
        pieces = [piece async for piece in response.aiter_raw()]
    assert response.http_version == "HTTP/2"
    fields = [(name.lower(), value) for name, value in response.headers.multi_items()]
    return Got(response.status_code, fields, b"".join(pieces), is_whole=True)


def _check_client(case: Case, got: Got) -> None:
    assert (got.status, got.is_whole) == (case.status, True), got.body
    expected: Any = case.client
    if isinstance(expected, Refused):
        said = json.loads(got.body)
        message = expected.message or _message(case.api, said)
        assert said == case.api.refusal(case.status, expected.code, message)
        assert got.header("content-type") == "application/json"
        assert got.header("content-length") == str(len(got.body))
        assert got.header("x-should-retry") == ("false" if expected.code in REPEATED else None)
        assert {name: got.header(name) for name in case.api.refusal_headers(case.status)} == case.api.refusal_headers(
            case.status
        )
    elif isinstance(expected, Ended):
        assert got.body.startswith(expected.before)
        status = 400 if expected.code == "content_policy_violation" else 503
        if expected.code in ("guardrail_unreadable_response", "redaction_failed"):
            status = 502
        last = got.body[len(expected.before) :]
        message = expected.message or _message(case.api, case.api.said_at(last))
        assert last == case.api.ending(status, expected.code, message, expected.sequence)
    elif isinstance(expected, Answered):
        assert got.body.startswith(expected.before)
        assert got.header("content-type") == expected.type
        assert told(case.api.name, expected.type, got.body) == (expected.text, reason(case.api.name))
    elif expected is not ANY:
        usual = case.answer.whole if isinstance(case.answer, Said) else b""
        assert got.body == (usual if expected is None else expected)
    for name, value in case.client_headers.items():
        assert got.header(name) == value, f"{name} of the response"
    assert case.client_trailers is ANY or got.trailers == list(case.client_trailers)
    # These hold for all exchanges.
    is_told = case.is_inspected if case.has_id is None else case.has_id
    if not (isinstance(expected, Refused) and expected.code == "request_too_large"):  # which may be found out unread
        assert (got.header("x-aim-call-id") is not None) == is_told
    assert [value for name, value in got.headers if name == "x-aim-call-id"].count("forged") == 0
    if case.method != "HEAD" and case.status not in (204, 304):
        assert got.header("content-length") in (None, str(len(got.body)))


def _message(api: Api, said: Any) -> str:
    """Return the message of a refusal, and check that it is a sentence."""
    message = api.message_in(said)
    assert isinstance(message, str)
    assert message.endswith(".")
    return message


def _check_upstream(case: Case, chain: Rig, path: str) -> None:
    if case.upstream is ANY:
        return
    if isinstance(case.upstream, Never):
        assert chain.upstream.requests == []
        return
    (request,) = chain.upstream.requests
    sent = case.request if isinstance(case.request, bytes) else b"".join(case.request or ())
    assert (request.method, request.path) == (case.method, case.upstream_path or path)
    assert request.body == (sent if case.upstream is None else case.upstream)
    for name, value in case.upstream_headers.items():
        assert request.header(name) == value, f"{name} of the request"
    assert case.upstream_trailers is ANY or request.trailers == list(case.upstream_trailers)
    names = [name for name, _ in request.headers]
    assert [name for name in names if name.startswith(("x-aim-", "x-cato-"))] == []
    is_signed = "accept-encoding" in dict(case.headers).get("authorization", "")
    assert ("accept-encoding" in names) == (is_signed or not case.is_inspected or case.rig == "dry run")
    assert request.header("content-length") in (None, str(len(request.body)))


def _check_aim(case: Case, chain: Rig, tag: str, got: Got) -> None:
    def is_ours(headers: dict[str, str]) -> bool:
        return tag in (headers.get("x-aim-session-id"), headers.get("x-cato-session-id"))

    questions = [question for question in chain.aim.questions if is_ours(question.headers)]
    sessions = [session for session in chain.aim.sessions if is_ours(session.headers)]
    failed = {(q.hook, *_seen(q)) for q in questions if q.status == 429 or q.status >= 500}
    asked = [asked for q in questions if (asked := (q.hook, *_seen(q))) not in failed]
    asked += failed  # failed calls may be retried: they count once
    asked += [
        ("stream", *(text for chunk in session.chunks for text in texts_of(chunk)))
        for session in sessions
        if session.chunks
    ]
    assert case.asked is ANY or sorted(asked) == sorted(case.asked)
    for headers in [*(question.headers for question in questions), *(session.headers for session in sessions)]:
        call_id = headers.get("x-aim-call-id", headers.get("x-cato-call-id"))
        assert call_id == got.header("x-aim-call-id")
        assert headers["authorization"] == "Bearer test-key"
        for name, value in case.aim_headers.items():
            assert headers.get(name) == value or (value is ANY and name in headers), f"{name} to Aim"
