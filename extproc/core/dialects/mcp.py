"""The Model Context Protocol over streamable HTTP, and A2A, which uses JSON-RPC in the same way.

Sources: the specifications of MCP ("Transports", "Tools", "Prompts", "Resources", "Sampling", "Elicitation") and of
A2A: "Protocol Data Objects" of version 0.3, and `lf.a2a.v1` of version 1.0, whose parts have no `kind` and whose
results name what they hold. A body, and each event of a stream, is one JSON-RPC message or a batch. Both sides send
requests, results and notifications.

Aim gets each argument as a message of the user. All texts of a result are one text: MCP repeats structured content as
a text, and what is redacted in one of them must be redacted in the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from extproc.core.content.census import MAX_VALUES
from extproc.core.content.document import Document, fields
from extproc.core.dialects.base import Dialect, short_name
from extproc.core.dialects.found import Mode
from extproc.core.dialects.joined import Joined
from extproc.core.dialects.json_rpc import Id, error, request_ids
from extproc.core.dialects.leaf import Leaf, Prompt
from extproc.core.dialects.rules import COMMON, Rule, arguments, inert, media, opaque, text, tools, unnamed, url
from extproc.core.dialects.table import Table
from extproc.core.dialects.walk import Walk
from extproc.core.refusal import BLOCKED_CODE, Refusal

_NAMES = (
    inert(
        "jsonrpc",
        "method",
        "**.kind",
        "**.*Id",
        "**.*Ids",
        "**.*Type",
        "**.protocolVersion",
        "**.progressToken",
        "**.stopReason",
        "**.uri",
        "**.uriTemplate",
        "**.audience",
        "**.cacheScope",
        "**.lastModified",
        "**.supportedVersions",
        "**.tenant",
        "**.timestamp",
    ),
    media("**.blob", "**.src"),
    opaque("**.cursor", "**.nextCursor", "**.nextPageToken", "**.pageToken", "**.requestState"),
    url("**.extensions"),
)
"""Names that mean the same in every message."""


def _metadata(place: str) -> Rule:
    """Return the rule of the metadata of a request, a notification or a result. It names the two programs."""
    return inert(f"{place}._meta.*", f"{place}._meta.*.name")


def _parts(*places: str, role: str = "") -> tuple[Rule, ...]:
    """Return the rules of parts of A2A's messages and artifacts."""
    return (
        media(*(f"{place}.parts[].{name}" for place in places for name in ("file.bytes", "raw"))),
        arguments(*(f"{place}.parts[].data" for place in places), role=role),
    )


def _task(*places: str) -> tuple[Rule, ...]:
    """Return the rules of A2A's tasks."""
    return (
        inert(*(f"{place}.status.state" for place in places)),
        *_parts(*(f"{place}.{name}" for place in places for name in ("status.message", "history[]", "artifacts[]"))),
    )


def _notified(*places: str) -> tuple[Rule, ...]:
    """Return the rules of where A2A's agents send notifications, and of the credentials for that."""
    return (
        inert(*(f"{place}.authentication.{name}" for place in places for name in ("scheme", "schemes[]"))),
        opaque(*(f"{place}.{name}" for place in places for name in ("token", "authentication.credentials"))),
    )


