"""Gemini's generateContent and streamGenerateContent, of the Gemini API and of Vertex AI.

Source: Google's Gemini API reference. Protobuf's JSON mapping accepts each field in camelCase and in snake_case.
Without `alt=sse` a stream is one growing JSON array, which is released element by element. The array of an error answer
is held whole, and a text that continues through its elements is one text for Aim.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from extproc.core.block_answers.base import BlockAnswer
from extproc.core.block_answers.gemini import GeminiAnswer
from extproc.core.content.document import Document, fields
from extproc.core.content.framing import Framing
from extproc.core.dialects.base import Dialect, Running, answering, running, short_name
from extproc.core.dialects.google_error import google_error
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.dialects.rules import (
    COMMON,
    arguments,
    below,
    inert,
    media,
    opaque,
    seal,
    text,
    tokens,
    tools,
    unnamed,
    url,
)
from extproc.core.dialects.table import Table
from extproc.core.refusal import Refusal

_SSE = re.compile(r"(?:\A|&)(?:%24|\$)?alt=sse(?:&|\Z)").search
"""What of a query asks for events."""

_ROLES = {"model": "assistant", "system": "system"}


def _speaker(content: Mapping[str, Any], base: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"role": _ROLES.get(str(content.get("role")), "user")}


def _tool(response: Mapping[str, Any], base: Mapping[str, Any]) -> Mapping[str, Any]:
    return answering(response.get("id") or response.get("name"), base)


_PART = (
    text("text"),
    unnamed("functionResponse", "toolResponse", speaker=_tool),
    arguments("functionCall.args", "toolCall.args", "functionResponse.response", "toolResponse.response"),
    text("functionCall.partialArgs[].stringValue"),
    inert(
        "codeExecutionResult.outcome",
        "executableCode.language",
        "fileData.mimeType",
        "functionCall.name",
        "functionCall.partialArgs[].jsonPath",
        "functionResponse.name",
        "functionResponse.parts[].fileData.mimeType",
        "functionResponse.parts[].inlineData.mimeType",
        "functionResponse.scheduling",
        "inlineData.mimeType",
        "mediaResolution.level",
        "toolCall.name",
        "toolCall.toolType",
        "toolResponse.name",
        "toolResponse.toolType",
        "videoMetadata.endOffset",
        "videoMetadata.startOffset",
    ),
    seal("thoughtSignature"),
    media("inlineData.data", "functionResponse.parts[].inlineData.data"),
    url("fileData.fileUri", "functionResponse.parts[].fileData.fileUri"),
)

_CANDIDATES = (
    text("candidates[].content", "candidates[].content.parts"),
    *below("candidates[].content.parts[]", _PART),
    tokens("candidates[].logprobsResult"),
    inert(
        "candidates[].content.role",
        "candidates[].finishReason",
        "candidates[].safetyRatings[].category",
        "candidates[].safetyRatings[].probability",
        "candidates[].safetyRatings[].severity",
        "createTime",
        "modelStatus.*",
        "modelVersion",
        "promptFeedback.blockReason",
        "promptFeedback.safetyRatings[].category",
        "promptFeedback.safetyRatings[].probability",
        "responseId",
        "usageMetadata.trafficType",
        "usageMetadata.serviceTier",
        "usageMetadata.*[].modality",
        "candidates[].groundingMetadata.groundingChunks[].maps.placeId",
        "candidates[].groundingMetadata.groundingChunks[].web.domain",
        "candidates[].urlContextMetadata.urlMetadata[].urlRetrievalStatus",
        "error.code",
        "error.details[].@type",
        "error.details[].domain",
        "error.details[].reason",
        "error.status",
    ),
    opaque("candidates[].groundingMetadata.googleMapsWidgetContextToken"),
    media("candidates[].groundingMetadata.searchEntryPoint.sdkBlob"),
    url("candidates[].urlContextMetadata.urlMetadata[].retrievedUrl"),
)

_SAID = Table(*COMMON, *_CANDIDATES, two_spellings=True)


class Gemini(Dialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`."""

    name = "gemini"
    streams_in = Framing.JSON_ARRAY
    clients_skip_comments = False  # Google's own SDK parses a comment as JSON, and fails
    request = Table(
        *COMMON,
        text("systemInstruction", role="system"),
        text("systemInstruction.parts", role="system"),
        *below("systemInstruction.parts[]", _PART),
        text("contents", speaker=_speaker),
        text("contents[].parts"),
        *below("contents[].parts[]", _PART),
        tools("tools[]", "generationConfig.responseSchema", "generationConfig.responseJsonSchema"),
        inert(
            "cachedContent",
            "contents[].role",
            "systemInstruction.role",
            "generationConfig.mediaResolution",
            "generationConfig.responseMimeType",
            "generationConfig.responseModalities[]",
            "generationConfig.imageConfig.*",
            "generationConfig.speechConfig.languageCode",
            "generationConfig.speechConfig.voiceConfig.prebuiltVoiceConfig.voiceName",
            "generationConfig.thinkingConfig.thinkingLevel",
            "modelArmorConfig.promptTemplateName",
            "modelArmorConfig.responseTemplateName",
            "safetySettings[].category",
            "safetySettings[].method",
            "safetySettings[].threshold",
            "serviceTier",
            "toolConfig.functionCallingConfig.allowedFunctionNames[]",
            "toolConfig.functionCallingConfig.mode",
            "toolConfig.retrievalConfig.languageCode",
        ),
        two_spellings=True,
    )
    answer = event = _SAID

    def block_answer(self, path: str) -> type[BlockAnswer] | None:
        """Return the answer of a block."""
        return GeminiAnswer

    def streams(self, document: Document, path: str) -> bool:
        """Return whether the method in the path asks for a stream: of events, or without `alt=sse` an array."""
        return "streamgeneratecontent" in path.partition("?")[0].lower()

    def stream_framing(self, path: str) -> Framing:
        """Return the framing of a stream: events with `alt=sse`, else an array."""
        return Framing.EVENT_STREAM if _SSE(path.partition("?")[2]) else Framing.JSON_ARRAY

    def answers(self, document: Document, *, locates: bool = False) -> list[Leaf]:
        """Return the texts of every candidate; those of an array's elements are joined."""
        leaves = super().answers(document, locates=locates)
        if not isinstance(document.root, list):
            return leaves
        pieces: dict[Running, list[Leaf]] = {}
        for leaf in leaves:
            if leaf.kind is Kind.TOKENS:
                continue
            place = _place(document.root[leaf.path[0]], leaf.path[1:]) if leaf.path else ()  # type: ignore[index]
            pieces.setdefault(place, []).append(leaf)
        return [*map(_whole, pieces.values()), *(leaf for leaf in leaves if leaf.kind is Kind.TOKENS)]

    def place(self, root: Any, leaf: Leaf) -> Running:
        """Return a running text: all text parts of a candidate are one, and all its thoughts another."""
        return _place(root, leaf.path)

    def refuse(self, refusal: Refusal) -> bytes:
        """Return Google's error object."""
        return google_error(refusal)

    def refuse_stream(self, refusal: Refusal, sequence: int) -> bytes:
        """Return the error object as an event."""
        return b"data: " + self.refuse(refusal) + b"\n\n"


