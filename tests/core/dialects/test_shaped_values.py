"""The strings at places of addresses, media, seals and opaque values."""

from __future__ import annotations

from base64 import b64encode

import pytest

from extproc.core.dialects.found import Found, Mode
from extproc.core.dialects.leaf import Kind
from extproc.core.dialects.rules import media, opaque, seal, url
from extproc.core.dialects.shaped_values import ShapedValues
from extproc.core.dialects.table import Table
from extproc.core.errors import BodyTooLarge

PLACES = Table(media("picture"), opaque("cipher"), seal("signature"), url("link")).root.children
PICTURE = b64encode(bytes(range(256))).decode()
ENCODED = "YWIgYw=="


def read(mode: Mode = Mode.ANSWER) -> tuple[ShapedValues, Found]:
    found = Found(mode, locates=False)
    return ShapedValues(found, is_event=mode is Mode.EVENT), found


@pytest.mark.parametrize(
    ("key", "value"), [("picture", PICTURE), ("cipher", "a" * 99), ("signature", "c2ln"), ("link", "https://a/b")]
)
def test_value_of_the_shape_is_no_text(key: str, value: str) -> None:
    values, found = read()
    values.read(value, PLACES[key], (key,), {})
    found.end()
    assert found.leaves == []


@pytest.mark.parametrize("text", ["call Tom", "call-Tom-at-5pm!"])
@pytest.mark.parametrize("key", PLACES)
def test_value_of_another_shape_is_a_text(key: str, text: str) -> None:
    values, found = read()
    values.read(text, PLACES[key], (key,), {})
    found.end()
    assert [leaf.text for leaf in found.leaves] == [text]


def test_seal_of_an_event_is_kept() -> None:
    values, found = read(Mode.EVENT)
    values.read("c2ln", PLACES["signature"], ("signature",), {})
    assert [(leaf.kind, leaf.path) for leaf in found.leaves] == [(Kind.SEAL, ("signature",))]


def test_object_around_says_that_media_are_text() -> None:
    coded = ("пароль " * 20).encode("koi8-r")
    said, data = coded.decode("latin-1"), b64encode(coded).decode()
    beside = {"data": data}
    values, found = read()
    before = values.surround({"format": "txt"})
    values.read(data, PLACES["picture"], ("data",), {}, beside)
    values.surround(before)
    values.read(data, PLACES["picture"], ("data",), {}, beside)
    found.end()
    assert [leaf.text for leaf in found.leaves] == [said]


def test_number_of_media_in_a_document_is_bounded() -> None:
    values, _ = read()
    for _ in range(32_768):
        values.read(ENCODED, PLACES["picture"], ("picture",), {})
    with pytest.raises(BodyTooLarge):
        values.read(ENCODED, PLACES["picture"], ("picture",), {})
