"""OpenAI's Chat Completions API, and the many APIs that copy it.

Source: OpenAI's API reference, "Chat completions"; the fields `reasoning`, `reasoning_content` and
`reasoning_details` are those of OpenRouter, vLLM, DeepSeek and others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from extproc.core.content.document import Document, Path, fields, items
from extproc.core.dialects.base import (
    MAX_CHOICE,
    TEXT_KEYS,
    Dialect,
    Leaf,
    Prompt,
    all_strings,
    definitions,
    embedded,
    named,
    prompt,
    spelling,
    texts_below,
    unknown_texts,
)
from extproc.core.errors import BodyTooLarge, MalformedBody

_OPAQUE_PARTS = frozenset({"image_url", "input_audio", "file", "video_url", "audio_url"})
"""Types of content parts that hold no text."""

_READ = frozenset(
    {
        "audio",
        "content",
        "function_call",
        "reasoning",
        "reasoning_content",
        "reasoning_details",
        "refusal",
        "role",
        "tool_calls",
    }
)
"""Fields of a message that are read by name. In other fields the strings under known keys are inspected."""

_PLAIN = frozenset({"content", "role"})
"""The only fields of most deltas."""

_MOST_FIELDS = 8 * 1024 * 1024
"""The most characters of a message's other fields, counted once for each part, because each part repeats them."""

_REQUEST_READ = frozenset(
    {"messages", "prediction", "tools", "functions", "response_format", "metadata", "tool_choice"}
)
"""Fields of a request that are read by name, or that hold no text for the model."""

_REQUEST_KEYS = TEXT_KEYS | {"chat_template", "input", "instructions", "prompt", "role_information", "search_prompt"}
"""Keys in the other fields whose strings reach the model, such as those of OpenRouter, Azure and vLLM."""

_SENT_ROLES = frozenset({"system", "user", "assistant"})


