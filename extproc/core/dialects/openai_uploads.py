"""Uploads of files in parts: OpenAI's uploads.

Source: OpenAI's API reference, "Uploads". A client begins an upload, sends the parts, which it may cut anywhere, and
completes the upload. Each of these is an exchange of its own.
"""

from __future__ import annotations

from extproc.core.content.document import Document, fields
from extproc.core.dialects.base import PlainTexts
from extproc.core.dialects.leaf import Prompt
from extproc.core.dialects.openai_requests import DataDialect
from extproc.core.dialects.rules import COMMON, inert
from extproc.core.dialects.table import Table
from extproc.core.errors import PieceOfText
from extproc.core.policy import Inspect

_STATE = inert("filename", "purpose", "error.code", "error.param")


class Uploads(DataDialect):
    """The begin and the end of an upload. They hold no text but the name of the file."""

    name = "openai-chat"
    request = Table(*COMMON, inert("filename", "purpose", "md5", "part_ids[]", "expires_after.anchor"))
    answer = event = Table(*COMMON, _STATE, inert("file.filename", "file.purpose"))


class UploadParts(DataDialect):
    """The parts. Those of a text are refused: a record or a word may begin in one part and end in another."""

    name = "openai-chat"
    opt_in = Inspect.FILES
    takes_forms = True
    plain_texts = PlainTexts.EVERYWHERE
    request = Table(*COMMON)
    answer = event = Table(*COMMON, _STATE)

    def prompts(self, document: Document, *, tools: bool, locates: bool = False) -> list[Prompt]:
        """Return the names of files. Raises PieceOfText for any other text."""
        data = fields(document.root).get("data")
        files = data if isinstance(data, list) else [data]
        found = super().prompts(document, tools=tools, locates=locates)
        is_text = any(fields(file).get("content") is not None for file in files)  # also if it is a number
        if is_text or any(prompt.leaf is None or prompt.leaf.path[-1:] != ("filename",) for prompt in found):
            raise PieceOfText("a part of a text")
        return found
