"""Recorded traffic of real providers passes byte for byte if Aim allows it, for any cut.

The expected outcome of an exchange follows from its recording: from its method, path, status, content type and bodies.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from tests.envoy.apis import CHAT
from tests.fakes.client import Got, exchange
from tests.fakes.recorded import FOLDERS, Recorded, recorded
from tests.fakes.rig import Rig, Rigs
from tests.fakes.upstream import pieces, whole

RECORDED = recorded(*FOLDERS)

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not RECORDED, reason=f"no recorded traffic in {FOLDERS[0].parent}"),
]

Cut = Callable[[bytes], bytes | Sequence[bytes]]


@pytest_asyncio.fixture(loop_scope="package")
async def chain(rigs: Rigs) -> Rig:
    inspect = {"embeddings": True, "tools": True}
    return await rigs.get("recorded", profiles={"default": {"inspect": inspect}})


# -- how bodies are cut -----------------------------------------------------------------------------------------------


def _uncut(body: bytes) -> bytes:
    return body


def _finely(body: bytes) -> Sequence[bytes]:
    """Cut into single bytes; a long body into pieces of a few bytes."""
    size = 1 + len(body) // 2_000
    return [body[start : start + size] for start in range(0, len(body), size)]


def _anywhere(body: bytes) -> Sequence[bytes]:
    """Cut at up to 40 places."""
    generator = random.Random(len(body))
    cuts = sorted(generator.sample(range(len(body) + 1), min(len(body), 40)))
    return [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]


# -- what follows from a recording ------------------------------------------------------------------------------------

_GUARDED = re.compile(
    r"/(chat/completions|completions|messages|responses|embeddings|images/generations"
    r"|v2/chat|v2/embed|v1beta/interactions|realtime/client_secrets)$"
    r"|:((stream)?generatecontent|(batch)?embedcontents?|counttokens)$",
    re.IGNORECASE,
)
"""The endings of paths whose requests are always inspected."""

_TEXTS = ("content", "text", "texts", "input", "prompt", "arguments", "thinking", "reasoning_content", "refusal")
"""The keys of texts in the APIs of those paths."""


def _is_guarded(recording: Recorded) -> bool:
    return recording.method == "POST" and bool(_GUARDED.search(recording.path.partition("?")[0]))


def _is_tokens(value: Any) -> bool:
    """Return whether a prompt consists of token numbers, which the sidecar cannot read."""
    return isinstance(value, list) and any(isinstance(item, int) or _is_tokens(item) for item in value)


def _is_refused(recording: Recorded) -> bool:
    if not _is_guarded(recording) or recording.request is None:
        return False
    request = json.loads(recording.request)
    return _is_tokens(request.get("prompt")) or _is_tokens(request.get("input"))


def _documents(body: bytes, content_type: str) -> Iterator[Any]:
    """Yield the JSON documents of a body or of its events."""
    if content_type.startswith("application/json"):
        yield json.loads(body)
    elif content_type.startswith("text/event-stream"):
        for line in body.splitlines():
            if line.startswith(b"data:") and (data := line.removeprefix(b"data:").strip()) not in (b"", b"[DONE]"):
                yield json.loads(data)


def _says(node: Any, key: str = "") -> bool:
    """Return whether a document has a text that Aim must judge."""
    if isinstance(node, str):
        return key in _TEXTS and bool(node) and (key != "arguments" or node != "{}")
    if isinstance(node, list):
        return any(_says(item, key) for item in node)
    return isinstance(node, dict) and any(_says(value, name) for name, value in node.items())


# -- the exchange -----------------------------------------------------------------------------------------------------


async def _replay(chain: Rig, recording: Recorded, cut: Cut) -> Got:
    """Send the recorded request and answer as recorded. Parts that were not recorded are as short as possible."""
    if recording.response is None:
        chain.upstream.answer = whole(b"{}")
    else:
        said, how = cut(recording.response), (recording.status, recording.content_type)
        chain.upstream.answer = whole(said, *how) if isinstance(said, bytes) else pieces(said, *how)
    request = _request(recording)
    headers = (("content-type", "application/json"),) if request is not None else ()
    body = cut(request) if request is not None else None
    got = await exchange(chain.envoy.url, recording.method, recording.path, headers, body)
    await chain.sidecar.service.idle.wait()
    return got


def _request(recording: Recorded) -> bytes | None:
    if recording.request is None and recording.method == "POST":
        return json.dumps({"stream": "event-stream" in recording.content_type}).encode()
    return recording.request


@pytest.mark.asyncio(loop_scope="package")
@pytest.mark.parametrize("cut", [_uncut, _finely, _anywhere], ids=["uncut", "cut finely", "cut anywhere"])
@pytest.mark.parametrize("recording", RECORDED, ids=lambda recording: recording.name)
async def test_recorded_exchange_passes_byte_for_byte(chain: Rig, recording: Recorded, cut: Cut) -> None:
    got = await _replay(chain, recording, cut)
    if _is_refused(recording):
        message = json.loads(got.body)["error"]["message"]
        assert (got.status, json.loads(got.body)) == (400, CHAT.refusal(400, "invalid_body", message))
        assert chain.upstream.requests == []
    else:
        _check_transparency(chain, recording, got)
        _check_inspection(chain, recording, got)


def _check_transparency(chain: Rig, recording: Recorded, got: Got) -> None:
    (request,) = chain.upstream.requests
    assert (request.method, request.path) == (recording.method, recording.path)
    assert request.body == (_request(recording) or b"")
    assert (got.status, got.is_whole) == (recording.status, True)
    if recording.response is not None:
        assert got.body == recording.response
        assert got.header("content-type") == recording.content_type
    else:
        assert got.body == b"{}"


def _check_inspection(chain: Rig, recording: Recorded, got: Got) -> None:
    """Check that the sidecar inspected the exchange."""
    assert got.header("x-aim-call-id") or not _is_guarded(recording)
    if not _is_guarded(recording):
        return
    if recording.request is not None and _says(json.loads(recording.request)):
        assert chain.aim.asked("pre_call")
    is_answer = recording.status == 200 and recording.response is not None
    if is_answer and any(map(_says, _documents(recording.response or b"", recording.content_type))):
        assert chain.aim.asked("output") or any(session.is_done for session in chain.aim.sessions)


def test_all_recordings_are_present() -> None:
    """Both sets are complete, and exceptions stay rare."""
    assert len(RECORDED) >= 329
    assert len([recording for recording in RECORDED if recording.request is not None]) >= 190
    assert len([recording for recording in RECORDED if "event-stream" in recording.content_type]) >= 80
    assert len([recording for recording in RECORDED if _is_guarded(recording)]) >= 200
    (escaped,) = [recording for recording in RECORDED if "%2f" in recording.path.lower()]
    assert escaped.path.startswith("/model/arn")
    assert len([recording for recording in RECORDED if _is_refused(recording)]) == 4
