"""Texts under made-up keys, planted at every object and list of a document or an event stream."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.planted import type_of, units_of
from tests.fakes.reading import dotted

SEED = int(os.environ.get("PLANT_SEED") or random.SystemRandom().getrandbits(32))
"""The seed of keys and texts. Every run draws its own; set PLANT_SEED to repeat a run."""

MASK = "[X]"

SEALS = frozenset({"encrypted_content", "signature", "thoughtSignature", "thought_signature"})
"""Keys of seals: a redaction empties the seal of an answer's text, and is refused in a request."""


def is_sealed(node: Any) -> bool:
    """Return whether a document has a seal."""
    if isinstance(node, dict):
        return any((key in SEALS and bool(value)) or is_sealed(value) for key, value in node.items())
    return isinstance(node, list) and any(map(is_sealed, node))


_KEYS = ("zq_{}", "zq{}", "zq_{}_id", "zq_{}_url", "Zq{}Type", "zq_{}_data", "zq-{}-signature", "x_zq_{}")
"""Forms of made-up keys. The text has spaces, so that it is text even if the key ends like that of an inert place."""

PLANT = re.compile(r"plant (?:«|\\+u00ab)(\d+) of z(?:é|\\+u00e9)[0-9a-f]{8}(?:»|\\+u00bb)")
"""A planted text, in any spelling that JSON has for it; the group is its number."""


@dataclass
class Garden:
    """Plants texts in documents. Only the places whose numbers are in `chosen` get one; None: all places."""

    chosen: frozenset[int] | None = None
    plants: dict[int, str] = field(default_factory=dict)
    """The planted places in readable form, by number."""

    def __post_init__(self) -> None:
        self._random = random.Random(SEED)
        self._run = f"{SEED & 0xFFFFFFFF:08x}"
        self._number = 0

    def document(self, body: bytes) -> bytes:
        """Return a JSON document with plants."""
        return json.dumps(self._value(json.loads(body), ())).encode()

    def stream(self, body: bytes) -> bytes:
        """Return an event stream with plants in the first event of each shape."""
        out: list[bytes] = []
        shapes: set[Any] = set()
        for event in units_of(body):
            value = _json(event.data)
            shape = (type_of(event), _shape(value))
            if isinstance(value, dict | list) and shape not in shapes:
                shapes.add(shape)
                name = f"event {len(out)} {type_of(event)}".strip()
                out.append(event.with_data(json.dumps(self._value(value, (name,)))))
            else:
                out.append(event.raw)
        return b"".join(out)

    def _value(self, node: Any, path: tuple[str | int, ...]) -> Any:
        if isinstance(node, dict):
            return self._object(node, path)
        if isinstance(node, list):
            items = [self._value(item, (*path, index)) for index, item in enumerate(node)]
            if node and all(isinstance(item, str) for item in node):
                items += self._text((*path, len(node)))
            return items
        if isinstance(node, str) and isinstance(value := _json(node), dict | list) and value:
            return json.dumps(self._value(value, (*path, "(JSON)")))
        return node

    def _object(self, node: dict[str, Any], path: tuple[str | int, ...]) -> dict[str, Any]:
        planted: dict[str, Any] = {}
        key = self._key()
        for text in self._text((*path, key)):
            planted[key] = text
        planted |= {key: self._value(value, (*path, key)) for key, value in node.items()}
        key, inner, innermost = self._key(), self._key(), self._key()
        for text in self._text((*path, key, inner, innermost)):
            planted[key] = {inner: {innermost: text}}
        key = self._key()
        for text in self._text((*path, key, 0)):
            planted[key] = [text]
        return planted

    def _key(self) -> str:
        return self._random.choice(_KEYS).format(f"{self._random.getrandbits(20):x}")

    def _text(self, path: tuple[str | int, ...]) -> list[str]:
        """Return the text for the next place; none if the place is not chosen."""
        self._number += 1
        if self.chosen is not None and self._number not in self.chosen:
            return []
        self.plants[self._number] = dotted(path)
        return [f"plant «{self._number} of zé{self._run}»"]


def plants_in(*texts: str) -> set[int]:
    """Return the numbers of the plants in texts, in any spelling."""
    return {int(number) for text in texts for number in PLANT.findall(text)}


def masked(text: str) -> str:
    """Return a text with the mask in place of each plant."""
    return PLANT.sub(MASK, text)


def differences(
    before: Any, after: Any, redact: Callable[[str], str] = masked, path: tuple[str | int, ...] = ()
) -> Iterator[str]:
    """Yield the places at which `after` is not `before` with its texts redacted.

    Tokens of a rewritten text (a value with numbers) may be null, and a seal over it may be empty.
    """
    if isinstance(before, dict) and isinstance(after, dict) and list(before) == list(after):
        for key, value in before.items():
            yield from differences(value, after[key], redact, (*path, key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, value in enumerate(before):
            yield from differences(value, after[index], redact, (*path, index))
    elif isinstance(before, str) and isinstance(after, str) and before != after:
        inner, other = _json(before), _json(after)
        if isinstance(inner, dict | list) and isinstance(other, dict | list):
            yield from differences(inner, other, redact, (*path, "(JSON)"))
        elif redact(before) != after and not (after == "" and path and path[-1] in SEALS):
            yield dotted(path)
    elif before != after and not (after is None and isinstance(before, dict | list) and _are_tokens(before, path)):
        yield dotted(path) or "(root)"


def stream_differences(before: bytes, after: bytes, redact: Callable[[str], str] = masked) -> Iterator[str]:
    """Yield the places at which the stream `after` is not `before` with its texts redacted.

    An event that has nothing to redact may only lose the tokens and the seal of a text that was redacted before.
    """
    expected, found = units_of(before), units_of(after)
    if len(expected) != len(found):
        yield f"{len(expected)} events became {len(found)}"
        return
    for number, (one, other) in enumerate(zip(expected, found, strict=True)):
        if one.data is None or other.data is None:
            if one.raw != other.raw:
                yield f"event {number}, which has nothing to redact"
        elif one.raw == other.raw:
            if redact(one.data) != one.data:
                yield f"event {number}, which is not redacted"
        elif type_of(one) != type_of(other):
            yield f"the type of event {number}"
        else:
            places = differences(json.loads(one.data), json.loads(other.data), redact)
            yield from (f"event {number} {type_of(one)} {place}" for place in places)


def _are_tokens(node: Any, path: tuple[str | int, ...]) -> bool:
    return "logprobs" in str(path[-1:]) or _has_numbers(node)


def _has_numbers(node: Any) -> bool:
    if isinstance(node, dict | list):
        return any(map(_has_numbers, node.values() if isinstance(node, dict) else node))
    return isinstance(node, int | float) and not isinstance(node, bool)


def _json(text: str | None) -> Any:
    try:
        return json.loads(text or "")
    except ValueError:
        return None


def _shape(node: Any) -> Any:
    """Return the keys and types of a value, with its `type`; items of a list that have one shape count once."""
    if isinstance(node, dict):
        return tuple(
            (key, value if key in ("type", "event_type") and isinstance(value, str) else _shape(value))
            for key, value in sorted(node.items())
        )
    if isinstance(node, list):
        return "list", frozenset(map(_shape, node))
    return type(node).__name__
