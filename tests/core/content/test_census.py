"""The census: exact for JSON, harmless for other text, and done before anything is parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.content.census import has_more_values

KEYS = st.text(st.sampled_from('a"\\[{:,] \n'), max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.floats(allow_nan=False) | KEYS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
INDENTS = st.sampled_from([None, 0, 2])


def eighths(node: Any) -> int:
    """Return the weight of a value in eighths."""
    if isinstance(node, dict):
        return 8 + sum(8 + eighths(value) for value in node.values())
    if isinstance(node, list):
        return 8 + sum(map(eighths, node))
    return 8 if isinstance(node, str) else 1


def smallest_limit(text: str, block: int) -> int:
    """Return the smallest limit that `text` does not pass."""
    return next(limit for limit in range(len(text) + 1) if not has_more_values(text, limit, block_size=block))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('"a"', 1),
        ("[]", 1),
        ("{}", 1),
        ('{"key":"value"}', 3),
        ('["a","b","c"]', 4),
        ('["]","\\"[","\\\\","{[:,"]', 5),
        ('{"\\"":{"[":[ ]},"\\\\" : "x"}', 7),
        ("[1,2,3,4,5,6,7,8]", 2),
        ("[1,2,3,4,5,6,7,8,9]", 3),
        ("[[[1]]]", 4),
        ("[true,false,null,NaN,-Infinity,1e5,-0.5,0]", 2),
        (' {\n "a" : [ ] , "b" : { } , "c" : [ 1 ] } ', 8),
        ('{"a":1,"b":2,"c":3}', 5),
    ],
)
@pytest.mark.parametrize("block", [1, 2, 3, 5, 8, 1000])
def test_values_are_counted(text: str, values: int, block: int) -> None:
    assert smallest_limit(text, block) == values


@given(VALUES, INDENTS, st.integers(1, 9))
@settings(max_examples=200)
def test_count_equals_that_of_the_parsed_value(value: Any, indent: int | None, block: int) -> None:
    text = json.dumps(value, indent=indent)
    assert smallest_limit(text, block) == -(-eighths(value) // 8)


@given(st.text(st.sampled_from('a"\\[{:,]} 1\n\u00e9'), max_size=40), st.integers(0, 40), st.integers(1, 9))
@settings(max_examples=200)
def test_any_text_is_counted_without_an_error(text: str, limit: int, block: int) -> None:
    assert not has_more_values(text, max(limit, len(text)), block_size=block)
    assert has_more_values(text, limit, block_size=block) in (True, False)


@pytest.mark.parametrize("unit", ['"a",', "[],", '{"a":1},', '[["', "[[[[", "1,1,1,1,1,1,1,1,1,"])
def test_count_of_many_values_ends_early(unit: str) -> None:
    assert has_more_values("[" + unit * 200_000, 100_000)


@pytest.mark.parametrize(
    "text", ["\\" * 600_001, '"' + '\\"' * 400_000, "words, and more, " * 60_000, '{"a":"' + "[{" * 400_000]
)
def test_long_text_is_not_many_values(text: str) -> None:
    assert not has_more_values(text, 500_000)
