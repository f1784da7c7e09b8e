"""Documents around the known shapes of each API: each text in them is seen by Aim, or the exchange is refused.

A minimal valid document is mutated: other types, more keys, deeper nesting, other letter case. The values are strings
of all kinds. Those that could not stand at an inert place must be seen, wherever they are.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from extproc.core.vocabulary import Leg
from extproc.telemetry.record import OUTCOMES
from tests.fakes.planted import own, units_of
from tests.fakes.reading import dotted, strings
from tests.fakes.rig import DONE
from tests.fakes.witness import Traffic, Witness

EXAMPLES = int(os.environ.get("EXAMPLES", "40"))
"""Examples for each API, leg and property. `make test-hostile` sets it to thousands."""

PHASES = [Phase.explicit, Phase.generate, *([Phase.shrink] if "SHRINK" in os.environ else [])]
"""The failure names the text and its place; smaller documents for it take minutes. SHRINK=1 looks for them."""

UNREADABLE = {"invalid_body", "guardrail_unreadable_response"}
"""The refusals of an exchange that Aim allows. It is never Aim's fault that a document cannot be read."""


@dataclass(frozen=True, slots=True)
class Api:
    """Minimal documents of one API."""

    path: str
    request: dict[str, Any]
    answer: dict[str, Any] | None = None
    events: tuple[dict[str, Any], ...] = ()
    end: bytes = b""
    stream_path: str = ""
    is_lines: bool = False


_CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"q": "who is it"}'}}
_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks people up.",
        "parameters": {"type": "object", "properties": {"q": {"type": "string", "description": "The name to find."}}},
    },
}
_USAGE = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
_SIGNATURE = "EqgfCioIARgBIiQ3YTAwMjY1Mi1mZjM5LTQ1NGUtODgxNC1kNjNjNTk1ZWI3Y"
# Without the token itself: what stands there need not be seen.
_TOKEN = {"logprob": -0.5, "bytes": [87, 101, 108, 108], "top_logprobs": []}


def _chat_chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


_CHAT = Api(
    "/v1/chat/completions",
    {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_PIXEL}", "detail": "low"}},
                ],
            },
            {"role": "assistant", "content": None, "tool_calls": [_CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "It is nobody."},
        ],
        "tools": [_TOOL],
        "temperature": 0.5,
        "stop": ["\n\n"],
    },
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Well", "refusal": None, "tool_calls": [_CALL]},
                "logprobs": {"content": [_TOKEN], "refusal": None},
                "finish_reason": "stop",
            }
        ],
        "usage": _USAGE,
    },
    (
        _chat_chunk({"role": "assistant", "content": ""}),
        _chat_chunk({"content": "Well, "}),
        _chat_chunk({"content": "well."}),
        _chat_chunk({"tool_calls": [{"index": 0, **_CALL}]}),
        _chat_chunk({"reasoning_content": "Who knows?"}),
        _chat_chunk({}, "stop"),
    ),
    DONE,
)

_COMPLETION = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
_COMPLETIONS = Api(
    "/v1/completions",
    {"model": "m", "prompt": ["Say hello.", "Say goodbye."], "suffix": "The end.", "max_tokens": 9},
    {
        **_COMPLETION,
        "choices": [
            {
                "index": 0,
                "text": " Well",
                "logprobs": {
                    "token_logprobs": [-0.5],
                    "top_logprobs": [{"Well": -0.5}],
                    "text_offset": [0],
                },
                "finish_reason": "stop",
            }
        ],
        "usage": _USAGE,
    },
    (
        {**_COMPLETION, "choices": [{"index": 0, "text": "Well, ", "logprobs": None, "finish_reason": None}]},
        {**_COMPLETION, "choices": [{"index": 0, "text": "well.", "logprobs": None, "finish_reason": "stop"}]},
    ),
    DONE,
)

