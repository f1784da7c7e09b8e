"""Chunks that differ only in their text are not parsed again, and nothing else changes by that."""

from __future__ import annotations

import json
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.chunk import MARK
from extproc.core.chunk_template import ChunkTemplate, ChunkTemplates
from extproc.core.content.document import Document
from extproc.core.content.sse import EventDecoder
from extproc.core.dialects.leaf import Leaf
from extproc.core.dialects.openai_chat import OpenAIChat
from extproc.core.errors import ContentError
from extproc.core.release_queue import ReleaseQueue

API = OpenAIChat()
OTHER = {"choices": [{"index": 7, "delta": {"content": "other"}}], "id": "other"}
"""A chunk that no template of the tests fits."""

words = st.text(max_size=8)
names = st.sampled_from(["model", "id", "zz", "note", "content"])
chunks = st.builds(
    lambda text, index, before, after, beside, delta: {
        **before,
        "choices": [{"index": index, "delta": {**delta, "content": text}, **beside}],
        **after,
    },
    words,
    st.integers(0, 3),
    st.dictionaries(names, words, max_size=2),
    st.dictionaries(names, words | st.integers() | st.none(), max_size=2),
    st.dictionaries(st.sampled_from(["logprobs", "finish_reason", "zz"]), st.none() | words, max_size=2),
    st.dictionaries(st.sampled_from(["role", "refusal", "content"]), st.none() | st.just("assistant"), max_size=2),
)
spellings = st.builds(lambda text, ascii: json.dumps(text, ensure_ascii=ascii), words, st.booleans()) | st.sampled_from(
    ['"\\u0041"', '"a\\"b"', "null", "1", '"a","zz":"b"', '"a"}}],"zz":[{"b":{"c":"d"', '"\x1f"', '""', '"\\ud800"']
)


def queue_of(*events: str) -> tuple[ReleaseQueue, Any]:
    """Return a queue that has read these events, and what came of the last: its chunks, or the kind of its error."""
    queue, decoder = ReleaseQueue(API, "c"), EventDecoder(1 << 20)
    result: Any = None
    for event in events:
        (unit,) = decoder.feed(f"data: {event}\n\n".encode("utf-8", "surrogatepass"))
        try:
            result = queue.add(unit)
        except ContentError as error:
            result = type(error)
    return queue, result


def released(queue: ReleaseQueue, chunks: Any) -> bytes:
    """Let Aim rewrite the last text; return what leaves."""
    marks = [json.loads(chunk) for chunk in chunks]
    for chunk in marks:
        for choice in chunk["choices"]:
            text = choice["delta"].get("content")
            if text:
                queue.verified(((choice["index"], "[redacted]"),), {"choices": [choice], MARK: chunk[MARK]})
    return queue.take_all()


@given(chunks, spellings, st.sampled_from(["content", "model", "zz", "finish_reason"]))
def test_chunk_is_read_as_without_a_template(first: dict[str, Any], spelling: str, field: str) -> None:
    """Another value, spelled in any way, at the text's place or at any other."""
    before = json.dumps(first)
    document = Document(before)
    place = {"content": ("choices", 0, "delta", "content"), "finish_reason": ("choices", 0, "finish_reason")}
    path = place.get(field, (field,))
    try:
        start, end = document.span(path)
    except ValueError:
        start = end = len(before) - 1  # the field is not there
    second = before[:start] + spelling + before[end:]
    other = json.dumps(OTHER)
    with_template, result = queue_of(other, other, before, second)
    without, expected = queue_of(other, before, other, second)
    assert result == expected
    if isinstance(result, list) and result:
        ends = [released(queue, result).splitlines()[-2:] for queue in (with_template, without)]
        assert ends[0] == ends[1]


