"""Growing JSON arrays: for any bytes and any cut, no byte is lost and the elements are the same."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.content.document import MAX_DEPTH, Document
from extproc.core.content.json_array import END, ArrayDecoder, JSONElement, ending
from extproc.core.errors import BodyTooLarge, ContentError, MalformedBody
from tests.fakes.cuts import PLACES, bytewise, cut, run

AMPLE = 1 << 20
BOM = b"\xef\xbb\xbf"


def decode(*pieces: bytes, limit: int = AMPLE) -> list[JSONElement]:
    decoder = ArrayDecoder(limit)
    return [each for piece in pieces for each in decoder.feed(piece)] + list(decoder.finish())


def told(elements: list[JSONElement]) -> list[tuple[bytes, str | None]]:
    return [(each.raw, each.data) for each in elements]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"[]", [(b"[]", END)]),
        (b" [\n] \n", [(b" [\n]", END), (b" \n", None)]),
        (BOM + b"[{}]", [(BOM + b"[{}", "{}"), (b"]", END)]),
        (
            b'[{"a": 1}\n,\r\n{"b": [2, {"c": "}"}]}\n]\n',
            [
                (b'[{"a": 1}', '{"a": 1}'),
                (b'\n,\r\n{"b": [2, {"c": "}"}]}', '{"b": [2, {"c": "}"}]}'),
                (b"\n]", END),
                (b"\n", None),
            ],
        ),
        (
            rb'[{"a": "\"}]\\", "b\\\"{": "[" }]',
            [(rb'[{"a": "\"}]\\", "b\\\"{": "[" }', r'{"a": "\"}]\\", "b\\\"{": "[" }'), (b"]", END)],
        ),
        ('[{"é": "\u2028"}]'.encode(), [('[{"é": "\u2028"}'.encode(), '{"é": "\u2028"}'), (b"]", END)]),
    ],
)
def test_array_is_cut_behind_each_element(body: bytes, expected: list[tuple[bytes, str | None]]) -> None:
    assert told(decode(body)) == expected
    whole = [each for each in told(decode(*bytewise(body))) if each[1] is not None]
    assert whole == [each for each in expected if each[1] is not None]


def test_element_does_not_wait_for_what_follows() -> None:
    decoder = ArrayDecoder(AMPLE)
    assert told(list(decoder.feed(b'[{"a":1}'))) == [(b'[{"a":1}', '{"a":1}')]
    assert decoder.pending == 0
    assert told(list(decoder.feed(b', {"b":'))) == []
    assert decoder.pending == 7
    assert told(list(decoder.feed(b"2}]"))) == [(b', {"b":2}', '{"b":2}'), (b"]", END)]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'"[]"',
        b"[1]",
        b'["a"]',
        b"[[{}]]",
        b"[null]",
        b"[,{}]",
        b"[{},]",
        b"[{},,{}]",
        b"[{}{}]",
        b"[{} {}]",
        b"[{}:{}]",
        b"[}",
        b"[{}}",
        b"[{}],",
        b"[][",
        b"[{}]{}",
        b"\xef\xbb{}",
        b"[" + BOM + b"{}]",
        b" " + BOM + b"[]",
        b"\xff[]",
        b"data: []",
        b'[{"a":' + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b"}]",
        b'[{"\xff": 1}]',
        b'[{"a": "\xc3"}]',
    ],
)
def test_what_is_no_array_of_objects_is_malformed(body: bytes) -> None:
    for pieces in ([body], bytewise(body)):
        _, error, _ = run(ArrayDecoder(AMPLE), pieces)
        assert error is MalformedBody


@pytest.mark.parametrize("body", [b'[{"a": ]}]', b'[{"a"}]', b"[{]]", b'[{"a": 1,}]', b'[{"a": 1, "a": 2}]'])
def test_broken_element_is_seen_when_it_is_parsed(body: bytes) -> None:
    elements, _, _ = run(ArrayDecoder(AMPLE), [body])
    with pytest.raises(MalformedBody):
        Document(elements[0].data or "")


@pytest.mark.parametrize("body", [b"", b" ", b"[", b"[{", b'[{"', b'[{"a\\', b"[{}", b"[{},", b"[{}, {", BOM[:1], BOM])
def test_array_that_ends_early_is_malformed(body: bytes) -> None:
    decoder = ArrayDecoder(AMPLE)
    released = b"".join(each.raw for each in decoder.feed(body))
    with pytest.raises(MalformedBody):
        list(decoder.finish())
    assert released + decoder.take_rest() == body


def test_deepest_element_is_read() -> None:
    body = b'[{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}]"
    Document(decode(body)[0].data or "")


@pytest.mark.parametrize("body", [b'[{"a":"bc"}', b'[ {"a":1}  ', b"[           ", b"[{},        ", b'[{}, {"a":1}'])
def test_limit_holds_for_an_element_with_what_precedes_it(body: bytes) -> None:
    decoder = ArrayDecoder(8)
    with pytest.raises(BodyTooLarge):
        for _ in decoder.feed(body):
            pass
    assert body.endswith(decoder.take_rest())
    assert run(ArrayDecoder(13), [body + b"]"])[1] is not BodyTooLarge


def test_white_space_behind_the_array_is_not_kept() -> None:
    decoder = ArrayDecoder(8)
    assert [each.raw for each in decoder.feed(b"[]" + b" " * 6)] == [b"[]", b" " * 6]
    for _ in range(10):
        assert [each.raw for each in decoder.feed(b"\n" * 8)] == [b"\n" * 8]
    assert list(decoder.finish()) == []


def test_rewrite_keeps_what_precedes_the_element() -> None:
    first, second, end = decode(BOM + b'[ {"a":1}\n,\r\n{"b":2}]')
    assert first.with_data('{"x":0}') == BOM + b'[ {"x":0}'
    assert second.with_data('{"é":0}') == b"\n,\r\n" + '{"é":0}'.encode()
    assert end.raw == b"]"


@pytest.mark.parametrize("count", [0, 1, 2])
def test_array_can_end_with_a_refusal_behind_any_element(count: int) -> None:
    elements = decode(b'[{"a":"}"}\n,\r\n{"b":["]"]}\n]')
    released = b"".join(each.raw for each in elements[:count])
    assert json.loads(released + ending(released[-4:], b'{"error":1}'))[count:] == [{"error": 1}]


@pytest.mark.parametrize("space", [b"", b"\n", b" " * 9])
def test_nothing_is_added_to_an_array_that_has_ended(space: bytes) -> None:
    released = b"[{}]" + space
    assert ending(released[-4:], b'{"error":1}') == b""


# -- any cut -----------------------------------------------------------------------------------------------------------

PIECES = (
    *(b"[", b"]", b"{", b"}", b",", b" ", b"\n", b'"', b"\\", b'\\"', b":", b"1", b"null", b'"a":', b'"}"', b"{}"),
)
JUNK = st.lists(st.sampled_from(PIECES) | st.binary(max_size=2), max_size=20).map(b"".join)
VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | st.sampled_from(['"', "\\", "{", "]", '\\"'] * 2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=3)


@st.composite
def arrays(draw: st.DrawFn) -> tuple[list[dict[str, Any]], bytes]:
    objects = draw(st.lists(OBJECTS, max_size=5))
    space = st.sampled_from(["", " ", "\n", "\r\n", "\t  "])
    out = draw(space) + "["
    for number, each in enumerate(objects):
        out += draw(space) + "," * bool(number) + draw(space)
        out += json.dumps(each, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
    return objects, (out + draw(space) + "]" + draw(space)).encode("utf-8", "replace")


@given(arrays(), PLACES)
@settings(max_examples=200)
def test_elements_are_those_of_the_array(case: tuple[list[dict[str, Any]], bytes], places: list[int]) -> None:
    objects, body = case
    for pieces in ([body], cut(body, places), bytewise(body)):
        units, error, rest = run(ArrayDecoder(AMPLE), pieces)
        assert (error, rest) == (None, b"")
        assert b"".join(unit.raw for unit in units) == body
        data = [unit.data for unit in units if unit.data is not None]
        assert data.pop() == END
        assert [json.loads(each) for each in data] == json.loads(body)
        assert len(data) == len(objects)


@given(arrays(), st.integers(0, 2**32))
def test_array_can_end_behind_every_byte(case: tuple[Any, bytes], place: int) -> None:
    """What was released before the upstream broke off, and a refusal, are one valid array."""
    body = case[1]
    units, _error, _rest = run(ArrayDecoder(AMPLE), [body[: place % (len(body) + 1)]])
    released = b"".join(unit.raw for unit in units)
    found = json.loads(released + ending(released[-4:], b'{"error": 1}'))
    assert found[:-1] == json.loads(body)[: len(found) - 1]
    assert found[-1:] == [{"error": 1}] or found == json.loads(body)


@given(JUNK, PLACES, st.sampled_from([8, 30, AMPLE]))
@settings(max_examples=300)
def test_no_byte_is_lost_and_the_cut_does_not_matter(body: bytes, places: list[int], limit: int) -> None:
    units, error, rest = run(ArrayDecoder(limit), cut(body, places))
    assert b"".join(unit.raw for unit in units) + rest == body
    assert (rest == b"") >= (error is None)
    assert all(len(unit.raw) <= limit for unit in units)
    whole, whole_error, _ = run(ArrayDecoder(AMPLE), [body])
    if limit == AMPLE:
        assert error is whole_error
        assert [unit.data for unit in units if unit.data] == [unit.data for unit in whole if unit.data]


@given(JUNK)
@settings(max_examples=300)
def test_what_a_parser_reads_is_read_and_nothing_else(body: bytes) -> None:
    units, error, _ = run(ArrayDecoder(AMPLE), [body])
    try:
        for unit in units:
            if unit.data is not None and unit.data != END:
                Document(unit.data)
    except ContentError:
        error = MalformedBody
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    is_array = isinstance(parsed, list) and all(isinstance(each, dict) for each in parsed)
    if is_array and not re.search(rb'"a":.*"a":', body):
        assert error is None
    if error is None:
        assert is_array


def test_large_elements_are_read_in_linear_steps() -> None:
    """No part of an element is read again with each piece, and no input makes the scan slow."""
    for inner in (b"[]," * 30_000 + b"1", b'"' + b'\\"' * 40_000 + b'"', b"[[1]]," * 10_000 + b"1", b"1" * 90_000):
        body = b'[{"a":[' + inner + b"]}]"
        for size in (len(body), 100, 7):
            pieces = [body[i : i + size] for i in range(0, len(body), size)]
            units, error, _ = run(ArrayDecoder(1 << 21), pieces)
            assert (error, len(units)) == (None, 2)
