"""A plain chat exchange costs two detections, and a plain chat stream submits each of its events."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.vocabulary import Hook
from tests.fakes.rig import DONE
from tests.fakes.world import World

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(lambda text: text.strip())
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXTS}),
    min_size=1,
    max_size=8,
)
SETTINGS = st.fixed_dictionaries(
    {"model": st.sampled_from(["gpt-4o", "meta-llama/Llama-3.1-8B-Instruct"])},
    optional={
        "temperature": st.floats(0, 2),
        "max_tokens": st.integers(1, 10_000),
        "top_p": st.floats(0, 1),
        "n": st.just(1),
    },
)


@settings(max_examples=60)
@given(messages=MESSAGES, options=SETTINGS, says_stream=st.booleans(), text=TEXTS)
def test_plain_exchange_makes_two_detections(
    messages: list[dict[str, str]], options: dict[str, Any], says_stream: bool, text: str
) -> None:
    request = {**options, "messages": messages} | ({"stream": False} if says_stream else {})
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": options["model"]}
    answer = json.dumps({**head, "choices": [choice], "usage": usage, "system_fingerprint": "fp_1"}).encode()

    it = World().request(json.dumps(request).encode()).judge().head("application/json").body(answer, end=True).judge()

    prompt, output = it.asked
    assert prompt.hook is Hook.PRE_CALL
    assert [list(each.messages) for each in prompt.inputs] == [messages]
    assert output.hook is Hook.OUTPUT
    assert [each.output for each in output.inputs] == [text]
    assert it.response.body == answer
    assert it.is_complete


@settings(max_examples=60)
@given(messages=MESSAGES, options=SETTINGS, texts=st.lists(TEXTS, max_size=6))
def test_plain_stream_submits_each_event_and_makes_one_detection(
    messages: list[dict[str, str]], options: dict[str, Any], texts: list[str]
) -> None:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": options["model"]}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": text} for text in texts), {}]
    events: list[dict[str, Any]] = [
        {
            **head,
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None if delta else "stop"}],
        }
        for delta in deltas
    ]
    request = {**options, "messages": messages, "stream": True}

    it = World().request(json.dumps(request).encode()).judge().head()
    assert [each.hook for each in it.asked] == [Hook.PRE_CALL]
    stream = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + DONE
    it.body(stream)

    assert len(it.chunks) == len(events)
    for chunk, event in zip(it.chunks, events, strict=True):
        given_keys = list(event)
        assert {key: chunk[key] for key in given_keys} == event
        assert list(chunk)[: len(event)] == given_keys, "the sidecar's own key comes last"
        assert len(chunk) <= len(event) + 1
    it.verify_all().body(b"", end=True)
    if it.is_submitted_done:
        it.done()
    assert it.response.body == stream
    assert it.is_complete
    assert len(it.asked) == len(it.opened) == 1
