"""The link between a worker and its supervisor."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from extproc.core.commands import ReportFailOpen, ReportVerdict
from extproc.core.errors import Reason
from extproc.core.verdict import Block, Failed
from extproc.core.vocabulary import Hook, Leg
from extproc.serve.link import Link, Message, ReadinessChanged, Reload, SnapshotTaken, TakeSnapshot
from extproc.telemetry.activity import Activity
from extproc.telemetry.record import ExchangeRecord
from extproc.telemetry.snapshot import Phase, Snapshot, Worker


def snapshot() -> Snapshot:
    """Return a snapshot with something in every field."""
    activity = Activity()
    record = ExchangeRecord("call", "default", "openai-chat")
    for command in (
        ReportVerdict(Leg.REQUEST, Hook.PRE_CALL, (Block("no", ("PII", "</script>")),)),
        ReportVerdict(Leg.RESPONSE, Hook.OUTPUT, (Failed(Reason.KEY_REFUSED),)),
        ReportFailOpen(Leg.REQUEST, Reason.TIMEOUT),
    ):
        activity.report(record, command)
    activity.waited(0.02)
    activity.detected("pre_call", 0.01)
    activity.unmatched.count(ExchangeRecord("call", "default"), "GET", "/users/{id}")
    activity.finished(ExchangeRecord("call", "default", outcome="refused", code="path_not_allowed"))
    activity.finished(record)
    activity.reloaded(
        problems=["colour: unknown setting", "aim.ca_file: cannot read /x\udcff"], restart_needed=["workers"]
    )
    return activity.snapshot(Worker(1, Phase.UNREADY, activity.started, 2, 1, 10, True, False, activity.reload))


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[Link, Link]]:
    ours, theirs = socket.socketpair()
    links = await Link.over(ours), await Link.over(theirs)
    try:
        yield links
    finally:
        for link in links:
            link.close()


@pytest.mark.parametrize(
    "message", [ReadinessChanged(True), ReadinessChanged(False), SnapshotTaken(snapshot()), TakeSnapshot(), Reload()]
)
async def test_message_arrives_as_it_was_sent(message: Message) -> None:
    async with linked() as (one, other):
        one.send(message)
        assert await other.receive() == message


@pytest.mark.parametrize("data", [b"", b"\xff", b"{}", b'{"kind": "stop"}', b'{"kind": "snapshot_taken"}', b"[" * 9999])
async def test_malformed_message_is_logged_and_skipped(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    link = await Link.over(ours)
    with theirs, capture_logs() as logs:
        for message in (data, b'{"kind": "reload"}'):
            theirs.sendall(len(message).to_bytes(4) + message)
        assert await link.receive() == Reload()
    assert [record["event"] for record in logs] == ["internal_error"]
    link.close()


@pytest.mark.parametrize("is_unread", [True, False])
async def test_message_to_a_peer_that_is_gone_is_lost(is_unread: bool) -> None:
    ours, theirs = socket.socketpair()
    link = await Link.over(ours)
    if is_unread:
        link.send(Reload())
    theirs.close()
    if not is_unread:
        link.send(Reload())
    with pytest.raises(EOFError):
        await link.receive()
    link.send(Reload())
    link.close()


async def test_peer_that_leaves_within_a_message_is_gone() -> None:
    ours, theirs = socket.socketpair()
    link = await Link.over(ours)
    theirs.sendall((100).to_bytes(4) + b"{")
    theirs.close()
    with pytest.raises(EOFError):
        await link.receive()
    link.close()
