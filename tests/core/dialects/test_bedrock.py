"""Bedrock's APIs: what is read of requests, answers and frames, what decides between them, and how they are refused."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

import pytest

from extproc.core.content.aws_event_stream import Frame, FrameDecoder
from extproc.core.dialects.choice import choose
from extproc.core.dialects.endpoints import ALL
from extproc.core.dialects.paths import route
from extproc.core.errors import MalformedBody
from extproc.core.refusal import INVALID_BODY, OVERLOADED, REQUEST_TOO_LARGE, UNAVAILABLE, UNREADABLE_RESPONSE, blocked
from extproc.core.verdict import Anonymize, Block
from extproc.core.vocabulary import CALL_ID_HEADER
from tests.fakes.aws import event, wrapped
from tests.fakes.reading import (
    answers,
    asked,
    document,
    fixed,
    heard,
    is_redactable,
    masked,
    places,
    prompts,
    redacted_answer,
    redacted_event,
    redacted_request,
    said,
)
from tests.fakes.world import World, policy

CONVERSE, INVOKE, CLAUDE = ALL["bedrock-converse"], ALL["bedrock-invoke"], ALL["bedrock-invoke of Anthropic"]
COUNT, TWO_WAY = ALL["bedrock-converse for token counts"], ALL["bedrock-invoke in both directions"]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAX+XDSwAAAABJRU5ErkJggg=="
SEAL = b64encode(b"sealed" * 20).decode()
AWS = "application/vnd.amazon.eventstream"
ARN = "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2Fab12"


# -- paths -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["amazon.nova-pro-v1:0", "us.anthropic.claude-opus-4-8", "m%3A0", ARN])
@pytest.mark.parametrize(
    ("operation", "name"),
    [
        ("converse", "bedrock-converse"),
        ("converse-stream", "bedrock-converse"),
        ("count-tokens", "bedrock-converse"),
        ("invoke", "bedrock-invoke"),
        ("invoke-with-response-stream", "bedrock-invoke"),
    ],
)
def test_paths(model: str, operation: str, name: str) -> None:
    for prefix in ("", "/bedrock"):
        dialect = route("POST", f"{prefix}/model/{model}/{operation}", {}).dialect
        assert dialect is not None
        assert dialect.name == name
        assert dialect.streams(document({}), f"/model/{model}/{operation}?a=/b") is operation.endswith("-stream")


def test_field_stream_says_nothing() -> None:
    assert not CONVERSE.streams(document({"stream": True}), "/model/m/converse")
    assert not COUNT.streams(document({}), "/model/m/count-tokens-stream")


@pytest.mark.parametrize(
    ("body", "dialect"),
    [
        ({"anthropic_version": "bedrock-2023-05-31", "messages": []}, CLAUDE),
        ({"messages": [], "inferenceConfig": {}}, INVOKE),
        ({"prompt": "Hi"}, INVOKE),
        ({}, INVOKE),
        ([], INVOKE),
    ],
)
def test_body_chooses_among_the_models_of_invoke(body: Any, dialect: object) -> None:
    choices = route("POST", "/model/m/invoke", {}).choices
    assert choose(choices, json.dumps(body).encode(), 1000)[0] is dialect


# -- Converse ----------------------------------------------------------------------------------------------------------


def message(*content: Any, role: str = "user") -> Any:
    return {"messages": [{"role": role, "content": list(content)}]}


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (
            {
                "system": [{"text": "hi a"}, {"guardContent": {"text": {"text": "hi b", "qualifiers": ["query"]}}}],
                "messages": [
                    {"role": "user", "content": [{"text": "hi c"}, {"cachePoint": {"type": "default", "ttl": "1h"}}]},
                    {"role": "assistant", "content": [{"text": "hi d"}]},
                    {"role": "system", "content": [{"text": "hi e"}]},
                ],
                "inferenceConfig": {"maxTokens": 5, "stopSequences": ["hi f"]},
            },
            [
                ("system", "hi a"),
                ("system", "hi b"),
                ("user", "hi c"),
                ("assistant", "hi d"),
                ("system", "hi e"),
                ("user", "hi f"),
            ],
        ),
        (
            message({"toolUse": {"toolUseId": "t1", "name": "f", "input": {"to": "hi a"}}}, role="assistant"),
            [("assistant", '{"to": "hi a"}')],
        ),
        (
            message(
                {
                    "toolResult": {
                        "toolUseId": "t1",
                        "status": "success",
                        "content": [
                            {"text": "hi a"},
                            {"json": {"sky": "hi b"}},
                            {"searchResult": {"source": "hi c", "title": "hi d", "content": [{"text": "hi e"}]}},
                            {"image": {"format": "png", "source": {"bytes": PNG}}},
                        ],
                    }
                }
            ),
            [("tool", "hi a"), ("tool", '{"sky": "hi b"}'), ("tool", "hi c"), ("tool", "hi d"), ("tool", "hi e")],
        ),
        (
            message(
                {"image": {"format": "png", "source": {"bytes": PNG}}},
                {"video": {"format": "mp4", "source": {"s3Location": {"uri": "s3://b/k", "bucketOwner": "123"}}}},
                {
                    "document": {
                        "format": "txt",
                        "name": "hi a",
                        "context": "hi b",
                        "source": {"content": [{"text": "hi c"}]},
                    }
                },
                {"document": {"format": "txt", "name": "a", "source": {"text": "hi d"}}},
            ),
            [("user", "hi a"), ("user", "hi b"), ("user", "hi c"), ("user", "a"), ("user", "hi d")],
        ),
        (
            message({"citationsContent": {"content": [{"text": "hi a"}], "citations": [{"title": "hi b"}]}}),
            [("user", "hi a"), ("user", "hi b")],
        ),
        (
            {
                "promptVariables": {"who": {"text": "hi a"}},
                "additionalModelRequestFields": {"thinking": {"type": "enabled"}, "note": "hi b"},
                "additionalModelResponseFieldPaths": ["/stop_sequence"],
                "guardrailConfig": {"guardrailIdentifier": "ab", "guardrailVersion": "1", "trace": "enabled"},
                "requestMetadata": {"team": "a-1", "note": "hi c"},
                "performanceConfig": {"latency": "optimized"},
            },
            [("user", "hi a"), ("user", "hi b"), ("user", "hi c")],
        ),
    ],
)
def test_texts_of_converse_requests(body: Any, texts: list[tuple[str, str]]) -> None:
    assert asked(CONVERSE, body) == texts
    assert redacted_request(CONVERSE, body) == masked(body)
    wrapped_body = {"input": {"converse": body}}
    if "promptVariables" not in body:
        assert asked(COUNT, wrapped_body) == texts
        assert redacted_request(COUNT, wrapped_body) == masked(wrapped_body)


def test_result_of_a_tool_names_its_call() -> None:
    body = message({"toolResult": {"toolUseId": "t1", "content": [{"text": "hi"}]}})
    (prompt,) = prompts(CONVERSE, body)
    assert prompt.message == {"role": "tool", "tool_call_id": "t1", "content": "hi"}


def test_document_in_base64_is_read() -> None:
    def body(text: str) -> Any:
        return message({"document": {"name": "a", "source": {"bytes": b64encode(text.encode()).decode()}}})

    assert asked(CONVERSE, body("hi, there")) == [("user", "a"), ("user", "hi, there")]
    assert redacted_request(CONVERSE, body("hi, there")) == body("[X], there")


def test_sealed_reasoning_cannot_be_redacted() -> None:
    body = message({"reasoningContent": {"reasoningText": {"text": "hi", "signature": SEAL}}}, role="assistant")
    assert asked(CONVERSE, body) == [("assistant", "hi")]
    assert fixed(prompt.leaf for prompt in prompts(CONVERSE, body)) == ["hi"]
    assert not is_redactable(CONVERSE, body)
    body = message({"reasoningContent": {"redactedContent": SEAL}}, role="assistant")
    assert asked(CONVERSE, body) == []


def test_tools_and_schemas_are_definitions() -> None:
    schema = {"json": {"type": "object", "properties": {"a": {"type": "string", "description": "hi b"}}}}
    body = {
        **message({"text": "hi"}),
        "toolConfig": {
            "tools": [{"toolSpec": {"name": "f", "description": "hi a", "inputSchema": schema}}],
            "toolChoice": {"tool": {"name": "f"}},
        },
        "outputConfig": {
            "textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"name": "S", "description": "hi c"}}}
        },
    }
    assert asked(CONVERSE, body) == [("user", "hi")]
    assert asked(CONVERSE, body, tools=True) == [("system", "hi a\nhi b"), ("system", "hi c"), ("user", "hi")]
    assert redacted_request(CONVERSE, body, tools=True) == masked(body)


def test_texts_of_converse_answers() -> None:
    body = {
        "output": {
            "message": {
                "role": "assistant",
                "content": [
                    {"reasoningContent": {"reasoningText": {"text": "hi a", "signature": SEAL}}},
                    {"text": "hi b"},
                    {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"to": "hi c"}}},
                    {"citationsContent": {"content": [{"text": "hi d"}], "citations": [{"title": "hi e"}]}},
                ],
            }
        },
        "stopReason": "tool_use",
        "usage": {"inputTokens": 1},
        "additionalModelResponseFields": {"note": "hi f"},
        "trace": {
            "guardrail": {
                "modelOutput": ["hi g"],
                "outputAssessments": {"g1": [{"contentPolicy": {"filters": [{"type": "HATE", "action": "NONE"}]}}]},
            }
        },
    }
    assert said(CONVERSE, body) == ["hi a", "hi b", '{"to": "hi c"}', "hi d", "hi e\nhi f\nhi g"]
    assert redacted_answer(CONVERSE, body) == json.loads(json.dumps(masked(body)).replace(SEAL, ""))
    assert fixed(answers(CONVERSE, body)) == []


EVENTS: list[tuple[Any, list[str]]] = [
    ({"role": "assistant", "p": "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"}, []),
    ({"contentBlockIndex": 0, "delta": {"text": "hi"}, "p": "ab"}, ["hi"]),
    ({"contentBlockIndex": 0, "delta": {"text": ""}}, []),
    ({"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "t1", "name": "f"}}}, []),
    ({"contentBlockIndex": 0, "delta": {"toolUse": {"input": '{"to": "hi'}}}, ['{"to": "hi']),
    ({"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "hi"}}}, ["hi"]),
    ({"contentBlockIndex": 0, "delta": {"reasoningContent": {"signature": SEAL}}}, ["~" + SEAL]),
    ({"contentBlockIndex": 0, "delta": {"reasoningContent": {"redactedContent": SEAL}}}, []),
    (
        {"contentBlockIndex": 0, "delta": {"toolResult": [{"text": "hi a"}, {"json": {"b": "hi"}}]}},
        ["hi a", '{"b": "hi"}'],
    ),
    ({"contentBlockIndex": 0, "delta": {"citation": {"title": "hi", "location": {"web": {"domain": "a.b"}}}}}, ["hi"]),
    ({"contentBlockIndex": 0, "delta": {"image": {"source": {"bytes": PNG}}}}, []),
    ({"stopReason": "end_turn", "additionalModelResponseFields": {"note": "hi"}}, ["hi"]),
    ({"metrics": {"latencyMs": 2}, "usage": {"inputTokens": 1}, "serviceTier": {"type": "default"}}, []),
    ({"message": "hi"}, ["hi"]),
    ({"p": "hi there"}, ["hi there"]),
]


@pytest.mark.parametrize(("body", "texts"), EVENTS)
def test_texts_of_converse_events(body: Any, texts: list[str]) -> None:
    assert heard(CONVERSE, body) == texts
    if texts and not texts[0].startswith(("~", "{")):
        assert redacted_event(CONVERSE, body) == masked(body)


def delta(index: Any, **part: Any) -> Any:
    return {"contentBlockIndex": index, "delta": part}


def test_each_block_has_running_texts_of_its_own() -> None:
    first, again, other = places(CONVERSE, delta(0, text="a"), delta(0, text="b"), delta(1, text="c"))
    assert first == again != other
    text, seal = places(
        CONVERSE, delta(0, reasoningContent={"text": "a"}), delta(0, reasoningContent={"signature": SEAL})
    )
    assert text == seal != first
    assert places(CONVERSE, {"delta": {"text": "a"}}) == [first]
    assert places(CONVERSE, delta(None, text="a")) == [first]


def test_last_event_of_a_converse_stream() -> None:
    finals = [CONVERSE.is_final("", document(body)) for body, _ in EVENTS]
    assert finals == ["usage" in body for body, _ in EVENTS]
    assert CONVERSE.is_final("[DONE]", None)


@pytest.mark.parametrize(
    "body", [{"Messages": []}, {"messages": [{"content": [{"Text": "a"}]}]}, message({"text": 1}), 1]
)
def test_request_that_cannot_be_judged_is_unreadable(body: Any) -> None:
    with pytest.raises(MalformedBody):
        asked(CONVERSE, body)


@pytest.mark.parametrize("spelling", ["hi", "\\u0068i"])
def test_body_of_a_token_count_is_decoded(spelling: str) -> None:
    def body(word: str) -> Any:
        inner = f'{{"anthropic_version": "b", "messages": [{{"role": "user", "content": "{word} \\u00e9"}}]}}'
        return {"input": {"invokeModel": {"body": b64encode(inner.encode()).decode()}}}

    ((role, text),) = asked(COUNT, body(spelling))
    assert role == "user"
    assert '"content": "hi é"' in text
    encoded = redacted_request(COUNT, body(spelling))["input"]["invokeModel"]["body"]
    assert json.loads(b64decode(encoded))["messages"] == [{"role": "user", "content": "[X] é"}]
    assert said(COUNT, {"inputTokens": 11}) == []


# -- InvokeModel -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ({"prompt": "hi", "max_gen_len": 5, "temperature": 0.5}, [("user", "hi")]),
        ({"inputText": "hi", "textGenerationConfig": {"maxTokenCount": 5}}, [("user", "hi")]),
        (
            {
                "schemaVersion": "messages-v1",
                "system": [{"text": "hi a"}],
                "messages": [
                    {
                        "role": "user",
                        "content": [{"text": "hi b"}, {"image": {"format": "png", "source": {"bytes": PNG}}}],
                    },
                    {
                        "role": "assistant",
                        "content": [{"toolUse": {"toolUseId": "t", "name": "f", "input": {"a": "hi c"}}}],
                    },
                    {"role": "user", "content": [{"toolResult": {"toolUseId": "t", "content": [{"text": "hi d"}]}}]},
                ],
            },
            [("system", "hi a"), ("user", "hi b"), ("assistant", '{"a": "hi c"}'), ("tool", "hi d")],
        ),
        (
            {
                "messages": [
                    {"role": "developer", "content": "hi a"},
                    {"role": "user", "content": [{"type": "text", "text": "hi b"}]},
                    {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": [
                            {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "hi c"}'}}
                        ],
                    },
                    {"role": "tool", "tool_call_id": "c", "content": "hi d"},
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}],
                    },
                ],
                "model": "openai.gpt-oss-120b-1:0",
            },
            [("system", "hi a"), ("user", "hi b"), ("assistant", '{"a": "hi c"}'), ("tool", "hi d")],
        ),
        (
            {
                "chat_history": [{"role": "CHATBOT", "message": "hi a"}, {"role": "USER", "message": "hi b"}],
                "message": "hi c",
            },
            [("assistant", "hi a"), ("user", "hi b"), ("user", "hi c")],
        ),
        (
            {"texts": ["hi a", "hi b"], "input_type": "search_document", "truncate": "NONE"},
            [("user", "hi a"), ("user", "hi b")],
        ),
        (
            {
                "taskType": "SINGLE_EMBEDDING",
                "singleEmbeddingParams": {
                    "embeddingPurpose": "GENERIC_RETRIEVAL",
                    "text": {"value": "hi", "truncationMode": "NONE"},
                    "embeddingDimension": 256,
                },
            },
            [("user", "hi")],
        ),
        (
            {"taskType": "TEXT_IMAGE", "textToImageParams": {"text": "hi"}, "inPaintingParams": {"image": PNG}},
            [("user", "hi")],
        ),
    ],
)
def test_texts_of_invoke_requests(body: Any, texts: list[tuple[str, str]]) -> None:
    assert asked(INVOKE, body) == texts
    assert redacted_request(INVOKE, body) == masked(body)


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ({"generation": "hi", "prompt_token_count": 5, "stop_reason": "stop"}, ["hi"]),
        ({"outputs": [{"text": "hi", "stop_reason": "stop"}]}, ["hi"]),
        ({"results": [{"outputText": "hi", "completionReason": "FINISH"}]}, ["hi"]),
        ({"completion": "hi", "stop_reason": "stop_sequence"}, ["hi"]),
        ({"choices": [{"index": 0, "message": {"content": "hi a"}}, {"index": 1, "text": "hi b"}]}, ["hi a", "hi b"]),
        ({"output": {"message": {"content": [{"text": "hi"}]}}, "stopReason": "end_turn"}, ["hi"]),
        ({"images": [PNG], "error": None}, []),
        ({"artifacts": [{"base64": PNG, "finishReason": "hi there"}]}, ["hi there"]),
        ({"embedding": [0.5, 1], "inputTextTokenCount": 3, "note": "hi"}, ["hi"]),
        (
            {
                "generation": "hi",
                "amazon-bedrock-guardrailAction": "NONE",
                "amazon-bedrock-trace": {"guardrail": {"a": "hi b"}},
            },
            ["hi", "hi b"],
        ),
    ],
)
def test_texts_of_invoke_answers(body: Any, texts: list[str]) -> None:
    assert said(INVOKE, body) == texts
    assert redacted_answer(INVOKE, body) == masked(body)


def test_tokens_of_a_redacted_choice_become_null() -> None:
    body = {"choices": [{"message": {"content": "hi"}, "logprobs": {"content": [{"token": "hi"}]}}]}
    assert redacted_answer(INVOKE, body)["choices"] == [{"message": {"content": "[X]"}, "logprobs": None}]


METRICS = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 1}}


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ({"generation": "hi", "stop_reason": None}, ["hi"]),
        ({"outputText": "hi", "index": 0, "completionReason": None}, ["hi"]),
        ({"outputs": [{"text": "hi"}]}, ["hi"]),
        ({"choices": [{"index": 0, "delta": {"content": "hi a", "reasoning": "hi b"}}]}, ["hi a", "hi b"]),
        ({"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "hi"}}}, ["hi"]),
        ({"contentBlockStart": {"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "t", "name": "f"}}}}, []),
        ({"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"toolUse": {"input": '{"a'}}}}, ['{"a']),
        ({"contentBlockDelta": "hi"}, ["hi"]),
        ({"messageStop": {"stopReason": "end_turn"}}, []),
        ({"metadata": {"usage": {"inputTokens": 1}}, **METRICS}, []),
        ({"text": "hi", "is_finished": False, "event_type": "text-generation"}, ["hi"]),
        ({"event_type": "stream-end", "response": {"text": "hi"}}, ["=hi"]),
    ],
)
def test_texts_of_invoke_events(body: Any, texts: list[str]) -> None:
    assert heard(INVOKE, body) == texts
    assert INVOKE.is_final("", document(body)) is (METRICS.keys() <= body.keys())


def test_running_texts_of_invoke_streams() -> None:
    def block(index: int) -> Any:
        return {"contentBlockDelta": delta(index, text="a")}

    first, again, other = places(INVOKE, block(0), block(0), block(1))
    assert first == again != other
    text, repeat = places(INVOKE, {"text": "a"}, {"response": {"text": "a"}})
    assert text == repeat
    assert INVOKE.is_final("[DONE]", None)


def test_models_of_anthropic_are_read_as_messages() -> None:
    body = {
        "anthropic_version": "bedrock-2023-05-31",
        "anthropic_beta": ["a-2025-01-01"],
        "amazon-bedrock-guardrailConfig": {"tagSuffix": "xyz"},
        **message({"type": "text", "text": "hi"}),
    }
    assert asked(CLAUDE, body) == [("user", "hi")]
    assert said(CLAUDE, {"content": [{"type": "text", "text": "hi"}], "amazon-bedrock-guardrailAction": "NONE"}) == [
        "hi"
    ]
    assert heard(CLAUDE, {"type": "message_stop", **METRICS}) == []
    assert CLAUDE.is_final("", document({"type": "message_stop", **METRICS}))


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [CONVERSE, COUNT, INVOKE, CLAUDE, TWO_WAY])
def test_refusals(dialect: Any) -> None:
    assert dialect.refuse(blocked("No.")) == b'{"message": "No."}'
    assert dialect.refuse_stream(blocked("No."), 0) == b'data: {"message": "No."}\n\n'
    names = {
        refusal.status: dict(dialect.refusal_headers(refusal))["x-amzn-errortype"]
        for refusal in (INVALID_BODY, REQUEST_TOO_LARGE, UNREADABLE_RESPONSE, UNAVAILABLE)
    }
    assert names == {
        400: "ValidationException",
        413: "ValidationException",
        502: "InternalServerException",
        503: "ServiceUnavailableException",
    }


def exchange(operation: str = "converse", body: Any = None, **profile: Any) -> World:
    it = World(policy(**profile))
    body = message({"text": "Hello"}) if body is None else body
    return it.request(json.dumps(body).encode(), ("content-type", "application/json"), path=f"/model/m/{operation}")


@pytest.mark.parametrize("operation", ["converse", "converse-stream", "invoke", "count-tokens"])
def test_blocked_request(operation: str) -> None:
    body = {"input": {"converse": message({"text": "Hello"})}} if operation == "count-tokens" else None
    it = exchange(operation, body).judge(Block("No."))
    assert it.reply is not None
    assert (it.reply.status, it.reply.body) == (400, b'{"message": "No."}')
    assert it.reply.headers == (
        ("content-type", "application/json"),
        ("x-amzn-errortype", "ValidationException"),
        (CALL_ID_HEADER, "call-1"),
    )


def test_overloaded_process_is_an_unavailable_service() -> None:
    it = World(policy(), is_overloaded=True).request(b"{}", path="/model/m/invoke")
    assert it.reply is not None
    assert (it.reply.status, json.loads(it.reply.body)) == (503, {"message": OVERLOADED.message})
    assert ("x-amzn-errortype", "ServiceUnavailableException") in it.reply.headers


def test_stream_in_both_directions_is_refused_at_its_headers() -> None:
    it = World(policy()).request(None, ("content-type", AWS), path="/model/m/invoke-with-bidirectional-stream")
    assert it.record.code == "upgrade_not_inspected"
    assert it.status == 400


# -- exchanges ---------------------------------------------------------------------------------------------------------


def frames(body: bytes) -> list[Frame]:
    decoder = FrameDecoder(1 << 20)
    return [*decoder.feed(body), *decoder.finish()]


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("converse-stream", message({"text": "Hello"})),
        ("invoke-with-response-stream", {"prompt": "Hello"}),
        ("invoke-with-response-stream", {"anthropic_version": "b", **message({"type": "text", "text": "Hello"})}),
    ],
)
def test_session_is_opened_with_the_request(operation: str, body: Any) -> None:
    it = exchange(operation, body).judge()
    assert len(it.opened) == 1
    assert exchange(operation.replace("-with-response-stream", "").replace("-stream", ""), body).judge().opened == []


def test_late_block_ends_a_stream_before_its_last_event() -> None:
    texts = event("contentBlockDelta", delta(0, text="Hi"))
    last = event("metadata", {"usage": {"inputTokens": 1}, "metrics": {"latencyMs": 1}})
    it = exchange("converse-stream").judge().head(AWS).body(texts + last).verify_all()
    assert it.response.body == texts
    assert it.is_submitted_done
    it.block("No.")
    found = frames(it.response.body)[-1]
    assert (found.message_type, found.headers.get(":exception-type")) == ("exception", "validationException")
    assert json.loads(found.payload) == {"message": "No."}


def test_failing_aim_ends_a_running_stream_as_an_unavailable_service() -> None:
    texts = event("contentBlockDelta", delta(0, text="Hi"))
    it = exchange("converse-stream").judge().head(AWS).body(texts).verify_all().body(texts).lose()
    found = frames(it.response.body)[-1]
    assert (found.message_type, found.headers.get(":exception-type")) == ("exception", "serviceUnavailableException")
    assert json.loads(found.payload) == {"message": UNAVAILABLE.message}


def test_redacted_reasoning_loses_its_signature() -> None:
    thought = event("contentBlockDelta", delta(0, reasoningContent={"text": "Tom"}))
    seal = event("contentBlockDelta", delta(0, reasoningContent={"signature": SEAL}))
    it = exchange("converse-stream").judge().head(AWS).body(thought + seal, end=True)
    it.verify("[N]", it.chunks[0]["choices"][0]["index"]).done()
    assert [json.loads(each.data or "")["delta"]["reasoningContent"] for each in frames(it.response.body)] == [
        {"text": "[N]"},
        {"signature": ""},
    ]


def test_padding_of_a_wrapped_event_stays() -> None:
    def padded(text: str) -> bytes:
        inner = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        return wrapped(json.dumps(inner), p="abcdef")

    body = {"anthropic_version": "b", **message({"type": "text", "text": "Hello"})}
    it = exchange("invoke-with-response-stream", body).judge().head(AWS)
    it.body(padded("Tom"), end=True)
    it.verify("[N]", it.chunks[0]["choices"][0]["index"]).done()
    assert it.response.body == padded("[N]")


def test_redacted_request_goes_upstream() -> None:
    it = exchange(body=message({"text": "I am Tom"})).judge(Anonymize(("I am [N]",)))
    assert it.upstream.buffered is not None
    assert json.loads(it.upstream.buffered.body or b"") == message({"text": "I am [N]"})


def test_replaced_error_answer_has_bedrocks_shape() -> None:
    it = exchange().judge().head("application/json", "400").body(b'{"message": "about Tom"}', end=True)
    it.judge(Block("No."))
    assert json.loads(it.response.body).keys() == {"message"}
    assert b"Tom" not in it.response.body
