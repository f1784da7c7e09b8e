"""OpenAI's Responses API.

Source: OpenAI's API reference, "Responses" and "Streaming events". A stream says each text several times: in deltas,
in the `*.done` event of its part, in `output_item.done` and in `response.completed`. All of them are named by where
the text stands in the finished response, so that a redacted delta does not come back in a repeat.
"""

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
    prompt,
    tool_call,
    tool_result,
    unknown_texts,
)
from extproc.document import Document, Path, fields, items
from extproc.errors import MalformedBody
from extproc.refusal import Refusal

_ITEM_KEYS = TEXT_KEYS | {
    "code",
    "command",
    "diff",
    "error",
    "input",
    "instructions",
    "logs",
    "output",
    "queries",
    "query",
    "reason",
    "revised_prompt",
    "stderr",
    "stdout",
    "summary",
    "transcript",
}
"""Keys of an item whose strings a person or a program reads. Not `result`, an image, nor `encrypted_content`."""

_OPAQUE = frozenset({"input_image", "input_file", "input_audio", "computer_screenshot", "output_image"})

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
    "response.audio.transcript": ("transcript", ("transcript",)),
    "response.audio_transcript": ("transcript", ("transcript",)),
}
"""Event name without `.delta` or `.done` -> (where `.done` has the text, the text's path in the output item)."""

_PARTS: Mapping[str, tuple[str, str]] = {
    "response.content_part": ("content", "content_index"),
    "response.reasoning_summary_part": ("summary", "summary_index"),
}

_FINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})


class OpenAIResponses(Dialect):
    """The dialect; see `extproc.dialects.base.Dialect`."""

    name = "openai-responses"
    reads_answers = True
    is_repetitive = True

    def prompts(self, document: Document, *, tools: bool) -> list[Prompt]:
        """Return instructions, a prompt template's variables and the input items."""
        root = fields(document.root)
        prompts = [prompt("system", leaf) for leaf in _texts(root.get("instructions"), ("instructions",))]
        for name, value in fields(fields(root.get("prompt")).get("variables")).items():
            prompts += [prompt("user", leaf) for leaf in _texts(value, ("prompt", "variables", name))]
        given = root.get("input")
        if isinstance(given, list):
            for position, item in enumerate(given):
                prompts += _item_prompts(item, ("input", position))
        elif isinstance(given, str | None):
            prompts += [prompt("user", leaf) for leaf in _texts(given, ("input",))]
        else:
            raise MalformedBody("input is no list")
        return prompts + (definitions(root, "tools", "text") if tools else [])

    def answers(self, document: Document) -> list[Leaf]:
        """Return the texts of every output item."""
        root = fields(document.root)
        if not isinstance(root.get("output"), list):
            return list(unknown_texts(document.root))
        return list(_output(root, ()))

    def deltas(self, document: Document) -> list[Leaf]:
        """Return the texts of one event: said for the first time, or again."""
        root = fields(document.root)
        kind = root.get("type")
        if not isinstance(kind, str):
            return list(unknown_texts(document.root))
        if "response" in root:
            return [replace(leaf, kind=Kind.REPEAT) for leaf in _output(fields(root["response"]), ("response",))]
        name, _, stage = kind.rpartition(".")
        output = ("output", _number(root, "output_index"))
        if name in _DELTAS and stage in ("delta", "done"):
            return list(_running(root, name, stage, output))
        if name in _PARTS:
            key, counter = _PARTS[name]
            found = _part(root.get("part"), ("part",), (*output, key, _number(root, counter)))
            return [replace(leaf, kind=Kind.REPEAT) for leaf in found]
        if name == "response.output_item":
            return [replace(leaf, kind=Kind.REPEAT) for leaf in _item(root.get("item"), ("item",), output)]
        return list(unknown_texts({key: value for key, value in root.items() if not _is_binary(kind, key)}))

    def is_final(self, data: str, document: Document | None) -> bool:
        """Tell whether this is the event with the finished response, or `[DONE]`."""
        if document is None:
            return super().is_final(data, document)
        return fields(document.root).get("type") in _FINAL

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


