"""Reads JSON of APIs that no dialect knows.

Every string is text, unless its key is one of the common names or of the names below and its value looks like what that
name holds.
"""

from __future__ import annotations

from typing import Any

from extproc.core.content.document import Document
from extproc.core.dialects.base import Dialect, PlainTexts, Running
from extproc.core.dialects.leaf import Leaf
from extproc.core.dialects.rules import COMMON, inert, opaque, url
from extproc.core.dialects.several import asks_for_several, numbered
from extproc.core.dialects.table import Table

_NAMES = (
    inert(
        "**.*Id",
        "**.*Reason",
        "**.*Time",
        "**.*Type",
        "**.jsonrpc",
        "**.modality",
        "**.owned_by",
        "**.service_tier",
        "**.serviceTier",
    ),
    url("**.*Uri", "**.*Url"),
    opaque("**.encrypted_content", "**.next_page_token", "**.nextPageToken", "**.signature", "**.thoughtSignature"),
)
"""Further names that mean the same in most APIs, above all in camelCase."""


class Generic(Dialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`. Refusals are OpenAI's."""

    name = "generic"
    plain_texts = PlainTexts.EVERYWHERE
    takes_forms = True
    request = answer = event = Table(*COMMON, *_NAMES)

    def after(self, request: Document, *, tools: bool) -> Dialect:
        """Return the dialect of the answer. The number of an event may count events, unless there are several texts."""
        return _SEVERAL if asks_for_several(request.root) else self


class _Several(Generic):
    """The dialect of an answer with several texts, whose events have the number of theirs."""

    def place(self, root: Any, leaf: Leaf) -> Running:
        """Return the identity of the running text that a leaf continues."""
        return numbered(root, leaf)


_SEVERAL = _Several()