_PART = {"type": "output_text", "text": "Well, well.", "annotations": [], "logprobs": []}
_ITEM = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [_PART]}
_FUNCTION_CALL = {
    "id": "fc_1",
    "type": "function_call",
    "call_id": "call_1",
    "name": "look_up",
    "arguments": '{"q": "who is it"}',
}
_REASONING = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "Who knows?"}],
    "encrypted_content": _SIGNATURE,
}
_RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "error": None,
    "model": "m",
    "output": [_REASONING, _ITEM, _FUNCTION_CALL],
    "usage": {"input_tokens": 9, "output_tokens": 9},
}
_AT = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
_RESPONSES = Api(
    "/v1/responses",
    {
        "model": "m",
        "instructions": "Be kind.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "What is this?"}]},
            _FUNCTION_CALL,
            {"type": "function_call_output", "call_id": "call_1", "output": "It is nobody."},
        ],
        "tools": [{"type": "function", **_TOOL["function"]}],  # type: ignore[dict-item]
    },
    _RESPONSE,
    (
        {"type": "response.created", "sequence_number": 0, "response": {**_RESPONSE, "output": []}},
        {"type": "response.output_text.delta", "sequence_number": 1, **_AT, "delta": "Well, "},
        {"type": "response.output_text.delta", "sequence_number": 2, **_AT, "delta": "well."},
        {"type": "response.output_text.done", "sequence_number": 3, **_AT, "text": "Well, well."},
        {"type": "response.content_part.done", "sequence_number": 4, **_AT, "part": _PART},
        {"type": "response.output_item.done", "sequence_number": 5, "output_index": 0, "item": _ITEM},
        {"type": "response.completed", "sequence_number": 6, "response": {**_RESPONSE, "output": [_ITEM]}},
    ),
)

_ANTHROPIC = Api(
    "/v1/messages",
    {
        "model": "m",
        "max_tokens": 9,
        "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": _PIXEL}},
                ],
            },
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {"q": "who is it"}}],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "It is nobody."}],
            },
        ],
        "tools": [{"name": "look_up", "description": "Looks people up.", "input_schema": {"type": "object"}}],
    },
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "Who knows?", "signature": _SIGNATURE},
            {"type": "text", "text": "Well, well."},
            {"type": "tool_use", "id": "toolu_2", "name": "look_up", "input": {"q": "who is it"}},
        ],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 9, "output_tokens": 9},
    },
    (
        {"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Well, well."}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "toolu_2", "name": "look_up", "input": {}},
        },
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": '{"q": "who is it"}'},
        },
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ),
)

_CANDIDATE = {"content": {"role": "model", "parts": [{"text": "Well, well."}]}, "finishReason": "STOP", "index": 0}
_GEMINI = Api(
    "/v1beta/models/gemini-2.5-pro:generateContent",
    {
        "systemInstruction": {"parts": [{"text": "Be kind."}]},
        "contents": [
            {
                "role": "user",
                "parts": [{"text": "What is this?"}, {"inlineData": {"mimeType": "image/png", "data": _PIXEL}}],
            },
            {"role": "model", "parts": [{"functionCall": {"name": "look_up", "args": {"q": "who is it"}}}]},
            {
                "role": "user",
                "parts": [{"functionResponse": {"name": "look_up", "response": {"text": "It is nobody."}}}],
            },
        ],
        "generationConfig": {"temperature": 0.5, "stopSequences": ["\n\n"]},
    },
    {"candidates": [_CANDIDATE], "usageMetadata": {"totalTokenCount": 9}, "modelVersion": "gemini-2.5-pro"},
    (
        {
            "candidates": [
                {"content": {"role": "model", "parts": [{"text": "Who knows?", "thought": True}]}, "index": 0}
            ]
        },
        {"candidates": [_CANDIDATE], "usageMetadata": {"totalTokenCount": 9}},
    ),
    stream_path="/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
)

_EMBEDDINGS = Api(
    "/v1/embeddings",
    {"model": "m", "input": ["One text.", "Another text."], "encoding_format": "float"},
    {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}], "model": "m"},
)

_GENERIC = Api(
    "/some/tool",
    {"id": "t_1", "model": "m", "question": "What is this?", "options": {"tone": "Be kind."}, "lines": ["One more."]},
    {"id": "t_1", "status": "done", "result": {"answer": "Well, well.", "notes": ["Who knows?"]}},
    ({"type": "part", "id": "t_1", "said": "Well, well."}, {"type": "end", "notes": ["Who knows?"]}),
)


def _of_recordings(name: str, request: dict[str, Any], *, path: str = "", stream_path: str = "") -> Api:
    """Return an API of which the answers are recordings of our own."""
    (one,) = (each for each in own() if each.name == f"{name}.json")
    stream = next(each for each in own() if each.name in (f"{name}.sse", f"{name}.jsonl"))
    documents = (event.data or "" for event in units_of(stream.body))
    events = tuple(json.loads(document) for document in documents if document.startswith("{"))
    end = DONE if b"[DONE]" in stream.body else b""
    return Api(path or one.path, request, json.loads(one.body), events, end, stream_path, stream.is_lines)


