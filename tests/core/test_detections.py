"""An answer's texts as a bounded number of inputs for Aim."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.content import json_codec
from extproc.core.detections import MOST_INPUTS, Detection, pack
from extproc.core.dialects.leaf import Leaf
from extproc.core.redaction import edits

MESSAGES = ({"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"})


def leaves(*texts: str) -> list[Leaf]:
    return [Leaf(("choices", number), text) for number, text in enumerate(texts)]


def packed(texts: list[str], messages: Any = MESSAGES, *, inputs: int = 1, sent: int = 50) -> list[Detection]:
    received = len(json.dumps(texts))
    return pack(leaves(*texts), messages, inputs=inputs, sent=sent, received=received)


def size(detections: list[Detection]) -> int:
    return sum(len(json_codec.encode([*each.input.messages, each.input.output])) for each in detections)


def test_each_text_is_a_detection_in_the_context_of_the_request() -> None:
    found = packed(["a", "b"])
    assert [(each.input.messages, each.input.output) for each in found] == [(MESSAGES, "a"), (MESSAGES, "b")]
    assert [each.leaf.path for each in found] == [("choices", 0), ("choices", 1)]


def test_no_text_is_no_detection() -> None:
    assert packed([]) == []
    assert pack([], MESSAGES, inputs=1, sent=100_000, received=5) == []


def test_many_texts_are_joined_in_order() -> None:
    texts = [f"t{number}" for number in range(200)]
    found = packed(texts)
    assert len(found) == MOST_INPUTS - 1
    assert "\n".join(each.leaf.text for each in found).split("\n") == texts
    assert edits([(found[0].leaf, found[0].leaf.text.replace("t1", "[X]"))]) == {("choices", 1): "[X]"}


@pytest.mark.parametrize("inputs", [0, 2, 63, 64, 100])
def test_an_exchange_has_a_bounded_number_of_inputs(inputs: int) -> None:
    assert len(packed(["a"] * 100, inputs=inputs)) == max(1, MOST_INPUTS - inputs)


def test_later_detections_have_the_last_message_alone_if_the_request_is_large() -> None:
    messages = ({"role": "user", "content": "x" * 300_000}, {"role": "user", "content": "hello"})
    found = packed(["a"] * 60, messages, sent=300_100)
    assert len(found) == 60
    kinds = [each.input.messages is messages for each in found]
    assert kinds == sorted(kinds, reverse=True)
    assert 1 <= sum(kinds) < 60
    assert found[-1].input.messages == messages[-1:]
    assert len({id(each.input.messages) for each in found}) == 2  # what is one value is encoded once


def test_texts_are_joined_if_the_last_message_is_large() -> None:
    messages = ({"role": "user", "content": "x" * 300_000},)
    found = packed(["a"] * 128, messages, sent=300_100)
    assert 1 < len(found) < 8
    assert "\n".join(each.leaf.text for each in found) == "\n".join(["a"] * 128)


@given(
    st.lists(st.integers(0, 200_000), min_size=1, max_size=4),
    st.lists(st.integers(1, 60_000), min_size=1, max_size=100),
    st.integers(1, 2),
)
def test_what_is_sent_is_at_most_eight_times_the_exchange(prompts: list[int], said: list[int], inputs: int) -> None:
    messages = tuple({"role": "user", "content": "x" * length} for length in prompts)
    sent = len(json_codec.encode(messages))
    texts = ["y" * length for length in said]
    received = len(json_codec.encode(texts))
    found = pack(leaves(*texts), messages, inputs=inputs, sent=sent, received=received)
    assert "\n".join(each.leaf.text for each in found) == "\n".join(texts)
    assert len(found) + inputs <= MOST_INPUTS
    if sent + received > 65_536:
        assert inputs * sent + size(found) <= 8 * (sent + received)
