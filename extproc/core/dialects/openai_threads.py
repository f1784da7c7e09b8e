"""OpenAI's Assistants API: assistants, threads, their messages, runs and steps.

Source: OpenAI's API reference, "Assistants" and "Streaming" there. A stream sends messages and steps in deltas, and
before and after these as whole objects. All of them get the text's place in its object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extproc.core.content.document import fields
from extproc.core.dialects.base import Dialect, Running, answering, running, short_name
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.dialects.rules import COMMON, MODEL, arguments, below, inert, media, text, tools
from extproc.core.dialects.table import Table
from extproc.core.refusal import Refusal

_DELTA = ".delta"


def _speaker(message: Mapping[str, Any], base: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"role": "assistant" if message.get("role") == "assistant" else "user"}


def _output(output: Mapping[str, Any], base: Mapping[str, Any]) -> Mapping[str, Any]:
    return answering(output.get("tool_call_id"), base)


_MESSAGES = ("messages[]", "additional_messages[]", "thread.messages[]")

_WRITTEN = (
    text("content", "content[].text"),
    media("content[].image_url.url"),
    inert("content[].image_url.detail", "content[].image_file.detail"),
)
"""What a message of a request holds."""

_SETTINGS = (
    tools("tools[]", "response_format.json_schema"),
    inert("reasoning_effort", "response_format", "tool_choice", "tool_choice.function.name"),
)

_TOLD = (
    text("content[].text.value", "content[].refusal", "step_details.tool_calls[].code_interpreter.input"),
    arguments(
        "step_details.tool_calls[].function.arguments",
        "required_action.submit_tool_outputs.tool_calls[].function.arguments",
    ),
    text("step_details.tool_calls[].function.output", "step_details.tool_calls[].code_interpreter.outputs[].logs"),
    inert(
        "step_details.tool_calls[].function.name",
        "required_action.submit_tool_outputs.tool_calls[].function.name",
        "content[].image_file.detail",
        "content[].image_url.detail",
        "incomplete_details.reason",
        "last_error.code",
    ),
    text("instructions"),
    *_SETTINGS,
)
"""What an object of an answer holds, or the delta of one."""


class OpenAIThreads(Dialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`."""

    name = "openai-threads"
    is_repetitive = True
    request = Table(
        *COMMON,
        MODEL,
        *_SETTINGS,
        text("instructions", "additional_instructions", role="system"),
        text(*_MESSAGES, speaker=_speaker),
        *(rule for each in _MESSAGES for rule in below(each, _WRITTEN)),
        *_WRITTEN,
        text("tool_outputs[]", speaker=_output),
    )
    answer = Table(*COMMON, *_TOLD, *below("data[]", _TOLD))
    event = Table(*COMMON, *_TOLD, *below("delta", _TOLD), inert("error.code", "error.param"))

    def place(self, root: Any, leaf: Leaf) -> Running:
        """Return the place of a text in its object."""
        place = running(root, leaf.path)
        return (short_name(fields(root).get("id")), *(place[1:] if place[:1] == ("delta",) else place))

    def kind(self, root: Any, leaf: Leaf) -> Kind:
        """Return whether a leaf is new text, or of a whole object, which may repeat deltas or an earlier state."""
        kind = fields(root).get("object")
        return Kind.REPEAT if isinstance(kind, str) and not kind.endswith(_DELTA) else Kind.TEXT

    def refuse_stream(self, refusal: Refusal, sequence: int) -> bytes:
        """Return the API's error event, and the event that ends a stream."""
        return b"event: error\ndata: " + self.refuse(refusal) + b"\n\nevent: done\ndata: [DONE]\n\n"
