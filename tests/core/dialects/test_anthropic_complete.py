"""Anthropic's text completions."""

from __future__ import annotations

from typing import Any

import pytest

from extproc.core.dialects.endpoints import ALL
from extproc.core.refusal import blocked
from tests.fakes.reading import asked, document, heard, masked, places, redacted_answer, redacted_request, said

API, MESSAGES = ALL["anthropic-complete"], ALL["anthropic-messages"]


def test_texts() -> None:
    body = {"model": "m", "prompt": "hi a", "stop_sequences": ["hi b"], "metadata": {"user_id": "u"}}
    assert asked(API, body) == [("user", "hi a"), ("user", "hi b")]
    assert redacted_request(API, body) == masked(body)
    answer = {"type": "completion", "completion": "hi", "stop_reason": None, "stop": "\n\nHuman:", "model": "m"}
    assert said(API, answer | {"stop": None}) == heard(API, answer | {"stop": None}) == ["hi"]
    assert said(API, answer) == ["hi", "\n\nHuman:"]
    assert redacted_answer(API, answer) == masked(answer)
    assert places(API, answer | {"stop": None}, answer | {"stop": None}) == [("completion",)] * 2


@pytest.mark.parametrize(
    ("event", "is_final"),
    [
        ({"completion": "", "stop_reason": "stop_sequence"}, True),
        ({"completion": "a", "stop_reason": None}, False),
        ({"type": "ping"}, False),
    ],
)
def test_end_of_a_stream(event: Any, is_final: bool) -> None:
    assert API.is_final("", document(event)) is is_final
    assert API.is_final("[DONE]", None)


def test_refusals_are_those_of_messages() -> None:
    refusal = blocked("No.")
    assert API.refuse(refusal) == MESSAGES.refuse(refusal)
    assert API.refuse_stream(refusal, 0) == MESSAGES.refuse_stream(refusal, 0)
