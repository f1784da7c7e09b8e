"""Gemini's generateContent and streamGenerateContent, of the Gemini API and of Vertex AI.

Source: Google's Gemini API reference. Protobuf's JSON mapping accepts each field in camelCase and in snake_case.
Without `alt=sse` a stream is one growing JSON array: it is held whole, and a text that continues through its elements
is judged as one.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

from extproc.core.content.document import Document, Path, fields, items
from extproc.core.dialects.base import (
    TEXT_KEYS,
    Dialect,
    Leaf,
    Prompt,
    all_strings,
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

_CALLS = (("functionCall", "function_call"), ("toolCall", "tool_call"))

_RESULTS = (("functionResponse", "function_response"), ("toolResponse", "tool_response"))

_SPELT = frozenset(name for names in (*_CALLS, *_RESULTS) for name in names)

_ROLES = {"model": "assistant", "system": "system"}

_OPAQUE = frozenset({"fileData", "file_data", "inlineData", "inline_data"})

_PART_KEYS = TEXT_KEYS | {"code", "output"}

_CANDIDATE_KEYS = TEXT_KEYS | {
    "finishMessage",
    "finish_message",
    "renderedContent",
    "rendered_content",
    "retrievalQueries",
    "retrieval_queries",
    "title",
    "webSearchQueries",
    "web_search_queries",
}
"""Keys outside a candidate's content whose strings people read: grounding repeats parts of the answer."""

_STATUSES = {403: "PERMISSION_DENIED", 500: "INTERNAL", 502: "INTERNAL", 503: "UNAVAILABLE"}


