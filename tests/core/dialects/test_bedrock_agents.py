"""Bedrock's agents, knowledge bases, flows and guardrails: what is read of requests, answers and frames."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from extproc.core.content.aws_event_stream import Frame, FrameDecoder
from extproc.core.dialects.choice import choose
from extproc.core.dialects.endpoints import ALL
from extproc.core.dialects.paths import route
from extproc.core.refusal import UNAVAILABLE, UNREADABLE_RESPONSE, blocked
from extproc.core.verdict import Anonymize, Block
from tests.fakes.aws import event, frame, string, wrapped
from tests.fakes.reading import (
    asked,
    document,
    heard,
    masked,
    places,
    redacted_answer,
    redacted_event,
    redacted_request,
    said,
)
from tests.fakes.world import World, policy

AGENTS, GUARDRAILS = ALL["bedrock-converse of agents"], ALL["bedrock-converse of guardrails"]
BACKGROUND = ALL["bedrock-invoke in the background"]
AWS = "application/vnd.amazon.eventstream"
ARN = "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3A"
AGENT = "/agents/AB12/agentAliases/TSTALIASID/sessions/s-1/text"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAX+XDSwAAAABJRU5ErkJggg=="

# -- paths -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "dialect", "is_stream"),
    [
        (AGENT, AGENTS, True),
        ("/knowledgebases/KB12/retrieve", AGENTS, False),
        (f"/knowledgebases/{ARN}knowledge-base%2FKB12/retrieve", AGENTS, False),
        ("/retrieveAndGenerate", AGENTS, False),
        ("/retrieveAndGenerateStream", AGENTS, True),
        ("/agenticRetrieveStream", AGENTS, True),
        ("/generateQuery", AGENTS, False),
        ("/flows/F1/aliases/A1", AGENTS, True),
        (f"/flows/{ARN}flow%2FF1/aliases/{ARN}flow%2FF1%2Falias%2FA1", AGENTS, True),
        ("/flows/F1/aliases/A1/executions", AGENTS, False),
        ("/guardrail/g1/version/DRAFT/apply", GUARDRAILS, False),
        (f"/guardrail/{ARN}guardrail%2Fg1/version/1/apply", GUARDRAILS, False),
        ("/guardrail-checks/invoke", GUARDRAILS, False),
    ],
)
def test_paths(path: str, dialect: object, is_stream: bool) -> None:
    for prefix in ("", "/bedrock"):
        found = route("POST", f"{prefix}{path}", {}).dialect
        assert found is not None
        assert found is dialect
        assert found.streams(document({}), f"{prefix}{path}?a=b") is is_stream


@pytest.mark.parametrize(
    ("path", "body", "dialect"),
    [
        ("/agents/s-1", {"foundationModel": "m", "instruction": "Be kind."}, AGENTS),
        ("/agents/s-1", {"name": "x"}, None),
        ("/optimize-prompt", {"targetModelId": "m", "input": {}}, AGENTS),
        ("/optimize-prompt", {"prompt": "x"}, None),
        ("/rerank", {"queries": [], "sources": [], "rerankingConfiguration": {}}, AGENTS),
        ("/rerank", {"query": "a", "documents": []}, ALL["rerank"]),
        ("/async-invoke", {"modelId": "m", "modelInput": {}}, BACKGROUND),
        ("/async-invoke", {"function": "f"}, None),
    ],
)
def test_body_chooses_where_others_have_the_same_path(path: str, body: Any, dialect: object) -> None:
    choices = route("POST", path, {}).choices
    assert choose(choices, json.dumps(body).encode(), 1000)[0] is dialect


@pytest.mark.parametrize(
    "path",
    [
        "/agents/AB12/agentAliases/A1/memories?memoryType=SESSION_SUMMARY",
        "/flows/F1/aliases/A1/executions/e-1",
        "/flows/F1/aliases/A1/executions/e-1/events",
        "/async-invoke",
        f"/async-invoke/{ARN}async-invoke%2Fab12",
    ],
)
def test_what_is_stored_is_an_answer(path: str) -> None:
    assert route("GET", path, {}).dialect in (AGENTS, BACKGROUND)


# -- requests ----------------------------------------------------------------------------------------------------------

HISTORY = {"messages": [{"role": "assistant", "content": [{"text": "hi b"}]}]}


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (
            {
                "inputText": "hi a",
                "enableTrace": True,
                "memoryId": "m-1",
                "sessionState": {
                    "conversationHistory": HISTORY,
                    "promptSessionAttributes": {"city": "hi c"},
                    "files": [
                        {
                            "name": "a.png",
                            "source": {
                                "sourceType": "BYTE_CONTENT",
                                "byteContent": {"mediaType": "image/png", "data": PNG},
                            },
                            "useCase": "CHAT",
                        },
                        {
                            "source": {
                                "byteContent": {"mediaType": "text/csv", "data": b64encode(b"hi d").decode()},
                                "s3Location": {"uri": "s3://bucket/a"},
                            }
                        },
                    ],
                    "invocationId": "i-1",
                    "returnControlInvocationResults": [
                        {
                            "apiResult": {
                                "actionGroup": "weather",
                                "httpMethod": "GET",
                                "responseBody": {"TEXT": {"body": "hi e"}},
                                "responseState": "REPROMPT",
                            }
                        }
                    ],
                    "knowledgeBaseConfigurations": [{"knowledgeBaseId": "KB12"}],
                },
            },
            [("user", "hi a"), ("assistant", "hi b"), ("user", "hi c"), ("user", "a.png"), ("user", "hi d"),
             ("user", "hi e")],
        ),
        (
            {
                "foundationModel": "m",
                "instruction": "hi a",
                "inputText": "hi b",
                "collaborators": [{"foundationModel": "m", "instruction": "hi c", "agentName": "helper"}],
                "collaboratorConfigurations": [
                    {"collaboratorName": "helper", "collaboratorInstruction": "hi d"},
                    {"relayConversationHistory": "DISABLED"},
                ],
                "agentCollaboration": "SUPERVISOR",
                "guardrailConfiguration": {"guardrailIdentifier": "hi e", "guardrailVersion": "1"},
            },
            [("system", "hi a"), ("user", "hi b"), ("system", "hi c"), ("user", "hi d"), ("user", "hi e")],
        ),
        (
            {
                "input": {"text": "hi a"},
                "retrieveAndGenerateConfiguration": {
                    "type": "KNOWLEDGE_BASE",
                    "knowledgeBaseConfiguration": {
                        "knowledgeBaseId": "KB12",
                        "modelArn": "arn:aws:bedrock:us-east-1::foundation-model/m",
                        "generationConfiguration": {
                            "promptTemplate": {"textPromptTemplate": "hi b"},
                            "performanceConfig": {"latency": "standard"},
                        },
                        "retrievalConfiguration": {
                            "vectorSearchConfiguration": {"filter": {"equals": {"key": "hi c", "value": 5}}}
                        },
                    },
                },
                "sessionId": "s-1",
            },
            [("user", "hi a"), ("system", "hi b"), ("user", "hi c")],
        ),
        (
            {
                "input": {"text": "hi a"},
                "retrieveAndGenerateConfiguration": {
                    "type": "EXTERNAL_SOURCES",
                    "externalSourcesConfiguration": {
                        "sources": [
                            {
                                "sourceType": "BYTE_CONTENT",
                                "byteContent": {
                                    "contentType": "text/plain",
                                    "data": b64encode(b"hi b").decode(),
                                    "identifier": "a.txt",
                                },
                            }
                        ]
                    },
                },
            },
            [("user", "hi a"), ("user", "hi b")],
        ),
        (
            {"retrievalQuery": {"text": "hi", "type": "TEXT", "image": {"format": "png", "inlineContent": PNG}}},
            [("user", "hi")],
        ),
        (
            {"inputs": [{"content": {"document": "hi a"}, "nodeName": "FlowInputNode", "nodeOutputName": "document"}]},
            [("user", "hi a")],
        ),
        ({"inputs": [{"content": {"document": 7}, "nodeName": "n"}]}, []),
        ({"inputs": [{"content": {"document": {"to": "hi a"}}}]}, [("user", "hi a")]),
        ({"input": {"textPrompt": {"text": "hi"}}, "targetModelId": "m"}, [("user", "hi")]),
        ({"queryGenerationInput": {"text": "hi", "type": "TEXT"}}, [("user", "hi")]),
        (
            {"messages": [{"role": role, "content": {"text": f"hi {role}"}} for role in ("assistant", "user")]},
            [("assistant", "hi assistant"), ("user", "hi user")],
        ),
        (
            {
                "queries": [{"type": "TEXT", "textQuery": {"text": "hi a"}}],
                "sources": [
                    {
                        "type": "INLINE",
                        "inlineDocumentSource": {"type": "JSON", "jsonDocument": {"title": "hi b"}},
                    }
                ],
            },
            [("user", "hi a"), ("user", "hi b")],
        ),
    ],
)  # fmt: skip
def test_texts_of_requests(body: Any, texts: list[tuple[str, str]]) -> None:
    assert asked(AGENTS, body) == texts
    if "byteContent" not in json.dumps(body):  # a text in base64 is not masked in place
        assert redacted_request(AGENTS, body) == masked(body)


def test_action_groups_are_tool_definitions() -> None:
    body = {
        "inputText": "hi a",
        "actionGroups": [
            {
                "actionGroupName": "weather",
                "description": "hi b",
                "functionSchema": {
                    "functions": [
                        {"name": "f", "parameters": {"city": {"description": "hi c", "type": "string"}}},
                    ]
                },
            }
        ],
    }
    assert asked(AGENTS, body, tools=True) == [("system", "hi b\nhi c"), ("user", "hi a")]
    assert asked(AGENTS, body) == [("user", "hi a")]


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (
            {
                "source": "INPUT",
                "outputScope": "FULL",
                "content": [
                    {"text": {"text": "hi a", "qualifiers": ["grounding_source", "query"]}},
                    {"image": {"format": "png", "source": {"bytes": PNG}}},
                    {"text": {"text": "hi b"}},
                ],
            },
            [("user", "hi a"), ("user", "hi b")],
        ),
        (
            {
                "messages": [{"role": "assistant", "content": [{"text": "hi"}]}],
                "checks": {
                    "promptAttack": {"categories": [{"category": "JAILBREAK"}]},
                    "sensitiveInformation": {"entities": [{"type": "EMAIL"}]},
                },
            },
            [("assistant", "hi")],
        ),
    ],
)
def test_texts_for_a_guardrail(body: Any, texts: list[tuple[str, str]]) -> None:
    assert asked(GUARDRAILS, body) == texts
    assert redacted_request(GUARDRAILS, body) == masked(body)


def test_input_of_a_call_in_the_background_is_read_as_that_of_invoke() -> None:
    body = {
        "modelId": "amazon.nova-reel-v1:0",
        "clientRequestToken": "t-1",
        "modelInput": {"taskType": "TEXT_VIDEO", "textToVideoParams": {"text": "hi a"}, "system": [{"text": "hi b"}]},
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://bucket/a", "bucketOwner": "1234"}},
    }
    assert asked(BACKGROUND, body) == [("user", "hi a"), ("system", "hi b")]
    call: dict[str, Any] = {
        "invocationArn": "arn:aws:bedrock:us-east-1:1:async-invoke/a",
        "modelArn": "arn:aws:bedrock:m",
    }
    call |= {"status": "Failed", "submitTime": "2026-01-01T00:00:00Z", "outputDataConfig": body["outputDataConfig"]}
    assert said(BACKGROUND, call) == []
    assert said(BACKGROUND, call | {"failureMessage": "hi"}) == ["hi"]
    assert said(BACKGROUND, {"asyncInvokeSummaries": [call]}) == []


# -- answers -----------------------------------------------------------------------------------------------------------

PLACE = {"type": "S3", "s3Location": {"uri": "s3://bucket/a"}}


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (
            {
                "sessionId": "s-1",
                "output": {"text": "hi a"},
                "guardrailAction": "NONE",
                "citations": [
                    {
                        "generatedResponsePart": {"textResponsePart": {"text": "hi b", "span": {"start": 0, "end": 4}}},
                        "retrievedReferences": [{"content": {"type": "TEXT", "text": "hi c"}, "location": PLACE}],
                    }
                ],
            },
            ["hi a", "hi b\nhi c"],
        ),
        (
            {
                "retrievalResults": [
                    {"content": {"type": "IMAGE", "byteContent": f"data:image/png;base64,{PNG}"}, "location": PLACE},
                    {"content": {"text": "hi a"}, "metadata": {"author": "hi b"}, "score": 0.5},
                    {"content": {"row": [{"columnName": "hi c", "columnValue": "hi d", "type": "STRING"}]}},
                ]
            },
            ["hi a\nhi b\nhi c\nhi d"],
        ),
        ({"queries": [{"sql": "select hi", "type": "REDSHIFT_SQL"}]}, ["select hi"]),
        ({"results": [{"index": 0, "relevanceScore": 0.5, "document": {"textDocument": {"text": "hi"}}}]}, ["hi"]),
        ({"memoryContents": [{"sessionSummary": {"memoryId": "m-1", "summaryText": "hi"}}]}, ["hi"]),
    ],
)
def test_texts_of_answers(body: Any, texts: list[str]) -> None:
    assert said(AGENTS, body) == texts
    assert redacted_answer(AGENTS, body) == masked(body)


def test_texts_of_an_assessment() -> None:
    found = {"type": "EMAIL", "match": "hi c", "action": "ANONYMIZED", "detected": True}
    body = {
        "action": "GUARDRAIL_INTERVENED",
        "actionReason": "Guardrail hi a",
        "outputs": [{"text": "hi b"}],
        "assessments": [{"sensitiveInformationPolicy": {"piiEntities": [found]}}],
        "usage": {"topicPolicyUnits": 1},
    }
    assert said(GUARDRAILS, body) == ["hi b", "Guardrail hi a\nhi c"]
    assert redacted_answer(GUARDRAILS, body) == masked(body)
    assert said(GUARDRAILS, {"results": {"promptAttack": {"results": [{"category": "JAILBREAK"}]}}}) == []


# -- streams -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ({"text": "hi"}, ["hi"]),
        ({"bytes": "hi a", "attribution": {"citations": [{"a": "hi b"}]}}, ["hi a", "hi b"]),
        ({"bytes": {"to": "hi a"}, "attribution": {"b": "hi b"}}, ['{"to": "hi a"}', "hi b"]),
        ({"bytes": [1, 2], "attribution": {}}, ["[1, 2]"]),
        ({"bytes": 42, "attribution": {}}, ["42"]),
        ({"bytes": ["hi ß"], "attribution": {"b": "hi b"}}, ['["hi ß"]', "hi b"]),
        ({"generatedResponse": {"answer": "hi"}, "results": []}, ["=hi"]),
        ({"optimizedPrompt": {"textPrompt": {"text": "hi"}}}, ["hi"]),
        ({"content": {"document": "hi"}, "nodeName": "n", "nodeType": "FlowOutputNode"}, ["hi"]),
        ({"content": {"document": 7}}, []),
        ({"completionReason": "SUCCESS"}, []),
        ({"action": "INTERVENED"}, []),
        ({"files": [{"name": "a.png", "type": "image/png", "bytes": PNG}]}, ["a.png"]),
        ({"invocationId": "i", "invocationInputs": [{"functionInvocationInput": {"a": "hi"}}]}, ["hi"]),
        (
            {
                "agentId": "A",
                "agentAliasId": "B",
                "agentVersion": "1",
                "sessionId": "s",
                "eventTime": "2026-01-01T00:00:00Z",
                "trace": {
                    "orchestrationTrace": {
                        "modelInvocationInput": {"traceId": "t-0", "type": "ORCHESTRATION", "text": "hi a"},
                        "rationale": {"text": "hi b", "traceId": "t-0"},
                    }
                },
            },
            ["hi a", "hi b"],
        ),
    ],
)
def test_texts_of_events(body: Any, texts: list[str]) -> None:
    assert heard(AGENTS, body) == texts
    if isinstance(body.get("bytes", ""), str):
        assert redacted_event(AGENTS, body) == masked(body)


def test_running_texts() -> None:
    said, sourced, answered, whole, other = places(
        AGENTS, {"text": "a"}, {"bytes": "a"}, {"bytes": 42}, {"generatedResponse": {"answer": "a"}}, {"note": "a"}
    )
    assert said == sourced == answered == whole != other


def exchange(path: str = AGENT, body: Any = None, **profile: Any) -> World:
    it = World(policy(**profile))
    body = {"inputText": "Hello"} if body is None else body
    return it.request(json.dumps(body).encode(), ("content-type", "application/json"), path=path)


def frames(body: bytes) -> list[Frame]:
    decoder = FrameDecoder(1 << 20)
    return [*decoder.feed(body), *decoder.finish()]


def redact_all(it: World) -> None:
    """Verify all that was submitted, with the name in it replaced; then end the session."""
    for chunk in tuple(it.chunks):
        it.verify_chunk(json.loads(json.dumps(chunk).replace("Tom", "[N]")))
    it.done()


SOURCES = {"citations": [{"retrievedReferences": [{"content": {"text": "A page."}, "location": PLACE}]}]}


@pytest.mark.parametrize(
    "pieces",
    [
        ("Hi ", "Tom", ", hi"),
        ("C:\\new ", "Tom \\", "n"),
        ('{"to": ', '"Tom"', "}"),
        ('{"to": "Tom"}', " [1, 2]", "42"),
        ('["Tom \\u00fc \\"x\\""]',),
        ("a\n", "Tom\n", "data: c"),
    ],
)
@pytest.mark.parametrize("sources", [{}, {"attribution": SOURCES}])
def test_what_an_agent_says_is_verified_and_redacted_as_text(pieces: tuple[str, ...], sources: Any) -> None:
    stream = [wrapped(text, **sources) for text in pieces]
    it = exchange().judge()
    assert len(it.opened) == 1
    it.head(AWS).body(b"".join(stream), end=True).verify_all().done()
    assert it.response.body == b"".join(stream)
    it = exchange().judge().head(AWS).body(b"".join(stream), end=True)
    redact_all(it)
    expected = [wrapped(text.replace("Tom", "[N]"), **sources) for text in pieces]
    assert [frame.data for frame in frames(it.response.body)] == [frame.data for frame in frames(b"".join(expected))]


def test_answer_that_repeats_the_text_is_rewritten_like_it() -> None:
    def stream(name: str) -> bytes:
        last = {"generatedResponse": {"answer": f"Hi {name}"}, "results": []}
        return event("responseEvent", {"text": "Hi "}) + event("responseEvent", {"text": name}) + event("result", last)

    it = exchange("/agenticRetrieveStream", {"messages": []}).head(AWS).body(stream("Tom"), end=True)
    redact_all(it)
    assert it.response.body == stream("[N]")


@pytest.mark.parametrize("path", [AGENT, "/retrieveAndGenerateStream", "/flows/F/aliases/A"])
def test_late_block_is_an_exception_that_every_operation_knows(path: str) -> None:
    refused = string(":exception-type", "validationException") + string(":content-type", "application/json")
    it = exchange(path, {"input": {"text": "Hello"}}).judge()
    it.head(AWS).body(wrapped("Hi ")).verify_all().body(wrapped("secret")).block("No.")
    assert it.response.body == wrapped("Hi ") + frame(
        b'{"message": "No."}', refused, string(":message-type", "exception")
    )
    for refusal, kind in ((UNAVAILABLE, b"internalServerException"), (UNREADABLE_RESPONSE, b"internalServerException")):
        assert kind in AGENTS.refuse_frame(refusal)
    assert b"validationException" in AGENTS.refuse_frame(blocked("No."))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (AGENT, {"inputText": "I am Tom"}),
        ("/knowledgebases/KB/retrieve", {"retrievalQuery": {"text": "I am Tom"}}),
        ("/guardrail/g/version/1/apply", {"source": "INPUT", "content": [{"text": {"text": "I am Tom"}}]}),
        ("/async-invoke", {"modelInput": {"inputText": "I am Tom"}, "modelId": "m"}),
        ("/agents/s-1", {"foundationModel": "m", "instruction": "I am Tom"}),
    ],
)
def test_requests_are_blocked_and_redacted(path: str, body: Any) -> None:
    it = exchange(path, body).judge(Block("No."))
    assert it.reply is not None
    assert (it.reply.status, it.reply.body) == (400, b'{"message": "No."}')
    assert ("x-amzn-errortype", "ValidationException") in it.reply.headers
    it = exchange(path, body).judge(Anonymize(("I am [N]",)))
    assert it.upstream.buffered is not None
    assert it.upstream.buffered.body == json.dumps(body).replace("Tom", "[N]").encode()
