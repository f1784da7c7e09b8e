"""No letter of a redacted value is released, wherever it is in an answer and however it is cut."""

from __future__ import annotations

import re
from collections.abc import Hashable
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.commands import ReleaseBody
from extproc.core.content.document import Document
from extproc.core.dialects.leaf import Leaf
from extproc.core.redaction import is_json
from extproc.core.refusal import BLOCKED_RESPONSE, blocked
from extproc.core.verdict import Allow, Anonymize, Outcome
from tests.fakes.edited import Edit, Raw, edited
from tests.fakes.planted import (
    CORPUS,
    MASK,
    VALUE,
    Recording,
    RedactingAim,
    as_tokens,
    client_texts,
    corpus,
    is_argument,
    letters,
    own,
    plant,
    read,
    running,
    shape,
    spots,
    units_of,
)
from tests.fakes.reading import at, dotted

STREAMS = [recording for recording in own() if recording.is_stream]
PIECED = [recording for recording in STREAMS if recording.name != "mcp-call.sse"]  # each of its messages is whole
WHOLE = [recording for recording in own() if not recording.is_stream]
RECORDED = corpus()
RECORDED_STREAMS = [recording for recording in RECORDED if recording.is_stream]
RECORDED_WHOLE = [recording for recording in RECORDED if not recording.is_stream]
MANNERS = [
    RedactingAim(),
    RedactingAim(drops=True),
    RedactingAim(merges=True),
    RedactingAim(is_eager=False),
    RedactingAim(is_eager=False, drops=True, merges=True),
    RedactingAim(blocks=True),
    RedactingAim(is_eager=False, blocks=True),
]

_IN_KEY = re.compile(rf'{VALUE}[^"]*"\s*:').search

needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no recorded traffic in {CORPUS}")


def names(recordings: list[Recording]) -> list[str]:
    return [recording.name for recording in recordings]


def drive(recording: Recording, body: bytes, aim: RedactingAim, cuts: list[int]) -> Any:
    """Send a stream in pieces to an exchange and Aim; return the world after its end."""
    world = recording.begin()
    aim = RedactingAim(aim.is_eager, aim.drops, aim.merges, aim.blocks)
    bounds = [0, *sorted({cut for cut in cuts if 0 < cut < len(body)}), len(body)]
    for start, end in pairwise(bounds):
        if world.is_closed:
            break
        world.body(body[start:end], end=end == len(body))
        aim.answer(world)
    assert world.is_complete
    assert world.session is None
    assert world.exchange.deadline is None
    return world


# -- streams: nothing found ----------------------------------------------------------------------------------------


def check_transparency(recording: Recording) -> None:
    body = recording.body
    for cuts in ([], list(range(len(body)))):
        for aim in (RedactingAim(), RedactingAim(merges=True), RedactingAim(is_eager=False)):
            world = drive(recording, body, aim, cuts)
            assert world.response.body == body
            assert world.response.is_ended


@pytest.mark.parametrize("recording", STREAMS, ids=names(STREAMS))
def test_allowed_answer_is_released_unchanged(recording: Recording) -> None:
    check_transparency(recording)


@pytest.mark.corpus
@needs_corpus
@pytest.mark.parametrize("recording", RECORDED_STREAMS, ids=names(RECORDED_STREAMS))
def test_allowed_recorded_answer_is_released_unchanged(recording: Recording) -> None:
    check_transparency(recording)


@given(st.sampled_from(STREAMS), st.lists(st.integers(1, 12_000), max_size=30), st.sampled_from(MANNERS[:5]))
@settings(max_examples=60, deadline=None)
def test_allowed_answer_is_released_unchanged_for_any_cut(
    recording: Recording, cuts: list[int], aim: RedactingAim
) -> None:
    assert drive(recording, recording.body, aim, cuts).response.body == recording.body


# -- streams: a value found ----------------------------------------------------------------------------------------


@cache
def places_of(recording: Recording) -> list[tuple[Hashable, str, list[int]]]:
    """Return each running text of a stream, with the positions at which the value can be planted."""
    found = []
    for place, text in running(recording).items():
        where = spots(text, is_argument=is_argument(recording, place))
        if where:
            found.append((place, text, where))
    return found


def check(recording: Recording, place: Hashable, pieces: list[str], aim: RedactingAim, cuts: list[int]) -> None:
    """Plant the value in `pieces` and check that the client gets everything except the value."""
    dialect = recording.dialect
    body = plant(recording, place, pieces)
    assert letters(body) == set(VALUE)
    world = drive(recording, body, aim, cuts)
    reply = world.reply.body if world.reply is not None else b""
    assert not letters(world.response.body + reply)
    arrived = units_of(world.response.body)
    if aim.blocks:
        assert world.record.outcome == "blocked"
        refusal = world.exchange._response.ending(blocked(BLOCKED_RESPONSE))[0]
        assert isinstance(refusal, ReleaseBody)
        released = world.response.body.removesuffix(refusal.data)
        assert body.startswith(released)
        assert reply if world.response.headers is None else released != world.response.body
        return
    assert world.response.is_ended
    assert world.reply is None
    assert [shape(dialect, event) for event in arrived] == [shape(dialect, event) for event in units_of(body)]
    assert "".join(pieces).replace(VALUE, MASK) == client_texts(dialect, world.response.body)[0][place]
    planted, planted_repeats = client_texts(dialect, body)
    texts, repeats = client_texts(dialect, world.response.body)
    assert texts == {one: text.replace(VALUE, MASK) for one, text in planted.items()}
    assert repeats == {one: {text.replace(VALUE, MASK) for text in many} for one, many in planted_repeats.items()}
    for event in arrived:
        for leaf in read(dialect, event)[1]:
            assert not (leaf.kind.name == "SEAL" and leaf.place == place and leaf.text), "the signature is still there"


