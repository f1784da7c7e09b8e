"""Batches: requests that hold many requests, each a record with a name of the client's.

A record is a request of its own, read by the dialect of its API. Sources: Anthropic's API reference, "Message Batches";
OpenAI's, "Batch" and "Files"; Google's, "Batch Mode".
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

from extproc.core.content.document import Document, Path, fields, items, without
from extproc.core.dialects.anthropic_messages import AnthropicMessages
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.call_arguments import take_spellings
from extproc.core.dialects.cohere_chat import CohereChat
from extproc.core.dialects.found import Mode
from extproc.core.dialects.gemini import Gemini
from extproc.core.dialects.generic import Generic
from extproc.core.dialects.leaf import Prompt, Record
from extproc.core.dialects.openai_chat import OpenAIChat
from extproc.core.dialects.openai_completions import OpenAICompletions
from extproc.core.dialects.openai_requests import DataDialect, Embeddings, Images, Moderations, Rerank
from extproc.core.dialects.openai_responses import OpenAIResponses
from extproc.core.dialects.rules import COMMON, inert, text
from extproc.core.dialects.table import Table
from extproc.core.dialects.walk import Walk
from extproc.core.errors import MalformedBody
from extproc.core.policy import Inspect


class Entry(NamedTuple):
    """A record: its request and where that is, and the dialect that reads it."""

    path: Path
    body: dict[str, Any]
    record: Record
    dialect: Dialect


class BatchDialect(DataDialect):
    """A dialect whose requests hold records. Its table says what is around them."""

    has_records = True

    @abstractmethod
    def entries(self, root: Any) -> Iterator[Entry]:
        """Yield the records of a request, in order."""
        ...

    def prompts(self, document: Document, *, tools: bool, locates: bool = False) -> list[Prompt]:
        """Return the messages around the records, and those of each record with its tool definitions."""
        root = document.root
        entries = list(self.entries(root))
        prompts: list[Prompt] = []
        has_embedded = False

        def read(table: Table, node: Any, path: Path, record: Record | None) -> None:
            nonlocal has_embedded
            walk = Walk(table, Mode.REQUEST, wants_tools=tools, locates=locates)
            found = walk.find(node, path)
            prompts.extend(
                Prompt(each.message, each.leaf, each.is_definition, record)
                for each in (*found.definitions, *found.prompts)
            )
            has_embedded |= walk.has_embedded

        read(self.request, without(root, [each.path for each in entries]), (), None)
        for each in entries:
            read(each.dialect.request, each.body, each.path, each.record)
        if has_embedded:
            take_spellings(document, [], prompts)  # once, because each time reads the whole document
        if not prompts and not isinstance(root, dict):
            raise MalformedBody("a request of an unknown shape")
        return prompts


def _record(number: int, name: Any) -> Record:
    return Record(number, name if isinstance(name, str) and name else f"number {number + 1}")


class AnthropicBatches(BatchDialect, AnthropicMessages):
    """Batches of messages, and what the API says of them."""

    request = Table(*COMMON, text("requests[].params"))
    answer = event = Table(
        *COMMON,
        inert("processing_status", "data[].processing_status", "error.type"),
    )
    _message = AnthropicMessages()

    def entries(self, root: Any) -> Iterator[Entry]:
        """Yield the records of a request, in order."""
        for number, each in enumerate(items(fields(root).get("requests"))):
            params = fields(each).get("params")
            if isinstance(params, dict):
                record = _record(number, each.get("custom_id"))
                yield Entry(("requests", number, "params"), params, record, self._message)


_INPUT = ("input_config", "inputConfig")


class GeminiBatches(BatchDialect, Gemini):
    """Batches of contents. Those whose requests are in a file hold no text of them."""

    request = Table(
        *COMMON,
        text("batch.inputConfig.requests.requests[].request"),
        inert("batch.inputConfig.fileName", "batch.inputConfig.requests.requests[].metadata.key", "batch.priority"),
        two_spellings=True,
    )
    answer = event = Table(*COMMON, inert("name", "metadata.@type", "metadata.state", "metadata.name"))
    _content = Gemini()

    def entries(self, root: Any) -> Iterator[Entry]:
        """Yield the records of a request, in order."""
        batch = fields(fields(root).get("batch"))
        for key in _INPUT:
            requests = items(fields(fields(batch.get(key)).get("requests")).get("requests"))
            for number, each in enumerate(requests):
                body = fields(each).get("request")
                if isinstance(body, dict):
                    record = _record(number, fields(each.get("metadata")).get("key"))
                    path = ("batch", key, "requests", "requests", number, "request")
                    yield Entry(path, body, record, self._content)


_GENERIC = Generic()
_BY_URL: tuple[tuple[str, Dialect], ...] = (
    ("/chat/completions", OpenAIChat()),
    ("/completions", OpenAICompletions()),
    ("/responses", OpenAIResponses()),
    ("/embeddings", Embeddings()),
    ("/moderations", Moderations()),
    ("/images/generations", Images()),
    ("/images/edits", Images()),
    ("/videos", Images()),
    ("/v1/messages", AnthropicMessages()),
    ("/v2/chat", CohereChat()),
    ("/rerank", Rerank()),
)
"""The APIs of which a file may hold requests, by the ends of their paths."""


class FileUploads(BatchDialect):
    """Uploads of files. A line of batch input is a record; all other text in files is read as it is."""

    name = "openai-chat"
    opt_in = Inspect.FILES
    takes_forms = True
    request = Table(
        *COMMON,
        inert("purpose", "file.content[].method", "file.content[].url"),
        inert("expires_after.anchor", "expires_after.seconds"),
        text("file.content[].body"),
    )
    answer = event = Table(*COMMON, inert("filename", "purpose", "error.code", "error.param"))

    def entries(self, root: Any) -> Iterator[Entry]:
        """Yield the records of a request, in order."""
        number = 0
        for path, file in _files(fields(root).get("file")):
            for line, each in enumerate(items(fields(file).get("content"))):
                body = fields(each).get("body")
                if isinstance(body, dict):
                    record = _record(number, each.get("custom_id"))
                    yield Entry((*path, "content", line, "body"), body, record, _dialect_of(each.get("url")))
                number += each is not None


def _files(node: Any) -> Iterator[tuple[Path, Any]]:
    """Yield the files of a field, which may be several, with their places."""
    for number, each in enumerate(node) if isinstance(node, list) else ():
        yield ("file", number), each
    yield ("file",), node


def _dialect_of(url: Any) -> Dialect:
    path = url.partition("?")[0].rstrip("/").lower() if isinstance(url, str) else ""
    return next((dialect for end, dialect in _BY_URL if path.endswith(end)), _GENERIC)


class BatchJobs(DataDialect):
    """Batches whose requests are in a file. Only what the client says of a batch is text."""

    name = "openai-chat"
    request = Table(*COMMON, inert("endpoint", "completion_window", "output_expires_after.anchor"))
    answer = event = Table(
        *COMMON,
        inert("endpoint", "completion_window", "errors.data[].code", "errors.data[].param"),
        inert("data[].endpoint", "data[].completion_window", "data[].errors.data[].code", "data[].errors.data[].param"),
        inert("error.code", "error.param"),
    )
