"""JSON-RPC 2.0: which messages belong to MCP or A2A, and the errors that answer requests.

Source: the JSON-RPC 2.0 specification, sections 4 to 6. A batch is an array of messages.
"""

from __future__ import annotations

import json
import math
from typing import Any, TypeGuard

from extproc.core.content.document import Document, fields
from extproc.core.errors import MalformedBody
from extproc.core.refusal import Refusal

Id = str | int | float
"""The id of a request. The specification discourages null, and MCP forbids it."""

ERROR_CODE = -32001
"""The code of every refusal. The specification leaves -32000 to -32099 to implementations."""

_METHODS = (
    "tools/",
    "prompts/",
    "resources/",
    "sampling/",
    "elicitation/",
    "completion/",
    "logging/",
    "notifications/",
    "subscriptions/",
    "message/",
    "tasks/",
)
"""What the methods of MCP and A2A begin with."""

_ALONE = frozenset(
    {
        "initialize",
        "ping",
        "server/discover",
        "agent/getAuthenticatedExtendedCard",
        "SendMessage",
        "SendStreamingMessage",
        "GetTask",
        "ListTasks",
        "CancelTask",
        "SubscribeToTask",
        "CreateTaskPushNotificationConfig",
        "GetTaskPushNotificationConfig",
        "ListTaskPushNotificationConfigs",
        "DeleteTaskPushNotificationConfig",
        "GetExtendedAgentCard",
    }
)
"""Their methods that do not begin so; among them those of A2A from version 1.0 on."""

_ID_CHARACTERS = 256
_ALL_CHARACTERS = 4096
"""The longest id, and the most characters of all ids of a batch, that are kept for a refusal. Clients choose them."""


def messages(root: Any) -> list[Any]:
    """Return the messages of a document: those of a batch, or the one that it is."""
    return root if isinstance(root, list) else [root]


def read_known(body: bytes, document: Document | None, values: int) -> Document | None:
    """Return the document of a body that is a message of MCP or A2A, or a batch with one; None for any other body.

    `document` is the body if it was parsed before. Raises BodyTooLarge for a document of more than `values` values.
    """
    if b'"jsonrpc"' not in body:
        return None
    try:
        document = document or Document.from_bytes(body, values)
    except MalformedBody:
        return None
    return document if any(map(_is_known, messages(document.root))) else None


def _is_known(message: Any) -> bool:
    method = fields(message).get("method")
    if not isinstance(method, str) or message.get("jsonrpc") != "2.0":
        return False
    return method in _ALONE or method.startswith(_METHODS)


def request_ids(root: Any) -> tuple[Id, ...]:
    """Return the ids of the requests among the messages of a document: notifications and results await no answer."""
    found: list[Id] = []
    left = _ALL_CHARACTERS
    for message in messages(root):
        each = fields(message).get("id")
        if _is_id(each) and "method" in message:
            size = len(json.dumps(each))
            if size <= min(_ID_CHARACTERS, left):
                left -= size
                found.append(each)
    return tuple(found)


def _is_id(value: Any) -> TypeGuard[Id]:
    return type(value) in (str, int) or (type(value) is float and math.isfinite(value))


def error(refusal: Refusal, of: Id | None) -> Any:
    """Return the answer that refuses the request with this id; None: one that is unknown, or no request."""
    return {"jsonrpc": "2.0", "id": of, "error": {"code": ERROR_CODE, "message": refusal.message}}
