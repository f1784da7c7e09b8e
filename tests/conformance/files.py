"""Models for requests that are forms, and for batches: what they answer follows from the request alone.

A form's fields are found as its bytes show them, without the code under test.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.conformance.models import SENTENCE
from tests.envoy.apis import DONE, data, js
from tests.fakes.upstream import Received, pieces, whole

SAID = "".join(SENTENCE)
SRT = f"1\n00:00:00,000 --> 00:00:01,000\n{SAID}\n\n"
_PLAIN = "text/plain; charset=utf-8"
_FIELD = re.compile(rb'name="([^"]+)"\r\n\r\n([^\r]*)\r\n').findall


def _fields(body: bytes) -> dict[str, str]:
    """Return the fields of a form that are no files."""
    return {name.decode(): value.decode() for name, value in _FIELD(body)}


async def transcriptions(request: Received) -> None:
    """Transcriptions and translations of audio."""
    fields = _fields(request.body)
    if fields.get("stream") == "true":
        deltas = [data({"type": "transcript.text.delta", "delta": word}) for word in SENTENCE]
        await pieces([*deltas, data({"type": "transcript.text.done", "text": SAID}), DONE])(request)
        return
    match fields.get("response_format", "json"):
        case "srt":
            await whole(SRT.encode(), content_type=_PLAIN)(request)
        case "text":
            await whole(f"{SAID}\n".encode(), content_type=_PLAIN)(request)
        case "verbose_json":
            segment = {"id": 0, "start": 0.0, "end": 1.0, "text": f" {SAID}", "tokens": [50364], "temperature": 0.0}
            words = [{"word": word.strip(), "start": 0.0, "end": 1.0} for word in SENTENCE]
            verbose = {"task": "transcribe", "language": "english", "duration": 1.0, "text": SAID}
            await whole(js(verbose | {"segments": [segment], "words": words}))(request)
        case _:
            await whole(js({"text": SAID, "usage": {"type": "duration", "seconds": 1}}))(request)


async def images(request: Received) -> None:
    """Images from a form."""
    assert "prompt" in _fields(request.body)
    await whole(js({"created": 1700000000, "data": [{"b64_json": "iVBORw0KGgo="}]}))(request)


def output(names: list[str]) -> bytes:
    """Return the output of a batch of OpenAI's."""
    message = {"role": "assistant", "content": SAID}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "choices": [{"index": 0, "message": message}]}
    answers = [{"custom_id": name, "response": {"status_code": 200, "body": body}, "error": None} for name in names]
    return b"".join(js(each) + b"\n" for each in answers)


async def files(request: Received) -> None:
    """Files, and the batches of which they are the input."""
    if request.method == "GET":
        await whole(output(["a", "b"]), content_type="application/octet-stream")(request)
        return
    if request.path.endswith("/batches"):
        asked = json.loads(request.body)
        batch = {"id": "batch_1", "object": "batch", "status": "validating", "created_at": 1700000000}
        await whole(js(batch | asked))(request)
        return
    file = {"id": "file-1", "object": "file", "bytes": len(request.body), "created_at": 1700000000}
    await whole(
        js(file | {"filename": "in.jsonl", "purpose": _fields(request.body)["purpose"], "status": "processed"})
    )(request)


async def message_batches(request: Received) -> None:
    """Anthropic's batches of messages, and their results."""
    times = {"created_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-02T00:00:00Z"}
    counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
    batch: dict[str, Any] = {"id": "msgbatch_1", "type": "message_batch", "processing_status": "ended", **times}
    if request.path.endswith("/results"):
        message: dict[str, Any] = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "stop_reason": "end_turn",
        }
        message |= {"content": [{"type": "text", "text": SAID}], "usage": {"input_tokens": 3, "output_tokens": 5}}
        lines = [{"custom_id": name, "result": {"type": "succeeded", "message": message}} for name in ("a", "b")]
        await pieces([js(each) + b"\n" for each in lines], content_type="application/x-jsonl")(request)
        return
    host = request.header("host")
    results = f"http://{host}/v1/messages/batches/msgbatch_1/results"
    await whole(js(batch | {"request_counts": counts, "results_url": results}))(request)
