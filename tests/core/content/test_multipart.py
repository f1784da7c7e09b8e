"""Forms: what is read, what is unreadable, and that any cut of the bytes gives the same parts."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.content.framing import Framing
from extproc.core.content.multipart import HEADER_BYTES, MOST_PARTS, FormDecoder, FormPart
from extproc.core.content.part_headers import boundary_of, disposition_of
from extproc.core.errors import BodyTooLarge, MalformedBody
from tests.fakes.cuts import PLACES, bytewise, cut, run
from tests.fakes.forms import BOUNDARY, PNG, form, part

AMPLE = 1 << 20


def decode(*pieces: bytes, limit: int = AMPLE) -> list[FormPart]:
    decoder = FormDecoder(BOUNDARY, limit)
    return [each for piece in pieces for each in decoder.feed(piece)] + list(decoder.finish())


def one(raw: bytes) -> FormPart:
    found, *ends = decode(form(raw))
    assert all(each.data is None and not each.start for each in ends)
    return found


def is_malformed(body: bytes) -> bool:
    found = {run(FormDecoder(BOUNDARY, AMPLE), pieces)[1] for pieces in ([body], bytewise(body))}
    assert len(found) == 1
    return found == {MalformedBody}


# -- parts -------------------------------------------------------------------------------------------------------------


def test_form_is_cut_before_each_boundary() -> None:
    body = form(part("model", b"m"), part("prompt", "Ask é\r\n\r\n- Tom".encode()), part("i", PNG, more="; filename=x"))
    found = decode(body)
    assert b"".join(each.raw for each in found) == body
    assert [(each.name, each.filename, each.data) for each in found] == [
        ("model", None, "m"),
        ("prompt", None, "Ask é\r\n\r\n- Tom"),
        ("i", "x", None),
        ("", None, None),
        ("", None, None),
    ]
    assert found[0].raw.startswith(b"--xYz-1\r\n")
    assert found[1].raw.startswith(b"\r\n--xYz-1\r\n")
    assert found[3].raw == b"\r\n--xYz-1--"


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\n\r\n", b"\n"])
@pytest.mark.parametrize("begin", [b"", b"\r\n"])
def test_line_ends_around_a_form_are_kept(begin: bytes, end: bytes) -> None:
    for pieces in ([begin + form(part(), end=end)], bytewise(begin + form(part(), end=end))):
        found = decode(*pieces)
        assert b"".join(each.raw for each in found) == begin + form(part(), end=end)
        assert [each.data for each in found if each.start] == ["text"]


def test_part_waits_for_the_boundary_behind_it() -> None:
    decoder = FormDecoder(BOUNDARY, AMPLE)
    begun = b"--xYz-1\r\n" + part()
    assert list(decoder.feed(begun + b"\r\n--xYz-")) == []
    assert decoder.pending == len(begun) + 8
    assert [each.raw for each in decoder.feed(b"1")] == [begun]


def test_form_without_parts_is_read() -> None:
    assert [each.raw for each in decode(form(end=b""))] == [b"--xYz-1--"]


@pytest.mark.parametrize(
    ("more", "headers", "framing"),
    [
        ("", (), Framing.UNKNOWN),
        ("", ("Content-Type: text/plain",), Framing.UNKNOWN),
        ("", ("content-type: TEXT/plain; Charset=UTF-8",), Framing.UNKNOWN),
        ("; filename=a.txt", ("Content-Type: text/csv",), Framing.UNKNOWN),
        ("; filename=a.txt", ("Content-Type: application/octet-stream",), Framing.UNKNOWN),
        ("", ("Content-Type: application/json",), Framing.WHOLE),
        ("; filename=a.json", (), Framing.WHOLE),
        ("", ("Content-Type: application/jsonl",), Framing.JSON_LINES),
        ("; filename=a.JSONL", ("Content-Type: application/octet-stream",), Framing.JSON_LINES),
        ('; filename="a b.jsonl"', ("Content-Type: text/plain",), Framing.JSON_LINES),
        ("; filename=x; filename*=UTF-8''a%20b.ndjson", (), Framing.JSON_LINES),
        ('; filename="a \\"b\\".jsonl"', ("Content-Type: application/octet-stream",), Framing.JSON_LINES),
        ('; filename="\udce9.json"', (), Framing.WHOLE),
        ("", ("Content-Type: image/svg+xml",), Framing.UNKNOWN),
        ("", ("Content-Transfer-Encoding: 8Bit", "X-A: b", "X-B:"), Framing.UNKNOWN),
    ],
)
def test_text_is_read_by_type_and_name(more: str, headers: Sequence[str], framing: Framing) -> None:
    found = one(part("a", b'{"x": 1}', *headers, more=more))
    assert (found.data, found.framing) == ('{"x": 1}', framing)


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "text/plain", ""])
@pytest.mark.parametrize("more", ["", '; filename=""', "; filename*=utf-8''"])
def test_field_without_the_name_of_a_file_is_a_text(kind: str, more: str) -> None:
    headers = [f"Content-Type: {kind}"] if kind else []
    assert one(part("a", b"\x01Ask Tom", *headers, more=more)).data == "\x01Ask Tom"


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "audio/mpeg", ""])
@pytest.mark.parametrize("content", [PNG, b"\xff\xfb\x90", b"\x00", b"x" * 63 + b"\x00", b"a\xff" + b"x" * 99])
def test_media_have_no_data(kind: str, content: bytes) -> None:
    headers = [f"Content-Type: {kind}"] if kind else []
    assert one(part("a", content, *headers, more="; filename=a.bin")).data is None


@pytest.mark.parametrize(
    ("more", "headers", "content"),
    [
        ("", (), PNG),  # a field, and no file
        ("", ("Content-Type: image/png",), PNG),
        ('; filename=""', ("Content-Type: application/octet-stream",), PNG),
        ("", ("Content-Type: text/plain",), PNG),
        ("; filename=a.jsonl", ("Content-Type: image/png",), PNG),
        ("; filename=a.png", ("Content-Type: image/png",), b"x" * 64 + b"\xff"),  # it does not look like an image
        ("; filename=a.png", ("Content-Type: application/json",), b"\xff"),
        ("", (), b"a\x00b"),
        ("", (), "é".encode("utf-16")),
        ("", (), "é".encode("latin-1")),
        ("", ("Content-Type: text/plain; charset=iso-8859-1",), "é".encode("latin-1")),
        ("", ("Content-Type: text/plain; charset=utf-16",), b"x"),
        ("", ("Content-Type: text/plain; charset=utf-7",), b"x"),
        ("", ("Content-Type: text/plain; charset=iso-2022-jp",), b"x"),
        ("; filename*=utf-8''a.png", ("Content-Type: image/png",), PNG),  # some servers see no file
        ("; filename=; filename*=utf-8''a.png", ("Content-Type: image/png",), PNG),
        ('; filename=";a.png"', ("Content-Type: image/png",), PNG),
        ('; filename=" "', ("Content-Type: image/png",), PNG),
    ],
)
def test_text_that_is_not_utf_8_is_malformed(more: str, headers: Sequence[str], content: bytes) -> None:
    assert is_malformed(form(part("a", content, *headers, more=more)))


def test_charset_of_all_parts_is_read() -> None:
    found = one(part("_charset_", b"UTF-8"))
    assert found.data == "UTF-8"
    with pytest.raises(MalformedBody):
        found.with_data("utf-16")
    assert one(part("_charset_", b"ISO-8859-1")).data == "ISO-8859-1"
    assert is_malformed(form(part("_charset_", b"utf-7")))


@pytest.mark.parametrize("charset", ["ISO-8859-1", "latin1", "windows-1252", '"us-ascii"'])
@pytest.mark.parametrize("text", ["Ask Tom", "Ask né"])
def test_utf_8_that_is_called_latin_is_read(charset: str, text: str) -> None:
    """Apache HttpClient calls each text so that has no type of its own."""
    found = one(part("a", text.encode(), f"Content-Type: text/plain; charset={charset}"))
    assert found.data == text


@pytest.mark.parametrize(
    "header",
    [
        "Content-ID: <a.1@example.com>",
        "Content-Id: <a>",
        "content-id: a",
        "Content-Transfer-Encoding: binary",
        "Content-Transfer-Encoding: 8bit",
        "Content-Transfer-Encoding: 7BIT",
    ],
)
def test_headers_that_say_nothing_pass(header: str) -> None:
    assert one(part("a", b"text", header)).data == "text"
    assert one(part("a", PNG, header, more="; filename=a.png")).data is None


@pytest.mark.parametrize(
    ("more", "filename"),
    [
        ("", None),
        ('; filename=""', ""),
        ("; filename=a.txt", "a.txt"),
        ('; filename="Ask Tom; now.txt"', "Ask Tom; now.txt"),
        ('; filename="é.txt"', "é.txt"),
        ('; FileName="a\\b.txt"', "a\\b.txt\nab.txt"),
        ('; filename="a\\"b\\" c.txt"', 'a"b" c.txt'),
        ('; filename="\\"\\""', '""'),
        ('; filename="a\\"b.txt"; filename*=utf-8\'\'%22', 'a"b.txt\n"'),
        ('; size=1; filename="\\a\\"b"; x=y', '\\a"b\na"b'),
        ('; filename="a%22b%22 c.txt"', "a%22b%22 c.txt"),
        ('; filename="n\udce9e.txt"', "n\ufffde.txt\nnée.txt"),
        ('; filename="\udcff é\\b"', "\ufffd é\\b\n\ufffd éb\nÿ Ã©\\b\nÿ Ã©b"),
        ('; filename="surname=x.txt"', "surname=x.txt"),
        (";filename*=utf-8''%C3%A9%20x", "é x"),
        ("; filename=a; filename*=UTF-8'en'b", "a\nb"),
        ("; filename=a; filename*=UTF-8''a", "a"),
    ],
)
def test_name_of_a_file_is_read(more: str, filename: str | None) -> None:
    assert one(part("a", more=more)).filename == filename


# -- rewrites ----------------------------------------------------------------------------------------------------------


def test_rewrite_keeps_boundary_and_headers() -> None:
    raw = part("a", b"text", "Content-TYPE:  text/plain ;charset=utf-8", "X-A:b ")
    found = one(raw)
    assert found.with_data("né\r\n") == found.raw.removesuffix(b"text") + "né\r\n".encode()


@pytest.mark.parametrize("name", ["Content-Length: 4", "content-md5: abcd", "Digest: x"])
def test_part_that_tells_its_length_cannot_be_rewritten(name: str) -> None:
    found = one(part("a", b"text", name))
    assert found.data == "text"
    with pytest.raises(MalformedBody):
        found.with_data("texT")


@pytest.mark.parametrize("text", ["--xYz-1", "a\r\n--xYz-1--\r\n", "b--xYz-12"])
def test_rewrite_cannot_have_the_boundary(text: str) -> None:
    with pytest.raises(MalformedBody):
        one(part()).with_data(text)


# -- what servers could read in two ways -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"preamble\r\n" + form(part()),
        b"\n" + form(part()),
        form(part(), end=b"epilogue"),
        form(part(), end=b"\r\n" + form(part())),
        form(part())[:-3],
        form(part())[:-4],
        form(part()).replace(b"--xYz-1--", b""),
        form(part(content=b"--xYz-1")),
        form(part(content=b"a\n--xYz-1\r\n")),
        form(part(content=b"\r\n--xYz-1x\r\n")),
        form(part(content=b"\r\n--xYz-1\n")),
        form(part(content=b"\r\n--xYz-1 \r\n")),
        form(part(content=b"\r\n--xYz-1-x\r\n")),
        form(b""),
        form(b"text"),
        form(b"\r\ntext"),
        form(part()[:-8]),
        form(part("--xYz-1")),
        form(part(more=" --xYz-1")),
    ],
)
def test_unclear_boundaries_are_malformed(body: bytes) -> None:
    assert is_malformed(body)


@pytest.mark.parametrize(
    "raw",
    [
        b"Content-Type: text/plain\r\n\r\nx",
        b"Content-Disposition: attachment; name=a\r\n\r\nx",
        b"Content-Disposition: form-data\r\n\r\nx",
        b"Content-Disposition: form-data; filename=a\r\n\r\nx",
        b"Content-Disposition:\r\n\r\nx",
        b"Content-Disposition: ; name=a\r\n\r\nx",
        b"Content-Disposition : form-data; name=a\r\n\r\nx",
        b"Content-Disposition: form-data;\r\n name=a\r\n\r\nx",
        b"Content-Disposition: form-data; name=a\nX-A: b\r\n\r\nx",
        b"Content-Disposition: form-data; name=a\rX-A: b\r\n\r\nx",
        b"Content-Disposition: form-data; name=a\0\r\n\r\nx",
        b"Content-Disposition: form-data; name=\xff\r\n\r\nx",
        b": form-data; name=a\r\n\r\nx",
        b"no header\r\n\r\nx",
        part("a", b"x", 'Content-Disposition: form-data; name="b"'),
        part("a", b"x", "Content-Type: text/plain", "content-type: text/plain"),
        part("a", b"x", "Content-Type: multipart/mixed; boundary=b"),
        part("a", b"x", "Content-Type: message/rfc822"),
        part("a", b"x", "Content-Type: text/plain; title=two words"),
        part("a", b"x", 'Content-Type: text/plain; title="two words"'),
        part("a", b"x", "Content-Type: text/plain; charset=utf-8; charset=utf-8"),
        part("a", b"x", "Content-Type: text plain"),
        part("a", b"x", f"Content-Type: {'x' * 257}"),
        part("a", b"x", "Content-Transfer-Encoding: base64"),
        part("a", b"x", "Content-Transfer-Encoding: quoted-printable"),
        part("a", b"x", "X-Prompt: Ask Tom"),
        part("a", b"x", *(f"X-{number}: a" for number in range(16))),
        part("a", more="; name=b"),
        part("a", more="; NAME=b"),
        part("a", more="; name*=utf-8''b"),
        part("a", more="; filename=a; filename=b"),
        part("a", more="; filename*=a; filename*=b"),
        part("a", more="; filename*=latin-1''a"),
        part("a", more="; filename*=utf-8''%ff"),
        part("a", more="; filename*=a"),
        part("a", more='; filename="a'),
        part("a", more="; filename*=utf-8''\udce9"),
        part("a", more="; filename*0=a"),
        part("a", more="; name*0=b"),
        part("a", more="; name*=b"),
        part("a", more="; filename=it's"),
        part("a", more="; x='; filename=b'"),
        part("a", more='; filename="a\\";'),
        part("a", more='; filename="a\\\\"'),
        part("a", more='; filename="a; name=b"'),
        part("a", more='; filename="a;Name*0 = b"'),
        part("a", more='; filename="a; filename=b"'),
        part("a", more='; filename="a\\"; name=\\"b"'),
        part("a", more='; filename="a\\" name=b"'),
        part("a", more='; x="a\\"b"'),
        b'Content-Disposition: form-data; filename="a\\"b"; name="a"\r\n\r\nx',
        part("a", b"x", "Content-ID: Ask Tom"),
        part("a", b"x", "Content-ID: <Ask Tom>"),
        part("a", b"x", "Content-ID: <a>", "Content-ID: <a>"),
        part("a", b"x", "X-Content-ID: <a>"),
        part("a", b"x", "X-A: \udce9"),
        part("a", b"x", 'Content-Type: text/plain; x="\\""'),
        part("a", more='; filename=a"b"'),
        part("a", more="; filename=a b"),
        part("a", more="; filename"),
        part("a", more=";"),
        part("a", more="; size=two+words; note='a b'"),
        part("a\\b"),
        part('a\\"b'),
        part("a;b"),
        part("\udce9"),
        part('a"b'),
    ],
)
def test_unclear_headers_are_malformed(raw: bytes) -> None:
    assert is_malformed(form(raw))


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        ("multipart/form-data; boundary=xYz-1", "xYz-1"),
        ('multipart/form-data; charset=utf-8; Boundary="a b,c=d"', "a b,c=d"),
        ("multipart/form-data; boundary=xYz-1; charset=ISO-8859-1", "xYz-1"),
        ("multipart/form-data; charset=Latin1; boundary=xYz-1; version=1.0", "xYz-1"),
        ("Multipart/Form-Data;boundary=----WebKitFormBoundary0", "----WebKitFormBoundary0"),
        (f"multipart/form-data; boundary={'x' * 70}", "x" * 70),
    ],
)
def test_boundary_is_read(header: str, boundary: str) -> None:
    assert boundary_of(header) == boundary


@pytest.mark.parametrize(
    "header",
    [
        "",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        'multipart/form-data; boundary="a "',
        'multipart/form-data; boundary="a\r\nb"',
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary=a; boundary*=utf-8''b;",
        "multipart/form-data; boundary=a; boundary*=utf-8''b",
        "multipart/form-data; boundary=a; boundary*0=b",
        'multipart/form-data; x="; boundary=b; y="; boundary=a',
        'multipart/form-data; x="\\"; boundary=b; y=\\""; boundary=a',
        "multipart/form-data; x='; boundary=b; y='; boundary=a",
        "multipart/form-data; boundary=a; title=two+words'",
        "multipart/form-data; boundary=a; charset=utf-7",
        "multipart/form-data; boundary=a; charset=utf-16",
        "multipart/form-data; boundary=a; charset=unicode_escape",
        "multipart/form-data; boundary=é",
        f"multipart/form-data; boundary={'x' * 71}",
        ", multipart/form-data; boundary=a b",
    ],
)
def test_unclear_boundary_is_malformed(header: str) -> None:
    with pytest.raises(MalformedBody):
        boundary_of(header)


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_number_of_parts_is_bounded() -> None:
    assert len(decode(form(*[part()] * MOST_PARTS, end=b""))) == MOST_PARTS + 1
    _, error, _ = run(FormDecoder(BOUNDARY, AMPLE), [form(*[part()] * (MOST_PARTS + 1))])
    assert error is BodyTooLarge


@pytest.mark.parametrize("end", [form(part()), b""])
def test_headers_are_bounded(end: bytes) -> None:
    long = b"--xYz-1\r\nX: " + b"x" * HEADER_BYTES + b"\r\n\r\n"
    for pieces in ([long + end], bytewise(long + end)):
        _, error, rest = run(FormDecoder(BOUNDARY, AMPLE), pieces)
        assert error is BodyTooLarge
        assert rest == long + end


def test_part_is_bounded() -> None:
    body = form(part(content=b"x" * 100), end=b"")
    assert run(FormDecoder(BOUNDARY, 100), [body])[1] is BodyTooLarge
    assert run(FormDecoder(BOUNDARY, 100), bytewise(body))[1] is BodyTooLarge
    assert run(FormDecoder(BOUNDARY, 200), bytewise(body))[1] is None
    assert run(FormDecoder(BOUNDARY, 8), [form()])[1] is BodyTooLarge


def test_large_part_is_read_in_linear_steps() -> None:
    """Byte by byte, no part of a file is searched again. Pieces of boundaries do not make the search slow."""
    for content in (PNG * 6_000, b"\x00" + b"\r\n--xYz-" * 9_000, b"\x00" + b"-" * 90_000, b"\x00" + b"\r" * 90_000):
        body = form(part("a", content, more="; filename=a"))
        found = decode(*bytewise(body))
        assert found[0].raw.endswith(content)


# -- any cut -----------------------------------------------------------------------------------------------------------

PIECES = (
    b"\r\n",
    b"\r",
    b"\n",
    b"--",
    b"--xYz-1",
    b"\r\n--xYz-1\r\n",
    b"\r\n--xYz-1--",
    b"x",
    b"\xff",
    b"\0",
    b": ",
    b";",
)
CONTENTS = st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=8).map(b"".join)
NAMES = st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=5)
PARTS = st.builds(
    lambda name, content, more, header: part(name, content, *header, more=more),
    NAMES,
    CONTENTS | st.text(max_size=12).map(str.encode),
    st.sampled_from(
        [
            "",
            "; filename=a",
            "; filename=a.jsonl",
            '; filename="a b"',
            '; filename="a\\"b"',
            '; filename="\udce9"',
            "; filename=a; filename*=UTF-8''%C3%A9",
        ]
    ),
    st.sampled_from(
        [
            (),
            ("Content-Type: text/plain",),
            ("Content-Type: image/png",),
            ("X-A: b",),
            ("Content-ID: <a@b>", "Content-Transfer-Encoding: binary"),
            ("Content-Type: text/plain; charset=ISO-8859-1", "Content-Transfer-Encoding: 8bit"),
        ]
    ),
)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=20)
BODIES = st.lists(PARTS, max_size=4).map(lambda parts: form(*parts)) | CONTENTS


@given(BODIES, PLACES, st.sampled_from([60, 100, AMPLE]))
@settings(max_examples=300)
def test_no_byte_is_lost_and_the_cut_does_not_matter(body: bytes, places: list[int], limit: int) -> None:
    units, error, rest = run(FormDecoder(BOUNDARY, limit), cut(body, places))
    assert b"".join(unit.raw for unit in units) + rest == body
    assert (rest == b"") >= (error is None)
    assert all(len(unit.raw) <= limit for unit in units)
    whole, whole_error, _ = run(FormDecoder(BOUNDARY, AMPLE), [body])
    if limit == AMPLE:
        assert error is whole_error
        read = [unit for unit in units if isinstance(unit, FormPart) and unit.start]
        assert read == [unit for unit in whole if isinstance(unit, FormPart) and unit.start]


@given(st.lists(PARTS, max_size=4), PLACES)
@settings(max_examples=200)
def test_parts_are_those_of_another_parser(parts: list[bytes], places: list[int]) -> None:
    """Python's own parser for mail, which is lenient, finds the same parts in each form that is read."""
    body = form(*parts)
    units, error, _ = run(FormDecoder(BOUNDARY, AMPLE), cut(body, places))
    if error is not None:
        return
    head = b"Content-Type: multipart/form-data; boundary=xYz-1\r\n\r\n"
    message = email.message_from_bytes(head + body, policy=email.policy.compat32)
    others = message.get_payload()
    found = [unit for unit in units if isinstance(unit, FormPart) and unit.start]
    assert isinstance(others, list) or not found
    for unit, other, raw in zip(found, others if found else [], parts, strict=True):
        assert isinstance(other, email.message.Message)
        assert unit.name == other.get_param("name", header="content-disposition")
        assert unit.raw[unit.start :] == raw.partition(b"\r\n\r\n")[2]
        if b"\r" not in unit.raw[unit.start :]:
            assert other.get_payload(decode=True) == unit.raw[unit.start :]


