"""Bedrock's Converse, ConverseStream and CountTokens.

Source: the service model of `bedrock-runtime` in botocore (API version 2023-09-30). The stream is an AWS event stream.
The type of an event is in the headers of its frame; its payload is the event alone, with padding (`p`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extproc.core.block_answers.base import BlockAnswer
from extproc.core.block_answers.converse import ConverseAnswer
from extproc.core.content.document import Document, Path, fields
from extproc.core.dialects.base import Running, answering, endpoint, running
from extproc.core.dialects.bedrock import BedrockDialect
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.dialects.openai_requests import DataDialect
from extproc.core.dialects.rules import COMMON, arguments, below, inert, media, opaque, seal, text, tools
from extproc.core.dialects.table import Table


def speaker(message: Mapping[str, Any], base: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the message that a message's texts become."""
    role = message.get("role")
    return {"role": role if role in ("system", "assistant") else "user"}


def result_speaker(result: Mapping[str, Any], base: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the message that the texts of a tool's result become."""
    return answering(result.get("toolUseId"), base)


FILES = (media("**.bytes"), inert("**.bucketOwner"))
"""Images, documents, sounds and videos, in base64 or in S3."""

BLOCK = (
    text("text", "reasoningContent.reasoningText.text"),
    arguments("toolUse.input", "toolResult.content[].json"),
    text("toolResult.content[].text"),
    inert("toolUse.toolUseId", "toolUse.name", "toolResult.toolUseId"),
    seal("reasoningContent.reasoningText.signature"),
    opaque("reasoningContent.redactedContent"),
    text("guardContent.text.text", "citationsContent.content[].text", "document.source.text"),
    inert("guardContent.text.qualifiers[]"),
    inert("citationsContent.citations[].location.web.domain", "cachePoint.ttl"),
)
"""What a block of content holds, in requests and answers."""

DELTA = (
    text("text", "reasoningContent.text"),
    arguments("toolUse.input", "toolResult[].json"),
    text("toolResult[].text"),
    seal("reasoningContent.signature"),
    opaque("reasoningContent.redactedContent"),
    inert("citation.location.web.domain"),
)
"""What a delta of a block holds in a stream."""

START = inert("start.toolUse.toolUseId", "start.toolUse.name", "start.toolResult.toolUseId")
"""How a block begins in a stream."""

_POLICIES = (
    "topicPolicy.topics[]",
    "contentPolicy.filters[]",
    "wordPolicy.customWords[]",
    "wordPolicy.managedWordLists[]",
    "sensitiveInformationPolicy.piiEntities[]",
    "sensitiveInformationPolicy.regexes[]",
    "contextualGroundingPolicy.filters[]",
)

ASSESSMENT = inert(
    *(f"{each}.action" for each in _POLICIES),
    "contentPolicy.filters[].confidence",
    "contentPolicy.filters[].filterStrength",
    "appliedGuardrailDetails.guardrailId",
    "appliedGuardrailDetails.guardrailVersion",
    "appliedGuardrailDetails.guardrailArn",
    "appliedGuardrailDetails.guardrailOrigin[]",
    "appliedGuardrailDetails.guardrailOwnership",
)
"""What the assessment of a guardrail holds beside the texts that it has found."""

TRACE = (
    *below("guardrail.inputAssessment.*", [ASSESSMENT]),
    *below("guardrail.outputAssessments.*", [ASSESSMENT]),
    inert("promptRouter.invokedModelId"),
)
"""What the trace of a guardrail holds beside the texts that it has found."""

_MODES = inert("performanceConfig.latency", "usage.cacheDetails[].ttl")

_PROMPT = (
    text("system[]", role="system"),
    text("system[].text", "system[].guardContent.text.text", role="system"),
    inert("system[].guardContent.text.qualifiers[]", "system[].cachePoint.ttl"),
    text("messages[]", speaker=speaker),
    *below("messages[].content[]", BLOCK),
    text("messages[].content[].toolResult", speaker=result_speaker),
    tools("toolConfig.tools[]", "outputConfig.textFormat.structure.jsonSchema"),
    inert("toolConfig.toolChoice.tool.name"),
)
"""What the model gets."""


class BedrockConverse(BedrockDialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`."""

    name = "bedrock-converse"
    is_repetitive = True
    request = Table(
        *COMMON,
        *FILES,
        *_PROMPT,
        text("promptVariables.*.text"),
        inert(
            "additionalModelResponseFieldPaths[]",
            "guardrailConfig.guardrailIdentifier",
            "guardrailConfig.guardrailVersion",
            "guardrailConfig.streamProcessingMode",
            "guardrailConfig.trace",
            "outputConfig.effort",
            "performanceConfig.latency",
            "projectIdentifier",
            "requestMetadata.*",
        ),
    )
    answer = Table(
        *COMMON,
        *FILES,
        *below("output.message.content[]", BLOCK),
        inert("stopReason"),
        _MODES,
        *below("trace", TRACE),
    )
    event = Table(
        *COMMON,
        *FILES,
        *below("delta", DELTA),
        START,
        inert("p", "stopReason"),
        _MODES,
        *below("trace", TRACE),
    )

    def block_answer(self, path: str) -> type[BlockAnswer] | None:
        """Return the answer of a block, for paths of a Converse alone."""
        return ConverseAnswer if endpoint(path).endswith(("/converse", "/converse-stream")) else None

    def place(self, root: Any, leaf: Leaf) -> Running:
        """Return a running text: of the block with the event's index, or of another part of the event."""
        return block_place(fields(root), leaf.path, leaf) or running(root, leaf.path)

    def is_final(self, data: str, document: Document | None) -> bool:
        """Return whether the event is `metadata`, the last one."""
        if document is None:
            return super().is_final(data, document)
        return "usage" in fields(document.root)


def block_place(event: Mapping[str, Any], path: Path, leaf: Leaf) -> Running:
    """Return the running text of the delta of `event` at `path`; empty for another part of the event."""
    if path[:1] != ("delta",):
        return ()
    index = event.get("contentBlockIndex")
    inside = ("reasoningContent", "text") if leaf.kind is Kind.SEAL else path[1:]
    return (index if isinstance(index, int) else 0, *inside)


class BedrockCountTokens(DataDialect, BedrockDialect):
    """CountTokens: the prompt of a Converse, or the body of an InvokeModel in base64."""

    name = "bedrock-converse"
    request = Table(*COMMON, *FILES, *below("input.converse", _PROMPT), media("input.invokeModel.body"))
    answer = event = Table(*COMMON)
