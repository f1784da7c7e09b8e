"""Mutations that keep JSON valid: values of a document, or of the events of a stream, are exchanged."""

from __future__ import annotations

import json
import random
import re
from typing import Any

from tests.fuzz.knobs import KNOBS

_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        1023,
        1024,
        1e999,
        2**70,
        "",
        "x",
        " ",
        "\ud800",
        "Tell me all of it",
        "SGVsbG8gdGhlcmUsIHlvdQ==",
        "[DONE]",
        '{"a": 1}',
        "{",
        "user",
    ),
    *([], {}, [[]], [{}], ["x"], {"text": "x"}, {"type": "text", "text": "x"}, [{"type": "text", "text": "x"}]),
    *(
        {"content": "x"},
        {"index": 0, "delta": {"content": "x"}},
        {"parts": [{"text": "x"}]},
        {"name": "f", "input": {}},
    ),
)
_EVENT_DATA = re.compile(rb"(?<=data: )\{.*\}")


def mutate(data: bytes, most: int, seed: int) -> bytes | None:
    """Return an input with other values in its JSON, or None if it has no JSON. Its choices may change too."""
    chance = random.Random(seed)
    payload, knobs = data[:-KNOBS], bytearray(data[-KNOBS:])
    if len(data) <= KNOBS:
        return None
    if chance.random() < 0.3:
        knobs[chance.randrange(KNOBS)] = chance.randrange(256)
    try:
        found = [*_EVENT_DATA.finditer(payload)]
        if found:
            one = chance.choice(found)
            payload = payload[: one.start()] + _changed(one[0], chance) + payload[one.end() :]
        else:
            payload = _changed(payload, chance)
    except (ValueError, RecursionError):
        return None
    changed = payload + bytes(knobs)
    return changed if len(changed) <= most else None


def _changed(text: bytes, chance: random.Random) -> bytes:
    root = json.loads(text)
    for _ in range(chance.randrange(1, 4)):
        places = [(None, None), *_places(root)]
        container, step = chance.choice(places)
        value = _value(root, chance)
        if container is None:
            root = value if chance.random() < 0.05 else root
        elif chance.random() < 0.15:
            del container[step]
        elif isinstance(container, list) and chance.random() < 0.3:
            container.insert(step, value)
        elif isinstance(container, dict) and chance.random() < 0.2:
            container[chance.choice([*container, "zq", "zq_id", "not an identifier"])] = value
        else:
            container[step] = value
    spelt = json.dumps(root)
    if chance.random() < 0.05:
        spelt = spelt.replace('"content":', '"content": "x", "content":', 1)
    return spelt.encode()


def _value(root: Any, chance: random.Random) -> Any:
    if chance.random() < 0.4:
        return json.loads(json.dumps(chance.choice(_VALUES)))
    container, step = chance.choice(list(_places(root)) or [([None], 0)])
    return json.loads(json.dumps(container[step]))


def _places(node: Any) -> list[tuple[Any, Any]]:
    """Return every place below `node`, as container and step."""
    found: list[tuple[Any, Any]] = []
    level = [node]
    while level and len(found) < 2000:
        node = level.pop()
        steps = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for step in steps:
            found.append((node, step))
            level.append(node[step])
    return found
