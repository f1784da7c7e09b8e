"""Cohere's Chat API, versions 2 and 1.

Source: Cohere's API reference, "Chat" and "Chat with streaming" of both versions. Version 2 streams server-sent events;
version 1 streams lines of JSON, or the same objects as events, and repeats the whole text in the last one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from extproc.core.block_answers.base import BlockAnswer
from extproc.core.block_answers.cohere import CohereAnswer, CohereAnswerV1
from extproc.core.content.document import Document, fields, items
from extproc.core.content.framing import Framing
from extproc.core.dialects.base import Dialect, Running, answering, running
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.dialects.rules import COMMON, MODEL, arguments, below, inert, media, text, tokens, tools, url
from extproc.core.dialects.table import Table
from extproc.core.refusal import Refusal

_ROLES = {"assistant": "assistant", "chatbot": "assistant", "system": "system"}


def _speaker(message: Mapping[str, Any], base: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the message that a message's texts become. Version 1 writes roles in capital letters."""
    role = str(message.get("role")).lower()
    return answering(message.get("tool_call_id"), {"role": _ROLES.get(role, "user")})


_SAID = (
    text("content", "content[].text", "content[].thinking", "tool_plan"),
    arguments("tool_calls[].function.arguments"),
    inert("tool_calls[].function.name", "citations[].document_ids[]"),
)
"""What a message of version 2 holds: of a request, of an answer, or its part in an event."""

_DOCUMENTS = (text("documents[]"), url("documents[].data.url"))

_OPTIONS = (
    tools("tools[]", "response_format.json_schema", "response_format.schema"),
    inert(
        "citation_options.mode",
        "citation_quality",
        "prompt_truncation",
        "safety_mode",
        "thinking.type",
        "tool_choice",
        "truncation",
    ),
)


class CohereDialect(Dialect):
    """A dialect with Cohere's error object."""

    def refuse(self, refusal: Refusal) -> bytes:
        """Return Cohere's error object."""
        return json.dumps({"message": refusal.message}).encode()


class CohereChat(CohereDialect):
    """Version 2; see `extproc.core.dialects.base.Dialect`."""

    name = "cohere-chat"
    request = Table(
        *COMMON,
        MODEL,
        text("messages[]", speaker=_speaker),
        *below("messages[]", _SAID),
        text("messages[].content[].document"),
        media("messages[].content[].image_url", "messages[].content[].image_url.url"),
        inert("messages[].content[].image_url.detail"),
        *_DOCUMENTS,
        *_OPTIONS,
    )
    answer = Table(*COMMON, *below("message", _SAID), tokens("logprobs", everywhere=True))
    event = Table(*COMMON, *below("delta.message", _SAID), tokens("logprobs", everywhere=True))

    def block_answer(self, path: str) -> type[BlockAnswer] | None:
        """Return the answer of a block."""
        return CohereAnswer

    def place(self, root: Any, leaf: Leaf) -> Running:
        """Return a running text: of the content, call or citation with the event's index."""
        index = fields(root).get("index")
        return (index if isinstance(index, int) else 0, *running(root, leaf.path))

    def is_final(self, data: str, document: Document | None) -> bool:
        """Return whether the event is `message-end`, or `[DONE]` of a server that copies the API."""
        if document is None:
            return super().is_final(data, document)
        return fields(document.root).get("type") == "message-end"

    def refuse_stream(self, refusal: Refusal, sequence: int) -> bytes:
        """Return the API's last event, with its error."""
        end = {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": refusal.message}}
        return b"event: message-end\ndata: " + json.dumps(end).encode() + b"\n\n"


_TOLD = (
    text("text"),
    tokens("logprobs", everywhere=True),
    arguments("tool_calls[].parameters", "tool_call_delta.parameters"),
    inert(
        "tool_calls[].name",
        "tool_call_delta.name",
        "citations[].document_ids[]",
        "chat_history[].tool_calls[].name",
        "search_results[].document_ids[]",
    ),
    arguments("chat_history[].tool_calls[].parameters"),
    text("chat_history[].message"),
)
"""What an answer of version 1 holds, or one of its events, or the answer in the last event."""


class CohereChatV1(CohereDialect):
    """Version 1; see `extproc.core.dialects.base.Dialect`."""

    name = "cohere-chat"
    is_repetitive = True
    request = Table(
        *COMMON,
        MODEL,
        text("preamble", role="system"),
        text("chat_history[]", speaker=_speaker),
        arguments("chat_history[].tool_calls[].parameters"),
        inert("chat_history[].tool_calls[].name"),
        text("message"),
        *_DOCUMENTS,
        *_OPTIONS,
        arguments("tool_results[].call.parameters"),
        inert("tool_results[].call.name"),
    )
    answer = Table(*COMMON, *_TOLD)
    event = Table(*COMMON, *_TOLD, *below("response", _TOLD))

    def block_answer(self, path: str) -> type[BlockAnswer] | None:
        """Return the answer of a block."""
        return CohereAnswerV1

    def stream_framing(self, path: str) -> Framing:
        """Return the framing of a stream."""
        return Framing.JSON_LINES

    def place(self, root: Any, leaf: Leaf) -> Running:
        """Return a running text: the last event repeats the whole text as the answer, and in the history."""
        if _is_last_message(root, leaf):
            return ("text",)
        place = running(root, leaf.path)
        return place[1:] if place[:1] == ("response",) else place

    def kind(self, root: Any, leaf: Leaf) -> Kind:
        """Return whether a leaf is new text or a repeat."""
        return Kind.REPEAT if leaf.path[:1] == ("response",) else Kind.TEXT

    def is_final(self, data: str, document: Document | None) -> bool:
        """Return whether the event is `stream-end`."""
        if document is None:
            return super().is_final(data, document)
        return fields(document.root).get("event_type") == "stream-end"

    def refuse_stream(self, refusal: Refusal, sequence: int) -> bytes:
        """Return the API's last event, with an error."""
        return b"data: " + self._end(refusal) + b"\n\n"

    def refuse_lines(self, refusal: Refusal) -> bytes:
        """Return the API's last line, with an error."""
        return self._end(refusal) + b"\n"

    @staticmethod
    def _end(refusal: Refusal) -> bytes:
        response = {"text": "", "finish_reason": "ERROR"}
        end = {"is_finished": True, "event_type": "stream-end", "finish_reason": "ERROR", "response": response}
        return json.dumps({**end, "error": refusal.message}).encode()


def _is_last_message(root: Any, leaf: Leaf) -> bool:
    """Return whether a leaf of the last event is the model's own message in the history."""
    match leaf.path:
        case ("response", "chat_history", int(position), "message"):
            history = items(fields(fields(root).get("response")).get("chat_history"))
            is_last = position == len(history) - 1
            return is_last and _ROLES.get(str(fields(history[position]).get("role")).lower()) == "assistant"
        case _:
            return False
