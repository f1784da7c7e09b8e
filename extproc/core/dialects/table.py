"""The rules of a table, compiled: what each place of a document holds."""

from __future__ import annotations

from extproc.core.content.shapes import looks_inert
from extproc.core.dialects.rules import COMMON, Holds, Rule, Speaker


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

    @property
    def own(self) -> tuple[Rule, ...]:
        """The rules without the common names, with which each table begins."""
        return self.rules[len(COMMON) :]

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