_OTHERS = {
    "cohere-chat": _of_recordings(
        "cohere",
        {
            "model": "m",
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "What is this?"}]},
                {"role": "assistant", "tool_plan": "I look it up.", "tool_calls": [_CALL]},
                {
                    "role": "tool",
                    "tool_call_id": "call_1",
                    "content": [{"type": "document", "document": {"data": "No."}}],
                },
            ],
            "documents": ["One more.", {"id": "d_1", "data": {"text": "Be kind."}}],
            "tools": [_TOOL],
        },
    ),
    "cohere-chat v1": _of_recordings(
        "cohere1",
        {
            "message": "What is this?",
            "preamble": "Be kind.",
            "chat_history": [{"role": "CHATBOT", "message": "Who knows?"}],
            "tool_results": [{"call": {"name": "f", "parameters": {"q": "who is it"}}, "outputs": [{"a": "No one."}]}],
        },
    ),
    "ollama": _of_recordings(
        "ollama",
        {
            "model": "m",
            "messages": [
                {"role": "user", "content": "What is this?", "images": [_PIXEL]},
                {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"q": "who is it"}}}]},
            ],
            "tools": [_TOOL],
            "options": {"temperature": 0.5},
        },
    ),
    "gemini-interactions": _of_recordings(
        "interactions",
        {
            "model": "m",
            "system_instruction": "Be kind.",
            "input": [
                {"type": "user_input", "content": [{"type": "text", "text": "What is this?"}]},
                {"type": "function_result", "call_id": "c_1", "name": "f", "result": {"rows": ["No one."]}},
            ],
        },
    ),
    "mistral-conversations": _of_recordings(
        "mistral",
        {
            "model": "m",
            "instructions": "Be kind.",
            "inputs": [
                {"role": "user", "content": [{"type": "text", "text": "What is this?"}]},
                {"type": "function.result", "tool_call_id": "c_1", "result": "No one."},
            ],
        },
    ),
    "openai-threads": _of_recordings(
        "threads",
        {
            "assistant_id": "asst_1",
            "instructions": "Be kind.",
            "additional_messages": [{"role": "user", "content": [{"type": "text", "text": "What is this?"}]}],
        },
    ),
    "text-generation": _of_recordings("tgi", {"inputs": "What is this?", "parameters": {"stop": ["\n\n"]}}),
    "text-generation of llama.cpp": _of_recordings("llamacpp", {"prompt": "What is this?", "stop": ["\n\n"]}),
    "anthropic-complete": _of_recordings("complete", {"prompt": "What is this?", "stop_sequences": ["\n\n"]}),
    "gemini of Code Assist": _of_recordings(
        "codeassist",
        {"project": "p", "request": {"contents": [{"role": "user", "parts": [{"text": "What is this?"}]}]}},
        path="/v1internal:generateContent",
        stream_path="/v1internal:streamGenerateContent?alt=sse",
    ),
}

# Without words and log probabilities: what stands there are tokens, which need not be seen.
_TRANSCRIPTIONS = Api(
    "/v1/audio/transcriptions",
    {
        "model": "m",
        "prompt": "What is this?",
        "language": "en",
        "file": f"data:image/png;base64,{_PIXEL}",
        "response_format": "verbose_json",
        "timestamp_granularities": ["segment"],
    },
    {
        "task": "transcribe",
        "language": "english",
        "duration": 3.5,
        "text": "Well, well.",
        "segments": [{"id": 0, "start": 0.5, "end": 3.5, "text": "Well, well.", "speaker": "A", "temperature": 0.5}],
        "usage": {"type": "duration", "seconds": 4},
    },
    (
        {"type": "transcript.text.delta", "delta": "Well, "},
        {"type": "transcript.text.delta", "delta": "well."},
        {"type": "transcript.text.segment", "id": "s_1", "text": "Well, well.", "speaker": "A", "start": 0.5},
        {"type": "transcript.text.done", "text": "Well, well.", "usage": {"type": "tokens", "input_tokens": 9}},
    ),
    DONE,
)

