"""The AWS event stream: vectors from the specification, recorded streams, broken frames, and any cut of the bytes."""

from __future__ import annotations

import json
from base64 import b64encode
from binascii import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.content.aws_event_stream import Frame, FrameDecoder, exception_frame
from extproc.core.content.document import Document
from extproc.core.errors import BodyTooLarge, ContentError, MalformedBody
from tests.fakes.aws import event, frame, header, string, wrapped
from tests.fakes.cuts import PLACES, bytewise, cut, run
from tests.fakes.recorded import FOLDERS, Recorded, recorded

AMPLE = 1 << 20

# Published vectors of the encoding: an empty message, one with an integer, and one with a string header.
EMPTY = bytes.fromhex("000000100000000005c248eb7d98c8ff")
INTEGER = bytes.fromhex("0000002d0000001041c424b80a6576656e742d747970650400 00a00c7b27666f6f273a27626172277d36f480a0")
STRING = bytes.fromhex(
    "0000003d0000002007fd83960c636f6e74656e742d7479706507001061 70706c69636174696f6e2f6a736f6e"
    "7b27666f6f273a27626172277d8d9c08b1"
)

RECORDED = [one for one in recorded(*FOLDERS) if one.content_type == "application/vnd.amazon.eventstream"]


def decode(*pieces: bytes, limit: int = AMPLE) -> list[Frame]:
    decoder = FrameDecoder(limit)
    return [each for piece in pieces for each in decoder.feed(piece)] + list(decoder.finish())


def one(raw: bytes) -> Frame:
    (found,) = decode(raw)
    assert found.raw == raw
    return found


# -- the encoding ------------------------------------------------------------------------------------------------------


def test_published_vectors_are_read() -> None:
    assert one(EMPTY) == Frame(EMPTY, {})
    assert one(INTEGER).headers == {"event-type": 40972}
    found = one(STRING)
    assert found.headers == {"content-type": "application/json"}
    assert (found.data, found.is_foreign, found.payload) == ("{'foo':'bar'}", True, b"{'foo':'bar'}")


@pytest.mark.parametrize("vector", [INTEGER, STRING])
def test_published_vectors_are_made(vector: bytes) -> None:
    found = one(vector)
    other = found.with_data("new")
    assert other != vector
    assert one(other).data == "new"
    assert one(other).with_data("{'foo':'bar'}") == vector


def test_values_of_all_types_are_read_and_kept() -> None:
    block = (
        header("t", 0, b""),
        header("f", 1, b""),
        header("byte", 2, b"\xfe"),
        header("short", 3, b"\xff\x00"),
        header("int", 4, b"\x00\x00\x01\x00"),
        header("long", 5, b"\xff" * 8),
        header("bytes", 6, b"\x00\x03\xff\x00\x01"),
        string("string", "value"),
        header("time", 8, (1_700_000_000_000).to_bytes(8, "big")),
        header("uuid", 9, bytes(range(16))),
        string(":content-type", "text/plain; charset=utf-8"),
        string("empty", ""),
    )
    found = one(frame(b"{}", *block))
    assert found.headers == {
        "t": True,
        "f": False,
        "byte": -2,
        "short": -256,
        "int": 256,
        "long": -1,
        "bytes": b"\xff\x00\x01",
        "string": "value",
        "time": 1_700_000_000_000,
        "uuid": "000102030405060708090a0b0c0d0e0f",
        ":content-type": "text/plain; charset=utf-8",
        "empty": "",
    }
    assert found.with_data('{"a":1}') == frame(b'{"a":1}', *block)


def test_types_of_messages_are_read() -> None:
    found = one(event("messageStart", {"role": "assistant"}))
    assert (found.message_type, found.event_type, found.headers.get(":exception-type")) == (
        "event",
        "messageStart",
        None,
    )
    assert found.is_foreign is False
    other = one(frame(b"{}", header(":event-type", 0, b"")))
    assert (other.message_type, other.event_type) == ("", "")


def test_exception_frame_is_one_of_the_encoding() -> None:
    found = one(exception_frame("validationException", b'{"message":"no"}'))
    assert (found.message_type, found.headers.get(":exception-type"), found.data) == (
        "exception",
        "validationException",
        '{"message":"no"}',
    )
    assert found.raw == frame(
        b'{"message":"no"}',
        string(":exception-type", "validationException"),
        string(":content-type", "application/json"),
        string(":message-type", "exception"),
    )


@pytest.mark.corpus
@pytest.mark.parametrize("recording", RECORDED, ids=lambda one: one.name)
def test_recorded_streams_are_read_and_made_anew(recording: Recorded) -> None:
    body = recording.response or b""
    frames = decode(body)
    assert b"".join(each.raw for each in frames) == body
    assert frames[0].event_type == "messageStart"
    assert {each.event_type for each in frames} >= {"contentBlockDelta", "messageStop", "metadata"}
    for each in frames:
        assert each.data is not None
        assert each.with_data(each.data) == each.raw
        Document(each.data)


