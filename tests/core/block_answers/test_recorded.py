"""Answers of blocks complete recorded streams, wherever these were cut, and are answers of the API themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from extproc.core.block_answers.base import DONE, BlockAnswer, Event, Facts
from extproc.core.block_answers.writer import reply, write
from extproc.core.content.document import Document
from extproc.core.content.framing import Framing, decoder_of
from extproc.core.dialects.leaf import Kind
from tests.fakes.planted import Recording, own, units_of

MESSAGE = "Not that: “no”.\n"
FACTS = Facts("call-1", "m", 1_700_000_000, "/v1/conversations")

_FRAMINGS = {
    "text/event-stream": Framing.EVENT_STREAM,
    "application/x-ndjson": Framing.JSON_LINES,
    "application/vnd.amazon.eventstream": Framing.AWS_EVENT_STREAM,
    "application/json": Framing.JSON_ARRAY,
}

RECORDINGS = [each for each in own() if each.dialect.block_answer(each.path)]
STREAMS = [each for each in RECORDINGS if each.is_stream]
each_stream = pytest.mark.parametrize("recording", STREAMS, ids=lambda each: each.name)


def answer_of(recording: Recording) -> BlockAnswer:
    kind = recording.dialect.block_answer(recording.path)
    assert kind is not None
    return kind(FACTS)


def documents(recording: Recording) -> list[Any]:
    """Return the documents of a stream."""
    return [json.loads(unit.data) for unit in units_of(recording.body) if unit.data and unit.data.strip() != DONE]


def cuts(recording: Recording) -> Iterator[tuple[list[Any], list[Event]]]:
    """Yield the documents before each cut of a stream, and the events that then complete it."""
    given = documents(recording)
    followed = answer_of(recording)
    for end in range(len(given) + 1):
        if end:
            followed.follow(given[end - 1])
        yield given[:end], followed.rest(MESSAGE)


@each_stream
def test_events_are_those_of_the_api_and_hold_the_message_alone(recording: Recording) -> None:
    """The message is the only new text; the end is one for the dialect; every framing gives the same events."""
    framing = _FRAMINGS[recording.content_type]
    for before, events in cuts(recording):
        raw = write(events, framing, answer_of(recording).frames, tail=b"}" if before else b"")
        raw = b"[" + raw[1:] if framing is Framing.JSON_ARRAY else raw
        decoder = decoder_of(framing, 2**20)
        datas = [unit.data for unit in (*decoder.feed(raw), *decoder.finish()) if unit.data is not None]
        values = [value for _, value in events if value != DONE]
        assert [json.loads(data) for data in datas if data != DONE] == values
        texts: list[str] = []
        for value in values:
            leaves = recording.dialect.deltas(Document(json.dumps(value)))
            texts += [leaf.text for leaf in leaves if leaf.kind is Kind.TEXT]
            assert all(leaf.text.endswith(MESSAGE) or before for leaf in leaves if leaf.kind is Kind.REPEAT)
        said = [text for text in texts if text]
        assert said
        if not recording.name.startswith("sglang"):  # whose events repeat the text
            assert set(said) == {MESSAGE}
            assert len(said) == 1 or "choices" in values[0] or "candidates" in json.dumps(values[0])
        last = Document(json.dumps(values[-1]))
        is_final = recording.dialect.is_final
        end = datas[-1] or ""
        assert is_final(end, None) or is_final(end, last) or "candidates" in end


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda each: each.name)
def test_whole_answer_holds_the_message_alone(recording: Recording) -> None:
    body = reply(answer_of(recording), MESSAGE, Framing.WHOLE)
    leaves = recording.dialect.answers(Document(body.decode()))
    assert [leaf.text for leaf in leaves] == [MESSAGE]


def test_a_cut_item_ends_with_the_texts_that_the_client_has() -> None:
    (recording,) = (each for each in STREAMS if each.name == "responses.sse")
    before, events = list(cuts(recording))[14]  # after `Good morning`
    assert before[-1]["delta"] == " morning"
    kinds = [kind for kind, _ in events]
    assert kinds[:3] == ["response.output_text.done", "response.content_part.done", "response.output_item.done"]
    assert events[0][1]["text"] == events[1][1]["part"]["text"] == "Good morning"
    item = events[2][1]["item"]
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", "Good morning")
    output = events[-1][1]["response"]["output"]
    assert [each["type"] for each in output] == ["reasoning", "message", "message"]
    assert output[1] == item
    assert output[0]["encrypted_content"] == "bWFkZSB1cA=="
    assert events[-1][1]["response"]["id"] == "resp_made_up"
