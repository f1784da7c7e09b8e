"""`extproc.core.content.json_codec`: values that orjson refuses are read and written like all others."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.content import json_codec as codec

_texts = st.text(st.characters(), max_size=8)  # including lone surrogates
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=12,
)


def _expected(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _expected(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_expected(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node


@given(_values)
def test_encoded_values_are_json_with_null_for_infinity_and_nan(value: Any) -> None:
    assert json.loads(codec.encode(value)) == _expected(value)


_short = st.recursive(  # values that both libraries read alike
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=12,
)


@given(_short)
def test_json_of_the_standard_library_is_decoded(value: Any) -> None:
    assert codec.decode(json.dumps(value)) == value
    assert codec.decode(json.dumps(value).encode()) == value


def test_number_of_many_digits_is_decoded() -> None:
    assert codec.decode("1" * 30) == pytest.approx(int("1" * 30))
    assert codec.decode("1e999") == math.inf


@given(st.binary(max_size=16) | st.text(max_size=16))
def test_bytes_that_are_not_json_are_refused(data: bytes | str) -> None:
    try:
        expected = json.loads(data)
    except ValueError:
        with pytest.raises(ValueError):
            codec.decode(data)
    else:
        assert repr(codec.decode(data)) == repr(expected)


def test_default_converts_objects_that_are_not_json() -> None:
    assert json.loads(codec.encode({"a": object}, default=lambda _: "b")) == {"a": "b"}
    assert json.loads(codec.encode({"a": object, "c": "\ud800"}, default=lambda _: "b")) == {"a": "b", "c": "\ud800"}


def test_object_that_is_not_json_is_refused_without_a_default() -> None:
    with pytest.raises(TypeError):
        codec.encode({"a": object})


@pytest.mark.parametrize("depth", [300, 2_000])
def test_deep_nesting_is_decoded_or_refused(depth: int) -> None:
    text = "[" * depth + "]" * depth
    try:
        assert codec.decode(text)
    except RecursionError:
        assert depth > 1_000
