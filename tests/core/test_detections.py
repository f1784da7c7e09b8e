"""What one exchange sends to Aim: at most 64 inputs and, if it is large, at most eight times its size."""

from __future__ import annotations

import base64
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.aim import protocol
from extproc.core.detections import MOST_INPUTS, SMALL, Allowance, join
from extproc.core.dialects.leaf import Leaf
from extproc.core.errors import BodyTooLarge
from extproc.core.policy import Inspect
from extproc.core.redaction import edits
from extproc.core.vocabulary import Input, size_of
from tests.fakes.world import World, policy

MESSAGES = ({"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"})
FORMS: tuple[protocol.Form, ...] = ("detect", "firewall", "cato")


def leaves(*texts: str) -> list[Leaf]:
    return [Leaf(("choices", number), text) for number, text in enumerate(texts)]


def allowance(*, inputs: int = 1, request_size: int = 50, sent: int = 50) -> Allowance:
    made = Allowance()
    made.inputs, made.request_size, made.sent = inputs, request_size, sent
    return made


def packed(texts: list[str], messages: Any = MESSAGES, **given: int) -> list[Input]:
    return allowance(**given).inputs_of(leaves(*texts), messages, len(json.dumps(texts)))


def size(inputs: list[Input]) -> int:
    """Return the bytes of the calls, in the form that takes most."""
    return max(sum(len(protocol.call_body(form, each)) for each in inputs) for form in FORMS)


def test_each_text_is_an_input_in_the_context_of_the_request() -> None:
    assert packed(["a", "b"]) == [Input(MESSAGES, "a"), Input(MESSAGES, "b")]


def test_no_text_is_no_input() -> None:
    assert packed([]) == []
    assert allowance(request_size=100_000).inputs_of([], MESSAGES, 5) == []


def test_many_texts_are_joined_in_order() -> None:
    texts = [f"t{number}" for number in range(200)]
    found = packed(texts)
    assert len(found) == MOST_INPUTS - 1
    assert "\n".join(str(each.output) for each in found).split("\n") == texts
    first = join(leaves(*texts), len(found))[0]
    assert first.text == found[0].output
    assert edits([(first, first.text.replace("t1", "[X]"))]) == {("choices", 1): "[X]"}


@pytest.mark.parametrize("inputs", [0, 2, 63, 64, 100])
def test_an_exchange_has_a_bounded_number_of_inputs(inputs: int) -> None:
    assert len(packed(["a"] * 100, inputs=inputs)) == max(1, MOST_INPUTS - inputs)


def test_later_inputs_have_the_last_message_alone_if_the_request_is_large() -> None:
    messages = ({"role": "user", "content": "x" * 300_000}, {"role": "user", "content": "hello"})
    found = packed(["a"] * 60, messages, request_size=300_100, sent=300_100)
    assert len(found) == 60
    kinds = [each.messages is messages for each in found]
    assert kinds == sorted(kinds, reverse=True)
    assert 1 <= sum(kinds) < 60
    assert found[-1].messages == messages[-1:]
    assert len({id(each.messages) for each in found}) == 2  # what is one value is encoded once


def test_no_input_has_the_full_context_if_there_is_no_room_for_it() -> None:
    messages = ({"role": "user", "content": "x" * 300_000}, {"role": "user", "content": "hello"})
    found = packed(["a"] * 3, messages, request_size=300_100, sent=2_200_000)
    assert [each.messages for each in found] == [messages[-1:]] * 3


def test_texts_are_joined_if_the_last_message_is_large() -> None:
    messages = ({"role": "user", "content": "x" * 300_000},)
    found = packed(["a"] * 128, messages, request_size=300_100, sent=300_100)
    assert 1 < len(found) < 8
    assert all(each.messages is messages for each in found)
    assert "\n".join(str(each.output) for each in found) == "\n".join(["a"] * 128)


def test_a_single_input_goes_without_context_if_there_is_no_room_even_for_the_last_message() -> None:
    messages = ({"role": "user", "content": "x" * 300_000},)
    found = packed(["a"] * 128, messages, request_size=300_100, sent=2_200_000)
    assert found == [Input((), "\n".join(["a"] * 128))]


def test_texts_that_would_be_sent_with_many_times_the_size_of_the_exchange_are_too_large() -> None:
    with pytest.raises(BodyTooLarge):
        allowance(request_size=1000, sent=400_000).inputs_of(leaves("\x01" * 65_000), MESSAGES, 65_000)


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_usual_request_is_admitted(calls: int) -> None:
    messages = tuple({"role": "user", "content": "x" * 1000} for _ in range(200))
    made = Allowance()
    made.admit(messages, size_of(messages), 210_000, calls)
    assert size([Input(messages)] * calls) <= made.sent <= 7 * 210_000
    assert made.request_size == 210_000


def test_a_request_that_would_be_sent_with_many_times_its_size_is_too_large() -> None:
    messages = ({"role": "user", "content": "\x01" * 100_000},)
    Allowance().admit(messages, size_of(messages), 100_000, 1)
    with pytest.raises(BodyTooLarge):
        Allowance().admit(messages, size_of(messages), 100_000, 2)


MESSAGE = st.one_of(
    st.fixed_dictionaries({"role": st.just("user"), "content": st.text(max_size=20)}),
    st.builds(
        lambda text, call: {"role": "tool", "content": text, "tool_call_id": call, "\x02" * 9: [1.5, None]},
        st.text(max_size=20),
        st.text(max_size=80),
    ),
    st.builds(lambda parts: {"role": "user", "content": parts, "name": "n"}, st.lists(st.text(max_size=5), max_size=5)),
)


