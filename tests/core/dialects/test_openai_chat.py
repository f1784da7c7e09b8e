"""OpenAI's chat completions: every place of a request and of an answer that holds text."""

from __future__ import annotations

import json
from pathlib import Path as FilePath
from typing import Any

import pytest

from extproc.core.content.document import MAX_DEPTH, Document
from extproc.core.content.sse import EventDecoder
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.dialects.openai_chat import OpenAIChat
from extproc.core.errors import MalformedBody
from extproc.core.redaction import RedactionError, rewrite
from extproc.core.refusal import UNAVAILABLE, blocked
from extproc.core.vocabulary import MAX_CHOICE
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

CORPUS = FilePath(__file__).parents[3].parent / "shared/corpus"
CHAT = OpenAIChat()
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAX+XDSwAAAABJRU5ErkJggg=="
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA="
CALLS = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": "hi"}'}}]


def sent(*messages: Any) -> list[dict[str, Any]]:
    """Return the messages that Aim gets, and check that a redaction is put back."""
    body = {"model": "m", "messages": list(messages)}
    found = prompts(CHAT, body)
    assert redacted_request(CHAT, body) == masked(body)
    return [dict(prompt.message) for prompt in found]


# -- requests: messages ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_message_is_sent_unchanged(role: str) -> None:
    message = {"role": role, "content": "hi", "name": "n", "more": {"a": [1]}}
    assert sent(message) == [message]
    assert sent({"role": role, "content": "hi"}) == [{"role": role, "content": "hi"}]


@pytest.mark.parametrize(
    "more",
    [{"refusal": None}, {"tool_calls": [], "audio": {}, "annotations": []}, {"name": ""}, {"function_call": None}],
)
def test_empty_fields_of_a_message_do_not_matter(more: dict[str, Any]) -> None:
    message = {"role": "user", "content": "hi", **more}
    assert sent(message) == [message]
    assert sent({**message, "content": ""}) == []


@pytest.mark.parametrize("more", [{"name": "n"}, {"cache_control": {"type": "ephemeral"}}, {"channel": "final"}])
def test_inert_fields_of_a_message_are_not_sent_as_texts(more: dict[str, Any]) -> None:
    assert sent({"role": "user", "content": "hi", **more}) == [{"role": "user", "content": "hi", **more}]


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"name": "to say hi"}, "to say hi"),
        ({"note": "hi"}, "hi"),
        ({"context": {"citations": [{"title": "hi"}]}}, "hi"),
        ({"thinking_blocks": [{"thinking": "hi"}]}, "hi"),
        ({"tool_plan": "hi"}, "hi"),
        ({"annotations": [{"url_citation": {"url": "https://a.example", "title": "hi"}}]}, "hi"),
        ({"annotations": [{"file": {"content": [{"type": "text", "text": "hi"}]}}]}, "hi"),
    ],
)
def test_other_texts_of_a_message_are_sent_by_themselves(more: dict[str, Any], text: str) -> None:
    for role in ("user", "assistant"):
        first, second = sent({"role": role, "content": "a", **more})
        assert first == {"role": role, "content": "a", **more}
        assert second == {"role": role, "content": text}


@pytest.mark.parametrize(
    "role",
    ["developer", "tool", "function", "ipython", "", "User", None, 5, True, "missing", "odd tool", "odd function"],
)
def test_other_roles_are_sent_as_user(role: Any) -> None:
    message: dict[str, Any] = {"role": role, "content": "hi", "x": 1}
    if role == "missing":
        del message["role"]
    elif role == "odd tool":
        message |= {"role": "tool", "tool_call_id": 5, "name": "n"}
    elif role == "odd function":
        message |= {"role": "function", "name": None, "tool_call_id": "1"}
    assert sent(message) == [{**message, "role": "user"}]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "tool", "tool_call_id": "call_1", "content": "hi"},
        {"role": "function", "name": "weather", "content": "hi"},
    ],
)
def test_results_that_aims_schema_accepts_keep_their_role(message: dict[str, Any]) -> None:
    assert sent(message) == [message]
    assert sent({**message, "content": [{"type": "text", "text": "hi"}]}) == [message]


@pytest.mark.parametrize("odd", [[], {}, ["user"], {"a": 1}])
@pytest.mark.parametrize("where", ["role", "type"])
def test_values_of_other_types_in_place_of_names_are_accepted(odd: Any, where: str) -> None:
    if where == "role":
        assert sent({"role": odd, "content": "hi"}) == [{"role": "user", "content": "hi"}]
    else:
        assert sent({"role": "user", "content": [{"type": odd, "text": "hi"}]}) == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    "more",
    [
        {"tool_calls": CALLS},
        {"function_call": {"name": "f", "arguments": '{"a": "hi"}'}},
        {"tool_calls": CALLS, "x": 1},
    ],
)
def test_calls_are_sent_even_without_text(more: dict[str, Any]) -> None:
    """Aim gets the message with its calls, and the arguments as a text that it can redact."""
    spelt = {"role": "assistant", "content": '{"a": "hi"}'}
    absences: list[dict[str, Any]] = [{"content": None}, {}, {"content": []}, {"content": ""}]
    for absent in absences:
        assert sent({"role": "assistant", **absent, **more}) == [{"role": "assistant", **more, "content": None}, spelt]
    message = {"role": "assistant", "content": "hi b", **more}
    assert sent(message) == [message, spelt]
    parts = {**message, "content": [{"type": "text", "text": "hi c"}, {"type": "text", "text": "hi d"}]}
    assert sent(parts) == [{**message, "content": "hi c"}, {**message, "content": "hi d"}, spelt]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"a": "hi", "b": "\\u00e9\\n"}', '{"a": "hi", "b": "é\n"}'),
        ({"a": "hi", "n": 1.0}, '{"a": "hi", "n": 1.0}'),
        (["hi"], '["hi"]'),
        ('{"a": "hi', '{"a": "hi'),
        ("hi", "hi"),
    ],
)
def test_arguments_of_a_call_are_one_text(arguments: Any, text: str) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    assert sent({"role": "assistant", "content": None, "tool_calls": [call]})[1:] == [
        {"role": "assistant", "content": text}
    ]


