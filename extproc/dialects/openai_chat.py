"""OpenAI's Chat Completions API, and the many that copy it.

Source: OpenAI's API reference, "Chat completions"; the fields `reasoning`, `reasoning_content` and
`reasoning_details` are those of OpenRouter, vLLM, DeepSeek and others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from extproc.dialects.base import Leaf, Prompt, unknown_texts
from extproc.document import Document, Path, fields, items
from extproc.errors import MalformedBody
from extproc.refusal import Refusal

_OPAQUE_PARTS = frozenset({"image_url", "input_audio", "file", "video_url", "audio_url"})
"""Content parts that hold no text."""

_SENT_ROLES = frozenset({"system", "user", "assistant"})

MAX_CHOICE = 1023
"""Largest choice index that is used as Aim's; the session numbers other texts from the next one on."""


class OpenAIChat:
    """The dialect; see `extproc.dialects.base.Dialect`."""

    name = "openai-chat"

    def prompts(self, document: Document, *, tools: bool) -> list[Prompt]:
        """Return the messages, one for each text; tool definitions and schemas too with `tools`."""
        root = fields(document.root)
        prompts = list(_messages(root.get("messages")))
        prediction = fields(root.get("prediction"))
        prompts += [
            Prompt({"role": "user", "content": leaf.text}, leaf)
            for leaf in _content(prediction.get("content"), ("prediction", "content"))
        ]
        if tools:
            prompts += [
                Prompt({"role": "system", "content": leaf.text}, leaf)
                for key in ("tools", "functions", "response_format")
                for leaf in _strings(root.get(key), (key,))
            ]
        return prompts

    def streams(self, document: Document) -> bool:
        """Tell whether `stream` is true."""
        return fields(document.root).get("stream") is True

    def answers(self, document: Document) -> list[Leaf]:
        """Return the texts of every choice's message."""
        choices = fields(document.root).get("choices")
        if not isinstance(choices, list):
            return list(unknown_texts(document.root))
        leaves: list[Leaf] = []
        for position, choice in enumerate(choices):
            leaves += _choice(choice, ("choices", position), position, "message")
        return leaves

    def deltas(self, document: Document) -> list[Leaf]:
        """Return the texts of every choice's delta."""
        choices = fields(document.root).get("choices")
        if not isinstance(choices, list):
            return list(unknown_texts(document.root))
        leaves: list[Leaf] = []
        for position, choice in enumerate(choices):
            leaves += _choice(choice, ("choices", position), _index(choice), "delta")
        return leaves

    def is_submitted_whole(self, document: Document) -> bool:
        """Tell whether the event is a chunk in the shape that Aim reads."""
        choices = fields(document.root).get("choices")
        return isinstance(choices, list) and all(
            isinstance(fields(fields(choice).get("delta")).get("content"), str | None) for choice in choices
        )

    def is_final(self, data: str) -> bool:
        """Tell whether this is `[DONE]`."""
        return data.strip() == "[DONE]"

    def refuse(self, refusal: Refusal) -> bytes:
        """Return OpenAI's error object."""
        return json.dumps(
            {"error": {"message": refusal.message, "type": refusal.type, "param": None, "code": refusal.code}}
        ).encode()

    def refuse_stream(self, refusal: Refusal) -> bytes:
        """Return the error object as an event, and `[DONE]`."""
        return b"data: " + self.refuse(refusal) + b"\n\ndata: [DONE]\n\n"


def _messages(messages: Any) -> Iterator[Prompt]:
    if isinstance(messages, str):
        yield Prompt({"role": "user", "content": messages}, Leaf(("messages",), messages))
    elif isinstance(messages, list):
        for position, message in enumerate(messages):
            if isinstance(message, str):
                yield Prompt({"role": "user", "content": message}, Leaf(("messages", position), message))
            else:
                yield from _message(fields(message), ("messages", position))
    elif messages is not None:
        raise MalformedBody("messages is no list")


def _message(message: Mapping[str, Any], path: Path) -> Iterator[Prompt]:
    sent = _as_sent(message)
    content = message.get("content")
    if isinstance(content, str):
        if content or "tool_calls" in message or "function_call" in message:
            yield Prompt(sent, Leaf((*path, "content"), content) if content else None)
    else:
        leaves = list(_content(content, (*path, "content")))
        for leaf in leaves:
            yield Prompt({**sent, "content": leaf.text}, leaf)
        if not leaves and (message.get("tool_calls") or message.get("function_call")):
            # Nothing to put a redaction back into, but Aim is to see the calls.
            yield Prompt({**sent, "content": None}, None)
    for leaf in _thoughts(message, path, ()):
        yield Prompt({"role": "assistant", "content": leaf.text}, leaf)


