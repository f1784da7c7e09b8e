"""The chunks of a session: what is submitted to Aim, and what Aim sends back (OpenAI's chat completion chunks).

Each submitted chunk carries its number, its mark, under a key of its own. An Aim that echoes chunks echoes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from extproc.core.content.document import MAX_DEPTH, is_deeper
from extproc.core.errors import ExtprocError
from extproc.core.vocabulary import MAX_CHOICE

MARK = "x_aim_extproc"
"""The key of a chunk's mark: an integer, from 1 on."""


class SessionViolation(ExtprocError):
    """Aim sent a chunk that cannot be an answer to the submitted chunks."""


def chunk_of(chunk_id: str, index: int, text: str, mark: int) -> str:
    """Return a chunk, as JSON, with one text."""
    return json.dumps(
        {
            "id": chunk_id,
            "object": "chat.completion.chunk",
            "created": 0,
            "model": "",
            "choices": [{"index": index, "delta": {"content": text}, "finish_reason": None}],
            MARK: mark,
        }
    )


def joined_chunk(chunk_id: str, texts: Mapping[int, str], mark: int) -> str:
    """Return a chunk, as JSON, with a text for each index."""
    choices = [{"index": index, "delta": {"content": text}, "finish_reason": None} for index, text in texts.items()]
    chunk = {"id": chunk_id, "object": "chat.completion.chunk", "created": 0, "model": "", "choices": choices}
    return json.dumps({**chunk, MARK: mark}, separators=(",", ":"))


def with_mark(data: str, number: int) -> str:
    """Return the text of a JSON object with a mark as its last field; everything else stays byte for byte."""
    fields, _, after = data.rpartition("}")
    comma = "" if fields.rstrip().endswith("{") else ","
    return f'{fields}{comma}"{MARK}":{number}}}{after}'


def mark_of(chunk: Mapping[str, Any], last: int) -> int | None:
    """Return a verified chunk's mark, None if it has none; `last` is the last mark that was given.

    Raises SessionViolation for a mark that was never given.
    """
    mark = chunk.get(MARK)
    if mark is None:
        return None
    if type(mark) is not int or not 1 <= mark <= last:
        raise SessionViolation("Aim verified a chunk with an unknown mark")
    return mark


def are_clear(choices: list[Any]) -> bool:
    """Return whether the index of every choice is a small whole number that no other choice has."""
    if len(choices) == 1:
        index = choices[0].get("index", 0)
        return type(index) is int and 0 <= index <= MAX_CHOICE
    found: set[int] = set()
    for choice in choices:
        index = choice.get("index", 0)
        if type(index) is not int or not 0 <= index <= MAX_CHOICE or index in found:
            return False
        found.add(index)
    return True


def essence_of(choices: Any) -> bytes:
    """Return a digest of a chunk's choices without their empty parts: Aim's schema may add nulls to an echo.

    Raises SessionViolation for choices that are nested too deeply.
    """
    if is_deeper(choices, MAX_DEPTH):
        raise SessionViolation("Aim verified a chunk that is nested too deeply")
    return blake2b(json.dumps(_full(choices), sort_keys=True).encode(), digest_size=16).digest()


def _full(node: Any) -> Any:
    if isinstance(node, dict):
        parts = {key: _full(value) for key, value in node.items()}
        return {key: value for key, value in parts.items() if value not in (None, "", {}, [])}
    if isinstance(node, list):
        return [_full(value) for value in node]
    # A number of more than 64 bits in Aim's chunk is read as a float.
    return _rounded(node) if type(node) is int and not -(2**63) <= node < 2**64 else node


def _rounded(number: int) -> float | None:
    try:
        return float(number)
    except OverflowError:
        return None
