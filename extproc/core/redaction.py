"""Applies Aim's redactions to the documents that the texts came from, or raises RedactionError in case of doubt."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import compress, count, islice
from operator import ne
from typing import Any

from extproc.core.content.arguments import Misfit, put_back, replace_strings
from extproc.core.content.document import MAX_DEPTH, Edit, Path, is_deeper
from extproc.core.dialects.joined import Parts
from extproc.core.dialects.leaf import Leaf, Prompt
from extproc.core.errors import ExtprocError

MOST_EDITS = 32_768
"""The most values that one redaction may change. More would keep other exchanges waiting."""

_PLAIN = frozenset({"role", "content"})
"""The fields of a message that has no other text than its content."""


class RedactionError(ExtprocError):
    """A redaction that cannot be applied. The text that it should hide must not be released."""


def edits(redacted: Iterable[tuple[Leaf | None, str | None]]) -> dict[Path, Edit]:
    """Return the edits that replace each leaf's text by its redacted text. A pair without a leaf needs no edit.

    Raises RedactionError if a text is missing, cannot be changed, or changes the keys or the structure of arguments. It
    also raises if more than 32,768 values would change, and if none would: Aim then found something in a place that was
    not sent as text.
    """
    changes: dict[Path, Edit] = {}
    for leaf, text in redacted:
        if leaf is None:
            continue
        if text is None:
            raise RedactionError("a redacted text is missing")
        if text != leaf.text:
            _rewrite(leaf, text, changes, set())
    if not changes:
        raise RedactionError("a redaction changes nothing")
    return changes


def redacted_prompts(prompts: Iterable[Prompt], texts: Iterable[str | None]) -> list[Prompt] | None:
    """Return the messages with their redacted texts; None if a message may show a text in another of its fields."""
    redacted = []
    for prompt, text in zip(prompts, texts, strict=True):
        if prompt.leaf is None or text is None or not prompt.message.keys() <= _PLAIN:
            return None
        if text:
            redacted.append(replace(prompt, message={**prompt.message, "content": text}))
    return redacted


def rewrite(leaf: Leaf, text: str) -> dict[Path, Edit]:
    """Return the edits that give `leaf` another text, and that remove what still shows or signs the old one.

    Raises RedactionError for a text that cannot be changed, and for one that does not fit to where it came from.
    """
    changes: dict[Path, Edit] = {}
    _rewrite(leaf, text, changes, set())
    return changes


def _rewrite(leaf: Leaf, text: str, changes: dict[Path, Edit], nulled: set[int]) -> None:
    """Add the edits of one leaf to `changes`. Parts of one unit share tuples of tokens, which are added once."""
    if leaf.fixed:
        raise RedactionError("a redacted text cannot be changed")
    changes |= dict.fromkeys(leaf.emptied, "")
    for paths in (leaf.nulled_everywhere, leaf.nulled):
        if paths and id(paths) not in nulled:
            nulled.add(id(paths))
            changes |= dict.fromkeys(paths)
    if leaf.is_joined:
        if not leaf.parts:
            raise RedactionError("the places of a joined text are unknown")
        texts = leaf.parts.texts if isinstance(leaf.parts, Parts) else [part.text for part in leaf.parts]
        # A text that Aim has dropped is empty, whatever its parts.
        lines = _lines(leaf.text, texts, text) if text else [""] * len(texts)
        for number in compress(count(), map(ne, texts, lines)):
            _rewrite(leaf.parts[number], lines[number], changes, nulled)
    elif leaf.raw:
        changes |= _rewrite_arguments(leaf, text)
    else:
        changes[leaf.path] = leaf.encoded.encode(text) if leaf.encoded is not None else text
    if len(changes) > MOST_EDITS:
        raise RedactionError("a redaction changes too many values")


def _lines(joined: str, texts: Sequence[str], text: str) -> list[str]:
    """Return the lines of each of the `joined` texts; raise RedactionError if the number of lines has changed."""
    lines = text.split("\n")
    if len(lines) != joined.count("\n") + 1:
        raise RedactionError("a redaction changes the number of lines")
    if len(lines) == len(texts):
        return lines
    rest = iter(lines)
    return ["\n".join(islice(rest, before.count("\n") + 1)) for before in texts]


def _rewrite_arguments(leaf: Leaf, text: str) -> dict[Path, Edit]:
    try:
        changes = put_back(leaf.raw, text)
    except Misfit as error:
        raise RedactionError("a redaction changes the keys or the structure of arguments") from error
    if not leaf.is_embedded:
        spelt = replace_strings(leaf.raw, changes)
        return {leaf.path: spelt if leaf.encoded is None else leaf.encoded.encode(spelt)}
    strings = enumerate(_strings(json.loads(leaf.raw), leaf.path))
    return {path: changes[number] for number, path in strings if number in changes}


def _strings(node: Any, path: Path) -> Iterator[Path]:
    """Yield the paths of the strings that are no keys, in order."""
    if isinstance(node, str):
        yield path
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _strings(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _strings(value, (*path, index))


def is_json(text: str) -> bool:
    """Return whether `text` is one JSON value."""
    try:
        value = json.loads(text)  # in which a key may be repeated
    except (ValueError, RecursionError):
        return False
    return text.count("{") + text.count("[") <= MAX_DEPTH or not is_deeper(value, MAX_DEPTH)
