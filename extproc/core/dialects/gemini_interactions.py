"""Google's Interactions API, of the Gemini API and of Vertex AI.

Source: Google's API reference, "Interactions". An interaction is a list of steps; a stream sends each step piece by
piece, and at its end the interaction, which may repeat them. Before `steps` the API had `outputs`, which were contents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from extproc.core.block_answers.base import BlockAnswer
from extproc.core.block_answers.gemini import InteractionAnswer
from extproc.core.content.document import Document, Path, fields
from extproc.core.dialects.base import Dialect, Running, answering, endpoint, short_name
from extproc.core.dialects.google_error import google_error, google_status
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.dialects.rules import COMMON, MODEL, Rule, arguments, below, inert, media, seal, text, tools, unnamed
from extproc.core.dialects.table import Table
from extproc.core.refusal import Refusal

_FINAL = frozenset({"interaction.completed", "interaction.complete"})

_ROLES = {"model": "assistant", "model_output": "assistant", "thought": "assistant"}


def _speaker(step: Mapping[str, Any], base: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the message that a step's texts become."""
    kind = str(step.get("type"))
    if kind.endswith("_result"):
        return answering(step.get("call_id"), base)
    role = _ROLES.get(str(step.get("role", kind)))
    return {"role": role or ("assistant" if kind.endswith("_call") else base.get("role", "user"))}


_CONTENT = (
    text("text"),
    media("data"),
    inert("name", "resolution", "annotations[].place_id"),
)

_STEP = (
    text("text", "content", "content[].text", "summary", "summary[].text"),
    *below("content[]", _CONTENT),
    media("data", "summary[].data"),
    arguments("arguments"),
    seal("signature"),
    inert("name", "server_name", "resolution", "search_type"),
    unnamed("result"),
    media("result[].data", "result.data"),
)


def _steps(place: str) -> list[Rule]:
    """Return the rules of a list of steps or of contents, or of one of them."""
    return [text(place, speaker=_speaker), *below(place, _STEP)]


_SETTINGS = (
    tools("tools[]", "response_format", "response_format[]"),
    inert(
        "agent",
        "agent_config.thinking_summaries",
        "environment",
        "generation_config.image_config.*",
        "generation_config.speech_config.*",
        "generation_config.thinking_level",
        "generation_config.thinking_summaries",
        "generation_config.tool_choice",
        "response_modalities[]",
        "service_tier",
        "updated",
        "usage.*[].modality",
    ),
)
"""Settings of a request, some of which the interaction repeats."""

_INTERACTION = (
    *_SETTINGS,
    *_steps("steps[]"),
    *_steps("outputs[]"),
    *_steps("input[]"),
    text("system_instruction"),
    inert("object", "error.code"),
)


class GeminiInteractions(Dialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`."""

    name = "gemini-interactions"
    is_repetitive = True
    request = Table(*COMMON, MODEL, *_SETTINGS, *_steps("input[]"), text("system_instruction", role="system"))
    answer = Table(*COMMON, *_INTERACTION)
    event = Table(
        *COMMON,
        *_steps("step"),
        *_steps("content"),
        *_steps("delta"),
        *below("delta.content", _CONTENT),
        *below("interaction", _INTERACTION),
        inert("error.code"),
    )

    def block_answer(self, path: str) -> type[BlockAnswer] | None:
        """Return the answer of a block; what ends an interaction has none."""
        return None if endpoint(path).endswith("/cancel") else InteractionAnswer

    def place(self, root: Any, leaf: Leaf) -> Running:
        """Return a running text: of the step with the event's index, or of the whole interaction."""
        event = fields(root)
        first, inside = leaf.path[:1], leaf.path[1:]
        if first == ("interaction",):
            match inside:
                case ("steps" | "outputs", int(number), *step):
                    return (number, *_in_step(tuple(step)))
                case _:
                    return inside
        if first in (("step",), ("content",), ("delta",)):
            index = event.get("index")
            return (index if isinstance(index, int) else 0, *_in_step(inside))
        return (short_name(event.get("event_type")), *leaf.path)

    def kind(self, root: Any, leaf: Leaf) -> Kind:
        """Return whether a leaf is new text, or a repeat in the whole interaction."""
        return Kind.REPEAT if leaf.path[:1] == ("interaction",) else Kind.TEXT

    def is_final(self, data: str, document: Document | None) -> bool:
        """Return whether the event has the finished interaction."""
        if document is None:
            return super().is_final(data, document)
        kind = fields(document.root).get("event_type")
        return isinstance(kind, str) and kind in _FINAL

    def refuse(self, refusal: Refusal) -> bytes:
        """Return Google's error object."""
        return google_error(refusal)

    def refuse_stream(self, refusal: Refusal, sequence: int) -> bytes:
        """Return the API's error event."""
        error = {"code": google_status(refusal), "message": refusal.message}
        return b"event: error\ndata: " + json.dumps({"event_type": "error", "error": error}).encode() + b"\n\n"


def _in_step(inside: Path) -> Path:
    """Return the place of a text in its step. Deltas, the first event of a step and the whole step differ in it."""
    match inside:
        case ("signature",):
            return ("thought",)
        case ("text",) | ("content",) | ("content", 0, "text"):
            return ("text",)
        case ("content", "text") | ("summary", 0, "text"):
            return ("thought",)
        case _:
            return inside
