"""Lines that are no JSON, but may be JSON for a more lenient reader: Aim reads them like a whole body."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.verdict import Anonymize
from extproc.core.vocabulary import Leg
from tests.fakes.rig import chat_request
from tests.fakes.witness import Traffic, Witness
from tests.fakes.world import World, policy

JSON = "application/json"
LINES = "application/x-ndjson"
EVENTS = "text/event-stream"
CHAT = "/v1/chat/completions"

NAME = "".join(f"\\u{ord(letter):04x}" for letter in "Zoë Roe")
UNPARSED = {
    "repeated key": '{"q":"%s","q":"%s"}',
    "trailing comma": '{"q":"%s",}',
    "too deep": '{"q":' + "[" * 130 + '"%s"' + "]" * 130 + "}",
    "cut short": '{"q":"%s"',
    "several values": '"%s" "%s"',
    "single quotes": "{'q': \"%s\"}",
    "a name before it": 'data: {"q":"%s"}',
    "a word before it": 'foo {"q":"%s","q":"%s"}',
    "a bracket too many": '{"q":"%s"}}',
}
ESCAPES = ["plain", r"\u0057ords", r"\n", r"\"", r"\ud83d\ude00", r"\x", r"\\", r"\\u0041"]
BODIES = st.builds(
    lambda shape, said: shape.replace("%s", f"Hi {NAME} {' '.join(said)}"),
    st.sampled_from(list(UNPARSED.values())),
    st.lists(st.sampled_from(ESCAPES), max_size=3),
)


def asked(kind: str, body: bytes) -> tuple[Leg, Traffic]:
    return Leg.REQUEST, Traffic("/other", body, headers=(("content-type", kind),))


def told(kind: str, body: bytes, status: int = 200, path: str = "/other") -> tuple[Leg, Traffic]:
    request = json.dumps(chat_request("Hi")).encode()
    return Leg.RESPONSE, Traffic(path, request, body, content_type=kind, status=status)


def held(line: str) -> Iterator[tuple[Leg, Traffic]]:
    """Yield bodies that are held until they are whole, each with the line."""
    alone = line.encode()
    behind = b'{"a":"Hi there"}\n' + alone + b"\n"
    yield asked(LINES, alone)
    yield asked(LINES, behind)
    yield asked(LINES, alone + b"\n" + alone + b"\nand words")
    yield asked(JSON, behind)
    yield told(JSON, alone)
    yield told(JSON, behind)
    yield told(LINES, behind, 500)
    yield told(LINES, b"Hello\n" + behind, 500)
    yield told(EVENTS, b"data: Hello\n\ndata: " + alone + b"\n\n", 500)


def streamed(line: str) -> Iterator[tuple[Leg, Traffic]]:
    """Yield streams with the line."""
    yield told(LINES, b'{"a":"Hi there"}\n' + line.encode() + b"\n")
    yield told(EVENTS, b"data: " + line.encode() + b"\n\n")


def hide(text: str) -> str:
    return text.replace("Zoë Roe", "[X]")


@given(BODIES)
@settings(max_examples=25)
def test_line_is_read_and_redacted_like_a_body(line: str) -> None:
    whole = Witness(asked(JSON, line.encode())[1], redact=hide)
    (said,) = whole.texts[Leg.REQUEST]
    assert "Hi Zoë Roe" in said
    for leg, traffic in held(line):
        it = Witness(traffic, redact=hide)
        assert any(said in text for text in it.texts[leg]), traffic
        assert (it.is_refused, it.is_refused and it.why) == (whole.is_refused, whole.is_refused and whole.why)
        if not it.is_refused:
            assert whole.released(Leg.REQUEST) in it.released(leg)
            assert NAME.encode() not in it.released(leg)
        it = Witness(traffic)
        assert it.released(leg) == (traffic.request if leg is Leg.REQUEST else traffic.answer)
    for leg, traffic in streamed(line):
        assert any(said in text for text in Witness(traffic).texts[leg])


@pytest.mark.parametrize("shape", UNPARSED.values(), ids=UNPARSED)
def test_foreign_line_of_an_error_is_read_like_a_body(shape: str) -> None:
    line = shape.replace("%s", NAME)
    leg, traffic = told(EVENTS, b'data: {"a":"b c"}\n\nbar ' + line.encode() + b"\n\n", 500, CHAT)
    it = Witness(traffic, redact=hide)
    assert any("Zoë Roe" in text for text in it.texts[leg])
    assert it.released(leg) == (traffic.answer or b"").replace(NAME.encode(), b"[X]")


def test_redaction_of_keys_in_a_line_is_refused() -> None:
    it = World(policy()).request(b'{"a":"x"}\n{"q":"\\u0041","q":1}', ("content-type", LINES), path="/other")
    assert [message["content"] for message in it.asked[0].inputs[0].messages] == ["x", '{"q":"A","q":1}']
    it.judge(Anonymize(("x", '{"[X]":"A","q":1}')))
    assert it.code == "redaction_failed"


def test_piece_of_a_text_in_escapes_is_read_with_the_next_piece() -> None:
    leg, traffic = told(EVENTS, b'data: z {"q":"\\u00\n\ndata: 41nn Roe"}\n\n', 500)
    it = Witness(traffic, redact=lambda text: text.replace("Ann", "[X]"))
    assert it.texts[leg] == ['z {"q":"Ann Roe"}']
    assert it.released(leg) == b'data: z {"q":"[X] Roe"}\n\ndata: \n\n'


@pytest.mark.parametrize("words", [b'"Hi\\\\ "', b'"Hi\\\\ "\ndata: "and "'])
def test_text_of_strings_and_plain_texts_cannot_be_redacted(words: bytes) -> None:
    """What is an escape in one of them is none in the other, so the redacted text fits into none."""
    leg, traffic = told(EVENTS, b"data: " + words.replace(b"\n", b"\n\n") + b'\n\ndata: "\\u0041nn",\n\n', 500)
    it = Witness(traffic)
    ((said,),) = [it.texts[leg]]
    assert said.startswith("Hi\\ ")
    assert said.endswith('"Ann",')
    assert it.released(leg) == traffic.answer
    assert Witness(traffic, redact=lambda text: text.replace("Ann", "[X]")).why == "redaction_failed"
