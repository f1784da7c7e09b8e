"""OpenAI's chat messages: the schema that Aim requires, and the texts in a message.

Messages stay dictionaries, so that unknown fields survive; the models only validate them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

Message = dict[str, Any]
Rewrite = Callable[[str], str]


class SchemaError(Exception):
    """The body violates the schema; `detail` is the body of a 422, without the invalid values."""

    def __init__(self, detail: list[dict[str, Any]]) -> None:
        super().__init__("unprocessable")
        self.detail = detail


class _Loose(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Part(_Loose):
    type: str
    text: str | None = None

    @model_validator(mode="after")
    def _text_has_a_text(self) -> _Part:
        if self.type == "text" and self.text is None:
            raise ValueError("a part of type text needs a text")
        return self


class _Function(_Loose):
    name: str
    arguments: str


class _ToolCall(_Loose):
    id: str
    function: _Function | None = None


class _Instruction(_Loose):
    role: Literal["system", "developer", "user"]
    content: str | list[_Part]


class _Assistant(_Loose):
    role: Literal["assistant"]
    content: str | list[_Part] | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None


class _Tool(_Loose):
    role: Literal["tool"]
    content: str | list[_Part]
    tool_call_id: str


class _FunctionResult(_Loose):
    role: Literal["function"]
    content: str | None
    name: str


_Messages = TypeAdapter(
    list[Annotated[_Instruction | _Assistant | _Tool | _FunctionResult, Field(discriminator="role")]]
)


def check_messages(body: dict[str, Any]) -> list[Message]:
    """Return the body's `messages` unchanged. Raises SchemaError."""
    if "messages" not in body:
        raise SchemaError([problem("Field required", "missing", "messages")])
    try:
        _Messages.validate_python(body["messages"])
    except ValidationError as error:
        detail = [problem(e["msg"], e["type"], "messages", *e["loc"]) for e in error.errors(include_input=False)]
        raise SchemaError(detail) from None
    messages: list[Message] = body["messages"]
    return messages


def problem(message: str, kind: str, *location: int | str) -> dict[str, Any]:
    """Build one entry of a 422's `detail`."""
    return {"type": kind, "loc": ["body", *location], "msg": message}


def rewrite(message: Message, apply: Rewrite) -> Message:
    """Apply a function to every text of a valid message: content, text parts, refusal, call arguments."""
    result = dict(message)
    content = message.get("content")
    if isinstance(content, str):
        result["content"] = apply(content)
    elif isinstance(content, list):
        result["content"] = [
            {**part, "text": apply(part["text"])} if part["type"] == "text" else part for part in content
        ]
    if isinstance(message.get("refusal"), str):
        result["refusal"] = apply(message["refusal"])
    if message.get("tool_calls"):
        result["tool_calls"] = [_rewrite_call(call, apply) for call in message["tool_calls"]]
    if message.get("function_call"):
        result["function_call"] = _rewrite_function(message["function_call"], apply)
    return result


def _rewrite_call(call: dict[str, Any], apply: Rewrite) -> dict[str, Any]:
    if call.get("function") is None:
        return call
    return {**call, "function": _rewrite_function(call["function"], apply)}


def _rewrite_function(function: dict[str, Any], apply: Rewrite) -> dict[str, Any]:
    return {**function, "arguments": _rewrite_arguments(function["arguments"], apply)}


def _rewrite_arguments(arguments: str, apply: Rewrite) -> str:
    """Apply to each value inside, so that escapes hide nothing and the result stays JSON; else to the whole text."""
    try:
        value = json.loads(arguments, object_pairs_hook=_unique, parse_int=_Number, parse_float=_Number)
        rewritten = _rewrite_value(value, apply)
        return arguments if rewritten == value else json.dumps(rewritten, ensure_ascii=False, default=_Number.plain)
    except (ValueError, RecursionError):
        return apply(arguments)


class _Number:
    """A JSON number with its spelling, because a card number may be one and must not become a float."""

    def __init__(self, spelling: str) -> None:
        self.spelling = spelling

    def plain(self) -> int | float:
        return float(self.spelling) if set(self.spelling) & set(".eE") else int(self.spelling)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a repeated key hides a value")
    return members


def _rewrite_value(value: Any, apply: Rewrite) -> Any:
    match value:
        case str():
            return apply(value)
        case _Number():
            text = apply(value.spelling)
            return value if text == value.spelling else text
        case list():
            return [_rewrite_value(item, apply) for item in value]
        case dict():
            return {apply(key): _rewrite_value(item, apply) for key, item in value.items()}
        case _:
            return value
