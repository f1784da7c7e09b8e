"""JSON in and out, where nothing depends on how it is spelt: questions, answers, frames and records.

orjson does it, at a fraction of the standard library's cost; what it refuses, the standard library does: lone
surrogates, which JSON can spell and UTF-8 cannot, and integers of more than 64 bits. Documents that are edited in place
are `extproc.core.content.document`'s.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import orjson

_encoder = json.JSONEncoder(allow_nan=False)


def encode(value: Any, default: Callable[[Any], Any] | None = None) -> bytes:
    """Return `value` as compact JSON in UTF-8, with null for every number that JSON cannot spell.

    `default` turns what is no JSON value into one; without it that raises TypeError.
    """
    try:
        return orjson.dumps(value, default=default)
    except TypeError:
        encoder = _encoder if default is None else json.JSONEncoder(allow_nan=False, default=default)
        return encoder.encode(_finite(value)).encode()


def _finite(node: Any) -> Any:
    """Return a JSON value with null for every number that is none: one beyond a float's range is infinite here."""
    if isinstance(node, Mapping):
        return {key: _finite(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_finite(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node


def decode(data: str | bytes) -> Any:
    """Return the value of a JSON text; raises ValueError and, for one that is nested too deeply, RecursionError."""
    try:
        return orjson.loads(data)
    except ValueError:
        return json.loads(data)
