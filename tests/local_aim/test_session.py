"""A session: a receiver can match verified chunks with submitted ones, for any split of the text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extproc.local_aim.judge import Judge
from extproc.local_aim.policies import load
from extproc.local_aim.session import QUIET_CHUNKS, BadFrame, Session

DETECTORS = load().detectors("output")
DONE = {"done": True}


def chunk(text: str | None, index: int = 0, **choice: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {"id": "c", "choices": [{"index": index, "delta": delta, "finish_reason": None, **choice}]}


def send(session: Session, frame: Any) -> list[dict[str, Any]]:
    return session.receive(json.dumps(frame))


def verified(*chunks: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"verified_chunk": c} for c in chunks]


def contents(frames: list[dict[str, Any]], index: int = 0) -> list[str]:
    return [
        choice["delta"]["content"]
        for frame in frames
        if "verified_chunk" in frame
        for choice in frame["verified_chunk"]["choices"]
        if choice["index"] == index and "content" in choice["delta"]
    ]


class Receiver:
    """Matches verified texts of one choice index with sent texts, as the sidecar does."""

    def __init__(self, submitted: list[str]) -> None:
        self.waiting = submitted
        self.shown = ""

    def receive(self, text: str) -> None:
        assert self.waiting, "a verified text for nothing"
        self.waiting = self.waiting[self.covered(text) :]
        self.shown += text

    def covered(self, text: str) -> int:
        joined = ""
        for count, waiting in enumerate(self.waiting, 1):
            joined += waiting
            if joined == text:
                return count
        if text in self.waiting:
            return self.waiting.index(text) + 1
        return 1


WORDS = [
    "bob@example.com",
    "4111 1111 1111 1111",
    "415-555-2671",
    ", ",
    " ",
    "and",
    "a",
    "1",
    "11",
    ".",
    "x@",
    "[",
    "b",
]


@st.composite
def streams(draw: st.DrawFn) -> list[str]:
    text = "".join(draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=10)))
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=40)) - {len(text)})
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def redacted(text: str) -> str:
    return Judge(DETECTORS).text(text)


@given(streams(), st.booleans())
@example(["a@b.", "com ", " ", " "], True)
@example(["x@y.com", ",", " z@", "y.com", ",", ","], True)
def test_receiver_shows_the_redacted_text(chunks: list[str], everything_is_under_way: bool) -> None:
    session = Session(DETECTORS)
    receiver = Receiver(list(chunks) if everything_is_under_way else [])
    expected = redacted("".join(chunks))
    for text in [*chunks, None]:
        if text is not None and not everything_is_under_way:
            receiver.waiting.append(text)
        for shown in contents(send(session, DONE if text is None else chunk(text))):
            assert shown
            receiver.receive(shown)
            assert expected.startswith(receiver.shown)
    assert session.closed
    assert receiver.shown == expected


@given(st.lists(streams(), min_size=2, max_size=3), st.randoms())
def test_choice_indexes_are_independent(texts: list[list[str]], random: Any) -> None:
    session = Session(DETECTORS)
    order = [index for index, chunks in enumerate(texts) for _ in chunks if len(chunks) < QUIET_CHUNKS // 2]
    random.shuffle(order)
    todo = [iter(chunks) for chunks in texts]
    frames = [frame for index in order for frame in send(session, chunk(next(todo[index]), index))]
    frames += send(session, DONE)
    for index in set(order):
        shown = "".join(contents(frames, index))
        # the session has one numbering: compare the text around the placeholders
        assert shape(shown) == shape(redacted("".join(texts[index])))


def shape(text: str) -> str:
    return "".join(char for char in text if not char.isdigit())


@given(st.lists(st.sampled_from(["Hello", " wor", "ld", ". ", None, "日本", "\ud83d"]), max_size=20))
def test_unchanged_chunks_are_returned_unchanged(texts: list[str | None]) -> None:
    session = Session(DETECTORS)
    chunks = [chunk(text, extra=n, logprobs={"content": []}) for n, text in enumerate(texts)]
    frames = [frame for c in chunks for frame in send(session, c)]
    frames += send(session, DONE)
    assert frames == [*verified(*chunks), DONE]


def test_word_is_released_with_the_next_chunk() -> None:
    session = Session(DETECTORS)
    assert send(session, chunk("Hello")) == []
    assert send(session, chunk(" world")) == verified(chunk("Hello"))
    assert send(session, chunk(". ")) == verified(chunk(" world"), chunk(". "))
    assert send(session, DONE) == [DONE]


def test_chunks_without_text_keep_their_order() -> None:
    session = Session(DETECTORS)
    role = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
    usage = {"choices": [], "usage": {"total_tokens": 3}}
    assert send(session, usage) == verified(usage)
    assert send(session, role) == verified(role)
    assert send(session, chunk("Hello")) == []
    assert send(session, role) == []
    assert send(session, usage) == []
    assert send(session, chunk(None, 1)) == verified(chunk(None, 1))
    assert send(session, DONE) == [*verified(chunk("Hello"), role, usage), DONE]


def test_value_split_over_chunks_is_redacted() -> None:
    session = Session(DETECTORS, keep_text=True)
    frames = []
    for text in ["mail bob@", "example", ".com", ", please"]:
        frames += send(session, chunk(text, logprobs={"content": [text]}))
    frames += send(session, DONE)
    first = chunk("mail [EMAIL_1]")
    assert frames == [*verified(first, chunk(", please", logprobs={"content": [", please"]})), DONE]
    assert session.outcome().action == "anonymize"
    assert session.text() == "mail bob@example.com, please"


def test_text_after_a_value_stays_with_its_placeholder() -> None:
    session = Session(DETECTORS)
    frames = []
    for text in ["bob@", "example.com, eve@", "example.com or", " so"]:
        frames += send(session, chunk(text))
    frames += send(session, DONE)
    assert contents(frames) == ["[EMAIL_1], ", "[EMAIL_2] or", " so"]


def test_finish_reason_ends_the_text() -> None:
    session = Session(DETECTORS)
    assert send(session, chunk("Hello")) == []
    last = chunk(None, finish_reason="stop")
    assert send(session, last) == verified(chunk("Hello"), last)
    both = chunk("bob@example.com", 1, finish_reason="stop")
    assert contents(send(session, both), 1) == ["[EMAIL_1]"]


def test_silent_index_does_not_hold_others() -> None:
    session = Session(DETECTORS)
    assert send(session, chunk("thought")) == []
    frames = [frame for _ in range(QUIET_CHUNKS) for frame in send(session, chunk(" . ", 1))]
    assert contents(frames, 0) == ["thought"]
    assert send(session, chunk(" again. ")) == verified(chunk(" again. "))


def test_chunk_with_several_choices() -> None:
    def both(first: str, second: str) -> dict[str, Any]:
        return {"choices": [*chunk(first, 0)["choices"], *chunk(second, 1)["choices"]]}

    session = Session(DETECTORS)
    frames = send(session, both("a bob@", "x "))
    frames += send(session, both("example.com", "y "))
    frames += send(session, both(" b ", "z "))
    frames += send(session, DONE)
    assert contents(frames, 0) == ["a [EMAIL_1]", " b "]
    assert contents(frames, 1) == ["x ", "y ", "z "]
    assert frames[2] == {"verified_chunk": both(" b ", "z ")}


def test_value_is_not_joined_across_indexes() -> None:
    session = Session(DETECTORS)
    frames = send(session, chunk("bob@exam")) + send(session, chunk("ple.com", 1)) + send(session, DONE)
    assert contents(frames, 0) == ["bob@exam"]
    assert contents(frames, 1) == ["ple.com"]


def test_blocking_match_ends_the_session() -> None:
    session = Session(DETECTORS)
    assert contents(send(session, chunk("About Project "))) == []
    trigger = chunk("Nightfall. ")
    assert send(session, trigger) == [
        {"blocking_message": "This mentions a confidential project.", "first_blocked_chunk": trigger}
    ]
    assert session.closed
    assert session.outcome().policies == ("confidential projects",)


def test_done_can_block() -> None:
    session = Session(DETECTORS)
    send(session, chunk("Project Nightfall"))
    assert send(session, DONE) == [{"blocking_message": "This mentions a confidential project."}]
    assert session.closed


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "nonsense",
        "data: {}",
        "[]",
        "null",
        '{"done": false}',
        '{"done": true, "choices": []}',
        '{"choices": null}',
        '{"choices": [1]}',
        '{"choices": [{"delta": "x"}]}',
        '{"choices": [{"delta": {"content": 1}}]}',
        '{"choices": [{"index": "0", "delta": {"content": "x"}}]}',
        "[" * 100_000,
    ],
)
def test_invalid_frames_are_rejected(frame: str) -> None:
    with pytest.raises(BadFrame) as caught:
        Session(DETECTORS).receive(frame)
    assert len(str(caught.value)) < 100


def test_done_without_chunks() -> None:
    session = Session(DETECTORS)
    assert send(session, DONE) == [DONE]
    assert session.outcome().action == "allow"
    assert session.text() == ""