_AGENTS = Api(
    "/retrieveAndGenerate",
    {
        "input": {"text": "What is this?"},
        "retrieveAndGenerateConfiguration": {
            "type": "KNOWLEDGE_BASE",
            "knowledgeBaseConfiguration": {
                "knowledgeBaseId": "KB12",
                "generationConfiguration": {"promptTemplate": {"textPromptTemplate": "Be kind."}},
                "retrievalConfiguration": {"vectorSearchConfiguration": {"numberOfResults": 5}},
            },
        },
        "sessionId": "s-1",
    },
    {
        "sessionId": "s-1",
        "output": {"text": "Well, well."},
        "citations": [
            {
                "generatedResponsePart": {"textResponsePart": {"text": "Well.", "span": {"start": 0, "end": 4}}},
                "retrievedReferences": [
                    {
                        "content": {"type": "TEXT", "text": "Who knows?"},
                        "location": {"type": "S3", "s3Location": {"uri": "s3://bucket/a"}},
                    }
                ],
            }
        ],
    },
    (
        {"text": "Well, "},
        {"text": "well."},
        {"bytes": "Well.", "attribution": {"citations": [{"retrievedReferences": []}]}},
        {"agentId": "A", "trace": {"orchestrationTrace": {"rationale": {"text": "Who knows?", "traceId": "t-0"}}}},
        {"generatedResponse": {"answer": "Well, well.Well.", "citations": []}, "results": []},
    ),
    stream_path="/retrieveAndGenerateStream",
)

_GUARDRAILS = Api(
    "/guardrail/g1/version/1/apply",
    {"source": "INPUT", "content": [{"text": {"text": "What is this?", "qualifiers": ["query"]}}]},
    {
        "action": "GUARDRAIL_INTERVENED",
        "outputs": [{"text": "Well, well."}],
        "assessments": [{"wordPolicy": {"customWords": [{"match": "who is it", "action": "BLOCKED"}]}}],
        "usage": {"wordPolicyUnits": 1},
    },
)

_CALL_OF_A_TOOL = next(each for each in own() if each.name == "mcp-call.sse")
_MCP = Api(
    "/mcp",
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": "look_up",
            "arguments": {"question": "What is this?", "options": {"tone": "Be kind."}, "lines": ["One more."]},
            "_meta": {"progressToken": 1},
        },
    },
    json.loads(next(each.body for each in own() if each.name == "mcp.json")),
    tuple(json.loads(event.data) for event in units_of(_CALL_OF_A_TOOL.body) if event.data),
)

APIS = {
    **_OTHERS,
    "openai-transcriptions": _TRANSCRIPTIONS,
    "bedrock-converse of agents": _AGENTS,
    "bedrock-converse of guardrails": _GUARDRAILS,
    "mcp": _MCP,
    "openai-chat": _CHAT,
    "openai-completions": _COMPLETIONS,
    "openai-responses": _RESPONSES,
    "anthropic-messages": _ANTHROPIC,
    "gemini": _GEMINI,
    "openai-embeddings": _EMBEDDINGS,
    "generic": _GENERIC,
}

# -- mutations -----------------------------------------------------------------------------------------------------

MARK = re.compile(r"(?:¶|\\+u00b6)(\d+)(?:¶|\\+u00b6)")
"""What a drawn text has in it, in any spelling of JSON; no recorded or minimal document has it."""

_MORE_WORDS = """
annotations args audio blob candidates citations code context documents error executed_tools file_data filename
functionCall functionResponse generated_text image inlineData label media_type metadata mime_type note query reasoning
response response_format results source stream thinking thought thoughtSignature title transcript uri url user value
"""


def _words(node: Any) -> set[str]:
    """Return the keys of a document."""
    if isinstance(node, dict):
        return set(node).union(*map(_words, node.values()))
    return set().union(*map(_words, node)) if isinstance(node, list | tuple) else set()


_WORDS = sorted(
    set(_MORE_WORDS.split()).union(*(_words([api.request, api.answer, api.events]) for api in APIS.values()))
)
KEYS = st.sampled_from(_WORDS) | st.from_regex(r"zq_[a-z0-9]{1,6}", fullmatch=True)

