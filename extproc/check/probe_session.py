"""Probes a session: submits one harmless answer in short chunks, and keeps what Aim sends back.

All chunks are submitted at once. What Aim holds back when it has fallen silent, before it is told that no more chunks
follow, is its look-ahead.
"""

from __future__ import annotations

import asyncio

from extproc.aim.client import AimClient, Caller
from extproc.check.failure import failed
from extproc.check.finding import Finding, error, warning
from extproc.check.heard import LENGTH, WORDS, Heard, findings_on
from extproc.config.settings import Settings
from extproc.core.chunk import chunk_of
from extproc.core.errors import Reason
from extproc.core.events import ChunkVerified, Event, SessionDone, SessionFailed, StreamBlocked

_QUIET_SECONDS = 3.0
"""Aim has fallen silent if it sends nothing for so long."""

_PATIENCES = 5
"""The whole session may take this many times the limit of a question."""

_Events = asyncio.Queue[Event | None]
"""The events of the session; None says that it is open."""


async def probe_session(
    client: AimClient, caller: Caller, settings: Settings, where: str, key: str, seconds: float
) -> list[Finding]:
    """Return how Aim behaves in a session; it has `seconds` to open it, and as many to verify the last chunk."""
    where = f"{where}, session"
    events: _Events = asyncio.Queue()
    session = client.open_session(1, caller, events.put_nowait, lambda: events.put_nowait(None))
    for number, word in enumerate(WORDS, 1):
        session.submit(chunk_of("probe", 0, word, number))
    heard: list[Heard] = []
    early = 0
    try:
        async with asyncio.timeout(_PATIENCES * seconds):
            last = await events.get()  # the client limits the opening
            if last is None:
                last = await _hear(events, heard, min(seconds, _QUIET_SECONDS), is_done=False)
            early = len(heard)
            if isinstance(last, SessionDone):
                what = "Aim ends a session before it is told that no more chunks follow"
                return [error(where, what, "every streamed answer fails: report it to Aim")]
            if last is None:
                session.done()
                last = await _hear(events, heard, seconds, is_done=True)
    except TimeoutError:
        last = None
    finally:
        session.close()
    match last:
        case SessionDone():
            return findings_on(heard, early, settings, where)
        case SessionFailed(reason=reason):
            return [failed(reason, where, key)]
        case StreamBlocked():
            what = "this policy blocks a harmless answer, so the probe cannot tell how Aim verifies streams"
            return [warning(where, what, "use a key whose policy allows small talk")]
        case _:
            return [failed(Reason.TIMEOUT, where, key)]


async def _hear(events: _Events, heard: list[Heard], seconds: float, *, is_done: bool) -> Event | None:
    """Append verified chunks to `heard`, and return the first other event.

    Returns None after `seconds` of silence and, before Aim is told the end (`is_done`), once all text is verified.
    """
    missing = LENGTH - sum(len(each.text) for each in heard)
    while is_done or missing > 0:
        try:
            async with asyncio.timeout(seconds):
                event = await events.get()
        except TimeoutError:
            return None
        if isinstance(event, ChunkVerified):
            text = "".join(text or "" for index, text in event.texts if index == 0)
            heard.append(Heard(text, event.chunk))
            missing -= len(text)
        elif event is not None:
            return event
    return None
