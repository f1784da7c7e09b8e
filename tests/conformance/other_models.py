"""Models with the APIs of other providers for their SDKs to talk to, as in `tests.conformance.models`."""

from __future__ import annotations

import json
from typing import Any

from tests.conformance.models import ARGUMENTS, SENTENCE, STRUCTURED, chat
from tests.envoy.apis import DONE, data, js
from tests.fakes.upstream import Received, pieces, whole

_CITY = {"city": "Oslo"}


async def cohere(request: Received) -> None:
    """Cohere's chat, embed and rerank."""
    body = json.loads(request.body)
    if "/embed" in request.path:
        answer = {"id": "e1", "response_type": "embeddings_by_type", "texts": body["texts"]}
        await whole(js(answer | {"embeddings": {"float": [[0.25, -0.5]] * len(body["texts"])}}))(request)
    elif "/rerank" in request.path:
        ranks = [{"index": index, "relevance_score": 0.5} for index, _ in enumerate(body["documents"])]
        await whole(js({"id": "r1", "results": ranks, "meta": {"api_version": {"version": "2"}}}))(request)
    elif body.get("stream"):
        await pieces([data(event, event["type"]) for event in _cohere_events(body)])(request)
    else:
        asks, words = _cohere_says(body)
        function = {"name": "weather", "arguments": "".join(ARGUMENTS)}
        call = {"tool_plan": "I look.", "tool_calls": [{"id": "t1", "type": "function", "function": function}]}
        said = call if asks else {"content": [{"type": "text", "text": "".join(words)}]}
        answer = {"id": "c1", "finish_reason": "TOOL_CALL" if asks else "COMPLETE", "usage": _COHERE_USAGE}
        await whole(js(answer | {"message": {"role": "assistant"} | said}))(request)


_COHERE_USAGE = {"tokens": {"input_tokens": 3, "output_tokens": 5}}


def _cohere_says(body: Any) -> tuple[bool, tuple[str, ...]]:
    asks = "tools" in body and body["messages"][-1]["role"] == "user"
    return asks, STRUCTURED if "response_format" in body else SENTENCE


