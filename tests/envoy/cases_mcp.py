"""The rows of MCP: the usual ones, streams in pieces of any size, streams of the server's, batches, notifications."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.envoy.apis import Api, data, js
from tests.envoy.case import BLOCKED, NEVER, TAGGED, UNAVAILABLE, Case, Ended, Refused, Said, blocks, fails, streams
from tests.envoy.cases_dialects import usual
from tests.envoy.cases_others import in_pieces

_END = b"\r\n\r\n"


class Mcp(Api):
    """A call of a tool. A stream has a log message for each text, and then a result without text."""

    name = "mcp"
    path = "/mcp"
    tail = 1

    def __init__(self, of: Any = 1) -> None:
        """Refuse the request with the id `of`, or the requests with these ids."""
        self._of = of

    def request(self, *texts: str, stream: bool = False) -> bytes:
        return js(self.call(*texts))

    @staticmethod
    def call(*texts: str, of: Any = 1) -> Any:
        arguments = {f"text_{number}": text for number, text in enumerate(texts)}
        return {"jsonrpc": "2.0", "id": of, "method": "tools/call", "params": {"name": "f", "arguments": arguments}}

    @staticmethod
    def result(*texts: str, of: Any = 1) -> Any:
        content = [{"type": "text", "text": text} for text in texts]
        return {"jsonrpc": "2.0", "id": of, "result": {"content": content, "isError": False}}

    @staticmethod
    def log(text: str) -> Any:
        return {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": text}}

    def answer(self, *texts: str) -> bytes:
        return js(self.result(*texts))

    def events(self, *texts: str) -> list[bytes]:
        logs = [data(self.log(text), "message", _END) for text in texts]
        return [*logs, data(self.result(), "message", _END)]

    def refusal(self, status: int, code: str, message: str) -> Any:
        if isinstance(self._of, list):
            return [self._error(each, message) for each in self._of]
        return self._error(self._of, message)

    @staticmethod
    def _error(of: Any, message: str) -> Any:
        return {"jsonrpc": "2.0", "id": of, "error": {"code": -32001, "message": message}}

    def ending(self, status: int, code: str, message: str, sequence: int) -> bytes:
        return data(self.refusal(status, code, message), "message")


MCP = Mcp()
SERVERS = Mcp(None)
"""Messages that answer no request."""


def _answered(row: Case) -> Case:
    """Return a row with the status that a block of a request has here."""
    return replace(row, status=200) if row.client == BLOCKED or row.rig == "teapot" else row


_PING = b": ping - 2025-06-18 10:00:00.123456+00:00\r\n\r\n"
_TOLD = [data(MCP.log(text), "message", _END) for text in ("One", "Two Jane", "a secret")]
_SAMPLING = {
    "jsonrpc": "2.0",
    "id": "s-1",
    "method": "sampling/createMessage",
    "params": {
        "messages": [{"role": "user", "content": {"type": "text", "text": "I am Jane"}}],
        "systemPrompt": "Jane?",
    },
}
_STRUCTURED = js(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "result": {"content": [{"type": "text", "text": '{"id": "Jane"}'}], "structuredContent": {"id": "Jane"}},
    }
)
_INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "mcp", "version": "1.0"}},
}
_INITIALIZED = {
    "jsonrpc": "2.0",
    "id": 0,
    "result": {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "demo", "version": "1.0"}},
}
_NOTE = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1, "reason": "a secret"}}
_SAMPLED = {
    "jsonrpc": "2.0",
    "id": "s-1",
    "result": {"role": "assistant", "content": {"type": "text", "text": "I am Jane"}},
}
_ARTIFACT = [
    js(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "result": {"kind": "artifact-update", "artifact": {"artifactId": "a", "parts": [part]}},
        }
    )
    for part in ({"kind": "text", "text": text} for text in ("I am Ja", "ne."))
]
_UPDATES = [
    js({"jsonrpc": "2.0", "id": 1, "result": {"artifactUpdate": {"artifact": {"artifactId": "a", "parts": [part]}}}})
    for part in ({"text": text} for text in ("I am ", "Jane", "."))
]
_ASK_A2A = {"role": "ROLE_USER", "messageId": "m-1", "parts": [{"text": "Hello"}]}
_SAY_A2A = js({"jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage", "params": {"message": _ASK_A2A}})
_A2A = {"role": "user", "kind": "message", "messageId": "m-1", "parts": [{"kind": "text", "text": "Hello"}]}
_ASKED = ("pre_call", "Hello")

OWN_ROWS = [
    Case("an exchange without text is not asked about", MCP, js(_INITIALIZE), Said(js(_INITIALIZED))),
    Case(
        "a stream without text is not asked about",
        MCP,
        js(_INITIALIZE),
        streams(_PING, data(_INITIALIZED, "message", _END)),
    ),
    Case(
        "a notification without text is not asked about",
        MCP,
        js({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        Said(b"", None, 202),
        status=202,
    ),
    Case("the end of a session passes", MCP, None, Said(None, None, 204), method="DELETE", status=204, has_id=False),
    Case(
        "a call on any path is known by its body",
        MCP,
        MCP.request("a secret"),
        aim=blocks("secret"),
        path="/tools/of/anyone",
        client=BLOCKED,
        upstream=NEVER,
        asked=[("pre_call", "a secret")],
    ),
    Case(
        "a stream of the server's passes",
        SERVERS,
        None,
        streams(_PING, *_TOLD),
        method="GET",
        asked=[("stream", "One", "Two Jane", "a secret")],
    ),
    Case("a stream of the server's without text", SERVERS, None, streams(_PING, _PING), method="GET"),
    Case(
        "a stream of the server's is redacted, its own requests too",
        SERVERS,
        None,
        streams(*_TOLD, data(_SAMPLING, "message", _END)),
        TAGGED,
        rig="firewall",
        method="GET",
        client=b"".join((*_TOLD, data(_SAMPLING, "message", _END))).replace(b"Jane", b"[NAME_1]"),
        asked=[("stream", "One", "Two Jane", "a secret", "I am Jane\nJane?")],
    ),
    Case(
        "a stream of the server's is blocked in its midst",
        SERVERS,
        None,
        streams(*_TOLD),
        blocks("secret"),
        method="GET",
        client=Ended(b"".join(_TOLD[:2]), "content_policy_violation", "Not that."),
        asked=[("stream", "One", "Two Jane", "a secret")],
    ),
    Case(
        "a stream of the server's is blocked at its first text",
        SERVERS,
        None,
        streams(_TOLD[2]),
        blocks("secret"),
        method="GET",
        status=400,
        client=BLOCKED,
        asked=[("stream", "a secret")],
    ),
    Case(
        "text and structured content are redacted alike",
        MCP,
        MCP.request("Hello"),
        Said(_STRUCTURED),
        TAGGED,
        rig="firewall",
        client=_STRUCTURED.replace(b"Jane", b"[NAME_1]"),
        asked=[_ASKED, ("output", "Hello", '{"id": "Jane"}\n{"id": "Jane"}')],
    ),
    Case(
        "a notification is blocked",
        SERVERS,
        js(_NOTE),
        aim=blocks("secret"),
        status=400,
        client=BLOCKED,
        upstream=NEVER,
        asked=[("pre_call", "a secret")],
    ),
    Case(
        "a result of the client is redacted",
        MCP,
        js(_SAMPLED),
        Said(b"", None, 202),
        TAGGED,
        rig="firewall",
        status=202,
        upstream=js(_SAMPLED).replace(b"Jane", b"[NAME_1]"),
        asked=[("pre_call", "I am Jane")],
    ),
    Case(
        "a result of the client is blocked",
        SERVERS,
        js(_SAMPLED),
        aim=blocks("Jane"),
        status=400,
        client=BLOCKED,
        upstream=NEVER,
        asked=[("pre_call", "I am Jane")],
    ),
    Case(
        "a batch passes",
        MCP,
        js([MCP.call("Hello"), MCP.call("again", of="b")]),
        Said(js([MCP.result("Hi"), MCP.result("there", of="b")])),
        asked=[("pre_call", "Hello", "again"), ("output", "Hello", "again", "Hi\nthere")],
    ),
    Case(
        "a batch is blocked: each of its requests gets an error",
        Mcp([1, "b"]),
        js([MCP.call("Hello"), _NOTE, MCP.call("again", of="b")]),
        aim=blocks("secret"),
        client=BLOCKED,
        upstream=NEVER,
        asked=[("pre_call", "Hello", "a secret", "again")],
    ),
    Case(
        "Aim down for a batch: closed",
        Mcp([1, "b"]),
        js([MCP.call("Hello"), MCP.call("again", of="b")]),
        aim=fails(),
        status=503,
        client=Refused("guardrail_unavailable", "The AI security service is unavailable."),
        upstream=NEVER,
        asked=[("pre_call", "Hello", "again")],
    ),
    Case(
        "Aim down for a notification: closed",
        SERVERS,
        js(_NOTE),
        aim=fails(),
        status=503,
        client=UNAVAILABLE,
        upstream=NEVER,
        asked=[("pre_call", "a secret")],
    ),
    Case(
        "a message that is no JSON is refused",
        SERVERS,
        b'{"jsonrpc": "2.0", "id": 1',
        status=400,
        client=Refused("invalid_body"),
        upstream=NEVER,
    ),
    Case(
        "the pieces of an artifact of A2A are one text",
        MCP,
        js({"jsonrpc": "2.0", "id": 1, "method": "message/stream", "params": {"message": _A2A}}),
        streams(*(b"data: " + piece + b"\n\n" for piece in _ARTIFACT)),
        blocks("I am Ja"),
        client=BLOCKED,
        asked=[_ASKED, ("stream", "I am Ja")],
    ),
    *(
        Case(
            f"a stream of A2A 1.0 is redacted on {path}",
            MCP,
            _SAY_A2A,
            streams(*(b"data: " + update + b"\n\n" for update in _UPDATES)),
            TAGGED,
            path=path,
            rig="firewall",
            client=b"".join(b"data: " + update + b"\n\n" for update in _UPDATES).replace(b"Jane", b"[NAME_1]"),
            asked=[_ASKED, ("stream", "I am ", "Jane", ".")],
        )
        for path in ("/mcp", "/agents/weather")
    ),
    Case(
        "a message of A2A 1.0 is blocked on any path",
        MCP,
        _SAY_A2A.replace(b"Hello", b"a secret"),
        aim=blocks("secret"),
        path="/agents/weather/a2a",
        client=BLOCKED,
        upstream=NEVER,
        asked=[("pre_call", "a secret")],
    ),
]

ROWS = [*map(_answered, (*usual(MCP), *in_pieces(MCP))), *OWN_ROWS]