_NUMBERS = st.integers(0, 999_999)
TEXTS = st.builds(
    str.format,
    st.sampled_from(
        ["Sentence ¶{}¶ says so.", "第¶{}¶句没有空格", "Two lines:\n¶{}¶ is one", '"¶{}¶", he said', "{{¶{}¶}}", "¶{}¶"]
    ),
    _NUMBERS,
)
_OTHER = st.sampled_from(
    [
        "",
        "user",
        "text",
        "gpt-4o",
        "jane.roe@mail.example",
        "https://a.example/b?c=d&e=f",
        "data:image/png;base64," + _PIXEL,
        _PIXEL,
        _SIGNATURE,
        '{"a": "b c"}',
    ]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    TEXTS | TEXTS | _OTHER | st.none() | st.booleans() | st.sampled_from([0, 1, -1, 1.5, 10**6, 2**70]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)

Path = tuple[str | int, ...]


def places(node: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of each value."""
    yield path
    if isinstance(node, dict | list):
        for step, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from places(value, (*path, step))


def _replace(draw: st.DrawFn, _: Any) -> Any:
    return draw(VALUES)


def _extend(draw: st.DrawFn, value: Any) -> Any:
    """Add a key to an object or an item to a list; make another value the item of a list."""
    if isinstance(value, dict):
        fields = list(value.items())
        fields.insert(draw(st.integers(0, len(fields))), (draw(KEYS), draw(VALUES)))
        return dict(fields)
    return [*(value if isinstance(value, list) else [value]), draw(VALUES)]


def _wrap(draw: st.DrawFn, value: Any) -> Any:
    return draw(st.sampled_from([[value], [[value]], {draw(KEYS): value}, {draw(KEYS): [value]}]))


def _spell(draw: st.DrawFn, value: Any) -> Any:
    """Change the letter case of one of an object's keys, or rename it."""
    if not isinstance(value, dict) or not value:
        return draw(VALUES)
    chosen = draw(st.sampled_from(list(value)))
    other = draw(st.sampled_from([chosen.upper(), chosen.title(), chosen.swapcase(), draw(KEYS)]))
    return {other if key == chosen else key: each for key, each in value.items()}


_MUTATIONS: list[Callable[[st.DrawFn, Any], Any]] = [_replace, _extend, _extend, _wrap, _spell]


@st.composite
def mutated(draw: st.DrawFn, document: Any) -> Any:
    """Draw a document near `document`."""
    root = [deepcopy(document)]
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(list(places(root))[1:]))
        holder: Any = root
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = draw(st.sampled_from(_MUTATIONS))(draw, holder[path[-1]])
    return root[0]


@st.composite
def mutated_stream(draw: st.DrawFn, events: tuple[dict[str, Any], ...]) -> list[tuple[str, Any]]:
    """Draw events near `events`, each with the name of its event line. One or two of them are mutated, or added."""
    drawn: list[tuple[str, Any]] = [(event.get("type", ""), event) for event in events]
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(drawn) - 1))
        name, event = drawn[at]
        drawn[at : at + draw(st.integers(0, 1))] = [(name, draw(mutated(event)))]
    return drawn


def encode(events: list[tuple[str, Any]], end: bytes, *, is_lines: bool = False) -> bytes:
    """Return an event stream, or lines of JSON."""
    if is_lines:
        return "".join(f"{json.dumps(event)}\n" for _, event in events).encode()
    parts = [f"event: {name}\ndata: {json.dumps(event)}\n\n" if name else f"data: {json.dumps(event)}\n\n"
             for name, event in events]  # fmt: skip
    return "".join(parts).encode() + end


# -- what must be seen ---------------------------------------------------------------------------------------------

_INERT = re.compile(r"@?[A-Za-z0-9._:/+=%-]{1,256}").fullmatch
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}").fullmatch
_URL = re.compile(r"(?:https?|data|gs|s3):\S{1,8192}").fullmatch


def is_text(value: str) -> bool:
    """Return whether a string is text at every place: it is not inert, opaque or a URL by its form."""
    return bool(value.strip()) and not (_INERT(value) or _BASE64(value) or _URL(value))


def expect_seen(it: Witness, leg: Leg, documents: list[Any]) -> None:
    """Fail if a text was released unseen, or if the outcome is not a documented one."""
    outcome, early = it.world.record.outcome, it.early
    assert outcome in OUTCOMES
    if it.is_refused:
        assert it.why in UNREADABLE, f"refused as {it.why}"
    else:
        unseen = [
            f"{dotted(path)}: {text!r}"
            for each in documents
            for path, text in strings(each)
            if is_text(text) and not it.has_seen(leg, text)
        ]
        assert not unseen, "released unseen:\n" + "\n".join(unseen)
    assert not early, "released before the verdict"


