"""The arguments of calls: JSON that a program parses, of which Aim reads the words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from extproc.core.content.arguments import decode
from extproc.core.content.document import Document, Path
from extproc.core.dialects.found import ARGUMENTS, Found
from extproc.core.dialects.leaf import Leaf, Prompt
from extproc.core.dialects.table import UNNAMED

_EMPTY = frozenset({"{}", "[]", '""', "null"})
"""Arguments of a call without arguments."""


class CallArguments:
    """Reads the arguments in one document. Their escapes are decoded, but not in an event, which may end within one."""

    __slots__ = ("_found", "_has_values", "_is_event")

    def __init__(self, found: Found, *, is_event: bool) -> None:
        """Add the texts to `found`."""
        self._found = found
        self._is_event = is_event
        self._has_values = False

    def read_text(self, text: str, path: Path, base: Mapping[str, Any], seals: tuple[Path, ...]) -> None:
        """Read arguments that are a string."""
        if self._is_event:
            self._found.add(Leaf(path, text, is_json=True, emptied=seals), ARGUMENTS, base)
        elif text.strip() in _EMPTY:
            return
        elif text.lstrip()[:1] in ("{", "[", '"'):
            said = decode(text)
            self._found.add(Leaf(path, said, is_json=True, raw=text, emptied=seals), ARGUMENTS, base)
        else:
            self._found.add(Leaf(path, text, emptied=seals), ARGUMENTS, base)

    def read_value(self, node: Any, path: Path, base: Mapping[str, Any], seals: tuple[Path, ...]) -> None:
        """Read arguments that are a list or an object."""
        if node:
            self._has_values = True
            raw = json.dumps(node, ensure_ascii=False)
            leaf = Leaf(path, decode(raw), is_json=True, is_embedded=True, raw=raw, emptied=seals)
            self._found.add(leaf, ARGUMENTS, base)

    def read_plain(self, text: str, base: Mapping[str, Any]) -> None:
        """Read a text that may be JSON for a reader that is more lenient."""
        said, raw = (text, "") if self._is_event else (decode(text), text)
        self._found.add(Leaf((), said, is_json=True, raw=raw), UNNAMED, base)

    def spell(self, document: Document) -> None:
        """Give arguments that are a list or an object their spelling in the document, which was read to its end."""
        if not self._has_values:
            return
        found = self._found
        leaves = [leaf for leaf in (*found.leaves, *(prompt.leaf for prompt in found.prompts)) if leaf is not None]
        spelt = document.spelling([leaf.path for leaf in leaves if leaf.is_embedded])

        def respell(leaf: Leaf) -> Leaf:
            raw = spelt[leaf.path]
            return replace(leaf, raw=raw, text=decode(raw))

        found.leaves = [respell(leaf) if leaf.is_embedded else leaf for leaf in found.leaves]
        for number, prompt in enumerate(found.prompts):
            if prompt.leaf is not None and prompt.leaf.is_embedded:
                leaf = respell(prompt.leaf)
                found.prompts[number] = Prompt({**prompt.message, "content": leaf.text}, leaf)
