"""Chat messages in the form in which Aim gets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SENT_ROLES = ("system", "user", "assistant")
"""Roles that Aim's schema accepts without further fields. Aim answers other roles with 422."""

_SHORT = 64
"""The longest name and id, in characters, that go with each part of a content."""

_PART = 16
"""The fewest characters of a part in the request."""


def is_flat(message: Mapping[str, Any], *, may_lack_role: bool) -> bool:
    """Return whether a message with a content has nothing else but its role, as most have."""
    role = message.get("role")
    return (type(role) is str and role in SENT_ROLES) if len(message) == 2 else may_lack_role and len(message) == 1


def as_sent(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message with a role that Aim's schema accepts."""
    role = message.get("role")
    complete = (role == "tool" and isinstance(message.get("tool_call_id"), str)) or (
        role == "function" and isinstance(message.get("name"), str)
    )
    is_sent = isinstance(role, str) and role in SENT_ROLES
    return {**message, "role": role if is_sent or complete else "user"}


def in_brief(sent: Mapping[str, Any]) -> dict[str, Any]:
    """Return only the role of a message, and the field without which Aim's schema does not accept it."""
    role = sent["role"]
    needed = {"tool": "tool_call_id", "function": "name"}.get(role)
    if needed is None:
        return {"role": role}
    return {"role": role, needed: sent[needed]} if len(sent[needed]) <= _SHORT else {"role": "user"}


def is_short(sent: Mapping[str, Any]) -> bool:
    """Return whether all fields of a message may go with each part of its content: that at most doubles its size."""
    content = sent["content"]
    parts = len(content) if isinstance(content, list) else 1
    return parts <= 2 or (parts - 2) * sum(_size(sent[key]) for key in sent if key != "content") <= 2 * _PART * parts


def _size(node: Any) -> int:
    """Return about how many characters a value has as JSON."""
    if isinstance(node, str):
        return len(node)
    if isinstance(node, dict):
        return sum(len(key) + _size(value) for key, value in node.items())
    return sum(map(_size, node)) if isinstance(node, list) else 8
