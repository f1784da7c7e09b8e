"""Escapes of a JSON text in pieces, and redactions that are put back into its spelling."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.content.escapes import MAX_CUT, Nesting, decode, respell

SPELT = st.sampled_from(
    (
        *("a", "é", '"', "{", "\\", "\\\\", '\\"', "\\n", "\\/", "\\u00e9", "\\u005C", "\\u0022", "\\ud83d\\ude00"),
        *("\\ud83d", "\\ude00", "\\u12", "\\x", "\U000f0000", "\\udb80\\udc00", "\ud800", "\n"),
    )
)


def respelt(raw: str, new: str, *, in_string: bool = False) -> str:
    return respell(raw, decode(raw)[0], new, in_string=in_string)


@pytest.mark.parametrize(
    ("text", "decoded", "used"),
    [
        ("plain", "plain", 5),
        (r"caf\u00e9\n", "café\n", 11),
        (r"\"\\n\"", '"\\n"', 7),
        ("a\\", "a", 1),
        ("a\\\\", "a\\", 3),
        ("a\\\\\\", "a\\", 3),
        (r"a\u00", "a", 1),
        (r"a\\u00", r"a\u00", 6),
        (r"\ud83d\ude00", "😀", 12),
        (r"a\ud83d", "a", 1),
        (r"a\ud83d\ude0", "a", 1),
        (r"\ud83d\n", "\\ud83d\n", 8),
        (r"\ud83dx", r"\ud83dx", 7),
        (r"\x\q", r"\x\q", 4),
        ('"\n', '"\n', 2),
        ("\U000f0000\\n", "\U000f0000\n", 3),
        ("\\udb80\\udc00\\\\", "\U000f0000\\", 14),
    ],
)
def test_escapes_are_decoded_up_to_the_last_whole_one(text: str, decoded: str, used: int) -> None:
    assert decode(text) == (decoded, used)


@given(st.lists(SPELT).map("".join), st.lists(st.integers(0, 60)))
def test_pieces_decode_to_the_same_as_the_whole(text: str, cuts: list[int]) -> None:
    bounds = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    rest, decoded = "", ""
    for start, end in pairwise(bounds):
        piece, used = decode(rest + text[start:end])
        rest = (rest + text[start:end])[used:]
        decoded += piece
        assert len(rest) <= MAX_CUT
    whole, used = decode(text)
    assert (decoded, rest) == (whole, text[used:])


@given(st.text())
def test_decoding_agrees_with_the_standard_library(text: str) -> None:
    for spelt in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
        assert decode(spelt[1:-1])[0] == text


@given(st.lists(SPELT).map("".join), st.booleans())
def test_unchanged_text_keeps_its_spelling(text: str, in_string: bool) -> None:
    raw = text[: decode(text)[1]]
    assert respelt(raw, decode(raw)[0], in_string=in_string) == raw


@pytest.mark.parametrize(
    ("raw", "new", "spelt"),
    [
        (r'{"q": "caf\u00e9 bob"}', '{"q": "café [X]"}', r'{"q": "caf\u00e9 [X]"}'),
        (r'{"q": "bob caf\u00e9"}', '{"q": "[X] café"}', r'{"q": "[X] caf\u00e9"}'),
        (r'{"q": "bob"}', '{"q": "a "b"\\\n"}', r'{"q": "a \"b\"\\\n"}'),
        (r'{"q": "bob", "r": "jim"}', '{"q": "[X]", "r": "[Y]"}', r'{"q": "[X]", "r": "[Y]"}'),
        (r'{"q": "bob \"and\" jim"}', '{"q": "[X] "and" [Y]"}', r'{"q": "[X] \"and\" [Y]"}'),
        (r'{"q": 4111}', '{"q": "[X]"}', r'{"q": "[X]"}'),
        ("{\n}", '{"a":\n1}', '{"a":\n1}'),
        (r'{"q": "bob"}', "", ""),
    ],
)
def test_changed_text_is_escaped_inside_of_strings(raw: str, new: str, spelt: str) -> None:
    assert respelt(raw, new) == spelt


def test_text_that_begins_in_a_string_is_escaped_there() -> None:
    assert respelt("bob", 'a"b', in_string=True) == r"a\"b"
    assert respelt("bob", 'a"}', in_string=True) == 'a"}'
    assert respelt('x", "bob', 'x", "a\nb', in_string=True) == 'x", "a\\nb'


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.text(alphabet='ab"\\\n{é😀') | st.integers(0, 9) | st.just("SECRET"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='k"é'), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, st.booleans(), st.sampled_from(["[X]", "", "a b"]))
def test_every_redaction_of_a_value_gives_the_redacted_json(value: Any, is_ascii: bool, mask: str) -> None:
    raw = json.dumps(value, ensure_ascii=is_ascii)
    spelt = respelt(raw, decode(raw)[0].replace("SECRET", mask))
    assert json.loads(spelt) == json.loads(raw.replace("SECRET", mask))


@given(VALUES, st.lists(st.integers(1, 40)))
def test_nesting_is_followed_through_any_pieces(value: Any, cuts: list[int]) -> None:
    text = json.dumps(value)
    nesting = Nesting()
    bounds = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    for start, end in pairwise(bounds):
        nesting.feed(text[start:end])
        nesting.feed("")
    assert (nesting.in_string, nesting.depth, nesting.is_over) == (False, 0, False)
    assert nesting.is_closed is isinstance(value, list | dict)
    nesting.feed(" ")
    assert not nesting.is_over
    nesting.feed("x")
    assert nesting.is_over is nesting.is_closed
