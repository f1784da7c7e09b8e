"""Places of tokens (logprobs, token ids): the pieces of a text that also stands elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from extproc.core.content.document import Path
from extproc.core.content.shapes import looks_inert
from extproc.core.dialects.leaf import Leaf

_looks_like_token = re.compile(r"\s{0,128}+\S{0,64}+\s{0,128}+").fullmatch
"""Match what a tokenizer may call a token: it never has white space between words."""

_TOKENS = frozenset({"token", "tokens", "decoded_token", "word"})
"""Keys under which the strings are tokens."""

_NESTED = frozenset({str, dict, list})
"""The types of values that have strings."""

_KEYED = "top_logprobs"
"""A key under which some servers use tokens as keys."""


def is_of_prompt(path: Path) -> bool:
    """Return whether the tokens at a place are those of the prompt, which was judged before."""
    return str(path[-1]).startswith(("prompt_", "input_"))


def has_tokens(node: Any) -> bool:
    """Return whether a place of tokens has anything: some servers send it empty with each event."""
    if isinstance(node, dict):
        return any(map(has_tokens, node.values()))
    if isinstance(node, list):
        return any(map(has_tokens, node))
    return node is not None and node != ""


def read_others(node: Any, path: Path, add: Callable[[Leaf], None]) -> None:
    """Add the strings at a place of tokens that are none, each as soon as it is found: there may be many."""
    _collect(node, path, "", add)


def _collect(node: Any, path: Path, name: str, add: Callable[[Leaf], None]) -> None:
    """Add the strings below the key `name` that are no tokens."""
    if isinstance(node, str):
        if node and not (looks_inert(node) or (name in _TOKENS and _looks_like_token(node))):
            add(Leaf(path, node))
    elif isinstance(node, dict):
        for key, value in node.items():
            if key and not (looks_inert(key) or (name == _KEYED and _looks_like_token(key))):
                add(Leaf((*path, key), key, fixed=True))
            if value.__class__ in _NESTED:
                _collect(value, (*path, key), key, add)
    else:
        has_tokens = name in _TOKENS
        for index, value in enumerate(node):
            if value.__class__ is str:
                if value and not (looks_inert(value) or (has_tokens and _looks_like_token(value))):
                    add(Leaf((*path, index), value))
            elif value.__class__ in _NESTED:
                _collect(value, (*path, index), name, add)