def _is_binary(kind: str, key: str) -> bool:
    """Tell whether a field holds base64: audio and images in pieces."""
    return key in ("delta", "partial_image_b64") and ("audio" in kind or "image" in kind)


def _running(root: Mapping[str, Any], name: str, stage: str, output: Path) -> Iterator[Leaf]:
    key, steps = _DELTAS[name]
    place = output + tuple(_number(root, step) if step.endswith("_index") else step for step in steps)
    path = ("delta",) if stage == "delta" else (key,)
    text = root.get(path[0])
    if isinstance(text, str) and text:
        yield Leaf(
            path,
            text,
            place=place,
            kind=Kind.TEXT if stage == "delta" else Kind.REPEAT,
            is_json=name == "response.function_call_arguments",
            fixed="audio" in name,
            nulled=("logprobs",) if root.get("logprobs") else None,
        )
    elif text is not None and not isinstance(text, str):
        yield from unknown_texts(text, path)


def _output(response: Mapping[str, Any], path: Path) -> Iterator[Leaf]:
    """Yield the texts of a response's output, placed by where they stand in it."""
    for position, item in enumerate(items(response.get("output"))):
        yield from _item(item, (*path, "output", position), ("output", position))


def _item(node: Any, path: Path, place: Path) -> Iterator[Leaf]:
    item = fields(node)
    kind = item.get("type")
    for key, value in item.items():
        if key in ("content", "summary") and isinstance(value, list):
            for position, part in enumerate(value):
                yield from _part(part, (*path, key, position), (*place, key, position))
        elif isinstance(value, str):
            if value and key in _ITEM_KEYS:
                is_json = kind == "function_call" and key == "arguments"
                yield Leaf((*path, key), value, place=(*place, key), is_json=is_json)
        else:
            for leaf in unknown_texts({key: value}, path, _ITEM_KEYS):
                yield replace(leaf, place=(*place, *leaf.path[len(path) :]))


def _part(node: Any, path: Path, place: Path) -> Iterator[Leaf]:
    part = fields(node)
    if part.get("type") in _OPAQUE:
        return
    logprobs = (*path, "logprobs") if part.get("logprobs") else None
    for leaf in unknown_texts({key: part[key] for key in part if key not in ("annotations", "logprobs")}, path):
        yield replace(leaf, place=(*place, *leaf.path[len(path) :]), nulled=logprobs)
    transcript = part.get("transcript")
    if isinstance(transcript, str) and transcript:
        yield Leaf((*path, "transcript"), transcript, place=(*place, "transcript"), fixed=True)


# -- requests ----------------------------------------------------------------------------------------------------


def _texts(node: Any, path: Path) -> Iterator[Leaf]:
    """Yield a string, or the texts of parts."""
    if isinstance(node, str):
        if node:
            yield Leaf(path, node)
    elif isinstance(node, list):
        for position, part in enumerate(node):
            yield from _texts(part, (*path, position))
    elif fields(node).get("type") not in _OPAQUE:
        yield from unknown_texts(node, path, _ITEM_KEYS)


def _item_prompts(node: Any, path: Path) -> Iterator[Prompt]:
    if isinstance(node, str):
        yield from (prompt("user", leaf) for leaf in _texts(node, path))
        return
    item = fields(node)
    kind = item.get("type", "message")
    match kind:
        case "message":
            role = item.get("role")
            sent = role if role in ("system", "user", "assistant") else "user"
            yield from (prompt(sent, leaf) for leaf in _texts(item.get("content"), (*path, "content")))
        case "function_call" | "custom_tool_call":
            said = item.get("arguments") if kind == "function_call" else item.get("input")
            if said:
                spelling = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
                yield tool_call(item.get("call_id"), item.get("name"), spelling)
        case "function_call_output" | "custom_tool_call_output":
            for leaf in _texts(item.get("output"), (*path, "output")):
                yield tool_result(item.get("call_id"), leaf)
        case _:
            role = "assistant" if kind == "reasoning" or str(kind).endswith("_call") else "user"
            is_sealed = isinstance(item.get("encrypted_content"), str)
            for leaf in _item(item, path, path):
                yield prompt(role, replace(leaf, fixed=is_sealed))
