"""A request that is held until it is whole: its bytes, its texts, and their redactions."""

from __future__ import annotations

from extproc.core.content.body import BodyBuffer, inflate
from extproc.core.content.document import Document
from extproc.core.content.framing import WHOLE, Framing
from extproc.core.content.media_type import is_form, is_json_lines, media_types
from extproc.core.detections import Messages
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.endpoints import GENERIC
from extproc.core.dialects.leaf import Prompt
from extproc.core.policy import Limits
from extproc.core.reading import document_of, form_of
from extproc.core.redaction import RedactionError, edits, redacted_prompts
from extproc.core.verdict import Anonymize
from extproc.core.vocabulary import Headers


class WholeRequest:
    """The body of one request."""

    __slots__ = (
        "_dialect",
        "_document",
        "_tools",
        "asks_for_stream",
        "buffer",
        "conversation",
        "messages",
        "size",
        "text_bytes",
    )

    def __init__(self, limit: int) -> None:
        """Hold at most `limit` bytes."""
        self.buffer = BodyBuffer(limit)
        self.text_bytes = 0
        """The memory that the text takes in addition to the buffer, once the body was read."""
        self.size = 0
        """The size of the body without its content-encoding, once it was read."""
        self.asks_for_stream = False
        """Whether the request asks for an event stream."""
        self.conversation: Messages = ()
        """The messages that are the context of the answer's detection."""
        self.messages: Messages = ()
        """The messages that the hooks of the request send: the conversation, after the definitions of tools."""
        self._tools = False
        self._dialect: Dialect | None = None
        self._document: Document | None = None

    def inflate(self, headers: Headers, limits: Limits) -> bytes:
        """Return the bytes without their content-encoding; raises ContentError."""
        return inflate(self.buffer.peek(), headers, limits.request_bytes, limits.inflate_ratio)

    def read(
        self,
        dialect: Dialect,
        plain: bytes,
        document: Document | None,
        headers: Headers,
        path: str,
        values: int,
        *,
        tools: bool,
    ) -> None:
        """Find the texts, and with `tools` those of tool definitions; raises ContentError, and there are then none.

        `document` is the body `plain` if it was parsed before; else it may have at most `values` values.
        """
        if not plain.strip():
            return
        document = _document(dialect, plain, document, headers, values)
        self._keep(dialect.prompts(document, tools=tools))
        self.asks_for_stream = dialect.streams(document, path)
        document.forget()
        self.text_bytes = document.size
        self.size = len(plain)
        self._dialect, self._document, self._tools = dialect, document, tools

    def redacted(self, verdict: Anonymize) -> bytes:
        """Return the body with the redactions of `verdict`, whose texts are then those of the request.

        The document is read once more: only then the places of all texts are known. Raises RedactionError, and
        ContentError if the result cannot be read.
        """
        dialect, document, texts = self._dialect, self._document, verdict.texts
        if dialect is None or document is None or len(texts) != len(self.messages):
            raise RedactionError("the number of messages has changed")
        prompts = dialect.prompts(document.read_again(), tools=self._tools, locates=True)
        changes = edits([(prompt.leaf, text) for prompt, text in zip(prompts, texts, strict=True)])
        rewritten = document.rewrite(changes)
        redacted = redacted_prompts(prompts, texts)
        if redacted is None:
            redacted = dialect.prompts(document.read_again(rewritten), tools=self._tools)
        self._keep(redacted)
        body = rewritten.encode("utf-8", "surrogateescape")  # a form's media are no UTF-8
        self.size = max(self.size, len(body))
        return body

    def _keep(self, prompts: list[Prompt]) -> None:
        definitions = tuple([prompt.message for prompt in prompts if prompt.is_definition])
        self.conversation = tuple([prompt.message for prompt in prompts if not prompt.is_definition])
        self.messages = definitions + self.conversation if definitions else self.conversation

    def forget_texts(self) -> None:
        """Free the texts."""
        self.conversation = self.messages = ()

    def take(self) -> bytes:
        """Remove and return all bytes, as they came."""
        self._document = None
        self.text_bytes = 0
        return self.buffer.take()


def _document(dialect: Dialect, body: bytes, document: Document | None, headers: Headers, values: int) -> Document:
    if dialect.takes_forms and any(map(is_form, media_types(headers))):
        return form_of(dialect, body, ", ".join(value for name, value in headers if name == "content-type"), values)
    if dialect is GENERIC and any(map(is_json_lines, media_types(headers))):
        return document_of(dialect, body, Framing.JSON_LINES, values)
    return document_of(dialect, body, WHOLE, values) if document is None else document
