"""Results of batches and contents of files: lines of JSON, each an answer of its own, judged as they stream."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from extproc.core.dialects.batch_results import AnthropicResults, FileContents
from extproc.core.policy import Limits
from extproc.core.verdict import Allow, Anonymize, Block
from tests.fakes.reading import heard, masked, redacted_event
from tests.fakes.world import World, policy

OPENAI, ANTHROPIC = FileContents(), AnthropicResults()
FILES, RESULTS = "/v1/files/file-1/content", "/v1/messages/batches/msgbatch_1/results"


def of_openai(name: str, text: str, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, **more}
    body = {"id": "c1", "object": "chat.completion", "choices": [{"index": 0, "message": message}]}
    return {"id": f"b-{name}", "custom_id": name, "response": {"status_code": 200, "body": body}, "error": None}


def of_anthropic(name: str, text: str) -> dict[str, Any]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "text", "text": text}]}
    return {"custom_id": name, "result": {"type": "succeeded", "message": message}}


def lines(*values: Any, end: bytes = b"\n") -> bytes:
    return b"".join(json.dumps(value).encode() + end for value in values)


def got(path: str = FILES, kind: str = "application/octet-stream", limits: Limits | None = None, **more: Any) -> World:
    it = World(policy(**({"inspect": ["files"]} | more)), limits or Limits())
    return it.request(None, method="GET", path=path).head(kind)


def texts(it: World) -> list[str]:
    return [choice["delta"]["content"] for chunk in it.chunks for choice in chunk["choices"]]


# -- what is text --------------------------------------------------------------------------------------------------


def test_texts_of_lines() -> None:
    assert heard(OPENAI, of_openai("a", "hi")) == ["hi"]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": "hi \\u0041"}'}}
    assert heard(OPENAI, of_openai("a", "", tool_calls=[call])) == ['{"x": "hi A"}']
    response = {
        "object": "response",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}],
    }
    assert heard(OPENAI, {"custom_id": "a", "response": {"status_code": 200, "body": response}}) == ["hi"]
    data = {"object": "list", "data": [{"object": "embedding", "embedding": [0.5], "index": 0}]}
    assert heard(OPENAI, {"custom_id": "a", "response": {"body": data | {"usage": {"total_tokens": 1}}}}) == []
    assert heard(OPENAI, {"custom_id": "a", "error": {"code": "x", "message": "hi"}}) == ["hi"]
    assert heard(OPENAI, {"custom_id": "a", "method": "POST", "body": {"messages": [{"content": "hi"}]}}) == ["hi"]
    assert heard(ANTHROPIC, of_anthropic("a", "hi")) == ["hi"]
    failed = {"custom_id": "a", "result": {"type": "errored", "error": {"type": "error", "error": {"message": "hi"}}}}
    assert heard(ANTHROPIC, failed) == ["hi"]


@pytest.mark.parametrize(
    ("dialect", "line"), [(OPENAI, of_openai("a", "hi", note="hi", other="hi")), (ANTHROPIC, of_anthropic("a", "hi"))]
)
def test_texts_of_a_line_are_redacted(dialect: Any, line: Any) -> None:
    assert redacted_event(dialect, line) == masked(line)


def test_arguments_of_a_line_are_redacted_as_a_whole() -> None:
    calls = [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({"x": each})}}
        for each in ("hi", "a\nhi")
    ]
    line = of_openai("a", "", tool_calls=calls)
    assert redacted_event(OPENAI, line) == json.loads(json.dumps(line).replace("hi", "[X]"))
    use = {"type": "tool_use", "id": "t", "name": "f", "input": {"x": "hi"}}
    line = {"custom_id": "a", "result": {"type": "succeeded", "message": {"content": [use]}}}
    assert redacted_event(ANTHROPIC, line) == masked(line)


def test_logprobs_of_a_redacted_line_become_null() -> None:
    line = of_openai("a", "hi")
    line["response"]["body"]["choices"][0]["logprobs"] = {"content": [{"token": "hi", "logprob": -1}]}
    redacted = redacted_event(OPENAI, line)
    assert redacted["response"]["body"]["choices"][0]["logprobs"] is None


# -- streams -------------------------------------------------------------------------------------------------------


def single(body: bytes) -> Iterator[bytes]:
    yield from (body[at : at + 1] for at in range(len(body)))


def pieces(body: bytes) -> Iterator[bytes]:
    cuts = sorted(random.Random(7).sample(range(1, len(body)), 20))
    yield from (body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True))


each_cut = pytest.mark.parametrize("cut", [lambda body: [body], single, pieces], ids=["whole", "bytes", "pieces"])
each_api = pytest.mark.parametrize(
    ("path", "kind", "line"),
    [
        (FILES, "application/octet-stream", of_openai),
        (FILES, "application/jsonl", of_openai),
        ("/openai/files/file-1/content", "text/plain", of_openai),
        (RESULTS, "application/x-jsonl", of_anthropic),
        (RESULTS, "binary/octet-stream", of_anthropic),
    ],
)


@each_cut
@each_api
def test_lines_stream_as_they_are_verified(path: str, kind: str, line: Any, cut: Callable[[bytes], Any]) -> None:
    body = lines(*(line(f"r-{number}", f"Text {number}.") for number in range(8)), end=b"\r\n")
    it = got(path, kind)
    for piece in cut(body):
        it.body(piece)
    assert texts(it) == [f"Text {number}." for number in range(8)]
    it.verify_all()
    assert it.response.body == body
    it.body(b"", end=True).done()
    assert it.response.is_ended


@each_cut
@each_api
def test_lines_are_redacted(path: str, kind: str, line: Any, cut: Callable[[bytes], Any]) -> None:
    body = lines(line("a", "Hello"), line("b", "I am Tom"), line("c", "Bye"))
    it = got(path, kind)
    for piece in cut(body):
        it.body(piece)
    for chunk in it.chunks:
        (choice,) = chunk["choices"]
        said = choice["delta"]["content"].replace("Tom", "[N]")
        it.verify(said, index=choice["index"], mark=chunk["x_aim_extproc"])
    it.body(b"", end=True).done()
    assert it.response.body == body.replace(b"Tom", b"[N]")


@each_api
def test_blocked_line_ends_the_lines(path: str, kind: str, line: Any) -> None:
    body = lines(line("a", "Hello, you who read this"), line("b", "a secret of mine and yours"))
    it = got(path, kind).body(body)
    it.verify_chunk(it.chunks[0])
    it.block()
    first, _, last = it.response.body.partition(b"\n")
    assert first + b"\n" == lines(line("a", "Hello, you who read this"))
    assert json.loads(last)["error"]["message"] == "Not that."
    assert it.response.is_ended


def test_block_before_the_first_line_is_a_refusal() -> None:
    it = got().body(lines(of_openai("a", "a secret of mine and yours")))
    it.block()
    assert it.code == "content_policy_violation"


@pytest.mark.parametrize("path", [FILES, RESULTS])
def test_any_number_of_lines_streams(path: str) -> None:
    line = of_openai if path == FILES else of_anthropic
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": "Tom"}'}}
    it = got(path)
    for number in range(6000):
        more = {"tool_calls": [call]} if path == FILES else {}
        it.body(lines(line(f"r-{number}", f"Text {number}.", **more)))
        for chunk in it.chunks:
            (choice,) = chunk["choices"]
            said = choice["delta"]["content"].replace("Tom", "[N]")
            it.verify(said, index=choice["index"], mark=chunk["x_aim_extproc"])
        it.chunks.clear()
    it.body(b"", end=True).done()
    assert it.reply is None
    assert it.response.body.count(b"\n") == 6000
    assert b"Tom" not in it.response.body


# -- whole ---------------------------------------------------------------------------------------------------------


def test_lines_of_type_json_are_held_and_judged_line_by_line() -> None:
    body = lines(*(of_openai(name, f"I am {name}") for name in ("Tom", "Eve")))
    it = got(kind="application/json").body(body, end=True)
    assert [each.output for each in it.asked[-1].inputs] == ["I am Tom", "I am Eve"]
    it.judge(Allow(), Anonymize(("I am [N]",)))
    assert it.response.body == body.replace(b"I am Eve", b"I am [N]")


@pytest.mark.parametrize("body", [b'{\n "text": "Hello Tom"\n}\n', b'{"a": "b"}\n{"text": "Hello Tom"}'])
def test_documents_and_short_texts_are_held(body: bytes) -> None:
    it = got().body(body, end=True)
    assert "Hello Tom" in str(it.asked[-1].inputs[-1].output)
    it.judge(*(Block("No."),))
    assert it.code == "content_policy_violation"


def test_text_among_the_lines_is_judged() -> None:
    it = got().body(lines(of_openai("a", "Hello, you who read this")) + b"Tom is no JSON\n")
    assert texts(it) == ["Hello, you who read this", "Tom is no JSON"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/pdf", b"%PDF-1.7 \x00\x01 and more of it" * 9),
        ("application/octet-stream", b"RIFF\x00\x00\x00WAVE" * 9),
        ("audio/wav", b"RIFF\x00\x00\x00WAVE" * 9),
        ("text/plain", b"Hello Tom, " * 9),
    ],
)
def test_other_contents_pass(kind: str, body: bytes) -> None:
    it = got(kind=kind).body(body, end=True)
    assert not it.asked
    assert not it.opened
    assert it.response.body == body


@pytest.mark.parametrize(("path", "line"), [(FILES, of_openai), (RESULTS, of_anthropic)])
def test_results_pass_unless_the_settings_say_so(path: str, line: Any) -> None:
    body = lines(line("a", "a secret"))
    it = got(path, "application/x-jsonl", inspect=[]).body(body, end=True)
    assert not it.opened
    assert it.response.body == body
    assert it.record.outcome == "unmatched"


# -- ranges --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [FILES, RESULTS])
@pytest.mark.parametrize("kind", ["application/octet-stream", "text/plain", "application/jsonl"])
@pytest.mark.parametrize("before", ["", "{", "me", "secret", "\u00e9"])
def test_part_of_a_text_is_refused(path: str, kind: str, before: str) -> None:
    """A text that is fetched range by range could never be judged as one. A part may begin within a character."""
    whole = json.dumps(of_openai("a", "some words and a secret, \u00e9 and more words"), ensure_ascii=False).encode()
    body = whole[whole.index(before.encode()) + bool(before) :] + b"\n"
    it = World(policy(inspect=["files"])).request(None, method="GET", path=path).head(kind, "206").body(body, end=True)
    assert it.response.body == b""
    assert it.status == 502
    assert not it.asked


def test_part_of_a_binary_file_passes() -> None:
    body = bytes(range(256))
    it = World(policy(inspect=["files"])).request(None, method="GET", path=FILES)
    it.head("application/octet-stream", "206").body(body, end=True)
    assert it.response.body == body
