"""OpenAI's Responses API: input items, output items, and a stream that sends each text several times."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.dialects.openai_responses import OpenAIResponses
from extproc.core.errors import MalformedBody
from extproc.core.refusal import UNAVAILABLE, blocked
from tests.fakes.reading import asked, document, dotted, fixed, heard, rewritten, said

RESPONSES = OpenAIResponses()
OPAQUE: list[dict[str, Any]] = [
    {"type": "input_image", "image_url": "data:image/png;base64,QUJD", "detail": "auto"},
    {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,QUJD"},
    {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
    {"type": "computer_screenshot", "image_url": "data:image/png;base64,QUJD"},
]


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ({"input": "a"}, ["user input"]),
        ({"input": "a", "instructions": "b", "metadata": {"c": "d"}}, ["system instructions", "user input"]),
        ({"instructions": [{"role": "developer", "content": "b"}]}, ["system instructions[0].content"]),
        ({"input": ["a", "", "b"]}, ["user input[0]", "user input[2]"]),
        ({"input": ""}, []),
        ({"input": None}, []),
        ({"input": []}, []),
        ({}, []),
        (
            {"prompt": {"id": "p", "variables": {"a": "b", "c": {"type": "input_text", "text": "d"}, "e": OPAQUE[0]}}},
            ["user prompt.variables.a", "user prompt.variables.c.text"],
        ),
        ({"previous_response_id": "resp_1", "conversation": "conv_1", "user": "u", "safety_identifier": "s"}, []),
    ],
)
def test_texts_of_requests_are_found(body: Any, places: list[str]) -> None:
    assert [" ".join(found) for found in asked(RESPONSES, body)] == places


@pytest.mark.parametrize(
    ("item", "places"),
    [
        ({"role": "user", "content": "a"}, ["user .content"]),
        ({"type": "message", "role": "system", "content": "a"}, ["system .content"]),
        ({"type": "message", "role": "assistant", "content": "a"}, ["assistant .content"]),
        ({"type": "message", "role": "developer", "content": "a"}, ["user .content"]),
        ({"type": "message", "role": ["system"], "content": "a"}, ["user .content"]),
        ({"type": "message", "content": "a"}, ["user .content"]),
        ({"role": "user", "content": [{"type": "input_text", "text": "a"}, *OPAQUE]}, ["user .content[0].text"]),
        ({"role": "user", "content": ["a", [{"text": "b"}]]}, ["user .content[0]", "user .content[1][0].text"]),
        ({"role": "user", "content": {"text": "a"}}, ["user .content.text"]),
        ({"role": "user", "content": [{"type": ["input_image"], "text": "a"}]}, ["user .content[0].text"]),
        (
            {
                "role": "assistant",
                "content": [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "b"}],
            },
            ["assistant .content[0].text", "assistant .content[1].refusal"],
        ),
        ({"role": "user", "content": "a", "reasoning": "b"}, ["user .content", "user .reasoning"]),
        (
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}], "content": [{"text": "b"}]},
            ["assistant .summary[0].text", "assistant .content[0].text"],
        ),
        ({"type": "function_call", "name": "f", "call_id": "c", "arguments": '{"a":1}'}, ['assistant call:{"a":1}']),
        ({"type": "function_call", "arguments": {"a": 1}}, ['assistant call:{"a": 1}']),
        ({"type": "function_call", "arguments": ""}, []),
        ({"type": "custom_tool_call", "name": "f", "call_id": "c", "input": "a"}, ["assistant call:a"]),
        ({"type": "function_call_output", "call_id": "c", "output": "a"}, ["tool .output"]),
        ({"type": "function_call_output", "output": "a"}, ["user .output"]),
        (
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [{"type": "input_text", "text": "a"}, OPAQUE[0], OPAQUE[1]],
            },
            ["tool .output[0].text"],
        ),
        ({"type": "custom_tool_call_output", "call_id": "c", "output": "a"}, ["tool .output"]),
        ({"type": "computer_call_output", "call_id": "c", "output": OPAQUE[3]}, []),
        ({"type": "computer_call", "action": {"type": "type", "text": "a"}}, ["assistant .action.text"]),
        ({"type": "computer_call", "actions": [{"type": "type", "text": "a"}]}, ["assistant .actions[0].text"]),
        (
            {"type": "computer_call", "pending_safety_checks": [{"id": "i", "code": "c", "message": "a"}]},
            ["assistant .pending_safety_checks[0].code", "assistant .pending_safety_checks[0].message"],
        ),
        (
            {"type": "web_search_call", "action": {"type": "search", "query": "a", "queries": ["b"]}, "id": "ws_1"},
            ["assistant .action.query", "assistant .action.queries[0]"],
        ),
        (
            {"type": "web_search_call", "action": {"type": "find_in_page", "pattern": "a", "url": "u"}},
            ["assistant .action.pattern"],
        ),
        (
            {"type": "file_search_call", "queries": ["a"], "results": [{"text": "b", "filename": "c", "file_id": "d"}]},
            ["assistant .queries[0]", "assistant .results[0].text", "assistant .results[0].filename"],
        ),
        (
            {"type": "code_interpreter_call", "code": "a", "outputs": [{"type": "logs", "logs": "b"}]},
            ["assistant .code", "assistant .outputs[0].logs"],
        ),
        (
            {"type": "local_shell_call", "action": {"type": "exec", "command": ["a", "b"], "env": {"K": "c"}}},
            ["assistant .action.command[0]", "assistant .action.command[1]", "assistant .action.env.K"],
        ),
        ({"type": "local_shell_call_output", "output": "a"}, ["user .output"]),
        (
            {"type": "shell_call", "action": {"commands": ["a", "b"]}},
            ["assistant .action.commands[0]", "assistant .action.commands[1]"],
        ),
        (
            {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "a", "stderr": "b"}]},
            ["user .output[0].stdout", "user .output[0].stderr"],
        ),
        (
            {"type": "apply_patch_call", "operation": {"type": "update_file", "path": "a", "diff": "b"}},
            ["assistant .operation.path", "assistant .operation.diff"],
        ),
        ({"type": "apply_patch_call_output", "output": "a"}, ["user .output"]),
        (
            {"type": "mcp_call", "arguments": "{}", "output": "a", "error": "b"},
            ["assistant .arguments", "assistant .output", "assistant .error"],
        ),
        (
            {"type": "mcp_call", "error": {"type": "mcp", "content": [{"text": "a"}], "message": "b"}},
            ["assistant .error.content[0].text", "assistant .error.message"],
        ),
        ({"type": "mcp_approval_request", "arguments": "{}"}, ["user .arguments"]),
        ({"type": "mcp_approval_response", "reason": "a", "approve": False}, ["user .reason"]),
        ({"type": "tool_search_call", "arguments": {"goal": "a"}}, ["assistant .arguments"]),
        ({"type": "image_generation_call", "result": "QUJD", "revised_prompt": "a"}, ["assistant .revised_prompt"]),
        ({"type": "program", "code": "a", "fingerprint": "f"}, ["user .code"]),
        ({"type": "program_output", "result": "a"}, ["user .result"]),
        ({"type": "compaction", "encrypted_content": "QUJD"}, []),
        ({"type": "item_reference", "id": "msg_1"}, []),
        ({"id": "msg_1"}, []),
        ({"type": "mcp_list_tools", "tools": [{"name": "f", "description": "a"}]}, []),
        ({"type": "from_next_year", "inner": {"text": "a", "n": "b"}}, ["user .inner.text"]),
        (7, []),
    ],
)
def test_texts_of_input_items_are_found(item: Any, places: list[str]) -> None:
    found = [f"{role} {place.removeprefix('input[0]')}" for role, place in asked(RESPONSES, {"input": [item]})]
    assert found == places


@pytest.mark.parametrize(
    "body",
    [
        {"input": {"role": "user", "content": "a"}},
        {"input": 7},
        {"input": True},
        '{"input":"a","input":"b"}',
        '{"input":[{"role":"user","content":"a","content":"b"}]}',
        '{"input":[{"role":"user","content":[{"text":"a","text":"b"}]}]}',
        '{"input":[{"type":"reasoning","type":"message","content":"b"}]}',
        '{"input":[{"type":"function_call","arguments":{"a":"b","c":{"d":"e","d":"f"}}}]}',
        '{"prompt":{"variables":{"a":"b","a":"c"}}}',
    ],
)
def test_request_that_cannot_be_judged_is_unreadable(body: Any) -> None:
    with pytest.raises(MalformedBody):
        asked(RESPONSES, body)


def test_call_has_the_name_of_its_tool() -> None:
    item = {"type": "function_call", "name": "f", "call_id": "c", "arguments": "{}"}
    (prompt,) = RESPONSES.prompts(document({"input": [item]}), tools=False)
    assert prompt.message["tool_calls"] == [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]
    output = {"type": "function_call_output", "call_id": "c", "output": "a"}
    (prompt,) = RESPONSES.prompts(document({"input": [output]}), tools=False)
    assert prompt.message == {"role": "tool", "tool_call_id": "c", "content": "a"}


@pytest.mark.parametrize("kind", ["reasoning", "compaction"])
def test_reasoning_with_encrypted_content_is_inspected_and_fixed(kind: str) -> None:
    def leaves(item: dict[str, Any]) -> list[str]:
        prompts = RESPONSES.prompts(document({"input": [{"type": kind, **item}]}), tools=False)
        return fixed([prompt.leaf for prompt in prompts if prompt.leaf is not None])

    summary = [{"type": "summary_text", "text": "a"}]
    assert leaves({"summary": summary, "encrypted_content": "QUJD"}) == ["input[0].summary[0].text"]
    assert leaves({"summary": summary, "encrypted_content": None}) == []
    assert leaves({"summary": summary}) == []


def test_definitions_are_inspected_only_with_tools() -> None:
    body = {
        "input": [{"type": "mcp_list_tools", "tools": [{"name": "e"}]}, "a"],
        "tools": [{"type": "function", "description": "b"}],
        "text": {"format": {"type": "json_schema", "schema": {"description": "c"}}},
    }
    assert asked(RESPONSES, body) == [("user", "input[1]")]
    assert asked(RESPONSES, body, tools=True) == [
        ("user", "input[1]"),
        ("system", "tools[0].type"),
        ("system", "tools[0].description"),
        ("system", "text.format.type"),
        ("system", "text.format.schema.description"),
        ("system", "input[0].tools[0].name"),
    ]
    assert asked(RESPONSES, {"input": "a"}, tools=True) == [("user", "input")]


# -- whole answers -------------------------------------------------------------------------------------------------

ANNOTATION = {"type": "url_citation", "url": "https://example.com", "title": "t", "start_index": 0, "end_index": 1}
ITEMS: list[tuple[Any, list[str]]] = [
    (
        {
            "type": "message",
            "role": "assistant",
            "id": "msg_1",
            "status": "completed",
            "content": [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "b"}],
        },
        ["content[0].text", "content[1].refusal"],
    ),
    (
        {"type": "message", "content": [{"type": "output_text", "text": "a", "annotations": [ANNOTATION]}]},
        ["content[0].text", "content[0].annotations[0].title"],
    ),
    (
        {"type": "message", "content": [{"text": "", "annotations": [{"type": "file_citation", "filename": "f"}]}]},
        ["content[0].annotations[0].filename"],
    ),
    ({"type": "message", "content": ["a", "", 7, {"type": "output_image", "text": "QUJD"}]}, ["content[0]"]),
    ({"type": "message", "content": "a"}, ["content"]),
    (
        {"type": "message", "content": [{"type": "output_audio", "data": "QUJD", "transcript": "a"}]},
        ["content[0].transcript"],
    ),
    ({"type": "message", "content": [{"type": ["x"], "text": "a"}]}, ["content[0].text"]),
    ({"type": "function_call", "name": "f", "call_id": "c", "arguments": '{"a":1}'}, ["arguments"]),
    ({"type": "tool_search_call", "arguments": {"goal": "a"}}, ["arguments"]),
    ({"type": "custom_tool_call", "input": "a"}, ["input"]),
    ({"type": "from_next_year", "input": [{"text": "a"}]}, ["input[0].text"]),
    (
        {"type": "reasoning", "summary": [{"text": "a"}], "content": [{"type": "reasoning_text", "text": "b"}]},
        ["summary[0].text", "content[0].text"],
    ),
    ({"type": "reasoning", "summary": [], "encrypted_content": "QUJD"}, []),
    ({"type": "code_interpreter_call", "code": "a", "outputs": [{"logs": "b"}]}, ["code", "outputs[0].logs"]),
    ({"type": "web_search_call", "action": {"type": "search", "query": "a"}}, ["action.query"]),
    ({"type": "shell_call", "action": {"commands": ["a"]}}, ["action.commands[0]"]),
    (
        {"type": "shell_call_output", "output": [{"stdout": "a", "stderr": "b"}]},
        ["output[0].stdout", "output[0].stderr"],
    ),
    (
        {"type": "local_shell_call", "action": {"command": ["a"], "env": {"K": "b"}}},
        ["action.command[0]", "action.env.K"],
    ),
    ({"type": "apply_patch_call", "operation": {"diff": "a", "path": "b"}}, ["operation.diff", "operation.path"]),
    ({"type": "mcp_call", "arguments": "{}", "output": "a", "error": None}, ["arguments", "output"]),
    ({"type": "image_generation_call", "result": "QUJD", "revised_prompt": "a"}, ["revised_prompt"]),
    ({"type": "program_output", "result": "a"}, ["result"]),
    ("a", [""]),
    (None, []),
]


@pytest.mark.parametrize(("item", "places"), ITEMS)
def test_texts_of_output_items_are_found(item: Any, places: list[str]) -> None:
    found = said(RESPONSES, {"id": "resp_1", "instructions": "i", "output": [{"type": "reasoning"}, item]})
    assert [place.removeprefix("output[1]").removeprefix(".") for place in found] == places


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ({"output": [], "output_text": "a"}, ["output_text"]),
        ({"output": "a"}, ["output"]),
        ({"output": {"text": "a"}}, ["output.text"]),
        ({"output_text": "a", "status": "s"}, ["output_text"]),
        ({"choices": [{"message": {"content": "a"}}]}, ["choices[0].message.content"]),
        ([{"text": "a"}], ["[0].text"]),
        ({"error": {"message": "a"}}, []),
    ],
)
def test_answers_of_other_shapes_are_searched(body: Any, places: list[str]) -> None:
    assert said(RESPONSES, body) == places


def test_rewritten_part_loses_its_logprobs() -> None:
    logprobs = [{"token": "secret", "bytes": [1], "top_logprobs": [{"token": "secret"}]}]
    text = {"type": "output_text", "text": "secret", "logprobs": logprobs}
    after = rewritten(RESPONSES, {"output": [{"type": "message", "content": [text]}]})
    assert after["output"][0]["content"] == [{"type": "output_text", "text": "[X]", "logprobs": None}]
    kept = {"output": [{"type": "message", "content": [{"text": "a", "logprobs": []}]}]}
    assert rewritten(RESPONSES, kept)["output"][0]["content"] == [{"text": "[X]", "logprobs": []}]


def test_transcripts_are_fixed_and_arguments_are_json() -> None:
    spoken = document({"output": [{"type": "message", "content": [{"type": "output_audio", "transcript": "a"}]}]})
    assert fixed(RESPONSES.answers(spoken)) == ["output[0].content[0].transcript"]
    calls = [{"type": "function_call", "arguments": "{}"}, {"type": "mcp_call", "arguments": "{}", "output": "a"}]
    assert [(dotted(leaf.path), leaf.is_json) for leaf in RESPONSES.answers(document({"output": calls}))] == [
        ("output[0].arguments", True),
        ("output[1].arguments", True),
        ("output[1].output", False),
    ]
    (leaf,) = RESPONSES.answers(document({"output": [{"type": "tool_search_call", "arguments": {"a": "b"}}]}))
    assert leaf.is_embedded


@pytest.mark.parametrize(
    "body",
    [
        '{"output":[],"output":[{"content":"a"}]}',
        '{"output":[{"type":"message","content":[{"text":"a","text":"b"}]}]}',
        '{"output":[{"type":"function_call","arguments":"a","arguments":"b"}]}',
        '{"output":[{"type":"web_search_call","action":{"query":"a","query":"b"}}]}',
    ],
)
def test_answers_with_repeated_keys_are_unreadable(body: str) -> None:
    with pytest.raises(MalformedBody):
        said(RESPONSES, body)


# -- streams -------------------------------------------------------------------------------------------------------

INDICES = {"sequence_number": 4, "item_id": "i", "output_index": 2, "content_index": 1, "summary_index": 3}


def event(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, **INDICES, **more}


def places(*events: dict[str, Any]) -> set[Any]:
    return {leaf.place for one in events for leaf in RESPONSES.deltas(document(one))}


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
    assert heard(RESPONSES, delta) == ["delta"]
    assert heard(RESPONSES, done) == [f"={key}"]
    assert heard(RESPONSES, event(f"{name}.delta", delta="")) == []
    assert heard(RESPONSES, event(f"{name}.done", **{key: None})) == []
    assert places(delta, done) == {("output", 2, *place)}
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
        assert places(whole) == {("output", 2, *place)}
        assert [kind[0] for kind in heard(RESPONSES, whole)] == ["="]


@pytest.mark.parametrize(
    ("given", "found", "place"),
    [
        (
            event("response.content_part.done", part={"type": "output_text", "text": "a"}),
            ["=part.text"],
            ("content", 1, "text"),
        ),
        (
            event("response.content_part.added", part={"type": "refusal", "refusal": "a"}),
            ["=part.refusal"],
            ("content", 1, "refusal"),
        ),
        (
            event("response.reasoning_summary_part.done", part={"type": "summary_text", "text": "a"}),
            ["=part.text"],
            ("summary", 3, "text"),
        ),
        (
            event("response.output_text.annotation.added", annotation_index=0, annotation=ANNOTATION),
            ["=annotation.title"],
            ("content", 1, "annotations", 0, "title"),
        ),
        (
            event("response.output_text_annotation.added", annotation_index=0, annotation=ANNOTATION),
            ["=annotation.title"],
            ("content", 1, "annotations", 0, "title"),
        ),
        (
            event("response.shell_call_command.added", command_index=0, command="a"),
            ["=command"],
            ("action", "commands", 0),
        ),
        (event("response.output_item.added", item={"type": "message", "content": []}), [], None),
        (event("response.output_item.added", item={"type": "function_call", "arguments": ""}), [], None),
    ],
)
def test_texts_of_parts_and_items_are_repeats(given: Any, found: list[str], place: Any) -> None:
    assert heard(RESPONSES, given) == found
    assert places(given) == ({("output", 2, *place)} if place else set())


@pytest.mark.parametrize("name", ["created", "queued", "in_progress", "completed", "incomplete", "failed"])
def test_texts_of_the_whole_response_are_repeats(name: str) -> None:
    response: dict[str, Any] = {"id": "resp_1", "output": [], "instructions": "i", "tools": [{"description": "d"}]}
    assert heard(RESPONSES, {"type": f"response.{name}", "response": response}) == []
    response["output"] = [{"type": "message", "content": [{"text": "a"}]}]
    assert heard(RESPONSES, {"type": f"response.{name}", "response": response}) == [
        "=response.output[0].content[0].text"
    ]
    assert heard(RESPONSES, {"type": f"response.{name}", "response": {"output": "a"}}) == ["=response.output"]
    assert heard(RESPONSES, {"type": f"response.{name}", "response": {"text": "a"}}) == ["=response.text"]
    assert heard(RESPONSES, {"type": f"response.{name}", "response": None}) == []


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
    assert heard(RESPONSES, event(f"response.{name}")) == []


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (event("response.audio.delta", delta="QUJD"), []),
        (event("response.output_audio.delta", delta="QUJD"), []),
        (event("response.output_audio_transcript.delta", delta="a"), ["delta"]),
        (event("response.image_generation_call.partial_image", partial_image_b64="QUJD"), []),
        (
            event("response.shell_call_output_content.delta", delta={"stdout": "a", "stderr": "b"}),
            ["delta.stdout", "delta.stderr"],
        ),
        (event("response.shell_call_output_content.done", output=[{"stdout": "a"}]), ["output[0].stdout"]),
        (event("response.from_next_year.delta", delta="a"), ["delta"]),
        (event("response.from_next_year.done", arguments="a", command="b"), ["arguments", "command"]),
        (event("response.output_text.delta", delta={"text": "a"}), ["delta.text"]),
        (event("response.output_text.delta", delta=["a"]), ["delta[0]"]),
        (
            event("response.output_text.delta", delta="a", text="b", response={"text": "c"}),
            ["delta", "text", "response.text"],
        ),
        ({"type": "error", "code": "server_error", "message": "m", "param": None}, []),
        ({"type": "keepalive", "sequence_number": 3}, []),
        ({"delta": "a"}, ["delta"]),
        ({"type": 7, "text": "a"}, ["text"]),
        ([{"text": "a"}], ["[0].text"]),
        ({}, []),
    ],
)
def test_events_of_other_shapes_are_searched(given: Any, found: list[str]) -> None:
    assert heard(RESPONSES, given) == found


def test_unknown_texts_of_two_items_are_kept_apart() -> None:
    first = event("response.from_next_year.delta", delta="a")
    second = first | {"output_index": 5}
    assert len(places(first, second)) == 2
    # A missing or non-numeric index counts as 0. A repeat that does not match is a separate text.
    assert places({"type": "response.output_text.delta", "delta": "a", "output_index": "x"}) == {
        ("output", 0, "content", 0, "text")
    }


def test_rewrite_removes_the_logprobs() -> None:
    logprobs = [{"token": "secret"}]
    for given in (
        event("response.output_text.delta", delta="secret", logprobs=logprobs),
        event("response.output_text.done", text="secret", logprobs=logprobs),
    ):
        (leaf,) = RESPONSES.deltas(document(given))
        assert leaf.nulled == (("logprobs",),)
    (leaf,) = RESPONSES.deltas(document(event("response.output_text.delta", delta="a", logprobs=[])))
    assert leaf.nulled == ()
    (leaf,) = RESPONSES.deltas(document(event("response.content_part.done", part={"text": "a", "logprobs": logprobs})))
    assert leaf.nulled == (("part", "logprobs"),)


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