def test_input_of_a_custom_call_is_a_text() -> None:
    call = {"id": "1", "type": "custom", "custom": {"name": "f", "input": "hi"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert sent(message) == [message, {"role": "assistant", "content": "hi"}]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": ""},
        {"role": "user", "content": None},
        {"role": "user"},
        {"role": "user", "content": []},
        {"role": "user", "content": ["", {"type": "text", "text": ""}]},
        {"role": "assistant", "content": None, "tool_calls": [], "function_call": None},
        {"role": "assistant", "content": "", "tool_calls": None},
        {},
    ],
)
def test_messages_without_text_are_not_sent(message: Any) -> None:
    assert sent(message) == []


def test_each_part_is_a_message() -> None:
    message = {
        "role": "user",
        "name": "n",
        "content": [
            {"type": "text", "text": "hi a"},
            {"type": "image_url", "image_url": {"url": "https://x/text.png", "detail": "high"}, "text": "hi i"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
            {"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}},
            {"type": "file", "file": {"file_data": WAV, "filename": "hi.pdf"}},
            {"type": "video_url", "video_url": {"url": "https://x"}, "cache_control": {"type": "ephemeral"}},
            {"type": "audio_url", "audio_url": "https://x"},
            {"type": "refusal", "refusal": "hi b"},
            {"text": "hi c"},
            "hi d",
            ["hi e", {"type": "text", "text": "hi f"}],
            {"type": "new", "x": [{"content": "hi g"}], "thinking": [{"type": "text", "text": "hi h"}]},
            {"type": "text", "text": None},
            None,
        ],
    }
    texts = ["hi a", "hi i", "hi.pdf", "hi b", "hi c", "hi d", "hi e", "hi f", "hi g", "hi h"]
    assert sent({"role": "system", "content": "hi"}, message) == [
        {"role": "system", "content": "hi"},
        *({"role": "user", "name": "n", "content": text} for text in texts),
    ]


def test_content_may_be_one_part() -> None:
    assert sent({"role": "user", "content": {"type": "text", "text": "hi"}}) == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (f"data:image/png;base64,{PNG}", None),
        ("https://example.com/a?b=c", None),
        ("gs://a/b", None),
        ("data:text/plain;base64,aGkgYQ==", "hi a"),
        ("data:application/json;base64,eyJhIjoiaGkifQ==", '{"a":"hi"}'),
        ("data:image/svg+xml;base64,PHN2Zz5oaTwvc3ZnPg==", "<svg>hi</svg>"),
        ("data:text/plain,hi", "data:text/plain,hi"),
        ("https://example.com/ and say hi", "https://example.com/ and say hi"),
        ("javascript:hi()", "javascript:hi()"),
        ("aGkgYQ==", "hi a"),
    ],
)
def test_media_are_passed_only_if_they_are_binary_or_an_address(url: str, text: str | None) -> None:
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
    body = {"messages": [message]}
    assert asked(CHAT, body) == ([("user", text)] if text else [])
    after = redacted_request(CHAT, body)["messages"][0]["content"][0]["image_url"]["url"]
    assert (after == url) is (text is None)
    assert text is None or asked(CHAT, masked(redacted_request(CHAT, body))) == [("user", masked(text))]


def test_reasoning_and_refusal_of_an_assistant_are_sent() -> None:
    message = {
        "role": "assistant",
        "content": "hi a",
        "refusal": "hi b",
        "reasoning": "hi c",
        "reasoning_content": "hi d",
        "reasoning_details": [
            {"type": "reasoning.text", "text": "hi e"},
            {"type": "reasoning.summary", "summary": "hi f"},
            {"type": "reasoning.encrypted", "data": "AAAA"},
            None,
        ],
        "reasoning_signature": "c2lnbg==",
        "thought_signature": "c2lnbg==",
        "extra_content": {"google": {"thought_signature": "c2lnbg=="}},
    }
    assert sent(message) == [message, *({"role": "assistant", "content": f"hi {text}"} for text in "bcdef")]


def test_signed_reasoning_is_inspected_and_fixed() -> None:
    """Its provider would refuse changed reasoning with the old signature."""
    for details in ({"text": "hi", "signature": "cw=="}, {"summary": "hi", "signature": "cw=="}):
        body = {"messages": [{"role": "assistant", "content": "a", "reasoning_details": [details]}]}
        assert fixed(prompt.leaf for prompt in prompts(CHAT, body)) == ["hi"]
        assert not is_redactable(CHAT, body)
        body["messages"][0]["content"] = "hi"
        with pytest.raises(RedactionError):
            redacted_request(CHAT, body)
    body = {"messages": [{"role": "assistant", "reasoning_details": [{"text": "hi", "signature": ""}]}]}
    assert is_redactable(CHAT, body)


