"""What a client of an API is told: the text and the reason to finish of an answer, read as its documentation says.

Nothing here is taken from extproc.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

_Path = tuple[str | int, ...]

_CHAT: tuple[_Path, ...] = (("choices", 0, "message", "content"), ("choices", 0, "delta", "content"))
_CHOICE: tuple[_Path, ...] = (("choices", 0, "finish_reason"),)
_CANDIDATE: _Path = ("candidates", 0, "content", "parts", 0, "text")
_MESSAGES = (
    (("content", 0, "text"), ("delta", "text")),
    (("stop_reason",), ("delta", "stop_reason")),
    "refusal",
)

_API: dict[str, tuple[tuple[_Path, ...], tuple[_Path, ...], str | None]] = {
    "chat": (_CHAT, _CHOICE, "content_filter"),
    "completions": ((("choices", 0, "text"),), _CHOICE, "content_filter"),
    "responses": (
        (("output", 0, "content", 0, "refusal"), ("delta",)),
        (("status",), ("response", "status")),
        "completed",
    ),
    "anthropic": _MESSAGES,
    "bedrock invoke of claude": _MESSAGES,
    "anthropic complete": ((("completion",),), (("stop_reason",),), "refusal"),
    "gemini": ((_CANDIDATE,), (("candidates", 0, "finishReason"),), "SAFETY"),
    "code assist": (
        (("response", *_CANDIDATE),),
        (("response", "candidates", 0, "finishReason"),),
        "SAFETY",
    ),
    "interactions": (
        (("steps", 0, "content", 0, "text"), ("delta", "text")),
        (("status",), ("interaction", "status")),
        "completed",
    ),
    "bedrock converse": (
        (("output", "message", "content", 0, "text"), ("delta", "text")),
        (("stopReason",),),
        "guardrail_intervened",
    ),
    "cohere": (
        (("message", "content", 0, "text"), ("delta", "message", "content", "text")),
        (("finish_reason",), ("delta", "finish_reason")),
        "ERROR",
    ),
    "cohere v1": ((("text",),), (("finish_reason",),), "ERROR_TOXIC"),
    "ollama": ((("message", "content"),), (("done_reason",),), "content_filter"),
    "ollama generate": ((("response",),), (("done_reason",),), "content_filter"),
    "mistral": ((("outputs", 0, "content"), ("content",)), (), None),
    "tgi": ((("token", "text"), ("generated_text",)), (), None),
    "llama.cpp": ((("content",),), (("stop_type",),), "content_filter"),
    "sglang": ((("text",),), (("meta_info", "finish_reason", "type"),), "content_filter"),
}
"""For each API the places of texts in answers and events, those of the reason to finish, and that of a block."""

_ALIKE = {
    "cohere v1 in events": "cohere v1",
    "tgi in lines": "tgi",
    **dict.fromkeys(("invocations", "portkey", "mistral on vertex", "fim"), "chat"),
}


def reason(api: str) -> str | None:
    """Return the reason to finish that says that an answer was blocked; None if the API has none."""
    return _API[_ALIKE.get(api, api)][2]


def told(api: str, content_type: str, body: bytes) -> tuple[str, str | None]:
    """Return the text of an answer or a stream, and why it ends."""
    places, finishes, _ = _API[_ALIKE.get(api, api)]
    documents = list(_documents(content_type, body))
    texts = [text for each in documents if isinstance(text := _first(each, places), str)]
    reasons = [found for each in documents if isinstance(found := _first(each, finishes), str)]
    return "".join(texts), reasons[-1] if reasons else None


def _first(document: Any, places: tuple[_Path, ...]) -> Any:
    """Return the value at the first place that the document has."""
    return next((value for place in places if (value := _at(document, place)) is not None), None)


def _at(node: Any, place: _Path) -> Any:
    for step in place:
        try:
            node = node[step]
        except (KeyError, IndexError, TypeError):
            return None
    return node


def _documents(content_type: str, body: bytes) -> Iterator[Any]:
    match content_type:
        case "text/event-stream":
            for line in body.decode().splitlines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    yield json.loads(line.removeprefix("data: "))
        case "application/x-ndjson" | "application/stream+json":
            yield from map(json.loads, body.decode().splitlines())
        case "application/vnd.amazon.eventstream":
            while body:
                size, headers = (int.from_bytes(body[at : at + 4], "big") for at in (0, 4))
                document = json.loads(body[12 + headers : size - 4])
                yield json.loads(b64decode(document["bytes"])) if "bytes" in document else document
                body = body[size:]
        case _:
            whole = json.loads(body)
            yield from whole if isinstance(whole, list) else [whole]
