"""The language of a dialect's tables: rules that say what the places of a document hold.

A pattern names a place by its keys from the root: `choices[].message.content`. `[]` is for readers: what holds for a
place holds for the entries of a list there. `*` is any key. A pattern that begins with `**.` names a key at any depth,
except where the table names the place. `*_id` and `created*` there stand for all keys that end or begin so.

A place that no rule names holds text. So a table lists what is known to hold none, and what needs more than its text to
be read: roles, running texts, arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Speaker = Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]]
"""(object, message around it) -> the message, without content, that the object's texts become for Aim."""


class Holds(StrEnum):
    """What a place holds."""

    UNNAMED = "text"
    """a text that the table does not name"""
    TEXT = "named text"
    """a text of its own: a message of a request, a running text of an answer"""
    ARGUMENTS = "tool arguments"
    """JSON, as a string or as a value, that is one text with its keys"""
    MESSAGE = "message"
    """a chat message, which Aim gets with all its fields"""
    TOOLS = "tool definitions"
    """definitions of tools or schemas: a system message for each"""
    TOKENS = "tokens"
    """a text again, in tokens: null once the text is rewritten"""
    SEAL = "seal"
    """a signature of the texts beside it"""
    INERT = "inert"
    """an identifier, an enum or a name"""
    OPAQUE = "opaque"
    """a signature, a cursor or encrypted content"""
    URL = "url"
    """a URL"""
    MEDIA = "media"
    """binary content in base64, or a URL of it"""
    UNREADABLE = "unreadable"
    """a text in a form that Aim cannot read, such as tensors"""


@dataclass(frozen=True, slots=True)
class Rule:
    """What the places of some patterns hold.

    `role` is the role of their texts for Aim, `speaker` finds the message that they become. A `fixed` text cannot be
    rewritten. TOKENS that are `everywhere` spell texts at other places.
    """

    kind: Holds
    patterns: tuple[str, ...]
    role: str = ""
    speaker: Speaker | None = None
    fixed: bool = False
    everywhere: bool = False


def text(*patterns: str, role: str = "", speaker: Speaker | None = None, fixed: bool = False) -> Rule:
    """Return a rule for named texts."""
    return Rule(Holds.TEXT, patterns, role, speaker, fixed)


def unnamed(*patterns: str, role: str = "", speaker: Speaker | None = None) -> Rule:
    """Return a rule for places whose texts go with all other unnamed ones, although a `**.` rule names them."""
    return Rule(Holds.UNNAMED, patterns, role, speaker)


def arguments(*patterns: str, role: str = "") -> Rule:
    """Return a rule for tool arguments. Without a `role` they are the assistant's."""
    return Rule(Holds.ARGUMENTS, patterns, role)


def message(*patterns: str) -> Rule:
    """Return a rule for chat messages."""
    return Rule(Holds.MESSAGE, patterns)


def tools(*patterns: str) -> Rule:
    """Return a rule for tool definitions."""
    return Rule(Holds.TOOLS, patterns)


def tokens(*patterns: str, everywhere: bool = False) -> Rule:
    """Return a rule for tokens of the texts beside them, or of any text if they are `everywhere`."""
    return Rule(Holds.TOKENS, patterns, everywhere=everywhere)


def seal(*patterns: str) -> Rule:
    """Return a rule for signatures of the texts in the same object."""
    return Rule(Holds.SEAL, patterns)


def inert(*patterns: str) -> Rule:
    """Return a rule for identifiers, enums and names."""
    return Rule(Holds.INERT, patterns)


def opaque(*patterns: str) -> Rule:
    """Return a rule for opaque values."""
    return Rule(Holds.OPAQUE, patterns)


def url(*patterns: str) -> Rule:
    """Return a rule for URLs."""
    return Rule(Holds.URL, patterns)


def media(*patterns: str) -> Rule:
    """Return a rule for binary content."""
    return Rule(Holds.MEDIA, patterns)


def unreadable(*patterns: str) -> Rule:
    """Return a rule for what Aim cannot read."""
    return Rule(Holds.UNREADABLE, patterns)


def below(prefix: str, rules: Iterable[Rule]) -> list[Rule]:
    """Return rules for the same places below `prefix`. Rules of names stay."""
    return [
        Rule(
            rule.kind,
            tuple(each if each.startswith("**.") else f"{prefix}.{each}" for each in rule.patterns),
            rule.role,
            rule.speaker,
            rule.fixed,
            rule.everywhere,
        )
        for rule in rules
    ]


COMMON = (
    inert(
        "**.id",
        "**.*_id",
        "**.*_ids",
        "**.type",
        "**.*_type",
        "**.object",
        "**.model",
        "**.role",
        "**.status",
        "**.created*",
        "**.finish_reason",
        "**.stop_reason",
        "**.mime_type",
        "**.media_type",
        "**.language",
        "**.format",
        "**.encoding",
        "**.version",
        "**.index",
        "**.*_at",
    ),
    url("**.url", "**.*_url", "**.uri", "**.*_uri"),
    media("**.b64_json", "**.*_b64"),
)
"""The names that mean the same in every API. The generic dialect adds names that mean the same in most APIs."""

MODEL = inert("model")
"""The model of a request, named in its root: some servers also read it in other letter cases, which is refused."""