def expect_redacted(it: Witness, leg: Leg) -> None:
    """Fail if a drawn text was released although Aim redacts them all."""
    outcome = it.world.record.outcome
    assert outcome in OUTCOMES
    left = MARK.findall(it.released(leg).decode())
    assert not left, f"released in spite of the redaction: {left}"
    if it.is_refused:
        assert it.why in UNREADABLE | {"redaction_failed"}, f"refused as {it.why}"


def redact(text: str) -> str:
    return MARK.sub("[X]", text)


def request_of(api: Api, *, stream: bool = False) -> bytes:
    return json.dumps(api.request | ({"stream": True} if stream and not api.stream_path else {})).encode()


def whole(api: Api, answer: Any, status: int = 200) -> Traffic:
    return Traffic(api.path, request_of(api), json.dumps(answer).encode(), status=status)


def streamed(api: Api, events: list[tuple[str, Any]]) -> Traffic:
    body = encode(events, api.end, is_lines=api.is_lines)
    kind = "application/x-ndjson" if api.is_lines else "text/event-stream"
    return Traffic(api.stream_path or api.path, request_of(api, stream=True), body, content_type=kind)


apis = pytest.mark.parametrize("name", APIS)
streaming_apis = pytest.mark.parametrize("name", [name for name, api in APIS.items() if api.events])
examples = settings(max_examples=EXAMPLES, phases=PHASES)

# -- the minimal documents themselves ------------------------------------------------------------------------------


@apis
def test_minimal_request_and_answer_are_read_and_pass(name: str) -> None:
    api = APIS[name]
    traffic = whole(api, api.answer)
    it = Witness(traffic)
    assert not it.is_refused, f"refused as {it.why}"
    expect_seen(it, Leg.REQUEST, [api.request])
    expect_seen(it, Leg.RESPONSE, [api.answer])
    assert it.released(Leg.RESPONSE) == traffic.answer


@streaming_apis
def test_minimal_stream_is_read_and_passes(name: str) -> None:
    api = APIS[name]
    traffic = streamed(api, [(event.get("type", ""), event) for event in api.events])
    it = Witness(traffic, is_eager=False)
    assert not it.is_refused, f"refused as {it.why}"
    expect_seen(it, Leg.RESPONSE, list(api.events))
    assert it.released(Leg.RESPONSE) == traffic.answer


# -- documents near them -------------------------------------------------------------------------------------------


@apis
@examples
@given(data=st.data())
def test_text_of_a_request_is_seen(name: str, data: st.DataObject) -> None:
    body = data.draw(mutated(APIS[name].request))
    it = Witness(Traffic(APIS[name].path, json.dumps(body).encode()), watched=MARK)
    expect_seen(it, Leg.REQUEST, [body])


@apis
@examples
@given(data=st.data())
def test_text_of_a_request_is_redacted(name: str, data: st.DataObject) -> None:
    body = data.draw(mutated(APIS[name].request))
    expect_redacted(Witness(Traffic(APIS[name].path, json.dumps(body).encode()), redact=redact), Leg.REQUEST)


@apis
@examples
@given(data=st.data(), status=st.sampled_from([200, 200, 200, 400]))
def test_text_of_an_answer_is_seen(name: str, data: st.DataObject, status: int) -> None:
    answer = data.draw(mutated(APIS[name].answer))
    expect_seen(Witness(whole(APIS[name], answer, status), watched=MARK), Leg.RESPONSE, [answer])


@apis
@examples
@given(data=st.data(), status=st.sampled_from([200, 200, 200, 400]))
def test_text_of_an_answer_is_redacted(name: str, data: st.DataObject, status: int) -> None:
    answer = data.draw(mutated(APIS[name].answer))
    expect_redacted(Witness(whole(APIS[name], answer, status), redact=redact), Leg.RESPONSE)


@streaming_apis
@examples
@given(data=st.data())
def test_text_of_a_stream_is_seen(name: str, data: st.DataObject) -> None:
    events = data.draw(mutated_stream(APIS[name].events))
    it = Witness(streamed(APIS[name], events), is_eager=False, watched=MARK)
    expect_seen(it, Leg.RESPONSE, [event for _, event in events])


@streaming_apis
@examples
@given(data=st.data(), is_eager=st.booleans())
def test_text_of_a_stream_is_redacted(name: str, data: st.DataObject, is_eager: bool) -> None:
    events = data.draw(mutated_stream(APIS[name].events))
    it = Witness(streamed(APIS[name], events), redact=redact, is_eager=is_eager)
    expect_redacted(it, Leg.RESPONSE)
