"""Tool arguments as one text, and redactions put back into their strings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extproc.core.content.arguments import Misfit, decode, put_back, replace_strings

SECRET = "bob@x.com"


def redact(raw: str, *changes: tuple[str, str]) -> str:
    """Return the arguments after a redaction of their decoded text."""
    text = decode(raw)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return replace_strings(raw, put_back(raw, text))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ('{"a": "b"}', '{"a": "b"}'),
        (r'{"a": "caf\u00e9"}', '{"a": "café"}'),
        (r'{"a": "\ud83d\ude00"}', '{"a": "😀"}'),
        (r'{"a": "x\ny\tz\"q\"\/"}', '{"a": "x\ny\tz"q"/"}'),
        (r'{"a": "c:\\new\\temp"}', '{"a": "c:\\new\\temp"}'),
        (r'{"a": "\\u0041"}', '{"a": "\\u0041"}'),
        (r'{"a": "\x"}', '{"a": "\\x"}'),
        (r'{"a": "\u00"}', '{"a": "\\u00"}'),
        (r'{"a": "\u005c\u005cn"}', '{"a": "\\\\n"}'),
        (r'{"a": "\u0041\u005c"}', '{"a": "A\\"}'),
    ],
)
def test_escapes_are_decoded(raw: str, text: str) -> None:
    assert decode(raw) == text


@pytest.mark.parametrize(
    ("raw", "after"),
    [
        ('{"to": "bob@x.com", "n": 1.50}', '{"to": "[E]", "n": 1.50}'),
        (r'{"to": "caf\u00e9 bob@x.com", "b": "caf\u00e9"}', r'{"to": "café [E]", "b": "caf\u00e9"}'),
        (r'{"to": "\u0062ob@x.com"}', '{"to": "[E]"}'),
        ('["bob@x.com", {"a" : ["bob@x.com"]}]', '["[E]", {"a" : ["[E]"]}]'),
        ('{"a": "bob@x.com"', '{"a": "[E]"'),
        ('{"a": "say bob@x.com', '{"a": "say [E]'),
        (r'{"a": "\"bob@x.com\""}', r'{"a": "\"[E]\""}'),
        ('"bob@x.com"', '"[E]"'),
    ],
)
def test_redaction_goes_back_into_its_strings(raw: str, after: str) -> None:
    assert redact(raw, (SECRET, "[E]")) == after


def test_redaction_is_escaped_again() -> None:
    assert redact('{"a": "x", "b": "bob@x.com"}', (SECRET, '"E"\n')) == r'{"a": "x", "b": "\"E\"\n"}'


def test_unchanged_text_changes_nothing() -> None:
    assert put_back('{"a": "b"}', '{"a": "b"}') == {}


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ('{"a": "b"}', '{"x": "b"}'),
        ('{"a": "b", "c": 5551234}', '{"a": "b", "c": [PHONE]}'),
        ('{"a": "b"}', "[REDACTED]"),
        ('{"a": "b"}', '{"a": "b"} and more'),
        ('{"a": "b", "c": "d"}', '{"a": "x"}'),
        ('{"a": "b", "c": "d"}', '{"a": "b" "c": "d"}'),
        ("{}", "{ }"),
        ('{"a": "b"}', ""),
        ('{"a": "b", "c": "d"}', '{"a": "'),
    ],
)
def test_redaction_of_keys_or_structure_does_not_fit(raw: str, text: str) -> None:
    with pytest.raises(Misfit):
        put_back(raw, text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def replaced(node: Any) -> Any:
    """Return a value with the secret redacted in all its strings that are no keys."""
    if isinstance(node, str):
        return node.replace(SECRET, "[E]")
    if isinstance(node, dict):
        return {key: replaced(value) for key, value in node.items()}
    return [replaced(value) for value in node] if isinstance(node, list) else node


@given(VALUES, st.booleans())
@example({"a": f"x {SECRET} y"}, True)
@example([SECRET, f'"{SECRET}"', {"k": f"{SECRET}\\"}], False)
def test_redacted_arguments_have_the_redacted_values(value: Any, ascii_only: bool) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only)
    text = decode(raw).replace(SECRET, "[E]")
    after = replace_strings(raw, put_back(raw, text))
    assert json.loads(after) == replaced(value)
