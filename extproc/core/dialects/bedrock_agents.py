"""Bedrock's agents, knowledge bases and flows, and its other APIs that run on behalf of them.

Source: the service model of `bedrock-agent-runtime` in botocore (API version 2023-07-26). A stream is an AWS event
stream. The text of an agent is in base64 in the events `chunk`; those of the other operations are JSON.
"""

from __future__ import annotations

from typing import Any

from extproc.core.content.arguments import decode
from extproc.core.content.aws_event_stream import exception_frame
from extproc.core.content.census import MAX_VALUES
from extproc.core.content.document import Document, Path, PlainText, fields, without
from extproc.core.dialects.base import Running, running
from extproc.core.dialects.bedrock import BedrockDialect
from extproc.core.dialects.bedrock_converse import ASSESSMENT, FILES, speaker
from extproc.core.dialects.found import Mode
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.dialects.rules import COMMON, below, inert, media, opaque, text, tools, url
from extproc.core.dialects.table import Table
from extproc.core.dialects.walk import Walk
from extproc.core.refusal import Refusal

_NAMES = (
    inert(
        "**.*Arn",
        "**.*Id",
        "**.*Mode",
        "**.*State",
        "**.*Time",
        "**.*Type",
        "**.*Version",
        "**.action",
        "**.actionGroup",
        "**.actionGroupName",
        "**.agentCollaboration",
        "**.agentName",
        "**.category",
        "**.collaboratorName",
        "**.completionReason",
        "**.foundationModel",
        "**.guardrailAction",
        "**.httpMethod",
        "**.lambda",
        "**.latency",
        "**.nodeInputName",
        "**.nodeName",
        "**.nodeOutputName",
        "**.overrideLambda",
        "**.relayConversationHistory",
        "**.requireConfirmation",
        "**.timestamp",
        "**.useCase",
        "**.verb",
    ),
    url("**.*Uri"),
    opaque("**.nextToken", "**.redactedContent", "**.signature"),
)
"""Names that mean the same in every operation."""

_TEXT: Path = ("text",)
_BYTES: Path = ("bytes",)
_ANSWER: Path = ("generatedResponse", "answer")
"""The places of what an agent or a model says in a stream. All are one running text."""

_SESSIONS = ("sessionState", "inlineSessionState")
_GENERATIONS = tuple(
    f"retrieveAndGenerateConfiguration.{each}"
    for each in (
        "externalSourcesConfiguration.generationConfiguration",
        "knowledgeBaseConfiguration.generationConfiguration",
        "knowledgeBaseConfiguration.orchestrationConfiguration",
    )
)
_SOURCES = "retrieveAndGenerateConfiguration.externalSourcesConfiguration.sources[]"

_WHOLE = ("/retrieve", "/retrieveandgenerate", "/generatequery", "/rerank", "/executions", "/stop")
"""The ends of the paths whose answers are no streams."""


class BedrockAgents(BedrockDialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`."""

    name = "bedrock-converse"
    is_repetitive = True
    request = Table(
        *COMMON,
        *FILES,
        *_NAMES,
        text("inputText", "input.text", "input.textPrompt.text", "retrievalQuery.text", "queryGenerationInput.text"),
        text("instruction", "collaborators[].instruction", role="system"),
        text(*(f"{each}.promptTemplate.textPromptTemplate" for each in _GENERATIONS), role="system"),
        text("messages[]", *(f"{each}.conversationHistory.messages[]" for each in _SESSIONS), speaker=speaker),
        text("messages[].content.text"),
        text(*(f"{each}.conversationHistory.messages[].content[].text" for each in _SESSIONS)),
        tools("actionGroups[]", "collaborators[].actionGroups[]"),
        inert(f"{_SOURCES}.byteContent.identifier"),
        media(f"{_SOURCES}.byteContent.data", "retrievalQuery.image.inlineContent"),
        media(*(f"{each}.files[].source.byteContent.data" for each in _SESSIONS)),
    )
    answer = Table(*COMMON, *FILES, *_NAMES, text("output.text"), media("**.byteContent"))
    event = Table(
        *COMMON,
        *FILES,
        *_NAMES,
        text("text", "bytes", "generatedResponse.answer"),
        *below("trace.guardrailTrace.inputAssessments[]", [ASSESSMENT]),
        *below("trace.guardrailTrace.outputAssessments[]", [ASSESSMENT]),
        media("**.byteContent"),
    )

    def parse(
        self, text: str, values: int = MAX_VALUES, *, is_foreign: bool = False, is_event: bool = False
    ) -> Document:
        """Return a document. What a frame has in base64 is a text of the agent's, even if it looks like JSON."""
        document = super().parse(text, values, is_foreign=is_foreign, is_event=is_event)
        return PlainText(text) if is_foreign and "bytes" not in fields(document.root) else document

    def streams(self, document: Document, path: str) -> bool:
        """Return whether the path is one of those that answer with a stream."""
        return not path.partition("?")[0].rstrip("/").lower().endswith(_WHOLE)

    def deltas(self, document: Document, *, locates: bool = False) -> list[Leaf]:
        """Return the texts of one event. A text of the agent's is as it is: it has no escapes."""
        if isinstance(document, PlainText):
            return [self._placed(Leaf((), document.text), document.root, 0)]
        root = document.root
        said = fields(root).get("bytes")
        if said is None or isinstance(said, str):
            return super().deltas(document, locates=locates)
        # The agent's text looks like JSON, and its sources stand beside it.
        raw = document.spelling([_BYTES])[_BYTES]
        first = Leaf(_BYTES, raw)
        if "\\" in raw:
            # A client that parses it reads what the escapes stand for, as in arguments.
            first = Leaf(_BYTES, decode(raw), is_json=True, is_embedded=True, raw=raw)
        others = Walk(self.event, Mode.EVENT, locates=locates).find(without(root, [_BYTES]), ()).leaves
        return [self._placed(leaf, root, number) for number, leaf in enumerate([first, *others])]

    def place(self, root: Any, leaf: Leaf) -> Running:
        """Return a running text: of the agent or model, or of another part of the event."""
        is_said = leaf.path in ((), _BYTES, _TEXT, _ANSWER)
        return _TEXT if is_said else running(root, leaf.path)

    def kind(self, root: Any, leaf: Leaf) -> Kind:
        """Return whether a leaf is new text or a repeat: AgenticRetrieveStream ends with the whole answer."""
        return Kind.REPEAT if leaf.path == _ANSWER else Kind.TEXT

    def refuse_frame(self, refusal: Refusal, *, is_part: bool = False) -> bytes:
        """Return the frame that ends a stream with a refusal. Only these two types are known to all operations."""
        kind = "validationException" if refusal.status < 500 else "internalServerException"
        return exception_frame(kind, self.refuse(refusal))