def _speaker(result: Mapping[str, Any], base: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the message that the texts of a client's result become: a model's answer, or what the user said."""
    return {"role": "assistant"} if result.get("role") == "assistant" else base


def _client_result(place: str) -> tuple[Rule, ...]:
    """Return the rules of what a client answers to the server: to a question for its model, or for its user."""
    return (
        unnamed(place, speaker=_speaker),
        arguments(f"{place}.content.*", role="user"),
        text(f"{place}.content.text"),
        inert(
            f"{place}.action",
            f"{place}.content.type",
            f"{place}.content.mimeType",
            f"{place}.roots[].name",
        ),
        media(f"{place}.content.data"),
    )


def _server_request(place: str) -> tuple[Rule, ...]:
    """Return the rules of the parameters of what a server asks the client."""
    return (
        inert(
            f"{place}.includeContext",
            f"{place}.mode",
            f"{place}.modelPreferences.hints[].name",
            f"{place}.requestedSchema.required[]",
            f"{place}.toolChoice.mode",
        ),
        tools(f"{place}.tools[]"),
        media(f"{place}.messages[].content.data"),
    )


_REQUEST = Table(
    *COMMON,
    *_NAMES,
    _metadata("params"),
    _metadata("result"),
    arguments("params.arguments.*", "params.context.arguments.*", role="user"),
    text("params.argument.value"),
    inert(
        "params.name",
        "params.level",
        "params.argument.name",
        "params.ref.name",
        "params.clientInfo.name",
        "params.configuration.acceptedOutputModes[]",
    ),
    *_parts("params.message", role="user"),
    *_notified(
        "params",
        "params.pushNotificationConfig",
        "params.configuration.pushNotificationConfig",
        "params.configuration.taskPushNotificationConfig",
    ),
    *_client_result("result"),
    *_client_result("params.inputResponses.*"),
)

_ANSWER = Table(
    *COMMON,
    *_NAMES,
    _metadata("params"),
    _metadata("result"),
    inert(
        "result.serverInfo.name",
        "result.content[].name",
        "result.prompts[].name",
        "result.prompts[].arguments[].name",
        "result.resources[].name",
        "result.resourceTemplates[].name",
        "result.inputRequests.*.method",
        "params.level",
        "params.logger",
    ),
    tools("result.tools[]"),
    arguments("result.structuredContent"),
    media("result.content[].data", "result.messages[].content.data"),
    *_server_request("params"),
    *_server_request("result.inputRequests.*.params"),
    # A2A sends an artifact piece by piece.
    text("result.artifact.parts[].text", "result.artifactUpdate.artifact.parts[].text"),
    *_parts("result", "result.message", "result.artifact", "result.artifactUpdate.artifact"),
    *_task("result", "result.task", "result.tasks[]", "result.statusUpdate"),
    *_notified("result", "result.pushNotificationConfig", "result.configs[]"),
)


class Mcp(Dialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`. After a request it knows whom a refusal must answer."""

    name = "mcp"
    is_often_silent = True
    request = _REQUEST
    answer = event = _ANSWER

    def __init__(self, ids: tuple[Id, ...] = (), *, is_batch: bool = False, has_tools: bool = True) -> None:
        """Answer the requests with these ids. With `has_tools` the definitions in lists of tools are read."""
        self._ids = ids
        self._is_batch = is_batch
        self._has_tools = has_tools

    def after(self, request: Document, *, tools: bool) -> Dialect:
        """Return the dialect of the answer to a request."""
        return Mcp(request_ids(request.root), is_batch=isinstance(request.root, list), has_tools=tools)

    def parse(
        self, text: str, values: int = MAX_VALUES, *, is_foreign: bool = False, is_event: bool = False
    ) -> Document:
        """Return a document. Servers of older versions send words and paths, which do not begin like a message."""
        begins = text.lstrip("\ufeff \t\r\n")[:1]
        return super().parse(text, values, is_foreign=is_foreign or begins not in ("{", "["), is_event=is_event)

    def prompts(self, document: Document, *, tools: bool, locates: bool = False) -> list[Prompt]:
        """Return the texts of the request's messages, each as one of Aim's. A batch may have none."""
        if isinstance(document.root, list):
            found = Walk(self.request, Mode.REQUEST, wants_tools=tools, locates=locates).run(document)
            return found.prompts
        return super().prompts(document, tools=tools, locates=locates)

    def streams(self, document: Document, path: str) -> bool:
        """Return False: the server decides whether it answers with a stream."""
        return False

    def answers(self, document: Document, *, locates: bool = False) -> list[Leaf]:
        """Return the texts of an answer, as one."""
        return _one(self._walk(Mode.ANSWER, document, locates=locates), locates=locates)

    def deltas(self, document: Document, *, locates: bool = False) -> list[Leaf]:
        """Return the texts of one event, as one, and the pieces of an artifact."""
        leaves = self._walk(Mode.EVENT, document, locates=locates)
        result = fields(fields(document.root).get("result"))
        artifact = fields(fields(result.get("artifactUpdate", result)).get("artifact"))
        pieces = [leaf for leaf in leaves if _is_piece(leaf)]
        name = short_name(artifact.get("artifactId"))
        for leaf in pieces:
            leaf.place = ("artifact", name, leaf.path[-2])
        found = [*pieces, *_one([leaf for leaf in leaves if not _is_piece(leaf)], locates=locates)]
        return [replace(leaf, number=number) for number, leaf in enumerate(found)]

    def _walk(self, mode: Mode, document: Document, *, locates: bool) -> list[Leaf]:
        return Walk(self.answer, mode, wants_tools=self._has_tools, locates=locates).run(document).leaves

    def status(self, refusal: Refusal) -> int:
        """Return the status of a refusal: an error of JSON-RPC that answers a request is no failure of HTTP."""
        return 200 if self._ids and refusal.code == BLOCKED_CODE else refusal.http_status

    def refuse(self, refusal: Refusal) -> bytes:
        """Return an error for each request, in an array if they came in one; one without an id if there is none."""
        errors = self._errors(refusal)
        return json.dumps(errors if self._is_batch and self._ids else errors[0]).encode()

    def refuse_stream(self, refusal: Refusal, sequence: int) -> bytes:
        """Return the same as events. Clients of MCP expect one message in each."""
        return b"".join(b"event: message\ndata: %b\n\n" % json.dumps(each).encode() for each in self._errors(refusal))

    def refuse_lines(self, refusal: Refusal) -> bytes:
        """Return the same as lines."""
        return b"".join(json.dumps(each).encode() + b"\n" for each in self._errors(refusal))

    def _errors(self, refusal: Refusal) -> list[Any]:
        return [error(refusal, each) for each in self._ids or (None,)]


def _is_piece(leaf: Leaf) -> bool:
    """Return whether a text of an event is a piece of A2A's artifact."""
    match leaf.path:
        case ("result", "artifact", "parts", int(), "text"):
            return True
        case ("result", "artifactUpdate", "artifact", "parts", int(), "text"):
            return True
        case _:
            return False


def _one(leaves: list[Leaf], *, locates: bool) -> list[Leaf]:
    """Return several texts as one, each beginning a line."""
    if len(leaves) < 2:
        return leaves
    joined = Joined(locates=locates)
    for leaf in leaves:
        joined.add(leaf)
    return [joined.leaf()]
