"""Models for the SDKs to talk to: what they answer follows from the request alone, in each provider's own shape.

A request that offers tools and has no result of one yet is answered with a call; one that asks for structured output
with JSON; any other with a sentence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.envoy.apis import DONE, data, js
from tests.fakes.aws import event, frame, string, wrapped
from tests.fakes.sigv4 import is_signed
from tests.fakes.upstream import Received, pieces, whole

SENTENCE = ("It ", "rains in", " Oslo.")
STRUCTURED = ('{"city": "Oslo",', ' "degrees": 7}')
ARGUMENTS = ('{"city":', ' "Oslo"}')
_USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}


async def chat(request: Received) -> None:
    """Chat Completions."""
    body = json.loads(request.body)
    asks = body.get("tools") and body["messages"][-1]["role"] == "user"
    words = STRUCTURED if "response_format" in body else SENTENCE
    base = {"id": "chatcmpl-1", "created": 1700000000, "model": "m"}
    if not body.get("stream"):
        call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "".join(ARGUMENTS)}}
        message = {"role": "assistant", "content": None if asks else "".join(words), "refusal": None}
        choice = {"index": 0, "message": message | ({"tool_calls": [call]} if asks else {}), "logprobs": None}
        choice["finish_reason"] = "tool_calls" if asks else "stop"
        await whole(js(base | {"object": "chat.completion", "choices": [choice], "usage": _USAGE}))(request)
        return
    deltas: list[Any] = [{"role": "assistant", "content": None if asks else ""}]
    if asks:
        deltas.append(
            {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather"}}]}
        )
        deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in ARGUMENTS]
    else:
        deltas += [{"content": word} for word in words]
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls" if asks else "stop"}]})
    chunks.append({"choices": [], "usage": _USAGE})
    await pieces([*(data(base | {"object": "chat.completion.chunk"} | chunk) for chunk in chunks), DONE])(request)


async def completions(request: Received) -> None:
    """Legacy Completions."""
    base = {"id": "cmpl-1", "object": "text_completion", "created": 1700000000, "model": "m"}

    def choice(text: str, end: str | None) -> Any:
        return base | {"choices": [{"text": text, "index": 0, "logprobs": None, "finish_reason": end}]}

    if json.loads(request.body).get("stream"):
        events = [*(data(choice(word, None)) for word in SENTENCE), data(choice("", "stop")), DONE]
        await pieces(events)(request)
    else:
        await whole(js(choice("".join(SENTENCE), "stop")))(request)


async def responses(request: Received) -> None:
    """Responses."""
    body = json.loads(request.body)
    asks = body.get("tools") and not any(
        item.get("type") == "function_call_output" for item in body["input"] if isinstance(item, dict)
    )
    words = STRUCTURED if body.get("text") else SENTENCE
    base = {"id": "resp_1", "object": "response", "created_at": 1700000000, "model": "m", "tools": [], "error": None}
    base |= {"parallel_tool_calls": True, "tool_choice": "auto", "instructions": None, "metadata": {}}
    call = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "weather"}
    message = {"id": "msg_1", "type": "message", "role": "assistant"}
    part = {"type": "output_text", "text": "".join(words), "annotations": []}
    item = call | {"arguments": "".join(ARGUMENTS)} if asks else message | {"content": [part]}
    item |= {"status": "completed"}
    final = base | {"status": "completed", "output": [item]}
    if not body.get("stream"):
        await whole(js(final))(request)
        return
    at: dict[str, Any] = {"output_index": 0}
    steps: list[tuple[str, Any]] = [("created", {"response": base | {"status": "in_progress", "output": []}})]
    if asks:
        at |= {"item_id": "fc_1"}
        steps.append(
            ("output_item.added", {"output_index": 0, "item": call | {"arguments": "", "status": "in_progress"}})
        )
        steps += [("function_call_arguments.delta", at | {"delta": piece}) for piece in ARGUMENTS]
        steps.append(("function_call_arguments.done", at | {"name": "weather", "arguments": "".join(ARGUMENTS)}))
    else:
        at |= {"item_id": "msg_1", "content_index": 0}
        steps.append(
            ("output_item.added", {"output_index": 0, "item": message | {"content": [], "status": "in_progress"}})
        )
        steps.append(("content_part.added", at | {"part": part | {"text": ""}}))
        steps += [("output_text.delta", at | {"delta": word, "logprobs": []}) for word in words]
        steps.append(("output_text.done", at | {"text": "".join(words), "logprobs": []}))
        steps.append(("content_part.done", at | {"part": part}))
    steps.append(("output_item.done", {"output_index": 0, "item": item}))
    steps.append(("completed", {"response": final}))
    events = [
        data({"type": f"response.{kind}", "sequence_number": number} | more, f"response.{kind}")
        for number, (kind, more) in enumerate(steps)
    ]
    await pieces(events)(request)


async def messages(request: Received) -> None:
    """Anthropic's Messages."""
    body = json.loads(request.body)
    asks = body.get("tools") and isinstance(body["messages"][-1]["content"], str)
    words = STRUCTURED if "output_config" in body or "output_format" in body else SENTENCE
    stop = "tool_use" if asks else "end_turn"
    base = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather"}
    block = use | {"input": {"city": "Oslo"}} if asks else {"type": "text", "text": "".join(words)}
    usage = {"input_tokens": 3, "output_tokens": 5}
    if not body.get("stream"):
        await whole(js(base | {"content": [block], "stop_reason": stop, "usage": usage}))(request)
        return
    begin: dict[str, Any] = use | {"input": {}} if asks else {"type": "text", "text": ""}
    deltas = (
        [{"type": "input_json_delta", "partial_json": piece} for piece in ARGUMENTS]
        if asks
        else [{"type": "text_delta", "text": word} for word in words]
    )
    steps: list[tuple[str, Any]] = [
        ("message_start", {"message": base | {"content": [], "stop_reason": None, "usage": usage}}),
        ("content_block_start", {"index": 0, "content_block": begin}),
        ("ping", {}),
        *(("content_block_delta", {"index": 0, "delta": delta}) for delta in deltas),
        ("content_block_stop", {"index": 0}),
        ("message_delta", {"delta": {"stop_reason": stop, "stop_sequence": None}, "usage": {"output_tokens": 5}}),
        ("message_stop", {}),
    ]
    await pieces([data({"type": kind} | more, kind) for kind, more in steps])(request)


