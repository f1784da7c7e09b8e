"""Paths and encodings that a model's server understands, and a guard might not."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from typing import Final

import brotli

from tests.attack.attack import SERVED, UNSEEN_ANSWER, UNSEEN_REQUEST, Attack, Script
from tests.attack.target import JSON, SECRET, Target
from tests.fakes.rig import chat_answer, chat_request
from tests.fakes.upstream import whole

_BODY: Final = json.dumps(chat_request(SECRET)).encode()

PATHS: Final = (
    "/v1/chat/completions/",
    "//v1//chat//completions",
    "/v1/./chat/completions",
    "/v1/models/../chat/completions",
    "/v1/chat%2Fcompletions",
    "/v1/chat/%63ompletions",
    "/v1/chat/%2563ompletions",
    "/V1/Chat/Completions",
    "/v1/chat;a=b/completions",
    "/v1\\chat\\completions",
    "/v1/chat/completions?x=/v1/embeddings",
    "/v1/chat/completions%3F/embeddings",
    "/any/prefix/v1/chat/completions",
    "/not/known/at/all",
)

ENCODINGS: Final[Mapping[str, tuple[bytes, tuple[tuple[str, str], ...]]]] = {
    "gzip": (gzip.compress(_BODY), (("content-encoding", "gzip"),)),
    "two members of gzip": (gzip.compress(_BODY[:20]) + gzip.compress(_BODY[20:]), (("content-encoding", "gzip"),)),
    "raw deflate": (zlib.compress(_BODY, wbits=-15), (("content-encoding", "deflate"),)),
    "brotli": (brotli.compress(_BODY), (("content-encoding", "br"),)),
    "stacked": (gzip.compress(gzip.compress(_BODY)), (("content-encoding", "gzip, gzip"),)),
    "two fields": (gzip.compress(gzip.compress(_BODY)), (("content-encoding", "gzip"), ("content-encoding", "gzip"))),
    "one that nobody knows": (_BODY, (("content-encoding", "x-new"),)),
    "one that is not true": (_BODY, (("content-encoding", "gzip"),)),
    "identity": (_BODY, (("content-encoding", "identity"),)),
    "cut off": (gzip.compress(_BODY)[:-9], (("content-encoding", "gzip"),)),
    "a bomb": (gzip.compress(b" " * 50_000_000 + _BODY), (("content-encoding", "gzip"),)),
}

TYPES: Final = (
    "text/plain",
    "application/octet-stream",
    "multipart/form-data; boundary=x",
    "application/json; charset=utf-7",
)


def _at(path: str) -> Script:
    async def run(target: Target) -> None:
        got = await target.ask(_BODY, target=path)
        assert not target.model.requests, f"the model got it, the client {got.status}"

    return run


def _encoded(body: bytes, headers: tuple[tuple[str, str], ...]) -> Script:
    async def run(target: Target) -> None:
        got = await target.ask(body, *headers)
        assert not target.model.requests, f"the model got it, the client {got.status}"

    return run


def _typed(name: str) -> Script:
    async def run(target: Target) -> None:
        got = await target.ask(_BODY, ("content-type", name))
        assert not target.model.requests, f"the model got it, the client {got.status}"

    return run


def _answered(content_type: str, *, is_gzip: bool = False) -> Script:
    async def run(target: Target) -> None:
        body = chat_answer(SECRET)
        target.model.answer = whole(body, content_type=content_type)
        if is_gzip:
            target.model.answer = whole(gzip.compress(body), content_type=content_type, content_encoding="gzip")
        got = await target.ask(json.dumps(chat_request("Hello")).encode())
        assert SECRET.encode() not in got.body
        assert gzip.compress(body)[10:] not in got.body

    return run


async def _declares(target: Target) -> None:
    """Declare more than the limit, and send nothing."""
    got = await target.ask([b"{"], ("content-length", str(10**15)))
    assert got.status in (0, 400, 413)


async def _chunks(target: Target) -> None:
    """Send a large body a byte at a time."""
    got = await target.ask([bytes([each]) for each in _BODY], JSON)
    assert not target.model.requests, f"the model got it, the client {got.status}"


async def _fields(target: Target) -> None:
    """Send as many header fields as Envoy takes."""
    got = await target.ask(_BODY, *((f"x-{number}", "y" * 100) for number in range(95)))
    assert not target.model.requests, f"the model got it, the client {got.status}"


ATTACKS: Final = [
    *(Attack(f"path: {path}", UNSEEN_REQUEST, _at(path)) for path in PATHS),
    *(Attack(f"encoding: {name}", UNSEEN_REQUEST, _encoded(*each)) for name, each in ENCODINGS.items()),
    *(Attack(f"content type: {name}", UNSEEN_REQUEST, _typed(name)) for name in TYPES),
    Attack("answer: content type text/plain", UNSEEN_ANSWER, _answered("text/plain")),
    Attack("answer: content type image/png", UNSEEN_ANSWER, _answered("image/png")),
    Attack("answer: gzip that nobody asked for", UNSEEN_ANSWER, _answered("application/json", is_gzip=True)),
    Attack("request: a length without a body", SERVED, _declares),
    Attack("request: one byte per chunk", UNSEEN_REQUEST, _chunks),
    Attack("request: many header fields", UNSEEN_REQUEST, _fields),
]
