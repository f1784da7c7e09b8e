"""The choice of a dialect for any spelling of a path, and the parts of all dialects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.content.document import MAX_DEPTH, Document
from extproc.core.dialects.base import Dialect, answering, running
from extproc.core.dialects.endpoints import ALL, DEFAULT, NAMES
from extproc.core.dialects.rules import COMMON
from extproc.core.dialects.table import Table
from extproc.core.refusal import OVERLOADED, blocked


def test_dialects_are_found_by_their_names() -> None:
    assert DEFAULT is NAMES["openai-chat"]
    assert all(dialect.name == name for name, dialect in NAMES.items())


# -- what is not said otherwise is as in OpenAI's APIs --------------------------------------------------------------


class Plain(Dialect):
    name = "plain"
    request = answer = event = Table(*COMMON)


def test_defaults_of_a_dialect() -> None:
    document = Document('{"choices":[{"delta":{"content":"a"}}]}')
    assert not Plain().is_submitted_whole(document)
    assert Plain().opt_in is None
    assert Plain.clients_skip_comments
    assert not Plain.is_repetitive
    assert not Plain.answers_media
    (leaf,) = Plain().deltas(document)
    assert (leaf.place, leaf.index) == (("choices", 0, "delta", "content"), None)


@pytest.mark.parametrize(
    ("text", "streams"),
    [
        ('{"stream":true}', True),
        *((f'{{"stream":{odd}}}', False) for odd in ("false", '"true"', "1", "null", "[true]", "{}")),
        *((text, False) for text in ("{}", "[true]", '"stream"', "null")),
    ],
)
def test_field_stream_asks_for_a_stream(text: str, streams: bool) -> None:
    assert Plain().streams(Document(text), "/v1/chat/completions") is streams


@pytest.mark.parametrize("data", ["[DONE]", " [DONE]", "[DONE]\n"])
def test_done_mark_ends_a_stream(data: str) -> None:
    assert Plain().is_final(data, None)


@pytest.mark.parametrize("data", ["", "{}", "[done]", '"[DONE]"', "[DONE][DONE]"])
def test_other_data_does_not_end_a_stream(data: str) -> None:
    assert not Plain().is_final(data, None)


def test_parsed_event_does_not_end_a_stream() -> None:
    assert not Plain().is_final("[1]", Document("[1]"))


def test_refusal_has_these_exact_bytes() -> None:
    body = (
        b'{"error": {"message": "said \\"no\\" \\u00e9", "type": "invalid_request_error", "param": null, '
        b'"code": "content_policy_violation"}}'
    )
    refusal = blocked('said "no" é')
    assert Plain().refuse(refusal) == body
    assert Plain().refuse_stream(refusal, 7) == b"data: " + body + b"\n\ndata: [DONE]\n\n"


def test_message_of_a_refusal_cannot_break_out_of_its_event() -> None:
    events = Plain().refuse_stream(blocked("a\r\n\r\ndata: b\n\n"), 0)
    assert len(events.split(b"\n\n")) == 3
    assert b"\r" not in events


def test_failure_has_these_exact_bytes() -> None:
    assert Plain().refuse(OVERLOADED) == (
        b'{"error": {"message": "The AI security guardrail is overloaded.", "type": "api_error", "param": null, '
        b'"code": "guardrail_overloaded"}}'
    )


# -- running texts -----------------------------------------------------------------------------------------------


def test_entries_of_a_list_are_identified_by_their_own_index() -> None:
    root = {"a": [{"index": 7, "b": ["x"]}, {"index": "z", "b": "x"}, {"index": [1], "b": "x"}, {"b": "x"}]}
    assert [running(root, ("a", number, "b")) for number in range(4)] == [
        ("a", 7, "b"),
        ("a", "z", "b"),
        ("a", 2, "b"),
        ("a", 3, "b"),
    ]
    assert running(root, ("a", 0, "b", 0)) == ("a", 7, "b", 0)


LONG = "n" * 65


@pytest.mark.parametrize("given", [[1], {"a": "b"}, 5, LONG, None])
@pytest.mark.parametrize(
    ("name", "key", "event"),
    [
        ("openai-threads", "id", {"delta": {"content": [{"text": {"value": "a b"}}]}}),
        ("mistral-conversations", "type", {"content": [{"text": "a b"}]}),
        ("gemini-interactions", "event_type", {"x": "a b"}),
        ("openai-transcriptions", "type", {"x": "a b"}),
        ("anthropic-messages", "type", {"x": "a b"}),
        ("openai-responses", "type", {"x": "a b"}),
    ],
)
def test_only_a_short_name_becomes_part_of_a_place(name: str, key: str, event: dict[str, Any], given: Any) -> None:
    leaves = NAMES[name].deltas(Document(json.dumps({**event, key: given})))
    place = next(leaf.place for leaf in leaves if leaf.text == "a b")
    assert isinstance(place, tuple)
    assert place[0] == ""


def test_long_index_of_an_entry_is_none() -> None:
    assert running({"a": [{"index": LONG, "b": "x"}]}, ("a", 0, "b")) == ("a", 0, "b")
    event = {"candidates": [{"index": LONG, "content": {"parts": [{"text": "a b"}]}}]}
    assert [leaf.place for leaf in NAMES["gemini"].deltas(Document(json.dumps(event)))] == [("candidates", 0, "text")]


def test_long_id_of_a_call_is_cut() -> None:
    assert answering(LONG, {}) == {"role": "tool", "tool_call_id": "n" * 64}


@pytest.mark.parametrize("dialect", NAMES.values(), ids=NAMES)
def test_deepest_document_is_read(dialect: Dialect) -> None:
    depth = MAX_DEPTH - 1
    document = Document('{"a":' * depth + '{"note":"hi"}' + "}" * depth)
    assert [leaf.text for leaf in dialect.answers(document)] == ["hi"]
    assert [leaf.text for leaf in dialect.deltas(document)] == ["hi"]
    assert [prompt.message["content"] for prompt in dialect.prompts(document, tools=False)] == ["hi"]


@pytest.mark.parametrize("dialect", NAMES.values(), ids=NAMES)
def test_key_that_is_a_sentence_is_read(dialect: Dialect) -> None:
    document = Document('{"my password is hi":1}')
    (leaf,) = dialect.answers(document, locates=True)
    assert (leaf.text, leaf.fixed) == ("my password is hi", True)


@pytest.mark.parametrize("name", ALL)
def test_chosen_status_of_a_block_changes_nothing_else(name: str) -> None:
    dialect = ALL[name]
    usual, chosen = blocked("no"), blocked("no", 451)
    numeric = dialect.refuse(usual).replace(b'"code": 400', b'"code": 451')
    assert dialect.refuse(chosen) == numeric
    assert (numeric == dialect.refuse(usual)) != (b'"status": "INVALID_ARGUMENT"' in numeric)
    assert dialect.refusal_headers(chosen) == dialect.refusal_headers(usual)
    assert (dialect.status(usual), dialect.status(chosen)) == (400, 451)
    frame = dialect.refuse_frame(usual)
    assert dialect.refuse_frame(chosen) == frame