def _whole(pieces: list[Leaf]) -> Leaf:
    """Return the pieces of one text as one leaf at the place of the first; a rewrite empties the other pieces."""
    if len(pieces) == 1:
        return pieces[0]
    first, *others = pieces
    emptied = [*first.emptied, *(path for leaf in others for path in (*leaf.emptied, leaf.path))]
    shared = {id(leaf.nulled): leaf.nulled for leaf in pieces}.values()
    nulled = dict.fromkeys(path for paths in shared for path in paths)
    return replace(
        first,
        text="".join(leaf.text for leaf in pieces),
        nulled=tuple(nulled),
        emptied=tuple(emptied),
        fixed=any(leaf.fixed or leaf.raw for leaf in pieces),
    )


def _place(root: Any, path: tuple[Any, ...]) -> Running:
    place = running(root, path)
    candidates = fields(root).get("candidates")
    if not isinstance(candidates, list) or path[0] != "candidates" or len(path) < 5:
        return place
    candidate, parts = fields(candidates[path[1]]), path[3]
    index = candidate.get("index", 0)
    head = ("candidates", index if isinstance(index, int) else short_name(index) or 0)
    if path[2] != "content" or parts != "parts":
        return (*head, *place[2:])
    part = candidate["content"]["parts"]
    part = part[path[4]] if isinstance(part, list) and isinstance(path[4], int) else part
    match path[5:] if isinstance(candidate["content"]["parts"], list) else path[4:]:
        case ("text",):
            return (*head, "thought" if fields(part).get("thought") else "text")
        case ("functionCall" | "function_call" as call, "partialArgs" | "partial_args" as listed, int(number), key):
            target = fields(part[call][listed][number])
            if key in ("stringValue", "string_value"):
                own = target.get("jsonPath", target.get("json_path"))
                return (*head, "args", own if isinstance(own, str) else "")
            return (*head, *place[2:])
        case _:
            return (*head, *place[2:])
