"""Anthropic's Messages API. Source: Anthropic's API reference, "Messages" and "Streaming messages"."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from extproc.core.content.document import Document, Path, fields, items
from extproc.core.dialects.base import (
    TEXT_KEYS,
    Dialect,
    Kind,
    Leaf,
    Prompt,
    definitions,
    embedded,
    prompt,
    spelling,
    tool_call,
    tool_result,
    unknown_texts,
)
from extproc.core.errors import MalformedBody
from extproc.core.refusal import Refusal

_BLOCK_KEYS = TEXT_KEYS | {
    "cited_text",
    "context",
    "document_title",
    "error_message",
    "explanation",
    "lines",
    "query",
    "source",
    "stderr",
    "stdout",
    "title",
}
"""Keys of a block whose strings are read by people or models."""

_OPAQUE = frozenset({"image", "redacted_thinking", "container_upload"})

_CALLS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})

_TYPES = {403: "permission_error", 413: "request_too_large"}


class AnthropicMessages(Dialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`."""

    name = "anthropic-messages"
    reads_answers = True
    is_repetitive = True

    def prompts(self, document: Document, *, tools: bool) -> list[Prompt]:
        """Return the blocks of the system prompt and of every message."""
        root = fields(document.root)
        prompts = list(_content(root.get("system"), ("system",), "system"))
        given = root.get("messages")
        if not isinstance(given, list | None):
            raise MalformedBody("messages is not a list")
        for position, node in enumerate(given or ()):
            prompts += _message(node, ("messages", position))
        return prompts + (definitions(root, "tools", "output_format", "output_config") if tools else [])

    def answers(self, document: Document) -> list[Leaf]:
        """Return the texts of every content block."""
        root = fields(document.root)
        blocks = root.get("content")
        if not isinstance(blocks, list):
            return list(unknown_texts(document.root))
        others = {key: root[key] for key in root if key != "content"}
        return [*_blocks(blocks, ("content",)), *unknown_texts(others, (), _BLOCK_KEYS)]

    def deltas(self, document: Document) -> list[Leaf]:
        """Return the texts of one event."""
        root = fields(document.root)
        index = root.get("index")
        place = (index if isinstance(index, int) else 0,)
        match root.get("type"):
            case "message_start":
                return list(_blocks(fields(root.get("message")).get("content"), ("message", "content")))
            case "content_block_start":
                return list(_block(root.get("content_block"), ("content_block",), place))
            case "content_block_delta":
                return list(_delta(fields(root.get("delta")), ("delta",), place))
            case _:
                return list(unknown_texts(document.root, (), _BLOCK_KEYS))

    def is_final(self, data: str, document: Document | None) -> bool:
        """Return whether the event is `message_stop`."""
        return document is not None and fields(document.root).get("type") == "message_stop"

    def refuse(self, refusal: Refusal) -> bytes:
        """Return the API's error object."""
        kind = _TYPES.get(refusal.status) or ("invalid_request_error" if refusal.status < 500 else "api_error")
        return json.dumps({"type": "error", "error": {"type": kind, "message": refusal.message}}).encode()

    def refuse_stream(self, refusal: Refusal, sequence: int) -> bytes:
        """Return the API's error event."""
        return b"event: error\ndata: " + self.refuse(refusal) + b"\n\n"


def _delta(delta: Mapping[str, Any], path: Path, place: Path) -> Iterator[Leaf]:
    for leaf in unknown_texts(delta, path, _BLOCK_KEYS):
        inside = leaf.path[len(path) :]
        # A citation arrives whole: it is not part of a running text.
        running = None if inside[0] == "citation" else (*place, *inside)
        yield replace(leaf, place=running, is_json=inside == ("partial_json",))
    signature = delta.get("signature")
    if isinstance(signature, str) and signature:
        yield Leaf((*path, "signature"), signature, place=(*place, "thinking"), kind=Kind.SEAL)


def _blocks(node: Any, path: Path) -> Iterator[Leaf]:
    """Yield the texts of an answer's blocks."""
    for position, block in enumerate(items(node)):
        yield from _block(block, (*path, position), (position,))


def _block(node: Any, path: Path, place: Path) -> Iterator[Leaf]:
    """Yield the texts of an answer's block."""
    if isinstance(node, str):
        if node:
            yield Leaf(path, node, place=place)
        return
    block = fields(node)
    kind = str(block.get("type"))
    if kind in _OPAQUE:
        return
    if kind in _CALLS:
        yield from embedded(block.get("input"), (*path, "input"))
        return
    signature = block.get("signature")
    seal = ((*path, "signature"),) if isinstance(signature, str) and signature else ()
    for leaf in _texts(block, path):
        yield replace(leaf, place=(*place, *leaf.path[len(path) :]), emptied=seal)


def _texts(block: Mapping[str, Any], path: Path) -> Iterator[Leaf]:
    """Yield the texts of a block of any type, at any depth."""
    yield from unknown_texts(block, path, _BLOCK_KEYS)
    yield from _plain_sources(block, path)


def _plain_sources(node: Any, path: Path) -> Iterator[Leaf]:
    """Yield the `data` of plain text documents; in other documents it is base64."""
    if isinstance(node, dict):
        data = node.get("data")
        if node.get("type") == "text" and isinstance(data, str) and data:
            yield Leaf((*path, "data"), data)
        for key, value in node.items():
            yield from _plain_sources(value, (*path, key))
    else:
        for position, value in enumerate(items(node)):
            yield from _plain_sources(value, (*path, position))


# -- requests ----------------------------------------------------------------------------------------------------


def _message(node: Any, path: Path) -> Iterator[Prompt]:
    if isinstance(node, str):
        yield from _content(node, path, "user")
        return
    message = fields(node)
    role = message.get("role")
    sent = role if role in ("system", "assistant") else "user"
    yield from _content(message.get("content"), (*path, "content"), sent)
    for leaf in unknown_texts({key: message[key] for key in message if key != "content"}, path):
        yield prompt(sent, leaf)


def _content(node: Any, path: Path, role: str) -> Iterator[Prompt]:
    if isinstance(node, str):
        if node:
            yield prompt(role, Leaf(path, node))
    elif isinstance(node, list):
        for position, block in enumerate(node):
            if isinstance(block, str | list):
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
        yield tool_call(block.get("id"), block.get("name"), spelling(block.get("input")))
        return
    is_sealed = any(isinstance(block.get(key), str) and block[key] for key in ("encrypted_content", "signature"))
    for leaf in _texts(block, path):
        leaf = replace(leaf, fixed=is_sealed)
        yield tool_result(block.get("tool_use_id"), leaf) if kind.endswith("tool_result") else prompt(role, leaf)
