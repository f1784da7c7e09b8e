"""OpenAI's Responses API.

Source: OpenAI's API reference, "Responses" and "Streaming events". A stream sends each text several times: in deltas,
in the `*.done` event of its part, in `output_item.done` and in `response.completed`. All of them get the text's place
in the finished response, so that a repeat cannot restore a redacted delta.
"""

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
    all_strings,
    definitions,
    embedded,
    named,
    prompt,
    spelling,
    tool_call,
    tool_result,
    unknown_texts,
)
from extproc.core.errors import MalformedBody
from extproc.core.refusal import Refusal

_ITEM_KEYS = TEXT_KEYS | {
    "code",
    "command",
    "commands",
    "diff",
    "error",
    "filename",
    "input",
    "instructions",
    "logs",
    "message",
    "output",
    "path",
    "pattern",
    "queries",
    "query",
    "quote",
    "reason",
    "result",
    "revised_prompt",
    "stderr",
    "stdout",
    "summary",
    "title",
    "transcript",
    "working_directory",
}
"""Keys of an item whose strings are read by people or programs; not `encrypted_content` and addresses (`url`)."""

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

_FINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})


class OpenAIResponses(Dialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`."""

    name = "openai-responses"
    reads_answers = True
    is_repetitive = True

    def prompts(self, document: Document, *, tools: bool) -> list[Prompt]:
        """Return instructions, a prompt template's variables and the input items."""
        root = fields(document.root)
        prompts = [prompt("system", leaf) for leaf in _texts(root.get("instructions"), ("instructions",))]
        for name, value in fields(fields(root.get("prompt")).get("variables")).items():
            prompts += [prompt("user", leaf) for leaf in _texts(value, ("prompt", "variables", name))]
        for key in ("input", "items"):  # `items` fill a conversation, to which a later request refers
            prompts += _given(root.get(key), (key,))
        if tools:
            prompts += definitions(root, "tools", "text")
            for position, item in enumerate(items(root.get("input"))):
                listed = all_strings(fields(item).get("tools"), ("input", position, "tools"))
                prompts += [prompt("system", leaf) for leaf in listed]
        return prompts

    def answers(self, document: Document) -> list[Leaf]:
        """Return the texts of every output item."""
        return list(_response(document.root, ()))

    def deltas(self, document: Document) -> list[Leaf]:
        """Return the texts of one event, both new and repeated ones."""
        kind = fields(document.root).get("type")
        return list(_event(fields(document.root), kind) if isinstance(kind, str) else unknown_texts(document.root))

    def is_final(self, data: str, document: Document | None) -> bool:
        """Return whether the event has the finished response, or is `[DONE]`."""
        if document is None:
            return super().is_final(data, document)
        return named(fields(document.root).get("type"), _FINAL)

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


def _event(root: Mapping[str, Any], kind: str) -> Iterator[Leaf]:
    """Yield the texts of an event whose type is `kind`."""
    name, _, stage = kind.rpartition(".")
    output = ("output", _number(root, "output_index"))
    read: str | None = None
    if name in _DELTAS and stage in ("added", "delta", "done"):
        again, steps = _DELTAS[name]
        read = "delta" if stage == "delta" else again
        for leaf in _running(root, read, name):
            yield replace(leaf, place=output + _steps(root, steps), kind=Kind.TEXT if read == "delta" else Kind.REPEAT)
    elif name in _PARTS:
        read, steps = _PARTS[name]
        for leaf in _part(root.get(read), (read,), output + _steps(root, steps)):
            yield replace(leaf, kind=Kind.REPEAT)
    elif name == "response.output_item":
        read = "item"
        for leaf in _item(root.get(read), (read,), output):
            yield replace(leaf, kind=Kind.REPEAT)
    elif "response" in root:
        read = "response"
        for leaf in _response(root[read], (read,)):
            yield replace(leaf, kind=Kind.REPEAT)
    others = {key: root[key] for key in root if key != read and not _is_binary(kind, key)}
    for leaf in unknown_texts(others, (), TEXT_KEYS if kind == "error" else _ITEM_KEYS):
        yield replace(leaf, place=(kind, *output, *leaf.path))


def _steps(root: Mapping[str, Any], steps: tuple[str, ...]) -> Path:
    return tuple(_number(root, step) if step.endswith("_index") else step for step in steps)


def _is_binary(kind: str, key: str) -> bool:
    """Return whether a field holds a piece of audio or of an image, in base64."""
    return key == "delta" and ("audio" in kind or "image" in kind) and "transcript" not in kind


def _running(root: Mapping[str, Any], key: str, name: str) -> Iterator[Leaf]:
    """Yield the text under `key` of an event of the family `name`."""
    for leaf in unknown_texts({key: root.get(key)}, (), _ITEM_KEYS):
        is_json = name.endswith("arguments")
        nulled = (("logprobs",),) if root.get("logprobs") else ()
        yield replace(leaf, is_json=is_json, fixed="audio" in name, nulled=nulled)


def _response(node: Any, path: Path) -> Iterator[Leaf]:
    """Yield the texts of a response's output. Their places are their paths in the response."""
    response = fields(node)
    output = response.get("output")
    if not isinstance(output, list):
        yield from unknown_texts(node, path, TEXT_KEYS | {"output", "output_text"})
        return
    for position, item in enumerate(output):
        yield from _item(item, (*path, "output", position), ("output", position))
    # Some servers add a field that SDKs compute: all texts joined.
    yield from unknown_texts({"output_text": response.get("output_text")}, path, frozenset({"output_text"}))


def _item(node: Any, path: Path, place: Path) -> Iterator[Leaf]:
    if isinstance(node, str):
        yield from _part(node, path, place)
        return
    item = fields(node)
    # An image is under `result` too.
    keys = _ITEM_KEYS - {"result"} if item.get("type") == "image_generation_call" else _ITEM_KEYS
    for key, value in item.items():
        where = (*path, key)
        if key in ("content", "summary") and isinstance(value, list):
            for position, part in enumerate(value):
                yield from _part(part, (*where, position), (*place, key, position))
        elif key in ("arguments", "input") and isinstance(value, dict):
            yield from embedded(value, where)
        else:
            for leaf in unknown_texts({key: value}, path, keys):
                inside = leaf.path[len(path) :]
                yield replace(leaf, place=(*place, *inside), is_json=inside == ("arguments",))
    yield from all_strings(fields(item.get("action")).get("env"), (*path, "action", "env"))


def _part(node: Any, path: Path, place: Path) -> Iterator[Leaf]:
    if isinstance(node, str):
        if node:
            yield Leaf(path, node, place=place)
        return
    part = fields(node)
    if named(part.get("type"), _OPAQUE):
        return
    logprobs = ((*path, "logprobs"),) if part.get("logprobs") else ()
    for leaf in unknown_texts({key: part[key] for key in part if key != "logprobs"}, path, _ITEM_KEYS):
        inside = leaf.path[len(path) :]
        # The audio says the same: changing the transcript does not redact it.
        is_spoken = inside == ("transcript",)
        yield replace(leaf, place=(*place, *inside), nulled=logprobs, fixed=is_spoken)


# -- requests ----------------------------------------------------------------------------------------------------


def _texts(node: Any, path: Path) -> Iterator[Leaf]:
    """Yield a string, or the texts of its parts."""
    if isinstance(node, str):
        if node:
            yield Leaf(path, node)
    elif isinstance(node, list):
        for position, part in enumerate(node):
            yield from _texts(part, (*path, position))
    elif not named(fields(node).get("type"), _OPAQUE):
        yield from unknown_texts(node, path, _ITEM_KEYS)


def _given(node: Any, path: Path) -> Iterator[Prompt]:
    if isinstance(node, list):
        for position, item in enumerate(node):
            yield from _item_prompts(item, (*path, position))
    elif isinstance(node, str | None):
        yield from (prompt("user", leaf) for leaf in _texts(node, path))
    else:
        raise MalformedBody("input is not a list")


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
            others = {key: item[key] for key in item if key != "content"}
            yield from (prompt(sent, leaf) for leaf in unknown_texts(others, path))
        case "function_call" | "custom_tool_call":
            said = item.get("arguments") if kind == "function_call" else item.get("input")
            if said:
                spelt = said if isinstance(said, str) else spelling(said)
                yield tool_call(item.get("call_id"), item.get("name"), spelt)
        case "function_call_output" | "custom_tool_call_output":
            for leaf in _texts(item.get("output"), (*path, "output")):
                yield tool_result(item.get("call_id"), leaf)
        case _:
            role = "assistant" if kind == "reasoning" or str(kind).endswith("_call") else "user"
            is_sealed = bool(item.get("encrypted_content"))
            for leaf in _item(item, path, path):
                yield prompt(role, replace(leaf, fixed=is_sealed))
