"""MCP and A2A: what is read of requests, results and events, and how they end in a refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.content.document import Document
from extproc.core.dialects.endpoints import MCP
from extproc.core.dialects.mcp import Mcp
from extproc.core.errors import MalformedBody
from extproc.core.redaction import RedactionError, edits
from extproc.core.refusal import INVALID_BODY, UNAVAILABLE, blocked
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

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAX+XDSwAAAABJRU5ErkJggg=="


def ask(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def tell(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


def answer(**result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "result": result}


CALL = ask("tools/call", name="send_mail", arguments={"to": "hi a", "body": "hi b"}, _meta={"progressToken": "p-1"})

# -- requests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (CALL, ["hi a", "hi b"]),
        (ask("tools/call", name="f", arguments={"id": "hi", "url": "hi", "type": "hi", "n": 3, "x": None}), ["hi"] * 3),
        (
            ask("tools/call", name="f", arguments={"q": {"id": "hi", "of": ["hi a", 5]}}),
            ['{"id": "hi", "of": ["hi a", 5]}'],
        ),
        (ask("tools/call", name="f", arguments={"q": '{"a": "hi"}'}), ['{"a": "hi"}']),
        (ask("tools/call", name="f", arguments={"q": "[hi] there"}), ["[hi] there"]),
        (ask("tools/call", name="f", arguments={"q": "[" * 100_000 + " hi"}), ["[" * 100_000 + " hi"]),
        (ask("tools/call", name="f", arguments={"q": "{}", "r": {}, "s": []}), []),
        (ask("prompts/get", name="p", arguments={"topic": "hi"}), ["hi"]),
        (
            ask(
                "completion/complete",
                ref={"type": "ref/prompt", "name": "p"},
                argument={"name": "topic", "value": "hi"},
                context={"arguments": {"id": "hi a"}},
            ),
            ["hi", "hi a"],
        ),
        (ask("completion/complete", argument={"name": "a", "value": "hi"}), ["hi"]),
        (ask("resources/read", uri="file:///a/b.txt"), []),
        (ask("resources/read", uri="https://a.example/b?c=hi&d=e"), ["https://a.example/b?c=hi&d=e"]),
        (ask("tools/list", cursor="bmV4dA=="), []),
        (ask("ping"), []),
        ({"jsonrpc": "2.0", "id": "x-1", "method": "ping"}, []),
        (
            ask(
                "initialize",
                protocolVersion="2025-06-18",
                capabilities={"elicitation": {}, "sampling": {}, "roots": {"listChanged": True}},
                clientInfo={"name": "mcp", "version": "0.1.0"},
            ),
            [],
        ),
        (ask("initialize", clientInfo={"name": "hi there", "version": "1"}), ["hi there"]),
        (
            ask(
                "server/discover",
                _meta={
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientInfo": {"name": "mcp", "version": "0.1.0"},
                    "io.modelcontextprotocol/clientCapabilities": {},
                },
            ),
            [],
        ),
        (
            ask(
                "tools/call",
                inputResponses={"who": {"action": "accept", "content": {"id": "hi"}}},
                requestState="c3RhdGU=",
            ),
            ["hi"],
        ),
        (tell("notifications/initialized"), []),
        (tell("notifications/cancelled", requestId=3, reason="hi"), ["hi"]),
        (ask("logging/setLevel", level="debug"), []),
        (answer(roots=[{"uri": "file:///a", "name": "b"}]), []),
        (answer(action="accept", content={"name": "hi a", "id": "hi b", "age": 4}), ["hi a", "hi b"]),
        ({"jsonrpc": "2.0", "id": 1, "error": {"code": -1, "message": "hi"}}, ["hi"]),
        ([CALL, ask("ping"), ask("prompts/get", arguments={"a": "hi c"})], ["hi a", "hi b", "hi c"]),
        ([ask("ping")], []),
        ([], []),
        (
            ask(
                "message/send",
                message={
                    "role": "user",
                    "kind": "message",
                    "messageId": "m-1",
                    "parts": [
                        {"kind": "text", "text": "hi a"},
                        {"kind": "data", "data": {"id": "hi b"}},
                        {"kind": "file", "file": {"name": "b.png", "mimeType": "image/png", "bytes": PNG}},
                    ],
                },
                configuration={"acceptedOutputModes": ["text/plain"], "blocking": True},
            ),
            ["hi a", '{"id": "hi b"}', "b.png"],
        ),
        (
            ask(
                "SendMessage",
                tenant="t-1",
                message={
                    "role": "ROLE_USER",
                    "messageId": "m-1",
                    "referenceTaskIds": ["t-1"],
                    "extensions": ["https://a.example/e"],
                    "parts": [
                        {"text": "hi a", "mediaType": "text/plain"},
                        {"data": {"id": "hi b"}},
                        {"data": "hi c"},
                        {"raw": PNG, "filename": "hi d", "mediaType": "image/png"},
                        {"url": "https://a.example/c.png"},
                    ],
                },
                configuration={
                    "acceptedOutputModes": ["text/plain"],
                    "taskPushNotificationConfig": {
                        "url": "https://a.example/n",
                        "token": "c2VjcmV0",
                        "authentication": {"scheme": "Bearer", "credentials": "abc.def"},
                    },
                },
            ),
            ["hi a", '{"id": "hi b"}', "hi c", "hi d"],
        ),
        (ask("ListTasks", contextId="c-1", pageToken="bmV4dA==", status="TASK_STATE_WORKING"), []),
    ],
)
def test_texts_of_requests_are_messages_of_the_user(body: Any, texts: list[str]) -> None:
    assert asked(MCP, body) == [("user", text) for text in texts]
    assert redacted_request(MCP, body) == masked(body)


@pytest.mark.parametrize("content", [{"type": "text", "text": "hi"}, [{"type": "text", "text": "hi"}]])
def test_answer_of_the_clients_model_is_a_message_of_the_assistant(content: Any) -> None:
    body = answer(role="assistant", content=content, model="m", stopReason="endTurn")
    assert asked(MCP, body) == [("assistant", "hi")]
    assert redacted_request(MCP, body) == masked(body)


def test_image_of_a_client_is_not_read() -> None:
    assert asked(MCP, answer(role="assistant", content={"type": "image", "data": PNG, "mimeType": "image/png"})) == []


def test_arguments_behind_the_first_256_share_a_message() -> None:
    body = ask("tools/call", arguments={f"a{number}": {"q": "hi"} if number % 2 else "hi" for number in range(300)})
    messages = asked(MCP, body)
    assert len(messages) == 257
    assert messages[-1] == ("user", "\n".join(["hi", '{"q": "hi"}'] * 22))
    assert redacted_request(MCP, body) == masked(body)


def test_keys_of_arguments_cannot_be_redacted() -> None:
    with pytest.raises(RedactionError):
        redacted_request(MCP, ask("tools/call", arguments={"say hi": "a"}))
    with pytest.raises(RedactionError):
        redacted_request(MCP, ask("tools/call", arguments={"q": {"say hi": "a"}}))


def test_arguments_are_redacted_in_their_own_spelling() -> None:
    given = '{"q":{"n":1.50,"a":"say \\u0068i"}, "r":"{\\"b\\":\\"hi\\"}"}'
    body = f'{{"id":1,"method":"tools/call","params":{{"arguments":{given}}}}}'
    assert asked(MCP, body) == [("user", '{"n":1.50,"a":"say hi"}'), ("user", '{"b":"hi"}')]
    assert redacted_request(MCP, body) == json.loads(body.replace("\\u0068i", "[X]").replace("hi", "[X]"))


@pytest.mark.parametrize(
    "body",
    [ask("completion/complete", argument={"value": 5}), {"Method": "tools/call"}, {"method": 1, "PARAMS": {}}, 5],
)
def test_request_that_cannot_be_judged_is_unreadable(body: Any) -> None:
    with pytest.raises(MalformedBody):
        asked(MCP, body)


@pytest.mark.parametrize("text", ["Accepted", "/messages/?session_id=0123 hi", "\ufeff hi"])
def test_what_does_not_begin_like_a_message_is_plain_text(text: str) -> None:
    parsed = MCP.parse(text)
    assert [prompt.message["content"] for prompt in MCP.prompts(parsed, tools=True)] == [text]
    assert [leaf.text for leaf in MCP.deltas(parsed)] == [leaf.text for leaf in MCP.answers(parsed)] == [text]


@pytest.mark.parametrize("text", ['{"a":', ' [{"a": 1, "a": 2}]', '\ufeff{"a"}', "\0a"])
def test_broken_message_is_unreadable(text: str) -> None:
    with pytest.raises(MalformedBody):
        MCP.parse(text)


def test_foreign_line_of_a_stream_may_be_any_text() -> None:
    assert MCP.parse("{not json", is_foreign=True).root == "{not json"


def test_request_never_asks_for_a_stream() -> None:
    assert not MCP.streams(document({"stream": True}), "/mcp")


# -- answers and events ----------------------------------------------------------------------------------------------

RESULTS: list[tuple[Any, str]] = [
    (answer(content=[{"type": "text", "text": "hi a"}, {"type": "text", "text": "hi b"}]), "hi a\nhi b"),
    (
        answer(
            content=[{"type": "text", "text": '{"id": "hi", "n": 4}'}],
            structuredContent={"id": "hi", "n": 4},
            isError=False,
        ),
        '{"id": "hi", "n": 4}\n{"id": "hi", "n": 4}',
    ),
    (answer(structuredContent={"id": "hi"}), '{"id": "hi"}'),
    (
        answer(
            content=[
                {"type": "image", "data": PNG, "mimeType": "image/png", "annotations": {"audience": ["user"]}},
                {"type": "audio", "data": PNG, "mimeType": "audio/wav"},
                {"type": "resource_link", "uri": "file:///a.rs", "name": "a.rs", "description": "hi a"},
                {"type": "resource", "resource": {"uri": "note://b", "mimeType": "text/plain", "text": "hi b"}},
                {"type": "resource", "resource": {"uri": "file:///c.png", "blob": PNG}},
            ]
        ),
        "hi a\nhi b",
    ),
    (answer(contents=[{"uri": "file:///a", "mimeType": "text/plain", "text": "hi a"}, {"blob": PNG}]), "hi a"),
    (
        answer(description="hi a", messages=[{"role": "user", "content": {"type": "text", "text": "hi b"}}]),
        "hi a\nhi b",
    ),
    (
        answer(prompts=[{"name": "p", "description": "hi a", "arguments": [{"name": "b", "description": "hi c"}]}]),
        "hi a\nhi c",
    ),
    (answer(resources=[{"uri": "file:///a", "name": "a", "description": "hi"}], nextCursor="bmV4dA=="), "hi"),
    (answer(completion={"values": ["hi a", "hi b"], "total": 2, "hasMore": False}), "hi a\nhi b"),
    (
        answer(
            protocolVersion="2025-06-18",
            capabilities={"tools": {}},
            serverInfo={"name": "demo", "version": "1.2"},
            instructions="hi a",
        ),
        "hi a",
    ),
    ({"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "hi a", "data": {"b": "hi c"}}}, "hi a\nhi c"),
    (
        ask(
            "sampling/createMessage",
            messages=[{"role": "user", "content": {"type": "text", "text": "hi a"}}],
            systemPrompt="hi b",
            includeContext="thisServer",
            modelPreferences={"hints": [{"name": "claude-3"}]},
            maxTokens=9,
        ),
        "hi a\nhi b",
    ),
    (
        ask(
            "elicitation/create",
            message="hi a",
            requestedSchema={
                "type": "object",
                "properties": {"n": {"type": "string", "title": "hi b"}},
                "required": ["n"],
            },
        ),
        "hi a\nhi b",
    ),
    (
        answer(
            resultType="input_required",
            inputRequests={
                "who": {
                    "method": "elicitation/create",
                    "params": {"message": "hi", "requestedSchema": {"type": "object", "required": ["id"]}},
                }
            },
            requestState="c3RhdGU=",
        ),
        "hi",
    ),
    (tell("notifications/progress", progressToken="p", progress=0.5, message="hi"), "hi"),
    (tell("notifications/message", level="info", logger="a.b", data={"note": "hi a", "why": ["hi b"]}), "hi a\nhi b"),
    (
        [answer(content=[{"type": "text", "text": "hi a"}]), answer(content=[{"type": "text", "text": "hi b"}])],
        "hi a\nhi b",
    ),
    (
        answer(
            kind="task",
            id="t-1",
            contextId="c-1",
            status={
                "state": "input-required",
                "message": {"role": "agent", "parts": [{"kind": "text", "text": "hi a"}]},
            },
            artifacts=[{"artifactId": "a-1", "parts": [{"kind": "data", "data": {"id": "hi b"}}]}],
        ),
        'hi a\n{"id": "hi b"}',
    ),
    (
        answer(
            task={
                "id": "t-1",
                "contextId": "c-1",
                "status": {
                    "state": "TASK_STATE_INPUT_REQUIRED",
                    "timestamp": "2026-01-01T00:00:00Z",
                    "message": {"role": "ROLE_AGENT", "parts": [{"text": "hi a"}, {"raw": PNG}]},
                },
                "artifacts": [{"artifactId": "a-1", "parts": [{"data": {"id": "hi b"}}]}],
                "history": [{"role": "ROLE_USER", "parts": [{"text": "hi c"}]}],
            },
        ),
        'hi a\n{"id": "hi b"}\nhi c',
    ),
    (answer(message={"role": "ROLE_AGENT", "messageId": "m", "parts": [{"text": "hi a"}, {"raw": PNG}]}), "hi a"),
    (answer(tasks=[{"id": "t", "status": {"state": "TASK_STATE_WORKING"}, "metadata": {"a": "hi"}}]), "hi"),
    (
        answer(
            statusUpdate={
                "taskId": "t",
                "status": {"state": "TASK_STATE_FAILED", "message": {"parts": [{"text": "hi"}]}},
            }
        ),
        "hi",
    ),
]
"""Results, requests of the server and its notifications, and the one text that Aim gets of each."""


@pytest.mark.parametrize(("body", "texts"), RESULTS)
def test_texts_of_a_message_are_one(body: Any, texts: str) -> None:
    # Texts that the table names come first; as sets of lines they are the same.
    (whole,), (event,) = said(MCP, body), heard(MCP, body)
    assert sorted(whole.split("\n")) == sorted(event.split("\n")) == sorted(texts.split("\n"))
    assert redacted_answer(MCP, body) == redacted_event(MCP, body) == masked(body)


@pytest.mark.parametrize(
    "body",
    [
        ask("ping"),
        ask("roots/list"),
        answer(),
        answer(capabilities={}, serverInfo={"name": "demo", "version": "1"}, protocolVersion="2025-06-18"),
        answer(
            resultType="complete",
            cacheScope="private",
            supportedVersions=["2026-07-28"],
            _meta={"io.modelcontextprotocol/serverInfo": {"name": "demo", "version": ""}},
        ),
        tell("notifications/tools/list_changed"),
        tell("notifications/progress", progressToken=1, progress=1),
        tell("notifications/resources/updated", uri="file:///a"),
        answer(content=[{"type": "image", "data": PNG, "mimeType": "image/png"}]),
        answer(structuredContent={}),
        [],
    ],
)
def test_messages_without_text(body: Any) -> None:
    assert said(MCP, body) == heard(MCP, body) == []


def test_redaction_of_a_number_in_structured_content_is_refused() -> None:
    (leaf,) = MCP.answers(document(answer(structuredContent={"n": 1234})), locates=True)
    assert leaf.text == '{"n": 1234}'
    with pytest.raises(RedactionError):
        edits([(leaf, '{"n": [N]}')])


TOOLS = answer(
    tools=[
        {
            "name": "f",
            "title": "hi a",
            "description": "hi b",
            "inputSchema": {"type": "object", "properties": {"q": {"type": "string", "description": "hi c"}}},
        },
        {"name": "g", "description": "hi d"},
    ],
    nextCursor="bmV4dA==",
)


def test_lists_of_tools_are_read_with_inspect_tools_alone() -> None:
    request = document(ask("tools/list"))
    reads, passes = MCP.after(request, tools=True), MCP.after(request, tools=False)
    assert said(reads, TOOLS) == heard(reads, TOOLS) == said(MCP, TOOLS) == ["hi a\nhi b\nhi c\nhi d"]
    assert redacted_answer(reads, TOOLS) == redacted_event(reads, TOOLS) == masked(TOOLS)
    assert said(passes, TOOLS) == heard(passes, TOOLS) == []
    assert said(passes, answer(content=[{"text": "hi"}])) == ["hi"]


@pytest.mark.parametrize("version", ["0.3", "1.0"])
def test_pieces_of_an_artifact_are_one_running_text(version: str) -> None:
    def piece(text: str, artifact: str = "a-1") -> Any:
        parts = [{"text": text} | ({"kind": "text"} if version == "0.3" else {"mediaType": "text/plain"})]
        update = {"artifactId": artifact, "name": "hi there", "description": "hi too", "parts": parts}
        if version == "0.3":
            return answer(kind="artifact-update", taskId="t", artifact=update, append=True)
        return answer(artifactUpdate={"taskId": "t", "artifact": update, "append": True, "lastChunk": False})

    assert heard(MCP, piece("hi")) == ["hi", "hi there\nhi too"]
    assert redacted_event(MCP, piece("hi")) == masked(piece("hi"))
    first, name, second, _, other, _ = places(MCP, piece("a"), piece("b"), piece("c", "a-2"))
    assert name is None
    assert first == second != other


def test_texts_of_other_messages_continue_nothing() -> None:
    assert places(MCP, *(body for body, _ in RESULTS)) == [None] * len(RESULTS)


# -- refusals ------------------------------------------------------------------------------------------------------


def refused(root: Any) -> Mcp:
    dialect = MCP.after(Document(json.dumps(root)), tools=True)
    assert isinstance(dialect, Mcp)
    assert dialect.name == "mcp"
    return dialect


def error(of: Any, message: str = "No.") -> Any:
    return {"jsonrpc": "2.0", "id": of, "error": {"code": -32001, "message": message}}


@pytest.mark.parametrize(
    ("root", "status", "body"),
    [
        (ask("tools/call"), 200, error(1)),
        (ask("tools/call") | {"id": "a-1"}, 200, error("a-1")),
        (tell("notifications/progress"), 400, error(None)),
        (answer(content={}), 400, error(None)),
        ([ask("tools/call"), tell("notifications/progress"), ask("ping") | {"id": "b"}], 200, [error(1), error("b")]),
        ([ask("tools/call")], 200, [error(1)]),
        ([tell("notifications/progress")], 400, error(None)),
    ],
)
def test_block_answers_each_request(root: Any, status: int, body: Any) -> None:
    dialect = refused(root)
    assert dialect.status(blocked("No.")) == status
    assert json.loads(dialect.refuse(blocked("No."))) == body
    errors = body if isinstance(body, list) else [body]
    events = dialect.refuse_stream(blocked("No."), 0).decode()
    assert events == "".join(f"event: message\ndata: {json.dumps(each)}\n\n" for each in errors)
    assert dialect.refuse_lines(blocked("No.")).decode() == "".join(json.dumps(each) + "\n" for each in errors)


def test_failure_keeps_its_status() -> None:
    dialect = refused(ask("tools/call"))
    for refusal in (UNAVAILABLE, INVALID_BODY):
        assert dialect.status(refusal) == refusal.status
        assert json.loads(dialect.refuse(refusal)) == error(1, refusal.message)


def test_exchange_without_a_request_has_no_id() -> None:
    assert MCP.status(blocked("No.")) == 400
    assert json.loads(MCP.refuse(blocked("No."))) == error(None)
