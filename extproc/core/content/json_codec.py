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
