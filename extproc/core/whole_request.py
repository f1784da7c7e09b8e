"""A request that is held until it is whole: its bytes, its texts, and their redactions."""

from __future__ import annotations

from collections.abc import Sequence

from extproc.core.batch import Batch
from extproc.core.content.body import BodyBuffer, inflate
from extproc.core.content.declared_text import check_charsets
from extproc.core.content.document import Document, Edit, Path
from extproc.core.content.form import FormDocument
from extproc.core.content.framing import WHOLE, Framing
from extproc.core.content.media_type import is_form, is_json_lines, media_types
from extproc.core.detections import Messages
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.endpoints import GENERIC
from extproc.core.dialects.leaf import Prompt
from extproc.core.policy import Limits
from extproc.core.reading import document_of, form_of
from extproc.core.redaction import MOST_EDITS, RedactionError, edits, redacted_prompts
from extproc.core.verdict import Anonymize, Outcome
from extproc.core.vocabulary import Headers, Input


class WholeRequest:
    """The body of one request."""

    __slots__ = (
        "_bounds",
        "_dialect",
        "_document",
        "_tools",
        "after",
        "asks_for_stream",
        "batch",
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
        self.after: Dialect | None = None
        """The dialect of the answer, once the body was parsed."""
        self.asks_for_stream = False
        """Whether the request asks for an event stream."""
        self.conversation: Messages = ()
        """The messages that are the context of the answer's detection."""
        self.messages: Messages = ()
        """The messages that the hooks of the request send: the conversation, after the definitions of tools."""
        self.batch: Batch | None = None
        """The records, if the request is a batch."""
        self._bounds: list[tuple[int, int]] = []
        self._tools = False
        self._dialect: Dialect | None = None
        self._document: Document | None = None

    def inflate(self, headers: Headers, limits: Limits) -> bytes:
        """Return the bytes without their content-encoding; raises ContentError."""
        return inflate(self.buffer.peek(), headers, limits.request_bytes, limits.inflate_ratio)

    def read(self, dialect: Dialect, document: Document, path: str, size: int, *, tools: bool) -> None:
        """Find the texts of a body of `size` bytes, and with `tools` those of tool definitions.

        Raises ContentError, and there are then none.
        """
        self.after = dialect.after(document, tools=tools)
        self._keep(dialect, dialect.prompts(document, tools=tools))
        self.asks_for_stream = dialect.streams(document, path)
        document.forget()
        self.text_bytes = document.size
        self.size = size
        self._dialect, self._document, self._tools = dialect, document, tools

    def inputs(self, most: int) -> list[Input]:
        """Return the inputs of a detection: one, or at most `most` for the records of a batch."""
        if self.batch is None:
            self._bounds = [(0, len(self.messages))]
            return [Input(self.messages)]
        groups = self.batch.groups(most)
        self._bounds = [self.batch.bounds(group) for group in groups]
        return [self.batch.input(group) for group in groups]

    def redacted(self, outcomes: Sequence[Outcome]) -> bytes:
        """Return the body with the redactions of the outcomes, one for each input. Their texts are then the request's.

        The document is read once more: only then the places of all texts are known. Raises RedactionError, and
        ContentError if the result cannot be read.
        """
        dialect, document = self._dialect, self._document
        assert dialect is not None
        assert document is not None
        prompts = dialect.prompts(document.read_again(), tools=self._tools, locates=True)
        texts: list[str | None] = []
        changes: dict[Path, Edit] = {}
        for (first, end), outcome in zip(self._bounds, outcomes, strict=True):
            group = prompts[first:end]
            if not isinstance(outcome, Anonymize):
                texts += [prompt.leaf.text if prompt.leaf is not None else None for prompt in group]
            elif len(outcome.texts) != len(group):
                raise RedactionError("the number of messages has changed")
            else:  # one by one: each redaction must change its own texts
                changes |= edits([(prompt.leaf, text) for prompt, text in zip(group, outcome.texts, strict=True)])
                texts += outcome.texts
                if len(changes) > MOST_EDITS:
                    raise RedactionError("a redaction changes too many values")
        rewritten = document.rewrite(changes)
        redacted = redacted_prompts(prompts, texts)
        if redacted is None:
            redacted = dialect.prompts(document.read_again(rewritten), tools=self._tools)
        self._keep(dialect, redacted)
        body = rewritten.encode("utf-8", "surrogateescape")  # a form's media are no UTF-8
        self.size = max(self.size, len(body))
        return body

    def _keep(self, dialect: Dialect, prompts: list[Prompt]) -> None:
        if dialect.has_records:
            # The answer says nothing of the records, so they are no context of it.
            self.messages = tuple([prompt.message for prompt in prompts])
            self.batch = Batch(prompts, self.messages)
            return
        definitions = tuple([prompt.message for prompt in prompts if prompt.is_definition])
        self.conversation = tuple([prompt.message for prompt in prompts if not prompt.is_definition])
        self.messages = definitions + self.conversation if definitions else self.conversation

    def forget_texts(self) -> None:
        """Free the texts."""
        self.conversation = self.messages = ()
        self.batch = None

    def take(self) -> bytes:
        """Remove and return all bytes, as they came."""
        self._document = None
        self.text_bytes = 0
        return self.buffer.take()


def read_form(dialect: Dialect, body: bytes, headers: Headers, values: int) -> FormDocument:
    """Return a body that its headers call a form; raises ContentError."""
    return form_of(dialect, body, ", ".join(value for name, value in headers if name == "content-type"), values)


def parse_request(
    dialect: Dialect, body: bytes, document: Document | None, headers: Headers, values: int
) -> Document | None:
    """Return the body, parsed to at most `values` values: `document` if it was parsed before, None if it is blank.

    Raises ContentError.
    """
    if not body.strip():
        return None
    check_charsets(headers)
    if dialect.takes_forms and any(map(is_form, media_types(headers))):
        return document if isinstance(document, FormDocument) else read_form(dialect, body, headers, values)
    if dialect is GENERIC and any(map(is_json_lines, media_types(headers))):
        return document_of(dialect, body, Framing.JSON_LINES, values)
    return document_of(dialect, body, WHOLE, values) if document is None else document