def exhaustively(recording: Recording) -> None:
    aims = iter(MANNERS * 10_000)
    for place, text, where in places_of(recording):
        for spot in where:
            before, after = text[:spot], text[spot:]
            for cut in range(len(VALUE) + 1):
                pieces = [before + VALUE[:cut], VALUE[cut:] + after]
                check(recording, place, [piece for piece in pieces if piece], next(aims), [])
            every = [piece for piece in (before, *VALUE, after) if piece]
            for aim in MANNERS if spot == where[-1] else [next(aims)]:
                check(recording, place, every, aim, [])


@pytest.mark.parametrize("recording", PIECED, ids=names(PIECED))
def test_no_letter_of_a_value_leaks_at_any_place_and_cut(recording: Recording) -> None:
    assert places_of(recording)
    exhaustively(recording)


@pytest.mark.corpus
@needs_corpus
@pytest.mark.parametrize("recording", RECORDED_STREAMS, ids=names(RECORDED_STREAMS))
def test_no_letter_of_a_value_leaks_from_recorded_traffic(recording: Recording) -> None:
    exhaustively(recording)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_letter_of_a_value_leaks_for_any_pieces_and_any_aim(data: st.DataObject) -> None:
    recording = data.draw(st.sampled_from(PIECED))
    place, text, where = data.draw(st.sampled_from(places_of(recording)))
    spot = data.draw(st.sampled_from(where))
    whole = text[:spot] + VALUE + text[spot:]
    cuts = sorted({*data.draw(st.lists(st.integers(1, len(whole) - 1), max_size=10))})
    pieces = [whole[start:end] for start, end in pairwise([0, *cuts, len(whole)])]
    aim = RedactingAim(*(data.draw(st.booleans()) for _ in range(4)))
    check(recording, place, pieces, aim, data.draw(st.lists(st.integers(1, 12_000), max_size=8)))


def test_every_dialect_with_streams_is_tested() -> None:
    assert {recording.dialect.name for recording in STREAMS} == {
        "openai-chat",
        "openai-completions",
        "openai-responses",
        "anthropic-messages",
        "gemini",
        "cohere-chat",
        "gemini-interactions",
        "openai-threads",
        "anthropic-complete",
        "mistral-conversations",
        "text-generation",
        "openai-transcriptions",
        "ollama",
        "mcp",
        "bedrock-converse",
        "bedrock-invoke",
    }
    assert not any(letters(recording.body) for recording in own() + RECORDED)


# -- whole answers -------------------------------------------------------------------------------------------------


def judge(recording: Recording, body: bytes) -> Any:
    """Send a whole answer; Aim replaces the value wherever it finds it."""
    world = recording.begin().body(body, end=True)
    if world.detections:
        (question,) = world.detections.values()
        outcomes: list[Outcome] = []
        for one in question.inputs:
            assert one.output is not None
            redacted = one.output.replace(VALUE, MASK)
            outcomes.append(Anonymize((None, redacted)) if redacted != one.output else Allow())
        world.judge(*outcomes)
    assert world.is_complete
    return world


def check_whole(recording: Recording) -> None:
    assert judge(recording, recording.body).response.body == recording.body
    document = Document.from_bytes(recording.body)
    leaves = recording.dialect.answers(document, locates=True)
    for leaf in (part for joined in leaves for part in joined.parts or (joined,)):
        spelt = leaf.raw or leaf.text
        for spot in spots(spelt, is_argument=leaf.is_json):
            text = spelt[:spot] + VALUE + spelt[spot:]
            if leaf.is_json and not is_json(text):
                continue
            body = edited(document, _planted(document, leaf, text)).encode()
            world = judge(recording, body)
            where = dotted(leaf.path)
            if leaf.fixed or (leaf.is_json and _IN_KEY(text)):
                assert world.record.code == "redaction_failed", where
                continue
            assert not letters(world.response.body), where
            assert {one.text for one in recording.dialect.answers(Document.from_bytes(world.response.body))} == {
                one.text.replace(VALUE, MASK) for one in recording.dialect.answers(Document.from_bytes(body))
            }, where


def _planted(document: Document, leaf: Leaf, text: str) -> dict[Any, Edit]:
    edits: dict[Any, Edit] = {
        path: as_tokens(at(document.root, path), text) for path in (*leaf.nulled_everywhere, *leaf.nulled)
    }
    return {**edits, leaf.path: Raw(text) if leaf.is_embedded else text}


@pytest.mark.parametrize("recording", WHOLE, ids=names(WHOLE))
def test_no_letter_of_a_value_leaks_from_whole_answers(recording: Recording) -> None:
    check_whole(recording)


@pytest.mark.corpus
@needs_corpus
@pytest.mark.parametrize("recording", RECORDED_WHOLE, ids=names(RECORDED_WHOLE))
def test_no_letter_of_a_value_leaks_from_recorded_whole_answers(recording: Recording) -> None:
    check_whole(recording)
