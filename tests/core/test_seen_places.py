"""Places in which real servers and clients put text, each in a small body of its own: Aim sees it and can redact it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from extproc.core.vocabulary import CALL_ID_HEADER, Leg
from tests.fakes.made_up import differences, stream_differences
from tests.fakes.reading import strings
from tests.fakes.rig import DONE
from tests.fakes.witness import Traffic, Witness
from tests.fakes.world import World

TEXT = "Jane Roe, born in 1970"
MASK = "[X]"

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
ANTHROPIC = "/v1/messages"
GEMINI = "/v1beta/models/gemini-2.5-pro:generateContent"
GEMINI_STREAM = "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
COHERE = "/v2/chat"
COHERE1 = "/v1/chat"
OLLAMA = "/api/chat"
INTERACTIONS = "/v1beta/interactions"
MISTRAL = "/v1/conversations"
THREADS = "/v1/threads/runs"
TGI = "/generate"
INVOCATIONS = "/invocations"
PREDICT = "/v1/projects/p/locations/l/endpoints/1:predict"

HI = [{"role": "user", "content": "Hi"}]

REQUESTS: dict[str, dict[str, Any]] = {
    CHAT: {"model": "m", "messages": HI},
    RESPONSES: {"model": "m", "input": "Hi"},
    ANTHROPIC: {"model": "m", "max_tokens": 9, "messages": HI},
    GEMINI: {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
    GEMINI_STREAM: {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
    COMPLETIONS: {"model": "m", "prompt": "Hi"},
    EMBEDDINGS: {"model": "m", "input": "Hi"},
    COHERE: {"model": "m", "messages": HI},
    COHERE1: {"model": "m", "message": "Hi"},
    OLLAMA: {"model": "m", "messages": HI},
    INTERACTIONS: {"model": "m", "input": "Hi"},
    MISTRAL: {"model": "m", "inputs": "Hi"},
    THREADS: {"assistant_id": "asst_1", "instructions": "Hi"},
    TGI: {"inputs": "Hi"},
    INVOCATIONS: {"messages": HI},
    PREDICT: {"instances": [{"content": "Hi"}]},
}

Row = tuple[str, Leg, Traffic]


def asked(name: str, path: str, **more: Any) -> Row:
    """Return a row with a request."""
    return f"{name} in a request", Leg.REQUEST, Traffic(path, json.dumps(REQUESTS[path] | more).encode())


def told(name: str, path: str, body: dict[str, Any], status: int = 200) -> Row:
    """Return a row with a whole answer."""
    request = json.dumps(REQUESTS[path]).encode()
    return f"{name} in an answer", Leg.RESPONSE, Traffic(path, request, json.dumps(body).encode(), status=status)


def streamed(name: str, path: str, *events: dict[str, Any], end: bytes = b"") -> Row:
    """Return a row with a streamed answer. An event with a type gets an event line, as the APIs with types have it."""
    request = json.dumps(REQUESTS[path] | ({} if path == GEMINI_STREAM else {"stream": True})).encode()
    stream = b"".join(map(sse, events)) + end
    return f"{name} in a stream", Leg.RESPONSE, Traffic(path, request, stream, content_type="text/event-stream")


def sse(event: dict[str, Any]) -> bytes:
    head = f"event: {event['type']}\n" if isinstance(event.get("type"), str) else ""
    return f"{head}data: {json.dumps(event)}\n\n".encode()


# -- chat completions -----------------------------------------------------------------------------------------------

_ANSWER_SIBLINGS: list[tuple[str, str, dict[str, Any]]] = [
    ("__verbose.content", "root", {"__verbose": {"content": TEXT, "stop": True}}),
    ("choices.messages", "choice", {"messages": [{"role": "assistant", "content": TEXT, "end_turn": True}]}),
    ("context.intent", "message", {"context": {"intent": TEXT}}),
    ("context.citations.title", "message", {"context": {"citations": [{"title": TEXT, "url": None}]}}),
    ("search_results.title", "root", {"search_results": [{"title": TEXT, "url": "https://a.example/b"}]}),
    ("search_results.snippet", "root", {"search_results": [{"title": "ab", "snippet": TEXT}]}),
    ("related_questions", "root", {"related_questions": ["What else?", TEXT]}),
    ("reasoning_steps.thought", "message", {"reasoning_steps": [{"type": "web_search", "thought": TEXT}]}),
    ("executed_tools.output", "message", {"executed_tools": [{"index": 0, "type": "search", "output": TEXT}]}),
    (
        "executed_tools.search_results",
        "message",
        {"executed_tools": [{"index": 0, "search_results": {"results": [{"title": TEXT, "score": 0.5}]}}]},
    ),
    ("annotations.url_citation.title", "message", {"annotations": [{"url_citation": {"title": TEXT}}]}),
    ("tool_plan", "message", {"tool_plan": TEXT}),
    ("provider_specific_fields", "message", {"provider_specific_fields": {"citations": [[{"cited_text": TEXT}]]}}),
    ("provider_specific_fields of a choice", "choice", {"provider_specific_fields": {"note": TEXT}}),
    ("images.revised_prompt", "message", {"images": [{"type": "image_url", "revised_prompt": TEXT}]}),
    ("thinking_blocks.thinking", "message", {"thinking_blocks": [{"type": "thinking", "thinking": TEXT}]}),
    *((key, "root", {key: TEXT}) for key in ("response", "generated_text", "output_text", "completion")),
]
"""Places beside the known ones: name, the object that holds it, and its fields."""


def _chat_answers() -> Iterator[Row]:
    for name, level, fields in _ANSWER_SIBLINGS:
        at = {each: fields if each == level else {} for each in ("root", "choice", "message")}
        message = {"role": "assistant", "content": "Well.", **at["message"]}
        choice = {"index": 0, "message": message, "finish_reason": "stop", **at["choice"]}
        yield told(name, CHAT, {"id": "c1", "object": "chat.completion", "choices": [choice], **at["root"]})
        delta = {"content": "Well.", **at["message"]}
        choice = {"index": 0, "delta": delta, "finish_reason": None, **at["choice"]}
        last = {"id": "c1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        yield streamed(name, CHAT, {"id": "c1", "choices": [choice], **at["root"]}, last, end=DONE)
    failure = {"error": {"message": "Failed", "type": "invalid_request_error", "failed_generation": TEXT}}
    yield told("error.failed_generation", CHAT, failure, status=400)
    yield streamed("error.failed_generation", CHAT, failure, end=DONE)


CHAT_REQUESTS = [
    asked("documents.text", CHAT, documents=[{"title": "ab", "text": TEXT}]),
    asked("documents, a string", CHAT, documents=[TEXT]),
    asked("chat_template_kwargs", CHAT, chat_template_kwargs={"persona": TEXT, "enable_thinking": False}),
    asked(
        "document.source.data",
        CHAT,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": TEXT}},
                ],
            }
        ],
    ),
    asked(
        "search_result.title",
        CHAT,
        messages=[
            {
                "role": "user",
                "content": [{"type": "search_result", "title": TEXT, "source": "s", "content": []}],
            }
        ],
    ),
    asked(
        "annotations.file.content.text",
        CHAT,
        messages=[
            {
                "role": "assistant",
                "content": "Well.",
                "annotations": [{"type": "file", "file": {"content": [{"type": "text", "text": TEXT}]}}],
            },
            *HI,
        ],
    ),
    asked("name", CHAT, messages=[{"role": "user", "name": TEXT, "content": "Hi"}]),
    asked("extra_body", CHAT, extra_body={"guided": {"hint": TEXT}}),
    asked("prompt_variables", CHAT, prompt_variables={"customer": TEXT}),
    asked(
        "tool_calls.function.name",
        CHAT,
        messages=[
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": TEXT, "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "42"},
        ],
    ),
]

# -- Responses ------------------------------------------------------------------------------------------------------

_MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
_PART: dict[str, Any] = {"type": "output_text", "text": "Well.", "annotations": []}
_OUTPUT_MESSAGES = [{"type": "raw_message_tokens", "message": TEXT, "tokens": [1, 2, 3]}]


def _response(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    items = [{**_MESSAGE, "content": [_PART]}, *output]
    return {"id": "resp_1", "object": "response", "status": "completed", "output": items, **more}


def _response_stream(*events: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    events = (
        {"type": "response.created", "response": {"id": "resp_1", "object": "response", "output": []}},
        {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "content_index": 0,
         "delta": "Well."},
        *events,
        {"type": "response.completed", "response": _response(**more)},
    )  # fmt: skip
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


_OUTPUT_ITEMS: list[tuple[str, dict[str, Any]]] = [
    (
        "image_generation_call.prompt",
        {
            "id": "ig_1",
            "type": "image_generation_call",
            "status": "completed",
            "prompt": TEXT,
            "result": "iVBORw0KGgo=",
        },
    ),
    (
        "file_search_call.results.attributes",
        {
            "id": "fs_1",
            "type": "file_search_call",
            "status": "completed",
            "queries": ["who"],
            "results": [{"file_id": "file_1", "filename": "a.txt", "score": 0.5, "attributes": {"customer": TEXT}}],
        },
    ),
    (
        "computer_call.action.keys",
        {"id": "cu_1", "type": "computer_call", "action": {"type": "keypress", "keys": ["CTRL", TEXT]}},
    ),
]


def _responses() -> Iterator[Row]:
    yield asked("previous_input_messages", RESPONSES, previous_input_messages=[{"role": "user", "content": TEXT}])
    yield asked(
        "previous_input_messages.content.text",
        RESPONSES,
        previous_input_messages=[{"author": {"role": "user"}, "content": [{"type": "text", "text": TEXT}]}],
    )
    yield asked("context_management.instructions", RESPONSES, context_management=[{"instructions": TEXT}])
    for name, item in _OUTPUT_ITEMS:
        yield asked(name, RESPONSES, input=[{"role": "user", "content": "Hi"}, item])
        yield told(name, RESPONSES, _response(item))
        done = {"type": "response.output_item.done", "output_index": 1, "item": item}
        yield streamed(name, RESPONSES, *_response_stream(done))
    yield told("output_messages.message", RESPONSES, _response(output_messages=_OUTPUT_MESSAGES))
    events = _response_stream(output_messages=_OUTPUT_MESSAGES)
    yield streamed("output_messages.message of response.completed", RESPONSES, *events)
    for kind in (
        "response.audio.transcript.delta",
        "response.audio.delta",
        "response.image_caption.delta",
        "response.image_generation_call.note.delta",
        "response.invented.delta",
    ):
        delta = {"type": kind, "item_id": "x_1", "output_index": 1, "delta": TEXT}
        yield streamed(kind, RESPONSES, *_response_stream(delta))
    event = {"type": "response.invented", "note": {"lines": ["ab", TEXT]}}
    yield streamed("response.invented", RESPONSES, *_response_stream(event))


# -- Anthropic ------------------------------------------------------------------------------------------------------

_SEARCH_RESULT = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [
        {
            "type": "web_search_result",
            "url": "https://a.example/b",
            "title": "ab",
            "encrypted_content": "EqgfCioIARgBIiQ3YTAwMjY1Mi1mZjM5LTQ1NGUtODgxNC1kNjNjNTk1ZWI3Y",
            "page_age": TEXT,
        }
    ],
}
_TOOL_USE: dict[str, Any] = {"type": "tool_use", "id": "toolu_1", "name": TEXT, "input": {}}


def _anthropic_message(*blocks: dict[str, Any]) -> dict[str, Any]:
    content = [{"type": "text", "text": "Well."}, *blocks]
    return {"id": "msg_1", "type": "message", "role": "assistant", "content": content, "stop_reason": "end_turn"}


def _anthropic_stream(*blocks: dict[str, Any]) -> list[dict[str, Any]]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "usage": {"input_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
    for index, block in enumerate(({"type": "text", "text": ""}, *blocks)):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        if block["type"] == "text":
            delta = {"type": "text_delta", "text": "Well."}
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
    return [*events, end, {"type": "message_stop"}]


def _anthropic() -> Iterator[Row]:
    edit = {"type": "compact_20260112", "instructions": TEXT}
    yield asked("context_management.edits.instructions", ANTHROPIC, context_management={"edits": [edit]})
    for name, block in (("web_search_result.page_age", _SEARCH_RESULT), ("tool_use.name", _TOOL_USE)):
        history = [*HI, {"role": "assistant", "content": [block]}, *HI]
        yield asked(name, ANTHROPIC, messages=history)
        yield told(name, ANTHROPIC, _anthropic_message(block))
        yield streamed(name, ANTHROPIC, *_anthropic_stream(block))


# -- further APIs ---------------------------------------------------------------------------------------------------


def _others() -> Iterator[Row]:
    yield asked("documents.data", COHERE, documents=[{"id": "d_1", "data": {"note": TEXT}}])
    yield asked("tool result", COHERE, messages=[*HI, {"role": "tool", "content": [{"document": {"data": TEXT}}]}])
    yield asked("chat_history.tool_results", COHERE1, chat_history=[{"role": "TOOL", "tool_results": [{"o": TEXT}]}])
    yield asked("options.stop", OLLAMA, options={"stop": [TEXT]})
    yield asked("format.enum", OLLAMA, format={"type": "string", "enum": ["ab", TEXT]})
    yield asked("function_result.result", INTERACTIONS, input=[{"type": "function_result", "result": [{"text": TEXT}]}])
    yield asked("function.result", MISTRAL, inputs=[{"type": "function.result", "result": TEXT}])
    yield asked("additional_messages.content", THREADS, additional_messages=[{"role": "user", "content": TEXT}])
    yield asked("parameters.stop", TGI, parameters={"stop": [TEXT]})
    yield asked("databricks_options", INVOCATIONS, databricks_options={"note": TEXT})
    yield asked("instances.prompt", PREDICT, instances=[{"prompt": TEXT}])
    yield told("tool_plan", COHERE, {"message": {"role": "assistant", "tool_plan": TEXT}})
    yield told("citations.sources", COHERE, {"message": {"citations": [{"sources": [{"document": {"title": TEXT}}]}]}})
    yield told("search_queries", COHERE1, {"text": "Well.", "search_queries": [{"text": TEXT}]})
    yield told("message.thinking", OLLAMA, {"message": {"content": "Well.", "thinking": TEXT}, "done": True})
    yield told("outputs.content.title", MISTRAL, {"outputs": [{"content": [{"title": TEXT}]}]})
    yield told(
        "annotations.text", THREADS, {"content": [{"text": {"value": "Well.", "annotations": [{"text": TEXT}]}}]}
    )
    yield told("details.best_of_sequences", TGI, {"details": {"best_of_sequences": [{"generated_text": TEXT}]}})
    yield told("predictions", PREDICT, {"predictions": [{"content": TEXT}]})
    steps = [{"type": "google_search_result", "result": [{"title": TEXT}]}]
    yield told("google_search_result.result", INTERACTIONS, {"id": "v1_a", "steps": steps})
    source = {"type": "citation-start", "index": 0, "delta": {"message": {"citations": {"sources": [{"t": TEXT}]}}}}
    yield streamed("citations.sources", COHERE, source, {"type": "message-end", "delta": {}})
    delta = {"event_type": "step.delta", "index": 0, "delta": {"type": "google_search_result", "result": TEXT}}
    yield streamed("step.delta.result", INTERACTIONS, delta)
    yield streamed("tool.execution.done.info", MISTRAL, {"type": "tool.execution.done", "info": {"note": TEXT}})
    yield streamed("last_error.message", THREADS, {"object": "thread.run", "last_error": {"message": TEXT}}, end=DONE)


# -- Gemini ---------------------------------------------------------------------------------------------------------


def _gemini() -> Iterator[Row]:
    function = {"functionResponse": {"name": "look_up", "response": {"rows": [{"customer": TEXT}]}}}
    yield asked("functionResponse.response", GEMINI, contents=[{"role": "user", "parts": [function]}])
    function = {"functionResponse": {"name": "look_up", "response": {}, "scheduling": TEXT}}
    yield asked("functionResponse", GEMINI, contents=[{"role": "user", "parts": [function]}])
    review = {"reviewId": "r1", "review": TEXT}
    metadata = [{"key": "customer", "stringValue": TEXT}]
    chunks: list[tuple[str, dict[str, Any]]] = [
        ("reviewSnippets.review", {"maps": {"placeAnswerSources": {"reviewSnippets": [review]}}}),
        ("retrievedContext.customMetadata.stringValue", {"retrievedContext": {"customMetadata": metadata}}),
    ]
    candidate = {"content": {"role": "model", "parts": [{"text": "Well."}]}, "finishReason": "STOP", "index": 0}
    answers: list[tuple[str, dict[str, Any]]] = [
        ("a sibling of candidates", {"candidates": [candidate], "summary": {"text": TEXT}}),
        ("promptFeedback.blockReasonMessage", {"promptFeedback": {"blockReason": "OTHER", "blockReasonMessage": TEXT}}),
    ]
    for name, chunk in chunks:
        grounded = candidate | {"groundingMetadata": {"groundingChunks": [chunk]}}
        answers.append((name, {"candidates": [grounded]}))
    for name, body in answers:
        yield told(name, GEMINI, body)
        yield streamed(name, GEMINI_STREAM, body)


# -- completions ----------------------------------------------------------------------------------------------------


def _completions() -> Iterator[Row]:
    yield asked("messages", COMPLETIONS, messages=[{"role": "user", "content": TEXT}])
    yield asked("input", COMPLETIONS, input=TEXT)
    yield asked("input, a list", COMPLETIONS, input=["ab", TEXT])
    logprobs = [None, {"1001": {"logprob": -0.5, "rank": 1, "decoded_token": TEXT}}]
    choice: dict[str, Any] = {"index": 0, "text": "Well.", "finish_reason": "stop"}
    yield told("prompt_logprobs.decoded_token", COMPLETIONS, {"choices": [choice | {"prompt_logprobs": logprobs}]})
    choice |= {"text": TEXT, "token_ids": [1, 2, 3], "logprobs": {"tokens": [TEXT], "token_logprobs": [-0.5]}}
    yield told("text with its tokens", COMPLETIONS, {"choices": [choice]})
    yield streamed("text with its tokens", COMPLETIONS, {"choices": [choice]}, end=DONE)


TABLE = [
    *_chat_answers(),
    *CHAT_REQUESTS,
    *_responses(),
    *_anthropic(),
    *_others(),
    *_gemini(),
    *_completions(),
]

rows = pytest.mark.parametrize(
    ("leg", "traffic"),
    [pytest.param(leg, traffic, id=f"{traffic.path.partition('?')[0]}: {name}") for name, leg, traffic in TABLE],
)


def redact(text: str) -> str:
    return text.replace(TEXT, MASK)


def sent(leg: Leg, traffic: Traffic) -> bytes:
    body = traffic.request if leg is Leg.REQUEST else traffic.answer
    assert body is not None
    return body


@rows
def test_text_is_seen(leg: Leg, traffic: Traffic) -> None:
    it = Witness(traffic, is_eager=False)
    assert not it.is_refused, f"refused as {it.why}"
    assert it.has_seen(leg, TEXT), "released unseen"
    assert it.released(leg) == sent(leg, traffic)


@rows
def test_text_is_redacted_in_its_place(leg: Leg, traffic: Traffic) -> None:
    it = Witness(traffic, redact=redact)
    released = it.released(leg)
    assert TEXT.encode() not in released, "released in spite of the redaction"
    if b"transcript" in (traffic.answer or b""):
        assert it.why == "redaction_failed"  # the audio says the same
        return
    assert not it.is_refused, f"refused as {it.why}"
    if leg is Leg.RESPONSE and traffic.is_stream:
        assert list(stream_differences(sent(leg, traffic), released, redact)) == []
    else:
        assert list(differences(json.loads(sent(leg, traffic)), json.loads(released), redact)) == []


# -- tokens of a rewritten text -------------------------------------------------------------------------------------


def ints_of(body: bytes) -> list[Any]:
    """Return the lists of token numbers in a body."""
    found: list[Any] = []

    def collect(node: Any) -> None:
        if isinstance(node, list) and node and all(type(item) is int for item in node):
            found.append(node)
        elif isinstance(node, dict | list):
            for item in node.values() if isinstance(node, dict) else node:
                collect(item)

    for line in body.decode().splitlines():
        if line.startswith("data: {"):
            collect(json.loads(line.removeprefix("data: ")))
    if body.startswith(b"{"):
        collect(json.loads(body))
    return found


@pytest.mark.parametrize(
    "traffic",
    [
        pytest.param(traffic, id=name)
        for name, leg, traffic in TABLE
        if leg is Leg.RESPONSE and traffic.answer is not None and ints_of(traffic.answer)
    ],
)
def test_token_numbers_go_with_the_text_that_they_spell(traffic: Traffic) -> None:
    it = Witness(traffic, redact=redact)
    assert not it.is_refused, f"refused as {it.why}"
    assert MASK.encode() in it.released(Leg.RESPONSE)
    assert ints_of(it.released(Leg.RESPONSE)) == []


# -- prompts that are not text --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"prompt_embeds": "gAJjdG9yY2guX3V0aWxz"}),
        (CHAT, {"prompt_token_ids": [9906, 11]}),
        (COMPLETIONS, {"prompt": [9906, 11]}),
        (COMPLETIONS, {"prompt": [[9906, 11], [1917]]}),
        (COMPLETIONS, {"prompt": ["Hi", [9906, 11]]}),
        (COMPLETIONS, {"prompt_embeds": "gAJjdG9yY2guX3V0aWxz"}),
        (COMPLETIONS, {"prompt_token_ids": [[9906, 11]]}),
        (EMBEDDINGS, {"input": [9906, 11]}),
        (EMBEDDINGS, {"input": [[9906, 11]]}),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else value,
)
def test_prompt_of_numbers_or_tensors_is_refused(path: str, fields: dict[str, Any]) -> None:
    it = Witness(Traffic(path, json.dumps(REQUESTS[path] | fields).encode()))
    assert it.world.reply is not None, "not refused"
    assert (it.world.status, it.world.code) == (400, "invalid_body")
    assert it.world.asked == []


# -- the escapes of tool arguments ----------------------------------------------------------------------------------

_ESCAPED = json.dumps({"customer": "Zoë says “no”", "n": 1.0})


def _arguments() -> Iterator[Row]:
    call = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": _ESCAPED}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    yield asked(
        "tool_calls.arguments", CHAT, messages=[message, {"role": "tool", "tool_call_id": "call_1", "content": "1"}]
    )
    yield told("tool_calls.arguments", CHAT, {"choices": [{"index": 0, "message": message}]})
    delta = {"tool_calls": [{"index": 0, **call}]}
    yield streamed("tool_calls.arguments", CHAT, {"choices": [{"index": 0, "delta": delta}]}, end=DONE)
    block = {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": json.loads(_ESCAPED)}
    yield asked("tool_use.input", ANTHROPIC, messages=[*HI, {"role": "assistant", "content": [block]}, *HI])
    yield told("tool_use.input", ANTHROPIC, _anthropic_message(block))
    item = {"type": "function_call", "call_id": "call_1", "name": "look_up", "arguments": _ESCAPED}
    yield asked("function_call.arguments", RESPONSES, input=[item])
    yield told("function_call.arguments", RESPONSES, _response(item))


@pytest.mark.parametrize(("leg", "traffic"), [pytest.param(leg, each, id=name) for name, leg, each in _arguments()])
def test_escapes_of_arguments_are_decoded_and_a_redaction_is_put_back(leg: Leg, traffic: Traffic) -> None:
    it = Witness(traffic, is_eager=False)
    assert any("Zoë says “no”" in text for text in it.texts[leg]), "not decoded"

    def hide(text: str) -> str:
        return text.replace("Zoë", MASK)

    it = Witness(traffic, redact=hide)
    assert not it.is_refused, f"refused as {it.why}"
    lines = it.released(leg).decode().splitlines()
    texts = [text for line in lines if "{" in line for _, text in strings(json.loads(line.removeprefix("data: ")))]
    assert any(f"{MASK} says" in text for text in texts)
    assert not any("Zo" in text for text in texts)


# -- answers under another name -------------------------------------------------------------------------------------

_WHOLE = json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}}]}).encode()
_STREAM = sse({"id": "c1", "choices": [{"index": 0, "delta": {"content": TEXT}}]}) + DONE


@pytest.mark.parametrize("content_type", ["image/png", "audio/mpeg", "text/plain", "application/octet-stream", ""])
@pytest.mark.parametrize("body", [_WHOLE, _STREAM], ids=["JSON", "event stream"])
def test_answer_with_a_wrong_content_type_is_read(content_type: str, body: bytes) -> None:
    request = json.dumps(REQUESTS[CHAT] | {"stream": body is _STREAM}).encode()
    it = Witness(Traffic(CHAT, request, body, content_type=content_type))
    assert not it.is_refused, f"refused as {it.why}"
    assert it.has_seen(Leg.RESPONSE, TEXT), "released unseen"
    assert it.released(Leg.RESPONSE) == body


def test_event_stream_that_is_called_json_lines_is_read() -> None:
    request = json.dumps(REQUESTS[CHAT] | {"stream": True}).encode()
    it = Witness(Traffic(CHAT, request, _STREAM, content_type="application/x-ndjson"))
    assert it.has_seen(Leg.RESPONSE, TEXT), "released unseen"
    assert it.released(Leg.RESPONSE) == _STREAM


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("GET", "/v1/responses/resp_1", _response(**{"output_text": TEXT})),
        ("POST", "/v1/responses/resp_1/cancel", _response(**{"output_text": TEXT})),
        ("GET", "/v1/responses/resp_1/input_items", {"object": "list", "data": [{"role": "user", "content": TEXT}]}),
        ("GET", "/v1/conversations/conv_1/items", {"object": "list", "data": [{"role": "user", "content": TEXT}]}),
        ("GET", "/v1/chat/completions/chatcmpl-1", json.loads(_WHOLE)),
        ("GET", "/v1beta/interactions/i_1", {"steps": [{"type": "model_output", "content": [{"text": TEXT}]}]}),
        ("GET", "/some/tool", {"notes": [TEXT]}),
    ],
)
def test_stored_answer_is_read(method: str, path: str, answer: dict[str, Any]) -> None:
    traffic = Traffic(path, None, json.dumps(answer).encode(), method=method, headers=())
    it = Witness(traffic)
    assert not it.is_refused, f"refused as {it.why}"
    assert it.has_seen(Leg.RESPONSE, TEXT), "released unseen"
    it = Witness(traffic, redact=redact)
    assert list(differences(answer, json.loads(it.released(Leg.RESPONSE)), redact)) == []


# -- event-stream fields --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [CHAT, ANTHROPIC, RESPONSES, "/some/tool"])
@pytest.mark.parametrize(
    "line",
    [f": {TEXT}", f"event: {TEXT}", f"id: {TEXT}", f"retry: {TEXT}", f'error: {{"message": "{TEXT}"}}', TEXT],
)
def test_text_in_a_field_of_an_event_stream_is_seen_or_not_released(path: str, line: str) -> None:
    events = {
        ANTHROPIC: _anthropic_stream(),
        RESPONSES: _response_stream(),
        CHAT: [{"choices": [{"index": 0, "delta": {"content": "Well."}}]}],
    }
    first, *rest = [sse(event) for event in events.get(path, [{"said": "Well."}])]
    request = json.dumps(REQUESTS.get(path, {"note": "Hi there"}) | {"stream": True}).encode()
    for block in (f"{line}\n\n".encode(), f"{line}\ndata: {{}}\n\n".encode()):
        body = first + block + b"".join(rest)
        it = Witness(Traffic(path, request, body, content_type="text/event-stream"), is_eager=False)
        released = it.released(Leg.RESPONSE)
        assert it.has_seen(Leg.RESPONSE, TEXT) or TEXT.encode() not in released, "released unseen"


# -- paths that no dialect knows ------------------------------------------------------------------------------------

_LINES = b'{"id": 1}\n' + json.dumps({"note": TEXT}).encode() + b"\n"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", json.dumps({"note": TEXT}).encode()),
        ("application/json; charset=utf-8", json.dumps(["ab", [TEXT]]).encode()),
        ("application/vnd.api+json", json.dumps({"note": TEXT}).encode()),
        ("application/json", json.dumps(TEXT).encode()),
        ("application/json", f"{{note: {TEXT}".encode()),
        ("application/x-ndjson", _LINES),
        ("application/jsonl", _LINES),
        ("text/plain", json.dumps({"note": TEXT}).encode()),
        ("application/x-www-form-urlencoded", json.dumps({"note": TEXT}).encode()),
        ("", json.dumps({"note": TEXT}).encode()),
    ],
)
def test_request_for_an_unknown_path_is_read(content_type: str, body: bytes) -> None:
    headers = (("content-type", content_type),) if content_type else ()
    traffic = Traffic("/some/tool", body, headers=(*headers, ("content-length", str(len(body)))))
    it = Witness(traffic)
    assert not it.is_refused, f"refused as {it.why}"
    assert it.has_seen(Leg.REQUEST, TEXT), "released unseen"
    assert it.released(Leg.REQUEST) == body
    it = Witness(traffic, redact=redact)
    assert it.released(Leg.REQUEST) == body.replace(TEXT.encode(), MASK.encode())


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", json.dumps({"note": TEXT}).encode()),
        ("application/json", f"{{note: {TEXT}".encode()),
        ("application/x-ndjson", _LINES),
        ("text/event-stream", sse({"note": TEXT})),
        ("text/event-stream", f"data: {TEXT}\n\n".encode()),
    ],
)
def test_answer_on_an_unknown_path_is_read(content_type: str, body: bytes) -> None:
    traffic = Traffic("/some/tool", b'{"note": "Hi there"}', body, content_type=content_type)
    it = Witness(traffic)
    assert not it.is_refused, f"refused as {it.why}"
    assert it.has_seen(Leg.RESPONSE, TEXT), "released unseen"
    assert it.released(Leg.RESPONSE) == body
    it = Witness(traffic, redact=redact)
    assert it.released(Leg.RESPONSE) == body.replace(TEXT.encode(), MASK.encode())


# -- the rest -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_stop", [True, False])
def test_anthropic_stream_that_ends_like_a_chat_stream_passes(has_stop: bool) -> None:
    events = _anthropic_stream()
    stream = b"".join(map(sse, events if has_stop else events[:-1])) + DONE
    request = json.dumps(REQUESTS[ANTHROPIC] | {"stream": True}).encode()
    it = Witness(Traffic(ANTHROPIC, request, stream, content_type="text/event-stream"))
    assert not it.is_refused, f"refused as {it.why}"
    assert it.released(Leg.RESPONSE) == stream


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_exchange_that_is_not_read_has_no_call_id_and_is_not_called_allowed(method: str) -> None:
    head = () if method == "GET" else (("content-type", "image/png"), ("content-length", "9"))
    it = World().request(None if method == "GET" else b"\x89PNG\r\n\x1a\n.", *head, path="/upload", method=method)
    it.head("text/html").body(b"<p>Thank you very much.</p>", end=True)
    assert it.response.headers is not None
    assert CALL_ID_HEADER not in dict(it.response.headers.set)
    assert it.record.outcome == "unmatched"
    assert it.asked == []


def test_exchange_that_is_read_has_a_call_id() -> None:
    it = Witness(Traffic("/some/tool", json.dumps({"note": TEXT}).encode(), json.dumps({"ok": True}).encode()))
    headers = it.world.response.headers
    assert headers is not None
    assert CALL_ID_HEADER in dict(headers.set)
    assert it.world.record.outcome == "allowed"
