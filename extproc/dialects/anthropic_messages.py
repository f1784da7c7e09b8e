"""Anthropic's Messages API. Source: Anthropic's API reference, "Messages" and "Streaming messages"."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from extproc.dialects.base import (
    TEXT_KEYS,
    Dialect,
    Kind,
    Leaf,
    Prompt,
    definitions,
    embedded,
    prompt,
    tool_call,
    tool_result,
    unknown_texts,
)
from extproc.document import Document, Path, fields
from extproc.errors import MalformedBody
from extproc.refusal import Refusal

_BLOCK_KEYS = TEXT_KEYS | {"cited_text", "context", "query", "stderr", "stdout", "title"}
"""Keys of a block whose strings a person or a model reads."""

_OPAQUE = frozenset({"image", "redacted_thinking", "container_upload"})

_CALLS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})

_DELTAS: Mapping[str, str] = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "input_json_delta": "partial_json",
    "compaction_delta": "content",
}

_TYPES = {403: "permission_error", 413: "request_too_large"}


class AnthropicMessages(Dialect):
    """The dialect; see `extproc.dialects.base.Dialect`."""

    name = "anthropic-messages"
    reads_answers = True
    is_repetitive = True

    def prompts(self, document: Document, *, tools: bool) -> list[Prompt]:
        """Return the system prompt's blocks and every message's."""
        root = fields(document.root)
        prompts = list(_content(root.get("system"), ("system",), "system"))
        given = root.get("messages")
        if not isinstance(given, list | None):
            raise MalformedBody("messages is no list")
        for position, node in enumerate(given or ()):
            message = fields(node)
            role = "assistant" if message.get("role") == "assistant" else "user"
            prompts += _content(message.get("content"), ("messages", position, "content"), role)
        return prompts + (definitions(root, "tools", "output_format", "output_config") if tools else [])

    def answers(self, document: Document) -> list[Leaf]:
        """Return the texts of every content block."""
        blocks = fields(document.root).get("content")
        if not isinstance(blocks, list):
            return list(unknown_texts(document.root))
        return [
            leaf for position, block in enumerate(blocks) for leaf in _block(block, ("content", position), (position,))
        ]

    def deltas(self, document: Document) -> list[Leaf]:
        """Return the texts of one event."""
        root = fields(document.root)
        index = root.get("index")
        place = (index if isinstance(index, int) else 0,)
        match root.get("type"):
            case "message_start":
                blocks = fields(root.get("message")).get("content")
                return [
                    leaf
                    for position, block in enumerate(blocks if isinstance(blocks, list) else ())
                    for leaf in _block(block, ("message", "content", position), (position,))
                ]
            case "content_block_start":
                return list(_block(root.get("content_block"), ("content_block",), place))
            case "content_block_delta":
                return list(_delta(fields(root.get("delta")), ("delta",), place))
            case _:
                return list(unknown_texts(document.root))

    def is_final(self, data: str, document: Document | None) -> bool:
        """Tell whether this is `message_stop`."""
        return document is not None and fields(document.root).get("type") == "message_stop"

    def refuse(self, refusal: Refusal) -> bytes:
        """Return the API's error object."""
        kind = _TYPES.get(refusal.status) or ("invalid_request_error" if refusal.status < 500 else "api_error")
        return json.dumps({"type": "error", "error": {"type": kind, "message": refusal.message}}).encode()

    def refuse_stream(self, refusal: Refusal, sequence: int) -> bytes:
        """Return the API's error event."""
        return b"event: error\ndata: " + self.refuse(refusal) + b"\n\n"


def _delta(delta: Mapping[str, Any], path: Path, place: Path) -> Iterator[Leaf]:
    key = _DELTAS.get(str(delta.get("type")))
    if delta.get("type") == "signature_delta":
        signature = delta.get("signature")
        if isinstance(signature, str) and signature:
            yield Leaf((*path, "signature"), signature, place=(*place, "thinking"), kind=Kind.SEAL)
    elif key is None:
        for leaf in unknown_texts(delta, path, _BLOCK_KEYS):
            yield replace(leaf, place=(*place, *leaf.path[len(path) :]))
    else:
        text = delta.get(key)
        if isinstance(text, str) and text:
            yield Leaf((*path, key), text, place=(*place, key), is_json=key == "partial_json")


def _block(node: Any, path: Path, place: Path) -> Iterator[Leaf]:
    """Yield the texts of an answer's block."""
    block = fields(node)
    kind = block.get("type")
    if kind in _OPAQUE:
        return
    if kind in _CALLS:
        yield from embedded(block.get("input"), (*path, "input"))
        return
    signature = block.get("signature")
    seal = ((*path, "signature"),) if isinstance(signature, str) and signature else ()
    for leaf in unknown_texts(block, path, _BLOCK_KEYS):
        yield replace(leaf, place=(*place, *leaf.path[len(path) :]), emptied=seal)


# -- requests ----------------------------------------------------------------------------------------------------


def _content(node: Any, path: Path, role: str) -> Iterator[Prompt]:
    if isinstance(node, str):
        if node:
            yield prompt(role, Leaf(path, node))
    elif isinstance(node, list):
        for position, block in enumerate(node):
            if isinstance(block, str):
                yield from _content(block, (*path, position), role)
            else:
                yield from _block_prompts(fields(block), (*path, position), role)
    elif node is not None:
        yield from _block_prompts(fields(node), path, role)


def _block_prompts(block: Mapping[str, Any], path: Path, role: str) -> Iterator[Prompt]:
    kind = str(block.get("type"))
    if kind in _OPAQUE:
        return
    if kind in _CALLS:
        yield tool_call(block.get("id"), block.get("name"), json.dumps(block.get("input"), ensure_ascii=False))
        return
    is_sealed = isinstance(block.get("signature"), str)
    keys = _BLOCK_KEYS
    if kind == "document" and fields(block.get("source")).get("type") == "text":
        keys = _BLOCK_KEYS | {"data"}  # elsewhere `data` is base64
    for leaf in unknown_texts(block, path, keys):
        leaf = replace(leaf, fixed=is_sealed)
        yield tool_result(block.get("tool_use_id"), leaf) if kind.endswith("tool_result") else prompt(role, leaf)
