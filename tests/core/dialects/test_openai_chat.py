"""OpenAI's chat completions: every place of a request and of an answer that holds text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

import pytest

from extproc.core.content.document import MAX_DEPTH, Document, Path
from extproc.core.content.sse import EventDecoder
from extproc.core.dialects.base import MAX_CHOICE, Leaf
from extproc.core.dialects.openai_chat import OpenAIChat
from extproc.core.errors import MalformedBody
from extproc.core.redaction import rewrite
from extproc.core.refusal import UNAVAILABLE, blocked

CORPUS = FilePath(__file__).parents[3].parent / "shared/corpus"
CHAT = OpenAIChat()


def document(value: Any) -> Document:
    return Document(value if isinstance(value, str) else json.dumps(value))


def prompts(body: Any, *, tools: bool = False) -> list[tuple[Mapping[str, Any], Path | None]]:
    """Return the messages and the paths of their texts, and check that each text is at its path."""
    read = document(body)
    found = CHAT.prompts(read, tools=tools)
    for prompt in found:
        if prompt.leaf is not None:
            assert at(read.root, prompt.leaf.path) == prompt.leaf.text == prompt.message["content"] != ""
    return [(prompt.message, prompt.leaf.path if prompt.leaf is not None else None) for prompt in found]


def sent(*messages: Any) -> list[tuple[Mapping[str, Any], Path | None]]:
    """Return the prompts for messages; the paths do not include `messages`."""
    found = prompts({"model": "m", "messages": messages})
    assert all(path is None or path[0] == "messages" for _, path in found)
    return [(message, path and path[1:]) for message, path in found]


def at(node: Any, path: Path) -> Any:
    for step in path:
        node = node[step]
    return node


def leaves_of(body: Any, *, streamed: bool) -> list[Leaf]:
    """Return the leaves of an answer, and check that each is at its path and can be rewritten there."""
    read = document(body)
    leaves = CHAT.deltas(read) if streamed else CHAT.answers(read)
    for leaf in leaves:
        assert at(read.root, leaf.path) == leaf.text != ""
        assert hash(leaf) is not None
        if not leaf.fixed:
            assert at(document(read.rewrite(rewrite(leaf, "new"))).root, leaf.path) == "new"
    return leaves


def answered(*choices: Any) -> dict[Path, str]:
    """Return the texts of an answer by their paths below `choices`."""
    return {leaf.path[1:]: leaf.text for leaf in leaves_of({"id": "1", "choices": choices}, streamed=False)}


def streamed(*choices: Any) -> list[Leaf]:
    return leaves_of({"id": "1", "choices": choices}, streamed=True)


# -- requests: messages ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_message_is_sent_unchanged(role: str) -> None:
    message = {"role": role, "content": "hello", "name": "n", "unknown": {"a": [1]}}
    assert sent(message) == [(message, (0, "content"))]


@pytest.mark.parametrize("more", [{}, {"name": "n"}, {"refusal": None, "tool_calls": []}])
def test_message_without_a_text_is_not_sent(more: dict[str, Any]) -> None:
    assert sent({"role": "user", "content": "", **more}) == []


@pytest.mark.parametrize("more", [{"refusal": None}, {"tool_calls": [], "audio": {}, "annotations": []}, {"name": ""}])
def test_empty_fields_of_a_message_do_not_matter(more: dict[str, Any]) -> None:
    message = {"role": "user", "content": "hello", **more}
    assert sent(message) == [(message, (0, "content"))]


@pytest.mark.parametrize(
    "role",
    ["developer", "tool", "function", "ipython", "", "User", None, 5, True, "missing", "odd tool", "odd function"],
)
def test_other_roles_are_sent_as_user(role: Any) -> None:
    message: dict[str, Any] = {"role": role, "content": "hello", "x": 1}
    if role == "missing":
        del message["role"]
    elif role == "odd tool":
        message |= {"role": "tool", "tool_call_id": 5, "name": "n"}
    elif role == "odd function":
        message |= {"role": "function", "name": None, "tool_call_id": "1"}
    assert sent(message) == [({**message, "role": "user"}, (0, "content"))]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        {"role": "function", "name": "weather", "content": "sunny"},
    ],
)
def test_results_that_aims_schema_accepts_keep_their_role(message: dict[str, Any]) -> None:
    assert sent(message) == [(message, (0, "content"))]


@pytest.mark.parametrize("odd", [[], {}, ["user"], {"a": "b"}])
@pytest.mark.parametrize("where", ["role", "type"])
def test_values_of_other_types_in_place_of_names_are_accepted(odd: Any, where: str) -> None:
    if where == "role":
        assert sent({"role": odd, "content": "hello"}) == [({"role": "user", "content": "hello"}, (0, "content"))]
    else:
        assert [path for _, path in sent({"role": "user", "content": [{"type": odd, "text": "hello"}]})] == [
            (0, "content", 0, "text")
        ]


CALLS = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": "b"}'}}]


@pytest.mark.parametrize(
    "more",
    [{"tool_calls": CALLS}, {"function_call": {"name": "f", "arguments": "{}"}}, {"tool_calls": CALLS, "x": "y"}],
)
def test_calls_are_sent_even_without_text(more: dict[str, Any]) -> None:
    absences: list[dict[str, Any]] = [{"content": None}, {}, {"content": []}, {"content": 5}]
    for absent in absences:
        assert sent({"role": "assistant", **absent, **more}) == [({"role": "assistant", "content": None, **more}, None)]
    message = {"role": "assistant", "content": "", **more}
    assert sent(message) == [(message, None)]
    message = {"role": "assistant", "content": "let me see", **more}
    assert sent(message) == [(message, (0, "content"))]
    parts = {**message, "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    assert sent(parts) == [
        ({**message, "content": "a"}, (0, "content", 0, "text")),
        ({**message, "content": "b"}, (0, "content", 1, "text")),
    ]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": ""},
        {"role": "user", "content": None},
        {"role": "user"},
        {"role": "user", "content": []},
        {"role": "user", "content": 5},
        {"role": "user", "content": ["", {"type": "text", "text": ""}]},
        {"role": "assistant", "content": None, "tool_calls": [], "function_call": None},
        {"role": "assistant", "content": "", "tool_calls": None},
        {},
    ],
)
def test_messages_without_text_are_not_sent(message: Any) -> None:
    assert sent(message) == []


@pytest.mark.parametrize("message", [None, 5, [], [{"role": "user", "content": "a"}]])
def test_values_that_are_not_messages_are_unreadable(message: Any) -> None:
    with pytest.raises(MalformedBody):
        sent(message)


def test_each_part_is_a_message() -> None:
    message = {
        "role": "user",
        "name": "n",
        "content": [
            {"type": "text", "text": "a"},
            {"type": "image_url", "image_url": {"url": "https://x/text.png"}, "text": "not sent"},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            {"type": "file", "file": {"file_data": "AAAA", "filename": "x.pdf"}},
            {"type": "video_url", "video_url": {"url": "x"}},
            {"type": "audio_url", "audio_url": {"url": "x"}},
            {"type": "refusal", "refusal": "b"},
            {"text": "c"},
            "d",
            ["e", {"type": "text", "text": "f"}],
            {"type": "new", "x": [{"content": "g"}], "thinking": "h"},
            {"type": "text", "text": None},
            None,
        ],
    }
    own = {"role": "user", "name": "n"}
    assert sent({"role": "system", "content": "first"}, message) == [
        ({"role": "system", "content": "first"}, (0, "content")),
        ({**own, "content": "a"}, (1, "content", 0, "text")),
        ({**own, "content": "b"}, (1, "content", 6, "refusal")),
        ({**own, "content": "c"}, (1, "content", 7, "text")),
        ({**own, "content": "d"}, (1, "content", 8)),
        ({**own, "content": "e"}, (1, "content", 9, 0)),
        ({**own, "content": "f"}, (1, "content", 9, 1, "text")),
        ({**own, "content": "g"}, (1, "content", 10, "x", 0, "content")),
        ({**own, "content": "h"}, (1, "content", 10, "thinking")),
    ]


def test_content_may_be_one_part() -> None:
    assert sent({"role": "user", "content": {"type": "text", "text": "a"}}) == [
        ({"role": "user", "content": "a"}, (0, "content", "text"))
    ]
    assert sent({"role": "user", "content": {"type": "image_url", "text": "a"}}) == []


def test_tool_result_in_parts_keeps_its_call_id() -> None:
    assert sent({"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "a"}]}) == [
        ({"role": "tool", "tool_call_id": "1", "content": "a"}, (0, "content", 0, "text"))
    ]


def test_reasoning_and_refusal_of_an_assistant_are_sent() -> None:
    message = {
        "role": "assistant",
        "content": "a",
        "refusal": "b",
        "reasoning": "c",
        "reasoning_content": "d",
        "reasoning_details": [
            {"type": "reasoning.text", "text": "e", "signature": "s"},
            {"type": "reasoning.summary", "summary": "f"},
            {"type": "reasoning.encrypted", "data": "AAAA"},
            None,
        ],
    }
    thought = [
        ("b", ("refusal",)),
        ("c", ("reasoning",)),
        ("d", ("reasoning_content",)),
        ("e", ("reasoning_details", 0, "text")),
        ("f", ("reasoning_details", 1, "summary")),
    ]
    assert sent(message) == [(message, (0, "content"))] + [
        ({"role": "assistant", "content": text}, (0, *path)) for text, path in thought
    ]
    # Signed reasoning can be judged but not changed: its provider would refuse it.
    fixed = [
        prompt.leaf.text
        for prompt in CHAT.prompts(document({"messages": [message]}), tools=False)
        if prompt.leaf and prompt.leaf.fixed
    ]
    assert fixed == ["e"]


def test_reasoning_of_other_types_is_accepted() -> None:
    message = {"role": "assistant", "refusal": "", "reasoning": {"text": "a", "x": 1}, "reasoning_content": 5}
    assert sent({**message, "reasoning_details": {"text": "no list"}}) == [
        ({"role": "assistant", "content": "a"}, (0, "reasoning", "text"))
    ]


def test_reasoning_may_be_an_array() -> None:
    assert [path for _, path in sent({"role": "assistant", "reasoning": ["a"], "refusal": ["b"]})] == [
        (0, "refusal", 0),
        (0, "reasoning", 0),
    ]


def test_messages_may_be_strings() -> None:
    assert prompts({"messages": "a"}) == [({"role": "user", "content": "a"}, ("messages",))]
    assert sent("a", {"role": "user", "content": "b"}) == [
        ({"role": "user", "content": "a"}, (0,)),
        ({"role": "user", "content": "b"}, (1, "content")),
    ]


@pytest.mark.parametrize("messages", [{}, {"role": "user", "content": "a"}, 5, True])
def test_messages_that_are_not_a_list_are_unreadable(messages: Any) -> None:
    with pytest.raises(MalformedBody):
        prompts({"messages": messages})


@pytest.mark.parametrize("body", [{}, {"messages": None}, {"messages": []}, [], '"text"', 5, None])
def test_request_may_have_no_messages(body: Any) -> None:
    assert prompts(body) == []


# -- requests: the rest ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("a", [("a", ())]),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], [("a", (0, "text")), ("b", (1, "text"))]),
        ("", []),
        (None, []),
    ],
)
def test_predicted_output_is_sent(content: Any, found: list[tuple[str, Path]]) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "prediction": {"type": "content", "content": content}}
    assert prompts(body)[1:] == [
        ({"role": "user", "content": text}, ("prediction", "content", *path)) for text, path in found
    ]


@pytest.mark.parametrize("prediction", [None, "a", ["a"], 5, {}])
def test_prediction_of_another_type_is_accepted(prediction: Any) -> None:
    assert prompts({"prediction": prediction}) == []


def test_definitions_are_inspected_only_with_tools() -> None:
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "tools": [
            {
                "type": "function",
                "function": {"name": "f", "description": "d", "parameters": {"type": "object", "n": 1}},
            }
        ],
        "functions": [{"name": "g"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "strict": True}},
        "tool_choice": "auto",
    }
    message = ({"role": "user", "content": "x"}, ("messages", 0, "content"))
    assert prompts(body) == [message]
    function: Path = ("tools", 0, "function")
    assert prompts(body, tools=True) == [
        message,
        *(
            ({"role": "system", "content": text}, path)
            for text, path in (
                ("function", ("tools", 0, "type")),
                ("f", (*function, "name")),
                ("d", (*function, "description")),
                ("object", (*function, "parameters", "type")),
                ("g", ("functions", 0, "name")),
                ("json_schema", ("response_format", "type")),
                ("s", ("response_format", "json_schema", "name")),
            )
        ),
    ]
    assert prompts({"tools": None, "functions": "", "response_format": 5}, tools=True) == []


def test_metadata_and_options_are_not_sent() -> None:
    body = {"model": "m", "user": "u", "metadata": {"content": "c"}, "stop": ["s"], "tool_choice": {"text": "t"}}
    assert prompts(body) == prompts(body, tools=True) == []


@pytest.mark.parametrize(
    "text",
    [
        '{"messages":[],"messages":[]}',
        '{"model":"a","model":"b","messages":[]}',
        '{"messages":[{"role":"user","content":"a","content":"b"}]}',
        '{"messages":[{"role":"user","role":"system","content":"a"}]}',
        '{"messages":[{"role":"user","content":[{"text":"a","text":"b"}]}]}',
        '{"messages":[{"role":"user","content":[[{"text":"a","text":"b"}]]}]}',
        '{"messages":[{"role":"user","content":{"text":"a","text":"b"}}]}',
        '{"messages":[{"role":"assistant","reasoning":{"text":"a","text":"b"}}]}',
        '{"messages":[{"role":"assistant","reasoning_details":[{"text":"a","text":"b"}]}]}',
        '{"prediction":{"content":"a","content":"b"}}',
        '{"prediction":{"content":[{"text":"a","text":"b"}]}}',
    ],
)
def test_request_with_repeated_keys_is_unreadable(text: str) -> None:
    with pytest.raises(MalformedBody):
        prompts(text)


# -- whole answers -----------------------------------------------------------------------------------------------


def test_every_text_of_every_choice_is_found() -> None:
    message = {
        "role": "assistant",
        "content": "a",
        "refusal": "b",
        "reasoning": "c",
        "reasoning_content": "d",
        "reasoning_details": [{"text": "e"}, {"summary": "f", "text": "g"}],
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "n", "arguments": '{"h": 1}'}},
            {"id": "2", "type": "custom", "custom": {"name": "n", "input": "i"}},
        ],
        "function_call": {"name": "n", "arguments": '{"j": 1}'},
        "audio": {"id": "1", "data": "AAAA", "transcript": "k"},
        "annotations": [{"type": "url_citation", "url_citation": {"title": "x"}}],
    }
    second = {"index": 1, "message": {"role": "assistant", "content": [{"type": "text", "text": "m"}, "n"]}}
    texts = {
        ("message", "content"): "a",
        ("message", "refusal"): "b",
        ("message", "reasoning"): "c",
        ("message", "reasoning_content"): "d",
        ("message", "reasoning_details", 0, "text"): "e",
        ("message", "reasoning_details", 1, "text"): "g",
        ("message", "reasoning_details", 1, "summary"): "f",
        ("message", "tool_calls", 0, "function", "arguments"): '{"h": 1}',
        ("message", "tool_calls", 1, "custom", "input"): "i",
        ("message", "function_call", "arguments"): '{"j": 1}',
        ("message", "audio", "transcript"): "k",
        ("text",): "l",
    }
    assert answered({"index": 0, "message": message, "text": "l", "finish_reason": "stop"}, second) == {
        **{(0, *path): text for path, text in texts.items()},
        (1, "message", "content", 0, "text"): "m",
        (1, "message", "content", 1): "n",
    }


def test_arguments_are_marked_as_json() -> None:
    calls = [{"function": {"arguments": "{}"}}, {"custom": {"input": "{}"}}]
    leaves = leaves_of(
        {"choices": [{"message": {"content": "{}", "tool_calls": calls, "function_call": {"arguments": "{}"}}}]},
        streamed=False,
    )
    assert [leaf.path[3:] for leaf in leaves if leaf.is_json] == [
        ("tool_calls", 0, "function", "arguments"),
        ("function_call", "arguments"),
    ]


def test_transcript_cannot_be_rewritten() -> None:
    """The audio would still say it."""
    leaves = leaves_of({"choices": [{"message": {"content": "a", "audio": {"transcript": "b"}}}]}, streamed=False)
    assert [(leaf.text, leaf.fixed) for leaf in leaves] == [("a", False), ("b", True)]


def test_rewritten_reasoning_loses_its_signature() -> None:
    details = [{"text": "a", "summary": "b", "signature": "s"}, {"text": "c", "signature": None}, {"text": "d"}]
    for key in ("message", "delta"):
        body = {"choices": [{key: {"reasoning_details": details}}]}
        seal = ("choices", 0, key, "reasoning_details", 0, "signature")
        leaves = leaves_of(body, streamed=key == "delta")
        assert [(leaf.text, leaf.emptied, leaf.fixed) for leaf in leaves] == [
            ("a", (seal,), False),
            ("b", (seal,), False),
            ("c", (), False),
            ("d", (), False),
        ]


@pytest.mark.parametrize("key", ["message", "delta"])
def test_rewrite_removes_the_logprobs(key: str) -> None:
    message = {"content": "a", "refusal": "b", "reasoning_details": [{"text": "c"}]}
    parts = {"content": [{"text": "e"}]}
    choices = [
        {key: message, "text": "d", "logprobs": {"content": [{"token": "a"}]}},
        {key: message, "logprobs": None},
        {key: message},
        {key: parts, "logprobs": {"content": []}},
    ]
    leaves = leaves_of({"choices": choices}, streamed=key == "delta")
    assert [(leaf.path[1], leaf.text) for leaf in leaves if leaf.nulled] == [
        *((0, text) for text in "abcd"),
        (3, "e"),
    ]
    assert all(leaf.nulled == (("choices", leaf.path[1], "logprobs"),) for leaf in leaves if leaf.nulled)


@pytest.mark.parametrize("call", [{"tool_calls": CALLS}, {"function_call": {"arguments": "{}"}}])
def test_rewrite_of_arguments_removes_the_logprobs(call: dict[str, Any]) -> None:
    for key in ("message", "delta"):
        body = {"choices": [{key: call, "logprobs": {"content": [{"token": "secret"}]}}]}
        (leaf,) = leaves_of(body, streamed=key == "delta")
        assert leaf.nulled == (("choices", 0, "logprobs"),)


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
        {"message": {"content": 5, "refusal": 5, "tool_calls": 5, "function_call": 5, "audio": 5}, "text": 5},
        {"message": {"tool_calls": [None, {}, {"function": None}, {"function": {"arguments": ""}}]}},
        {"message": {"tool_calls": [{"function": {"arguments": None}}, {"custom": {"input": 5}}]}},
        {"message": {"function_call": {"name": "f", "arguments": ""}, "reasoning_details": [{}, None, {"text": ""}]}},
        {"message": {"content": [{"type": "image_url", "image_url": {"url": "x"}}]}},
        {"finish_reason": "stop", "logprobs": {"content": [{"token": "a"}]}},
    ],
)
def test_choices_without_text_yield_none(choice: Any) -> None:
    assert answered(choice) == {}
    assert streamed({"delta": choice.get("message"), **choice} if isinstance(choice, dict) else choice) == []


@pytest.mark.parametrize(
    "body",
    [
        {"choices": None, "output": [{"content": [{"type": "output_text", "text": "a"}]}]},
        {"choices": {"0": {"message": {"content": "a"}}}},
        {"message": {"content": "a"}},
        {"error": {"message": "not read", "text": "a"}},
        [{"content": "a"}],
        {"delta": "a"},
    ],
)
def test_answers_of_another_shape_are_searched(body: Any) -> None:
    for is_streamed in (False, True):
        (leaf,) = leaves_of(body, streamed=is_streamed)
        assert (leaf.text, leaf.index, leaf.place) == ("a", None, leaf.path)
    assert not CHAT.is_submitted_whole(document(body))


@pytest.mark.parametrize("body", [{}, [], None, 5, {"choices": []}, {"error": {"message": "x"}}])
def test_answers_without_text_yield_none(body: Any) -> None:
    assert leaves_of(body, streamed=False) == leaves_of(body, streamed=True) == []


@pytest.mark.parametrize(
    "choice",
    [
        '{"index":0,"index":1,"KEY":{"content":"a"}}',
        '{"KEY":{"content":"a"},"KEY":{"content":"b"}}',
        '{"KEY":{"content":"a","content":"b"}}',
        '{"KEY":{"content":[{"text":"a","text":"b"}]}}',
        '{"KEY":{"refusal":"a","refusal":"b"}}',
        '{"KEY":{"reasoning":{"text":"a","text":"b"}}}',
        '{"KEY":{"reasoning_details":[{"text":"a","text":"b"}]}}',
        '{"KEY":{"tool_calls":[{"function":{"arguments":"a","arguments":"b"}}]}}',
        '{"KEY":{"tool_calls":[{"function":{},"function":{}}]}}',
        '{"KEY":{"function_call":{"arguments":"a","arguments":"b"}}}',
        '{"KEY":{"audio":{"transcript":"a","transcript":"b"}}}',
    ],
)
def test_answer_with_repeated_keys_is_unreadable(choice: str) -> None:
    for key, is_streamed in (("message", False), ("delta", True)):
        with pytest.raises(MalformedBody):
            leaves_of('{"choices":[' + choice.replace("KEY", key) + "]}", streamed=is_streamed)
    with pytest.raises(MalformedBody):
        leaves_of('{"choices":[],"choices":[]}', streamed=True)
    with pytest.raises(MalformedBody):
        leaves_of('{"error":{"text":"a","text":"b"}}', streamed=False)


def test_earlier_custom_call_is_sent_as_a_text() -> None:
    call = {"id": "1", "type": "custom", "custom": {"name": "f", "input": "secret"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    prompts = CHAT.prompts(document({"messages": [message]}), tools=False)
    assert [p.leaf and p.leaf.text for p in prompts] == [None, "secret"]


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "a"},
        {"text": "a"},
        {"documents": [{"text": "a"}]},
        {"data_sources": [{"parameters": {"role_information": "a"}}]},
        {"plugins": [{"search_prompt": "a"}]},
    ],
)
def test_texts_of_other_servers_are_found(body: Any) -> None:
    (found,) = CHAT.prompts(document({"model": "m", **body}), tools=False)
    assert found.message == {"role": "user", "content": "a"}


def test_repeated_keys_in_earlier_calls_are_refused() -> None:
    call = '{"function":{"arguments":"{}","arguments":"secret"}}'
    text = '{"messages":[{"role":"assistant","content":null,"tool_calls":[' + call + "]}]}"
    with pytest.raises(MalformedBody):
        CHAT.prompts(Document(text), tools=False)


def test_other_fields_of_a_message_are_searched() -> None:
    (leaf,) = leaves_of({"choices": [{"delta": {"thinking_blocks": [{"thinking": "hm"}]}}]}, streamed=True)
    assert (leaf.text, leaf.place) == ("hm", (0, "thinking_blocks", 0, "thinking"))


@pytest.mark.parametrize(
    "choice", ["a", {"message": "a"}, {"message": {"tool_calls": [{"function": {"arguments": {"x": "a"}}}]}}]
)
def test_texts_in_other_places_of_a_choice_are_found(choice: Any) -> None:
    (leaf,) = CHAT.answers(document({"choices": [choice]}))
    assert "a" in leaf.text


# -- chunks of a stream ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 1, 7, MAX_CHOICE])
def test_content_has_the_index_of_its_choice(index: int) -> None:
    assert streamed({"index": index, "delta": {"content": "a"}}) == [
        Leaf(("choices", 0, "delta", "content"), "a", place=(index, "content"), index=index)
    ]


def test_missing_index_is_0() -> None:
    for choice in ({"delta": {"content": "a"}}, {"index": None, "delta": {"content": "a"}}):
        (leaf,) = streamed(choice)
        assert (leaf.place, leaf.index) == ((0, "content"), 0)


@pytest.mark.parametrize("index", [-1, MAX_CHOICE + 1, 10**30, "0", True, False])
def test_invalid_index_is_not_used_for_aim(index: Any) -> None:
    (leaf,) = streamed({"index": index, "delta": {"content": "a"}})
    assert (leaf.index, leaf.place) == (None, (index, "content"))


@pytest.mark.parametrize("index", [0.5, [], {}, [0], {"a": 1}])
def test_index_of_another_type_is_0(index: Any) -> None:
    (leaf,) = streamed({"index": index, "delta": {"content": "a"}})
    assert leaf.place == (0, "content")


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
    places = {(leaf.place, leaf.text) for leaf in again}
    assert places == {(leaf.place, leaf.text) for leaf in first if leaf.path[1] == 1 and leaf.text != "h"}


def test_call_without_an_index_is_identified_by_its_position() -> None:
    calls = [{"function": {"arguments": "a"}}, {"function": {"arguments": "b"}}]
    numbered = [{"index": position, **call} for position, call in enumerate(calls)]
    assert [leaf.place for leaf in streamed({"delta": {"tool_calls": calls}})] == [
        leaf.place for leaf in streamed({"delta": {"tool_calls": numbered}})
    ]


def test_calls_with_indices_of_other_types_are_kept_apart() -> None:
    odd: list[Any] = [None, [], {"a": 1}, "1", 1.5]
    calls = [{"index": each, "function": {"arguments": "a"}} for each in odd]
    assert len({leaf.place for leaf in streamed({"delta": {"tool_calls": calls}})}) == len(calls)


def test_content_may_be_a_list() -> None:
    choice = {
        "index": 2,
        "delta": {"content": [{"type": "text", "text": "a"}, "b", {"type": "thinking", "thinking": [{"text": "c"}]}]},
    }
    assert [(leaf.text, leaf.place, leaf.index) for leaf in streamed(choice)] == [
        ("a", (2, "content", 0, "text"), None),
        ("b", (2, "content", 1), None),
        ("c", (2, "content", 2, "thinking", 0, "text"), None),
    ]


def test_reasoning_may_be_an_object() -> None:
    choice = {"index": 2, "delta": {"reasoning": {"text": "a"}}, "logprobs": {}}
    assert streamed(choice) == [
        Leaf(
            ("choices", 0, "delta", "reasoning", "text"),
            "a",
            place=(2, "reasoning", "text"),
            nulled=(("choices", 0, "logprobs"),),
        )
    ]


def test_message_beside_a_delta_is_a_separate_text() -> None:
    leaves = streamed({"index": 0, "delta": {"content": "c"}, "message": {"role": "assistant", "content": "a b c"}})
    assert [leaf.text for leaf in leaves] == ["c", "a b c"]


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


def test_event_with_repeated_keys_is_unreadable() -> None:
    with pytest.raises(MalformedBody):
        CHAT.is_submitted_whole(Document('{"choices":[{"delta":{"content":"a","content":"b"}}]}'))


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
    tools = [prompt.message["content"] for prompt in CHAT.prompts(read, tools=True)[len(found) :]]
    assert ("get_current_weather" in tools) is ("tools" in read.root)
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
    assert {leaf.place for leaf in leaves} <= {(0, "content")}
    assert {leaf.index for leaf in leaves} <= {0}
    assert "".join(leaf.text for leaf in leaves).startswith(expected)
    assert bool(leaves) is bool(expected)
