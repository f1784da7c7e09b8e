"""Places of tokens: logprobs and token ids, which spell a text again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from extproc.core.content.document import Path
from extproc.core.dialects.leaf import Leaf

_looks_like_token = re.compile(r"\s{0,128}\S{0,64}\s{0,128}").fullmatch
"""Match what a tokenizer may call a token: it never has white space between words."""


def no_tokens(node: Any, path: Path) -> Iterator[Leaf]:
    """Yield the strings at a place of tokens that look like none. Some servers use tokens as keys, too."""
    if isinstance(node, str):
        if not _looks_like_token(node):
            yield Leaf(path, node)
    elif isinstance(node, dict):
        for key, value in node.items():
            if not _looks_like_token(key):
                yield Leaf((*path, key), key, fixed=True)
            yield from no_tokens(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from no_tokens(value, (*path, index))
