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
from enum import Enum
from typing import Any

from extproc.core.content.shapes import looks_inert

Speaker = Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]]
"""(object, message around it) -> the message, without content, that the object's texts become for Aim."""


class Holds(Enum):
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
    """a text in a form that Aim cannot judge, such as tensors"""


@dataclass(frozen=True, slots=True)
class Rule:
    """What the places of some patterns hold.

    `role` is the role of their texts for Aim, `speaker` finds the message that they become. A `fixed` text cannot be
    rewritten. TOKENS that are `everywhere` spell texts at other places. `seals` are the keys of signatures in the
    object at the place.
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
    """Return a rule for places whose texts are judged with all other unnamed ones, although a `**.` rule names them."""
    return Rule(Holds.UNNAMED, patterns, role, speaker)


def arguments(*patterns: str) -> Rule:
    """Return a rule for tool arguments."""
    return Rule(Holds.ARGUMENTS, patterns)


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
    """Return a rule for what Aim cannot judge."""
    return Rule(Holds.UNREADABLE, patterns)


class Place:
    """A compiled place: what it holds, and the places below it by key."""

    __slots__ = (
        "any_key",
        "children",
        "everywhere",
        "fixed",
        "folded",
        "has_upper",
        "is_inert",
        "is_plain",
        "kind",
        "needs_text",
        "role",
        "seals",
        "speaker",
        "twins",
    )

    def __init__(self) -> None:
        """Begin with a place that no rule names."""
        self.kind = Holds.UNNAMED
        self.is_inert = False
        self.is_plain = True
        """Whether all strings at the place and at the places below are texts, if no rule names their key."""
        self.needs_text = False
        """Whether a number at the place is unreadable."""
        self.role = ""
        self.speaker: Speaker | None = None
        self.fixed = False
        self.everywhere = False
        self.children: dict[str, Place] = {}
        self.any_key: Place | None = None
        self.folded: frozenset[str] = frozenset()
        """The named keys in lower case: a key that differs from all of them only in letter case is a disguise."""
        self.has_upper = False
        """Whether a named key has a capital letter."""
        self.seals: tuple[str, ...] = ()
        self.twins: tuple[tuple[str, str], ...] = ()
        """Pairs of names of one field (camelCase and snake_case)."""

    def take(self, rule: Rule) -> None:
        """Become a place of `rule`."""
        self.kind, self.role, self.speaker = rule.kind, rule.role, rule.speaker
        self.is_inert = rule.kind is Holds.INERT
        is_text = rule.kind is Holds.TEXT or rule.kind is Holds.UNNAMED
        self.is_plain = is_text and not (rule.speaker or rule.role or rule.fixed)
        self.needs_text = rule.kind in (Holds.TEXT, Holds.MESSAGE, Holds.UNREADABLE)
        self.fixed, self.everywhere = rule.fixed, rule.everywhere

    def is_disguise(self, key: str) -> bool:
        """Return whether a key that is not named differs from a named one only in letter case."""
        # Letters beyond ASCII may be folded although they are lower case.
        is_plain = key.isascii() and key.islower() and not self.has_upper
        return not is_plain and key.casefold() in self.folded

    def finish(self) -> None:
        """Prepare what a walk looks up, here and below."""
        waiting, seen = [self], {id(self)}
        while waiting:
            place = waiting.pop()
            place.folded = frozenset(key.casefold() for key in place.children)
            place.has_upper = not all(key.islower() for key in place.children)
            place.seals = tuple(key for key, child in place.children.items() if child.kind is Holds.SEAL)
            place.is_plain = place.is_plain and not (place.any_key or place.seals or place.twins)
            for child in (*place.children.values(), *((place.any_key,) if place.any_key else ())):
                if id(child) not in seen:
                    seen.add(id(child))
                    waiting.append(child)


_RECALLED, _SHORT_KEY = 1024, 32
"""The most keys whose places a table remembers, and the longest of them. Peers choose the keys."""

UNNAMED = Place()
"""The place that no rule names."""


class Table:
    """The rules of one kind of document of a dialect: its requests, its answers, or the events of its streams."""

    __slots__ = ("_all_begins", "_all_ends", "_begins", "_ends", "_names", "_recalled", "root", "rules")

    def __init__(self, *rules: Rule, two_spellings: bool = False) -> None:
        """Compile `rules`. With `two_spellings` each camelCase key is also read in snake_case."""
        self.rules = rules
        self.root = Place()
        self._names: dict[str, Place] = {}
        self._begins: list[tuple[str, Place]] = []
        self._ends: list[tuple[str, Place]] = []
        self._recalled: dict[str, Place] = {}
        for rule in rules:
            for pattern in rule.patterns:
                if pattern.startswith("**."):
                    self._add_name(pattern[3:], rule)
                else:
                    self._add_path(pattern, rule, two_spellings=two_spellings)
        self._all_ends = tuple(end for end, _ in self._ends)
        self._all_begins = tuple(begin for begin, _ in self._begins)
        self.root.finish()

    def _add_name(self, key: str, rule: Rule) -> None:
        place = Place()
        place.take(rule)
        if key.startswith("*"):
            self._ends.append((key[1:], place))
        elif key.endswith("*"):
            self._begins.append((key[:-1], place))
        else:
            self._names[key] = place

    def _add_path(self, pattern: str, rule: Rule, *, two_spellings: bool) -> None:
        place = self.root
        for key in filter(None, pattern.replace("[]", "").split(".")):
            if key == "*":
                place.any_key = place.any_key or Place()
                place = place.any_key
                continue
            child = place.children.setdefault(key, Place())
            other = snake(key)
            if two_spellings and other != key and other not in place.children:
                place.children[other] = child
                place.twins = (*place.twins, (key, other))
            place = child
        place.take(rule)

    def find(self, key: str) -> Place | None:
        """Return the place of a key that its object's place does not name; None if the key itself may be a text."""
        place = self._recalled.get(key)
        if place is None and (not key or looks_inert(key)):
            place = self.name(key)
            if len(self._recalled) < _RECALLED and len(key) <= _SHORT_KEY:
                self._recalled[key] = place
        return place

    def name(self, key: str) -> Place:
        """Return the place that `**.` rules give to a key, or the unnamed place."""
        place = self._names.get(key)
        if place is None and key.endswith(self._all_ends):
            place = next(found for end, found in self._ends if key.endswith(end))
        if place is None and key.startswith(self._all_begins):
            place = next(found for begin, found in self._begins if key.startswith(begin))
        return place or UNNAMED


def snake(key: str) -> str:
    """Return a camelCase key in snake_case."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in key)


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
