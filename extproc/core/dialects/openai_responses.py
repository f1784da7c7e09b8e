"""OpenAI's Responses API.

Source: OpenAI's API reference, "Responses" and "Streaming events". A stream sends each text several times: in deltas,
in the `*.done` event of its part, in `output_item.done` and in `response.completed`. All of them get the text's place
in the finished response, so that a repeat cannot restore a redacted delta.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from typing import Any

from extproc.core.block_answers.base import BlockAnswer
from extproc.core.block_answers.responses import ResponseAnswer
from extproc.core.content.document import Document, Path, fields
from extproc.core.dialects.base import Dialect, Running, answering, endpoint, short_name
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.dialects.openai_chat import ADDED, CHAT_MESSAGES, OPTIONS
from extproc.core.dialects.rules import (
    COMMON,
    MODEL,
    Rule,
    arguments,
    below,
    inert,
    media,
    opaque,
    seal,
    text,
    tokens,
    tools,
    unnamed,
)
from extproc.core.dialects.table import Table
from extproc.core.refusal import Refusal

_DELTAS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "response.output_text": ("text", ("content", "content_index", "text")),
    "response.refusal": ("refusal", ("content", "content_index", "refusal")),
    "response.reasoning_text": ("text", ("content", "content_index", "text")),
    "response.reasoning_summary_text": ("text", ("summary", "summary_index", "text")),
    "response.function_call_arguments": ("arguments", ("arguments",)),
    "response.mcp_call_arguments": ("arguments", ("arguments",)),
    "response.mcp_call.arguments": ("arguments", ("arguments",)),
    "response.custom_tool_call_input": ("input", ("input",)),
    "response.code_interpreter_call_code": ("code", ("code",)),
    "response.code_interpreter_call.code": ("code", ("code",)),
    "response.apply_patch_call_operation_diff": ("diff", ("operation", "diff")),
    "response.shell_call_command": ("command", ("action", "commands", "command_index")),
    "response.audio.transcript": ("transcript", ("transcript",)),
    "response.audio_transcript": ("transcript", ("transcript",)),
}
"""Event name without `.delta`, `.added` or `.done` -> (the text's key in the latter two, its path in the item)."""

_PARTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "response.content_part": ("part", ("content", "content_index")),
    "response.reasoning_summary_part": ("part", ("summary", "summary_index")),
    "response.output_text.annotation": ("annotation", ("content", "content_index", "annotations", "annotation_index")),
    "response.output_text_annotation": ("annotation", ("content", "content_index", "annotations", "annotation_index")),
}
"""Event name without its last word -> (the key of the part, the part's path in the item)."""

_OTHERS = ("/cancel", "/compact", "/conversations", "/input_tokens", "/items")
"""Ends of paths whose answers are no response of a model that is just made."""

_FINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})


