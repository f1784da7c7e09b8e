"""The cost of an answer grows linearly with its size. The tests count calls instead of measuring time.

The work of C code within one call, such as copying bytes, does not show. `tests/bench/growth.py` measures it.
"""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType

import pytest

from extproc.core.content.document import Document
from extproc.core.content.escapes import decode
from extproc.core.dialects.endpoints import NAMES
from extproc.core.refusal import quotes_any
from tests.fakes.rig import DONE, chat_event, chat_request
from tests.fakes.world import World

REQUEST = json.dumps(chat_request("Hello", stream=True)).encode()
TIMES = 8
SLACK = 1.25


def calls(work: Callable[[int], object], size: int) -> int:
    """Return how many functions `work` calls for `size`, including functions in C."""
    count = 0

    def profile(_: FrameType, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    previous = sys.getprofile()
    sys.setprofile(profile)
    try:
        work(size)
    finally:
        sys.setprofile(previous)
    return count


def begun() -> World:
    return World().request(REQUEST).judge().head("text/event-stream", "200")


def one_by_one(size: int) -> None:
    it = begun()
    for _ in range(size):
        it.body(chat_event("word ")).verify("word ")
    it.body(DONE).done()
    assert it.response.body == size * chat_event("word ") + DONE


def held(size: int) -> None:
    it = begun()
    for _ in range(size):
        it.body(chat_event("word "))
    for _ in range(size):
        it.verify("word ")
    it.body(DONE).done()
    assert it.response.body.endswith(DONE)


def in_one_piece(size: int) -> None:
    it = begun().body(size * chat_event("word ") + DONE)
    for _ in range(size):
        it.verify("word ")
    it.done()
    assert it.response.body.endswith(DONE)


def merged_by_aim(size: int) -> None:
    it = begun().body(size * chat_event("word ") + DONE).verify(size * "word ").done()
    assert it.response.body.endswith(DONE)


def choices(size: int) -> None:
    it = begun()
    for index in range(size):
        it.body(chat_event("word ", index=index))
    for index in reversed(range(size)):
        it.verify("word ", index)
    it.body(DONE).done()
    assert it.response.body.endswith(DONE)


def comments(size: int) -> None:
    it = begun().body(chat_event("word "))
    for _ in range(size):
        it.body(b": ping\n\n")
    it.verify("word ").body(DONE).done()
    assert it.response.body.endswith(b": ping\n\n" + DONE)


def lines(size: int) -> None:
    it = begun().body(b"event: e\n" + size * b"data:\n" + chat_event("word ")).verify("word ").body(DONE).done()
    assert it.response.body.endswith(DONE)


def behind_broken_arguments(size: int) -> None:
    """Aim breaks a call's arguments. Events without text then wait until they are valid again."""
    it = begun()
    text = '{"a": [' + size * '{"b": 0},' + "1]"
    it.body(chat_event(tool_calls=[{"index": 0, "function": {"arguments": text}}]))
    it.verify(text.replace("1]", "2]"), it.chunks[-1]["choices"][0]["index"])
    for _ in range(size):
        it.body(chat_event())
    it.body(chat_event(tool_calls=[{"index": 0, "function": {"arguments": "}"}}]))
    it.verify("}", it.chunks[-1]["choices"][0]["index"]).body(DONE).done()
    assert it.response.body.endswith(DONE)


def calls_and_events_without_text(size: int) -> None:
    """Many running arguments, followed by as many events for which all arguments are checked."""
    it = begun()
    for index in range(size):
        it.body(chat_event(tool_calls=[{"index": index, "function": {"arguments": "{}"}}]))
    it.verify_all()
    for _ in range(size):
        it.body(chat_event())
    it.body(DONE).done()
    assert it.response.body.endswith(DONE)


@pytest.mark.parametrize(
    "work",
    [
        one_by_one,
        held,
        in_one_piece,
        merged_by_aim,
        choices,
        comments,
        lines,
        behind_broken_arguments,
        calls_and_events_without_text,
    ],
    ids=lambda work: work.__name__,
)
def test_work_grows_with_the_stream(work: Callable[[int], object]) -> None:
    work(8)  # a warm-up, for work that is done only once
    assert calls(work, 64 * TIMES) < SLACK * TIMES * calls(work, 64)


@pytest.mark.parametrize("invalid", ["\\q", "\\ud800", "\\udc00", "\U000f0000"])
def test_escapes_beside_an_invalid_one_are_decoded_at_once(invalid: str) -> None:
    def decoded(size: int) -> None:
        assert decode(invalid + size * '\\n\\\\"') == (invalid + size * '\n\\"', len(invalid) + size * 5)

    decoded(1)  # a warm-up, for work that is done only once
    assert calls(decoded, 640) < 640


def of_citations(size: int) -> None:
    document = Document(json.dumps({"citations": ["a b"] * size}))
    (leaf,) = NAMES["openai-chat"].answers(document)
    assert leaf.text == "\n".join(["a b"] * size)


def test_sentences_in_a_list_of_addresses_cost_a_few_calls_each() -> None:
    assert calls(of_citations, 2000) - calls(of_citations, 1000) <= 5 * 1000


def test_strings_that_are_no_tokens_are_joined_one_by_one() -> None:
    document = Document(json.dumps({"choices": [{"message": {"content": "hi"}, "logprobs": ["a b"] * 20_000}]}))
    NAMES["openai-chat"].answers(document)
    tracemalloc.start()
    leaves = NAMES["openai-chat"].answers(document)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [len(leaf.text) for leaf in leaves] == [2, 4 * 20_000 - 1]
    assert peak < 24 * len(document.text)


def test_message_full_of_quotes_is_searched_once_for_each_quote() -> None:
    class Text(str):
        __slots__ = ()
        searches = 0

        def casefold(self) -> Text:
            return self

        def __contains__(self, part: object) -> bool:
            Text.searches += 1
            return False

    assert not quotes_any("'a" * 64, [Text("b")])
    assert Text.searches <= 64


@pytest.mark.parametrize("value", [["a"], [["a"]], [{"a": "b"}, 1, None]])
def test_values_before_an_edit_are_skipped_many_at_once(value: list[object]) -> None:
    documents = {
        size: Document(json.dumps({"zq": [*size * value, "Tom"], "zr": "Tom"})) for size in (1, 1024, 2 * 1024)
    }

    def skipped(size: int) -> None:
        text = documents[size].text
        edited = documents[size].rewrite({("zq", size * len(value)): "Ann"})
        assert edited == text.replace('"Tom"', '"Ann"', 1)

    skipped(1)  # a warm-up, for work that is done only once
    assert calls(skipped, 2 * 1024) - calls(skipped, 1024) < 1024 // 8


def test_places_of_joined_texts_take_a_few_bytes_each() -> None:
    document = Document(json.dumps({"messages": [], "zq": [["a"]] * 50_000}))
    NAMES["openai-chat"].prompts(document, tools=False, locates=True)
    tracemalloc.start()
    (prompt,) = NAMES["openai-chat"].prompts(document, tools=False, locates=True)[-1:]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert prompt.leaf is not None
    assert prompt.leaf.parts[49_000].path[0] == "zq"
    assert peak < 64 * 50_000


def test_object_around_media_is_read_once() -> None:
    def of_media(size: int) -> None:
        node = {"mime_type": "application/" + 900 * "+", **{f"k{number}_b64": "QUJD" for number in range(size)}}
        NAMES["openai-chat"].prompts(Document(json.dumps({"messages": [], "zq": node})), tools=False)

    of_media(1)
    assert calls(of_media, 2000) - calls(of_media, 1000) <= 80 * 1000
