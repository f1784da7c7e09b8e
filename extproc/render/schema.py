"""Validates Envoy configuration with envoy-data-plane's types: every field, type and enum value."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from envoy_data_plane.google.protobuf import Any as ProtobufAny

from extproc.render.commented import Tree

_TYPE_URL = "type.googleapis.com/"


def check(tree: Tree, message: str) -> None:
    """Raise an exception unless `tree` is the JSON form of the protobuf message `message`.

    Extensions (every dict with an `@type`) are checked too, at any depth.
    """
    for name in {message, *_extensions(tree)}:
        # The import registers the package's messages, so that Any finds them by type URL.
        import_module(f"envoy_data_plane.{name.rpartition('.')[0]}")
    ProtobufAny.from_dict({"@type": _TYPE_URL + message, **tree})


def _extensions(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "@type" in node:
            yield node["@type"].removeprefix(_TYPE_URL)
        for value in node.values():
            yield from _extensions(value)
    elif isinstance(node, list):
        for item in node:
            yield from _extensions(item)