def test_reasoning_of_other_types_is_read() -> None:
    message = {"role": "assistant", "refusal": "", "reasoning": {"text": "hi a", "x": 1}, "reasoning_content": None}
    assert sent({**message, "reasoning_details": {"text": "hi b"}}) == [
        {"role": "assistant", "content": "hi a"},
        {"role": "assistant", "content": "hi b"},
    ]
    assert sent({"role": "assistant", "reasoning": ["hi a"], "refusal": ["hi b"]}) == [
        {"role": "assistant", "content": "hi a"},
        {"role": "assistant", "content": "hi b"},
    ]


def test_messages_may_be_strings_or_one_message() -> None:
    assert asked(CHAT, {"messages": "hi"}) == [("user", "hi")]
    assert asked(CHAT, {"messages": {"role": "assistant", "content": "hi"}}) == [("assistant", "hi")]
    assert sent("hi a", {"role": "user", "content": "hi b"}) == [
        {"role": "user", "content": "hi a"},
        {"role": "user", "content": "hi b"},
    ]
    assert sent(None, [{"role": "user", "content": "hi"}]) == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    "body",
    [
        {"messages": 5},
        {"messages": True},
        {"messages": [5]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "user", "content": [1, 2]}]},
        {"prompt_embeds": "AAAA"},
        {"prompt_token_ids": [1, 2]},
        {"prompt_token_ids": {"a": 1}},
        {"Messages": []},
        {"messages": [{"Role": "user", "content": "a"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "Text": "a"}]}]},
        [],
        5,
        None,
    ],
)
def test_request_that_cannot_be_judged_is_unreadable(body: Any) -> None:
    with pytest.raises(MalformedBody):
        asked(CHAT, body)


@pytest.mark.parametrize("body", [{}, {"messages": None}, {"messages": []}])
def test_request_may_have_no_messages(body: Any) -> None:
    assert asked(CHAT, body) == []


def test_request_may_be_a_list_or_a_text() -> None:
    assert asked(CHAT, '"hi"') == [("user", "hi")]
    assert asked(CHAT, [{"role": "user", "content": "hi"}]) == [("user", "hi")]


# -- requests: the rest ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ({"prediction": {"type": "content", "content": "hi"}}, ["hi"]),
        ({"prediction": {"type": "content", "content": [{"type": "text", "text": "hi"}]}}, ["hi"]),
        ({"prediction": "hi"}, ["hi"]),
        ({"prompt": "hi"}, ["hi"]),
        ({"text": ["hi a", "hi b"]}, ["hi a\nhi b"]),
        ({"documents": [{"title": "hi a", "data": {"snippet": "hi b"}}, "hi c"]}, ["hi a", "hi b", "hi c"]),
        ({"data_sources": [{"parameters": {"role_information": "hi", "endpoint": "hi b"}}]}, ["hi", "hi b"]),
        ({"plugins": [{"id": "web", "search_prompt": "hi"}]}, ["hi"]),
        ({"chat_template_kwargs": {"note": "hi"}}, ["hi"]),
        ({"extra_body": {"deep": {"note": "hi"}}}, ["hi"]),
        ({"prompt_variables": {"name": "hi"}}, ["hi"]),
        ({"stop": ["hi"]}, ["hi"]),
        ({"made up": {"by a client who says hi": 1}}, ["made up", "by a client who says hi"]),
        ({"model": "say hi"}, ["say hi"]),
    ],
)
def test_texts_beside_the_messages_are_user_messages(body: Any, texts: list[str]) -> None:
    assert asked(CHAT, body) == [("user", text) for text in texts]
    if not any(" " in key for key in body):  # a key is fixed
        assert redacted_request(CHAT, body) == masked(body)


def test_options_are_not_sent() -> None:
    body = {
        "model": "m",
        "user": "u",
        "tool_choice": {"type": "function", "function": {"name": "t"}},
        "reasoning_effort": "low",
        "reasoning": {"effort": "low", "summary": "auto"},
        "response_format": {"type": "json_object"},
        "modalities": ["text", "audio"],
        "audio": {"voice": "alloy", "format": "wav"},
        "service_tier": "auto",
        "prompt_cache_key": "k",
        "provider": {"order": ["A", "B"], "sort": "price"},
        "stream_options": {"include_usage": True},
        "web_search_options": {"user_location": {"type": "approximate", "approximate": {"country": "US"}}},
        "logit_bias": {"50256": -100},
    }
    assert asked(CHAT, body) == asked(CHAT, body, tools=True) == []


def test_definitions_are_inspected_only_with_tools() -> None:
    parameters = {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "hi b", "enum": ["hi", "ho"], "default": "hi"}},
        "required": ["city"],
    }
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "hi a", "parameters": parameters}},
            {"type": "function", "function": {"name": "g"}},
            {"type": "custom", "custom": {"name": "h", "format": {"grammar": {"definition": "start: hi"}}}},
        ],
        "functions": [
            {"name": "g", "parameters": {"title": "hi", "properties": {"n": {"const": "hi", "examples": [1]}}}}
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "s", "strict": True, "schema": {"description": "hi"}},
        },
        "tool_choice": "auto",
    }
    assert asked(CHAT, body) == [("user", "hi")]
    found = prompts(CHAT, body, tools=True)
    assert [(prompt.message["content"], prompt.is_definition) for prompt in found] == [
        ("hi a\nhi b\nhi\nho\nhi", True),
        ("start: hi", True),
        ("hi\nhi", True),
        ("hi", True),
        ("hi", False),
    ]
    assert {prompt.message["role"] for prompt in found} == {"system", "user"}
    assert redacted_request(CHAT, body, tools=True) == masked(body)
    assert asked(CHAT, {"tools": None, "functions": "", "response_format": 5}, tools=True) == []
    body = {"tools": "hi", "functions": [{"description": "hi", "default": None, "to say hi": 1}]}
    assert asked(CHAT, body, tools=True) == [("system", "hi"), ("system", "hi\nto say hi")]


