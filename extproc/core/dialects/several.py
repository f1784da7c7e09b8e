"""Several prompts in one request, or several answers to one: in a stream each event has the number of its text."""

from __future__ import annotations

from typing import Any

from extproc.core.content.document import fields
from extproc.core.dialects.base import Running, running
from extproc.core.dialects.leaf import Leaf

_PROMPTS = ("prompt", "prompts", "input", "inputs", "text", "texts", "query", "queries")

_COUNTS = ("n", "n_cmpl", "best_of", "num_completions", "num_outputs", "num_return_sequences", "num_samples")

_INDICES = ("prompt_index", "index")


def asks_for_several(root: Any) -> bool:
    """Return whether a request has several prompts, or asks for several answers."""
    request = fields(root)
    if any(isinstance(count := request.get(key), int) and count > 1 for key in _COUNTS):
        return True
    prompts = (request.get(key) for key in _PROMPTS)
    return any(isinstance(each, list) and len(each) > 1 and isinstance(each[0], str | list) for each in prompts)


def numbered(root: Any, leaf: Leaf) -> Running:
    """Return the identity of a running text, of which the number of its prompt or answer in the event is a part."""
    event = fields(root)
    numbers = tuple(event[key] for key in _INDICES if isinstance(event.get(key), int))
    return (numbers, *running(root, leaf.path))
