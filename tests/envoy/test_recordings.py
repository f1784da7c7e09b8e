"""Recorded traffic of real providers comes out byte for byte as it was when Aim changes nothing, however it is cut."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.client import exchange
from tests.fakes.envoy import needs_envoy
from tests.fakes.rig import Rig, rig
from tests.fakes.upstream import pieces, whole

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"

pytestmark = [
    *needs_envoy,
    pytest.mark.corpus,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no recorded traffic in {CORPUS}"),
]

_JSON = (("content-type", "application/json"),)


@dataclass(frozen=True)
class Recording:
    """One folder of the corpus."""

    name: str
    path: str
    status: int
    content_type: str
    request: bytes | None
    response: bytes | None


def _read(folder: Path) -> Recording:
    meta = json.loads((folder / "meta.json").read_text())
    bodies = [
        file.read_bytes() if file.exists() else None for file in (folder / "request.json", folder / "response.body")
    ]
    return Recording(folder.name, meta["path"], meta["status"] or 200, meta["content_type"], *bodies)


RECORDINGS = [_read(meta.parent) for meta in sorted(CORPUS.glob("*/meta.json"))]
ANSWERS = [recording for recording in RECORDINGS if recording.response is not None]
REQUESTS = [recording for recording in RECORDINGS if recording.request is not None]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running() -> AsyncIterator[Rig]:
    async with rig(profiles={"default": {"inspect": {"embeddings": True, "tools": True}}}) as chain:
        yield chain


@pytest.fixture
def chain(running: Rig) -> Rig:
    running.reset()
    return running


def _bytewise(body: bytes) -> Sequence[bytes]:
    return [body[position : position + 1] for position in range(len(body))]


def _random(body: bytes) -> Sequence[bytes]:
    generator = random.Random(len(body))
    cuts = sorted(generator.sample(range(len(body) + 1), min(len(body), 40)))
    return [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]


_SAY_NOTHING = {"apisix-openai-null-content-json", "openai-chat-streaming-detailed-usage", "openai-embeddings-basic"}
_ASK_NOTHING = {"openai-chat-bad-request", "openai-chat-no-messages"}
"""Recordings without a text, about which Aim is not asked."""


@pytest.mark.parametrize("cut", [None, _bytewise, _random], ids=["whole", "bytewise", "random"])
@pytest.mark.parametrize("recording", ANSWERS, ids=lambda recording: recording.name)
async def test_an_answer_comes_out_as_it_was_recorded(chain: Rig, recording: Recording, cut: object) -> None:
    body = recording.response
    assert body is not None
    if callable(cut):
        chain.upstream.answer = pieces(cut(body), recording.status, recording.content_type)
    else:
        chain.upstream.answer = whole(body, recording.status, recording.content_type)
    request = recording.request or json.dumps({"stream": "event-stream" in recording.content_type}).encode()
    got = await exchange(chain.envoy.url, "POST", recording.path, _JSON, request)
    await chain.sidecar.service.idle.wait()
    assert (got.status, got.body, got.is_whole) == (recording.status, body, True)
    assert got.header("content-type") == recording.content_type
    assert got.header("x-aim-call-id")
    # Not because nobody looked:
    is_judged = bool(chain.aim.asked("output")) or any(session.is_done for session in chain.aim.sessions)
    assert is_judged == (recording.status == 200 and recording.name not in _SAY_NOTHING)


@pytest.mark.parametrize("form", [bytes, _bytewise], ids=["length", "chunked"])
@pytest.mark.parametrize("recording", REQUESTS, ids=lambda recording: recording.name)
async def test_a_request_reaches_the_upstream_as_it_was_recorded(
    chain: Rig, recording: Recording, form: object
) -> None:
    assert recording.request is not None
    assert callable(form)
    got = await exchange(chain.envoy.url, "POST", recording.path, _JSON, form(recording.request))
    assert got.status == 200
    (request,) = chain.upstream.requests
    assert request.body == recording.request
    assert bool(chain.aim.asked("pre_call")) == (recording.name not in _ASK_NOTHING)


async def test_the_corpus_is_all_there() -> None:
    assert len(RECORDINGS) >= 29
    assert len(ANSWERS) >= 24
    assert sum("event-stream" in recording.content_type for recording in ANSWERS) >= 7
