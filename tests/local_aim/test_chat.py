"""Chat messages: the schema Aim insists on, and every text in a message."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.local_aim.chat import SchemaError, check_messages, rewrite

CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "x", "name": "n", "unknown": {"a": 1}},
        {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {}}]},
        {"role": "system", "content": ""},
        {"role": "developer", "content": "x"},
        {"role": "assistant", "content": None},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "custom", "custom": {}}]},
        {"role": "tool", "tool_call_id": "1", "content": "x"},
        {"role": "function", "name": "f", "content": None},
    ],
)
def test_valid_messages_are_accepted(message: dict[str, Any]) -> None:
    assert check_messages({"messages": [message]}) == [message]
    assert rewrite(message, lambda text: text) == message


@pytest.mark.parametrize(
    ("message", "location"),
    [
        ({"role": "tool", "content": "x"}, "tool_call_id"),
        ({"role": "function", "content": "x"}, "name"),
        ({"role": "user"}, "content"),
        ({"role": "user", "content": None}, "content"),
        ({"role": "user", "content": ["x"]}, "content"),
        ({"role": "user", "content": [{"text": "x"}]}, "content"),
        ({"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f"}}]}, "arguments"),
    ],
)
def test_invalid_messages_are_rejected(message: dict[str, Any], location: str) -> None:
    with pytest.raises(SchemaError) as caught:
        check_messages({"messages": [{"role": "user", "content": "fine"}, message]})
    assert any(location in entry["loc"] for entry in caught.value.detail)
    assert all(entry["loc"][:3] == ["body", "messages", 1] for entry in caught.value.detail)
    assert "input" not in caught.value.detail[0]


@pytest.mark.parametrize("body", [{}, {"messages": None}, {"messages": {}}, {"messages": "x"}, {"messages": [1]}])
def test_body_without_message_list_is_rejected(body: dict[str, Any]) -> None:
    with pytest.raises(SchemaError):
        check_messages(body)


def test_unknown_role_is_rejected() -> None:
    with pytest.raises(SchemaError):
        check_messages({"messages": [{"role": "robot", "content": "x"}, {"content": "x"}]})


def test_text_part_without_text_is_rejected() -> None:
    with pytest.raises(SchemaError):
        check_messages({"messages": [{"role": "user", "content": [{"type": "text"}]}]})


def upper(text: str) -> str:
    return text.replace("secret", "[X]")


def arguments(text: str) -> str:
    call = {"id": "1", "function": {"name": "f", "arguments": text}}
    message = rewrite({"role": "assistant", "content": None, "tool_calls": [call]}, upper)
    result: str = message["tool_calls"][0]["function"]["arguments"]
    return result


def test_rewrite_reaches_every_text() -> None:
    message = {
        "role": "assistant",
        "content": [{"type": "text", "text": "secret"}, {"type": "input_audio", "data": "secret"}],
        "refusal": "no secret",
        "tool_calls": [{"id": "secret", "function": {"name": "f", "arguments": '{"a": "secret"}'}}],
        "function_call": {"name": "f", "arguments": "secret"},
        "other": "secret",
    }
    original = json.loads(json.dumps(message))
    assert rewrite(message, upper) == {
        "role": "assistant",
        "content": [{"type": "text", "text": "[X]"}, {"type": "input_audio", "data": "secret"}],
        "refusal": "no [X]",
        "tool_calls": [{"id": "secret", "function": {"name": "f", "arguments": '{"a": "[X]"}'}}],
        "function_call": {"name": "f", "arguments": "[X]"},
        "other": "secret",
    }
    assert message == original


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ('{"a" : 1.50, "b":"x"}', '{"a" : 1.50, "b":"x"}'),  # unchanged, spaces included
        ('{"a":"\\u0073ecret"}', '{"a": "[X]"}'),
        (
            '{"a":[{"secret":null}],"n":1.5,"i":12345678901234567890}',
            '{"a": [{"[X]": null}], "n": 1.5, "i": 12345678901234567890}',
        ),
        ('{"a":"secret","a":"b"}', '{"a":"[X]","a":"b"}'),
        ('{"a":"secr', '{"a":"secr'),
        ('{"a":"secret', '{"a":"[X]'),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_rewrite_reaches_values_in_arguments(given: str, expected: str) -> None:
    assert arguments(given) == expected


def test_redacted_number_becomes_a_string() -> None:
    call = {"name": "f", "arguments": '{"card": 42, "n": 43}'}
    message = rewrite({"role": "assistant", "function_call": call}, lambda text: text.replace("42", "[CARD_1]"))
    assert message["function_call"]["arguments"] == '{"card": "[CARD_1]", "n": 43}'
