"""Reads protobuf messages in JSON form, as Envoy's configuration dump holds them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Node = Mapping[str, Any]
"""A protobuf message as JSON: fields in snake_case, default values left out."""


def path(node: Any, *steps: str) -> Any:
    """Return the value at the path `steps` below `node`, or None."""
    for step in steps:
        if not isinstance(node, Mapping):
            return None
        node = node.get(step)
    return node


def seconds(duration: Any, default: float) -> float:
    """Return a protobuf duration in JSON form as seconds, or `default` if it is None."""
    return float(str(duration).removesuffix("s")) if duration is not None else default


def mentions(node: Any, text: str) -> bool:
    """Return whether `text` occurs anywhere in `node`, ignoring case."""
    return text.lower() in json.dumps(node).lower()


def type_of(node: Any) -> str:
    """Return the last part of a message's type, without its package; empty for a message without a type."""
    return str(node.get("@type", "") if isinstance(node, Mapping) else "").rpartition(".")[2]


def messages(node: Any, type_: str) -> Iterator[Node]:
    """Yield every message of the type `type_` in `node`, at any depth."""
    if isinstance(node, Mapping):
        if type_of(node) == type_:
            yield node
        for value in node.values():
            yield from messages(value, type_)
    elif isinstance(node, list):
        for item in node:
            yield from messages(item, type_)