def _cohere_events(body: Any) -> list[dict[str, Any]]:
    asks, words = _cohere_says(body)

    def event(kind: str, **message: Any) -> dict[str, Any]:
        return {"type": kind, "index": 0, "delta": {"message": message}}

    begin = {"type": "message-start", "id": "c1", "delta": {"message": {"role": "assistant", "content": []}}}
    finish = "TOOL_CALL" if asks else "COMPLETE"
    end = {"type": "message-end", "id": "c1", "delta": {"finish_reason": finish, "usage": _COHERE_USAGE}}
    if asks:
        call = {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": ""}}
        middle = [
            {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I look."}}},
            event("tool-call-start", tool_calls=call),
            *(event("tool-call-delta", tool_calls={"function": {"arguments": piece}}) for piece in ARGUMENTS),
            {"type": "tool-call-end", "index": 0},
        ]
    else:
        middle = [
            event("content-start", content={"type": "text", "text": ""}),
            *(event("content-delta", content={"text": word}) for word in words),
            {"type": "content-end", "index": 0},
        ]
    return [begin, *middle, end]


async def ollama(request: Received) -> None:
    """Ollama's chat, generate and embed. Without `stream` they stream."""
    body = json.loads(request.body)
    base = {"model": "m", "created_at": "2026-01-02T03:04:05.678901Z"}
    if "/embed" in request.path:
        await whole(js({"model": "m", "embeddings": [[0.25, -0.5]], "total_duration": 9}))(request)
        return
    words: tuple[str, ...] = STRUCTURED if body.get("format") else SENTENCE
    asks = body.get("tools") and body["messages"][-1]["role"] == "user"
    if body.get("stream") is False:
        words = ("".join(words),)

    def line(text: str, **more: Any) -> dict[str, Any]:
        if "/generate" in request.path:
            return base | {"response": text, "done": False, **more}
        call = {"tool_calls": [{"function": {"name": "weather", "arguments": _CITY}}]} if asks and not more else {}
        return base | {"message": {"role": "assistant", "content": "" if asks else text, **call}, "done": False, **more}

    end = {"done": True, "done_reason": "stop", "total_duration": 9, "eval_count": 5}
    if body.get("stream") is False:
        await whole(js(line(words[0]) | end))(request)
    else:
        lines = [line("")] if asks else [line(word) for word in words]
        lines.append(line("", **end))
        await pieces([js(each) + b"\n" for each in lines], content_type="application/x-ndjson")(request)


async def mistral(request: Received) -> None:
    """Mistral's chat, which is OpenAI's, except that a call comes in one piece."""
    body = json.loads(request.body)
    if not (body.get("stream") and body.get("tools") and body["messages"][-1]["role"] == "user"):
        await chat(request)
        return
    call = {"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": "".join(ARGUMENTS)}}
    base = {"id": "c1", "object": "chat.completion.chunk", "created": 1700000000, "model": "m"}
    steps: list[Any] = [
        ({"role": "assistant", "content": ""}, None),
        ({"content": "", "tool_calls": [call]}, "tool_calls"),
    ]
    chunks = [base | {"choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in steps]
    await pieces([*map(data, chunks), DONE])(request)


async def conversations(request: Received) -> None:
    """Mistral's conversations."""
    body = json.loads(request.body)
    inputs = body["inputs"]
    asks = "tools" in body and isinstance(inputs, str)
    at = {"created_at": "2026-01-02T03:04:05Z", "output_index": 0}
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    if not body.get("stream"):
        call: dict[str, Any] = {"type": "function.call", "tool_call_id": "call_1", "name": "weather"}
        said = {"type": "message.output", "role": "assistant", "content": "".join(SENTENCE), "model": "m"}
        entry = call | {"arguments": "".join(ARGUMENTS)} if asks else said
        outputs = [entry | {"object": "entry", "id": "entry_1"}]
        answer = {"object": "conversation.response", "conversation_id": "conv_1", "outputs": outputs, "usage": usage}
        await whole(js(answer))(request)
        return
    steps: list[dict[str, Any]] = [{"type": "conversation.response.started", "conversation_id": "conv_1"}]
    if asks:
        delta = {"type": "function.call.delta", "id": "entry_1", "name": "weather", "tool_call_id": "call_1"}
        steps += [delta | {"arguments": piece} for piece in ARGUMENTS]
    else:
        told = {"type": "message.output.delta", "id": "entry_1", "content_index": 0, "model": "m", "role": "assistant"}
        steps += [told | {"content": word} for word in SENTENCE]
    steps.append({"type": "conversation.response.done", "usage": usage})
    await pieces([data(step | at, step["type"]) for step in steps])(request)


async def interactions(request: Received) -> None:
    """Gemini's interactions."""
    body = json.loads(request.body)
    asks = "tools" in body and isinstance(body["input"], str)
    base = {"id": "v1_a", "object": "interaction", "model": "gemini-pro", "role": "model"}
    base |= {"created": "2026-01-02T03:04:05Z", "updated": "2026-01-02T03:04:05Z"}
    call: dict[str, Any] = {"type": "function_call", "id": "c1", "name": "weather"}
    said: dict[str, Any] = {"type": "model_output"}
    step = call | {"arguments": _CITY} if asks else said | {"content": [{"type": "text", "text": "".join(SENTENCE)}]}
    final = base | {"status": "requires_action" if asks else "completed", "steps": [step]}
    if not body.get("stream"):
        await whole(js(final))(request)
        return
    if asks:
        deltas = [{"type": "arguments_delta", "arguments": piece} for piece in ARGUMENTS]
    else:
        deltas = [{"type": "text", "text": word} for word in SENTENCE]
    events: list[dict[str, Any]] = [
        {"event_type": "interaction.created", "interaction": base | {"status": "in_progress"}},
        {"event_type": "step.start", "index": 0, "step": call if asks else said},
        *({"event_type": "step.delta", "index": 0, "delta": delta} for delta in deltas),
        {"event_type": "step.stop", "index": 0},
        {"event_type": "interaction.completed", "interaction": final},
    ]
    await pieces([data(event, event["event_type"]) for event in events])(request)


async def moderations(request: Received) -> None:
    """OpenAI's moderations."""
    kinds = ("harassment", "hate", "self-harm", "sexual", "violence")
    result = {
        "flagged": False,
        "categories": dict.fromkeys(kinds, False),
        "category_scores": dict.fromkeys(kinds, 1e-05),
        "category_applied_input_types": {kind: ["text"] for kind in kinds},
    }
    await whole(js({"id": "modr-1", "model": "m", "results": [result]}))(request)


_RUN: dict[str, Any] = {
    "id": "run_1",
    "object": "thread.run",
    "created_at": 1700000000,
    "assistant_id": "asst_1",
    "thread_id": "thread_1",
    "instructions": "Be kind.",
    "model": "m",
    "tools": [],
    "metadata": {},
    "parallel_tool_calls": True,
}


async def threads(request: Received) -> None:
    """OpenAI's threads: of an assistant's run all that a client gets."""
    message = {"object": "thread.message", "created_at": 1700000000, "thread_id": "thread_1", "metadata": {}}

    def told(name: str, role: str, *texts: str) -> dict[str, Any]:
        content = [{"type": "text", "text": {"value": text, "annotations": []}} for text in texts]
        return message | {"id": name, "role": role, "content": content, "status": "completed"}

    said = told("msg_2", "assistant", "".join(SENTENCE))
    if request.method == "GET":
        listed = {"object": "list", "data": [said], "first_id": "msg_2", "last_id": "msg_2", "has_more": False}
        await whole(js(listed))(request)
        return
    body = json.loads(request.body)
    if request.path.endswith("/messages"):
        await whole(js(told("msg_1", body["role"], body["content"])))(request)
    elif not body.get("stream"):
        await whole(js(_RUN | {"status": "queued"}))(request)
    else:
        delta = {"id": "msg_2", "object": "thread.message.delta"}
        steps: list[tuple[str, Any]] = [
            ("run.created", _RUN | {"status": "in_progress"}),
            ("message.created", told("msg_2", "assistant") | {"status": "in_progress"}),
            *(
                (
                    "message.delta",
                    delta | {"delta": {"content": [{"index": 0, "type": "text", "text": {"value": word}}]}},
                )
                for word in SENTENCE
            ),
            ("message.completed", said),
            ("run.completed", _RUN | {"status": "completed"}),
        ]
        events = [data(value, f"thread.{kind}") for kind, value in steps]
        await pieces([*events, b"event: done\ndata: [DONE]\n\n"])(request)
