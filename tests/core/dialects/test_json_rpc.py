"""JSON-RPC: which bodies belong to MCP or A2A, and which requests a refusal answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.content.document import Document
from extproc.core.dialects.json_rpc import error, read_known, request_ids
from extproc.core.errors import BodyTooLarge
from extproc.core.refusal import blocked

CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}


@pytest.mark.parametrize(
    "method",
    [
        "initialize",
        "ping",
        "server/discover",
        "subscriptions/listen",
        "logging/setLevel",
        "tools/list",
        "prompts/get",
        "resources/read",
        "sampling/createMessage",
        "elicitation/create",
        "completion/complete",
        "notifications/progress",
        "message/stream",
        "tasks/get",
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
    ],
)
def test_messages_of_mcp_and_a2a_are_known(method: str) -> None:
    body = {"jsonrpc": "2.0", "method": method}
    for root in (body, [body], [{"note": "a"}, 1, body]):
        document = read_known(json.dumps(root).encode(), None, 99)
        assert document is not None
        assert document.root == root


@pytest.mark.parametrize(
    "root",
    [
        {"jsonrpc": "2.0", "method": "eth_call"},
        {"jsonrpc": "2.0", "method": "initialized"},
        {"jsonrpc": "2.0", "method": "SendMessages"},
        {"jsonrpc": "2.0", "method": "sendMessage"},
        {"jsonrpc": "2.0", "method": "my/tools/call"},
        {"jsonrpc": "2.0", "method": ["tools/call"]},
        {"jsonrpc": "1.0", "method": "tools/call"},
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        {"method": "tools/call"},
        {"note": {"jsonrpc": "2.0", "method": "tools/call"}},
        '"jsonrpc"',
        [],
    ],
)
def test_other_bodies_are_not_known(root: Any) -> None:
    assert read_known(json.dumps(root).encode(), None, 99) is None


def test_bodies_that_cannot_be_parsed_are_not_known() -> None:
    assert read_known(b'{"jsonrpc": "2.0", "method": "tools/call"', None, 99) is None
    assert read_known(b'{"jsonrpc": "2.0", "method": "tools/call", "method": "x"}', None, 99) is None
    with pytest.raises(BodyTooLarge):
        read_known(json.dumps(CALL | {"params": ["a"] * 200}).encode(), None, 99)


def test_document_that_was_parsed_is_not_parsed_again() -> None:
    document = Document(json.dumps(CALL))
    assert read_known(document.text.encode(), document, 0) is document


@pytest.mark.parametrize(
    ("root", "ids"),
    [
        (CALL, (1,)),
        (CALL | {"id": "a b"}, ("a b",)),
        (CALL | {"id": 1.5}, (1.5,)),
        (CALL | {"id": 10**60}, (10**60,)),
        ({"jsonrpc": "2.0", "method": "notifications/progress"}, ()),
        ({"jsonrpc": "2.0", "id": 1, "result": {}}, ()),
        ({"jsonrpc": "2.0", "id": 1, "error": {}}, ()),
        (CALL | {"id": None}, ()),
        (CALL | {"id": True}, ()),
        (CALL | {"id": [1]}, ()),
        ([CALL, 5, {"id": 2}, CALL | {"id": "b"}], (1, "b")),
        ("tools/call", ()),
    ],
)
def test_ids_of_requests(root: Any, ids: tuple[Any, ...]) -> None:
    assert request_ids(root) == ids


def test_number_without_a_value_in_json_is_no_id() -> None:
    assert request_ids(Document('{"id": 1e999, "method": "tools/call"}').root) == ()


def test_ids_are_bounded() -> None:
    assert request_ids(CALL | {"id": "a" * 254}) == ("a" * 254,)
    assert request_ids(CALL | {"id": "a" * 255}) == ()
    ids = request_ids([CALL | {"id": f"{number:098}"} for number in range(100)])
    assert len(ids) == 40  # 4,096 characters in all
    assert ids[-1] == f"{39:098}"


def test_error_has_the_id_as_its_json_value() -> None:
    assert error(blocked("No."), 7) == {"jsonrpc": "2.0", "id": 7, "error": {"code": -32001, "message": "No."}}
    assert error(blocked("No."), None)["id"] is None
