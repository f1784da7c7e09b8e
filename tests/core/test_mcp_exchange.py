"""Transcripts of exchanges of MCP: which of them Aim sees, sessions that open late, and refusals with ids."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from extproc.core.content.document import Document
from extproc.core.errors import Reason
from extproc.core.policy import Limits
from extproc.core.verdict import Allow, Anonymize, Block, Failed
from extproc.core.vocabulary import CALL_ID_HEADER, BodyMode, Hook
from tests.fakes.edited import edited
from tests.fakes.planted import MASK, VALUE, RedactingAim, letters, own, units_of
from tests.fakes.reading import strings
from tests.fakes.world import World, policy

JSON = ("content-type", "application/json")
CALL = {
    "jsonrpc": "2.0",
    "id": "c-1",
    "method": "tools/call",
    "params": {"name": "f", "arguments": {"q": "Hello Jane"}},
}
RESULT = {"jsonrpc": "2.0", "id": "c-1", "result": {"content": [{"type": "text", "text": "Hi Jane"}], "isError": False}}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "mcp", "version": "0.1.0"}},
}
INITIALIZED = {
    "jsonrpc": "2.0",
    "id": 0,
    "result": {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "demo", "version": "1"}},
}
PROGRESS = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}
SAMPLED = {"jsonrpc": "2.0", "id": 5, "result": {"role": "assistant", "content": {"type": "text", "text": "Hello"}}}


def log(text: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": text}}


def event(message: Any) -> bytes:
    return b"event: message\r\ndata: " + json.dumps(message).encode() + b"\r\n\r\n"


def mapped(mode: BodyMode = BodyMode.BUFFERED, limits: dict[str, int] | None = None, **profile: Any) -> World:
    return World(policy(paths={"/mcp": "mcp"}, **profile), Limits(**(limits or {})), mode)


def sent(body: Any, it: World | None = None, path: str = "/mcp") -> World:
    return (it or mapped()).request(json.dumps(body).encode(), JSON, path=path)


def asked(it: World) -> list[str]:
    (question,) = it.asked
    return [message["content"] for message in question.inputs[0].messages]


def error(of: Any, message: str) -> Any:
    return {"jsonrpc": "2.0", "id": of, "error": {"code": -32001, "message": message}}


def replied(it: World) -> tuple[int, Any]:
    assert it.reply is not None
    return it.reply.status, json.loads(it.reply.body)


def gotten() -> World:
    """Return an exchange whose GET is answered by a stream that has sent its headers alone."""
    return mapped().request(None, path="/mcp", method="GET").head()


# -- which exchanges Aim sees --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(BodyMode))
@pytest.mark.parametrize("path", ["/mcp", "/other"])
@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (INITIALIZE, INITIALIZED),
        ({"jsonrpc": "2.0", "id": 1, "method": "ping"}, {"jsonrpc": "2.0", "id": 1, "result": {}}),
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, {"jsonrpc": "2.0", "id": 1, "result": {"tools": []}}),
        ({"jsonrpc": "2.0", "method": "notifications/initialized"}, None),
        ([PROGRESS, PROGRESS], None),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_messages_without_text_are_not_asked_about(
    mode: BodyMode, path: str, message: Any, answer: Any, is_stream: bool
) -> None:
    it = sent(message, mapped(mode), path)
    if answer is None:
        it.head("application/json", "202", end=True)
    elif is_stream:
        body = b": ping\r\n\r\n" + event(answer)
        it.head().body(body, end=True)
        assert it.response.body == body
    else:
        it.head("application/json").body(json.dumps(answer).encode(), end=True)
        assert it.response.body == json.dumps(answer).encode()
    assert (it.asked, it.opened, it.record.dialect, it.record.outcome) == ([], [], "mcp", "allowed")
    assert it.is_complete


@pytest.mark.parametrize("mode", list(BodyMode))
@pytest.mark.parametrize("path", ["/mcp", "/other", "/invocations"])
@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
def test_call_is_known_by_its_path_or_its_body(mode: BodyMode, path: str, kind: str) -> None:
    it = mapped(mode).request(json.dumps(CALL).encode(), ("content-type", kind), path=path)
    assert (asked(it), it.record.dialect) == (["Hello Jane"], "mcp")


@pytest.mark.parametrize(
    "body", [CALL | {"method": "eth_call"}, CALL | {"jsonrpc": "1.0"}, SAMPLED, {"note": '"jsonrpc" tools/call'}]
)
def test_other_json_is_of_the_generic_dialect(body: Any) -> None:
    assert sent(body, path="/other").record.dialect == "generic"
    assert sent(body).record.dialect == "mcp"


def test_settings_come_before_the_body() -> None:
    it = World(policy(paths={"/rpc": "generic"})).request(json.dumps(CALL).encode(), JSON, path="/rpc")
    assert it.record.dialect == "generic"
    it = World(policy(unmatched="pass")).request(json.dumps(CALL).encode(), JSON, path="/rpc")
    assert (it.record.outcome, it.asked) == ("unmatched", [])


def test_delete_passes() -> None:
    it = mapped().request(None, path="/mcp", method="DELETE").head("text/plain", "204", end=True)
    assert (it.asked, it.is_complete, it.reply) == ([], True, None)


def test_word_of_an_older_server_is_a_text() -> None:
    it = sent(PROGRESS).head("text/plain", "202").body(b"Accepted", end=True).judge()
    assert (it.asked[0].inputs[0].output, it.response.body) == ("Accepted", b"Accepted")


def test_lists_of_tools_follow_inspect_tools() -> None:
    answer = json.dumps({"id": 1, "result": {"tools": [{"name": "f", "description": "Sends a mail."}]}}).encode()
    ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    it = sent(ask, mapped(inspect=("tools",))).head("application/json").body(answer, end=True)
    assert [each.output for each in it.asked[0].inputs] == ["Sends a mail."]
    it = sent(ask).head("application/json").body(answer, end=True)
    assert (it.asked, it.response.body) == ([], answer)
    it = sent(ask, mapped(inspect=("tools",))).head().body(event(json.loads(answer)))
    assert [chunk["choices"][0]["delta"]["content"] for chunk in it.chunks] == ["Sends a mail."]
    assert sent(ask).head().body(event(json.loads(answer)), end=True).opened == []


def test_result_is_judged_with_the_arguments_for_context() -> None:
    it = sent(CALL).judge().head("application/json").body(json.dumps(RESULT).encode(), end=True)
    (one,) = it.asked[1].inputs
    assert (list(one.messages), one.output) == ([{"role": "user", "content": "Hello Jane"}], "Hi Jane")


# -- redactions ----------------------------------------------------------------------------------------------------


def test_argument_is_redacted_in_its_place() -> None:
    it = sent(CALL).judge(Anonymize(("Hello [N]",)))
    assert it.upstream.buffered is not None
    assert it.upstream.buffered.body == json.dumps(CALL).replace("Jane", "[N]").encode()


def test_redaction_is_the_same_in_text_and_structured_content() -> None:
    result = {"content": [{"type": "text", "text": '{"id": "Jane"}'}], "structuredContent": {"id": "Jane"}}
    body = json.dumps(RESULT | {"result": result}).encode()
    it = sent(CALL).judge().head("application/json").body(body, end=True)
    (one,) = it.asked[1].inputs
    assert one.output is not None
    it.judge(Anonymize((None, one.output.replace("Jane", "[N]"))))
    assert it.response.body == body.replace(b"Jane", b"[N]")
    it = sent(CALL).judge().head().body(event(json.loads(body)))
    (chunk,) = it.chunks
    it.verify(chunk["choices"][0]["delta"]["content"].replace("Jane", "[N]"), chunk["choices"][0]["index"])
    assert it.response.body == event(json.loads(body.replace(b"Jane", b"[N]")))


@pytest.mark.parametrize("status", ["200", "400"])
def test_redaction_of_many_texts_of_one_event(status: str) -> None:
    texts = [f"Jane has {number} texts" for number in range(40)]
    body = event(log("Hi")) + event(RESULT | {"result": {"structuredContent": {"a": "Jane b"}, "notes": texts}})
    it = sent(CALL).judge().head("text/event-stream", status).body(body, end=True)
    if status == "200":
        for chunk in it.chunks:
            (choice,) = chunk["choices"]
            it.verify(choice["delta"]["content"].replace("Jane", "[N]"), choice["index"])
        it.done()
    else:
        said = [each.output or "" for each in it.asked[1].inputs]
        it.judge(*(Anonymize((None, text.replace("Jane", "[N]"))) if "Jane" in text else Allow() for text in said))
    assert it.response.body == body.replace(b"Jane", b"[N]")


def planted() -> Iterator[bytes]:
    """Yield the recorded stream with the value in one of its texts: at its start, in its middle or at its end."""
    (recording,) = (each for each in own() if each.name == "mcp-call.sse")
    units = units_of(recording.body)
    for number, unit in enumerate(units):
        document = Document(unit.data) if unit.data else None
        for path, text in strings(document.root if document else None):
            if " " in text:
                for spot in (0, len(text) // 2, len(text)):
                    assert document is not None
                    changed = unit.with_data(edited(document, {path: text[:spot] + VALUE + text[spot:]}))
                    yield b"".join(
                        [each.raw for each in units[:number]] + [changed] + [each.raw for each in units[number + 1 :]]
                    )


@pytest.mark.parametrize("aim", [RedactingAim(), RedactingAim(is_eager=False), RedactingAim(drops=True, merges=True)])
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_no_letter_of_a_value_leaks_from_a_stream(aim: RedactingAim, size: int) -> None:
    bodies = list(planted())
    assert len(bodies) == 3 * 7
    for body in bodies:
        it = sent(CALL).judge().head()
        mine = RedactingAim(aim.is_eager, aim.drops, aim.merges)
        for start in range(0, len(body), size):
            it.body(body[start : start + size], end=start + size >= len(body))
            mine.answer(it)
        assert it.is_complete
        assert not letters(it.response.body)
        assert len(units_of(it.response.body)) == len(units_of(body))
        assert MASK in it.response.body.decode()


# -- sessions that open late ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_session_opens_at_the_first_text(method: str) -> None:
    it = sent(CALL).judge().head() if method == "POST" else gotten()
    it.body(b": ping\r\n\r\n").body(event(PROGRESS))
    assert it.opened == []
    it.body(event(log("Hi")))
    assert it.session is not None
    it.verify_all()
    assert it.response.body == b": ping\r\n\r\n" + event(PROGRESS) + event(log("Hi"))
    it.body(event(log("again")), end=True).verify_all().done()
    assert it.is_complete
    assert len(it.opened) == 1


@pytest.mark.parametrize("path", ["/mcp", "/other"])
def test_headers_of_a_silent_stream_wait_for_the_first_verdict_and_not_for_ever(path: str) -> None:
    it = mapped().request(None, path=path, method="GET").head()
    assert it.response.headers is None
    it.wait(1.9)
    assert it.response.headers is None
    it.wait(0.1)
    assert it.response.headers is not None
    assert it.due_in is None
    it.body(event(PROGRESS)) if path == "/mcp" else it.body(b": ping\n\n")
    assert it.response.body
    it.body(event(log("Hi"))).verify_all().body(b"", end=True).done()
    assert it.is_complete


def test_headers_wait_for_a_text_that_has_come() -> None:
    it = gotten().body(event(log("Hi"))).wait(2.5)
    assert it.response.headers is None
    assert replied(it.block("No.")) == (400, error(None, "No."))


def test_block_of_the_first_text_behind_the_headers_is_an_event() -> None:
    it = gotten().wait(2).body(event(log("Hi"))).block("No.")
    assert it.response.headers is not None
    assert it.response.body == b"event: message\ndata: " + json.dumps(error(None, "No.")).encode() + b"\n\n"
    assert it.is_complete


def test_session_that_is_lost_while_no_text_waits_is_opened_again_for_the_next() -> None:
    it = gotten()
    for number in range(3):
        it.body(event(log("Hi"))).verify_all().lose()
        assert len(it.opened) == number + 1
    assert it.response.body == 3 * event(log("Hi"))
    it.body(event(PROGRESS))
    assert len(it.opened) == 3
    it.body(b"", end=True)
    assert it.is_complete
    assert it.record.outcome == "allowed"


def test_session_that_is_lost_while_text_waits_ends_the_stream() -> None:
    it = gotten().body(event(log("Hi"))).verify_all().body(event(log("again"))).lose()
    assert (
        it.response.body
        == event(log("Hi"))
        + b"event: message\ndata: %b\n\n" % json.dumps(error(None, "The AI security service is unavailable.")).encode()
    )
    assert it.is_complete


def test_session_that_cannot_be_opened_is_a_failure() -> None:
    it = sent(CALL).judge().head().body(event(log("Hi"))).lose(Reason.UNREACHABLE, opened=False)
    assert replied(it) == (503, error("c-1", "The AI security service is unavailable."))


def test_mark_of_the_end_of_a_stream_without_text_does_not_wait_for_aim() -> None:
    it = World().request(None, path="/other", method="GET").head().body(b"data: [DONE]\n\n")
    assert (it.response.body, it.opened, it.is_complete) == (b"data: [DONE]\n\n", [], False)
    it.body(b"", end=True)
    assert it.is_complete


def test_stream_may_have_any_number_of_messages() -> None:
    it = gotten()
    for number in range(5000):
        it.body(event(log(f"Message {number}"))).verify_all()
    assert it.response.body.count(b"Message") == 5000
    assert len(it.opened) == 1
    assert it.held < 8_000_000


def test_stream_may_have_no_more_messages_than_lanes_that_wait() -> None:
    it = mapped(limits={"held_bytes": 100_000_000}).request(None, path="/mcp", method="GET").head()
    it.body(b"".join(event(log("Hi")) for _ in range(4097)))
    assert it.record.code == "guardrail_unreadable_response"


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(BodyMode))
@pytest.mark.parametrize("path", ["/mcp", "/other"])
@pytest.mark.parametrize(
    ("message", "status", "body"),
    [
        (CALL, 200, error("c-1", "No.")),
        (CALL | {"id": 7}, 200, error(7, "No.")),
        ([CALL, PROGRESS, CALL | {"id": 2}], 200, [error("c-1", "No."), error(2, "No.")]),
        (PROGRESS | {"params": {"message": "Hello"}}, 400, error(None, "No.")),
    ],
)
def test_blocked_request_is_an_error_with_its_id(
    mode: BodyMode, path: str, message: Any, status: int, body: Any
) -> None:
    it = sent(message, mapped(mode), path).judge(Block("No."))
    assert replied(it) == (status, body)
    assert it.reply is not None
    assert dict(it.reply.headers) == {"content-type": "application/json", CALL_ID_HEADER: "call-1"}
    assert it.record.outcome == "blocked"


def test_blocked_result_of_the_client_has_no_id() -> None:
    assert replied(sent(SAMPLED).judge(Block("No."))) == (400, error(None, "No."))


def test_blocked_answer_is_an_error_with_the_id_of_its_request() -> None:
    it = sent(CALL).judge().head("application/json").body(json.dumps(RESULT).encode(), end=True).judge(Block("No."))
    assert replied(it) == (200, error("c-1", "No."))


def test_block_before_the_first_event_is_an_answer_and_a_later_one_an_event() -> None:
    it = sent(CALL).judge().head().body(event(RESULT)).block("No.")
    assert replied(it) == (200, error("c-1", "No."))
    it = sent(CALL).judge().head().body(event(log("Hi"))).verify_all().body(event(RESULT)).block("No.")
    end = b"event: message\ndata: " + json.dumps(error("c-1", "No.")).encode() + b"\n\n"
    assert it.response.body == event(log("Hi")) + end
    assert it.is_complete


def test_late_block_under_moderation_has_the_id() -> None:
    it = sent(CALL, mapped(hooks=("moderation",)))
    assert it.asked[0].hook is Hook.MODERATION
    assert replied(it.judge(Block("No."))) == (200, error("c-1", "No."))


def test_failure_keeps_its_status_and_has_the_id() -> None:
    it = sent(CALL).judge(Failed(Reason.TIMEOUT))
    assert replied(it) == (503, error("c-1", "The AI security service is unavailable."))


def test_request_that_cannot_be_judged_has_its_id_if_it_could_be_parsed() -> None:
    message = "The request body could not be read."
    assert replied(sent(CALL | {"PARAMS": {}})) == (400, error("c-1", message))
    it = mapped().request(b'{"id": 1, "id": 2, "method": "tools/call"}', JSON, path="/mcp")
    assert replied(it) == (400, error(None, message))
    it = sent(CALL, mapped(limits={"request_bytes": 9}))
    assert replied(it) == (413, error(None, "The request body is too large."))


def test_upgrade_is_refused_in_the_same_shape() -> None:
    it = mapped().request(None, ("upgrade", "websocket"), path="/mcp", method="GET")
    assert replied(it) == (400, error(None, "Protocol upgrades are not allowed on this path."))


def test_blocked_error_answer_keeps_its_status() -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": "c-1", "error": {"code": -32602, "message": "Hi Jane"}}).encode()
    it = sent(CALL).judge().head("application/json", "400").body(body, end=True).judge(Block("No."))
    assert it.reply is None
    assert json.loads(it.response.body)["id"] == "c-1"
    assert json.loads(it.response.body)["error"]["code"] == -32001
