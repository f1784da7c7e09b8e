"""The shapes of strings that hold no text."""

from __future__ import annotations

import tracemalloc
from base64 import b64decode, b64encode, encodebytes, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.content.shapes import (
    EncodedText,
    is_binary,
    looks_inert,
    looks_like_url,
    looks_opaque,
    read_media,
)
from extproc.core.errors import MalformedBody

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
PCM = bytes(range(7, 200)) * 2


@pytest.mark.parametrize(
    "value",
    [
        "gpt-4o",
        "chatcmpl-123",
        "@cf/meta/llama",
        "2024-01-01T00:00:00Z",
        "50%",
        "a=b",
        "a" * 256,
        "text/plain+x",
        "1.5e+3",
    ],
)
def test_identifiers_look_inert(value: str) -> None:
    assert looks_inert(value)
    assert looks_opaque(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "two words",
        "tom@example.com",
        "a" * 257,
        "line\n",
        "秘密の計画を漏らす",
        "käse",
        "a,b",
        "{x}",
        "'x'",
        "@",
        "<b>",
    ],
)
def test_other_values_do_not_look_inert(value: str) -> None:
    assert not looks_inert(value)


@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode, encodebytes])
def test_base64_of_any_length_looks_opaque(encode: object) -> None:
    assert looks_opaque(encode(PNG * 20).decode())  # type: ignore[operator]


def test_sentence_does_not_look_opaque() -> None:
    assert not looks_opaque("send the plan to Tom " * 20)
    assert not looks_opaque("send the plan\nto Tom")


@pytest.mark.parametrize("value", ["https://a/b?c=d#e", "HTTP://a", "gs://bucket/x", "s3://bucket/x", "https://ä/x"])
def test_addresses_look_like_urls(value: str) -> None:
    assert looks_like_url(value)


@pytest.mark.parametrize(
    "value", ["https://a b", "https://", "ftp://a", "javascript:x", "a/b", "https://" + "a" * 8192, ""]
)
def test_other_values_do_not_look_like_urls(value: str) -> None:
    assert not looks_like_url(value)


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,", "data:application/pdf;name=x.pdf;base64,"])
@pytest.mark.parametrize("data", [PNG, PCM, b"%PDF-1.4\n%\xe2\xe3\xcf\xd3", b"GIF89a\x01\x00"])
def test_binary_content_is_media(data: bytes, prefix: str) -> None:
    assert read_media(prefix + b64encode(data).decode()) is True


def test_short_values_are_media_only_with_a_known_signature() -> None:
    assert read_media(b64encode(b"\x00\x01\x02\xff").decode()) is False
    assert read_media("hunter2secret") is False
    assert read_media(b64encode(b"\xff\xd8\xff\xe0").decode()) is True


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "image/svg+xml", "application/ld+json", ""])
def test_text_in_a_data_url_is_read(kind: str) -> None:
    prefix = f"data:{kind};base64,"
    assert read_media(prefix + b64encode("Grüße an Tom".encode()).decode()) == EncodedText("Grüße an Tom", prefix)


@pytest.mark.parametrize("text", ["a plain text", '{"a": "b"}', "<svg><text>Tom</text></svg>", "é" * 100])
def test_text_in_base64_is_read(text: str) -> None:
    assert read_media(b64encode(text.encode()).decode()) == EncodedText(text)


@pytest.mark.parametrize("start", ["BMI,", "ID3", "RIFF", "GIF8", "OggS", "fLaC", "%PDF-", "II*"])
def test_text_that_begins_like_a_format_is_read(start: str) -> None:
    text = f"{start} secret words " * 10
    assert read_media(b64encode(text.encode()).decode()) == EncodedText(text)


def test_text_in_lines_of_base64_is_read() -> None:
    found = read_media(encodebytes(b"a long text " * 20).decode())
    assert isinstance(found, EncodedText)
    assert found.text == "a long text " * 20


def test_text_that_claims_to_be_text_is_never_media() -> None:
    assert read_media("data:text/plain;base64," + b64encode(b"\xff\x01" * 100).decode()) is False
    assert read_media("data:text/plain,some%20words") is False
    assert read_media("data:image/png;base64,no base64") is False
    assert read_media("a sentence") is False