def test_only_the_text_is_read_anew() -> None:
    text = '{"id": "a", "choices": [{"index": 2, "delta": {"content": "one"}}]}'
    document = Document(text)
    template = ChunkTemplate.of(document, API.deltas(document))
    assert template is not None
    leaf = template.read(text.replace("one", "{two}"))
    assert leaf == Leaf(
        ("choices", 0, "delta", "content"), "{two}", ("choices", 2, "delta", "content"), 2, unit=("choices", 2)
    )
    for other in (
        text.replace('"a"', '"b"'),
        text.replace("one", ""),
        text.replace("one", "\\n"),
        text.replace('"one"', "null"),
        text.replace("one", 'x", "y": "z'),
        text[:-3],
        "{" + text,
        text + " ",
        text[:40],
        "",
    ):
        assert template.read(other) is None


def test_bytes_around_the_text_do_not_overlap() -> None:
    """The beginning and the end of a template may have bytes in common, which must be there twice."""
    text = '{"choices": [{"index": 0, "delta": {"content": "a"}}], "zz": 1}'
    document = Document(text)
    template = ChunkTemplate.of(document, API.deltas(document))
    assert template is not None
    for length in range(len(text)):
        assert template.read(text[:length] + text[-1:]) is None or text[:length] + text[-1:] == text


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": [{"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {"content": "b"}}]},
        {"choices": [{"index": 0, "delta": {"content": "a"}}], "zz": "more text"},
        {"choices": [{"index": 0, "delta": {"refusal": "a"}}]},
        {"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [{"token": "a"}]}}]},
        {"choices": [{"index": 5000, "delta": {"content": "a"}}]},
    ],
)
def test_chunk_with_more_to_read_is_no_template(chunk: dict[str, Any]) -> None:
    document = Document(json.dumps(chunk))
    assert ChunkTemplate.of(document, API.deltas(document)) is None


def known(text: str, chunks: ChunkTemplates) -> bool:
    """Return whether a chunk is known; else it is learned, as in a stream."""
    if chunks.read(text) is not None:
        return True
    document = Document(text)
    chunks.learn(document, API.deltas(document))
    return False


def test_padding_in_each_chunk_ends_the_search_for_templates() -> None:
    """A server that pads each chunk with random letters would cost a template for each."""
    chunks = ChunkTemplates()
    for number in range(8):
        assert not known(json.dumps(OTHER | {"obfuscation": "x" * number}), chunks)
    for _ in range(2):
        assert not known(json.dumps(OTHER | {"obfuscation": "x" * 8}), chunks)
    assert known(json.dumps(OTHER | {"obfuscation": "x" * 7}), chunks)
    assert not known(json.dumps(OTHER | {"obfuscation": "y"}), chunks)
    assert known(json.dumps(OTHER | {"obfuscation": "y"}), chunks)


def test_chunks_with_more_to_read_do_not_end_the_search() -> None:
    """A model may think for long before it says its first word."""
    chunks = ChunkTemplates()
    for number in range(20):
        assert not known(json.dumps({"choices": [{"index": 0, "delta": {"reasoning": f"{number}"}}]}), chunks)
    assert not known(json.dumps(OTHER), chunks)
    assert known(json.dumps(OTHER), chunks)


def test_long_chunk_is_no_template() -> None:
    """It would be kept until the next one."""
    chunks = ChunkTemplates()
    for _ in range(2):
        assert not known(json.dumps(OTHER) + " " * 5000, chunks)


def test_forgotten_template_knows_no_chunk() -> None:
    chunks = ChunkTemplates()
    assert [known(json.dumps(OTHER), chunks) for _ in range(2)] == [False, True]
    chunks.forget()
    assert not known(json.dumps(OTHER), chunks)


def parsings(count: int) -> int:
    """Return how often a value is parsed while a stream of so many chunks is read."""
    parsed = 0

    def watch(frame: FrameType, event: str, _: object) -> None:
        nonlocal parsed
        parsed += event == "call" and frame.f_code.co_name == "raw_decode"

    words = [json.dumps({"choices": [{"index": 7, "delta": {"content": f"{n}"}}]}) for n in range(count)]
    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        queue_of(*words)
    finally:
        sys.setprofile(before)
    return parsed


def test_stream_parses_no_known_chunk() -> None:
    """Else nothing would be saved."""
    assert 0 < parsings(1) == parsings(20)
