"""A short cut for the chat documents that most exchanges have: one text at its usual place, and nothing else to read.

Each function returns None for a document in which a walk might find more. A walk finds the same in all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extproc.core.content.shapes import looks_inert
from extproc.core.dialects.chat_message import is_flat
from extproc.core.dialects.leaf import Leaf, Prompt
from extproc.core.dialects.table import Table
from extproc.core.vocabulary import MAX_CHOICE

_MOST_MESSAGES = 256

_INERT = frozenset(
    {"created", "id", "model", "object", "obfuscation", "provider", "service_tier", "system_fingerprint"}
)
"""What most servers send beside the choices."""

_EMPTY = frozenset(
    {
        "annotations",
        "audio",
        "finish_reason",
        "function_call",
        "logprobs",
        "reasoning",
        "reasoning_content",
        "refusal",
        "service_tier",
        "system_fingerprint",
        "tool_calls",
        "usage",
    }
)
"""What many servers send empty or null. A value that is true is left to the walk."""

_COUNTED = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})
"""What most servers count in `usage`."""

_NUMBERS = frozenset({int, float, bool, type(None)})


def flat_request(root: Any, table: Table) -> list[Prompt] | None:
    """Return the messages of a request that has only them, numbers, and inert strings at their places."""
    if type(root) is not dict or type(messages := root.get("messages")) is not list or len(messages) > _MOST_MESSAGES:
        return None
    place = table.root
    for key, value in root.items():
        if key == "messages":
            continue
        child = place.children.get(key)
        if child is None:
            child = None if place.is_disguise(key) else table.find(key)
        if child is None or child.needs_text:
            return None
        if type(value) not in _NUMBERS and not (child.is_inert and type(value) is str and looks_inert(value)):
            return None
    prompts = []
    for number, message in enumerate(messages):
        if type(message) is not dict or len(message) != 2 or not is_flat(message, may_lack_role=False):
            return None
        if type(text := message.get("content")) is not str:
            return None
        if text:
            prompts.append(Prompt(message, Leaf(("messages", number, "content"), text)))
    return prompts


def flat_answer(root: Any) -> Leaf | None:
    """Return the text of an answer that has one choice with a content."""
    choice = _only_choice(root)
    message = choice.get("message") if choice is not None else None
    if choice is None or type(message) is not dict or type(text := message.get("content")) is not str or not text:
        return None
    for key, value in message.items():
        if key != "content" and (key != "role" or value != "assistant") and (value or key not in _EMPTY):
            return None
    for key, value in choice.items():
        if key == "finish_reason":
            if value is not None and not (type(value) is str and looks_inert(value)):
                return None
        elif key != "message" and not (key == "index" and type(value) is int) and (value or key not in _EMPTY):
            return None
    usage = root.get("usage")
    if usage is not None and not _counts(usage):
        return None
    return Leaf(("choices", 0, "message", "content"), text) if _is_inert_beside(root, "usage") else None


def flat_chunk(root: Any) -> Leaf | None:
    """Return the text of a chunk that has one choice with a content."""
    choice = _only_choice(root)
    delta = choice.get("delta") if choice is not None else None
    if choice is None or type(delta) is not dict:
        return None
    if len(delta) > 1:
        for key, value in delta.items():
            if key != "content" and (key != "role" or value != "assistant") and (value or key not in _EMPTY):
                return None
    text, index = delta.get("content"), choice.get("index")
    if type(text) is not str or not text or type(index) is not int or not 0 <= index <= MAX_CHOICE:
        return None
    for key, value in choice.items():
        if key != "delta" and key != "index" and (value or key not in _EMPTY):
            return None
    if not _is_inert_beside(root, None):
        return None
    place = ("choices", index, "delta", "content")
    return Leaf(("choices", 0, "delta", "content"), text, place, index, unit=("choices", index))


def _only_choice(root: Any) -> dict[str, Any] | None:
    choices = root.get("choices") if type(root) is dict else None
    if type(choices) is not list or len(choices) != 1 or type(choices[0]) is not dict:
        return None
    return choices[0]


def _is_inert_beside(root: Mapping[str, Any], known: str | None) -> bool:
    """Return whether a document has nothing to read beside its choices and the field `known`."""
    for key, value in root.items():
        if key == "choices" or key == known:
            continue
        is_inert = key in _INERT and ((type(value) is str and looks_inert(value)) or type(value) is int)
        if not is_inert and (value or key not in _EMPTY):
            return False
    return True


def _counts(usage: Any) -> bool:
    """Return whether a field has only numbers under inert keys."""
    if type(usage) is not dict:
        return False
    for key, value in usage.items():
        if not (key in _COUNTED or looks_inert(key)) or not (type(value) in _NUMBERS or _counts(value)):
            return False
    return True
