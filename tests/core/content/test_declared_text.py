"""What an object or a media type says of the media beside it."""

from __future__ import annotations

import pytest

from extproc.core.content.declared_text import declares_text, declares_wide, is_text_type, wide_media
from extproc.core.errors import MalformedBody


@pytest.mark.parametrize(
    "kind",
    [
        "text/csv; charset=x",
        "application/json",
        "application/ld+json",
        "application/x-ndjson",
        "application/x-python-code",
        "application/x-httpd-php",
        "application/x-sh",
        "application/rtf",
        "application/vnd.zq+x+json",
        "application/toml",
        "application/typescript",
        "application/graphql",
        "message/rfc822",
        "image/svg+xml",
    ],
)
def test_types_of_texts(kind: str) -> None:
    assert is_text_type(kind)
    assert is_text_type(kind.upper())


@pytest.mark.parametrize(
    "kind",
    ["", "image/png", "application/pdf", "application/octet-stream", "application/shx", "application/" + "+" * 116],
)
def test_types_of_other_media(kind: str) -> None:
    assert not is_text_type(kind)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({"mimeType": "text/csv; charset=x"}, True),
        ({"mime_type": "application/ld+json"}, True),
        ({"media_type": "image/svg+xml"}, True),
        ({"media_type": "image/png", "mimeType": 5}, False),
        ({"format": "md"}, True),
        ({"format": "png"}, False),
        ({"format": 5}, False),
        ({"filename": "Notes for Tom.TXT"}, True),
        ({"fileName": "a.py"}, True),
        ({"filename": "x" * 999 + ".csv"}, True),
        ({"filename": "a.txt.png"}, False),
        ({"filename": None}, False),
        ({}, False),
    ],
)
def test_object_says_that_its_media_are_text(node: dict[str, object], expected: bool) -> None:
    assert declares_text(node) is expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("application/" + "a" * 100 + "+json", True),
        ("application/" + "a" * 128 + "+json", False),
        ("text/" + "a" * 999, True),
    ],
)
def test_only_the_beginning_of_a_type_counts(kind: str, expected: bool) -> None:
    assert declares_text({"mime_type": kind}) is expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("text/plain", False),
        ("text/plain;charset=UTF-8", False),
        ('text/plain; name=x; charset="latin1"', False),
        ("text/plain; charset=windows-1252;base64", False),
        ("text/plain;charset=utf-16", True),
        ("text/plain; charset = UTF-16LE", True),
    ],
)
def test_charsets_that_are_read(kind: str, expected: bool) -> None:
    assert declares_wide(kind) is expected
    assert wide_media({"mimeType": kind, "mime_type": 5}) is expected


@pytest.mark.parametrize("charset", ["gbk", "Shift_JIS", "koi8-r", "utf-32", "utf-7", "windows-1251", "'big5'"])
def test_other_charsets_are_unreadable(charset: str) -> None:
    with pytest.raises(MalformedBody):
        declares_wide(f"text/plain;charset={charset};base64")
    with pytest.raises(MalformedBody):
        wide_media({"mime_type": "text/plain", "mimeType": f"text/plain; charset={charset}"})