def _speaker(item: Mapping[str, Any], base: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the message that an item's texts become."""
    kind = str(item.get("type", "message"))
    role = item.get("role")
    if kind.endswith("_call_output"):
        return answering(item.get("call_id"), base)
    if role in ("system", "assistant"):
        return {"role": role}
    return {"role": "assistant" if kind == "reasoning" or kind.endswith("_call") else "user"}


_PART = (
    text("text", "refusal", "input_text", "output_text"),
    text("transcript", fixed=True),
    tokens("logprobs"),
    media("image_url", "file_data", "file_url", "data", "input_audio.data"),
    inert("detail", "input_audio.format", "prompt_cache_breakpoint.mode"),
)
"""What a part of an item's content or summary holds."""


def _items(place: str) -> list[Rule]:
    """Return the rules of a list of items, or of one item."""
    return [
        text(place, speaker=_speaker),
        *below(f"{place}.content[]", _PART),
        *below(f"{place}.summary[]", _PART),
        *below(f"{place}.output[]", _PART),
        *below(
            place,
            (
                text("content", "summary", "output", "input", "code", "text"),
                arguments("arguments"),
                seal("encrypted_content"),
                media("result", "output.image_url", "file_data", "image_url"),
                opaque("fingerprint"),
                tools("tools[]"),
                inert(
                    "action",
                    "background",
                    "detail",
                    "execution",
                    "name",
                    "namespace",
                    "output_format",
                    "phase",
                    "quality",
                    "server_label",
                    "size",
                ),
            ),
        ),
    ]


_ECHOED = (
    inert(
        "background",
        "conversation",
        "include[]",
        "modalities[]",
        "moderation",
        "phase",
        "prompt.version",
        "prompt_cache_key",
        "prompt_cache_options.*",
        "prompt_cache_retention",
        "reasoning.context",
        "reasoning.effort",
        "reasoning.generate_summary",
        "reasoning.mode",
        "reasoning.summary",
        "safety_identifier",
        "service_tier",
        "text.verbosity",
        "tool_choice",
        "tool_choice.*",
        "tool_choice.tools[].name",
        "truncation",
        "user",
    ),
    tools("tools[]", "text.format"),
)
"""Settings of a request, which the response repeats."""

_RESPONSE = (
    ADDED,
    *_items("output[]"),
    text("output_text", "output"),
    inert("metadata.*"),  # the client's own, which was read in its request
    tokens("output_messages[].tokens", "input_messages[].tokens", everywhere=True),
    inert("billing.payer", "error.code", "error.param", "incomplete_details.reason", "**.severity"),
    *_ECHOED,
)

_DONE = (
    ADDED,
    *_items("item"),
    *below("part", _PART),
    *below("annotation", _PART),
    text("text", "refusal", "input", "code", "diff", "command"),
    tokens("logprobs"),
    opaque("obfuscation"),
    media("partial_image_b64"),
    inert("output_format", "background", "name", "quality", "size", "service_tier"),
    *below("response", _RESPONSE),
)


class OpenAIResponses(Dialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`."""

    name = "openai-responses"
    unit_depth = 4
    is_repetitive = True
    request = Table(
        *COMMON,
        MODEL,
        *OPTIONS,
        *_ECHOED,
        text("instructions", role="system"),
        *below("instructions[].content[]", _PART),
        unnamed("prompt.variables.*"),
        *_items("input[]"),
        *_items("items[]"),
        *CHAT_MESSAGES,
    )
    answer = Table(*COMMON, *_RESPONSE, *_items("data[]"))
    event = Table(*COMMON, *_DONE, text("delta"), text("transcript"), arguments("arguments"))
    _json = Table(*COMMON, *_DONE, arguments("delta", "arguments"))
    _spoken = Table(*COMMON, *_DONE, text("delta", "transcript", fixed=True))
    _binary = Table(*COMMON, *_DONE, media("delta"))
    _error = Table(*COMMON, inert("code", "param", "error.code", "error.param"))

    def block_answer(self, path: str) -> type[BlockAnswer] | None:
        """Return the answer of a block; items, counts and compactions are none."""
        return None if endpoint(path).endswith(_OTHERS) else ResponseAnswer

    def event_table(self, root: Any) -> Table:
        """Return the table for an event: its type says what `delta` is. An error may lack a type."""
        kind = fields(root).get("type")
        if not isinstance(kind, str):
            return self._error if "code" in fields(root) else self.event
        if kind == "error":
            return self._error
        if "transcript" in kind:
            return self._spoken
        if "audio" in kind or "image" in kind:
            return self._binary
        return self._json if "arguments" in kind else self.event

    def place(self, root: Any, leaf: Leaf) -> Running:
        """Return the place of the text in the finished response, or a place of its own for other texts."""
        found = _target(root, leaf.path)
        return found[0] if found is not None else (short_name(fields(root).get("type")), *_output(root), *leaf.path)

    def _unit(self, leaf: Leaf, place: tuple[Hashable, ...]) -> Hashable:
        """Return the identity of the part at `place`. An event that is of no part has one for all its texts."""
        if place[1:2] == ("output",) and not leaf.is_everywhere:
            return place[:3]
        return super()._unit(leaf, place)

    def kind(self, root: Any, leaf: Leaf) -> Kind:
        """Return whether the text repeats earlier deltas."""
        found = _target(root, leaf.path)
        return found[1] if found is not None else Kind.TEXT

    def is_final(self, data: str, document: Document | None) -> bool:
        """Return whether the event has the finished response, or is `[DONE]`."""
        if document is None:
            return super().is_final(data, document)
        kind = fields(document.root).get("type")
        return isinstance(kind, str) and kind in _FINAL

    def refuse_stream(self, refusal: Refusal, sequence: int) -> bytes:
        """Return the API's flat error event."""
        error = {
            "type": "error",
            "code": refusal.code,
            "message": refusal.message,
            "param": None,
            "sequence_number": sequence,
        }
        return b"event: error\ndata: " + json.dumps(error).encode() + b"\n\n"


def _number(root: Mapping[str, Any], key: str) -> int:
    number = root.get(key)
    return number if isinstance(number, int) else 0


def _output(root: Any) -> Path:
    return ("output", _number(fields(root), "output_index"))


def _target(root: Any, path: Path) -> tuple[Running, Kind] | None:
    """Return the place in the finished response of the value at `path` of an event, and whether it is new."""
    event = fields(root)
    name, _, stage = short_name(event.get("type")).rpartition(".")
    output = _output(root)
    first = path[0] if path else None
    if name in _DELTAS and stage in ("added", "delta", "done"):
        again, steps = _DELTAS[name]
        where = output + _steps(event, steps)
        if first == ("delta" if stage == "delta" else again):
            return (*where, *path[1:]), Kind.TEXT if stage == "delta" else Kind.REPEAT
        return ((*where[:-1], *path), Kind.TEXT) if first == "logprobs" else None
    if name in _PARTS and first == _PARTS[name][0]:
        return (*output, *_steps(event, _PARTS[name][1]), *path[1:]), Kind.REPEAT
    if first == "item":
        return (*output, *path[1:]), Kind.REPEAT
    if first == "response":
        return path[1:], Kind.REPEAT
    return None


def _steps(root: Mapping[str, Any], steps: tuple[str, ...]) -> Path:
    return tuple(_number(root, step) if step.endswith("_index") else step for step in steps)