# -- the text of a frame -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ['{"type":"a","text":"é \\u00e9"}', "[]", "no JSON", "", '"x"'])
@pytest.mark.parametrize("padding", [{}, {"p": "abcd"}, {"p": ""}])
def test_payload_in_base64_is_its_text(inner: str, padding: dict[str, object]) -> None:
    found = one(wrapped(inner, **padding))
    assert (found.data, found.is_foreign) == (inner, True)
    assert found.with_data(inner) == found.raw
    assert found.with_data("naïve") == wrapped("naïve", **padding)


def test_rest_of_a_payload_around_base64_stays() -> None:
    payload = b'{ "p" : "ab",\n"bytes":  "' + b64encode(b"{}") + b'" }'
    found = one(event("chunk", payload))
    assert found.data == "{}"
    assert found.with_data("[]") == event("chunk", payload.replace(b64encode(b"{}"), b64encode(b"[]")))


def test_key_of_base64_may_be_spelled_with_escapes() -> None:
    payload = b'{"\\u0062ytes": "' + b64encode(b"{}") + b'"}'
    assert one(event("chunk", payload)).data == "{}"


@pytest.mark.parametrize(
    ("inner", "shown"),
    [('{"a": "b"}', '{"a": "b"}'), ("no JSON", '"no JSON"'), ('"x"', '"\\"x\\""'), ("\ufeff{}", None)],
)
def test_fields_beside_base64_are_data_too(inner: str, shown: str | None) -> None:
    found = one(wrapped(inner, attribution={"text": "Tom"}))
    assert found.data is not None
    document = Document(found.data)
    assert document.root["attribution"] == {"text": "Tom"}
    if shown is not None:
        assert found.data == f'{{"bytes": {shown}, "attribution": {{"text": "Tom"}}}}'
    assert found.with_data(found.data) == found.raw
    other = document.rewrite({("attribution", "text"): "Eve"})
    assert found.with_data(other) == wrapped(inner, attribution={"text": "Eve"})


@pytest.mark.parametrize("padding", ["two words", 7, ["x"], "x" * 257])
def test_padding_that_may_be_a_text_is_data_too(padding: object) -> None:
    found = one(wrapped("{}", p=padding))
    assert found.data == json.dumps({"bytes": {}, "p": padding})


@pytest.mark.parametrize("payload", [b'{"bytes": 5}', b'["bytes"]', b'{"x": {"bytes": "e30="}}', b'{"bytes": "e30="'])
def test_other_payloads_are_data_as_they_are(payload: bytes) -> None:
    assert one(event("x", payload)).data == payload.decode()


@pytest.mark.parametrize("encoded", ["é", "e30", "e3 0=", "____", b64encode(b"\xff\x00").decode()])
def test_base64_that_holds_no_text_is_malformed(encoded: str) -> None:
    with pytest.raises(MalformedBody):
        decode(event("chunk", {"bytes": encoded}))


def test_text_of_another_type_may_be_any_text() -> None:
    found = one(frame(b"a piece", string(":content-type", "application/octet-stream")))
    assert (found.data, found.is_foreign) == ("a piece", True)
    assert one(event("x", b"{}")).is_foreign is False


def test_message_of_an_error_is_its_text() -> None:
    block = (string(":message-type", "error"), string(":error-code", "Internal"), string(":error-message", "Ask Tom"))
    found = one(frame(b"", *block, string("z", "1")))
    assert (found.data, found.is_foreign, found.message_type) == ("Ask Tom", True, "error")
    assert found.with_data("Ask é") == frame(b"", *block[:2], string(":error-message", "Ask é"), string("z", "1"))
    assert found.with_data("Ask Tom") == found.raw


def test_too_long_message_of_an_error_is_cut() -> None:
    found = one(frame(b"", string(":error-message", "x y")))
    cut_message = one(found.with_data("x" + "é" * 20_000)).data
    assert cut_message == "x" + "é" * 16_383


# -- broken frames -----------------------------------------------------------------------------------------------------


def with_crcs(raw: bytes, *, prelude: bool = True) -> bytes:
    """Return a frame with CRCs that fit, after its bytes were broken."""
    if prelude:
        raw = raw[:8] + crc32(raw[:8]).to_bytes(4, "big") + raw[12:]
    return raw[:-4] + crc32(raw[:-4]).to_bytes(4, "big")


@pytest.mark.parametrize("position", range(len(STRING)))
def test_no_bit_may_change(position: int) -> None:
    for bit in range(8):
        broken = bytearray(STRING)
        broken[position] ^= 1 << bit
        with pytest.raises(ContentError):
            decode(bytes(broken))


@pytest.mark.parametrize(
    "lengths",
    [
        (15, 0),
        (0, 0),
        (16, 1),
        (61, 46),
        (61, 2**32 - 1),
        (200_000, 131_073),
    ],
)
def test_lengths_that_do_not_fit_are_malformed(lengths: tuple[int, int]) -> None:
    raw = lengths[0].to_bytes(4, "big") + lengths[1].to_bytes(4, "big")
    decoder = FrameDecoder(AMPLE)
    with pytest.raises(MalformedBody):
        list(decoder.feed(raw + crc32(raw).to_bytes(4, "big")))
    assert decoder.take_rest().startswith(raw)


