"""OpenAI's Responses API: input items, output items, and a stream that sends each text several times."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.content.document import Document
from extproc.core.dialects.openai_responses import OpenAIResponses
from extproc.core.errors import MalformedBody
from extproc.core.redaction import RedactionError
from extproc.core.refusal import UNAVAILABLE, blocked
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

RESPONSES = OpenAIResponses()
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAX+XDSwAAAABJRU5ErkJggg=="
IMAGE = f"data:image/png;base64,{PNG}"
OPAQUE: list[dict[str, Any]] = [
    {"type": "input_image", "image_url": IMAGE, "detail": "auto"},
    {"type": "input_file", "file_data": IMAGE, "file_id": "file-1"},
    {"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}},
    {"type": "computer_screenshot", "image_url": IMAGE},
]
ANNOTATION = {"type": "url_citation", "url": "https://example.com", "title": "hi t", "start_index": 0, "end_index": 1}


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        ({"input": "hi"}, ["user: hi"]),
        ({"instructions": "hi b", "input": "hi a", "metadata": {"c_id": "d"}}, ["system: hi b", "user: hi a"]),
        ({"metadata": {"ssn": "123-45-6789"}}, ["user: 123-45-6789"]),
        ({"instructions": [{"role": "developer", "content": "hi"}]}, ["system: hi"]),
        ({"instructions": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]}, ["system: hi"]),
        ({"input": ["hi a", "", "hi b"]}, ["user: hi a", "user: hi b"]),
        ({"input": ""}, []),
        ({"input": None}, []),
        ({"input": []}, []),
        ({}, []),
        ({"items": [{"role": "assistant", "content": "hi"}]}, ["assistant: hi"]),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, ["assistant: hi"]),
        ({"previous_input_messages": [{"author": {"role": "user"}, "content": [{"text": "hi"}]}]}, ["user: hi"]),
        (
            {
                "prompt": {
                    "id": "p",
                    "version": "2",
                    "variables": {"a": "hi a", "c": {"type": "input_text", "text": "hi"}},
                }
            },
            ["user: hi a", "user: hi"],
        ),
        ({"context_management": [{"type": "compaction", "instructions": "hi"}]}, ["user: hi"]),
        (
            {
                "model": "m",
                "previous_response_id": "resp_1",
                "conversation": "conv_1",
                "user": "u",
                "safety_identifier": "s",
                "include": ["reasoning.encrypted_content"],
                "prompt_cache_options": {"mode": "explicit", "ttl": "30m"},
                "reasoning": {"effort": "low", "summary": "auto", "context": "all_turns"},
                "text": {"format": {"type": "text"}, "verbosity": "low"},
                "tool_choice": {"type": "function", "name": "f"},
                "truncation": "auto",
            },
            [],
        ),
        ({"metadata": {"note": "to say hi"}, "invented": "hi"}, ["user: to say hi", "user: hi"]),
    ],
)
def test_texts_of_requests(body: Any, messages: list[str]) -> None:
    assert [f"{role}: {text}" for role, text in asked(RESPONSES, body)] == messages
    assert redacted_request(RESPONSES, body) == masked(body)


@pytest.mark.parametrize(
    ("item", "messages"),
    [
        ({"role": "user", "content": "hi"}, ["user: hi"]),
        ({"type": "message", "role": "system", "content": "hi"}, ["system: hi"]),
        ({"type": "message", "role": "assistant", "content": "hi"}, ["assistant: hi"]),
        ({"type": "message", "role": "developer", "content": "hi"}, ["user: hi"]),
        ({"type": "message", "role": ["system"], "content": "hi"}, ["user: hi"]),
        ({"type": "message", "content": "hi"}, ["user: hi"]),
        ({"role": "user", "content": [{"type": "input_text", "text": "hi"}, *OPAQUE]}, ["user: hi"]),
        ({"role": "user", "content": ["hi a", [{"text": "hi b"}]]}, ["user: hi a", "user: hi b"]),
        ({"role": "user", "content": {"text": "hi"}}, ["user: hi"]),
        ({"role": "user", "content": [{"type": ["input_image"], "text": "hi"}]}, ["user: hi"]),
        (
            {"role": "user", "content": [{"type": "input_file", "filename": "hi.pdf", "file_data": IMAGE}]},
            ["user: hi.pdf"],
        ),
        (
            {
                "role": "assistant",
                "content": [{"type": "output_text", "text": "hi a"}, {"type": "refusal", "refusal": "hi b"}],
            },
            ["assistant: hi a", "assistant: hi b"],
        ),
        ({"role": "user", "content": "hi a", "reasoning": "hi b"}, ["user: hi a", "user: hi b"]),
        (
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hi a"}], "content": [{"text": "hi b"}]},
            ["assistant: hi a", "assistant: hi b"],
        ),
        (
            {"type": "function_call", "name": "f", "call_id": "c", "arguments": '{"a":"hi"}', "status": "completed"},
            ['assistant: {"a":"hi"}'],
        ),
        ({"type": "function_call", "arguments": {"a": "hi"}}, ['assistant: {"a": "hi"}']),
        ({"type": "function_call", "name": "to say hi", "arguments": ""}, ["assistant: to say hi"]),
        ({"type": "custom_tool_call", "name": "f", "call_id": "c", "input": "hi"}, ["assistant: hi"]),
        ({"type": "function_call_output", "call_id": "c", "output": "hi"}, ["tool c: hi"]),
        ({"type": "function_call_output", "output": "hi"}, ["user: hi"]),
        (
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "hi"}, *OPAQUE]},
            ["tool c: hi"],
        ),
        ({"type": "custom_tool_call_output", "call_id": "c", "output": "hi"}, ["tool c: hi"]),
        ({"type": "computer_call_output", "call_id": "c", "output": OPAQUE[3]}, []),
        ({"type": "computer_call", "action": {"type": "type", "text": "hi"}}, ["assistant: hi"]),
        ({"type": "computer_call", "actions": [{"type": "keypress", "keys": ["hi"]}]}, ["assistant: hi"]),
        (
            {"type": "computer_call", "pending_safety_checks": [{"id": "i", "code": "hi c", "message": "hi a"}]},
            ["assistant: hi c", "assistant: hi a"],
        ),
        (
            {
                "type": "web_search_call",
                "action": {"type": "search", "query": "hi a", "queries": ["hi b"]},
                "id": "ws_1",
            },
            ["assistant: hi a", "assistant: hi b"],
        ),
        (
            {"type": "web_search_call", "action": {"type": "find_in_page", "pattern": "hi", "url": "https://a"}},
            ["assistant: hi"],
        ),
        (
            {"type": "file_search_call", "queries": ["hi"], "results": [{"text": "hi b", "attributes": {"a": "hi c"}}]},
            ["assistant: hi", "assistant: hi b", "assistant: hi c"],
        ),
        (
            {"type": "code_interpreter_call", "code": "hi a", "outputs": [{"type": "logs", "logs": "hi b"}]},
            ["assistant: hi a", "assistant: hi b"],
        ),
        (
            {"type": "local_shell_call", "action": {"type": "exec", "command": ["hi a"], "env": {"K": "hi b"}}},
            ["assistant: hi a", "assistant: hi b"],
        ),
        ({"type": "local_shell_call_output", "output": "hi"}, ["user: hi"]),
        ({"type": "shell_call", "action": {"commands": ["hi a", "hi b"]}}, ["assistant: hi a\nhi b"]),
        (
            {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "hi a", "stderr": "hi b"}]},
            ["tool c: hi a", "tool c: hi b"],
        ),
        (
            {"type": "apply_patch_call", "operation": {"type": "update_file", "path": "hi a", "diff": "hi b"}},
            ["assistant: hi a", "assistant: hi b"],
        ),
        (
            {"type": "mcp_call", "arguments": '["hi"]', "output": "hi a", "error": "hi b"},
            ['assistant: ["hi"]', "assistant: hi a", "assistant: hi b"],
        ),
        ({"type": "mcp_call", "error": {"type": "mcp", "content": [{"text": "hi"}]}}, ["assistant: hi"]),
        ({"type": "mcp_approval_request", "arguments": '{"a":"hi"}'}, ['assistant: {"a":"hi"}']),
        ({"type": "mcp_approval_response", "reason": "hi", "approve": False}, ["user: hi"]),
        ({"type": "tool_search_call", "arguments": {"goal": "hi"}}, ['assistant: {"goal": "hi"}']),
        ({"type": "image_generation_call", "result": PNG, "revised_prompt": "hi"}, ["assistant: hi"]),
        ({"type": "image_generation_call", "prompt": "hi", "action": "generate"}, ["assistant: hi"]),
        ({"type": "program", "code": "hi", "fingerprint": "ZnA="}, ["user: hi"]),
        ({"type": "program_output", "result": "hi"}, ["user: hi"]),
        ({"type": "compaction", "encrypted_content": "QUJD" * 900}, []),
        ({"type": "item_reference", "id": "msg_1"}, []),
        ({"id": "msg_1"}, []),
        ({"type": "mcp_list_tools", "server_label": "s", "tools": [{"name": "f"}]}, []),
        ({"type": "from_next_year", "inner": {"text": "hi", "n": "hi"}}, ["user: hi", "user: hi"]),
    ],
)
def test_texts_of_input_items(item: Any, messages: list[str]) -> None:
    body = {"input": [item]}
    assert [
        f"{prompt.message['role']} {prompt.message.get('tool_call_id', '')}".strip() + f": {prompt.message['content']}"
        for prompt in prompts(RESPONSES, body)
    ] == messages
    assert redacted_request(RESPONSES, body) == masked(body)


@pytest.mark.parametrize(
    "body",
    [
        {"input": 7},
        {"input": [7]},
        {"input": True},
        {"input": [{"role": "user", "content": [1, 2]}]},
        {"Input": "a"},
        {"input": [{"role": "user", "Content": "a"}]},
        {"prompt_token_ids": [1]},
        [],
        "7",
    ],
)
def test_request_that_cannot_be_judged_is_unreadable(body: Any) -> None:
    with pytest.raises(MalformedBody):
        asked(RESPONSES, body)


def test_input_may_be_one_item() -> None:
    assert asked(RESPONSES, {"input": {"role": "assistant", "content": "hi"}}) == [("assistant", "hi")]


@pytest.mark.parametrize("kind", ["reasoning", "compaction"])
def test_reasoning_with_encrypted_content_is_inspected_and_fixed(kind: str) -> None:
    summary = {"type": kind, "summary": [{"type": "summary_text", "text": "hi"}]}
    for item, is_fixed in (
        ({**summary, "encrypted_content": "QUJD"}, True),
        ({**summary, "encrypted_content": None}, False),
        (summary, False),
    ):
        body = {"input": [item]}
        assert [text for _, text in asked(RESPONSES, body)] == ["hi"]
        assert fixed(prompt.leaf for prompt in prompts(RESPONSES, body)) == ["hi"] * is_fixed
        assert is_redactable(RESPONSES, body) is not is_fixed


def test_definitions_are_inspected_only_with_tools() -> None:
    body = {
        "input": [{"type": "mcp_list_tools", "tools": [{"name": "e", "description": "hi a"}]}, "hi"],
        "tools": [{"type": "function", "name": "f", "description": "hi b"}, {"type": "web_search"}],
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"description": "hi c"}}},
    }
    assert asked(RESPONSES, body) == [("user", "hi")]
    assert asked(RESPONSES, body, tools=True) == [
        ("system", "hi a"),
        ("system", "hi b"),
        ("system", "hi c"),
        ("user", "hi"),
    ]
    assert redacted_request(RESPONSES, body, tools=True) == masked(body)


# -- whole answers -------------------------------------------------------------------------------------------------

ITEMS: list[tuple[Any, list[str], list[str]]] = [
    (
        {
            "type": "message",
            "role": "assistant",
            "id": "msg_1",
            "status": "completed",
            "phase": "final_answer",
            "content": [{"type": "output_text", "text": "hi a"}, {"type": "refusal", "refusal": "hi b"}],
        },
        ["hi a", "hi b"],
        [],
    ),
    ({"content": [{"type": "output_text", "text": "hi a", "annotations": [ANNOTATION]}]}, ["hi a"], ["hi t"]),
    ({"content": [{"text": "", "annotations": [{"type": "file_citation", "filename": "hi"}]}]}, [], ["hi"]),
    ({"type": "message", "content": ["hi", "", None, {"type": "output_image", "text": "hi b"}]}, ["hi", "hi b"], []),
    ({"type": "message", "content": "hi"}, ["hi"], []),
    ({"type": "message", "content": [{"type": ["x"], "text": "hi"}]}, ["hi"], []),
    ({"type": "function_call", "name": "f", "call_id": "c", "arguments": '{"a":"hi"}'}, ['{"a":"hi"}'], []),
    ({"type": "tool_search_call", "arguments": {"goal": "hi"}}, ['{"goal": "hi"}'], []),
    ({"type": "custom_tool_call", "input": "hi"}, ["hi"], []),
    ({"type": "from_next_year", "input": [{"text": "hi"}]}, [], ["hi"]),
    ({"type": "reasoning", "summary": [{"text": "hi a"}], "content": [{"text": "hi b"}]}, ["hi a", "hi b"], []),
    ({"type": "reasoning", "summary": [], "encrypted_content": "QUJD"}, [], []),
    ({"type": "code_interpreter_call", "code": "hi a", "outputs": [{"logs": "hi b"}]}, ["hi a"], ["hi b"]),
    ({"type": "web_search_call", "action": {"type": "search", "query": "hi"}}, [], ["hi"]),
    ({"type": "shell_call", "action": {"commands": ["hi"]}}, [], ["hi"]),
    ({"type": "shell_call_output", "output": [{"stdout": "hi a", "stderr": "hi b"}]}, [], ["hi a", "hi b"]),
    ({"type": "local_shell_call", "action": {"command": ["hi"], "env": {"K": "hi b"}}}, [], ["hi", "hi b"]),
    ({"type": "apply_patch_call", "operation": {"diff": "hi a", "path": "hi b"}}, [], ["hi a", "hi b"]),
    ({"type": "mcp_call", "arguments": '{"a":"hi"}', "output": "hi b", "error": None}, ['{"a":"hi"}', "hi b"], []),
    ({"type": "image_generation_call", "result": PNG, "revised_prompt": "hi", "action": "generate"}, [], ["hi"]),
    ({"type": "mcp_list_tools", "tools": [{"name": "f", "description": "hi"}]}, [], ["hi"]),
    ({"type": "program_output", "result": "hi"}, [], ["hi"]),
    ("hi", ["hi"], []),
    (None, [], []),
]


@pytest.mark.parametrize(("item", "named", "unnamed"), ITEMS)
def test_texts_of_output_items(item: Any, named: list[str], unnamed: list[str]) -> None:
    for body in (
        {"id": "resp_1", "object": "response", "output": [{"type": "reasoning"}, item], "status": "completed"},
        {"object": "list", "data": [item]},
    ):
        assert said(RESPONSES, body) == named + (["\n".join(unnamed)] if unnamed else [])
        assert redacted_answer(RESPONSES, body) == masked(body)


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ({"output": [], "output_text": "hi"}, ["hi"]),
        ({"output": "hi"}, ["hi"]),
        ({"output": {"text": "hi"}}, ["hi"]),
        ({"choices": [{"message": {"content": "hi"}}]}, ["hi"]),
        ([{"text": "hi"}], ["hi"]),
        ({"error": {"message": "hi", "code": "c", "param": "p", "type": "t"}}, ["hi"]),
        (
            {"output": [{"content": "hi"}], "instructions": "hi b", "tools": [{"description": "hi c"}]},
            ["hi", "hi b\nhi c"],
        ),
        ({"output": [], "output_messages": [{"message": "hi"}]}, ["hi"]),
    ],
)
def test_texts_of_other_answers(body: Any, texts: list[str]) -> None:
    assert said(RESPONSES, body) == texts
    assert redacted_answer(RESPONSES, body) == masked(body)


def test_facts_of_an_answer_are_no_texts() -> None:
    body = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "incomplete",
        "background": False,
        "billing": {"payer": "developer"},
        "content_filters": [{"source_type": "prompt", "content_filter_results": {"hate": {"severity": "safe"}}}],
        "conversation": {"id": "conv_1"},
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"},
        "instructions": None,
        "metadata": {"a": "b"},
        "model": "gpt-5",
        "output": [
            {"id": "msg_1", "type": "message", "content": [{"type": "output_text", "text": "hi", "logprobs": []}]}
        ],
        "prompt_cache_key": "k",
        "reasoning": {"effort": "low", "summary": "detailed", "context": "all_turns", "mode": "standard"},
        "safety_identifier": "s",
        "service_tier": "default",
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object", "required": ["city"]}}],
        "truncation": "disabled",
        "usage": {"input_tokens": 1},
    }
    assert said(RESPONSES, body) == ["hi"]
    assert heard(RESPONSES, {"type": "response.completed", "response": body}) == ["=hi"]


def test_rewritten_part_loses_its_logprobs() -> None:
    logprobs = [{"token": "hi", "bytes": [1], "top_logprobs": [{"token": "hi"}]}]
    other = {"type": "output_text", "text": "a", "logprobs": [{"token": "a"}]}
    content = [{"type": "output_text", "text": "hi", "logprobs": logprobs}, other]
    after = redacted_answer(RESPONSES, {"output": [{"type": "message", "content": content}]})
    assert after["output"][0]["content"] == [{"type": "output_text", "text": "[X]", "logprobs": None}, other]


def test_tokens_of_all_messages_go_with_any_text() -> None:
    messages = [{"author": {"role": "assistant"}, "message": "a", "tokens": [1, 2]}]
    body = {"output": [{"content": [{"text": "hi"}]}], "output_messages": messages, "input_messages": messages}
    after = redacted_answer(RESPONSES, body)
    assert after["output_messages"] == after["input_messages"] == [{**messages[0], "tokens": None}]
    assert heard(RESPONSES, {"type": "response.completed", "response": body}) == ["=hi", "=a", "#", "=a", "#"]
    leaves = RESPONSES.deltas(document({"type": "response.completed", "response": body}))
    assert [leaf.unit for leaf in leaves if leaf.is_everywhere] == [None, None]


def test_parts_with_tokens_share_the_tokens_of_all_messages() -> None:
    content = [{"text": "hi", "logprobs": [{"token": "hi"}]}]
    leaves = answers(RESPONSES, {"output": [{"content": content}] * 2, "output_messages": [{"tokens": [1]}] * 3})
    first, second = (leaf for leaf in leaves if leaf.text == "hi")
    assert len(first.nulled_everywhere) == 3
    assert first.nulled_everywhere is second.nulled_everywhere
    assert first.nulled == (("output", 0, "content", 0, "logprobs"),)


def test_transcripts_are_fixed_and_arguments_are_json() -> None:
    spoken = {"output": [{"type": "message", "content": [{"type": "output_audio", "data": PNG, "transcript": "hi"}]}]}
    assert fixed(answers(RESPONSES, spoken)) == said(RESPONSES, spoken) == ["hi"]
    with pytest.raises(RedactionError):
        redacted_answer(RESPONSES, spoken)
    calls = [{"type": "function_call", "arguments": "[1]"}, {"type": "mcp_call", "arguments": "[1]", "output": "a"}]
    assert [leaf.is_json for leaf in answers(RESPONSES, {"output": calls})] == [True, True, False]
    (leaf,) = answers(RESPONSES, {"output": [{"type": "tool_search_call", "arguments": {"a": "b"}}]})
    assert leaf.is_embedded


def test_rewritten_reasoning_loses_its_encrypted_content() -> None:
    body = {"output": [{"type": "reasoning", "summary": [{"text": "hi"}], "encrypted_content": "QUJD"}]}
    after = {"output": [{"type": "reasoning", "summary": [{"text": "[X]"}], "encrypted_content": ""}]}
    assert redacted_answer(RESPONSES, body) == after


# -- streams -------------------------------------------------------------------------------------------------------

INDICES = {"sequence_number": 4, "item_id": "i", "output_index": 2, "content_index": 1, "summary_index": 3}


def event(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, **INDICES, **more}


RUNNING = [
    ("response.output_text", "text", ("content", 1, "text")),
    ("response.refusal", "refusal", ("content", 1, "refusal")),
    ("response.reasoning_text", "text", ("content", 1, "text")),
    ("response.reasoning_summary_text", "text", ("summary", 3, "text")),
    ("response.function_call_arguments", "arguments", ("arguments",)),
    ("response.mcp_call_arguments", "arguments", ("arguments",)),
    ("response.mcp_call.arguments", "arguments", ("arguments",)),
    ("response.custom_tool_call_input", "input", ("input",)),
    ("response.code_interpreter_call_code", "code", ("code",)),
    ("response.code_interpreter_call.code", "code", ("code",)),
    ("response.apply_patch_call_operation_diff", "diff", ("operation", "diff")),
    ("response.shell_call_command", "command", ("action", "commands", 0)),
    ("response.audio.transcript", "transcript", ("transcript",)),
    ("response.audio_transcript", "transcript", ("transcript",)),
]


@pytest.mark.parametrize(("name", "key", "place"), RUNNING)
def test_running_text_and_its_repeat_have_the_same_place(name: str, key: str, place: tuple[Any, ...]) -> None:
    delta, done = event(f"{name}.delta", delta="a"), event(f"{name}.done", **{key: "ab"})
    assert heard(RESPONSES, delta) == ["a"]
    assert heard(RESPONSES, done) == ["=ab"]
    assert heard(RESPONSES, event(f"{name}.delta", delta="")) == []
    assert heard(RESPONSES, event(f"{name}.done", **{key: None})) == []
    assert set(places(RESPONSES, delta, done)) == {("output", 2, *place)}
    (leaf,) = RESPONSES.deltas(document(delta))
    assert leaf.is_json == ("arguments" in name)
    assert leaf.fixed == ("audio" in name)
    # The finished item has the same place, so that a repeat in it is recognised.
    item: Any = "ab"
    for step in reversed(place):
        item = [{"text": ""}] * step + [item] if isinstance(step, int) else {step: item}
    for whole in (
        event("response.output_item.done", item={"type": "x", **item}),
        event("response.completed", response={"output": [{}, {}, {"type": "x", **item}]}),
    ):
        assert places(RESPONSES, whole) == [("output", 2, *place)]
        assert heard(RESPONSES, whole) == ["=ab"]


@pytest.mark.parametrize(
    ("given", "texts", "place"),
    [
        (
            event("response.content_part.done", part={"type": "output_text", "text": "a"}),
            ["=a"],
            ("content", 1, "text"),
        ),
        (
            event("response.content_part.added", part={"type": "refusal", "refusal": "a"}),
            ["=a"],
            ("content", 1, "refusal"),
        ),
        (
            event("response.reasoning_summary_part.done", part={"type": "summary_text", "text": "a"}),
            ["=a"],
            ("summary", 3, "text"),
        ),
        (
            event("response.output_text.annotation.added", annotation_index=0, annotation=ANNOTATION),
            ["=hi t"],
            ("content", 1, "annotations", 0, "title"),
        ),
        (
            event("response.output_text_annotation.added", annotation_index=0, annotation=ANNOTATION),
            ["=hi t"],
            ("content", 1, "annotations", 0, "title"),
        ),
        (
            event("response.shell_call_command.added", command_index=0, command="a"),
            ["=a"],
            ("action", "commands", 0),
        ),
        (event("response.output_item.added", item={"type": "message", "content": []}), [], None),
        (event("response.output_item.added", item={"type": "function_call", "arguments": ""}), [], None),
    ],
)
def test_texts_of_parts_and_items_are_repeats(given: Any, texts: list[str], place: Any) -> None:
    assert heard(RESPONSES, given) == texts
    assert places(RESPONSES, given) == ([("output", 2, *place)] if place else [])


@pytest.mark.parametrize("name", ["created", "queued", "in_progress", "completed", "incomplete", "failed"])
def test_texts_of_the_whole_response_are_repeats(name: str) -> None:
    def of(response: Any) -> list[str]:
        return heard(RESPONSES, {"type": f"response.{name}", "response": response})

    assert of({"id": "resp_1", "output": []}) == []
    assert of({"output": [{"type": "message", "content": [{"text": "a"}]}]}) == ["=a"]
    assert of({"output": "a"}) == of({"text": "a"}) == of({"output_text": "a"}) == ["=a"]
    assert of({"instructions": "i", "tools": [{"name": "f", "description": "d"}]}) == ["=i", "=d"]
    assert of({"output_messages": [{"message": "a"}]}) == ["=a"]
    assert of(None) == []


@pytest.mark.parametrize(
    "name",
    [
        "web_search_call.in_progress",
        "web_search_call.searching",
        "file_search_call.completed",
        "code_interpreter_call.interpreting",
        "image_generation_call.generating",
        "mcp_call.completed",
        "mcp_list_tools.failed",
        "audio.done",
        "compaction.compacting",
    ],
)
def test_events_without_text_yield_none(name: str) -> None:
    assert heard(RESPONSES, event(f"response.{name}", obfuscation="a1B2")) == []


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        (event("response.audio.delta", delta=PNG), []),
        (event("response.output_audio.delta", delta=PNG), []),
        (event("response.audio.delta", delta="hi to all"), ["hi to all"]),
        (event("response.image_caption.delta", delta="hi to all"), ["hi to all"]),
        (event("response.image_generation_call.partial_image", partial_image_b64=PNG, size="1024x1024"), []),
        (event("response.shell_call_output_content.delta", delta={"stdout": "hi a", "stderr": "hi"}), ["hi a", "hi"]),
        (event("response.shell_call_output_content.done", output=[{"stdout": "hi"}]), ["hi"]),
        (event("response.function_call_arguments.done", name="f", arguments="{}"), ["={}"]),
        (event("response.from_next_year.delta", delta="hi"), ["hi"]),
        (event("response.from_next_year.done", arguments="hi", command="hi b"), ["hi", "hi b"]),
        (event("response.output_text.delta", delta={"text": "hi"}), ["hi"]),
        (event("response.output_text.delta", delta=["hi"]), ["hi"]),
        (
            event("response.output_text.delta", delta="hi a", text="hi b", response={"text": "hi c"}),
            ["hi a", "hi b", "hi c"],
        ),
        ({"type": "error", "code": "server_error", "message": "hi", "param": None}, ["hi"]),
        ({"type": "error", "code": 429, "message": "hi", "text": {"a": 1}}, ["hi"]),
        ({"type": "keepalive", "sequence_number": 3}, []),
        ({"delta": "hi"}, ["hi"]),
        ({"type": 7, "text": "hi"}, ["hi"]),
        ([{"text": "hi"}], ["hi"]),
        ({}, []),
    ],
)
def test_texts_of_other_events(given: Any, texts: list[str]) -> None:
    assert heard(RESPONSES, given) == texts
    assert redacted_event(RESPONSES, given) == masked(given)


def test_transcript_in_an_event_is_fixed() -> None:
    given = event("response.output_audio_transcript.delta", delta="hi")
    assert heard(RESPONSES, given) == fixed(RESPONSES.deltas(document(given))) == ["hi"]


def test_unknown_texts_of_two_items_are_kept_apart() -> None:
    first = event("response.from_next_year.delta", delta="a")
    second = first | {"output_index": 5}
    assert len(set(places(RESPONSES, first, second))) == 2
    # A missing or non-numeric index counts as 0.
    assert places(RESPONSES, {"type": "response.output_text.delta", "delta": "a", "output_index": [2]}) == [
        ("output", 0, "content", 0, "text")
    ]


@pytest.mark.parametrize(
    "given",
    [
        event("response.output_text.delta", delta="hi", logprobs=[{"token": "hi"}]),
        event("response.output_text.done", text="hi", logprobs=[{"token": "hi"}]),
        event("response.content_part.done", part={"text": "hi", "logprobs": [{"token": "hi"}]}),
        event("response.output_item.done", item={"content": [{}, {"text": "hi", "logprobs": [{"token": "hi"}]}]}),
        {
            "type": "response.completed",
            "response": {"output": [{}, {}, {"content": [{}, {"text": "hi", "logprobs": [{"token": "hi"}]}]}]},
        },
    ],
)
def test_tokens_have_the_part_of_their_text(given: Any) -> None:
    text, tokens = RESPONSES.deltas(document(given))
    assert text.unit == tokens.unit == ("output", 2, "content", 1)
    assert heard(RESPONSES, given)[1] == "#"


def test_tokens_of_an_event_of_another_api_have_the_unit_of_its_text() -> None:
    given = event("transcript.text.delta", delta="hi", logprobs=[{"token": "hi"}])
    text, tokens = RESPONSES.deltas(document(given))
    assert text.unit == tokens.unit is not None
    _, tokens = RESPONSES.deltas(document(event("transcript.text.delta", delta="hi", __verbose={"tokens": [1]})))
    assert tokens.unit is None


def test_empty_logprobs_are_no_tokens() -> None:
    assert len(RESPONSES.deltas(document(event("response.output_text.delta", delta="a", logprobs=[])))) == 1
    given = event("response.output_text.annotation.added", logprobs=[{"token": "a"}])
    assert [leaf.unit for leaf in RESPONSES.deltas(document(given))] == [
        ("response.output_text.annotation.added", "output", 2)
    ]


@pytest.mark.parametrize("name", ["completed", "incomplete", "failed"])
def test_event_with_the_finished_response_ends_a_stream(name: str) -> None:
    assert RESPONSES.is_final("{}", document({"type": f"response.{name}"}))
    assert not RESPONSES.is_final("{}", document({"type": "response.created"}))
    assert not RESPONSES.is_final("{}", document([]))
    assert RESPONSES.is_final("[DONE]", None)
    assert not RESPONSES.is_final("{}", None)


def test_refusals_have_the_shape_of_the_api() -> None:
    assert json.loads(RESPONSES.refuse(blocked("no"))) == {
        "error": {
            "message": "no",
            "type": "invalid_request_error",
            "param": None,
            "code": "content_policy_violation",
        }
    }
    assert RESPONSES.refuse_stream(UNAVAILABLE, 12) == (
        b'event: error\ndata: {"type": "error", "code": "guardrail_unavailable", '
        b'"message": "The AI security service is unavailable.", "param": null, "sequence_number": 12}\n\n'
    )
    assert RESPONSES.is_repetitive
    assert RESPONSES.streams(document({"stream": True}), "/v1/responses")


def test_code_of_an_error_event_without_a_type_may_be_a_number() -> None:
    document = Document('{"code": 500, "message": "it failed", "param": null}')
    assert [leaf.text for leaf in RESPONSES.deltas(document)] == ["it failed"]


def test_tokens_of_llama_cpp_become_null() -> None:
    verbose = {"completion_probabilities": [{"token": "h"}, {"token": "i"}], "tokens": [1, 2]}
    body = {"output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}], "__verbose": verbose}
    assert redacted_answer(RESPONSES, body) == {**masked(body), "__verbose": dict.fromkeys(verbose)}
