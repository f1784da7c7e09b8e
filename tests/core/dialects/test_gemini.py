"""Gemini: contents, parts, candidates, grounding, streams as events and as one array."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.dialects.gemini import Gemini
from extproc.core.errors import MalformedBody
from extproc.core.redaction import RedactionError
from extproc.core.refusal import (
    OVERLOADED,
    PATH_NOT_ALLOWED,
    REQUEST_TOO_LARGE,
    UNAVAILABLE,
    UNREADABLE_RESPONSE,
    blocked,
)
from tests.fakes.reading import (
    answers,
    asked,
    document,
    dotted,
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

GEMINI = Gemini()
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAX+XDSwAAAABJRU5ErkJggg=="
OPAQUE: list[dict[str, Any]] = [
    {"inlineData": {"mimeType": "image/png", "data": PNG}},
    {"inline_data": {"mime_type": "image/png", "data": PNG}},
    {"fileData": {"fileUri": "gs://a/b", "mimeType": "image/png"}, "videoMetadata": {"startOffset": "1s"}},
    {"file_data": {"file_uri": "gs://a/b", "mime_type": "image/png"}},
]


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        ({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}, [("user", "hi")]),
        ({"contents": [{"role": "model", "parts": [{"text": "hi"}]}]}, [("assistant", "hi")]),
        ({"contents": [{"role": "system", "parts": [{"text": "hi"}]}]}, [("system", "hi")]),
        ({"contents": [{"role": "function", "parts": [{"text": "hi"}]}]}, [("user", "hi")]),
        ({"contents": [{"role": ["model"], "parts": [{"text": "hi"}]}]}, [("user", "hi")]),
        ({"contents": {"parts": [{"text": "hi"}, *OPAQUE]}}, [("user", "hi")]),
        ({"contents": {"parts": {"text": "hi"}}}, [("user", "hi")]),
        ({"contents": [{"role": "model", "parts": "hi"}]}, [("assistant", "hi")]),
        ({"contents": [{"parts": ["hi", "", None]}]}, [("user", "hi")]),
        ({"contents": "hi"}, [("user", "hi")]),
        ({"contents": ["hi", ""]}, [("user", "hi")]),
        ({"contents": [{"role": "model", "text": "hi", "note": "hi"}]}, [("assistant", "hi"), ("assistant", "hi")]),
        ({"contents": [None, {"parts": None}]}, []),
        ({"contents": None}, []),
        ({}, []),
        ({"systemInstruction": {"parts": [{"text": "hi"}]}}, [("system", "hi")]),
        ({"system_instruction": {"parts": [{"text": "hi"}]}}, [("system", "hi")]),
        ({"systemInstruction": "hi"}, [("system", "hi")]),
        ({"systemInstruction": {"role": "model", "parts": [{"text": "hi"}]}}, [("system", "hi")]),
        (
            {
                "cachedContent": "cachedContents/a",
                "safetySettings": [{"category": "HARM", "threshold": "d"}],
                "generationConfig": {"responseMimeType": "text/plain", "temperature": 1},
                "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
                "modelArmorConfig": {"prompt_template_name": "projects/p/locations/l/templates/t"},
            },
            [],
        ),
        (
            {"generationConfig": {"stopSequences": ["hi"]}, "labels": {"b": "to say hi"}},
            [("user", "hi"), ("user", "to say hi")],
        ),
    ],
)
def test_texts_of_requests(body: Any, messages: list[tuple[str, str]]) -> None:
    assert asked(GEMINI, body) == messages
    assert redacted_request(GEMINI, body) == masked(body)


@pytest.mark.parametrize(
    ("part", "messages"),
    [
        ({"text": "hi", "thought": True}, ["user: hi"]),
        ({"text": ""}, []),
        ({"text": ["hi"]}, ["user: hi"]),
        ({"functionCall": {"id": "c", "name": "f", "args": {"a": "hi ä"}}}, ['assistant: {"a": "hi ä"}']),
        ({"function_call": {"name": "f", "args": {"a": 1}}}, ['assistant: {"a": 1}']),
        ({"toolCall": {"toolType": "T", "args": {"a": "hi"}}}, ['assistant: {"a": "hi"}']),
        ({"functionCall": {"name": "f"}}, []),
        ({"functionCall": None}, []),
        ({"functionCall": {"name": "to say hi"}}, ["user: to say hi"]),
        ({"functionResponse": {"name": "f", "response": {"a": "hi"}}}, ['tool f: {"a": "hi"}']),
        ({"function_response": {"id": "c", "name": "f", "response": {"a": "hi"}}}, ['tool c: {"a": "hi"}']),
        ({"functionResponse": {"response": {"a": "hi"}}}, ['assistant: {"a": "hi"}']),
        ({"toolResponse": {"toolType": "T", "id": "c", "response": {"a": "hi"}}}, ['tool c: {"a": "hi"}']),
        (
            {
                "functionResponse": {
                    "name": "f",
                    "response": {"a": "hi"},
                    "scheduling": "to say hi",
                    "parts": OPAQUE[:1],
                }
            },
            ['tool f: {"a": "hi"}', "tool f: to say hi"],
        ),
        ({"functionResponse": {"name": "f", "response": {}}}, []),
        ({"executableCode": {"language": "PYTHON", "code": "hi"}}, ["user: hi"]),
        ({"executable_code": {"code": "hi"}}, ["user: hi"]),
        ({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "hi"}}, ["user: hi"]),
        ({"code_execution_result": {"output": "hi"}}, ["user: hi"]),
        ({"fromNextYear": {"text": "hi", "n": "hi"}}, ["user: hi", "user: hi"]),
        ({"inlineData": {"mimeType": "text/plain", "data": "hi to all"}}, ["user: hi to all"]),
        *((part, []) for part in OPAQUE),
    ],
)
def test_texts_of_request_parts(part: Any, messages: list[str]) -> None:
    body = {"contents": [{"parts": [part]}]}
    assert [
        f"{prompt.message['role']} {prompt.message.get('tool_call_id', '')}".strip() + f": {prompt.message['content']}"
        for prompt in prompts(GEMINI, body)
    ] == messages
    assert redacted_request(GEMINI, body) == masked(body)


def test_plain_text_in_base64_is_decoded_and_encoded_again() -> None:
    body = {"contents": [{"parts": [{"inlineData": {"mimeType": "text/plain", "data": "aGkgYQ=="}}]}]}
    assert asked(GEMINI, body) == [("user", "hi a")]
    after = redacted_request(GEMINI, body)
    assert asked(GEMINI, after) == [("user", "[X] a")]
    assert after["contents"][0]["parts"][0]["inlineData"]["data"] == "W1hdIGE="


@pytest.mark.parametrize(
    "body",
    [
        {"contents": 7},
        {"contents": [7]},
        {"contents": [{"parts": [7]}]},
        {"systemInstruction": True},
        {"Contents": "a"},
        {"contents": [{"Parts": "a"}]},
        # In protobuf's JSON, a field with both of its names is a repeated key.
        {"contents": [{"parts": [{"functionCall": {"args": {"a": "b"}}, "function_call": {"args": {"a": "c"}}}]}]},
        {"contents": [{"parts": [{"functionResponse": {"response": {}}, "function_response": {}}]}]},
        {"contents": [{"parts": [{"text": "a", "thoughtSignature": "", "thought_signature": "s"}]}]},
        {"systemInstruction": "a", "system_instruction": "b"},
        [],
        "7",
    ],
)
def test_request_that_cannot_be_judged_is_unreadable(body: Any) -> None:
    with pytest.raises(MalformedBody):
        asked(GEMINI, body)


@pytest.mark.parametrize("name", ["thoughtSignature", "thought_signature"])
def test_signed_text_of_a_request_is_inspected_and_fixed(name: str) -> None:
    for part, is_fixed in (({"text": "hi", name: "cw=="}, True), ({"text": "hi", name: ""}, False)):
        body = {"contents": [{"role": "model", "parts": [part]}]}
        assert asked(GEMINI, body) == [("assistant", "hi")]
        assert fixed(prompt.leaf for prompt in prompts(GEMINI, body)) == ["hi"] * is_fixed
        assert is_redactable(GEMINI, body) is not is_fixed


def test_definitions_are_inspected_only_with_tools() -> None:
    body = {
        "contents": "hi",
        "tools": [{"functionDeclarations": [{"name": "f", "description": "hi b"}]}, {"googleSearch": {}}],
        "generationConfig": {"responseSchema": {"description": "hi c"}, "responseJsonSchema": {"title": "hi"}},
    }
    assert asked(GEMINI, body) == [("user", "hi")]
    assert asked(GEMINI, body, tools=True) == [
        ("system", "hi b"),
        ("system", "hi c"),
        ("system", "hi"),
        ("user", "hi"),
    ]
    assert redacted_request(GEMINI, body, tools=True) == masked(body)
    body = {"generation_config": {"response_schema": {"description": "hi"}}}
    assert asked(GEMINI, body, tools=True) == [("system", "hi")]


# -- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "named", "unnamed"),
    [
        ({"role": "model", "parts": [{"text": "hi a"}, {"text": "hi b", "thought": True}]}, ["hi a", "hi b"], []),
        ({"parts": [{"functionCall": {"name": "f", "args": {"a": "hi"}}}]}, ['{"a": "hi"}'], []),
        ({"parts": [{"function_call": {"id": "c", "args": {"a": "hi"}}}]}, ['{"a": "hi"}'], []),
        ({"parts": [{"functionCall": {"name": "f", "args": {}}}]}, [], []),
        (
            {
                "parts": [
                    {"functionCall": {"partialArgs": [{"stringValue": "hi", "jsonPath": "$.a"}, {"numberValue": 1}]}}
                ]
            },
            ["hi"],
            ["$.a"],
        ),
        (
            {"parts": [{"function_call": {"partial_args": [{"string_value": "hi", "json_path": "a"}]}}]},
            ["hi"],
            [],
        ),
        ({"parts": [{"toolCall": {"args": {"queries": ["hi"]}}}]}, ['{"queries": ["hi"]}'], []),
        ({"parts": [{"toolResponse": {"response": {"a": "hi"}}}]}, ['{"a": "hi"}'], []),
        ({"parts": [{"executableCode": {"language": "PYTHON", "code": "hi"}}]}, [], ["hi"]),
        ({"parts": [{"code_execution_result": {"outcome": "OK", "output": "hi"}}]}, [], ["hi"]),
        ({"parts": [{"text": "hi"}, *OPAQUE]}, ["hi"], []),
        ({"parts": ["hi", "", None]}, ["hi"], []),
        ({"parts": "hi"}, ["hi"], []),
        ({"parts": {"text": "hi"}}, ["hi"], []),
        ({"parts": [{"text": "hi a"}], "text": "hi b"}, ["hi a"], ["hi b"]),
        ({"parts": [{"text": "hi a", "fromNextYear": {"text": "hi b"}}]}, ["hi a"], ["hi b"]),
        ({}, [], []),
        (None, [], []),
    ],
)
def test_texts_of_candidates(content: Any, named: list[str], unnamed: list[str]) -> None:
    candidate = {
        "content": content,
        "finishReason": "STOP",
        "index": 1,
        "avgLogprobs": -0.1,
        "safetyRatings": [{"category": "HARM_CATEGORY_HATE_SPEECH", "probability": "LOW"}],
    }
    body = {"candidates": [{"index": 0}, candidate], "modelVersion": "m", "responseId": "r", "createTime": "2026-01-01"}
    assert said(GEMINI, body) == named + (["\n".join(unnamed)] if unnamed else [])
    assert heard(GEMINI, body) == named + unnamed
    assert redacted_answer(GEMINI, body) == redacted_event(GEMINI, body) == masked(body)


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ({"candidates": [{"content": "hi"}]}, ["hi"]),
        ({"candidates": [{"content": ["hi"]}]}, ["hi"]),
        ({"candidates": [{"output": "hi"}]}, ["hi"]),
        ({"candidates": [{"finishMessage": "hi"}]}, ["hi"]),
        ({"candidates": {"text": "hi"}}, ["hi"]),
        ({"response": {"candidates": [{"content": {"parts": [{"text": "hi"}]}}]}}, ["hi"]),
        ({"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": "hi"}}, ["hi"]),
        ({"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "hi"}}, ["hi"]),
        ({"usageMetadata": {"trafficType": "ON_DEMAND", "promptTokensDetails": [{"modality": "TEXT"}]}}, []),
        ({"summary": {"text": "hi"}}, ["hi"]),
        ({}, []),
        ("7", []),
        ('"hi"', ["hi"]),
    ],
)
def test_texts_of_other_answers(body: Any, texts: list[str]) -> None:
    assert said(GEMINI, body) == heard(GEMINI, body) == texts
    if not isinstance(body, str):
        assert redacted_answer(GEMINI, body) == redacted_event(GEMINI, body) == masked(body)


def test_grounding_is_inspected_although_it_repeats_the_answer() -> None:
    """Each of its texts is inspected as a whole, so that a redacted value does not appear in a segment."""
    grounding = {
        "webSearchQueries": ["hi a"],
        "retrievalQueries": ["hi b"],
        "searchEntryPoint": {"renderedContent": "hi c", "sdkBlob": "W1siaGkgaCIsImh0dHBzOi8vYSJdXQ=="},
        "groundingChunks": [
            {"web": {"uri": "https://u", "domain": "example.com", "title": "hi d"}},
            {"retrievedContext": {"title": "hi e", "text": "hi f", "customMetadata": [{"stringValue": "hi g"}]}},
            {"maps": {"placeId": "places/a", "placeAnswerSources": {"reviewSnippets": [{"review": "hi i"}]}}},
        ],
        "groundingSupports": [{"segment": {"startIndex": 0, "text": "hi j"}, "groundingChunkIndices": [0]}],
    }
    urls = {"urlMetadata": [{"retrievedUrl": "https://a", "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_SUCCESS"}]}
    candidate = {"content": {"parts": [{"text": "a"}]}, "groundingMetadata": grounding, "urlContextMetadata": urls}
    body = {"candidates": [candidate]}
    blob = '[["hi h","https://a"]]'
    unnamed = ["hi a", "hi b", "hi c", blob, "hi d", "hi e", "hi f", "hi g", "hi i", "hi j"]
    assert said(GEMINI, body) == ["a", "\n".join(unnamed)]
    after = redacted_answer(GEMINI, body)
    assert said(GEMINI, after) == ["a", "\n".join(map(masked, unnamed))]
    assert (
        after["candidates"][0]["groundingMetadata"]["searchEntryPoint"]["sdkBlob"] == "W1siW1hdIGgiLCJodHRwczovL2EiXV0="
    )
    assert heard(GEMINI, body) == ["a", *unnamed]


def test_running_texts_of_a_candidate_have_its_index() -> None:
    def of(candidate: Any) -> list[Any]:
        return [place[1:] for place in places(GEMINI, {"candidates": [candidate]})]

    parts = [{"text": "a"}, {"text": "b", "thought": True}, {"text": "c"}]
    assert of({"content": {"parts": parts}}) == [(0, "text"), (0, "thought"), (0, "text")]
    assert of({"content": {"parts": parts}, "index": 1}) == [(1, "text"), (1, "thought"), (1, "text")]
    assert of({"content": {"parts": {"text": "a", "thought": True}}}) == [(0, "thought")]
    assert of({"content": {"parts": ["a"]}, "index": [1]}) == [(0, "content", "parts", 0)]
    assert of({"finishMessage": "a", "index": 2}) == [(2, "finishMessage")]
    pieces = [{"jsonPath": "$.a", "stringValue": "b"}]
    assert of({"content": {"parts": [{"functionCall": {"partialArgs": pieces}}]}}) == [
        (0, "content", "parts", 0, "functionCall", "partialArgs", 0, "jsonPath"),
        (0, "args", "$.a"),
    ]
    pieces = [{"json_path": "a", "string_value": "b"}]
    assert of({"content": {"parts": [{"function_call": {"partial_args": pieces}}]}}) == [(0, "args", "a")]
    assert of({"groundingMetadata": {"groundingChunks": [{"web": {"title": "a"}}]}, "index": 1}) == [
        (1, "groundingMetadata", "groundingChunks", 0, "web", "title")
    ]
    assert places(GEMINI, {"candidates": {"content": {"parts": [{"text": "a"}]}}}) == [
        ("candidates", "content", "parts", 0, "text")
    ]


@pytest.mark.parametrize("name", ["logprobsResult", "logprobs_result"])
def test_rewritten_candidate_loses_its_logprobs_and_signatures(name: str) -> None:
    parts = [
        {"text": "hi", "thoughtSignature": "cw=="},
        {"functionCall": {"name": "f", "args": {"a": "hi"}}, "thought_signature": "cw=="},
        {"text": "a", "thoughtSignature": "cw=="},
        {"inlineData": {"data": PNG}},
    ]
    tokens = {"chosenCandidates": [{"token": "hi"}]}
    other = {"content": {"parts": [{"text": "a"}]}, name: {"chosenCandidates": [{"token": "a"}]}, "index": 1}
    body = {"candidates": [{"content": {"parts": parts}, name: tokens}, other]}
    after = {
        "candidates": [
            {
                "content": {
                    "parts": [
                        {"text": "[X]", "thoughtSignature": ""},
                        {"functionCall": {"name": "f", "args": {"a": "[X]"}}, "thought_signature": ""},
                        *parts[2:],
                    ]
                },
                name: None,
            },
            other,
        ]
    }
    assert redacted_answer(GEMINI, body) == redacted_event(GEMINI, {"candidates": body["candidates"][:1]}) | after
    assert heard(GEMINI, body) == ["hi", "~cw==", '{"a": "hi"}', "~cw==", "a", "~cw==", "#", "a", "#"]
    assert {leaf.unit for leaf in GEMINI.deltas(document(body))} == {("candidates", 0), ("candidates", 1)}


def element(*texts: str, index: int | None = None, token: str = "", **part: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text, **part} for text in texts]}}
    if index is not None:
        candidate["index"] = index
    if token:
        candidate["logprobsResult"] = {"chosenCandidates": [{"token": token, "logProbability": -0.5}]}
    return {"candidates": [candidate]}


def test_texts_of_an_array_are_joined() -> None:
    array = [
        element("my key is h", index=0),
        element("i", "", thoughtSignature="cw=="),
        element(" now", index=0, token=" now"),
        {"usageMetadata": {}},
    ]
    assert said(GEMINI, array) == ["my key is hi now"]
    after = redacted_answer(GEMINI, array)
    parts = [part for one in after[:3] for part in one["candidates"][0]["content"]["parts"]]
    assert [part["text"] for part in parts] == ["my key is [X] now", "", "", ""]
    assert parts[1]["thoughtSignature"] == ""
    assert after[2]["candidates"][0]["logprobsResult"] is None
    assert after[3] == {"usageMetadata": {}}


def test_rewrite_of_an_array_nulls_all_its_logprobs() -> None:
    array = [element("h", token="h"), element("i", token="i"), element("hi", thought=True, token="hi")]
    array[0]["candidates"][0]["content"]["parts"].append({"text": "to ", "thought": True})
    assert said(GEMINI, array) == ["hi", "to hi"]
    after = redacted_answer(GEMINI, array)
    assert [one["candidates"][0]["logprobsResult"] for one in after] == [None] * 3
    assert said(GEMINI, after) == ["[X]", "to [X]"]


def test_candidates_of_an_array_are_kept_apart() -> None:
    code = {"candidates": [{"content": {"parts": [{"executableCode": {"code": "hi c"}}]}}]}
    call = {"candidates": [{"content": {"parts": [{"functionCall": {"args": {"d": "hi"}}}]}}]}
    array = [
        {"candidates": [*element("hi a", index=0)["candidates"], *element("hi x", index=1)["candidates"]]},
        {"candidates": [*element(" b", index=0)["candidates"], *element(" y", index=1)["candidates"]]},
        code,
        call,
        {"text": "hi g"},
        {"text": "hi h"},
        7,
    ]
    assert said(GEMINI, array) == ["hi a b", "hi x y", '{"d": "hi"}', "hi c\nhi g\nhi h"]
    after = redacted_answer(GEMINI, array)
    assert said(GEMINI, after) == ["[X] a b", "[X] x y", '{"d": "[X]"}', "[X] c\n[X] g\n[X] h"]
    assert heard(GEMINI, [{"text": "hi"}]) == ["hi"]


def test_arguments_in_two_elements_of_an_array_cannot_be_rewritten_as_one() -> None:
    call = {"candidates": [{"content": {"parts": [{"functionCall": {"args": {"d": "hi"}}}]}}]}
    assert said(GEMINI, [call, call]) == ['{"d": "hi"}{"d": "hi"}']
    assert len(fixed(answers(GEMINI, [call, call]))) == 1
    with pytest.raises(RedactionError):
        redacted_answer(GEMINI, [call, call])


@pytest.mark.parametrize(
    ("path", "is_stream"),
    [
        ("/v1beta/models/m:streamGenerateContent?alt=sse", True),
        ("/v1beta/models/m:streamGenerateContent?key=k&alt=sse", True),
        ("/v1beta/models/m:streamGenerateContent?alt=json&alt=sse", True),
        ("/v1beta/models/m:streamGenerateContent?alt=sse&alt=json", True),
        ("/v1beta/models/m:streamGenerateContent", True),
        ("/v1beta/models/m:generateContent?alt=sse", False),
        ("/v1beta/models/m:generateContent?x=streamGenerateContent", False),
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