class Gemini(Dialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`."""

    name = "gemini"
    reads_answers = True
    clients_skip_comments = False  # Google's own SDK parses a comment as JSON, and fails

    def prompts(self, document: Document, *, tools: bool) -> list[Prompt]:
        """Return the parts of the system instruction and of every content."""
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
        """Return whether the method in the path, and `alt`, ask for an event stream."""
        name, _, query = path.partition("?")
        return "streamgeneratecontent" in name.lower() and parse_qs(query).get("alt", [""])[-1] == "sse"

    def answers(self, document: Document) -> list[Leaf]:
        """Return the texts of every candidate; those of an array's elements are joined."""
        if not isinstance(document.root, list):
            return list(_candidates(document.root, ()))
        joined: dict[Hashable, list[Leaf]] = {}
        for position, element in enumerate(document.root):
            for leaf in _candidates(element, (position,)):
                joined.setdefault(leaf.place or leaf.path, []).append(leaf)
        return [_join(leaves, document) for leaves in joined.values()]

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


def _join(leaves: list[Leaf], document: Document) -> Leaf:
    """Return the pieces of one text as one leaf at the place of the first; a rewrite empties the other pieces.

    A rewrite also empties the tokens of every piece's logprobs, because several texts can share them.
    """
    emptied = [path for leaf in leaves for path in leaf.emptied] + [leaf.path for leaf in leaves[1:]]
    for path in {path: None for leaf in leaves for path in leaf.nulled}:
        emptied += [token.path for token in all_strings(_at(document.root, path), path)]
    return replace(leaves[0], text="".join(leaf.text for leaf in leaves), nulled=(), emptied=tuple(emptied))


def _at(node: Any, path: Path) -> Any:
    for step in path:
        node = node[step]
    return node


def _either(node: Mapping[str, Any], camel: str, snake: str) -> tuple[str, Any]:
    """Return a field's name and value, whichever of its two names it has.

    Raises MalformedBody if it has both names: readers differ in which of the two they use.
    """
    if camel in node and snake in node:
        raise MalformedBody("a field under both of its names")
    return (snake, node[snake]) if snake in node else (camel, node.get(camel))


def _candidates(node: Any, path: Path) -> Iterator[Leaf]:
    candidates = fields(node).get("candidates")
    if not isinstance(candidates, list):
        yield from unknown_texts(node, path)
        return
    for position, candidate_node in enumerate(candidates):
        candidate = fields(candidate_node)
        index = str(candidate.get("index", 0))
        where = (*path, "candidates", position)
        name, logprobs = _either(candidate, "logprobsResult", "logprobs_result")
        nulled = ((*where, name),) if logprobs is not None else ()
        for leaf in _answer(candidate.get("content"), (*where, "content"), index):
            yield replace(leaf, nulled=nulled)
        others = {key: candidate[key] for key in candidate if key not in ("content", name)}
        for leaf in unknown_texts(others, where, _CANDIDATE_KEYS):
            yield replace(leaf, place=None)


def _answer(node: Any, path: Path, index: str) -> Iterator[Leaf]:
    """Yield the texts of a candidate's content."""
    content = fields(node)
    parts = items(content.get("parts"))
    for number, part in enumerate(parts):
        yield from _part(part, (*path, "parts", number), index)
    others = {key: value for key, value in content.items() if value is not parts} if content else node
    yield from unknown_texts({"content": others}, path[:-1], TEXT_KEYS | {"parts"})


def _part(node: Any, path: Path, index: str) -> Iterator[Leaf]:
    """Yield the texts of a part."""
    if isinstance(node, str):
        if node:
            yield Leaf(path, node, place=(index, "text"))
        return
    part = fields(node)
    name, signature = _either(part, "thoughtSignature", "thought_signature")
    seal = ((*path, name),) if isinstance(signature, str) and signature else ()
    for key, value in part.items():
        for leaf in _field(key, value, path, index, is_thought=part.get("thought") is True):
            yield replace(leaf, emptied=seal)


def _field(key: str, value: Any, path: Path, index: str, *, is_thought: bool) -> Iterator[Leaf]:
    """Yield the texts of one field of a part."""
    if key == "text" and isinstance(value, str):
        if value:
            yield Leaf((*path, key), value, place=(index, "thought" if is_thought else "text"))
    elif any(key in names for names in _CALLS):
        yield from embedded(fields(value).get("args"), (*path, key, "args"))
        yield from _partial_args(fields(value), (*path, key), index)
    elif any(key in names for names in _RESULTS):
        yield from embedded(fields(value).get("response"), (*path, key, "response"))
    elif key not in _OPAQUE:
        for leaf in unknown_texts({key: value}, path, _PART_KEYS):
            yield replace(leaf, place=None)


def _partial_args(call: Mapping[str, Any], path: Path, index: str) -> Iterator[Leaf]:
    """Yield the strings of a call's arguments that come in pieces (Vertex AI)."""
    listed, pieces = _either(call, "partialArgs", "partial_args")
    for position, piece in enumerate(items(pieces)):
        name, text = _either(fields(piece), "stringValue", "string_value")
        if isinstance(text, str) and text:
            target = str(_either(fields(piece), "jsonPath", "json_path")[1])
            yield Leaf((*path, listed, position, name), text, place=(index, "args", target))


# -- requests ----------------------------------------------------------------------------------------------------


def _content(node: Any, path: Path, role: str | None) -> Iterator[Prompt]:
    if isinstance(node, str):
        if node:
            yield prompt(role or "user", Leaf(path, node))
        return
    if not isinstance(node, dict | None):
        raise MalformedBody("a content is not an object")
    content = fields(node)
    role = role or _ROLES.get(str(content.get("role")), "user")
    parts = content.get("parts")
    for position, part in enumerate(items(parts)):
        yield from _part_prompts(part, (*path, "parts", position), role)
    if isinstance(parts, dict | str):
        yield from _part_prompts(parts, (*path, "parts"), role)
    for leaf in unknown_texts({key: content[key] for key in content if key != "parts"}, path):
        yield prompt(role, leaf)


def _part_prompts(node: Any, path: Path, role: str) -> Iterator[Prompt]:
    part = fields(node)
    for camel, snake in _CALLS:
        called = fields(_either(part, camel, snake)[1])
        if called:
            yield tool_call(called.get("id"), called.get("name"), spelling(called.get("args")))
    for camel, snake in _RESULTS:
        name, answered = _either(part, camel, snake)
        for leaf in embedded(fields(answered).get("response"), (*path, name, "response")):
            yield tool_result(fields(answered).get("id") or fields(answered).get("name"), leaf)
    is_sealed = bool(_either(part, "thoughtSignature", "thought_signature")[1])
    said = {key: part[key] for key in part if key not in _SPELT} if part else node
    for leaf in _part(said, path, ""):
        yield prompt(role, replace(leaf, fixed=is_sealed))
