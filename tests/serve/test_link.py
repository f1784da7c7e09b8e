"""What ties a worker to its supervisor."""

from __future__ import annotations

import socket

import pytest

from extproc.serve.link import Link


@pytest.mark.parametrize("is_unread", [True, False])
async def test_a_message_to_a_peer_that_is_gone_is_lost(is_unread: bool) -> None:
    ours, theirs = socket.socketpair()
    link = await Link.over(ours)
    if is_unread:
        link.send(True)
    theirs.close()
    if not is_unread:
        link.send("a message that nobody reads")
    with pytest.raises(EOFError):
        await link.receive()
    link.send(False)
    link.close()
