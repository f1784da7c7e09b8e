"""Gemini's generateContent and streamGenerateContent, of the Gemini API and of Vertex AI.

Source: Google's Gemini API reference. Protobuf's JSON mapping takes each field in camelCase and in snake_case.
Without `alt=sse` a stream is one JSON array that grows: it is held whole, and texts that run through its elements
are judged as one.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

from extproc.dialects.base import (
    Dialect,
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

_STATUSES = {403: "PERMISSION_DENIED", 500: "INTERNAL", 502: "INTERNAL", 503: "UNAVAILABLE"}


class Gemini(Dialect):
    """The dialect; see `extproc.dialects.base.Dialect`."""

    name = "gemini"
    reads_answers = True

    def prompts(self, document: Document, *, tools: bool) -> list[Prompt]:
        """Return the system instruction's parts and every content's."""
        root = fields(document.root)
        prompts: list[Prompt] = []
        for key in ("systemInstruction", "system_instruction"):
            prompts += _content(root.get(key), (key,), "system")
        contents = root.get("contents")
        if isinstance(contents, list):
            for position, content in enumerate(contents):
                prompts += _content(content, ("contents", position), None)
        else:
            prompts += _content(contents, ("contents",), None)
        return prompts + (definitions(root, "tools", "generationConfig", "generation_config") if tools else [])

    def streams(self, document: Document, path: str) -> bool:
        """Tell by the method in the path, and `alt`, whether an event stream is asked for."""
        name, _, query = path.partition("?")
        return "streamgeneratecontent" in name.lower() and parse_qs(query).get("alt", [""])[-1] == "sse"

    def answers(self, document: Document) -> list[Leaf]:
        """Return the texts of every candidate; of an array's elements joined."""
        if not isinstance(document.root, list):
            return list(_candidates(document.root, ()))
        joined: dict[Hashable, list[Leaf]] = {}
        for position, element in enumerate(document.root):
            for leaf in _candidates(element, (position,)):
                joined.setdefault(leaf.place or leaf.path, []).append(leaf)
        return [_join(leaves) for leaves in joined.values()]

    def deltas(self, document: Document) -> list[Leaf]:
        """Return the texts of one event."""
        return list(_candidates(document.root, ()))

    def refuse(self, refusal: Refusal) -> bytes:
        """Return Google's error object."""
        status = _STATUSES.get(refusal.status, "INVALID_ARGUMENT")
        return json.dumps({"error": {"code": refusal.status, "message": refusal.message, "status": status}}).encode()

    def refuse_stream(self, refusal: Refusal, sequence: int) -> bytes:
        """Return the error object as an event."""
        return b"data: " + self.refuse(refusal) + b"\n\n"


def _join(leaves: list[Leaf]) -> Leaf:
    """Return the pieces of one text as one leaf at the first one's place; the others are emptied by a rewrite."""
    first, *others = leaves
    if not others:
        return first
    emptied = tuple(path for leaf in leaves for path in leaf.emptied) + tuple(leaf.path for leaf in others)
    return replace(first, text="".join(leaf.text for leaf in leaves), emptied=emptied)


def _either(node: Mapping[str, Any], camel: str, snake: str) -> tuple[str, Any]:
    """Return a field under the name that it has."""
    return (snake, node[snake]) if snake in node else (camel, node.get(camel))


def _candidates(node: Any, path: Path) -> Iterator[Leaf]:
    candidates = fields(node).get("candidates")
    if not isinstance(candidates, list):
        yield from unknown_texts(node, path)
        return
    for position, candidate_node in enumerate(candidates):
        candidate = fields(candidate_node)
        index = candidate.get("index", 0)
        where = (*path, "candidates", position)
        name, logprobs = _either(candidate, "logprobsResult", "logprobs_result")
        nulled = (*where, name) if logprobs is not None else None
        parts = fields(candidate.get("content")).get("parts")
        for number, part in enumerate(parts if isinstance(parts, list) else ()):
            for leaf in _part(fields(part), (*where, "content", "parts", number), str(index)):
                yield replace(leaf, nulled=nulled)


def _part(part: Mapping[str, Any], path: Path, index: str) -> Iterator[Leaf]:
    """Yield the texts of an answer's part."""
    name, signature = _either(part, "thoughtSignature", "thought_signature")
    seal = ((*path, name),) if isinstance(signature, str) and signature else ()
    text = part.get("text")
    if isinstance(text, str) and text:
        running = (index, "thought" if part.get("thought") is True else "text")
        yield Leaf((*path, "text"), text, place=running, emptied=seal)
    name, call = _either(part, "functionCall", "function_call")
    for leaf in embedded(fields(call).get("args"), (*path, name, "args")):
        yield replace(leaf, emptied=seal)
    for camel, snake, key in (
        ("executableCode", "executable_code", "code"),
        ("codeExecutionResult", "code_execution_result", "output"),
    ):
        name, node = _either(part, camel, snake)
        text = fields(node).get(key)
        if isinstance(text, str) and text:
            yield Leaf((*path, name, key), text)


# -- requests ----------------------------------------------------------------------------------------------------


def _content(node: Any, path: Path, role: str | None) -> Iterator[Prompt]:
    if isinstance(node, str):
        if node:
            yield prompt(role or "user", Leaf(path, node))
        return
    if not isinstance(node, dict | None):
        raise MalformedBody("a content is no object")
    content = fields(node)
    parts = content.get("parts")
    said_by = role or ("assistant" if content.get("role") == "model" else "user")
    if isinstance(parts, list):
        for position, part in enumerate(parts):
            yield from _part_prompts(part, (*path, "parts", position), said_by)
    elif parts is not None:
        yield from _part_prompts(parts, (*path, "parts"), said_by)


def _part_prompts(node: Any, path: Path, role: str) -> Iterator[Prompt]:
    if isinstance(node, str):
        if node:
            yield prompt(role, Leaf(path, node))
        return
    part = fields(node)
    name, call = _either(part, "functionCall", "function_call")
    if isinstance(call, dict):
        asked = fields(call)
        yield tool_call(asked.get("id"), asked.get("name"), json.dumps(asked.get("args"), ensure_ascii=False))
    name, response = _either(part, "functionResponse", "function_response")
    for leaf in embedded(fields(response).get("response"), (*path, name, "response")):
        answered = fields(response)
        yield tool_result(answered.get("id") or answered.get("name"), leaf)
    is_sealed = isinstance(_either(part, "thoughtSignature", "thought_signature")[1], str)
    for leaf in _part({key: part[key] for key in part if key not in ("functionCall", "function_call")}, path, ""):
        yield prompt(role, replace(leaf, fixed=is_sealed))
