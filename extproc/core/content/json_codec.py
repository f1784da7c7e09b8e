"""Encodes and decodes JSON whose spelling does not matter: calls to Aim, its answers, frames and records.

orjson costs a fraction of the standard library, but refuses lone surrogates, which UTF-8 cannot contain, and integers
of more than 64 bits. Such values go to the standard library. `extproc.core.content.document` reads documents that are
edited in place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import orjson

_encoder = json.JSONEncoder(allow_nan=False)

_ESCAPED_QUOTE = "\\u0022"
"""The spelling of a quotation mark that orjson does not write."""


def encode(value: Any, default: Callable[[Any], Any] | None = None) -> bytes:
    """Return `value` as compact JSON in UTF-8, with null for every number that JSON cannot represent.

    `default` converts an object that is not a JSON value; without it such an object raises TypeError.
    """
    try:
        return orjson.dumps(value, default=default)
    except TypeError:
        encoder = _encoder if default is None else json.JSONEncoder(allow_nan=False, default=default)
        return encoder.encode(_finite(value)).encode()


def _finite(node: Any) -> Any:
    """Return a JSON value with null for each infinity and NaN. Numbers beyond a float's range are infinite here."""
    if isinstance(node, Mapping):
        return {key: _finite(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_finite(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node


def decode(data: str | bytes) -> Any:
    """Return the value of a JSON text; raises ValueError and, if it is nested too deeply, RecursionError."""
    try:
        return orjson.loads(data)
    except ValueError:
        return json.loads(data)


def decode_strictly(data: str | bytes) -> Any:
    """Return the value of a JSON text that has one meaning only: no repeated key, NaN or infinity at any level.

    Bytes are UTF-8. Raises ValueError and, if the text is nested too deeply, RecursionError.
    """
    try:
        value = orjson.loads(data)
        is_whole = _has_every_string(value, data)
    except (ValueError, TypeError):
        is_whole = False
    if is_whole:
        return value
    return _strict_decoder.decode(data if isinstance(data, str) else data.decode("utf-8-sig"))


def _has_every_string(value: Any, data: str | bytes) -> bool:
    """Return whether `value`, which orjson read from `data`, provably lacks no string of it, and so no key.

    orjson keeps the last of equal keys. The others are then missing in `value`, with their two quotation marks. Within
    a string both texts spell a quotation mark in the same way. Raises TypeError for a value that orjson cannot write.
    """
    if isinstance(data, str):
        marks, has_other_spelling = data.count('"'), _ESCAPED_QUOTE in data
    else:
        marks, has_other_spelling = data.count(b'"'), _ESCAPED_QUOTE.encode() in data
    return not has_other_spelling and orjson.dumps(value).count(b'"') == marks


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has a repeated key")
    return members


def _refuse_constant(_: str) -> None:
    raise ValueError("NaN and infinity are not JSON")


_strict_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