@pytest.mark.parametrize("charset", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("is_text", [True, False])
def test_utf_16_is_read_and_encoded_again(charset: str, is_text: bool) -> None:
    given = "My name is Tom, né in Łódź. " * 9
    found = read_media(b64encode(given.encode(charset)).decode(), is_text=is_text)
    assert isinstance(found, EncodedText)
    assert found.text == given
    assert b64decode(found.encode(given.replace("Tom", "[N]"))) == given.replace("Tom", "[N]").encode(charset)


def test_big_endian_mark_is_kept() -> None:
    data = b"\xfe\xff" + "秘密".encode("utf-16-be")
    found = read_media(b64encode(data).decode())
    assert isinstance(found, EncodedText)
    assert (found.text, b64decode(found.encode("x"))) == ("秘密", b"\xfe\xff\x00x")


@pytest.mark.parametrize("is_text", [True, False])
def test_latin_1_is_read(is_text: bool) -> None:
    found = read_media(b64encode(("café de Tom " * 9).encode("latin-1")).decode(), is_text=is_text)
    assert isinstance(found, EncodedText)
    assert found.text == "café de Tom " * 9
    assert b64decode(found.encode("né à …")) == b"n\xe9 \xe0 ?"


def test_text_that_is_mostly_beyond_ascii_is_read_as_latin_1_only_if_it_is_said_to_be_text() -> None:
    data = b64encode(("пароль " * 20).encode("koi8-r")).decode()
    assert read_media(data) is True
    found = read_media(data, is_text=True)
    assert isinstance(found, EncodedText)
    assert found.charset == "latin-1"


@pytest.mark.parametrize("is_text", [True, False])
@pytest.mark.parametrize("place", [0, 20, -1])
@pytest.mark.parametrize("bad", [b"\xff", b"\x81\x93"])
def test_few_bytes_that_are_no_text_hide_nothing(bad: bytes, place: int, is_text: bool) -> None:
    words = "My password is élan vital. " * 9
    raw = words.encode()
    found = read_media(b64encode(raw[:place] + bad + raw[place:]).decode(), is_text=is_text)
    assert isinstance(found, EncodedText)
    assert found.text.count("My password is élan vital. ") >= 8


def test_control_characters_in_a_text_hide_nothing() -> None:
    found = read_media(b64encode(b"\x01" + b"my secret words " * 9).decode())
    assert found == EncodedText("\x01" + "my secret words " * 9)


def test_odd_byte_behind_utf_16_hides_nothing() -> None:
    for is_text in (True, False):
        found = read_media(b64encode("My name is Tom".encode("utf-16") * 3 + b"x").decode(), is_text=is_text)
        assert isinstance(found, EncodedText)
        assert "My name is Tom" in found.text


def test_pdf_is_media_although_it_is_mostly_text() -> None:
    assert read_media(b64encode(b"%PDF-1.4\n" + b"1 0 obj << /Type /Page >>\n" * 9 + b"\xff").decode()) is True
    assert read_media(b64encode(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n" + b"1 0 obj\n" * 9).decode()) is True


def test_charset_of_a_data_url_is_heeded() -> None:
    for charset in ("gbk", "utf-32"):
        with pytest.raises(MalformedBody):
            read_media(f"data:text/plain;charset={charset};base64,{b64encode(b'words').decode()}")
    with pytest.raises(MalformedBody):
        read_media(f"data:text/plain;charset=utf-16;base64,{b64encode(b'some words').decode()}")
    with pytest.raises(MalformedBody):
        read_media(b64encode(b"some words").decode(), is_wide=True)
    prefix = "data:;charset=utf-16;base64,"
    found = read_media(prefix + b64encode("пароль".encode("utf-16")).decode())
    assert isinstance(found, EncodedText)
    assert found.text == "пароль"


@pytest.mark.parametrize("words", ["hi", "password1234", "SomeLongWordWithoutSpaces42" * 4])
def test_words_that_are_said_to_be_text_stay_words(words: str) -> None:
    assert read_media(words, is_text=True) is False


def test_data_url_with_a_long_header_takes_little_memory() -> None:
    header = "data:text/plain" + ";" * 100_000 + ";BASE64,"
    value = header + b64encode(b"some words").decode()
    tracemalloc.start()
    media = read_media(value)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert media == EncodedText("some words", header)
    assert peak < 8 * len(value)


def test_text_with_a_binary_rest_is_media() -> None:
    assert read_media(b64encode(b"words " * 20 + bytes(range(128, 256))).decode()) is True


def test_short_text_with_a_binary_rest_is_another_value() -> None:
    assert read_media(b64encode(b"words\xc3").decode()) is False
    assert read_media("A") is False


def test_character_cut_by_the_head_does_not_make_a_text_binary() -> None:
    for shift in range(4):
        text = "x" * shift + "é" * 100
        assert read_media(b64encode(text.encode()).decode()) == EncodedText(text)


@pytest.mark.parametrize(
    "first", [b"\x89PNG", b"\xff\xd8", b"ID3\x03\x00", b"RIFF\x00\x00", b"a\x00", b"ok\xffok", b"\x7fELF\x02"]
)
def test_binary_body_begins_so(first: bytes) -> None:
    assert is_binary(first)


@pytest.mark.parametrize(
    "first", [b"", b"text\r\n\t\x0b", "é".encode(), "né€".encode()[:-1], b"<svg/>", b"{}", b"ok\xff"]
)
def test_text_is_not_binary(first: bytes) -> None:
    assert not is_binary(first)


# With NUL a text in UTF-8 may look like one in UTF-16.
@given(st.text(st.characters(exclude_characters="\0"), min_size=1), st.booleans())
def test_encoded_text_is_encoded_like_the_text_before(text: str, is_urlsafe: bool) -> None:
    encoded = EncodedText("", "data:text/plain;base64,", is_urlsafe).encode(text)
    found = read_media(encoded)
    assert isinstance(found, EncodedText) or is_binary(text.encode())
    assert not isinstance(found, EncodedText) or found.text == text