@given(st.lists(PARTS, min_size=1, max_size=3), WORDS, st.integers(0, 2))
def test_rewritten_form_has_the_new_text_and_nothing_else(parts: list[bytes], text: str, which: int) -> None:
    units, error, _ = run(FormDecoder(BOUNDARY, AMPLE), [form(*parts)])
    found = [unit for unit in units if isinstance(unit, FormPart) and unit.start]
    if error is not None or found[which % len(found)].data is None:
        return
    changed = found[which % len(found)]
    body = b"".join(unit.with_data(text) if unit is changed else unit.raw for unit in units)
    again = [each for each in decode(body) if each.start]
    assert [(each.name, each.filename, each.data) for each in again] == [
        (each.name, each.filename, text if each is changed else each.data) for each in found
    ]


# -- other readers of the same headers ---------------------------------------------------------------------------------

SAID = st.lists(
    st.sampled_from(
        ["a", "b", "é", "\udce9", '"', '\\"', "\\", ";", "; ", "'", "=", " ", "name=", "filename=", "name*=", "%22"]
    ),
    max_size=8,
).map("".join)
PARAMETERS = st.lists(
    st.builds(
        lambda name, text, quote: f"; {name}={quote}{text}{quote}",
        st.sampled_from(["name", "filename", "filename*", "x", "name*0"]),
        SAID,
        st.sampled_from(['"', "", "'"]),
    ),
    max_size=4,
).map("".join)


