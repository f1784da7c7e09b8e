"""Gemini: contents, parts, candidates, grounding, streams as events and as one array."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.dialects.gemini import Gemini
from extproc.core.errors import MalformedBody
from extproc.core.redaction import rewrite
from extproc.core.refusal import (
    OVERLOADED,
    PATH_NOT_ALLOWED,
    REQUEST_TOO_LARGE,
    UNAVAILABLE,
    UNREADABLE_RESPONSE,
    blocked,
)
from tests.fakes.reading import asked, document, dotted, heard, rewritten, said

GEMINI = Gemini()
OPAQUE = [
    {"inlineData": {"mimeType": "image/png", "data": "QUJD"}},
    {"inline_data": {"mime_type": "text/plain", "data": "QUJD"}},
    {"fileData": {"fileUri": "gs://a/b"}},
    {"file_data": {"file_uri": "gs://a/b"}},
]


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ({"contents": [{"role": "user", "parts": [{"text": "a"}]}]}, ["user contents[0].parts[0].text"]),
        ({"contents": [{"role": "model", "parts": [{"text": "a"}]}]}, ["assistant contents[0].parts[0].text"]),
        ({"contents": [{"role": "system", "parts": [{"text": "a"}]}]}, ["system contents[0].parts[0].text"]),
        ({"contents": [{"role": "function", "parts": [{"text": "a"}]}]}, ["user contents[0].parts[0].text"]),
        ({"contents": [{"role": ["model"], "parts": [{"text": "a"}]}]}, ["user contents[0].parts[0].text"]),
        ({"contents": {"parts": [{"text": "a"}, *OPAQUE]}}, ["user contents.parts[0].text"]),
        ({"contents": {"parts": {"text": "a"}}}, ["user contents.parts.text"]),
        ({"contents": [{"parts": "a"}]}, ["user contents[0].parts"]),
        ({"contents": [{"parts": ["a", "", 7, None]}]}, ["user contents[0].parts[0]"]),
        ({"contents": "a"}, ["user contents"]),
        ({"contents": ["a", ""]}, ["user contents[0]"]),
        ({"contents": [{"text": "a"}]}, ["user contents[0].text"]),
        ({"contents": [None, {"parts": None}]}, []),
        ({"contents": None}, []),
        ({}, []),
        ({"systemInstruction": {"parts": [{"text": "a"}]}}, ["system systemInstruction.parts[0].text"]),
        ({"system_instruction": {"parts": [{"text": "a"}]}}, ["system system_instruction.parts[0].text"]),
        ({"systemInstruction": "a"}, ["system systemInstruction"]),
        (
            {"systemInstruction": {"role": "model", "parts": [{"text": "a"}]}},
            ["system systemInstruction.parts[0].text"],
        ),
        ({"cachedContent": "a", "labels": {"b": "c"}, "safetySettings": [{"category": "d"}]}, []),
    ],
)
def test_texts_of_requests_are_found(body: Any, places: list[str]) -> None:
    assert [" ".join(found) for found in asked(GEMINI, body)] == places


@pytest.mark.parametrize(
    ("part", "places"),
    [
        ({"text": "a", "thought": True}, ["user .text"]),
        ({"text": ""}, []),
        ({"text": ["a"]}, ["user .text[0]"]),
        ({"functionCall": {"name": "f", "args": {"a": "b"}}}, ['assistant call:{"a": "b"}']),
        ({"function_call": {"name": "f", "args": {"a": 1}}}, ['assistant call:{"a": 1}']),
        ({"toolCall": {"toolType": "T", "args": {"a": "b"}}}, ['assistant call:{"a": "b"}']),
        ({"functionCall": {"name": "f"}}, ["assistant call:null"]),
        ({"functionCall": None}, []),
        ({"functionResponse": {"name": "f", "response": {"a": "b"}}}, ["tool .functionResponse.response"]),
        ({"function_response": {"id": "c", "response": {"a": "b"}}}, ["tool .function_response.response"]),
        ({"toolResponse": {"toolType": "T", "response": {"a": "b"}}}, ["user .toolResponse.response"]),
        (
            {"functionResponse": {"name": "f", "response": {"a": "b"}, "parts": [OPAQUE[0]]}},
            ["tool .functionResponse.response"],
        ),
        ({"functionResponse": {"response": {}}}, []),
        ({"executableCode": {"language": "PYTHON", "code": "a"}}, ["user .executableCode.code"]),
        ({"executable_code": {"code": "a"}}, ["user .executable_code.code"]),
        ({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "a"}}, ["user .codeExecutionResult.output"]),
        ({"code_execution_result": {"output": "a"}}, ["user .code_execution_result.output"]),
        ({"fromNextYear": {"text": "a", "n": "b"}}, ["user .fromNextYear.text"]),
        *((part, []) for part in OPAQUE),
    ],
)
def test_texts_of_request_parts_are_found(part: Any, places: list[str]) -> None:
    found = asked(GEMINI, {"contents": [{"parts": [part]}]})
    assert [f"{role} {place.removeprefix('contents[0].parts[0]')}" for role, place in found] == places


@pytest.mark.parametrize(
    "body",
    [
        {"contents": 7},
        {"contents": [7]},
        {"contents": [["a"]]},
        {"systemInstruction": True},
        '{"contents":"a","contents":"b"}',
        '{"contents":[{"parts":[{"text":"a","text":"b"}]}]}',
        '{"contents":[{"parts":[{"functionCall":{"args":{"a":"b","c":{"d":"e","d":"f"}}}}]}]}',
        # In protobuf's JSON, a field with both of its names is a repeated key.
        {"contents": [{"parts": [{"functionCall": {"args": {"a": "b"}}, "function_call": {"args": {"a": "c"}}}]}]},
        {"contents": [{"parts": [{"functionResponse": {"response": {}}, "function_response": {}}]}]},
        {"contents": [{"parts": [{"text": "a", "thoughtSignature": "", "thought_signature": "s"}]}]},
    ],
)
def test_request_that_cannot_be_judged_is_unreadable(body: Any) -> None:
    with pytest.raises(MalformedBody):
        asked(GEMINI, body)


@pytest.mark.parametrize("name", ["thoughtSignature", "thought_signature"])
def test_signed_text_is_inspected_and_fixed(name: str) -> None:
    for part, is_fixed in (({"text": "a", name: "s"}, True), ({"text": "a", name: ""}, False), ({"text": "a"}, False)):
        (prompt,) = GEMINI.prompts(document({"contents": [{"role": "model", "parts": [part]}]}), tools=False)
        assert prompt.leaf is not None
        assert prompt.leaf.fixed is is_fixed


def test_call_and_its_result_are_sent_to_aim() -> None:
    parts = [
        {"functionCall": {"id": "c", "name": "f", "args": {"a": "ä"}}},
        {"functionResponse": {"id": "c", "name": "f", "response": {"b": "ö"}}},
    ]
    first, second = GEMINI.prompts(document({"contents": [{"parts": parts}]}), tools=False)
    function = {"name": "f", "arguments": '{"a": "ä"}'}
    assert first.message["tool_calls"] == [{"id": "c", "type": "function", "function": function}]
    assert second.message == {"role": "tool", "tool_call_id": "c", "content": '{"b": "ö"}'}
    assert second.leaf is not None
    assert second.leaf.is_embedded


def test_definitions_are_inspected_only_with_tools() -> None:
    body = {
        "contents": "a",
        "tools": [{"functionDeclarations": [{"description": "b"}]}],
        "generationConfig": {"responseSchema": {"description": "c"}, "temperature": 1},
        "generation_config": {"response_schema": {"description": "d"}},
    }
    assert asked(GEMINI, body) == [("user", "contents")]
    assert asked(GEMINI, body, tools=True)[1:] == [
        ("system", "tools[0].functionDeclarations[0].description"),
        ("system", "generationConfig.responseSchema.description"),
        ("system", "generation_config.response_schema.description"),
    ]


# -- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("candidate", "places"),
    [
        (
            {"content": {"role": "model", "parts": [{"text": "a"}, {"text": "b", "thought": True}]}},
            ["parts[0].text", "parts[1].text"],
        ),
        ({"content": {"parts": [{"functionCall": {"name": "f", "args": {"a": "b"}}}]}}, ["parts[0].functionCall.args"]),
        ({"content": {"parts": [{"function_call": {"args": {"a": "b"}}}]}}, ["parts[0].function_call.args"]),
        ({"content": {"parts": [{"functionCall": {"name": "f", "args": {}}}]}}, []),
        (
            {
                "content": {
                    "parts": [
                        {"functionCall": {"partialArgs": [{"jsonPath": "$.a", "stringValue": "b"}, {"numberValue": 1}]}}
                    ]
                }
            },
            ["parts[0].functionCall.partialArgs[0].stringValue"],
        ),
        (
            {"content": {"parts": [{"function_call": {"partial_args": [{"json_path": "$.a", "string_value": "b"}]}}]}},
            ["parts[0].function_call.partial_args[0].string_value"],
        ),
        ({"content": {"parts": [{"toolCall": {"args": {"queries": ["a"]}}}]}}, ["parts[0].toolCall.args"]),
        ({"content": {"parts": [{"toolResponse": {"response": {"a": "b"}}}]}}, ["parts[0].toolResponse.response"]),
        ({"content": {"parts": [{"executableCode": {"code": "a"}}]}}, ["parts[0].executableCode.code"]),
        (
            {"content": {"parts": [{"code_execution_result": {"output": "a"}}]}},
            ["parts[0].code_execution_result.output"],
        ),
        ({"content": {"parts": [{"text": "a"}, *OPAQUE]}}, ["parts[0].text"]),
        ({"content": {"parts": [{"text": "", "thoughtSignature": "s"}]}}, []),
        ({"content": {"parts": ["a", "", 7]}}, ["parts[0]"]),
        ({"content": {"parts": "a"}}, ["parts"]),
        ({"content": {"parts": {"text": "a"}}}, ["parts.text"]),
        ({"content": {"parts": [{"text": "a"}], "text": "b"}}, ["parts[0].text", "text"]),
        (
            {"content": {"parts": [{"text": "a", "fromNextYear": {"text": "b"}}]}},
            ["parts[0].text", "parts[0].fromNextYear.text"],
        ),
        ({"content": {}, "finishReason": "SAFETY"}, []),
        ({"finishReason": "STOP", "index": 0, "avgLogprobs": -0.1, "safetyRatings": [{"category": "x"}]}, []),
        (7, []),
    ],
)
def test_texts_of_candidates_are_found(candidate: Any, places: list[str]) -> None:
    body = {"candidates": [{"index": 0}, candidate], "modelVersion": "m", "responseId": "r"}
    for found in (said(GEMINI, body), heard(GEMINI, body)):
        assert [place.removeprefix("candidates[1].content.") for place in found] == places


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ({"candidates": [{"content": "a"}]}, ["candidates[0].content"]),
        ({"candidates": [{"content": ["a"]}]}, ["candidates[0].content[0]"]),
        ({"candidates": [{"output": "x", "text": "a"}]}, ["candidates[0].text"]),
        ({"candidates": [{"finishMessage": "a"}]}, ["candidates[0].finishMessage"]),
        ({"candidates": {"text": "a"}}, ["candidates.text"]),
        (
            {"response": {"candidates": [{"content": {"parts": [{"text": "a"}]}}]}},
            ["response.candidates[0].content.parts[0].text"],
        ),
        ({"promptFeedback": {"blockReason": "SAFETY"}}, []),
        ({"error": {"message": "a"}}, []),
        ({}, []),
        ("7", []),
    ],
)
def test_answers_of_other_shapes_are_searched(body: Any, places: list[str]) -> None:
    assert said(GEMINI, body) == places
    assert heard(GEMINI, body) == places


def test_grounding_is_inspected_although_it_repeats_the_answer() -> None:
    """Each of its texts is inspected as a whole, so that a redacted value does not appear in a segment."""
    grounding = {
        "webSearchQueries": ["a"],
        "retrievalQueries": ["b"],
        "searchEntryPoint": {"renderedContent": "c", "sdkBlob": "QUJD"},
        "groundingChunks": [{"web": {"uri": "u", "title": "d"}}, {"retrievedContext": {"title": "e", "text": "f"}}],
        "groundingSupports": [{"segment": {"startIndex": 0, "text": "g"}, "groundingChunkIndices": [0]}],
    }
    body = {"candidates": [{"content": {"parts": [{"text": "x"}]}, "groundingMetadata": grounding}]}
    head = "candidates[0].groundingMetadata."
    assert [place.removeprefix(head) for place in said(GEMINI, body)[1:]] == [
        "webSearchQueries[0]",
        "retrievalQueries[0]",
        "searchEntryPoint.renderedContent",
        "groundingChunks[0].web.title",
        "groundingChunks[1].retrievedContext.title",
        "groundingChunks[1].retrievedContext.text",
        "groundingSupports[0].segment.text",
    ]
    assert {leaf.place for leaf in GEMINI.deltas(document(body))[1:]} == {None}


def test_running_texts_of_a_candidate_have_its_index() -> None:
    def places(candidate: Any) -> list[Any]:
        return [leaf.place for leaf in GEMINI.deltas(document({"candidates": [candidate]}))]

    parts = [{"text": "a"}, {"text": "b", "thought": True}, {"text": "c"}]
    assert places({"content": {"parts": parts}}) == [("0", "text"), ("0", "thought"), ("0", "text")]
    assert places({"content": {"parts": parts}, "index": 1}) == [("1", "text"), ("1", "thought"), ("1", "text")]
    assert places({"content": {"parts": ["a"]}, "index": [1]}) == [("[1]", "text")]
    pieces = [{"jsonPath": "$.a", "stringValue": "b"}]
    assert places({"content": {"parts": [{"functionCall": {"partialArgs": pieces}}]}}) == [("0", "args", "$.a")]


@pytest.mark.parametrize("name", ["logprobsResult", "logprobs_result"])
def test_rewritten_candidate_loses_its_logprobs_and_signatures(name: str) -> None:
    parts = [
        {"text": "secret", "thoughtSignature": "s"},
        {"functionCall": {"name": "f", "args": {"a": "secret"}}, "thought_signature": "s"},
        {"inlineData": {"data": "QUJD"}},
    ]
    body = {"candidates": [{"content": {"parts": parts}, name: {"chosenCandidates": [{"token": "secret"}]}}]}
    (after,) = rewritten(GEMINI, body)["candidates"]
    assert after == {
        "content": {
            "parts": [
                {"text": "[X]", "thoughtSignature": ""},
                {"functionCall": {"name": "f", "args": {"x": "[X]"}}, "thought_signature": ""},
                {"inlineData": {"data": "QUJD"}},
            ]
        },
        name: None,
    }


def element(*texts: str, index: int | None = None, token: str = "", **part: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text, **part} for text in texts]}}
    if index is not None:
        candidate["index"] = index
    if token:
        candidate["logprobsResult"] = {
            "chosenCandidates": [{"token": token, "logProbability": -0.5}],
            "topCandidates": [],
        }
    return {"candidates": [candidate]}


def test_texts_of_an_array_are_joined() -> None:
    array = [
        element("my key is sk-", index=0),
        element("12", "34", thoughtSignature="s"),
        element("56", index=0),
        {"usageMetadata": {}},
    ]
    (leaf,) = GEMINI.answers(document(array))
    assert leaf.text == "my key is sk-123456"
    read = document(array)
    after = json.loads(read.rewrite(rewrite(leaf, "my key is [KEY]")))
    texts = [part["text"] for one in after[:3] for part in one["candidates"][0]["content"]["parts"]]
    assert texts == ["my key is [KEY]", "", "", ""]
    assert after[1]["candidates"][0]["content"]["parts"][0]["thoughtSignature"] == ""
    assert after[3] == {"usageMetadata": {}}


def test_rewrite_of_an_array_empties_all_its_logprobs() -> None:
    array = [element("se", token="se"), element("cret", token="cret"), element("why", thought=True, token="why")]
    array[0]["candidates"][0]["content"]["parts"].append({"text": "because", "thought": True})
    read = document(array)
    edits: dict[Any, Any] = {}
    for leaf in GEMINI.answers(read):
        edits |= rewrite(leaf, "[X]")
    after = read.rewrite(edits)
    assert not any(word in after for word in ("se", "cret", "why", "because") if word != "se")
    assert [one["candidates"][0]["logprobsResult"] for one in json.loads(after)] == [
        {"chosenCandidates": [{"token": "", "logProbability": -0.5}], "topCandidates": []}
    ] * 3


def test_candidates_of_an_array_are_kept_apart() -> None:
    array = [
        {"candidates": [*element("a", index=0)["candidates"], *element("x", index=1)["candidates"]]},
        {"candidates": [*element("b", index=0)["candidates"], *element("y", index=1)["candidates"]]},
        {
            "candidates": [
                {"content": {"parts": [{"executableCode": {"code": "c"}}, {"functionCall": {"args": {"d": "e"}}}]}}
            ]
        },
        {"candidates": [{"content": {"parts": [{"executableCode": {"code": "f"}}]}}]},
        {"text": "g"},
        {"text": "h"},
        7,
    ]
    assert [leaf.text for leaf in GEMINI.answers(document(array))] == ["ab", "xy", "c", '{"d": "e"}', "f", "g", "h"]
    assert heard(GEMINI, [{"text": "a"}]) == ["[0].text"]


@pytest.mark.parametrize(
    "body",
    [
        '{"candidates":[],"candidates":[{"content":"a"}]}',
        '{"candidates":[{"content":{"parts":[{"text":"a","text":"b"}]}}]}',
        '{"candidates":[{"content":{"parts":[{"functionCall":{"args":{"a":"b","a":"c"}}}]}}]}',
        '{"candidates":[{"logprobsResult":{},"logprobs_result":{}}]}',
        '[{"candidates":[{"content":{"parts":[{"text":"a","text":"b"}]}}]}]',
    ],
)
def test_answers_with_repeated_keys_are_unreadable(body: str) -> None:
    with pytest.raises(MalformedBody):
        said(GEMINI, body)


@pytest.mark.parametrize(
    ("path", "is_stream"),
    [
        ("/v1beta/models/m:streamGenerateContent?alt=sse", True),
        ("/v1beta/models/m:streamGenerateContent?key=k&alt=sse", True),
        ("/v1beta/models/m:streamGenerateContent?alt=json&alt=sse", True),
        ("/v1beta/models/m:streamGenerateContent?alt=sse&alt=json", False),
        ("/v1beta/models/m:streamGenerateContent", False),
        ("/v1beta/models/m:generateContent?alt=sse", False),
    ],
)
def test_path_says_whether_a_stream_is_asked_for(path: str, is_stream: bool) -> None:
    assert GEMINI.streams(document({"stream": True}), path) is is_stream


def test_no_event_ends_a_stream() -> None:
    assert not GEMINI.is_final("{}", document(element("a")))
    assert dotted(("a", 0, "b")) == "a[0].b"


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (blocked("no"), "INVALID_ARGUMENT"),
        (PATH_NOT_ALLOWED, "PERMISSION_DENIED"),
        (REQUEST_TOO_LARGE, "INVALID_ARGUMENT"),
        (UNREADABLE_RESPONSE, "INTERNAL"),
        (UNAVAILABLE, "UNAVAILABLE"),
        (OVERLOADED, "UNAVAILABLE"),
    ],
)
def test_refusals_have_the_shape_of_the_api(refusal: Any, status: str) -> None:
    error = {"error": {"code": refusal.status, "message": refusal.message, "status": status}}
    assert json.loads(GEMINI.refuse(refusal)) == error
    assert GEMINI.refuse_stream(refusal, 3) == b"data: " + json.dumps(error).encode() + b"\n\n"
