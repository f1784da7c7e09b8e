"""`extproc.core.content.json_codec`: values that orjson refuses are read and written like all others."""

from __future__ import annotations

import contextlib
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


# -- texts with one meaning ----------------------------------------------------------------------------------------


def _spelled(text: str, escapes: bool) -> str:
    """Return a JSON string, with every character as an escape if `escapes`."""
    if not escapes:
        return json.dumps(text, ensure_ascii=False)
    units = text.encode("utf-16-be", "surrogatepass")
    return '"' + "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2)) + '"'


_keys = st.builds(_spelled, st.sampled_from(["a", "b", '"', "\\", "\\u0022", ":", "é"]), st.booleans())
_json_texts = st.recursive(
    st.sampled_from(["null", "true", "1", "1e999", str(2**70), "NaN", "Infinity", "-Infinity"])
    | st.builds(_spelled, _texts, st.booleans()),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(_keys, inner), max_size=3).map(
            lambda pairs: f"{{{', '.join(f'{key}: {value}' for key, value in pairs)}}}"
        )
    ),
    max_leaves=12,
)


def _has_two_meanings(text: str) -> bool:
    def check(pairs: list[tuple[str, Any]]) -> None:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(text, object_pairs_hook=check, parse_constant=refuse)
    except ValueError:
        return True
    return False


@given(_json_texts)
def test_strictly_decoded_text_has_one_meaning(text: str) -> None:
    spellings: list[str | bytes] = [text]
    with contextlib.suppress(UnicodeEncodeError):  # a lone surrogate that is no escape
        spellings.append(text.encode())
    for spelling in spellings:
        if _has_two_meanings(text):
            with pytest.raises(ValueError):
                codec.decode_strictly(spelling)
        else:
            assert codec.decode_strictly(spelling) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 1}',
        '{"a": 1, "\\u0061": 1}',
        '[{"b": {"a": 1, "c": [], "a": 1}}]',
        '{"": 1, "": 2}',
        # The quotation marks of the lost member number as many as the text lacks elsewhere.
        '{"a": 1, "a": 1, "b": "\\u0022\\u0022"}',
        '{"a": 1, "a": 1, "b": "' + "\\u0022" * 2 + '\\""}',
        '{"a": NaN}',
        "[Infinity]",
        "-Infinity",
        "{} {}",
        "",
    ],
)
def test_text_of_two_meanings_is_refused(text: str) -> None:
    for spelling in (text, text.encode()):
        with pytest.raises(ValueError):
            codec.decode_strictly(spelling)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('[{"a": 1}, {"a": 1}]', [{"a": 1}, {"a": 1}]),
        (r'{"a": "\"\u0022\\u0022\\", "A": "{\"a\": 1, \"a\": 1}"}', {"a": '""\\u0022\\', "A": '{"a": 1, "a": 1}'}),
        (r'{"a": "\ud800"}', {"a": "\ud800"}),
        ("[1e999, 1267650600228229401496703205376]", [math.inf, 2**100]),
        ("[" * 300 + "]" * 300, json.loads("[" * 300 + "]" * 300)),
    ],
)
def test_text_of_one_meaning_is_decoded(text: str, value: Any) -> None:
    assert codec.decode_strictly(text) == value
    assert codec.decode_strictly(text.encode()) == value


def test_byte_order_mark_is_skipped() -> None:
    assert codec.decode_strictly(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


@pytest.mark.parametrize("data", [b'"\xff"', b'"\xed\xa0\x80"', '{"a": 1}'.encode("utf-16")])
def test_bytes_in_another_encoding_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        codec.decode_strictly(data)


def test_endless_nesting_is_refused() -> None:
    with pytest.raises((ValueError, RecursionError)):
        codec.decode_strictly("[" * 100_000)
