"""Rows about content-encodings: unchanged bodies keep their encoding, rewritten bodies and streams are decoded."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import brotli
import zstandard

from tests.envoy.apis import CHAT, RESPONSES
from tests.envoy.case import ASK, ASK_STREAM, NEVER, PRE_CALL, TAGGED, Case, Ended, Refused, Said, blocks, streams

OUTPUT = ("output", "Hello", "Hi Jane")
UNREADABLE = Refused("guardrail_unreadable_response")
INVALID = Refused("invalid_body")
TOO_LARGE = Refused("request_too_large")


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": _gzip,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "deflate": zlib.compress,
}


def _thirds(data: bytes) -> list[bytes]:
    """Cut a compressed stream so that events span several pieces."""
    third = len(data) // 3
    return [data[:third], data[third : 2 * third], data[2 * third :]]


def coded(coding: str) -> list[Case]:
    """Return the rows of one content-encoding."""
    pack = CODINGS[coding]
    named = (("content-encoding", coding),)
    asked, said = pack(CHAT.request("I am Jane")), pack(CHAT.answer("Hi Jane"))
    stream = pack(CHAT.stream("Hi ", "Jane"))
    redacted = CHAT.request("I am [NAME_1]")
    return [
        Case(
            f"{coding}: a request is released unchanged",
            CHAT,
            asked,
            Said(CHAT.answer("")),
            headers=named,
            upstream_headers={"content-encoding": coding, "content-length": str(len(asked))},
            asked=[("pre_call", "I am Jane")],
        ),
        Case(
            f"{coding}: a redacted request is released decoded",
            CHAT,
            asked,
            Said(CHAT.answer("")),
            TAGGED,
            rig="firewall",
            headers=named,
            upstream=redacted,
            upstream_headers={"content-encoding": None, "content-length": str(len(redacted))},
            asked=[("pre_call", "I am Jane")],
        ),
        Case(
            f"{coding}: an answer is released unchanged",
            CHAT,
            ASK,
            Said(said, headers=(*named, ("etag", '"v1"'))),
            client_headers={"content-encoding": coding, "etag": '"v1"'},
            asked=[PRE_CALL, OUTPUT],
        ),
        Case(
            f"{coding}: a redacted answer is released decoded",
            CHAT,
            ASK,
            Said(said, headers=(*named, ("etag", '"v1"'), ("content-digest", "sha-256=:x:"))),
            TAGGED,
            rig="firewall",
            client=CHAT.answer("Hi [NAME_1]"),
            client_headers={"content-encoding": None, "etag": None, "content-digest": None},
            asked=[PRE_CALL, OUTPUT],
        ),
        Case(
            f"{coding}: a stream is released decoded",
            CHAT,
            ASK_STREAM,
            streams(*_thirds(stream), headers=named),
            client=CHAT.stream("Hi ", "Jane"),
            client_headers={"content-encoding": None},
            asked=[PRE_CALL, ("stream", "Hi ", "Jane")],
        ),
        Case(
            f"{coding}: a stream is redacted",
            CHAT,
            ASK_STREAM,
            streams(*_thirds(stream), headers=named),
            TAGGED,
            rig="firewall",
            client=CHAT.stream("Hi ", "[NAME_1]"),
            client_headers={"content-encoding": None},
            asked=[PRE_CALL, ("stream", "Hi ", "Jane")],
        ),
        Case(
            f"{coding}: a request cut short is unreadable",
            CHAT,
            asked[:-6],
            headers=named,
            status=400,
            client=INVALID,
            upstream=NEVER,
        ),
        Case(
            f"{coding}: an answer cut short is unreadable",
            CHAT,
            ASK,
            Said(said[:-6], headers=named),
            status=502,
            client=UNREADABLE,
            asked=[PRE_CALL],
        ),
        Case(
            f"{coding}: a request that inflates beyond the ratio",
            CHAT,
            pack(CHAT.request("x" * 3_000_000)),
            headers=named,
            status=413,
            client=TOO_LARGE,
            upstream=NEVER,
        ),
        Case(
            f"{coding}: an answer that inflates beyond the ratio",
            CHAT,
            ASK,
            Said(pack(CHAT.answer("x" * 3_000_000)), headers=named),
            status=502,
            client=UNREADABLE,
            asked=[PRE_CALL],
        ),
    ]


def _with(name: str, data: bytes, *, expected: object = None, status: int = 400) -> Case:
    return Case(
        f"a request's content-encoding: {name}",
        CHAT,
        data,
        Said(CHAT.answer("")),
        headers=(("content-encoding", name),),
        status=200 if expected is None else status,
        client=expected,
        upstream=None if expected is None else NEVER,
        upstream_headers={"content-encoding": name} if expected is None else {},
        asked=[PRE_CALL] if expected is None else [],
    )


ROWS = [
    *(row for coding in CODINGS for row in coded(coding)),
    _with("identity", ASK),
    _with("GZip", _gzip(ASK)),
    _with("x-gzip", _gzip(ASK)),
    _with("gzip, br", brotli.compress(_gzip(ASK)), expected=INVALID),
    _with("compress", ASK, expected=INVALID),
    _with("gzip", ASK, expected=INVALID),
    Case(
        "deflate without zlib's header",
        CHAT,
        _raw_deflate(ASK),
        Said(CHAT.answer("")),
        headers=(("content-encoding", "deflate"),),
        asked=[PRE_CALL],
    ),
    Case(
        "gzip in two members",
        CHAT,
        _gzip(ASK[:20]) + _gzip(ASK[20:]),
        Said(CHAT.answer("")),
        headers=(("content-encoding", "gzip"),),
        asked=[PRE_CALL],
    ),
    Case(
        "content-encoding in two fields is stacked",
        CHAT,
        brotli.compress(_gzip(ASK)),
        headers=(("content-encoding", "gzip"), ("content-encoding", "br")),
        status=400,
        client=INVALID,
        upstream=NEVER,
    ),
    Case(
        "an answer in an unknown content-encoding",
        CHAT,
        ASK,
        Said(CHAT.answer("Hi"), headers=(("content-encoding", "compress"),)),
        status=502,
        client=UNREADABLE,
        asked=[PRE_CALL],
    ),
    Case(
        "an answer in an unknown content-encoding: open",
        CHAT,
        ASK,
        Said(CHAT.answer("Hi"), headers=(("content-encoding", "compress"),)),
        rig="open",
        client_headers={"content-encoding": "compress"},
        asked=[PRE_CALL],
    ),
    Case(
        "a stream in an unknown content-encoding",
        CHAT,
        ASK_STREAM,
        streams(*CHAT.events("Hi"), headers=(("content-encoding", "compress"),)),
        status=502,
        client=UNREADABLE,
        asked=[PRE_CALL],
    ),
    Case(
        "a stream in an unknown content-encoding: open",
        CHAT,
        ASK_STREAM,
        streams(*CHAT.events("Hi"), headers=(("content-encoding", "compress"),)),
        rig="open",
        asked=[PRE_CALL],
    ),
    Case(
        "a stream that is not in the content-encoding that it names",
        CHAT,
        ASK_STREAM,
        streams(*CHAT.events("Hi"), headers=(("content-encoding", "gzip"),)),
        status=502,
        client=UNREADABLE,
        asked=[PRE_CALL],
    ),
    Case(
        "a compressed stream is blocked in its midst",
        RESPONSES,
        RESPONSES.request("Hello", stream=True),
        streams(_gzip(RESPONSES.stream("One", " secret")), headers=(("content-encoding", "gzip"),)),
        blocks("secret"),
        client=Ended(b"".join(RESPONSES.events("One", "")[:4]), "content_policy_violation", "Not that.", 4),
        client_headers={"content-encoding": None},
        asked=[PRE_CALL, ("stream", "One", " secret")],
    ),
    Case(
        "the digests of a redacted request are removed",
        CHAT,
        CHAT.request("I am Jane"),
        Said(CHAT.answer("")),
        TAGGED,
        rig="firewall",
        headers=(("content-digest", "sha-256=:x:"), ("content-md5", "x"), ("x-kept", "yes")),
        upstream=CHAT.request("I am [NAME_1]"),
        upstream_headers={"content-digest": None, "content-md5": None, "x-kept": "yes"},
        asked=[("pre_call", "I am Jane")],
    ),
    Case(
        "the digests of an untouched request stay",
        CHAT,
        ASK,
        Said(CHAT.answer("")),
        headers=(("content-digest", "sha-256=:x:"), ("content-md5", "x")),
        upstream_headers={"content-digest": "sha-256=:x:", "content-md5": "x"},
        asked=[PRE_CALL],
    ),
]