def test_texts_behind_the_first_256_of_a_list_share_a_message() -> None:
    parts = [{"type": "text", "text": f"hi {number}"} for number in range(300)]
    body = {"messages": [{"role": "assistant", "content": parts}]}
    found = asked(CHAT, body)
    assert len(found) == 257
    assert found[-1] == ("assistant", "\n".join(f"hi {number}" for number in range(256, 300)))
    assert redacted_request(CHAT, body) == masked(body)


# -- whole answers -----------------------------------------------------------------------------------------------


MESSAGE: dict[str, Any] = {
    "role": "assistant",
    "content": "hi a",
    "refusal": "hi b",
    "reasoning": "hi c",
    "reasoning_content": "hi d",
    "reasoning_details": [{"text": "hi e"}, {"text": "hi f", "summary": "hi g"}],
    "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "n", "arguments": '{"h": "hi"}'}},
        {"id": "2", "type": "custom", "custom": {"name": "n", "input": "hi i"}},
    ],
    "function_call": {"name": "n", "arguments": '{"j": "hi"}'},
    "thinking_blocks": [{"type": "thinking", "thinking": "hi k"}],
    "annotations": [{"type": "url_citation", "url_citation": {"title": "hi y", "url": "https://a.example"}}],
    "images": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}, "revised_prompt": "hi z"}],
}
NAMED = [f"hi {letter}" for letter in "abcdefg"] + ['{"h": "hi"}', "hi i", '{"j": "hi"}', "hi k"]


def test_every_text_of_every_choice_is_found() -> None:
    parts = {"role": "assistant", "content": [{"type": "text", "text": "hi m"}, "hi n"]}
    body = {
        "id": "1",
        "choices": [
            {"index": 0, "message": MESSAGE, "text": "hi l", "finish_reason": "stop", "stop_reason": "eos"},
            {"index": 1, "message": parts},
        ],
        "usage": {"total_tokens": 1},
    }
    assert said(CHAT, body) == [*NAMED, "hi l", "hi m", "hi n", "hi y\nhi z"]
    assert redacted_answer(CHAT, body) == masked(body)


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ({"choices": None, "output": [{"content": [{"type": "output_text", "text": "hi"}]}]}, ["hi"]),
        ({"choices": {"0": {"message": {"content": "hi"}}}}, ["hi"]),
        ({"choices": ["hi"]}, ["hi"]),
        ({"choices": [{"message": "hi"}]}, ["hi"]),
        (
            {"choices": [{"messages": [{"role": "tool", "content": "hi a"}], "message": {"content": "hi"}}]},
            ["hi", "hi a"],
        ),
        ({"message": {"content": "hi"}}, ["hi"]),
        ({"error": {"message": "hi", "code": "c", "param": "p", "failed_generation": "hi b"}}, ["hi\nhi b"]),
        ([{"content": "hi"}], ["hi"]),
        ({"delta": "hi"}, ["hi"]),
        ({"response": "hi a", "generated_text": "hi b", "__verbose": {"content": "hi c"}}, ["hi a\nhi b\nhi c"]),
        ({"related_questions": ["hi a", "hi b"], "citations": ["https://a.example"]}, ["hi a\nhi b"]),
        ({"search_results": [{"title": "hi", "url": "https://a.example", "date": "2025-01-01"}]}, ["hi"]),
        ({"choices": [{"message": {"content": "hi", "context": {"intent": "hi b"}}}]}, ["hi", "hi b"]),
        ({"choices": [{"message": {"tool_calls": [{"function": {"arguments": {"x": "hi"}}}]}}]}, ['{"x": "hi"}']),
        ({"choices": [{"message": {"content": [{"type": "thinking", "thinking": [{"text": "hi"}]}]}}]}, ["hi"]),
        ({"choices": [{"message": {"content": "hi", "thought_signature": "cw=="}}]}, ["hi"]),
        ({}, []),
        ([], []),
        ({"choices": []}, []),
        (5, []),
        (None, []),
    ],
)
def test_texts_of_other_answers(body: Any, texts: list[str]) -> None:
    assert said(CHAT, body) == texts
    assert redacted_answer(CHAT, body) == masked(body)
    assert sorted("\n".join(heard(CHAT, body)).split("\n")) == sorted("\n".join(texts).split("\n"))


def test_facts_of_an_answer_are_no_texts() -> None:
    filters = {"hate": {"filtered": False, "severity": "safe"}}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "system_fingerprint": "fp_1",
        "service_tier": "default",
        "provider": "Google",
        "metadata": {"weight_version": "default"},
        "x_groq": {"id": "req_1"},
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": filters}],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hi", "channel": "final"},
                "finish_reason": "stop",
                "native_finish_reason": "STOP",
                "content_filter_results": filters,
                "logprobs": None,
            }
        ],
    }
    assert said(CHAT, body) == ["hi"]
    assert heard(CHAT, body) == ["hi"]


