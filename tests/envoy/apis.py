"""The wire format of each provider API: requests, answers, streams and refusals, written by hand.

Nothing here is taken from extproc: the shapes of refusals are those of the contract and of the providers.
"""

from __future__ import annotations

import json
from typing import Any

DONE = b"data: [DONE]\n\n"


def js(value: Any) -> bytes:
    """Return JSON as Python spells it. The sidecar spells rewritten strings in the same way."""
    return json.dumps(value).encode()


def asking(body: dict[str, Any], *, stream: bool) -> bytes:
    """Return a request that asks for a stream, or not."""
    return js(body | ({"stream": True} if stream else {}))


def data(value: Any, event: str = "", end: bytes = b"\n\n") -> bytes:
    """Return a server-sent event."""
    return (f"event: {event}\n".encode() if event else b"") + b"data: " + js(value) + end


def typed(kind: str, **more: Any) -> bytes:
    """Return a server-sent event whose type is also in its data."""
    return data({"type": kind, **more}, kind)


class Api:
    """One API; the defaults are OpenAI's."""

    name: str
    path: str
    stream_type = "text/event-stream"
    head = 0
    """The number of a stream's events before its first text."""
    tail = 0
    """The number of a stream's events after its last text."""

    def path_of(self, *, stream: bool) -> str:
        return self.path

    def request(self, *texts: str, stream: bool = False) -> bytes:
        raise AssertionError(f"{self.name} has none")

    def answer(self, *texts: str) -> bytes:
        raise AssertionError(f"{self.name} has none")

    def events(self, *texts: str) -> list[bytes]:
        raise AssertionError(f"{self.name} has none")

    def stream(self, *texts: str) -> bytes:
        return b"".join(self.events(*texts))

    def refusal(self, status: int, code: str, message: str) -> Any:
        kind = "invalid_request_error" if status < 500 else "api_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}

    def ending(self, status: int, code: str, message: str, sequence: int) -> bytes:
        """Return the end of a running stream whose last event was number `sequence` - 1."""
        return data(self.refusal(status, code, message)) + DONE

    def refusal_headers(self, status: int) -> dict[str, str]:
        """Return the headers of a refusal that only this API has."""
        return {}

    def said_at(self, ending: bytes) -> Any:
        """Return the JSON of the event or line that ends a stream with a refusal."""
        event = next(line for line in ending.splitlines() if line.startswith((b"data: ", b"{")))
        return json.loads(event.removeprefix(b"data: "))

    def message_in(self, said: Any) -> Any:
        """Return the message of a refusal, or of the event or line that ends a stream with one."""
        return (said["error"] if isinstance(said.get("error"), dict) else said)["message"]


class Chat(Api):
    name = "chat"
    path = "/v1/chat/completions"
    head = 1
    tail = 2

    def request(self, *texts: str, stream: bool = False) -> bytes:
        body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": text} for text in texts]}
        return asking(body, stream=stream)

    def answer(self, *texts: str) -> bytes:
        choices = [
            {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for index, text in enumerate(texts)
        ]
        return js({"id": "c1", "object": "chat.completion", "choices": choices})

    def event(self, finish: str | None = None, index: int = 0, **delta: Any) -> bytes:
        choice = {"index": index, "delta": delta, "finish_reason": finish}
        return data({"id": "c1", "object": "chat.completion.chunk", "choices": [choice]})

    def events(self, *texts: str) -> list[bytes]:
        return [
            self.event(role="assistant", content=""),
            *(self.event(content=text) for text in texts),
            self.event(finish="stop"),
            DONE,
        ]


class Completions(Api):
    name = "completions"
    path = "/v1/completions"
    tail = 2

    def request(self, *texts: str, stream: bool = False) -> bytes:
        prompt = texts[0] if len(texts) == 1 else list(texts)
        return asking({"model": "m", "prompt": prompt}, stream=stream)

    def answer(self, *texts: str) -> bytes:
        choices = [{"text": text, "index": index, "finish_reason": "stop"} for index, text in enumerate(texts)]
        return js({"id": "cmpl-1", "object": "text_completion", "choices": choices})

    def events(self, *texts: str) -> list[bytes]:
        pieces = [
            {"id": "cmpl-1", "object": "text_completion", "choices": [{"text": text, "index": 0, "finish_reason": end}]}
            for text, end in [*((text, None) for text in texts), ("", "stop")]
        ]
        return [*map(data, pieces), DONE]


class Responses(Api):
    name = "responses"
    path = "/v1/responses"
    head = 3
    tail = 4

    def request(self, *texts: str, stream: bool = False) -> bytes:
        given = texts[0] if len(texts) == 1 else [{"role": "user", "content": text} for text in texts]
        return asking({"model": "m", "input": given}, stream=stream)

    @staticmethod
    def part(text: str) -> Any:
        return {"type": "output_text", "text": text, "annotations": []}

    def item(self, *texts: str) -> Any:
        content = [self.part(text) for text in texts]
        return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}

    def response(self, *texts: str) -> Any:
        return {"id": "resp_1", "object": "response", "status": "completed", "output": [self.item(*texts)]}

    def answer(self, *texts: str) -> bytes:
        return js(self.response(*texts))

    def events(self, *texts: str) -> list[bytes]:
        whole = "".join(texts)
        item = {"output_index": 0}
        part = item | {"item_id": "msg_1", "content_index": 0}
        steps: list[tuple[str, Any]] = [
            ("response.created", {"response": self.response() | {"status": "in_progress", "output": []}}),
            ("response.output_item.added", item | {"item": self.item()}),
            ("response.content_part.added", part | {"part": self.part("")}),
            *(("response.output_text.delta", part | {"delta": text}) for text in texts),
            ("response.output_text.done", part | {"text": whole}),
            ("response.content_part.done", part | {"part": self.part(whole)}),
            ("response.output_item.done", item | {"item": self.item(whole)}),
            ("response.completed", {"response": self.response(whole)}),
        ]
        return [
            data({"type": kind, "sequence_number": number} | body, kind) for number, (kind, body) in enumerate(steps)
        ]

    def ending(self, status: int, code: str, message: str, sequence: int) -> bytes:
        error = {"type": "error", "code": code, "message": message, "param": None, "sequence_number": sequence}
        return data(error, "error")


