"""Content-encodings: decoding restores the data for any cut, and broken bytes raise only ContentError."""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.content.body import inflater
from extproc.core.errors import BodyTooLarge, ContentError


def raw_deflate(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(data) + coder.flush()


ENCODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "members": ("gzip", lambda data: b"".join(gzip.compress(data[i : i + 50]) for i in range(0, len(data) + 1, 50))),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstandard.compress),
}
each_encoder = pytest.mark.parametrize(("coding", "encode"), ENCODERS.values(), ids=ENCODERS)

DATA = st.binary(max_size=300) | st.builds(
    lambda data, times: data * times, st.binary(max_size=20), st.integers(1, 9000)
)
PLACES = st.lists(st.floats(0, 1), max_size=8)


def cut(data: bytes, places: list[float]) -> list[bytes]:
    """Cut at the places. No piece is empty, except for the only piece of an empty body."""
    ends = sorted({0, len(data), *(round(place * len(data)) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(ends)]


def run(coding: str, pieces: list[bytes], limit: int | None, ratio: int) -> bytes:
    undo = inflater((("content-encoding", coding),), limit, ratio)
    assert undo is not None
    plain = b"".join([undo.feed(piece) for piece in pieces])
    undo.finish()
    return plain


@each_encoder
@given(data=DATA, places=PLACES)
@settings(max_examples=40)
def test_compressed_data_is_restored_for_any_cut(
    coding: str, encode: Callable[[bytes], bytes], data: bytes, places: list[float]
) -> None:
    assert run(coding, cut(encode(data), places), len(data), 1 << 40) == data


@each_encoder
@given(data=DATA, places=PLACES, short=st.integers(1, 1000))
@settings(max_examples=30)
def test_output_never_exceeds_the_limit(
    coding: str, encode: Callable[[bytes], bytes], data: bytes, places: list[float], short: int
) -> None:
    if len(data) >= short:
        with pytest.raises(BodyTooLarge):
            run(coding, cut(encode(data), places), len(data) - short, 1 << 40)


@each_encoder
@given(data=DATA, places=PLACES, damage=st.binary(min_size=1, max_size=3), where=st.floats(0, 1), keep=st.booleans())
@settings(max_examples=40)
def test_corrupt_data_raises_only_documented_exceptions(
    coding: str,
    encode: Callable[[bytes], bytes],
    data: bytes,
    places: list[float],
    damage: bytes,
    where: float,
    keep: bool,
) -> None:
    encoded = encode(data)
    at = round(where * len(encoded))
    broken = encoded[:at] + damage + encoded[at if keep else at + len(damage) :]
    found: list[bytes | type[ContentError]] = []
    for pieces in ([broken], cut(broken, places)):
        try:
            found.append(run(coding, pieces, 10_000, 50))
        except ContentError as error:
            found.append(type(error))
    whole, pieced = found
    if isinstance(whole, bytes):
        assert len(whole) <= 10_000
    if isinstance(whole, bytes) or isinstance(pieced, bytes):
        assert whole == pieced


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
@given(data=st.binary(min_size=1, max_size=60), places=PLACES)
@settings(max_examples=40)
def test_any_bytes_raise_only_documented_exceptions(coding: str, data: bytes, places: list[float]) -> None:
    for pieces in ([data], cut(data, places)):
        try:
            plain = run(coding, pieces, 1000, 50)
        except ContentError:
            continue
        assert len(plain) <= 1000