async def gemini(request: Received) -> None:
    """Gemini's generateContent and streamGenerateContent."""
    body = json.loads(request.body)
    asks = body.get("tools") and "functionResponse" not in str(body["contents"])
    words = STRUCTURED if "responseMimeType" in str(body) or "response_mime_type" in str(body) else SENTENCE

    def candidate(part: Any, end: bool) -> Any:
        answer = {"content": {"role": "model", "parts": [part]}, "index": 0}
        usage = {"promptTokenCount": 3, "candidatesTokenCount": 5, "totalTokenCount": 8}
        return {"candidates": [answer | ({"finishReason": "STOP"} if end else {})], "usageMetadata": usage}

    if asks:
        parts: list[Any] = [{"functionCall": {"id": "c1", "name": "weather", "args": {"city": "Oslo"}}}]
    elif "alt=sse" in request.path:
        parts = [{"text": word} for word in words]
    else:
        parts = [{"text": "".join(words)}]
    answers = [candidate(part, part is parts[-1]) for part in parts]
    if "alt=sse" in request.path:
        await pieces([data(answer, end=b"\r\n\r\n") for answer in answers])(request)
    else:
        await whole(js(answers[0]))(request)


# -- Bedrock -----------------------------------------------------------------------------------------------------------

AWS_SECRET = "made-up-secret"
_METRICS = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 3, "outputTokenCount": 5}}


async def bedrock(request: Received) -> None:
    """Bedrock's runtime. It accepts only requests whose signature is valid."""
    if not is_signed(request, AWS_SECRET):
        refused = {"x_amzn_errortype": "InvalidSignatureException"}
        await whole(js({"message": "The request signature does not match."}), 403, **refused)(request)
        return
    body = json.loads(request.body)
    operation = request.path.rpartition("/")[2]
    is_claude = "anthropic_version" in body
    match operation:
        case "count-tokens":
            await whole(js({"inputTokens": 11}))(request)
        case "converse":
            await whole(js(_converse(body)))(request)
        case "converse-stream":
            await pieces(list(_converse_frames(body)), content_type=_AWS)(request)
        case "invoke":
            said = "".join(SENTENCE)
            await whole(js(_claude([{"type": "text", "text": said}]) if is_claude else {"generation": said}))(request)
        case _:
            events = _claude_events() if is_claude else [*({"generation": word} for word in SENTENCE), _METRICS]
            await pieces([wrapped(json.dumps(each), p="abcd") for each in events], content_type=_AWS)(request)


_AWS = "application/vnd.amazon.eventstream"


def _calls_tool(body: Any) -> bool:
    """Return whether a Converse is answered with a call: it offers tools, and has no result of one yet."""
    return "toolConfig" in body and not any("toolResult" in part for part in body["messages"][-1]["content"])