@given(st.lists(MESSAGE, max_size=20))
def test_the_cheap_bound_of_messages_is_one(messages: list[dict[str, Any]]) -> None:
    made = Allowance()
    made.admit(tuple(messages), size_of(messages), 100, 1)
    if messages:
        assert size([Input(tuple(messages))]) <= made.sent


def test_messages_of_many_times_the_request_are_not_all_encoded() -> None:
    messages = ({"role": "user", "content": "a" * 100_000},) * 1000
    tracemalloc.start()
    with pytest.raises(BodyTooLarge):
        Allowance().admit(messages, 100_000_000, 100_000, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


# -- whole exchanges -----------------------------------------------------------------------------------------------

LETTERS = st.sampled_from(["x", "é", "汉", "\x01", '"', "\\", "😀", "\ud800"])
TEXTS = st.builds(lambda letter, count: letter * count, LETTERS, st.sampled_from([1, 3, 300, 5000, 40_000]))
SHORT = st.builds(lambda letter, count: letter * count, LETTERS, st.sampled_from([1, 3, 300]))
ROLES = st.sampled_from(["system", "user", "assistant", "tool"])
PARTS = st.builds(
    lambda text, count: [{"type": "text", "text": text}] * count, SHORT, st.sampled_from([1, 2, 100, 300])
)
CALLS = st.builds(
    lambda text, count: [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": text}}] * count,
    st.builds(lambda text: json.dumps({"a": text}), SHORT),
    st.sampled_from([1, 3, 70]),
)
CHATS = st.lists(
    st.fixed_dictionaries(
        {"role": ROLES, "content": st.one_of(TEXTS, PARTS)},
        optional={"tool_call_id": st.sampled_from(["call_1", "c" * 250]), "tool_calls": CALLS},
    ),
    min_size=1,
    max_size=5,
)
TOOLS = st.builds(
    lambda text, count: (
        [{"type": "function", "function": {"name": "f", "description": text, "parameters": {}}}] * count
    ),
    TEXTS,
    st.sampled_from([1, 20]),
)
SMALL_TEXTS = st.builds(lambda text, count, groups: [[text] * count] * groups, st.sampled_from(["a", "\x01", "汉"]),
                        st.sampled_from([1, 31, 255]), st.sampled_from([1, 30, 60]))  # fmt: skip
MEDIA = st.builds(
    lambda text: [{"role": "user", "content": [{"type": "file", "file": {
        "file_data": "data:text/plain;base64," + base64.b64encode(text.encode(errors="replace")).decode()}}]}],
    TEXTS,
)  # fmt: skip
REQUESTS = st.fixed_dictionaries(
    {"model": st.just("m"), "messages": st.one_of(CHATS, MEDIA)},
    optional={"tools": TOOLS, "extra": SMALL_TEXTS, "documents": st.lists(TEXTS, max_size=3)},
)
CHOICES = st.builds(
    lambda text, calls, count: [
        {"index": number, "message": {"role": "assistant", "content": text} | calls}
        for number in range(min(count, 1 + 500_000 // len(text)))
    ],
    TEXTS,
    st.one_of(st.just({}), st.builds(lambda calls: {"tool_calls": calls[:3]}, CALLS)),
    st.sampled_from([1, 2, 64, 128]),
)
ANSWERS = st.fixed_dictionaries({"choices": CHOICES}, optional={"extra": SMALL_TEXTS, "note": TEXTS})
HOOKS = st.sets(st.sampled_from(["pre_call", "moderation", "output"]), min_size=1)


def sent_by(it: World) -> int:
    return size([each for detection in it.asked for each in detection.inputs])


@settings(max_examples=150, deadline=None)
@given(REQUESTS, ANSWERS, HOOKS, st.booleans(), st.sampled_from(["/v1/chat/completions", "/unknown"]))
def test_a_large_exchange_sends_at_most_eight_times_its_size(
    request: dict[str, Any], answer: dict[str, Any], hooks: set[str], ascii_only: bool, path: str
) -> None:
    def spelt(document: dict[str, Any]) -> bytes:
        return json.dumps(document, ensure_ascii=ascii_only, separators=(",", ":")).encode(errors="replace")

    sent, received = spelt(request), spelt(answer)
    it = World(policy(hooks=hooks, inspect=[Inspect.TOOLS]))
    it.request(sent, ("content-type", "application/json"), path=path)
    while it.detections:
        it.judge()
    if it.reply is None:
        it.head("application/json").body(received, end=True)
        while it.detections:
            it.judge()
    assert sum(len(each.inputs) for each in it.asked) <= MOST_INPUTS
    if it.reply is not None:
        assert it.code.endswith("too_large"), "nothing else may be refused"
    if len(sent) + len(received) > SMALL:
        assert sent_by(it) <= 8 * (len(sent) + len(received))


def test_a_plain_text_of_escapes_is_refused_where_two_hooks_would_send_it() -> None:
    body = b"{" + b"\x01" * 100_000
    for hooks, is_refused in ((["pre_call"], False), (["pre_call", "moderation"], True)):
        it = World(policy(hooks=hooks))
        it.request(body, ("content-type", "application/json"), path="/unknown")
        assert (it.reply is not None) is is_refused
        assert sent_by(it) <= 8 * len(body)
        assert bool(it.asked) is not is_refused
