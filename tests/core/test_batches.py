"""Batches: each record is judged for itself, and a refusal names the records that Aim blocked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from extproc.core.batch import MOST_SEARCHED, Batch, Search
from extproc.core.detections import Allowance
from extproc.core.dialects.leaf import Prompt, Record
from extproc.core.errors import Reason
from extproc.core.policy import Limits
from extproc.core.verdict import Allow, Anonymize, Block, Failed, Outcome
from extproc.core.vocabulary import BodyMode
from tests.fakes.forms import PNG, form, part
from tests.fakes.world import World, policy

KIND = ("content-type", "multipart/form-data; boundary=xYz-1")
MESSAGES = "/v1/messages/batches"
JSON = ("content-type", "application/json")


def params(*texts: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": text} for text in texts], **more}


def batch(*records: dict[str, Any]) -> bytes:
    named = [{"custom_id": f"r-{number}", "params": record} for number, record in enumerate(records)]
    return json.dumps({"requests": named}).encode()


def line(name: str, url: str = "/v1/chat/completions", **body: Any) -> bytes:
    return json.dumps({"custom_id": name, "method": "POST", "url": url, "body": body}).encode()


def chat(name: str, text: str) -> bytes:
    return line(name, messages=[{"role": "user", "content": text}])


def upload(*lines: bytes, purpose: bytes = b"batch", filename: str = "in.jsonl", end: bytes = b"\n") -> bytes:
    file = part("file", end.join(lines) + end, more=f'; filename="{filename}"')
    return form(part("purpose", purpose), file)


def messages(*records: dict[str, Any], mode: BodyMode = BodyMode.BUFFERED, **profile: Any) -> World:
    return World(policy(**profile), mode=mode).request(batch(*records), JSON, path=MESSAGES)


def uploaded(body: bytes, path: str = "/v1/files", limits: Limits | None = None, **profile: Any) -> World:
    it = World(policy(**({"inspect": ["files"]} | profile)), limits or Limits())
    return it.request(body, KIND, path=path)


def inputs(it: World, detection: int = -1) -> list[list[tuple[str, str]]]:
    """Return role and text of the messages of each input of a detection."""
    return [
        [(str(message["role"]), message["content"]) for message in each.messages] for each in it.asked[detection].inputs
    ]


def texts(it: World, detection: int = -1) -> list[list[str]]:
    return [[text for _, text in each] for each in inputs(it, detection)]


def sent(it: World) -> bytes | None:
    assert it.upstream.buffered is not None
    return it.upstream.buffered.body


def judge_by(it: World, word: str) -> int:
    """Block each input with `word`, as Aim does: the outcomes behind a block are missing. Return the inputs asked."""
    asked = 0
    while it.detections:
        detection = next(iter(it.detections.values()))
        asked += len(detection.inputs)
        outcomes: list[Outcome] = []
        for number, each in enumerate(detection.inputs):
            if any(word in str(message["content"]) for message in each.messages):
                outcomes = [outcomes[0]] if outcomes and number % 2 else []
                outcomes.append(Block("Not that.", input=number))
                break
            outcomes.append(Allow())
        it.judge(*outcomes)
    return asked


def message_of(it: World) -> str:
    assert it.reply is not None
    return str(json.loads(it.reply.body)["error"]["message"])


# -- Anthropic's batches -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(BodyMode))
def test_each_record_is_an_input_of_its_own(mode: BodyMode) -> None:
    it = messages(params("Hello", "again", system="Be brief"), params("Bye"), mode=mode)
    assert inputs(it) == [[("user", "Hello"), ("user", "again"), ("system", "Be brief")], [("user", "Bye")]]
    assert it.record.dialect == "anthropic-messages"
    it.judge()
    if mode is BodyMode.BUFFERED:
        assert sent(it) is None
    else:
        assert it.upstream.body == batch(params("Hello", "again", system="Be brief"), params("Bye"))


def test_tools_arguments_and_results_of_a_record_are_read_as_in_its_api() -> None:
    use = {"type": "tool_use", "id": "t1", "name": "find", "input": {"who": "Tom \u00e9"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "rain"}
    said = [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    tool = {"name": "find", "description": "Find somebody", "input_schema": {}}
    it = messages(params("Hello"), {"messages": said, "tools": [tool]}, inspect=["tools"])
    assert inputs(it)[1] == [("system", "Find somebody"), ("assistant", '{"who": "Tom \u00e9"}'), ("tool", "rain")]
    it.judge(Allow(), Anonymize(("Find somebody", '{"who": "[N] \u00e9"}', "sun")))
    expected = batch(params("Hello"), {"messages": said, "tools": [tool]})
    assert sent(it) == expected.replace(b"Tom \\u00e9", b"[N] \\u00e9").replace(b"rain", b"sun")


def test_text_outside_of_the_records_is_judged_first() -> None:
    body = {"requests": [{"custom_id": "a", "params": params("Hello"), "note": "Hi Tom"}], "memo": "Hi"}
    it = World(policy()).request(json.dumps(body).encode(), JSON, path=MESSAGES)
    assert texts(it) == [["Hi Tom", "Hi"], ["Hello"]]
    it.judge(Block("Not that.", input=0))
    assert message_of(it) == "Not that."


@pytest.mark.parametrize(
    "root", [{"requests": []}, {"requests": "none"}, {}, {"requests": [{"custom_id": "a"}, {"params": None}, 7]}]
)
def test_batch_without_texts_asks_nothing(root: Any) -> None:
    it = World(policy()).request(json.dumps(root).encode(), JSON, path=MESSAGES)
    assert bool(it.asked) is (root.get("requests") == "none")
    assert it.record.outcome == "allowed"


@pytest.mark.parametrize("body", [b"[]", b"7", b"{", b'{"requests": [{"Params": {}}]}'])
def test_what_is_no_batch_is_unreadable(body: bytes) -> None:
    assert World(policy()).request(body, JSON, path=MESSAGES).record.code == "invalid_body"


def test_blocked_record_is_named() -> None:
    it = messages(params("Hello"), params("a secret"), params("Bye"))
    it.judge(Allow(), Block("Not that.", input=1))
    assert it.status == 400
    assert it.reply is not None
    error = {"type": "invalid_request_error", "message": "Not that. (custom_id: r-1)"}
    assert json.loads(it.reply.body) == {"type": "error", "error": error}
    assert len(it.asked) == 1


def test_fixed_message_names_the_record_too() -> None:
    it = messages(params("Hello"), params("a secret"), block_message="Ask us.")
    it.judge(Allow(), Block("Not that.", input=1))
    assert message_of(it) == "Ask us. (custom_id: r-1)"


@pytest.mark.parametrize("count", [65, 128, 1000, 4096, 20_000])
@pytest.mark.parametrize("hooks", [("pre_call", "output"), ("moderation", "output")])
def test_blocked_record_of_many_is_found_by_halves(count: int, hooks: Sequence[str]) -> None:
    number = count * 2 // 3
    records = [{"messages": [{"role": "user", "content": "secret" if at == number else "a"}]} for at in range(count)]
    it = messages(*records, hooks=hooks)
    assert len(it.asked[0].inputs) == 64
    assert judge_by(it, "secret") <= 64 + MOST_SEARCHED
    named = message_of(it).removeprefix("Not that. (custom_id: ").removesuffix(")").split(", ")
    assert f"r-{number}" in named
    assert len(named) <= (1 if count <= 64 * 2**8 else 2)
    assert it.record.outcome == "blocked"


def test_group_is_named_if_neither_half_is_blocked_alone() -> None:
    it = messages(*(params(f"Hello {number}") for number in range(256)))
    it.judge(*(Allow(),) * 3, Block("Together.", input=3))
    assert texts(it) == [["Hello 12", "Hello 13"], ["Hello 14", "Hello 15"]]
    it.judge(Allow(), Block("Not this.", input=1))
    assert texts(it) == [["Hello 14"], ["Hello 15"]]
    it.judge(Allow(), Failed(Reason.TIMEOUT))
    assert message_of(it) == "Not this. (custom_id: r-14, r-15)"


def test_message_names_some_records_of_a_large_group() -> None:
    it = messages(*(params(f"Hello {number}") for number in range(64 * 40)))
    it.judge(Block(None, input=0)).judge()
    shown = ", ".join(f"r-{number}" for number in range(16))
    assert message_of(it).endswith(f"policy. (custom_id: {shown} and 24 more)")


@pytest.mark.parametrize("hook", ["pre_call", "moderation"])
def test_search_ends_after_the_time_of_one_detection(hook: str) -> None:
    it = messages(*(params(f"Hello {number}") for number in range(512)), hooks=[hook], timeout_seconds=3)
    assert it.due_in is None
    it.wait(100).judge(Allow(), Block("Not these.", input=1))
    assert it.due_in == 3
    it.wait(2).judge(Block("Not this half.", input=0))
    assert it.due_in == 1
    assert len(it.detections) == 1
    it.wake()
    assert message_of(it) == "Not this half. (custom_id: r-8, r-9, r-10, r-11)"
    assert it.record.outcome == "blocked"
    assert not it.detections
    assert it.held == 0
    assert it.due_in is None


def test_search_ends_before_envoy_stops_waiting() -> None:
    it = messages(*(params(f"Hello {number}") for number in range(512)), timeout_seconds=60)
    it.judge(Block("Not these.", input=0))
    assert it.due_in == 4


def test_search_and_stream_have_their_own_deadlines() -> None:
    it = messages(*(params(f"Hello {number}") for number in range(256)), hooks=["moderation", "output"])
    it.judge(Block("Not these.", input=0))
    assert it.due_in == 4
    it.head().body(b'data: {"x": "Hi"}\n\n')
    assert it.due_in is not None
    assert it.due_in < 4
    it.wake()
    assert it.reply is None
    it.wait(4)
    assert message_of(it) == "Not these. (custom_id: r-0, r-1, r-2, r-3)"


def test_search_ends_where_it_would_send_many_times_the_batch() -> None:
    prompts = [
        Prompt({"role": "user", "content": "a"}, None, record=Record(number, str(number))) for number in range(2)
    ]
    search = Search(Batch(prompts, tuple(prompt.message for prompt in prompts)), (0, 2), Block("Not that."), 0.0)
    allowance = Allowance()
    allowance.sent = 8 * 65_536 - 100
    assert search.inputs(allowance) == []
    allowance.sent = 0
    assert len(search.inputs(allowance)) == 2
    assert allowance.sent > 128


def test_records_of_two_hooks_share_the_inputs() -> None:
    it = messages(*(params("Hello") for _ in range(100)), hooks=["pre_call", "moderation"])
    assert len(it.asked[0].inputs) == 32
    it.judge()
    assert len(it.asked[1].inputs) == 32
    it.judge(Block("Not that.", input=31))
    assert len(it.asked[2].inputs) == 2
    it.head("application/json").body(b'{"id": "msgbatch_1"}', end=True)
    assert it.response.headers is None  # the gate stays closed during the search
    it.judge(Block("This one.", input=0)).judge(Block("Really.", input=0))
    assert message_of(it).startswith("Really. (custom_id: r-96")


def test_allowed_batch_opens_the_gate() -> None:
    it = messages(params("Hello"), params("Bye"), hooks=["moderation"])
    it.judge().head("application/json").body(b"{}", end=True)
    assert it.response.is_ended
    assert it.is_complete


def test_redactions_of_records_are_put_back() -> None:
    records = [params("I am Tom"), params("Hello"), params("and Eve", "and Tom")]
    it = messages(*records)
    it.judge(Anonymize(("I am [N]",)), Allow(), Anonymize(("and [N]", "and [N]")))
    assert sent(it) == batch(*records).replace(b"Tom", b"[N]").replace(b"Eve", b"[N]")
    assert it.record.outcome == "redacted"


def test_redacted_batch_goes_to_the_second_hook() -> None:
    it = messages(params("I am Tom"), params("Hello"), hooks=["pre_call", "moderation"])
    it.judge(Anonymize(("I am [N]",)), Allow())
    assert texts(it) == [["I am [N]"], ["Hello"]]


@pytest.mark.parametrize(
    "texts", [("I am [N]", "more"), (), (None,), ("I am Tom",)], ids=["more", "fewer", "missing", "unchanged"]
)
def test_redaction_that_does_not_fit_its_record_fails(texts: tuple[str | None, ...]) -> None:
    it = messages(params("I am Tom"), params("and Eve"))
    it.judge(Anonymize(texts), Anonymize(("and [N]",)))
    assert it.record.code == "redaction_failed"


def test_redactions_of_too_many_values_fail() -> None:
    it = messages(*(params("I am Tom") for _ in range(33_000)))
    it.judge(*(Anonymize(("I am [N]",) * len(each.messages)) for each in it.asked[0].inputs))
    assert it.record.code == "redaction_failed"


def test_failed_record_fails_the_batch() -> None:
    it = messages(params("Hello"), params("Bye"))
    it.judge(Allow(), Failed(Reason.TIMEOUT))
    assert it.record.code == "guardrail_unavailable"


def test_batch_that_fails_open_keeps_its_redactions() -> None:
    records = [params("I am Tom"), params("Bye")]
    it = messages(*records, failure_mode_allow=True)
    it.judge(Anonymize(("I am [N]",)), Failed(Reason.TIMEOUT))
    assert sent(it) == batch(*records).replace(b"Tom", b"[N]")
    it = messages(*records, failure_mode_allow=True)
    it.judge(Allow(), Failed(Reason.TIMEOUT))
    assert sent(it) is None


def test_memory_of_a_batch_is_counted_until_its_verdict() -> None:
    it = messages(*(params("Hello") for _ in range(1000)), hooks=["moderation"])
    assert it.held > 1000 * 500
    it.judge()
    assert it.held == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", MESSAGES), ("GET", f"{MESSAGES}/msgbatch_1"), ("POST", f"{MESSAGES}/msgbatch_1/cancel")],
)
def test_state_of_a_batch_holds_no_text(method: str, path: str) -> None:
    it = World(policy()).request(None, method=method, path=path)
    state = {"id": "msgbatch_1", "type": "message_batch", "processing_status": "in_progress", "results_url": None}
    it.head("application/json").body(json.dumps(state | {"data": [state]}).encode(), end=True)
    assert not it.asked
    assert it.response.is_ended


# -- OpenAI's batches and files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/batches", "/openai/batches", "/openai/v1/batches"])
def test_batch_of_a_file_holds_only_the_text_of_its_metadata(path: str) -> None:
    body = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    it = World(policy()).request(json.dumps(body).encode(), JSON, path=path)
    assert not it.asked
    it.head("application/json").body(json.dumps(body | {"object": "batch", "errors": None}).encode(), end=True)
    assert not it.asked
    it = World(policy()).request(json.dumps(body | {"metadata": {"note": "For Tom"}}).encode(), JSON, path=path)
    assert texts(it) == [["For Tom"]]


BODIES = [
    chat("a", "Hello"),
    line("b", "/v1/responses", input="Hi", instructions="Be brief"),
    line("c", "/v1/embeddings", input=["one", "two"]),
    line("d", "/v1/completions", prompt="Once"),
    line("e", "https://api.example.com/V1/Messages/", **params("Bye")),
    line("f", "https://example.com/other", question="Why?"),
]


@pytest.mark.parametrize("path", ["/v1/files", "/openai/files?api-version=1", "/openai/v1/files"])
@pytest.mark.parametrize("filename", ["in.jsonl", "in.txt", "in"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n"])
def test_lines_of_an_upload_are_read_by_the_dialects_of_their_urls(path: str, filename: str, end: bytes) -> None:
    it = uploaded(upload(*BODIES, filename=filename, end=end), path)
    assert inputs(it) == [
        [("user", "Hello")],
        [("user", "Hi"), ("system", "Be brief")],
        [("user", "one"), ("user", "two")],
        [("user", "Once")],
        [("user", "Bye")],
        [("user", "Why?")],
    ]
    assert it.record.dialect == "openai-chat"
    it.judge()
    assert sent(it) is None


def test_escapes_are_read_whatever_the_name_of_the_file() -> None:
    escaped = chat("a", "NAME").replace(b"NAME", b"\\u0054om")
    it = uploaded(upload(escaped, filename="in.txt"))
    assert texts(it) == [["Tom"]]


@pytest.mark.parametrize("filename", ["in.txt", "in"])
@pytest.mark.parametrize("before", [b"", b"{}\n", b" \n"])
def test_escapes_are_read_in_a_file_that_repeats_a_key(filename: str, before: bytes) -> None:
    good = chat("a", "Hi NAME").replace(b"NAME", b"\\u0054om")
    body = upload(before + good.replace(b"{", b'{"custom_id":"b",', 1), filename=filename)
    it = uploaded(body)
    ((said,),) = texts(it)
    assert "Hi Tom" in said
    it.judge(Anonymize((said.replace("Tom", "[N]"),)))
    assert sent(it) == body.replace(b"\\u0054om", b"[N]")
    it = uploaded(body)
    it.judge(Anonymize((said.replace("custom_id", "[N]"),)))
    assert it.code == "redaction_failed"


def test_redactions_are_put_back_into_the_lines() -> None:
    body = upload(chat("a", "I am Tom"), chat("b", "Hello"), chat("c", "Tom again"))
    it = uploaded(body)
    it.judge(Anonymize(("I am [N]",)), Allow(), Anonymize(("[N] again",)))
    assert sent(it) == body.replace(b"Tom", b"[N]")


def test_arguments_in_a_line_are_redacted() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"who": "Tom"}'}}
    use = {"type": "tool_use", "id": "t", "name": "f", "input": {"who": "Tom"}}
    body = upload(
        line("a", messages=[{"role": "assistant", "content": "", "tool_calls": [call]}]),
        line("b", "/v1/messages", messages=[{"role": "assistant", "content": [use]}]),
        line("c", "/v1/messages", messages=[{"role": "assistant", "content": [use]}]),
    )
    it = uploaded(body)
    redacted = [Anonymize(tuple(text and text.replace("Tom", "[N]") for text in record)) for record in texts(it)]
    it.judge(*redacted)
    assert sent(it) == body.replace(b"Tom", b"[N]")


def test_blocked_line_is_named() -> None:
    it = uploaded(upload(*(chat(f"row {number}", f"Hello {number}!") for number in range(500))))
    assert len(it.asked[0].inputs) == 64
    judge_by(it, "Hello 321!")
    assert message_of(it) == "Not that. (custom_id: row 321)"
    assert it.code == "content_policy_violation"


def test_line_without_a_name_is_counted() -> None:
    nameless = json.dumps({"url": "/v1/completions", "body": {"prompt": "secret"}}).encode()
    it = uploaded(upload(chat("a", "Hello"), nameless))
    it.judge(Allow(), Block("Not that.", input=1))
    assert message_of(it) == "Not that. (custom_id: number 2)"


@pytest.mark.parametrize("broken", [b'{"custom_id": "a", "body": {"prompt": "x"', b'{"a": 1, "a": 2}', b"no json"])
def test_upload_with_a_broken_line_is_unreadable(broken: bytes) -> None:
    assert uploaded(upload(chat("a", "Hello"), broken)).code == "invalid_body"


def test_several_files_are_read() -> None:
    files = [part("file", chat(name, name) + b"\n", more=f'; filename="{name}.jsonl"') for name in ("a", "b")]
    it = uploaded(form(*files))
    assert texts(it) == [["a"], ["b"]]
    it.judge(Allow(), Anonymize(("[N]",)))
    assert b'"content": "[N]"' in (sent(it) or b"")


def test_other_files_are_texts_or_media() -> None:
    lines = json.dumps({"messages": [{"role": "user", "content": "Train Tom"}]}).encode()
    assert texts(uploaded(upload(lines, purpose=b"fine-tune"))) == [["Train Tom"]]
    assert texts(uploaded(upload(b"About Tom", purpose=b"user_data", filename="a.txt"))) == [["About Tom\n"]]
    vision = form(part("purpose", b"vision"), part("file", PNG, "Content-Type: image/png", more="; filename=a.png"))
    assert not uploaded(vision).asked


@pytest.mark.parametrize("profile", [{"inspect": ["tools"]}, {"inspect": [], "unmatched": "pass"}])
def test_files_pass_unless_the_settings_say_so(profile: dict[str, Any]) -> None:
    it = uploaded(upload(chat("a", "a secret")), **profile)
    assert not it.asked
    assert it.record.outcome == "unmatched"
    it.head("application/jsonl").body(b'{"custom_id": "a"}\n', end=True)
    assert it.response.body == b'{"custom_id": "a"}\n'


def test_files_that_are_not_inspected_are_refused_with_other_unknown_paths() -> None:
    assert uploaded(upload(chat("a", "Hello")), unmatched="block", inspect=[]).code == "path_not_allowed"
    assert uploaded(upload(chat("a", "Hello")), unmatched="block").asked


def test_upload_over_the_limit_is_too_large() -> None:
    body = upload(*(chat(str(number), "Hello") for number in range(100)))
    assert uploaded(body, limits=Limits(request_bytes=4096)).status == 413
    assert uploaded(body, limits=Limits(values=500)).status == 413


# -- OpenAI's uploads in parts -------------------------------------------------------------------------------------

PARTS = "/v1/uploads/upload_1/parts"
RECORD = chat("a", "a secret")


def piece(content: bytes, filename: str = "upload") -> bytes:
    return form(part("data", content, "Content-Type: application/octet-stream", more=f'; filename="{filename}"'))


@pytest.mark.parametrize("path", [PARTS, "/openai/uploads/upload_1/parts?api-version=1", f"/openai{PARTS}"])
@pytest.mark.parametrize("filename", ["upload", "in.jsonl", "part.json"])
@pytest.mark.parametrize("content", [RECORD, RECORD[:40], RECORD[40:], b"sec", b"4111"])
def test_part_of_a_text_is_refused(path: str, filename: str, content: bytes) -> None:
    it = uploaded(piece(content, filename), path)
    assert (it.status, it.code, it.record.reason) == (400, "upload_not_inspected", Reason.BODY_UNREADABLE)
    assert not it.asked


def test_text_beside_a_part_and_a_body_that_is_no_form_are_refused() -> None:
    assert uploaded(form(part("data", b"a text"))).asked  # a field of a usual upload is judged
    assert uploaded(form(part("data", b"a text")), PARTS).code == "upload_not_inspected"
    it = World(policy(inspect=["files"])).request(json.dumps({"data": "a text"}).encode(), JSON, path=PARTS)
    assert it.code == "upload_not_inspected"


def test_part_that_is_cut_within_a_letter_is_unreadable() -> None:
    assert uploaded(piece("Grüße".encode()[:3]), PARTS).code == "invalid_body"


def test_part_of_media_passes() -> None:
    it = uploaded(piece(PNG), PARTS)
    assert not it.asked
    assert it.record.outcome == "allowed"
    it.head("application/json").body(b'{"id": "part_1", "object": "upload.part", "upload_id": "upload_1"}', end=True)
    assert not it.asked
    assert it.response.is_ended


def test_name_of_the_file_of_a_part_is_judged() -> None:
    assert texts(uploaded(piece(PNG, "About Tom.png"), PARTS)) == [["About Tom.png"]]


def test_part_of_a_text_follows_the_failure_policy() -> None:
    it = uploaded(piece(RECORD), PARTS, failure_mode_allow={"request": ["body_unreadable"], "response": False})
    assert sent(it) is None
    assert it.record.outcome == "failed_open"
    assert sent(uploaded(piece(RECORD), PARTS, hooks=["output"])) is None


def test_parts_are_as_files_without_the_setting() -> None:
    it = uploaded(piece(RECORD), PARTS, inspect=[])
    assert not it.asked
    assert it.record.outcome == "unmatched"
    assert uploaded(piece(RECORD), PARTS, inspect=[], unmatched="block").code == "path_not_allowed"


@pytest.mark.parametrize("end", ["", "/upload_1/complete", "/upload_1/cancel"])
@pytest.mark.parametrize("inspected", [["files"], []])
def test_begin_and_end_of_an_upload_hold_only_the_name_of_the_file(end: str, inspected: list[str]) -> None:
    body = {"filename": "in.jsonl", "purpose": "batch", "bytes": 9, "mime_type": "application/jsonl"}
    body |= {"part_ids": ["part_1"], "md5": "d41d8cd98f00b204e9800998ecf8427e"}
    state = {"id": "upload_1", "object": "upload", "filename": "in.jsonl", "purpose": "batch", "status": "pending"}
    answer = json.dumps(state | {"file": {"id": "file-1", "filename": "in.jsonl", "purpose": "batch"}}).encode()
    it = World(policy(inspect=inspected)).request(json.dumps(body).encode(), JSON, path=f"/v1/uploads{end}")
    it.head("application/json").body(answer, end=True)
    assert not it.asked
    assert it.response.is_ended
    named = json.dumps(body | {"filename": "About Tom.txt"}).encode()
    assert texts(World(policy()).request(named, JSON, path=f"/v1/uploads{end}")) == [["About Tom.txt"]]


# -- Gemini's batches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("config", "name"), [("input_config", "display_name"), ("inputConfig", "displayName")])
def test_batch_of_contents_is_asked_by_record(config: str, name: str) -> None:
    requests = [
        {"request": {"contents": [{"parts": [{"text": text}]}]}, "metadata": {"key": key}}
        for key, text in (("a", "Hello"), ("b", "a secret"))
    ]
    named = [*requests, {"metadata": {"key": "c"}}]
    body = {"batch": {name: "Nightly run", config: {"requests": {"requests": named}}}}
    it = World(policy()).request(json.dumps(body).encode(), JSON, path="/v1beta/models/m:batchGenerateContent")
    assert texts(it) == [["Nightly run"], ["Hello"], ["a secret"]]
    it.judge(Allow(), Allow(), Block("Not that.", input=2))
    assert message_of(it) == "Not that. (custom_id: b)"