def _as_sent(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the message with a role that Aim's schema takes; it answers others with 422."""
    role = message.get("role")
    complete = (role == "tool" and isinstance(message.get("tool_call_id"), str)) or (
        role == "function" and isinstance(message.get("name"), str)
    )
    return {**message, "role": role if role in _SENT_ROLES or complete else "user"}


def _content(content: Any, path: Path) -> Iterator[Leaf]:
    """Yield the texts of a content: a string, a part, or a list of either."""
    if isinstance(content, str):
        if content:
            yield Leaf(path, content)
    elif isinstance(content, dict):
        yield from _part(fields(content), path)
    else:
        for position, part in enumerate(items(content)):
            if isinstance(part, str):
                if part:
                    yield Leaf((*path, position), part)
            else:
                yield from _part(fields(part), (*path, position))


def _part(part: Mapping[str, Any], path: Path) -> Iterator[Leaf]:
    if part.get("type") not in _OPAQUE_PARTS:
        yield from unknown_texts(part, path)


def _strings(node: Any, path: Path) -> Iterator[Leaf]:
    """Yield every string value below `node`."""
    if isinstance(node, str):
        if node:
            yield Leaf(path, node)
    elif isinstance(node, dict):
        for key, value in fields(node).items():
            yield from _strings(value, (*path, key))
    else:
        for position, value in enumerate(items(node)):
            yield from _strings(value, (*path, position))


def _index(choice: Any) -> Any:
    """Return a chunk's choice index; a missing one is 0, as Aim and every client read it."""
    index = fields(choice).get("index", 0)
    return 0 if index is None else index


def _choice(choice: Any, path: Path, index: Any, key: str) -> Iterator[Leaf]:
    """Yield the texts of one choice, whose message is under `key`."""
    choice = fields(choice)
    message = fields(choice.get(key))
    logprobs = (*path, "logprobs") if choice.get("logprobs") is not None else None
    is_aims = isinstance(index, int) and not isinstance(index, bool) and 0 <= index <= MAX_CHOICE
    known_as = index if is_aims and key == "delta" else None
    content = message.get("content")
    if isinstance(content, str):
        if content:
            yield Leaf(
                (*path, key, "content"),
                content,
                place=(index, "content"),
                index=known_as,
                drop_when_rewritten=logprobs,
            )
    else:
        for leaf in _content(content, (*path, key, "content")):
            yield Leaf(leaf.path, leaf.text, place=(index, *leaf.path[3:]), drop_when_rewritten=logprobs)
    for leaf in _thoughts(message, (*path, key), (index,)):
        yield Leaf(leaf.path, leaf.text, place=leaf.place, drop_when_rewritten=logprobs)
    yield from _calls(message, (*path, key), index)
    transcript = fields(message.get("audio")).get("transcript")
    if isinstance(transcript, str) and transcript:
        # The spoken answer says the same: it cannot be redacted by changing its transcript.
        yield Leaf((*path, key, "audio", "transcript"), transcript, place=(index, "audio"), fixed=True)
    if isinstance(choice.get("text"), str) and choice["text"]:
        yield Leaf((*path, "text"), choice["text"], place=(index, "text"), drop_when_rewritten=logprobs)


def _thoughts(message: Mapping[str, Any], path: Path, place: tuple[Any, ...]) -> Iterator[Leaf]:
    """Yield a message's texts beside its content: refusal and reasoning."""
    for key in ("refusal", "reasoning", "reasoning_content"):
        text = message.get(key)
        if isinstance(text, str):
            if text:
                yield Leaf((*path, key), text, place=(*place, key))
        elif text is not None:
            for leaf in unknown_texts(text, (*path, key)):
                yield Leaf(leaf.path, leaf.text, place=(*place, *leaf.path[len(path) :]))
    for position, detail in enumerate(items(message.get("reasoning_details"))):
        detail = fields(detail)
        for key in ("text", "summary"):
            text = detail.get(key)
            if isinstance(text, str) and text:
                where = detail.get("index", position)
                yield Leaf(
                    (*path, "reasoning_details", position, key),
                    text,
                    place=(*place, "reasoning_details", str(where), key),
                )


def _calls(message: Mapping[str, Any], path: Path, index: Any) -> Iterator[Leaf]:
    """Yield the arguments of a message's tool calls and of its older function call."""
    for position, call in enumerate(items(message.get("tool_calls"))):
        call = fields(call)
        where = call.get("index", position)
        for kind, key in (("function", "arguments"), ("custom", "input")):
            text = fields(call.get(kind)).get(key)
            if isinstance(text, str) and text:
                yield Leaf(
                    (*path, "tool_calls", position, kind, key),
                    text,
                    place=(index, "tool_calls", str(where), key),
                    is_json=kind == "function",
                )
    text = fields(message.get("function_call")).get("arguments")
    if isinstance(text, str) and text:
        yield Leaf((*path, "function_call", "arguments"), text, place=(index, "function_call"), is_json=True)
