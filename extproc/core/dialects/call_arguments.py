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
from extproc.core.dialects.table import UNNAMED, Place

_EMPTY = frozenset({"{}", "[]", '""', "null"})
"""Arguments of a call without arguments."""


class CallArguments:
    """Reads the arguments in one document. Their escapes are decoded, but not in an event, which may end within one."""

    __slots__ = ("_found", "_is_event", "has_values")

    def __init__(self, found: Found, *, is_event: bool) -> None:
        """Add the texts to `found`."""
        self._found = found
        self._is_event = is_event
        self.has_values = False
        """Whether arguments were found that are a value of JSON, and whose spelling is still unknown."""

    def read_text(self, text: str, place: Place, path: Path, base: Mapping[str, Any], seals: tuple[Path, ...]) -> None:
        """Read arguments that are a string."""
        place = place if place.role else ARGUMENTS
        if self._is_event:
            self._found.add(Leaf(path, text, is_json=True, emptied=seals), place, base)
        elif text.strip() in _EMPTY:
            return
        elif text.lstrip()[:1] in ("{", "[", '"') and (place is ARGUMENTS or _is_json(text)):
            said = decode(text)
            self._found.add(Leaf(path, said, is_json=True, raw=text, emptied=seals), place, base)
        else:
            self._found.add(Leaf(path, text, emptied=seals), place, base)

    def read_value(self, node: Any, place: Place, path: Path, base: Mapping[str, Any], seals: tuple[Path, ...]) -> None:
        """Read arguments that are a list or an object. `take_spellings` must give them their spelling."""
        if node:
            self.has_values = True
            raw = json.dumps(node, ensure_ascii=False)
            leaf = Leaf(path, decode(raw), is_json=True, is_embedded=True, raw=raw, emptied=seals)
            self._found.add(leaf, place if place.role else ARGUMENTS, base)

    def read_plain(self, text: str, base: Mapping[str, Any]) -> None:
        """Read a text that may be JSON for a reader that is more lenient."""
        said, raw = (text, "") if self._is_event else (decode(text), text)
        self._found.add(Leaf((), said, is_json=True, raw=raw), UNNAMED, base)


def take_spellings(document: Document, leaves: list[Leaf], prompts: list[Prompt]) -> None:
    """Give arguments that are a value of JSON their spelling in the document. The lists are changed in place."""
    embedded = [leaf for leaf in (*leaves, *(prompt.leaf for prompt in prompts)) if leaf is not None]
    spellings = document.spelling([leaf.path for leaf in embedded if leaf.is_embedded])

    def spelt_as_sent(leaf: Leaf) -> Leaf:
        raw = spellings[leaf.path]
        return replace(leaf, raw=raw, text=decode(raw))

    leaves[:] = [spelt_as_sent(leaf) if leaf.is_embedded else leaf for leaf in leaves]
    for number, prompt in enumerate(prompts):
        if prompt.leaf is not None and prompt.leaf.is_embedded:
            leaf = spelt_as_sent(prompt.leaf)
            prompts[number] = replace(prompt, message={**prompt.message, "content": leaf.text}, leaf=leaf)


def _is_json(text: str) -> bool:
    """Return whether arguments that need not be JSON are. Such text is a value of JSON for some tools."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
