"""Mistral's Conversations API and agents, and its OCR.

Source: Mistral's API reference, "Conversations", "Agents" and "OCR". A conversation is a list of entries. A stream
sends their texts in pieces and repeats nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from extproc.core.block_answers.base import BlockAnswer
from extproc.core.block_answers.conversations import ConversationAnswer
from extproc.core.content.document import Document, fields
from extproc.core.dialects.base import Dialect, Running, answering, endpoint, running, short_name
from extproc.core.dialects.leaf import Leaf
from extproc.core.dialects.rules import COMMON, MODEL, Rule, arguments, below, inert, media, text, tools
from extproc.core.dialects.table import Table
from extproc.core.refusal import Refusal

_OTHERS = re.compile(r"/(?:ocr|agents(?:/[^/]+)?)\Z").search
"""The ends of paths whose answers are no conversation."""

_FINAL = frozenset({"conversation.response.done", "conversation.response.error"})

_KINDS = {"message.output": "assistant", "function.call": "assistant", "tool.execution": "assistant"}


def _speaker(entry: Mapping[str, Any], base: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the message that an entry's texts become."""
    role = entry.get("role")
    if role in ("system", "assistant"):
        return {"role": role}
    kind = str(entry.get("type"))
    if kind == "function.result":
        return answering(entry.get("tool_call_id"), base)
    return {"role": _KINDS.get(kind, "user")}


_ENTRY = (
    text("content", "content[].text", "content[].thinking", "content[].thinking[].text", "result"),
    text("content.text", "content.thinking", "content.thinking[].text"),
    arguments("arguments"),
    media(
        "content[].image_url",
        "content[].image_url.url",
        "content[].document_url",
        "content[].input_audio",
        "content[].input_audio.data",
    ),
    inert(
        "name",
        "tool",
        "content[].tool",
        "content.tool",
        "content[].file_type",
        "content.file_type",
        "content[].image_url.detail",
        "previous_agent_name",
        "next_agent_name",
        "confirmation_status",
    ),
)


def _entries(place: str) -> list[Rule]:
    """Return the rules of a list of entries."""
    return [text(place, speaker=_speaker), *below(place, _ENTRY)]


_READ = (
    text("pages[].markdown", "document_annotation", "pages[].images[].image_annotation"),
    media("pages[].images[].image_base64"),
)
"""What OCR has read."""


class MistralConversations(Dialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`."""

    name = "mistral-conversations"
    request = Table(
        *COMMON,
        MODEL,
        text("instructions", role="system"),
        *_entries("inputs[]"),
        tools(
            "tools[]",
            "completion_args.response_format.json_schema",
            "bbox_annotation_format.json_schema",
            "document_annotation_format.json_schema",
        ),
        inert(
            "name",
            "completion_args.tool_choice",
            "completion_args.reasoning_effort",
            "handoff_execution",
            "table_format",
            "confidence_scores_granularity",
        ),
        text("document_annotation_prompt"),
        media("document.document_url", "document.image_url", "document.image_url.url"),
    )
    answer = Table(
        *COMMON,
        *_entries("outputs[]"),
        *_entries("entries[]"),
        *_entries("messages[]"),
        *_READ,
        tools("tools[]"),
    )
    event = Table(*COMMON, *_ENTRY, inert("code"))

    def block_answer(self, path: str) -> type[BlockAnswer] | None:
        """Return the answer of a block; agents and OCR have none."""
        return None if _OTHERS(endpoint(path)) else ConversationAnswer

    def place(self, root: Any, leaf: Leaf) -> Running:
        """Return a running text: of the part of an output, or of the call, to which the event belongs."""
        event = fields(root)
        kind = short_name(event.get("type")).rpartition(".")[0]
        inside = ("text",) if leaf.path in (("content",), ("content", "text")) else running(root, leaf.path)
        return (kind, *(_number(event.get(key)) for key in ("output_index", "content_index")), *inside)

    def is_final(self, data: str, document: Document | None) -> bool:
        """Return whether the event is the last one of a response."""
        if document is None:
            return super().is_final(data, document)
        kind = fields(document.root).get("type")
        return isinstance(kind, str) and kind in _FINAL

    def refuse(self, refusal: Refusal) -> bytes:
        """Return Mistral's error object."""
        error = {"message": refusal.message, "type": refusal.type, "param": None, "code": refusal.code}
        return json.dumps({"object": "error", **error}).encode()

    def refuse_stream(self, refusal: Refusal, sequence: int) -> bytes:
        """Return the API's error event."""
        kind = "conversation.response.error"
        error = {"type": kind, "message": refusal.message, "code": refusal.status}
        return f"event: {kind}\ndata: {json.dumps(error)}\n\n".encode()


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