def _converse(body: Any) -> Any:
    use = {"toolUse": {"toolUseId": "tooluse_1", "name": "weather", "input": {"city": "Oslo"}}}
    asks = _calls_tool(body)
    message = {"role": "assistant", "content": [use if asks else {"text": "".join(SENTENCE)}]}
    usage = {"inputTokens": 3, "outputTokens": 5, "totalTokens": 8}
    stop = "tool_use" if asks else "end_turn"
    return {"output": {"message": message}, "stopReason": stop, "usage": usage, "metrics": {"latencyMs": 7}}


def _converse_frames(body: Any) -> Iterator[bytes]:
    asks = _calls_tool(body)
    yield event("messageStart", {"role": "assistant", "p": "abcdef"})
    if asks:
        start = {"toolUse": {"toolUseId": "tooluse_1", "name": "weather"}}
        yield event("contentBlockStart", {"contentBlockIndex": 0, "start": start})
    for piece in ARGUMENTS if asks else SENTENCE:
        delta = {"toolUse": {"input": piece}} if asks else {"text": piece}
        yield event("contentBlockDelta", {"contentBlockIndex": 0, "delta": delta, "p": "abc"})
    yield event("contentBlockStop", {"contentBlockIndex": 0})
    yield event("messageStop", {"stopReason": "tool_use" if asks else "end_turn"})
    usage = {"inputTokens": 3, "outputTokens": 5, "totalTokens": 8}
    yield event("metadata", {"usage": usage, "metrics": {"latencyMs": 7}})


def _claude(content: Any) -> Any:
    base = {"id": "msg_bdrk_1", "type": "message", "role": "assistant", "model": "m", "content": content}
    return base | {"stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 5}}


def _claude_events() -> list[Any]:
    return [
        {"type": "message_start", "message": _claude([]) | {"stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
            for word in SENTENCE
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 5},
        },
        {"type": "message_stop", **_METRICS},
    ]


async def bedrock_agents(request: Received) -> None:
    """Bedrock's agents and knowledge bases, and its guardrails."""
    if not is_signed(request, AWS_SECRET):
        await whole(js({"message": "The request signature does not match."}), 403)(request)
        return
    said = "".join(SENTENCE)
    page = {
        "content": {"type": "TEXT", "text": "It is wet."},
        "location": {"type": "S3", "s3Location": {"uri": "s3://a/b"}},
    }
    part = {"generatedResponsePart": {"textResponsePart": {"text": "wet", "span": {"start": 0, "end": 3}}}}
    cited = {"attribution": {"citations": [part | {"retrievedReferences": [page]}]}}
    match request.path.rpartition("/")[2]:
        case "text":
            trace = {
                "agentId": "A",
                "trace": {"orchestrationTrace": {"rationale": {"traceId": "t-0", "text": "I look."}}},
            }
            frames = [event("trace", trace), *map(wrapped, SENTENCE[:-1]), wrapped(SENTENCE[-1], **cited)]
            await pieces(frames, content_type=_AWS)(request)
        case "retrieveAndGenerateStream":
            frames = [event("output", {"text": word}) for word in SENTENCE] + [event("citation", {"citation": part})]
            await pieces(frames, content_type=_AWS)(request)
        case "retrieveAndGenerate":
            await whole(js({"sessionId": "s-1", "output": {"text": said}, "citations": [part]}))(request)
        case "retrieve":
            await whole(js({"retrievalResults": [page | {"score": 0.5}]}))(request)
        case "apply":
            usage = dict.fromkeys(_UNITS, 1)
            found = {"usage": usage, "action": "GUARDRAIL_INTERVENED", "assessments": []}
            await whole(js(found | {"outputs": [{"text": said}]}))(request)
        case _:
            output = {"content": {"document": said}, "nodeName": "FlowOutputNode", "nodeType": "FlowOutputNode"}
            frames = [event("flowOutputEvent", output), event("flowCompletionEvent", {"completionReason": "SUCCESS"})]
            await pieces(frames, content_type=_AWS)(request)


_UNITS = (
    "topicPolicyUnits",
    "contentPolicyUnits",
    "wordPolicyUnits",
    "sensitiveInformationPolicyUnits",
    "sensitiveInformationPolicyFreeUnits",
    "contextualGroundingPolicyUnits",
)


async def sagemaker(request: Received) -> None:
    """An endpoint of SageMaker: a chat's event stream in parts that are cut anywhere."""
    if not is_signed(request, AWS_SECRET):
        await whole(js({"message": "The request signature does not match."}), 403)(request)
        return
    chunks = [{"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]} for word in SENTENCE]
    stream = b"".join((*map(data, chunks), DONE))
    named = (string(":event-type", "PayloadPart"), string(":message-type", "event"))
    parts = [frame(stream[at : at + 37], *named) for at in range(0, len(stream), 37)]
    await pieces(parts, content_type=_AWS)(request)
