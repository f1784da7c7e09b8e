"""Places of tokens: logprobs and token ids, which spell a text again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from extproc.core.content.document import Path
from extproc.core.content.shapes import looks_inert
from extproc.core.dialects.leaf import Leaf

_looks_like_token = re.compile(r"\s{0,128}\S{0,64}\s{0,128}").fullmatch
"""Match what a tokenizer may call a token: it never has white space between words."""

_TOKENS = frozenset({"token", "tokens", "decoded_token"})
"""Keys under which the strings are tokens."""

_KEYED = "top_logprobs"
"""A key under which some servers use tokens as keys."""


def no_tokens(node: Any, path: Path) -> Iterator[Leaf]:
    """Yield the strings at a place of tokens that are none."""
    return _below(node, path, "")


def _below(node: Any, path: Path, name: str) -> Iterator[Leaf]:
    """Yield the strings below the key `name` that are no tokens."""
    if isinstance(node, str):
        if node and not (looks_inert(node) or (name in _TOKENS and _looks_like_token(node))):
            yield Leaf(path, node)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key and not (looks_inert(key) or (name == _KEYED and _looks_like_token(key))):
                yield Leaf((*path, key), key, fixed=True)
            yield from _below(value, (*path, key), key)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _below(value, (*path, index), name)