class OpenAIChat(Dialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`."""

    name = "openai-chat"
    reads_answers = True

    def prompts(self, document: Document, *, tools: bool) -> list[Prompt]:
        """Return the messages, a predicted output, and further texts that other servers accept."""
        root = fields(document.root)
        prompts = list(messages(root.get("messages")))
        prediction = fields(root.get("prediction")).get("content")
        prompts += [prompt("user", leaf) for leaf in content(prediction, ("prediction", "content"))]
        others = {key: value for key, value in root.items() if key not in _REQUEST_READ}
        prompts += [prompt("user", leaf) for leaf in unknown_texts(others, (), _REQUEST_KEYS)]
        return prompts + (definitions(root, "tools", "functions", "response_format") if tools else [])

    def answers(self, document: Document) -> list[Leaf]:
        """Return the texts of every choice's message."""
        return _choices(document, is_stream=False)

    def deltas(self, document: Document) -> list[Leaf]:
        """Return the texts of every choice's delta."""
        return _choices(document, is_stream=True)

    def is_submitted_whole(self, document: Document) -> bool:
        """Return whether the event is a chunk in the shape that Aim reads."""
        choices = fields(document.root).get("choices")
        if not isinstance(choices, list):
            return False
        for choice in choices:
            if not isinstance(choice, dict):
                return False
            text = fields(fields(choice).get("delta")).get("content")
            if text is not None and not isinstance(text, str):
                return False
        return True


def messages(node: Any, path: Path = ("messages",)) -> Iterator[Prompt]:
    """Yield the prompts of a list of chat messages at `path`."""
    if isinstance(node, str):
        yield prompt("user", Leaf(path, node))
    elif isinstance(node, list):
        for position, message in enumerate(node):
            if isinstance(message, str):
                yield prompt("user", Leaf((*path, position), message))
            elif isinstance(message, dict):
                yield from _message(fields(message), (*path, position))
            else:
                raise MalformedBody("a message is not an object")
    elif node is not None:
        raise MalformedBody("messages is not a list")


def _message(message: Mapping[str, Any], path: Path) -> Iterator[Prompt]:
    sent = _as_sent(message)
    text = message.get("content")
    if isinstance(text, str) and _is_plain(message):
        if text:
            yield Prompt(sent, Leaf((*path, "content"), text))
        return
    for key in ("tool_calls", "function_call"):
        # Aim must see the same calls as the model, so no key may be repeated.
        list(all_strings(message.get(key), ()))
    has_calls = bool(message.get("tool_calls") or message.get("function_call"))
    if isinstance(text, str):
        if text or has_calls:
            yield Prompt(sent, Leaf((*path, "content"), text) if text else None)
    else:
        leaves = list(content(text, (*path, "content")))
        if len(leaves) > 1 and len(leaves) * len(spelling({**sent, "content": None})) > _MOST_FIELDS:
            raise BodyTooLarge("a message has many parts and large other fields")
        for leaf in leaves:
            yield Prompt({**sent, "content": leaf.text}, leaf)
        if has_calls and not leaves:
            # There is no text to redact, but Aim must see the calls.
            yield Prompt({**sent, "content": None}, None)
    for position, call in enumerate(items(message.get("tool_calls"))):
        # Aim does not read calls of this shape, so they are sent as a text.
        where = (*path, "tool_calls", position, "custom")
        for leaf in _arguments(fields(fields(call).get("custom")), "input", where, ()):
            yield prompt("assistant", replace(leaf, is_json=leaf.is_embedded))
    for leaf in _thoughts(message, path, ()):
        yield prompt("assistant", leaf)


def _is_plain(message: Mapping[str, Any]) -> bool:
    """Return whether a message has no text except its content. Most messages have only empty other fields."""
    for key, value in message.items():  # noqa: SIM110 - `all` would cost a generator for each chunk of a stream
        if value and key not in _PLAIN:
            return False
    return True


def _as_sent(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the message with a role that Aim's schema accepts. Aim answers other roles with 422."""
    role = message.get("role")
    complete = (role == "tool" and isinstance(message.get("tool_call_id"), str)) or (
        role == "function" and isinstance(message.get("name"), str)
    )
    return {**message, "role": role if named(role, _SENT_ROLES) or complete else "user"}


def content(node: Any, path: Path) -> Iterator[Leaf]:
    """Yield the texts of a content, which is a string, a part, or a list of either."""
    if isinstance(node, str):
        if node:
            yield Leaf(path, node, place=path)
    elif isinstance(node, dict):
        part = fields(node)
        if not named(part.get("type"), _OPAQUE_PARTS):
            yield from unknown_texts(part, path)
    else:
        for position, item in enumerate(items(node)):
            yield from content(item, (*path, position))


def choice_index(choice: Any) -> Any:
    """Return a chunk's choice index. A missing index is 0, as for Aim and every client."""
    index = fields(choice).get("index", 0)
    return index if isinstance(index, int | str) else 0


def _choices(document: Document, *, is_stream: bool) -> list[Leaf]:
    choices = fields(document.root).get("choices")
    if not isinstance(choices, list):
        return list(unknown_texts(document.root))
    leaves: list[Leaf] = []
    for position, choice in enumerate(choices):
        index = choice_index(choice) if is_stream else position
        leaves += _choice(choice, ("choices", position), index, is_stream=is_stream)
    return leaves


def _choice(node: Any, path: Path, index: Any, *, is_stream: bool) -> Iterator[Leaf]:
    """Yield the texts of one choice: of its message or delta, or of what it has instead."""
    if not isinstance(node, dict):
        yield from texts_below(node, path)
        return
    choice = fields(node)
    logprobs = ((*path, "logprobs"),) if choice.get("logprobs") is not None else ()
    for key in ("delta", "message"):
        is_aims = is_stream and key == "delta" and type(index) is int and 0 <= index <= MAX_CHOICE
        # Some servers repeat the whole message with each delta: it counts as a separate text.
        place = (index,) if key == "delta" or not is_stream else (index, key)
        if choice.get(key) is not None:
            for leaf in _said(choice[key], (*path, key), place, index if is_aims else None):
                yield replace(leaf, nulled=logprobs) if logprobs else leaf
    if choice.get("text"):
        for leaf in texts_below(choice["text"], (*path, "text")):
            yield replace(leaf, place=(index, "text"), nulled=logprobs)


def _said(node: Any, path: Path, place: tuple[Any, ...], known_as: int | None) -> Iterator[Leaf]:
    if not isinstance(node, dict):
        yield from texts_below(node, path)
        return
    message = fields(node)
    text = message.get("content")
    if isinstance(text, str):
        if text:
            yield Leaf((*path, "content"), text, place=(*place, "content"), index=known_as)
    else:
        for leaf in content(text, (*path, "content")):
            yield replace(leaf, place=(*place, *leaf.path[len(path) :]))
    if _is_plain(message):
        return
    yield from _thoughts(message, path, place)
    yield from _calls(message, path, place)
    others = {key: value for key, value in message.items() if key not in _READ}
    for leaf in unknown_texts(others, path):
        yield replace(leaf, place=(*place, *leaf.path[len(path) :]))
    transcript = fields(message.get("audio")).get("transcript")
    if isinstance(transcript, str) and transcript:
        # The audio says the same: changing the transcript does not redact it.
        yield Leaf((*path, "audio", "transcript"), transcript, place=(*place, "audio"), fixed=True)


def _thoughts(message: Mapping[str, Any], path: Path, place: tuple[Any, ...]) -> Iterator[Leaf]:
    """Yield a message's refusal and reasoning."""
    for key in ("refusal", "reasoning", "reasoning_content"):
        for leaf in texts_below(message.get(key), (*path, key)):
            yield replace(leaf, place=(*place, *leaf.path[len(path) :]))
    for position, node in enumerate(items(message.get("reasoning_details"))):
        detail = fields(node)
        for key in ("text", "summary"):
            text = detail.get(key)
            if isinstance(text, str) and text:
                where = (*path, "reasoning_details", position)
                running = (*place, "reasoning_details", str(detail.get("index", position)), key)
                signature = detail.get("signature")
                seal = ((*where, "signature"),) if isinstance(signature, str) and signature else ()
                # In a request the provider checks the signature, so the text cannot be changed. In an answer a rewrite
                # empties the signature.
                yield Leaf((*where, key), text, place=running, fixed=bool(seal) and not place, emptied=seal)


def _calls(message: Mapping[str, Any], path: Path, place: tuple[Any, ...]) -> Iterator[Leaf]:
    """Yield the arguments of a message's tool calls and of its older function call."""
    for position, node in enumerate(items(message.get("tool_calls"))):
        call = fields(node)
        running = (*place, "tool_calls", str(call.get("index", position)))
        where = (*path, "tool_calls", position)
        yield from _arguments(fields(call.get("function")), "arguments", (*where, "function"), running)
        for leaf in _arguments(fields(call.get("custom")), "input", (*where, "custom"), running):
            yield replace(leaf, is_json=leaf.is_embedded)
    called = fields(message.get("function_call"))
    yield from _arguments(called, "arguments", (*path, "function_call"), (*place, "function_call"))


def _arguments(call: Mapping[str, Any], key: str, path: Path, place: tuple[Any, ...]) -> Iterator[Leaf]:
    said = call.get(key)
    if isinstance(said, str):
        if said:
            yield Leaf((*path, key), said, place=(*place, key), is_json=True)
    else:
        yield from embedded(said, (*path, key))