def test_frame_over_the_limit_is_refused_with_its_prelude() -> None:
    raw = event("x", {"text": "y" * 1000})
    decoder = FrameDecoder(len(raw) - 1)
    with pytest.raises(BodyTooLarge):
        list(decoder.feed(raw[:12]))
    assert len(decode(raw, limit=len(raw))) == 1


@pytest.mark.parametrize(
    "block",
    [
        header("", 0, b""),  # no name
        header("a", 10, b""),  # an unknown type
        header("a", 0, b"") * 2,  # repeated
        b"\x09name",  # cut in the name
        b"\x04name",  # cut before the type
        b"\x04name\x07\x00",  # cut in the length
        b"\x04name\x07\x00\x05abc",  # cut in the value
        b"\x04name\x04\x00",
        b"\x04name\x09" + b"\x00" * 15,
        header("n\xe9", 0, b"").replace("é".encode(), b"\xff\xff"),
        header("a", 7, b"\x00\x01\xff"),
        b"".join(header(f"h{number}", 0, b"") for number in range(257)),
        # What may be a text, but would not be read.
        string("a", "two words"),
        string("a", "x" * 257),
        string("Tom Riddle", "1"),
        string(":content-type", "text/plain; title=Tom"),
        header("a", 6, b"\x00\x09two words"),
        header("a", 6, b"\x01\x01" + b"\x00" * 257),
        header(":error-message", 6, b"\x00\x01x"),
        string(":error-message", "beside a payload"),
    ],
)
def test_broken_headers_are_malformed(block: bytes) -> None:
    with pytest.raises(MalformedBody):
        decode(frame(b"{}", block))


@pytest.mark.parametrize("payload", [b"\xff\xd8\xff", "é".encode()[:1], b"\xff\xfe{\x00"])
def test_payload_that_is_no_text_is_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedBody):
        decode(event("x", payload))


@pytest.mark.parametrize("size", [1, 11, 12, 20, len(STRING) - 1])
def test_stream_that_ends_within_a_frame_is_malformed(size: int) -> None:
    decoder = FrameDecoder(AMPLE)
    assert [each.raw for each in decoder.feed(STRING + STRING[:size])] == [STRING]
    assert decoder.pending == size
    with pytest.raises(MalformedBody):
        list(decoder.finish())
    assert decoder.take_rest() == STRING[:size]
    assert next(iter(decoder.feed(STRING))).raw == STRING


# -- any cut -----------------------------------------------------------------------------------------------------------

TEXTS = st.text(max_size=20)
PAYLOADS = st.one_of(
    TEXTS.map(lambda text: event("contentBlockDelta", {"delta": {"text": text}})),
    TEXTS.map(wrapped),
    st.tuples(TEXTS, TEXTS).map(lambda pair: wrapped(pair[0], attribution=pair[1])),
    TEXTS.map(lambda text: frame(text.encode())),
    st.sampled_from([EMPTY, INTEGER, STRING]),
    st.binary(max_size=20),
    st.binary(max_size=12).map(frame),
)
STREAMS = st.lists(PAYLOADS, max_size=6).map(b"".join)


@given(STREAMS, PLACES, st.sampled_from([40, 120, AMPLE]))
@settings(max_examples=300)
def test_no_byte_is_lost_and_the_cut_does_not_matter(stream: bytes, places: list[int], limit: int) -> None:
    units, error, rest = run(FrameDecoder(limit), cut(stream, places))
    assert b"".join(unit.raw for unit in units) + rest == stream
    assert (rest == b"") is (error is None)
    assert all(len(unit.raw) <= limit for unit in units)
    assert run(FrameDecoder(limit), [stream]) == (units, error, rest)
    assert run(FrameDecoder(limit), bytewise(stream)) == (units, error, rest)


@given(STREAMS, TEXTS.filter(lambda text: "\ufeff" not in text))
@settings(max_examples=200)
def test_other_data_is_read_again(stream: bytes, text: str) -> None:
    units, _, _ = run(FrameDecoder(AMPLE), [stream])
    for unit in units:
        assert isinstance(unit, Frame)
        data = text
        if unit.place.name == "BESIDE":
            data = Document(unit.data or "").rewrite({("attribution",): text})
        if unit.data is None or unit.payload == b"" or '"bytes"' in data:
            continue
        (again,) = decode(unit.with_data(data))
        assert (again.data or "") == data
        assert again.headers == unit.headers


def test_many_frames_are_read_in_linear_steps() -> None:
    """Byte by byte, a large frame is neither copied nor checked before it is whole."""
    raw = event("x", {"text": "y" * 200_000})
    decoder = FrameDecoder(AMPLE)
    frames = [each for piece in bytewise(raw) for each in decoder.feed(piece)]
    assert [each.raw for each in frames] == [raw]
    assert len(decode(EMPTY * 50_000)) == 50_000