def test_arguments_are_marked_as_json() -> None:
    calls = [{"function": {"arguments": "[1]"}}, {"custom": {"input": "[1]"}}]
    body = {"choices": [{"message": {"content": "[1]", "tool_calls": calls, "function_call": {"arguments": "[1]"}}}]}
    assert [leaf.path[3] for leaf in answers(CHAT, body) if leaf.is_json] == ["tool_calls", "function_call"]


def test_arguments_without_anything_are_no_text() -> None:
    empty: list[Any] = ["{}", " {} ", "", {}, []]
    calls = [{"function": {"name": "f", "arguments": each}} for each in empty]
    message = {"role": "assistant", "content": "hi", "tool_calls": calls}
    assert said(CHAT, {"choices": [{"message": message}]}) == ["hi"]
    assert sent(message) == [message]


def test_redaction_of_arguments_keeps_their_spelling() -> None:
    spelt = '{"a" : "hi \\u00e9\\n", "n": 1.50, "b": ["hi"]}'
    body = {"choices": [{"message": {"tool_calls": [{"function": {"arguments": spelt}}]}}]}
    after = redacted_answer(CHAT, body)["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
    assert after == '{"a" : "[X] é\\n", "n": 1.50, "b": ["[X]"]}'
    (leaf,) = answers(CHAT, body)
    with pytest.raises(RedactionError):
        rewrite(leaf, leaf.text.replace('"n"', '"m"'))


def test_transcript_cannot_be_rewritten() -> None:
    """The audio would still say it."""
    body = {"choices": [{"message": {"content": "a", "audio": {"id": "1", "data": WAV, "transcript": "hi"}}}]}
    assert said(CHAT, body) == ["a", "hi"]
    assert fixed(answers(CHAT, body)) == ["hi"]
    with pytest.raises(RedactionError):
        redacted_answer(CHAT, body)


@pytest.mark.parametrize("key", ["message", "delta"])
def test_rewritten_reasoning_loses_its_signature(key: str) -> None:
    blocks = [{"thinking": "hi", "signature": "cw=="}]
    details = [
        {"text": "hi", "signature": "cw=="},
        {"text": "c", "signature": "cw=="},
        {"text": "hi", "signature": None},
    ]
    body = {"choices": [{key: {"reasoning_details": details, "thinking_blocks": blocks}}]}
    redacted = redacted_answer(CHAT, body)
    assert redacted["choices"][0][key] == {
        "reasoning_details": [{"text": "[X]", "signature": ""}, details[1], {"text": "[X]", "signature": None}],
        "thinking_blocks": [{"thinking": "[X]", "signature": ""}],
    }
    assert redacted_event(CHAT, body) == redacted
    assert heard(CHAT, body) == ["hi", "~cw==", "c", "~cw==", "hi", "hi", "~cw=="]


@pytest.mark.parametrize("key", ["message", "delta"])
@pytest.mark.parametrize(
    "more",
    [
        {"content": "hi"},
        {"refusal": "hi"},
        {"content": [{"text": "hi"}]},
        {"reasoning_details": [{"text": "hi"}]},
        {"tool_calls": [{"function": {"arguments": '{"a": "hi"}'}}]},
        {"function_call": {"arguments": '"hi"'}},
        {"note": "hi"},
    ],
)
def test_rewritten_choice_loses_its_tokens_in_every_spelling(key: str, more: dict[str, Any]) -> None:
    tokens = {
        "logprobs": {"content": [{"token": "hi", "bytes": [1], "top_logprobs": [{"token": "hi"}]}]},
        "prompt_logprobs": [None, {"7": {"decoded_token": "hi"}}],
        "token_ids": [7, 8],
    }
    other = {"index": 1, key: {"content": "a"}, "logprobs": {"content": [{"token": "a"}]}, "token_ids": [9]}
    body = {"choices": [{"index": 0, key: more, **tokens}, other], "prompt_token_ids": [1]}
    after = {"choices": [{"index": 0, key: masked(more), **dict.fromkeys(tokens)}, other], "prompt_token_ids": None}
    assert redacted_answer(CHAT, body) == after
    leaves = CHAT.deltas(document(body))
    assert [leaf.unit for leaf in leaves if leaf.text or leaf.path[0] == "choices"] == [
        *[("choices", 0)] * 4,
        *[("choices", 1)] * 3,
    ]


@pytest.mark.parametrize(
    "choice",
    [
        {},
        None,
        5,
        {"message": None},
        {"message": {}},
        {"message": []},
        {"message": {"content": None, "refusal": None, "tool_calls": None, "audio": None}},
        {"message": {"content": "", "refusal": "", "reasoning": "", "audio": {"transcript": ""}}, "text": ""},
        {"message": {"tool_calls": 5, "function_call": 5, "audio": 5}},
        {"message": {"tool_calls": [None, {}, {"function": None}, {"function": {"arguments": ""}}]}},
        {"message": {"tool_calls": [{"function": {"arguments": None}}]}},
        {"message": {"function_call": {"name": "f", "arguments": ""}, "reasoning_details": [{}, None, {"text": ""}]}},
        {"message": {"content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}},
    ],
)
def test_choices_without_text_yield_none(choice: Any) -> None:
    assert said(CHAT, {"id": "1", "choices": [choice]}) == []
    event = {"delta": choice.get("message"), **choice} if isinstance(choice, dict) else choice
    assert heard(CHAT, {"id": "1", "choices": [event]}) == []


@pytest.mark.parametrize("message", [{"content": 5}, {"refusal": 5}, {"tool_calls": [{"custom": {"input": 5}}]}])
def test_number_in_place_of_a_text_is_unreadable(message: Any) -> None:
    for key in ("message", "delta"):
        with pytest.raises(MalformedBody):
            said(CHAT, {"choices": [{key: message}]})


# -- chunks of a stream ------------------------------------------------------------------------------------------


def streamed(*choices: Any) -> list[Leaf]:
    return CHAT.deltas(document({"id": "1", "choices": choices}))


@pytest.mark.parametrize(
    "more", [{}, {"object": "chat.completion.chunk", "created": 1, "usage": None, "provider": "X"}]
)
@pytest.mark.parametrize("index", [0, 1, 7, MAX_CHOICE])
def test_content_has_the_index_of_its_choice(index: int, more: dict[str, Any]) -> None:
    body = {"id": "1", **more, "choices": [{"index": index, "delta": {"content": "hi"}, "finish_reason": None}]}
    place = ("choices", index, "delta", "content")
    path = ("choices", 0, "delta", "content")
    leaf = Leaf(path, "hi", place=place, index=index, unit=("choices", index))
    # Chunks with the usual fields are read without a walk, and in the same way.
    for delta in ({}, {"role": "assistant"}, {"role": "assistant", "reasoning": None}, {"role": "model"}):
        body["choices"][0]["delta"] = {"content": "hi", **delta}
        assert CHAT.deltas(document(body)) == Dialect.deltas(CHAT, document(body)) == [leaf]
    assert redacted_event(CHAT, body) == masked(body)


@pytest.mark.parametrize(
    ("more", "texts"),
    [
        ({"provider": "Amazon to say hi"}, ["Amazon to say hi", "a"]),
        ({"id": {"x": "hi"}}, ["hi", "a"]),
        ({"note": "hi"}, ["hi", "a"]),
        ({"created": 1.5, "obfuscation": "aB3"}, ["a"]),
        ({"obfuscation": "say hi"}, ["say hi", "a"]),
        ({"usage": {"total_tokens": 1}}, ["a"]),
    ],
)
def test_chunk_with_other_texts_is_read_by_the_walker(more: dict[str, Any], texts: list[str]) -> None:
    assert heard(CHAT, {**more, "choices": [{"index": 0, "delta": {"content": "a"}}]}) == texts
    assert heard(CHAT, {"choices": [{"index": 0, "delta": {"content": "a"}, "note": "hi"}]}) == ["a", "hi"]
    assert heard(CHAT, {"choices": [{"index": 0, "delta": {"content": "a", "role": "to say hi"}}]}) == [
        "a",
        "to say hi",
    ]


def test_missing_index_is_0() -> None:
    for choice in ({"delta": {"content": "a"}}, {"index": None, "delta": {"content": "a"}}):
        (leaf,) = streamed(choice)
        assert (leaf.place, leaf.index) == (("choices", 0, "delta", "content"), 0)


@pytest.mark.parametrize("index", [-1, MAX_CHOICE + 1, 10**30, "0", True, False])
def test_invalid_index_is_not_used_for_aim(index: Any) -> None:
    (leaf,) = streamed({"index": index, "delta": {"content": "a"}})
    assert (leaf.index, leaf.place) == (None, ("choices", index, "delta", "content"))


@pytest.mark.parametrize("index", [0.5, [], {}, [0], {"a": 1}])
def test_index_of_another_type_is_0(index: Any) -> None:
    (leaf,) = streamed({"index": index, "delta": {"content": "a"}})
    assert leaf.place == ("choices", 0, "delta", "content")


def test_running_texts_have_different_places() -> None:
    """A text that continues another has its place. Different texts never share a place."""
    delta: dict[str, Any] = {
        "content": "a",
        "refusal": "b",
        "reasoning": "c",
        "reasoning_content": "d",
        "reasoning_details": [{"index": 0, "text": "e"}, {"index": 1, "text": "f", "summary": "g"}, {"text": "h"}],
        "tool_calls": [
            {"index": 0, "function": {"arguments": "i"}},
            {"index": 1, "function": {"arguments": "j"}},
            {"index": 5, "custom": {"input": "k"}},
        ],
        "function_call": {"arguments": "l"},
        "audio": {"transcript": "m"},
    }
    first = streamed({"index": 0, "delta": delta, "text": "n"}, {"index": 1, "delta": delta, "text": "n"})
    assert len({leaf.place for leaf in first}) == len(first) == 28
    assert [leaf.text for leaf in first if leaf.index is not None] == ["a", "a"]
    # The places do not depend on the order of choices and calls.
    swapped = {
        **delta,
        "tool_calls": delta["tool_calls"][::-1],
        "reasoning_details": delta["reasoning_details"][:2][::-1],
    }
    again = streamed({"index": 1, "delta": swapped, "text": "n"})
    found = {(leaf.place, leaf.text) for leaf in again}
    assert found == {(leaf.place, leaf.text) for leaf in first if leaf.path[1] == 1 and leaf.text != "h"}


def test_call_without_an_index_is_identified_by_its_position() -> None:
    calls = [{"function": {"arguments": "a"}}, {"function": {"arguments": "b"}}]
    numbered = [{"index": position, **call} for position, call in enumerate(calls)]
    body = {"choices": [{"delta": {"tool_calls": calls}}]}
    assert places(CHAT, body) == places(CHAT, {"choices": [{"delta": {"tool_calls": numbered}}]})


def test_calls_with_indices_of_other_types_are_kept_apart() -> None:
    odd: list[Any] = [None, [], {"a": 1}, "1", 1.5]
    calls = [{"index": each, "function": {"arguments": "a"}} for each in odd]
    assert len({leaf.place for leaf in streamed({"delta": {"tool_calls": calls}})}) == len(calls)


def test_pieces_of_arguments_are_not_decoded() -> None:
    (leaf,) = streamed({"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"a": "\\u00'}}]}})
    assert (leaf.text, leaf.is_json, leaf.index) == ('{"a": "\\u00', True, None)


def test_content_may_be_a_list() -> None:
    content = [{"type": "text", "text": "a"}, "b", {"type": "thinking", "thinking": [{"text": "c"}]}]
    head = ("choices", 2, "delta", "content")
    assert [(leaf.text, leaf.place, leaf.index) for leaf in streamed({"index": 2, "delta": {"content": content}})] == [
        ("a", (*head, 0, "text"), None),
        ("b", (*head, 1), None),
        ("c", (*head, 2, "thinking", 0, "text"), None),
    ]


def test_choices_may_be_an_object() -> None:
    body = {"choices": {"index": 3, "delta": {"content": "hi"}}}
    assert heard(CHAT, body) == ["hi"]
    assert places(CHAT, body) == [("choices", 3, "content")]


def test_message_beside_a_delta_is_a_separate_text() -> None:
    choice = {"index": 0, "delta": {"content": "c"}, "message": {"role": "assistant", "content": "a b c"}}
    assert [leaf.text for leaf in streamed(choice)] == ["c", "a b c"]


@pytest.mark.parametrize(
    ("body", "is_whole"),
    [
        ({"choices": [{"delta": {"content": "a"}}]}, True),
        ({"choices": [{"delta": {"content": ""}}, {"delta": {"content": None}}, {"delta": {}}, {}]}, True),
        ({"choices": [{"delta": {"content": None, "tool_calls": CALLS}}]}, True),
        ({"choices": []}, True),
        ({"choices": [None]}, False),
        ({"choices": [{"delta": {"content": "a"}}, {"delta": {"content": ["a"]}}]}, False),
        ({"choices": [{"delta": {"content": {"text": "a"}}}]}, False),
        ({"choices": [{"delta": {"content": 5}}]}, False),
        ({"choices": None}, False),
        ({}, False),
        ([], False),
    ],
)
def test_chunk_in_aims_shape_is_submitted_whole(body: Any, is_whole: bool) -> None:
    assert CHAT.is_submitted_whole(document(body)) is is_whole


# -- refusals ----------------------------------------------------------------------------------------------------


def test_refusals_have_the_shape_of_the_api() -> None:
    body = (
        b'{"error": {"message": "No.", "type": "invalid_request_error", "param": null, '
        b'"code": "content_policy_violation"}}'
    )
    assert CHAT.refuse(blocked("No.")) == body
    assert CHAT.refuse_stream(blocked("No."), 3) == b"data: " + body + b"\n\ndata: [DONE]\n\n"
    assert json.loads(CHAT.refuse(UNAVAILABLE)) == {
        "error": {
            "message": UNAVAILABLE.message,
            "type": "api_error",
            "param": None,
            "code": "guardrail_unavailable",
        }
    }


def test_done_mark_ends_a_stream() -> None:
    assert CHAT.streams(Document('{"stream":true}'), "/v1/chat/completions")
    assert not CHAT.streams(Document("{}"), "/v1/chat/completions")
    assert CHAT.is_final("[DONE]", None)


# -- any document ------------------------------------------------------------------------------------------------


def test_deepest_document_is_read() -> None:
    deep = Document('{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH)
    for read in (CHAT.answers, CHAT.deltas):
        assert read(deep) == []


# -- recorded traffic --------------------------------------------------------------------------------------------

corpus = [
    pytest.mark.corpus,
    pytest.mark.skipif(not CORPUS.is_dir(), reason="no recorded traffic in ../shared/corpus"),
]


def recorded(*names: str) -> Any:
    return [pytest.param(CORPUS / name, id=name, marks=corpus) for name in names]


@pytest.mark.parametrize(
    "case",
    recorded(
        "openai-chat-basic",
        "openai-chat-json-mode",
        "openai-chat-multiturn",
        "openai-chat-reasoning",
        "openai-chat-streaming",
        "openai-chat-streaming-detailed-usage",
        "openai-chat-tools",
        "openai-chat-unknown-model",
        "agentgateway-requests-completions-basic",
    ),
)
def test_recorded_requests_have_texts(case: FilePath) -> None:
    read = Document.from_bytes((case / "request.json").read_bytes())
    found = CHAT.prompts(read, tools=False)
    assert [prompt.message["content"] for prompt in found] == [message["content"] for message in read.root["messages"]]
    assert {prompt.message["role"] for prompt in found} <= {"system", "user", "assistant"}
    tools = [prompt for prompt in CHAT.prompts(read, tools=True) if prompt.is_definition]
    assert len(tools) == len(read.root.get("tools", []))
    assert CHAT.streams(read, "/v1/chat/completions") is ("streaming" in case.name)


@pytest.mark.parametrize("case", recorded("openai-chat-no-messages", "openai-chat-bad-request"))
def test_recorded_requests_without_text_have_none(case: FilePath) -> None:
    assert CHAT.prompts(Document.from_bytes((case / "request.json").read_bytes()), tools=True) == []


@pytest.mark.parametrize(
    "case",
    recorded(
        "openai-chat-basic",
        "openai-chat-json-mode",
        "openai-chat-multiturn",
        "openai-chat-reasoning",
        "agentgateway-response-completions-basic",
    ),
)
def test_recorded_answers_have_texts(case: FilePath) -> None:
    read = Document.from_bytes((case / "response.body").read_bytes())
    (leaf,) = CHAT.answers(read)
    assert leaf.text == read.root["choices"][0]["message"]["content"]
    rewritten = read.rewrite(rewrite(leaf, "[X]"))
    spelled = rewritten.replace('"[X]"', "")
    assert (read.text.startswith(spelled[:100]), read.text.endswith(spelled[-100:])) == (True, True)
    assert Document(rewritten).root["usage"] == read.root["usage"]


@pytest.mark.parametrize("case", recorded("openai-chat-tools"))
def test_recorded_tool_calls_have_arguments(case: FilePath) -> None:
    (leaf,) = CHAT.answers(Document.from_bytes((case / "response.body").read_bytes()))
    assert json.loads(leaf.text) == {"location": "Boston, MA", "unit": "fahrenheit"}
    assert leaf.is_json


@pytest.mark.parametrize("case", recorded("apisix-openai-null-content-json"))
def test_recorded_answer_without_text_has_none(case: FilePath) -> None:
    assert CHAT.answers(Document.from_bytes((case / "response.body").read_bytes())) == []


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        pytest.param(CORPUS / name, text, id=name, marks=corpus)
        for name, text in (
            ("openai-chat-streaming", "Hi there!"),
            ("openai-chat-streaming-detailed-usage", ""),
            ("apisix-openai-chat-streaming-sse", "Hello!"),
        )
    ],
)
def test_recorded_streams_have_their_texts(case: FilePath, expected: str) -> None:
    decoder = EventDecoder(1 << 20)
    events = [*decoder.feed((case / "response.body").read_bytes()), *decoder.finish()]
    datas = [event.data for event in events if event.data]
    assert [CHAT.is_final(data, None) for data in datas] == [False] * (len(datas) - 1) + [True]
    chunks = [Document(data) for data in datas[:-1]]
    assert all(CHAT.is_submitted_whole(chunk) for chunk in chunks)
    leaves = [leaf for chunk in chunks for leaf in CHAT.deltas(chunk)]
    assert {leaf.place for leaf in leaves} <= {("choices", 0, "delta", "content")}
    assert {leaf.index for leaf in leaves} <= {0}
    assert "".join(leaf.text for leaf in leaves).startswith(expected)
    assert bool(leaves) is bool(expected)


@pytest.mark.parametrize(
    "more",
    [
        {"stop_token_ids": [1], "allowed_token_ids": [2], "bad_words_token_ids": [3], "logit_bias": {"7": 100}},
        {"metadata": {"token_ids": [1]}, "return_token_ids": True, "logprobs": True, "top_logprobs": 2},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"enum": [1], "token_ids": [1, 2]}}}]},
        {"usage": {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 2}}},
    ],
)
def test_numbers_that_are_no_prompt_pass(more: dict[str, Any]) -> None:
    call = {"function": {"name": "f", "arguments": {"token_ids": [1, 2]}}}
    body = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": [call]}], **more}
    assert ("user", "hi") in asked(CHAT, body)


