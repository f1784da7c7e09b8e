"""Native APIs of TGI, llama.cpp and SGLang."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.dialects.endpoints import ALL
from extproc.core.dialects.leaf import Kind
from extproc.core.dialects.paths import route
from extproc.core.errors import MalformedBody
from extproc.core.refusal import blocked
from tests.fakes.reading import (
    asked,
    document,
    heard,
    masked,
    places,
    redacted_answer,
    redacted_event,
    redacted_request,
    said,
)
from tests.fakes.world import World

TGI, LLAMA, SGLANG, VLLM = (
    ALL[name]
    for name in (
        "text-generation",
        "text-generation of llama.cpp",
        "text-generation of SGLang",
        "text-generation of vLLM",
    )
)
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAX+XDSwAAAABJRU5ErkJggg=="


@pytest.mark.parametrize(
    ("dialect", "body", "texts"),
    [
        (TGI, {"inputs": "hi a", "parameters": {"stop": ["hi b"], "max_new_tokens": 9}}, ["hi a", "hi b"]),
        (LLAMA, {"prompt": "hi a", "stop": ["hi b"], "samplers": ["top_k"], "n_predict": 9}, ["hi a", "hi b"]),
        (LLAMA, {"prompt": {"prompt_string": "hi", "multimodal_data": [PNG]}}, ["hi"]),
        (LLAMA, {"prompt": ["hi a", {"prompt_string": "hi b"}]}, ["hi a", "hi b"]),
        (
            LLAMA,
            {"input_prefix": "hi a", "input_suffix": "hi b", "input_extra": [{"filename": "a.c", "text": "hi c"}]},
            ["hi a", "hi b", "a.c", "hi c"],
        ),
        (SGLANG, {"text": "hi", "sampling_params": {"temperature": 0}}, ["hi"]),
        (SGLANG, {"text": ["hi a", "hi b"], "image_data": [PNG]}, ["hi a", "hi b"]),
        (SGLANG, {"prompt": "hi"}, ["hi"]),
    ],
)
def test_texts_of_requests(dialect: Any, body: Any, texts: list[str]) -> None:
    assert asked(dialect, body) == [("user", text) for text in texts]
    assert redacted_request(dialect, body) == masked(body)


def test_grammars_are_definitions() -> None:
    body = {"inputs": "hi", "parameters": {"grammar": {"type": "json", "value": {"a": {"description": "hi a"}}}}}
    assert asked(TGI, body) == [("user", "hi")]
    assert asked(TGI, body, tools=True) == [("system", "hi a"), ("user", "hi")]


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (TGI, {"inputs": [1, 2]}),
        (LLAMA, {"prompt": [1, 2]}),
        (LLAMA, {"prompt": [[1, 2]]}),
        (LLAMA, {"prompt": {"prompt_tokens": [1]}}),
        (SGLANG, {"input_ids": [1, 2]}),
        (SGLANG, {"text": "a", "input_embeds": [[0.5]]}),
    ],
)
def test_request_that_cannot_be_judged_is_unreadable(dialect: Any, body: Any) -> None:
    with pytest.raises(MalformedBody):
        asked(dialect, body)


@pytest.mark.parametrize(
    ("dialect", "body", "texts"),
    [
        (
            TGI,
            {"generated_text": "hi a", "details": {"best_of_sequences": [{"generated_text": "hi b"}], "seed": 1}},
            ["hi a", "hi b"],
        ),
        (TGI, [{"generated_text": "hi a"}, {"generated_text": "hi b"}], ["hi a", "hi b"]),
        (LLAMA, {"content": "hi a", "prompt": "hi b", "stop_type": "eos", "stop": True}, ["hi a", "hi b"]),
        (SGLANG, {"text": "hi", "meta_info": {"id": "a", "finish_reason": {"type": "stop", "matched": 2}}}, ["hi"]),
        (SGLANG, [{"text": "hi a"}, {"text": "hi b"}], ["hi a", "hi b"]),
        (SGLANG, {"text": ["hi a", "hi b"]}, ["hi a", "hi b"]),
    ],
)
def test_texts_of_answers(dialect: Any, body: Any, texts: list[str]) -> None:
    assert said(dialect, body) == texts
    assert redacted_answer(dialect, body) == masked(body)


def test_tokens_become_null() -> None:
    for dialect, body, nulled in (
        (TGI, {"generated_text": "hi", "details": {"tokens": [{"id": 1, "text": "hi"}]}}, ("details", "tokens")),
        (LLAMA, {"content": "hi", "tokens": [7, 8]}, ("tokens",)),
        (SGLANG, {"text": "hi", "output_ids": [7, 8]}, ("output_ids",)),
    ):
        found = redacted_answer(dialect, body)
        for key in nulled:
            found = found[key]
        assert found is None


@pytest.mark.parametrize(
    ("dialect", "place"),
    [
        (TGI, ("details", "best_of_sequences", 0, "tokens")),
        (TGI, ("details", "best_of_sequences", 0, "prefill")),
        (TGI, ("details", "best_of_sequences", 0, "top_tokens")),
        (SGLANG, ("meta_info", "output_token_ids_logprobs")),
        (SGLANG, ("meta_info", "input_token_ids_logprobs")),
    ],
)
def test_further_tokens_become_null(dialect: Any, place: tuple[Any, ...]) -> None:
    pieces: Any = [[[-0.5, 7, "a"], [-0.5, 8, "b"]]]
    body = pieces
    for step in reversed(place):
        body = [body] if step == 0 else {step: body}
    body = {"generated_text" if dialect is TGI else "text": "hi"} | body
    found: Any = redacted_answer(dialect, body)
    for step in place:
        found = found[step]
    assert found is None
    (tokens,) = (leaf for leaf in dialect.deltas(document(body)) if leaf.kind is Kind.TOKENS)
    assert (tokens.path, tokens.unit) == (place, None)


def test_token_numbers_of_vllm_are_unreadable() -> None:
    answer = {"request_id": "a", "choices": [{"index": 0, "logprobs": None, "token_ids": [1, 2]}]}
    for read, body in ((asked, {"model": "m", "token_ids": [1, 2]}), (said, answer), (heard, answer)):
        with pytest.raises(MalformedBody):
            read(VLLM, body)


def test_vllm_has_a_path_of_its_own() -> None:
    assert route("POST", "/inference/v1/generate", {}).dialect is VLLM


def token(text: str, whole: str | None = None) -> dict[str, Any]:
    return {"index": 1, "token": {"id": 7, "text": text, "logprob": -0.5, "special": False}, "generated_text": whole}


@pytest.mark.parametrize(
    ("dialect", "event", "texts"),
    [
        (TGI, token("hi"), ["hi"]),
        (TGI, token("hi", "oh hi"), ["hi", "=oh hi"]),
        (TGI, {"error": "hi there", "error_type": "generation"}, ["hi there"]),
        (LLAMA, {"content": "hi", "stop": False}, ["hi"]),
        (SGLANG, {"text": "hi", "meta_info": {"completion_tokens": 3}}, ["=hi"]),
        (SGLANG, {"text": "hi", "output_ids": [], "meta_info": {"completion_tokens": 3}}, ["=hi"]),
    ],
)
def test_texts_of_events(dialect: Any, event: Any, texts: list[str]) -> None:
    assert heard(dialect, event) == texts
    assert redacted_event(dialect, event) == masked(event)


def test_generated_text_repeats_the_tokens() -> None:
    assert places(TGI, token("a"), token("b", "ab")) == [("text",)] * 3


@pytest.mark.parametrize(
    ("dialect", "event", "is_final"),
    [
        (TGI, token("a", "a"), True),
        (TGI, token("a"), False),
        (LLAMA, {"stop": True}, True),
        (LLAMA, {"stop": False}, False),
        (SGLANG, {"text": "a"}, False),
    ],
)
def test_end_of_a_stream(dialect: Any, event: Any, is_final: bool) -> None:
    assert dialect.is_final("", document(event)) is is_final
    assert dialect.is_final("[DONE]", None)


def test_path_or_request_asks_for_a_stream() -> None:
    assert TGI.streams(document({"inputs": "a"}), "/generate_stream")
    assert TGI.streams(document({"inputs": "a", "stream": True}), "/generate")
    assert not TGI.streams(document({"inputs": "a"}), "/generate")


def test_refusals() -> None:
    assert json.loads(TGI.refuse(blocked("No."))) == {"error": "No.", "error_type": "validation"}
    assert TGI.refuse_stream(blocked("No."), 0) == b"data: " + TGI.refuse(blocked("No.")) + b"\n\n"
    assert json.loads(LLAMA.refuse(blocked("No.")))["error"]["message"] == "No."
    assert LLAMA.refuse_stream(blocked("No."), 0) == b"data: " + LLAMA.refuse(blocked("No.")) + b"\n\n"
    assert SGLANG.refuse_stream(blocked("No."), 0).endswith(b"\n\ndata: [DONE]\n\n")


# -- streams of SGLang ---------------------------------------------------------------------------------------------


def sglang(*events: dict[str, Any]) -> World:
    """Return an exchange whose answer streams these events."""
    it = World().request(json.dumps({"text": "Hi", "stream": True}).encode(), path="/generate").judge().head()
    for event in events:
        it.body(f"data: {json.dumps(event)}\n\n".encode())
    return it


def submitted(it: World) -> list[tuple[int, str]]:
    return [(one["index"], one["delta"]["content"]) for chunk in it.chunks for one in chunk["choices"]]


def test_whole_texts_so_far_are_judged_each_by_itself() -> None:
    events = [
        {"text": text, "meta_info": {"completion_tokens": n}} for n, text in enumerate(("It", "It is", "It is me"), 1)
    ]
    it = sglang(*events)
    found = submitted(it)
    assert [text for _, text in found] == ["It", "It is", "It is me"]
    assert len({index for index, _ in found}) == 3
    it.verify("[X]", found[0][0]).verify("[X] is", found[1][0]).verify("[X] is me", found[2][0])
    it.body(b"data: [DONE]\n\n", end=True).done()
    assert it.response.body.count(b"[X]") == 3
    assert b"It" not in it.response.body


def test_pieces_are_judged_as_one_text() -> None:
    events = [
        {"text": text, "output_ids": [7], "meta_info": {"completion_tokens": n}}
        for n, text in enumerate(("It", " is", " me"), 1)
    ]
    found = submitted(sglang(*events))
    assert [text for _, text in found] == ["It", " is", " me"]
    assert len({index for index, _ in found}) == 1


# -- several prompts -----------------------------------------------------------------------------------------------


def read(path: str, request: dict[str, Any], *events: dict[str, Any]) -> dict[int, str]:
    """Return what Aim reads of the stream that answers a request: a text for each choice index."""
    body = json.dumps({**request, "stream": True}).encode()
    it = World().request(body, ("content-type", "application/json"), path=path).judge().head()
    found: dict[int, str] = {}
    for event in events:
        it.body(f"data: {json.dumps(event)}\n\n".encode())
        for index, text in submitted(it):
            found[index] = found.get(index, "") + text
        it.chunks.clear()
    assert it.record.outcome != "refused"
    return found


TWO = ["Say it", "Say that"]


def pieces(key: str, **more: Any) -> list[dict[str, Any]]:
    return [{"index": n, key: text, **more} for n, text in ((0, "4111 "), (1, "one "), (0, "1111"), (1, "two"))]


@pytest.mark.parametrize(
    ("path", "request_", "events"),
    [
        ("/completion", {"prompt": TWO}, pieces("content", stop=False)),
        ("/generate", {"text": TWO}, pieces("text", output_ids=[1], meta_info={"completion_tokens": 5})),
        ("/x/y", {"prompts": TWO}, pieces("text")),
        ("/x/y", {"q": "Say it", "n": 2}, pieces("text")),
        ("/x/y", {"prompts": TWO}, [{**each, "prompt_index": each.pop("index")} for each in pieces("text")]),
    ],
)
def test_texts_of_several_prompts_are_apart(path: str, request_: dict[str, Any], events: list[dict[str, Any]]) -> None:
    assert sorted(read(path, request_, *events).values()) == ["4111 1111", "one two"]


def test_number_of_an_event_is_none_of_a_text_if_there_is_one_prompt() -> None:
    events = [{"index": n, "text": text} for n, text in enumerate(("4111 ", "1111"))]
    assert list(read("/x/y", {"prompt": "Say it"}, *events).values()) == ["4111 1111"]


def test_end_of_one_text_is_not_the_end_of_several() -> None:
    request = document({"prompt": TWO})
    answer = LLAMA.after(request, tools=False)
    assert not answer.is_final("", document({"index": 0, "stop": True}))
    assert answer.is_final("[DONE]", None)
    assert LLAMA.after(document({"prompt": "Say it"}), tools=False) is LLAMA
    events = [{"index": 0, "content": "one", "stop": False}, {"index": 0, "content": "", "stop": True}]
    found = read("/completion", {"prompt": TWO}, *events, {"index": 1, "content": "two", "stop": False})
    assert sorted(found.values()) == ["one", "two"]


def test_stream_that_repeats_its_text_in_each_event_is_verified_to_its_end() -> None:
    it = sglang()
    for number in range(4200):
        event = {"text": f"word {number}", "meta_info": {"completion_tokens": number + 2}}
        it.body(f"data: {json.dumps(event)}\n\n".encode()).verify_all()
        it.response.body = b""
    it.body(b"data: [DONE]\n\n").done()
    assert it.response.body == b"data: [DONE]\n\n"