class Anthropic(Api):
    name = "anthropic"
    path = "/v1/messages"
    head = 3
    tail = 3

    def request(self, *texts: str, stream: bool = False) -> bytes:
        messages = [{"role": "user", "content": text} for text in texts]
        return asking({"model": "m", "max_tokens": 64, "messages": messages}, stream=stream)

    def message(self, *texts: str) -> Any:
        content = [{"type": "text", "text": text} for text in texts]
        return {"id": "msg_1", "type": "message", "role": "assistant", "content": content, "stop_reason": "end_turn"}

    def answer(self, *texts: str) -> bytes:
        return js(self.message(*texts))

    def events(self, *texts: str) -> list[bytes]:
        return [
            typed("message_start", message=self.message() | {"stop_reason": None}),
            typed("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            typed("ping"),
            *(typed("content_block_delta", index=0, delta={"type": "text_delta", "text": text}) for text in texts),
            typed("content_block_stop", index=0),
            typed("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3}),
            typed("message_stop"),
        ]

    def refusal(self, status: int, code: str, message: str) -> Any:
        kind = {400: "invalid_request_error", 413: "request_too_large"}.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}}

    def ending(self, status: int, code: str, message: str, sequence: int) -> bytes:
        return data(self.refusal(status, code, message), "error")


class Gemini(Api):
    name = "gemini"
    path = "/v1beta/models/gemini-pro:generateContent"

    def path_of(self, *, stream: bool) -> str:
        return "/v1beta/models/gemini-pro:streamGenerateContent?alt=sse" if stream else self.path

    def request(self, *texts: str, stream: bool = False) -> bytes:
        return js({"contents": [{"role": "user", "parts": [{"text": text}]} for text in texts]})

    @staticmethod
    def candidate(text: str, index: int = 0) -> Any:
        return {"content": {"role": "model", "parts": [{"text": text}]}, "index": index}

    def answer(self, *texts: str) -> bytes:
        return js({"candidates": [self.candidate(text, index) for index, text in enumerate(texts)]})

    def events(self, *texts: str) -> list[bytes]:
        return [data({"candidates": [self.candidate(text)]}, end=b"\r\n\r\n") for text in texts]

    def refusal(self, status: int, code: str, message: str) -> Any:
        named = {400: "INVALID_ARGUMENT", 413: "INVALID_ARGUMENT", 502: "INTERNAL", 503: "UNAVAILABLE"}[status]
        return {"error": {"code": status, "message": message, "status": named}}

    def ending(self, status: int, code: str, message: str, sequence: int) -> bytes:
        return data(self.refusal(status, code, message))


class RequestOnly(Api):
    """An API whose answers hold no text."""

    def __init__(self, name: str, path: str, key: str, **more: Any) -> None:
        self.name = name
        self.path = path
        self._key = key
        self._more = more

    def request(self, *texts: str, stream: bool = False) -> bytes:
        return js({"model": "m", **self._more, self._key: texts[0] if len(texts) == 1 else list(texts)})

    def answer(self, *texts: str) -> bytes:
        return js({"data": [{"embedding": [0.25, -1.50e-3]}]})


CHAT = Chat()
COMPLETIONS = Completions()
RESPONSES = Responses()
ANTHROPIC = Anthropic()
GEMINI = Gemini()
WITH_ANSWERS: tuple[Api, ...] = (CHAT, COMPLETIONS, RESPONSES, ANTHROPIC, GEMINI)

EMBEDDINGS = RequestOnly("embeddings", "/v1/embeddings", "input")
IMAGES = RequestOnly("images", "/v1/images/generations", "prompt")
SPEECH = RequestOnly("speech", "/v1/audio/speech", "input", voice="alloy")
RERANK = RequestOnly("rerank", "/v1/rerank", "documents", top_n=1)
