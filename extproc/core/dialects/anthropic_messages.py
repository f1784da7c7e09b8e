"""Anthropic's Messages API. Source: Anthropic's API reference, "Messages" and "Streaming messages"."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from extproc.core.block_answers.base import BlockAnswer
from extproc.core.block_answers.messages import MessageAnswer
from extproc.core.content.document import Document, fields
from extproc.core.dialects.base import Dialect, Running, answering, endpoint, short_name
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.dialects.rules import COMMON, MODEL, arguments, below, inert, media, opaque, seal, text, tools
from extproc.core.dialects.table import Table
from extproc.core.refusal import Refusal

_COUNTS = ("/count_tokens", "/count-tokens:rawpredict")
"""Ends of paths that count tokens; the second is Vertex AI's."""

_TYPES = {403: "permission_error", 413: "request_too_large"}


def _speaker(message: Mapping[str, Any], base: Mapping[str, Any]) -> Mapping[str, Any]:
    role = message.get("role")
    return {"role": role if role in ("system", "assistant") else "user"}


def _block_speaker(block: Mapping[str, Any], base: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the message that a block's texts become: a tool's result is a message of its own."""
    return answering(block.get("tool_use_id"), base) if str(block.get("type")).endswith("tool_result") else base


_BLOCK = (
    text("text", "thinking", "content"),
    arguments("input", "partial_json"),
    seal("signature", "encrypted_content"),
    opaque("data", "encrypted_index", "encrypted_stdout"),
    media("source.data"),
    inert("name", "server_name", "cache_control.*", "caller.*"),
    opaque(
        "citation.encrypted_index",
        "citations[].encrypted_index",
        "content.encrypted_content",
        "content.encrypted_stdout",
        "content[].encrypted_content",
    ),
    media("content[].source.data", "content.content.source.data", "source.content[].source.data"),
    inert(
        "content.error_code",
        "content.tool_references[].tool_name",
        "content[].cache_control.*",
        "content[].tool_name",
    ),
)
"""What a block holds: of a message, of an answer, or its part in a stream."""

_SEALED: Mapping[str | int, str] = {"signature": "thinking", "encrypted_content": "content"}
"""The text of a block that a seal signs."""

_STOP = (inert("stop_sequence", "stop_details.category"), opaque("stop_details.fallback_credit_token"))
"""How a message ended."""

_USAGE = inert("usage.service_tier", "usage.inference_geo", "usage.speed")


class AnthropicMessages(Dialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`."""

    name = "anthropic-messages"
    is_repetitive = True
    request = Table(
        *COMMON,
        MODEL,
        text("system", role="system"),
        text("system[].text", role="system"),
        inert("system[].cache_control.*"),
        text("messages[]", speaker=_speaker),
        text("messages[].content[]", speaker=_block_speaker),
        *below("messages[].content[]", _BLOCK),
        tools("tools[]", "output_format", "output_config.format"),
        inert(
            "anthropic_beta[]",
            "anthropic_version",
            "container",
            "container.skills[].skill_id",
            "context_management.edits[].keep",
            "inference_geo",
            "output_config.effort",
            "service_tier",
            "speed",
            "thinking.display",
            "tool_choice.name",
            "mcp_servers[].name",
        ),
        opaque("mcp_servers[].authorization_token"),
    )
    answer = Table(
        *COMMON,
        text("content[]"),
        *below("content[]", _BLOCK),
        *_STOP,
        _USAGE,
    )
    event = Table(
        *COMMON,
        *below("delta", _BLOCK),
        *below("content_block", _BLOCK),
        *below("message.content[]", _BLOCK),
        *below("delta", _STOP),
        *below("message", (*_STOP, _USAGE)),
        _USAGE,
    )

    def block_answer(self, path: str) -> type[BlockAnswer] | None:
        """Return the answer of a block; a count of tokens is none."""
        return None if endpoint(path).endswith(_COUNTS) else MessageAnswer

    def place(self, root: Any, leaf: Leaf) -> Running:
        """Return a running text: of the block with the event's index, or of another part of the event."""
        event = fields(root)
        index = event.get("index")
        if leaf.path[:1] in (("delta",), ("content_block",)):
            seal = next((_SEALED[step] for step in leaf.path if step in _SEALED), "")
            inside = (seal,) if leaf.kind is Kind.SEAL else leaf.path[1:]
            return (index if isinstance(index, int) else 0, *inside)
        return (short_name(event.get("type")), *leaf.path)

    def is_final(self, data: str, document: Document | None) -> bool:
        """Return whether the event is `message_stop`, or `[DONE]` of a server that copies the API."""
        if document is None:
            return super().is_final(data, document)
        return fields(document.root).get("type") == "message_stop"

    def refuse(self, refusal: Refusal) -> bytes:
        """Return the API's error object."""
        kind = _TYPES.get(refusal.status) or ("invalid_request_error" if refusal.status < 500 else "api_error")
        return json.dumps({"type": "error", "error": {"type": kind, "message": refusal.message}}).encode()

    def refuse_stream(self, refusal: Refusal, sequence: int) -> bytes:
        """Return the API's error event."""
        return b"event: error\ndata: " + self.refuse(refusal) + b"\n\n"
