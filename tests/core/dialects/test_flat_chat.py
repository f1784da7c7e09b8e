"""The short cut for usual chat documents finds what a walk finds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.content.document import Document
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.flat_chat import flat_answer, flat_chunk, flat_request
from extproc.core.dialects.openai_chat import OpenAIChat
from extproc.core.errors import MalformedBody

CHAT = OpenAIChat()

REQUEST = {
    "model": "m",
    "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": ""}],
    "temperature": 0.5,
    "stream": True,
    "user": None,
}
USAGE = {"prompt_tokens": 1, "details": {"cached": 0}, "cost": None}
HEAD = {"id": "c1", "object": "o", "created": 1, "model": "m", "service_tier": None}
MESSAGE: dict[str, Any] = {"role": "assistant", "content": "hello", "refusal": None, "annotations": []}
ANSWER = {
    **HEAD,
    "choices": [{"index": 0, "message": MESSAGE, "logprobs": None, "finish_reason": "stop"}],
    "usage": USAGE,
}
CHUNK = {**HEAD, "choices": [{"index": 3, "delta": {"role": "assistant", "content": "hi"}, "finish_reason": None}]}


def test_usual_documents_are_flat() -> None:
    assert flat_request(REQUEST, CHAT.request) is not None
    assert flat_answer(ANSWER) is not None
    assert flat_answer({"choices": [{"message": {"content": "a"}, "finish_reason": None}]}) is not None
    assert flat_chunk(CHUNK) is not None
    assert flat_chunk({"choices": [{"index": 0, "delta": {"content": "a"}}]}) is not None


def changed(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """Return a copy of a document with another value at a path."""
    copy = json.loads(json.dumps(document))
    node = copy
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    return copy


VALUES = st.sampled_from(
    [
        None,
        True,
        0,
        7,
        -1,
        1e9,
        "",
        "x",
        "two words",
        "assistant",
        "tom@x.com",
        [],
        ["a b"],
        {},
        {"k": "a b"},
        {"a b": 1},
    ]
)
KEYS = st.sampled_from(
    ["content", "role", "zq", "index", "model", "a key", "prompt_embeds", "Content", "usage", "tools"]
)


def leaves(found: Any) -> list[Any]:
    return [(leaf.path, leaf.text, leaf.place, leaf.index, leaf.unit) for leaf in found]


@given(st.data())
def test_short_cut_finds_what_a_walk_finds(data: st.DataObject) -> None:
    document, places, ways = data.draw(
        st.sampled_from(
            [
                (REQUEST, [(), ("messages", 0), ("messages", 1), ("messages",)], "prompts"),
                (ANSWER, [(), ("choices", 0), ("choices", 0, "message"), ("usage",), ("choices",)], "answers"),
                (CHUNK, [(), ("choices", 0), ("choices", 0, "delta"), ("choices",)], "deltas"),
            ]
        )
    )
    for _ in range(data.draw(st.integers(0, 2))):
        place = data.draw(st.sampled_from(places))
        step = data.draw(st.integers(0, 0)) if place in (("messages",), ("choices",)) else data.draw(KEYS)
        try:
            document = changed(document, (*place, step), data.draw(VALUES))
        except (TypeError, KeyError, IndexError):
            return
    more = {"tools": True} if ways == "prompts" else {}

    def read(how: Any) -> Any:
        try:
            found = how(CHAT, Document(json.dumps(document)), **more)
        except MalformedBody:
            return "unreadable"
        return [(prompt.message, prompt.leaf and prompt.leaf.path) for prompt in found] if more else leaves(found)

    assert read(getattr(OpenAIChat, ways)) == read(getattr(Dialect, ways))


@pytest.mark.parametrize(
    "root", [None, [], {}, {"choices": 1}, {"choices": []}, {"choices": [1]}, {"choices": [{}]}, {"choices": [{}, {}]}]
)
def test_other_documents_are_left_to_the_walk(root: Any) -> None:
    assert flat_answer(root) is None
    assert flat_chunk(root) is None
    assert flat_request(root, CHAT.request) is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("usage",), 5),
        (("usage",), {"k": "a b"}),
        (("usage", "k"), "a b"),
        (("choices", 0, "finish_reason"), "a b"),
        (("choices", 0, "message", "zq"), "a b"),
        (("choices", 0, "message"), "a b"),
        (("choices", 0, "zq"), "a b"),
        (("zq",), "a b"),
    ],
)
def test_answer_with_more_to_read_is_not_flat(path: tuple[str | int, ...], value: Any) -> None:
    assert flat_answer(changed(ANSWER, path, value)) is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("choices", 0, "finish_reason"), "stop"),
        (("choices", 0, "delta", "zq"), "a b"),
        (("choices", 0, "delta"), "a b"),
        (("choices", 0, "index"), 1024),
        (("zq",), "a b"),
    ],
)
def test_chunk_with_more_to_read_is_not_flat(path: tuple[str | int, ...], value: Any) -> None:
    assert flat_chunk(changed(CHUNK, path, value)) is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("a key",), 1),
        (("Messages",), 1),
        (("model",), "a b"),
        (("messages", 0), "a b"),
        (("messages", 0, "zq"), "a b"),
        (("messages", 0, "role"), "tool"),
        (("messages", 0, "content"), ["a b"]),
        (("prompt_embeds",), 1),
        (("messages",), [{"role": "user", "content": "a"}] * 257),
    ],
)
def test_request_with_more_to_read_is_not_flat(path: tuple[str | int, ...], value: Any) -> None:
    assert flat_request(changed(REQUEST, path, value), CHAT.request) is None