def splits(value: str) -> list[list[str]]:
    """Return the parameters of a header as careless readers find them."""

    def cut_outside(ends: str, quotes: str, *, escapes: bool) -> list[str]:
        pieces, quote, before = [""], "", ""
        for each in value:
            if each in ends and not quote:
                pieces.append("")
            else:
                pieces[-1] += each
                if not (escapes and before == "\\") and each in quotes and quote in ("", each):
                    quote = "" if quote else each
            before = each
        return pieces

    return [
        value.split(";"),
        re.split(r"[;\"]\s*(?=(?:file)?name)", value),
        cut_outside(";", '"', escapes=False),
        cut_outside(";", '"', escapes=True),
        cut_outside(";", "\"'", escapes=True),
        cut_outside(";", "\"'", escapes=False),
    ]


@given(PARAMETERS | SAID.map(lambda more: f'; name="file"; filename="{more}"'))
@settings(max_examples=1000)
def test_other_readers_find_the_same_name_and_file(parameters: str) -> None:
    """Each reading of an accepted header has one name, the same one, and has a file where ours has one."""
    try:
        found = disposition_of("form-data" + parameters)
    except MalformedBody:
        return
    for pieces in splits("form-data" + parameters):
        pairs = [piece.strip().partition("=") for piece in pieces]
        names = [text.strip('"') for key, _, text in pairs if key.strip().rstrip("*0").lower() == "name"]
        assert names == [found.name] or not found.name  # without a name it is a text, whatever others call it
        files = [text.strip('"') for key, _, text in pairs if key.strip().lower() == "filename"]
        assert any(files) or not found.is_file


@given(SAID)
def test_each_reading_of_the_name_of_a_file_is_inspected(said: str) -> None:
    """No word of the name is lost, whichever escapes and bytes a server understands."""
    try:
        found = disposition_of(f'form-data; name="file"; filename="{said}"').filename
    except MalformedBody:
        return
    assert found is not None
    read = found.split("\n")
    raw = said.encode("utf-8", "surrogateescape")
    for each in (raw.decode("latin-1"), raw.decode("utf-8", "replace")):
        is_utf_8 = raw.decode("utf-8", "ignore").encode() == raw
        if not is_utf_8 or each == said:
            assert each.replace('\\"', '"') in read
            assert re.sub(r"\\(.)", r"\1", each) in read
