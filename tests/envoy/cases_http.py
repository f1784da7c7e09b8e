"""Rows about HTTP itself: methods, statuses, framing, trailers, types, sizes, spellings of a path, upgrades, HTTP/2."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from extproc.core.refusal import BLOCKED_RESPONSE
from tests.envoy.apis import ANTHROPIC, CHAT, COMPLETIONS, DONE, GEMINI, RESPONSES, Api, js
from tests.envoy.case import (
    ANSWER,
    ANY,
    ASK,
    ASK_STREAM,
    BLOCKED,
    JUDGED,
    NEVER,
    PRE_CALL,
    TAGGED,
    Case,
    Ended,
    Refused,
    Said,
    blocked_request,
    blocks,
    streams,
)
from tests.fakes.upstream import Received

UNREADABLE = Refused("guardrail_unreadable_response")
INVALID = Refused("invalid_body")
TOO_LARGE = Refused("request_too_large")

_UPLOAD = (("content-type", "application/octet-stream"),)

METHODS = [
    Case("HEAD passes", CHAT, None, Said(None, headers=(("content-length", "5"),)), method="HEAD", is_inspected=False),
    Case("a GET is generic", CHAT, None, ANSWER, method="GET", is_inspected=False, has_id=True, asked=ANY),
    Case("a PUT is generic", CHAT, ASK, ANSWER, method="PUT", is_inspected=False, has_id=True, asked=ANY),
    Case(
        "a PUT is blocked",
        CHAT,
        ASK,
        ANSWER,
        blocks("Hello"),
        method="PUT",
        is_inspected=False,
        has_id=True,
        status=400,
        client=BLOCKED,
        upstream=NEVER,
        asked=ANY,
    ),
    Case(
        "a stored answer is judged",
        CHAT,
        None,
        ANSWER,
        blocks("Hi"),
        method="GET",
        path="/v1/chat/completions/chatcmpl-1",
        status=400,
        client=BLOCKED,
        asked=[("output", "Hi")],
    ),
]

STATUSES = [
    Case("204 has no body", CHAT, ASK, Said(None, None, 204), status=204, asked=[PRE_CALL]),
    Case("304 has no body", CHAT, ASK, Said(None, None, 304), status=304, asked=[PRE_CALL]),
    Case(
        "206 is judged like any 2xx",
        CHAT,
        ASK,
        Said(CHAT.answer("Hi"), status=206, headers=(("content-range", "bytes 0-9/10"),)),
        status=206,
        client_headers={"content-range": "bytes 0-9/10"},
        asked=JUDGED,
    ),
    Case(
        "206 with a part of JSON is unreadable",
        CHAT,
        ASK,
        Said(CHAT.answer("Hi")[:30], status=206),
        status=502,
        client=UNREADABLE,
        asked=[PRE_CALL],
    ),
    Case("201 is judged", CHAT, ASK, Said(CHAT.answer("Hi"), status=201), status=201, asked=JUDGED),
    *(
        Case(
            f"{status} of the upstream passes uninspected",
            CHAT,
            ASK_STREAM,
            Said(body, kind, status, headers=(("retry-after", "7"), ("x-request-id", "r1"))),
            blocks("secret"),
            status=status,
            client_headers={"content-type": kind, "retry-after": "7", "x-request-id": "r1"},
            asked=[PRE_CALL],
        )
        for status, kind, body in (
            (302, "text/html", b"<p>secret</p>"),
            (401, "application/json", b'{"error":{"code":"secret"}}'),
            (404, "text/plain", b"no secret here"),
            (500, "application/octet-stream", b"\0\xffsecret"),
            (503, "application/json", b""),
        )
    ),
    Case(
        "an error is replaced under its own status",
        CHAT,
        ASK_STREAM,
        Said(CHAT.answer("a secret"), status=422, headers=(("retry-after", "7"), ("etag", "x"))),
        blocks("secret"),
        status=422,
        client=json.dumps(CHAT.refusal(422, "content_policy_violation", BLOCKED_RESPONSE)).encode(),
        client_headers={"content-type": "application/json", "retry-after": "7", "etag": None},
        asked=[PRE_CALL, ("output", "Hello", "a secret")],
    ),
    Case(
        "an error that is an event stream is replaced",
        CHAT,
        ASK_STREAM,
        Said(CHAT.stream("secret"), "text/event-stream", 429),
        blocks("secret"),
        status=429,
        client=Ended(b"", "content_policy_violation", BLOCKED_RESPONSE),
        asked=[PRE_CALL, ("output", "Hello", "secret")],
    ),
]

BODIES = [
    Case("no body at all", CHAT, None, ANSWER, asked=[("output", "Hi")]),
    Case("an empty body with its length", CHAT, b"", ANSWER, asked=[("output", "Hi")]),
    Case("an empty chunked body", CHAT, [], ANSWER, asked=[("output", "Hi")]),
    Case("white space", CHAT, b" \n", ANSWER, asked=[("output", "Hi")]),
    Case("a chunked request goes on whole", CHAT, [ASK[:7], ASK[7:9], ASK[9:]], ANSWER, asked=JUDGED),
    Case("a request in chunks of a byte", CHAT, [bytes([byte]) for byte in ASK], ANSWER, asked=JUDGED),
    Case(
        "a chunked request is redacted",
        CHAT,
        [CHAT.request("I am Jane")[:9], CHAT.request("I am Jane")[9:]],
        Said(CHAT.answer("")),
        TAGGED,
        rig="firewall",
        upstream=CHAT.request("I am [NAME_1]"),
        asked=[("pre_call", "I am Jane")],
    ),
    Case("a chunked answer", CHAT, ASK, Said([CHAT.answer("Hi")[:9], CHAT.answer("Hi")[9:]]), asked=JUDGED),
    Case("an answer in chunks of a byte", CHAT, ASK, Said([b"%c" % b for b in CHAT.answer("Hi")]), asked=JUDGED),
    Case("an empty answer", CHAT, ASK, Said(b""), asked=[PRE_CALL]),
    Case("an empty chunked answer", CHAT, ASK, Said([]), asked=[PRE_CALL]),
    Case(
        "a large request and a large answer",
        CHAT,
        CHAT.request("x" * 3_000_000),
        Said(CHAT.answer("y" * 3_000_000)),
        asked=[("pre_call", "x" * 3_000_000), ("output", "x" * 3_000_000, "y" * 3_000_000)],
    ),
    Case(
        "text in any script, and astral",
        CHAT,
        '{"messages":[{"role":"user","content":"żółć \\ud83d\\ude00 \U0001f600"}]}'.encode(),
        Said('{"choices":[{"message":{"content":"日本 \\u0000"}}]}'.encode()),
        asked=[("pre_call", "żółć \U0001f600 \U0001f600"), ("output", "żółć \U0001f600 \U0001f600", "日本 \0")],
    ),
]

_HELLO = b'{"role":"user","content":"Hello"}'

TYPES = [
    *(
        blocked_request(f"the type of a request does not decide: {kind}", CHAT, headers=(("content-type", kind),))
        for kind in ("text/plain", "multipart/form-data; boundary=x", "application/octet-stream", "image/png")
    ),
    Case(
        "the upstream's own call id is replaced",
        CHAT,
        ASK,
        Said(CHAT.answer("Hi"), headers=(("x-aim-call-id", "forged"),)),
        asked=JUDGED,
    ),
    Case(
        "the upstream's own call id is replaced in a stream",
        CHAT,
        ASK_STREAM,
        streams(*CHAT.events("Hi"), headers=(("x-aim-call-id", "forged"),)),
        asked=[PRE_CALL, ("stream", "Hi")],
    ),
    Case(
        "the upstream's own call id is removed from an answer that is not read",
        CHAT,
        None,
        Said(b"<p>Hi</p>", "text/html", headers=(("x-aim-call-id", "forged"),)),
        method="GET",
        path="/page",
        client_headers={"x-aim-call-id": None},
        is_inspected=False,
        asked=[],
    ),
    Case("expect: 100-continue", CHAT, ASK, ANSWER, headers=(("expect", "100-continue"),), asked=JUDGED),
    Case(
        "headers of an answer stay, in their order, duplicates too",
        CHAT,
        ASK,
        Said(CHAT.answer("Hi"), headers=(("set-cookie", "a=1"), ("set-cookie", "b=2"), ("openai-model", "m"))),
        client_headers={"set-cookie": "a=1", "openai-model": "m", "server": None},
        asked=JUDGED,
    ),
]

UNREADABLE_BODIES = [
    *(
        Case(f"a request is unreadable: {why}", CHAT, body, status=400, client=INVALID, upstream=NEVER)
        for why, body in {
            "not JSON": b"messages=Hello",
            "cut short": ASK[:-1],
            "more behind it": ASK + b"{}",
            "not UTF-8": ASK.replace(b"Hello", b"H\xe9llo"),
            "UTF-16": ASK.decode().encode("utf-16"),
            "messages twice": b'{"messages":[%s],"messages":[]}' % _HELLO,
            "content twice": b'{"messages":[{"role":"user","content":"Hello","content":"x"}]}',
            "a key twice, once escaped": b'{"messages":[],"mess\\u0061ges":[%s]}' % _HELLO,
            "a key twice, aside of the texts": b'{"messages":[%s],"metadata":{"a":1,"a":2}}' % _HELLO,
            "messages of another type": b'{"messages":5}',
            "too deep": b"[" * 100_000,
        }.items()
    ),
    Case("an unreadable request: open", CHAT, b"Hello", ANSWER, rig="open", asked=[("output", "Hi")]),
    *(
        Case(f"an answer is unreadable: {why}", CHAT, ASK, said, status=502, client=UNREADABLE, asked=[PRE_CALL])
        for why, said in {
            "HTML": Said(b"<p>Hi</p>", "text/html"),
            "plain text": Said(b"Hi", "text/plain"),
            "bytes": Said(b"\0\1\2", "application/octet-stream"),
            "no type, no JSON": Said(b"Hi", None),
            "not UTF-8": Said(CHAT.answer("Hi").replace(b"Hi", b"H\xe9")),
            "content twice": Said(b'{"choices":[{"message":{"content":"a","content":"b"}}]}'),
            "two values": Said(b"{}{}"),
            "a sound": Said(b"ID3\x04\0\xff\xfb", "audio/mpeg"),
            "an image": Said(b"\x89PNG\r\n", "image/png"),
        }.items()
    ),
    *(
        Case(f"JSON is judged whatever its type says: {kind}", CHAT, ASK, Said(CHAT.answer("Hi"), kind), asked=JUDGED)
        for kind in ("application/json; charset=utf-8", "text/plain", "application/octet-stream", "image/png", None)
    ),
    *(
        Case(f"a stream's type in another spelling: {kind}", CHAT, ASK, Said(CHAT.events("Hi"), kind), asked=asked)
        for kind, asked in {
            "text/event-stream; charset=utf-8": [PRE_CALL, ("stream", "Hi")],
            "Text/Event-Stream": [PRE_CALL, ("stream", "Hi")],
            "text/plain": [PRE_CALL, ("stream", "Hi")],
            "application/x-ndjson": [PRE_CALL, ("stream", "Hi")],
        }.items()
    ),
    Case("an unreadable answer: open", CHAT, ASK, Said(b"Hi", "text/plain"), rig="open", asked=[PRE_CALL]),
]


def _breaks_off(api: Api) -> Callable[[Received], Awaitable[None]]:
    """Stream a text and, once the client has it, data that is not an event of the API."""

    async def answer(request: Received) -> None:
        await request.head(headers=[("content-type", "text/event-stream"), ("transfer-encoding", "chunked")])
        for event in api.events("One")[: api.head + 1]:
            await request.chunk(event)
        await request.heard.wait()
        await request.chunk(b"data: free text\n\n")
        await request.gone.wait()

    return answer


SHAPES = [
    row
    for api in (RESPONSES, ANTHROPIC, GEMINI, COMPLETIONS)
    for row in (
        Case(
            "a request too large, in the API's shape",
            api,
            api.request("x" * 5000),
            rig="small",
            status=413,
            client=TOO_LARGE,
            upstream=NEVER,
        ),
        Case("an unreadable request, in the API's shape", api, b"{", status=400, client=INVALID, upstream=NEVER),
        Case(
            "an unreadable answer, in the API's shape",
            api,
            api.request("Hello"),
            Said(b"{"),
            status=502,
            client=UNREADABLE,
            asked=[PRE_CALL],
        ),
        Case(
            "an unreadable event in mid-stream, in the API's shape",
            api,
            api.request("Hello", stream=True),
            _breaks_off(api),
            stream=True,
            client=Ended(
                b"".join(api.events("One")[: api.head + 1]), "guardrail_unreadable_response", None, api.head + 1
            ),
            asked=[PRE_CALL, ("stream", "One")],
        ),
    )
]

_LONG = "x" * 5000

SIZES = [
    Case(
        "a request too large by its content-length",
        CHAT,
        CHAT.request(_LONG),
        rig="small",
        status=413,
        client=TOO_LARGE,
        upstream=NEVER,
    ),
    Case(
        "a chunked request too large",
        CHAT,
        [CHAT.request(_LONG)],
        rig="small",
        status=413,
        client=TOO_LARGE,
        upstream=NEVER,
    ),
    Case(
        "a request beyond Envoy's own limit",
        CHAT,
        [b"x" * 65_536] * 20,
        rig="small",
        status=413,
        client=TOO_LARGE,
        upstream=NEVER,
    ),
    Case(
        "a request too large: open",
        CHAT,
        CHAT.request(_LONG),
        ANSWER,
        rig="small open",
        asked=[("output", "Hi")],
    ),
    Case(
        "a chunked request too large: open",
        CHAT,
        [CHAT.request(_LONG)],
        ANSWER,
        rig="small open",
        asked=[("output", "Hi")],
    ),
    Case(
        "an answer too large by its content-length",
        CHAT,
        ASK,
        Said(CHAT.answer(_LONG)),
        rig="small",
        status=502,
        client=UNREADABLE,
        asked=[PRE_CALL],
    ),
    Case(
        "a chunked answer too large",
        CHAT,
        ASK,
        Said([CHAT.answer(_LONG)]),
        rig="small",
        status=502,
        client=UNREADABLE,
        asked=[PRE_CALL],
    ),
    Case("an answer too large: open", CHAT, ASK, Said(CHAT.answer(_LONG)), rig="small open", asked=[PRE_CALL]),
    Case("a chunked answer too large: open", CHAT, ASK, Said([CHAT.answer(_LONG)]), rig="small open", asked=[PRE_CALL]),
    Case(
        "a stream of any length passes",
        CHAT,
        ASK_STREAM,
        streams(*CHAT.events(*["word"] * 100)),
        rig="small",
        asked=[PRE_CALL, ("stream", *["word"] * 100)],
    ),
    Case(
        "an event too large",
        CHAT,
        ASK_STREAM,
        streams(CHAT.event(content=_LONG)),
        rig="small",
        status=502,
        client=UNREADABLE,
        asked=[PRE_CALL],
    ),
    Case(
        "an event too large: open",
        CHAT,
        ASK_STREAM,
        streams(CHAT.event(content=_LONG)),
        rig="small open",
        asked=[PRE_CALL],
    ),
    Case(
        "an upstream's large error passes",
        CHAT,
        ASK,
        Said(b"x" * 50_000, "text/plain", 500),
        rig="small",
        status=500,
        asked=[PRE_CALL],
    ),
]

_FIELDS = tuple((f"x-field-{number}", "y") for number in range(300))
_MANY = _FIELDS[:150]  # more than the 100 that Envoy allows by default
_TOO_MANY = _FIELDS[:257]  # more than limits.headers

FIELDS = [
    Case(
        "many fields of a request",
        CHAT,
        ASK,
        ANSWER,
        headers=_MANY,
        upstream_headers=dict(_MANY),
        asked=JUDGED,
    ),
    *(
        Case(
            f"{len(fields)} fields of a request are too many",
            CHAT,
            ASK,
            headers=fields,
            status=413,
            client=TOO_LARGE,
            upstream=NEVER,
        )
        for fields in (_TOO_MANY, _FIELDS)
    ),
    Case(
        "many fields of an answer",
        CHAT,
        ASK,
        Said(CHAT.answer("Hi"), headers=_MANY),
        client_headers=dict(_MANY),
        asked=JUDGED,
    ),
    Case(
        "many fields of a stream",
        CHAT,
        ASK_STREAM,
        streams(*CHAT.events("Hi"), headers=_MANY),
        client_headers=dict(_MANY),
        asked=[PRE_CALL, ("stream", "Hi")],
    ),
    *(
        Case(
            f"{len(fields)} fields of an answer are too many",
            CHAT,
            ASK,
            Said(CHAT.answer("Hi"), headers=fields),
            status=502,
            client=UNREADABLE,
            asked=[PRE_CALL],
        )
        for fields in (_TOO_MANY, _FIELDS)
    ),
    Case(
        "many fields of what is not inspected, and few for the sidecar",
        CHAT,
        b"anything",
        Said(b"{}", "x/y", headers=_FIELDS[:80]),
        rig="few fields",
        path="/v1/files",
        headers=(*_FIELDS[:80], ("content-type", "x/y")),
        is_inspected=False,
    ),
]

TRAILERS = [
    Case(
        "trailers of an answer",
        CHAT,
        ASK,
        Said([CHAT.answer("Hi")], trailers=(("x-cost", "7"),)),
        rig="bare",
        client_trailers=(("x-cost", "7"),),
        asked=JUDGED,
    ),
    Case(
        "trailers of a redacted answer",
        CHAT,
        ASK,
        Said([CHAT.answer("Jane")], trailers=(("x-cost", "7"),)),
        TAGGED,
        rig="bare firewall",
        client=CHAT.answer("[NAME_1]"),
        client_trailers=(("x-cost", "7"),),
        asked=[PRE_CALL, ("output", "Hello", "Jane")],
    ),
    Case(
        "trailers of an empty answer",
        CHAT,
        ASK,
        Said([], trailers=(("x-cost", "7"),)),
        rig="bare",
        client_trailers=(("x-cost", "7"),),
        asked=[PRE_CALL],
    ),
    Case(
        "trailers of a stream",
        CHAT,
        ASK_STREAM,
        streams(*CHAT.events("Hi"), trailers=(("x-cost", "7"),)),
        rig="bare",
        client_trailers=(("x-cost", "7"),),
        asked=[PRE_CALL, ("stream", "Hi")],
    ),
    Case(
        "trailers of a stream that is blocked after its end",
        CHAT,
        ASK_STREAM,
        streams(*CHAT.events("One", " secret"), trailers=(("x-cost", "7"),)),
        blocks("secret"),
        rig="bare",
        client=Ended(b"".join(CHAT.events("One")[:2]), "content_policy_violation", "Not that."),
        client_trailers=ANY,  # there are none if the block arrived before them
        asked=[PRE_CALL, ("stream", "One", " secret")],
    ),
    Case(
        "trailers of an answer that is not inspected",
        CHAT,
        None,
        Said([b"{}"], trailers=(("x-cost", "7"),)),
        rig="bare",
        method="GET",
        is_inspected=False,
        has_id=True,
        client_trailers=(("x-cost", "7"),),
    ),
    Case(
        "trailers of a request",
        CHAT,
        [ASK],
        ANSWER,
        rig="bare",
        trailers=(("x-check", "1"),),
        upstream_trailers=(("x-check", "1"),),
        asked=JUDGED,
    ),
    Case(
        "trailers of a redacted request",
        CHAT,
        [CHAT.request("Jane")],
        Said(CHAT.answer("")),
        TAGGED,
        rig="bare firewall",
        trailers=(("x-check", "1"),),
        upstream=CHAT.request("[NAME_1]"),
        upstream_trailers=ANY,  # HTTP/1.1 cannot send them with a content-length
        asked=[("pre_call", "Jane")],
    ),
    Case(
        "a request with trailers is blocked",
        CHAT,
        [CHAT.request("secret")],
        aim=blocks("secret"),
        rig="bare",
        trailers=(("x-check", "1"),),
        status=400,
        client=BLOCKED,
        upstream=NEVER,
        asked=[("pre_call", "secret")],
    ),
    Case(
        "Envoy drops trailers of HTTP/1.1 by default",
        CHAT,
        ASK,
        Said([CHAT.answer("Hi")], trailers=(("x-cost", "7"),)),
        asked=JUDGED,
    ),
]


def _guarded(path: str, rig: str = "default") -> Case:
    return blocked_request(f"{path} is guarded", CHAT, rig=rig, path=path)


_SPELLINGS = (
    "/chat/completions",
    "/v1/chat/completions/",
    "/V1/Chat/COMPLETIONS",
    "/v1/chat/completions?x=%2F..",
    "/v1/ch%61t/completions",
    "//v1//chat/completions",
    "/v1/x/../chat/completions",
    "/v1/./chat/completions",
    "/any/prefix/v1/chat/completions",
    "/openai/deployments/d/chat/completions?api-version=1",
)

PATHS = [
    *(_guarded(path) for path in _SPELLINGS),
    *(_guarded(path, "bare") for path in _SPELLINGS),
    _guarded("/v1/chat%2Fcompletions"),
    *(
        _guarded(path, "bare")
        for path in (
            "/v1/chat%2Fcompletions",
            "/v1/chat%2fcompletions",
            "/v1/chat%5Ccompletions",
            "/v1/chat\\completions",
            "/v1/x/%2e%2e/chat/completions",
            "/v1/chat;a=b/completions",
            "/v1/chat/completions;a=b",
            "/v1/chat/completions%20",
        )
    ),
    Case(
        "a path with an escaped slash reaches the upstream as it came",
        CHAT,
        ASK,
        ANSWER,
        path="/v1/chat%2Fcompletions",
        asked=JUDGED,
    ),
    Case(
        "the upstream gets the path that Envoy normalised",
        CHAT,
        ASK,
        ANSWER,
        path="//v1/x/../chat//completions?a=b",
        upstream_path="/v1/chat/completions?a=b",
        asked=JUDGED,
    ),
    Case(
        "the upstream gets the path as it came where Envoy leaves it",
        CHAT,
        ASK,
        ANSWER,
        rig="bare",
        path="//v1/x/../chat%2Fcompletions?a=b",
        asked=JUDGED,
    ),
    *(
        Case(f"no dialect: {name} passes", CHAT, body, said, path="/v1/files", headers=_UPLOAD, is_inspected=False)
        for name, body, said in (
            ("an upload", b"anything", Said(b"\0", "x/y")),
            ("a chunked upload", [b"any", b"thing"], Said(b"{}", "text/plain")),
        )
    ),
    *(
        Case(
            f"no dialect: {kind} is generic",
            CHAT,
            ASK,
            path="/v1/chat/completions/x1",
            headers=(("content-type", kind),),
            is_inspected=False,
            has_id=True,
            asked=ANY,
        )
        for kind in ("application/json", "text/plain")
    ),
    Case(
        "no dialect: a stream is generic",
        CHAT,
        b"",
        streams(b"data: free text\n\n"),
        path="/v1/audio/unknown",
        is_inspected=False,
        has_id=True,
        asked=ANY,
    ),
    Case(
        "no dialect: blocked where the settings say so",
        CHAT,
        b"anything",
        rig="custom",
        path="/v1/files",
        status=403,
        has_id=False,
        client=Refused("path_not_allowed"),
        upstream=NEVER,
    ),
    Case(
        "no dialect for GET: blocked where the settings say so",
        CHAT,
        None,
        rig="custom",
        method="GET",
        path="/v1/models",
        status=403,
        has_id=False,
        client=Refused("path_not_allowed"),
        upstream=NEVER,
    ),
    Case(
        "a dialect by the profile's paths",
        CHAT,
        ASK,
        ANSWER,
        rig="custom",
        path="/llm/anything",
        asked=JUDGED,
    ),
]

_UPGRADE = (("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13"))

UPGRADES = [
    Case(
        "Envoy refuses upgrades by default",
        CHAT,
        None,
        method="GET",
        headers=_UPGRADE,
        status=403,
        client=b"",
        upstream=NEVER,
        is_inspected=False,
    ),
    *(
        Case(
            f"an upgrade that Envoy lets through is refused on {path}",
            CHAT,
            None,
            rig="bare",
            method="GET",
            path=path,
            headers=_UPGRADE,
            status=400,
            has_id=False,
            client=Refused("upgrade_not_inspected"),
            upstream=NEVER,
        )
        for path in ("/v1/chat/completions", "/v1/responses", "//v1/x/../responses?model=m")
    ),
    Case(
        "an upgrade elsewhere reaches the upstream",
        CHAT,
        None,
        Said(b"no", "text/plain", 426),
        rig="bare",
        method="GET",
        path="/v1/other",
        headers=_UPGRADE,
        status=426,
        upstream_headers={"upgrade": "websocket"},
        is_inspected=False,
    ),
]

HTTP2 = [
    row
    for rig, http2, name in (
        ("firewall", True, "HTTP/2 downstream"),
        ("http2 upstream", False, "HTTP/2 upstream"),
        ("http2 upstream", True, "HTTP/2 on both sides"),
    )
    for row in (
        Case(f"{name}: an answer", CHAT, ASK, ANSWER, rig=rig, http2=http2, asked=JUDGED),
        Case(
            f"{name}: a stream",
            CHAT,
            ASK_STREAM,
            streams(*CHAT.events("Hel", "lo")),
            rig=rig,
            http2=http2,
            asked=[PRE_CALL, ("stream", "Hel", "lo")],
        ),
        Case(
            f"{name}: a request is redacted",
            CHAT,
            CHAT.request("I am Jane"),
            Said(CHAT.answer("")),
            TAGGED,
            rig=rig,
            http2=http2,
            upstream=CHAT.request("I am [NAME_1]"),
            asked=[("pre_call", "I am Jane")],
        ),
        blocked_request(f"{name}: a request is blocked", CHAT, rig=rig, http2=http2),
        Case(
            f"{name}: an answer is blocked",
            CHAT,
            ASK,
            Said(CHAT.answer("a secret")),
            blocks("secret"),
            rig=rig,
            http2=http2,
            status=400,
            client=BLOCKED,
            asked=[PRE_CALL, ("output", "Hello", "a secret")],
        ),
        Case(
            f"{name}: a stream is blocked in its midst",
            CHAT,
            ASK_STREAM,
            streams(*CHAT.events("One", " secret")),
            blocks("secret"),
            rig=rig,
            http2=http2,
            client=Ended(b"".join(CHAT.events("One")[:2]), "content_policy_violation", "Not that."),
            asked=[PRE_CALL, ("stream", "One", " secret")],
        ),
        Case(f"{name}: no body", CHAT, None, Said(None, None, 204), rig=rig, http2=http2, status=204, has_id=False),
    )
] + [
    Case(
        "HTTP/2 upstream: trailers of a stream",
        CHAT,
        ASK_STREAM,
        streams(*CHAT.events("Hi"), trailers=(("x-cost", "7"),)),
        rig="http2 upstream",
        client_trailers=(("x-cost", "7"),),
        asked=[PRE_CALL, ("stream", "Hi")],
    ),
]

FULL_DUPLEX = [
    Case("an answer", CHAT, ASK, ANSWER, rig="full duplex", asked=JUDGED),
    Case("a chunked request", CHAT, [ASK[:9], ASK[9:]], ANSWER, rig="full duplex", asked=JUDGED),
    Case("no body", CHAT, None, ANSWER, rig="full duplex", asked=[("output", "Hi")]),
    Case("an empty chunked body", CHAT, [], ANSWER, rig="full duplex", asked=[("output", "Hi")]),
    blocked_request("a request is blocked", CHAT, rig="full duplex"),
    Case(
        "a request is redacted",
        CHAT,
        CHAT.request("I am Jane"),
        Said(CHAT.answer("")),
        TAGGED,
        rig="full duplex",
        upstream=CHAT.request("I am [NAME_1]"),
        asked=[("pre_call", "I am Jane")],
    ),
    Case(
        "a redacted request with trailers",
        CHAT,
        [CHAT.request("I am Jane")],
        Said(CHAT.answer("")),
        TAGGED,
        rig="full duplex",
        trailers=(("x-check", "1"),),
        upstream=CHAT.request("I am [NAME_1]"),
        upstream_trailers=(("x-check", "1"),),
        asked=[("pre_call", "I am Jane")],
    ),
    Case(
        "a stream is redacted",
        CHAT,
        ASK_STREAM,
        streams(*CHAT.events("Hi ", "Jane")),
        TAGGED,
        rig="full duplex",
        client=CHAT.stream("Hi ", "[NAME_1]"),
        asked=[PRE_CALL, ("stream", "Hi ", "Jane")],
    ),
    Case(
        "an unreadable request",
        CHAT,
        b"Hello",
        rig="full duplex",
        status=400,
        client=INVALID,
        upstream=NEVER,
    ),
    Case(
        "a large request",
        CHAT,
        CHAT.request("x" * 2_000_000),
        Said(js({"choices": []})),
        rig="full duplex",
        asked=[("pre_call", "x" * 2_000_000)],
    ),
    Case(
        "a large upload that no dialect knows",
        CHAT,
        b"x" * 2_000_000,
        Said(b"{}", "x/y"),
        rig="full duplex",
        path="/v1/files",
        headers=_UPLOAD,
        is_inspected=False,
    ),
]

DELIMITED = [
    Case(
        "a stream without its last blank line",
        CHAT,
        ASK_STREAM,
        streams(CHAT.event(content="Hi").rstrip(b"\n")),
        asked=[PRE_CALL, ("stream", "Hi")],
    ),
    Case(
        "a stream in pieces of a byte",
        CHAT,
        ASK_STREAM,
        streams(*(b"%c" % byte for byte in CHAT.stream("Hi ", "żó"))),
        asked=[PRE_CALL, ("stream", "Hi ", "żó")],
    ),
    Case(
        "a stream in one piece",
        CHAT,
        ASK_STREAM,
        streams(CHAT.stream("Hel", "lo")),
        asked=[PRE_CALL, ("stream", "Hel", "lo")],
    ),
    Case(
        "a stream with a content-length",
        CHAT,
        ASK_STREAM,
        Said(CHAT.stream("Hel", "lo"), "text/event-stream"),
        asked=[PRE_CALL, ("stream", "Hel", "lo")],
    ),
    Case(
        "an event in several data lines",
        CHAT,
        ASK_STREAM,
        streams(b'data: {"choices":[{"index":0,\ndata: "delta":{"content":"Jane"}}]}\n\n', DONE),
        TAGGED,
        rig="firewall",
        client=b'data: {"choices":[{"index":0,\ndata: "delta":{"content":"[NAME_1]"}}]}\n\n' + DONE,
        asked=[PRE_CALL, ("stream", "Jane")],
    ),
]

ROWS = [
    *METHODS,
    *STATUSES,
    *BODIES,
    *TYPES,
    *SHAPES,
    *UNREADABLE_BODIES,
    *SIZES,
    *FIELDS,
    *TRAILERS,
    *PATHS,
    *UPGRADES,
    *HTTP2,
    *FULL_DUPLEX,
    *DELIMITED,
]