@pytest.mark.parametrize("key", ["message", "delta"])
def test_tokens_that_servers_add_become_null(key: str) -> None:
    pieces = [{"id": 1, "token": "h", "bytes": [104], "top_logprobs": [{"token": "h"}]}, {"id": 2, "token": "i"}]
    choice = {"index": 0, key: {"content": "hi"}}
    llama = {"__verbose": {"completion_probabilities": pieces, "tokens": [1, 2], "n": 2}}
    dynamo = {"nvext": {"engine_data": {"completion_token_ids": [1, 2]}, "worker": 1}}
    fireworks = {"raw_output": {"completion_logprobs": {"tokens": ["h", "i"]}, "completion_token_ids": [1, 2]}}
    together = {"prompt": [{"text": "a", "logprobs": {"tokens": ["a"], "token_ids": [1]}}]}
    body = {"choices": [{**choice, **fireworks}], **llama, **dynamo, **together}
    after = {
        "choices": [{**masked(choice), "raw_output": dict.fromkeys(fireworks["raw_output"])}],
        "__verbose": {"completion_probabilities": None, "tokens": None, "n": 2},
        "nvext": {"engine_data": {"completion_token_ids": None}, "worker": 1},
        "prompt": [{"text": "a", "logprobs": None}],
    }
    assert redacted_answer(CHAT, body) == after
    tokens = [leaf for leaf in CHAT.deltas(document(body)) if leaf.kind is Kind.TOKENS]
    assert len(tokens) == 6
    assert {leaf.unit for leaf in tokens} == {None, ("choices", 0)}


def test_token_numbers_of_dynamo_are_unreadable() -> None:
    with pytest.raises(MalformedBody):
        asked(CHAT, {"messages": [{"role": "user", "content": "hi"}], "nvext": {"token_data": [1, 2]}})
