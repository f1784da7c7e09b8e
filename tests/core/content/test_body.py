"""Bodies: bounded buffers, and content-encodings decoded in bounded memory."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard

from extproc.core.content.body import BodyBuffer, Inflater, inflate, inflater
from extproc.core.errors import BodyTooLarge, MalformedBody, UnsupportedEncoding

MIB = 1024 * 1024
BOMB = 32 * MIB
ANY_RATIO = 1 << 40
SMALL = 65_536
TEXT = b"".join(b"line %d: some text that compresses\n" % i for i in range(2500))  # more than one step
NOISE = random.Random(1).randbytes(200_000)


def raw_deflate(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(data) + coder.flush()


def two_members(data: bytes) -> bytes:
    return gzip.compress(data[: len(data) // 3]) + gzip.compress(data[len(data) // 3 :])


ENCODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip, several members": ("gzip", two_members),
    "x-gzip": ("x-gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "deflate, fastest": ("deflate", lambda data: zlib.compress(data, 1)),
    "deflate, stored": ("deflate", lambda data: zlib.compress(data, 0)),
    "deflate without zlib's header": ("deflate", raw_deflate),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstandard.compress),
    "zstd without its size": ("zstd", zstandard.ZstdCompressor(write_content_size=False).compress),
    "zstd with a checksum": ("zstd", zstandard.ZstdCompressor(write_checksum=True).compress),
}
each_encoder = pytest.mark.parametrize(("coding", "encode"), ENCODERS.values(), ids=ENCODERS)


def named(*values: str) -> tuple[tuple[str, str], ...]:
    return tuple(("content-encoding", value) for value in values)


def undoing(coding: str, limit: int | None = None, ratio: int = ANY_RATIO) -> Inflater:
    undo = inflater(named(coding), limit, ratio)
    assert undo is not None
    return undo


def run(undo: Inflater, *pieces: bytes) -> bytes:
    plain = b"".join([undo.feed(piece) for piece in pieces])
    undo.finish()
    return plain


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


# -- the buffer --------------------------------------------------------------------------------------------------


def test_buffer_returns_the_bytes_that_were_added() -> None:
    buffer = BodyBuffer(10)
    assert (buffer.size, buffer.peek(), buffer.take()) == (0, b"", b"")
    for piece in (b"ab", b"", b"cde"):
        buffer.add(piece)
    assert (buffer.size, buffer.peek(), buffer.peek()) == (5, b"abcde", b"abcde")
    buffer.add(b"f")
    assert (buffer.peek(), buffer.take()) == (b"abcdef", b"abcdef")
    assert (buffer.size, buffer.peek()) == (0, b"")
    buffer.add(b"0123456789")  # bytes that were taken no longer count
    assert buffer.take() == b"0123456789"


def test_buffer_accepts_bytes_up_to_its_limit() -> None:
    buffer = BodyBuffer(4)
    buffer.add(b"abcd")
    buffer.add(b"")
    with pytest.raises(BodyTooLarge):
        buffer.add(b"e")
    assert buffer.size == 5
    assert buffer.take() == b"abcde"  # nothing is lost if the leg fails open


# -- round trips -------------------------------------------------------------------------------------------------


@each_encoder
@pytest.mark.parametrize("plain", [b"x", TEXT, NOISE], ids=["short", "text", "noise"])
def test_whole_body_is_decoded(coding: str, encode: Callable[[bytes], bytes], plain: bytes) -> None:
    assert run(undoing(coding), encode(plain)) == plain
    assert inflate(encode(plain), named(coding), len(plain), ANY_RATIO) == plain


@each_encoder
def test_body_is_decoded_byte_by_byte(coding: str, encode: Callable[[bytes], bytes]) -> None:
    plain = TEXT + NOISE[:3000]
    assert run(undoing(coding), *bytewise(encode(plain))) == plain


@each_encoder
def test_empty_body_is_valid_in_every_encoding(coding: str, encode: Callable[[bytes], bytes]) -> None:
    assert inflate(encode(b""), named(coding), 0, 1) == b""
    # A body without any bytes (HEAD, 204, an aborted answer) is not broken.
    assert inflate(b"", named(coding), 0, 1) == b""


@each_encoder
def test_text_is_decoded_before_the_end_of_the_body(coding: str, encode: Callable[[bytes], bytes]) -> None:
    """A stream's events must not wait for the end of its encoding."""
    undo = undoing(coding)
    encoded = encode(NOISE)
    assert len(undo.feed(encoded[: len(encoded) // 2])) > len(NOISE) // 4


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_each_flush_is_decoded_at_once(coding: str) -> None:
    undo = undoing(coding)
    if coding == "zstd":
        zstd = zstandard.ZstdCompressor().compressobj()
        flushed = [zstd.compress(b"%d" % i) + zstd.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for i in range(5)]
    else:
        coder = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
        flushed = [coder.compress(b"%d" % i) + coder.flush(zlib.Z_SYNC_FLUSH) for i in range(5)]
    assert [undo.feed(piece) for piece in flushed] == [b"%d" % i for i in range(5)]


def test_each_flush_of_brotli_is_decoded_at_once() -> None:
    undo = undoing("br")
    coder = brotli.Compressor()
    assert [undo.feed(coder.process(b"%d" % i) + coder.flush()) for i in range(5)] == [b"%d" % i for i in range(5)]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_empty_piece_after_the_end_is_accepted(coding: str) -> None:
    """Envoy often sends an empty body at the end of a stream."""
    encode = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstandard.compress}[
        coding
    ]
    assert run(undoing(coding), b"", encode(TEXT), b"") == TEXT


# -- what is broken ----------------------------------------------------------------------------------------------


@each_encoder
@pytest.mark.parametrize("plain", [b"short", TEXT], ids=["short", "text"])
def test_truncated_body_is_malformed(coding: str, encode: Callable[[bytes], bytes], plain: bytes) -> None:
    encoded = encode(plain)
    for length in {1, 2, 3, len(encoded) // 2, len(encoded) - 1}:
        undo = undoing(coding)
        assert plain.startswith(undo.feed(encoded[:length]))
        with pytest.raises(MalformedBody, match="cut short"):
            undo.finish()


@each_encoder
@pytest.mark.parametrize("garbage", [b"\0", b"x", b"garbage" * 100])
def test_bytes_after_the_end_are_malformed(coding: str, encode: Callable[[bytes], bytes], garbage: bytes) -> None:
    encoded = encode(TEXT)
    for pieces in ([encoded + garbage], [encoded, garbage], bytewise(encoded + garbage)):
        with pytest.raises(MalformedBody):
            run(undoing(coding), *pieces)


@each_encoder
def test_body_that_is_not_in_its_encoding_is_malformed(coding: str, encode: Callable[[bytes], bytes]) -> None:
    for broken in (b'{"messages": []}' * 10, b"\xff" * 100):
        with pytest.raises(MalformedBody):
            run(undoing(coding), broken)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_corrupt_body_is_malformed(coding: str) -> None:
    encoded = bytearray((gzip.compress if coding == "gzip" else zlib.compress)(TEXT))
    encoded[-1] ^= 0xFF  # a byte of gzip's length or of deflate's checksum
    with pytest.raises(MalformedBody, match="broken"):
        run(undoing(coding), bytes(encoded))


def test_body_in_another_encoding_is_malformed() -> None:
    for encoded in (zlib.compress(TEXT), raw_deflate(TEXT), gzip.compress(b"a") + zlib.compress(b"b")):
        with pytest.raises(MalformedBody):
            run(undoing("gzip"), encoded)
    with pytest.raises(MalformedBody):
        run(undoing("deflate"), gzip.compress(TEXT))


def test_truncated_second_member_is_malformed() -> None:
    with pytest.raises(MalformedBody):
        run(undoing("gzip"), gzip.compress(b"a") + gzip.compress(b"b")[:-1])


def test_deflate_with_a_preset_dictionary_is_malformed() -> None:
    coder = zlib.compressobj(zdict=b"some text")
    with pytest.raises(MalformedBody):
        run(undoing("deflate"), coder.compress(b"some text") + coder.flush())


def test_zstd_window_over_8_mib_is_malformed() -> None:
    for window_log, fits in ((23, True), (24, False)):
        parameters = zstandard.ZstdCompressionParameters(window_log=window_log, write_content_size=False)
        coder = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        encoded = coder.compress(NOISE) + coder.flush()
        if fits:
            assert run(undoing("zstd"), encoded) == NOISE
        else:
            with pytest.raises(MalformedBody):
                run(undoing("zstd"), encoded)


def test_errors_contain_nothing_of_the_body() -> None:
    for coding in ("gzip", "deflate", "br", "zstd"):
        with pytest.raises(MalformedBody) as caught:
            run(undoing(coding), b"marker-of-the-body" * 10)
        assert "marker" not in str(caught.value) + str(caught.value.__cause__)


# -- limits ------------------------------------------------------------------------------------------------------


@each_encoder
def test_limit_is_enforced_at_its_exact_value(coding: str, encode: Callable[[bytes], bytes]) -> None:
    encoded = encode(TEXT)
    for pieces in ([encoded], bytewise(encoded)):
        assert run(undoing(coding, limit=len(TEXT)), *pieces) == TEXT
        with pytest.raises(BodyTooLarge):
            run(undoing(coding, limit=len(TEXT) - 1), *pieces)
    with pytest.raises(BodyTooLarge):
        inflate(encoded, named(coding), len(TEXT) - 1, ANY_RATIO)


@each_encoder
def test_limit_applies_to_short_bodies(coding: str, encode: Callable[[bytes], bytes]) -> None:
    assert inflate(encode(b"abc"), named(coding), 3, 1) == b"abc"
    with pytest.raises(BodyTooLarge):
        inflate(encode(b"abc"), named(coding), 2, 1)


@each_encoder
def test_ratio_is_enforced_at_its_exact_value(coding: str, encode: Callable[[bytes], bytes]) -> None:
    plain = bytes(SMALL * 4)
    encoded = encode(plain)
    needed = -(-len(plain) // len(encoded))
    assert run(undoing(coding, ratio=needed), encoded) == plain
    if needed > 1:
        with pytest.raises(BodyTooLarge):
            run(undoing(coding, ratio=needed - 1), encoded)


@each_encoder
def test_ratio_does_not_apply_to_short_bodies(coding: str, encode: Callable[[bytes], bytes]) -> None:
    assert run(undoing(coding, ratio=1), encode(bytes(SMALL))) == bytes(SMALL)
    if len(encode(bytes(SMALL + 1))) < SMALL:
        with pytest.raises(BodyTooLarge):
            run(undoing(coding, ratio=1), encode(bytes(SMALL + 1)))


def test_ratio_counts_the_bytes_received_so_far() -> None:
    """A stream may compress well after it has compressed badly, but not the other way round."""
    noise, zeros = gzip.compress(NOISE), gzip.compress(bytes(MIB))
    ratio = (len(NOISE) + MIB) // (len(noise) + len(zeros)) + 1
    assert len(run(undoing("gzip", ratio=ratio), noise, zeros)) == len(NOISE) + MIB
    with pytest.raises(BodyTooLarge):
        run(undoing("gzip", ratio=ratio), zeros, noise)


BOMBS = {
    "gzip": ("gzip", gzip.compress(bytes(BOMB), 9)),
    "gzip of many members": ("gzip", gzip.compress(bytes(MIB)) * (BOMB // MIB)),
    "deflate": ("deflate", zlib.compress(bytes(BOMB), 9)),
    "raw deflate": ("deflate", raw_deflate(bytes(BOMB))),
    "br": ("br", brotli.compress(bytes(BOMB), quality=5)),
    "zstd": ("zstd", zstandard.compress(bytes(BOMB), 3)),
}
each_bomb = pytest.mark.parametrize(("coding", "bomb"), BOMBS.values(), ids=BOMBS)

OVERSHOOT = 9 * MIB
"""The output of a step before it is counted: 256 bytes of zstd can stand for 64 blocks of 128 KiB."""


def produced_before_the_error(undo: Inflater, *pieces: bytes) -> int:
    """Return the peak memory of Python's allocators while the pieces were refused."""
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            run(undo, *pieces)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@each_bomb
def test_a_bomb_is_refused_by_its_ratio(coding: str, bomb: bytes) -> None:
    assert len(bomb) * 100 < BOMB
    assert produced_before_the_error(undoing(coding, ratio=100), bomb) < len(bomb) * 101 + OVERSHOOT


@each_bomb
def test_a_bomb_is_refused_by_the_limit(coding: str, bomb: bytes) -> None:
    peak = produced_before_the_error(undoing(coding, limit=2 * MIB), bomb)
    assert MIB < peak < 2 * MIB + OVERSHOOT


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_steps_are_small_if_the_encoding_allows_it(coding: str) -> None:
    bomb = next(bomb for name, bomb in BOMBS.values() if name == coding)
    assert produced_before_the_error(undoing(coding, limit=MIB), bomb) < 2 * MIB


# -- which encoding ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [(), ("",), ("identity",), ("Identity, ,identity",), ("identity", "", " identity ")])
def test_body_without_an_encoding_needs_no_decoder(values: tuple[str, ...]) -> None:
    assert inflater(named(*values), 1, 1) is None
    assert inflate(b"as it came", named(*values), 1, 1) == b"as it came"


@pytest.mark.parametrize("values", [("GZIP",), (" gzip ",), ("identity, gzip",), ("identity", "gzip"), ("gzip,",)])
def test_other_spellings_of_gzip_are_known(values: tuple[str, ...]) -> None:
    assert inflate(gzip.compress(b"a"), named(*values), 9, 9) == b"a"


def test_other_headers_than_content_encoding_are_ignored() -> None:
    others = (("transfer-encoding", "gzip"), ("accept-encoding", "br"), ("x-content-encoding", "zstd"))
    assert inflater(others, 1, 1) is None


@pytest.mark.parametrize(
    "values", [("gzip, gzip",), ("gzip", "gzip"), ("gzip", "br"), ("br,identity,gzip",), ("foo,gzip",)]
)
def test_stacked_encodings_are_unsupported(values: tuple[str, ...]) -> None:
    with pytest.raises(UnsupportedEncoding, match="stacked"):
        inflater(named(*values), 1, 1)


@pytest.mark.parametrize("value", ["compress", "dcb", "gzip;q=1", "gz", "aws-chunked", "*", "zlib", "g zip"])
def test_unknown_encodings_are_unsupported(value: str) -> None:
    with pytest.raises(UnsupportedEncoding, match="unknown") as caught:
        inflate(b"", named(value), 1, 1)
    assert value not in str(caught.value).split()


def test_time_for_many_small_members_is_linear() -> None:
    member = gzip.compress(b"")
    body = member * 20_000  # 400 KB: in one large step, the rest would be copied 20,000 times
    undo = inflater((("content-encoding", "gzip"),), None, 100)
    assert undo is not None
    assert undo.feed(body) == b""
    undo.finish()


@pytest.mark.parametrize("cut", range(10))
def test_zstd_frame_of_another_size_than_declared_is_malformed_however_it_is_cut(cut: int) -> None:
    frame = bytes.fromhex("28b52ffd2001010000")  # declares one byte, and has an empty block
    undo = inflater((("content-encoding", "zstd"),), None, 100)
    assert undo is not None
    with pytest.raises(MalformedBody):
        b"".join(undo.feed(piece) for piece in (frame[:cut], frame[cut:]))
