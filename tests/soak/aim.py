"""The soak's Aim: it blocks FORBIDDEN, redacts PRIVATE, verifies and journals the rest, and fails as ordered.

The soak writes the current fault to a file (`Orders`), so that it also applies to a restarted process.

    python -m tests.soak.aim PORT ORDERS JOURNAL LAG
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tests.fakes.aim import AimSession, Answer, Question, ScriptedAim, anonymize
from tests.soak.journal import JUDGED, REFUSED_KEY, VERIFIED, Journal
from tests.soak.script import BARE, FORBIDDEN, GONE, MARK, PRIVATE

SILENT_SECONDS: Final = 60.0
"""Longer than any part of the chain waits."""

_SHARE = 0.5
"""The share of sessions that a fault cuts or leaves without an answer. The others continue."""


@dataclass(frozen=True, slots=True)
class Orders:
    """Aim's current fault, one of the names below or "", and the keys that it accepts."""

    fault: str = ""
    keys: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        """Write the orders to the file at `path`."""
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self)))
        new.rename(path)

    @classmethod
    def read(cls, path: Path) -> Orders:
        """Read the orders from the file at `path`."""
        given = json.loads(path.read_text())
        return cls(given["fault"], tuple(given["keys"]))


SERVER_ERROR, RATE_LIMITED, KEY_REFUSED, SILENT = "server_error", "rate_limited", "key_refused", "silent"
UNREADABLE, UNKNOWN_ACTION = "unreadable", "unknown_action"
SESSIONS_CUT, SESSIONS_SILENT, SESSIONS_UNKNOWN = "sessions_cut", "sessions_silent", "sessions_unknown_frame"
SLOWER = "slower"

_LATE_SECONDS = 1.0
"""By how much a session may catch up."""

_SLOWER = 6
"""How many times longer everything takes when Aim is slower than usual. No part of the chain may mind."""

_STATUS = {SERVER_ERROR: 503, RATE_LIMITED: 429, KEY_REFUSED: 401}


class SoakAim:
    """The judge and the script of a `ScriptedAim`."""

    def __init__(self, aim: ScriptedAim, orders: Path, journal: Journal, lag: float) -> None:
        """Serve through `aim`. A session verifies one chunk every `lag` seconds, and reads no further meanwhile."""
        self._lag = lag
        self._aim = aim
        self._path = orders
        self._seen = 0
        self._orders = Orders()
        self._journal = journal
        aim.judge, aim.script, aim.handshake = self.judge, self.script, self.handshake

    @property
    def orders(self) -> Orders:
        """The orders in force."""
        changed = self._path.stat().st_mtime_ns
        if changed != self._seen:
            self._seen, self._orders = changed, Orders.read(self._path)
        return self._orders

    async def judge(self, question: Question) -> Answer:
        """Answer one REST call."""
        self._aim.questions.clear()
        if (status := self._refusal(question.headers)) is not None:
            # The retry-after of a 429 is a second, so that the client retries as often as it may.
            return status, {"detail": "no"}, {"retry-after": "1"}
        match self.orders.fault:
            case "silent":
                await asyncio.sleep(SILENT_SECONDS)
            case "unreadable":
                return b"<html>"
            case "unknown_action":
                return {"required_action": {"action_type": "shrug_action"}}
        texts = [text for text in question.texts if isinstance(text, str)]
        judged = texts if question.hook != "output" else texts[-1:]
        if any(FORBIDDEN in text for text in judged):
            self._note_judged(judged)
            return {"required_action": {"action_type": "block_action", "detection_message": "Not that."}}
        self._verify(judged)
        if any(PRIVATE in text for text in judged):
            self._note_judged(judged)
            return anonymize(question, lambda text: text.replace(PRIVATE, GONE))
        return {"analysis_result": {"policy_drill_down": {}}, "required_action": None}

    async def handshake(self) -> int | None:
        """Refuse a session, or let it open."""
        self._aim.sessions[:] = [session for session in self._aim.sessions if not session.closed.is_set()]
        if self.orders.fault == SILENT:
            await asyncio.sleep(SILENT_SECONDS)
        return _STATUS.get(self.orders.fault)

    async def script(self, session: AimSession) -> None:
        """Judge one stream, in one of three manners: at once, one chunk late, two chunks at a time."""
        if self._refusal(session.headers) is not None:
            session.abort()
            return
        held: list[dict[str, Any]] = []
        due = 0.0
        manner, is_spared = random.randrange(3), random.random() > _SHARE
        while (chunk := await session.receive()) is not None:
            session.chunks.clear()
            fault = self.orders.fault
            if not is_spared and fault == SESSIONS_CUT:
                session.abort()
                return
            if not is_spared and fault == SESSIONS_UNKNOWN:
                await session.socket.send_str('{"shrug": true}')
                return
            if any(FORBIDDEN in text for text in texts_of(chunk)):
                # Like Aim's, the message quotes what was found.
                await session.block(f"Found '{next(texts_of(chunk))}'.")
                self._note_judged(texts_of(chunk))
                return
            held.append(chunk)
            if fault == SILENT or (not is_spared and fault == SESSIONS_SILENT):
                continue
            for verified in released(held, manner):
                due = await self._take_time(due)
                await self._release(session, verified)
        if session.is_done and self.orders.fault != SILENT:
            for chunk in held:
                due = await self._take_time(due)
                await self._release(session, chunk)
            await session.done()

    async def _take_time(self, due: float) -> float:
        """Wait as long as one chunk takes, after the last one, which was `due`; return when this one is due.

        A chunk that is late, because the machine is busy, makes the next ones come earlier.
        """
        now = asyncio.get_running_loop().time()
        due = max(due + self._lag * (_SLOWER if self.orders.fault == SLOWER else 1), now - _LATE_SECONDS)
        if self._lag and due > now:
            await asyncio.sleep(due - now)
        return due

    async def _release(self, session: AimSession, chunk: dict[str, Any]) -> None:
        self._verify(texts_of(chunk))
        await session.verify(redacted(chunk))
        self._note_judged(texts_of(chunk))

    def _verify(self, texts: Any) -> None:
        self._journal.note(VERIFIED, (mark.decode() for text in texts for mark in MARK.findall(text.encode())))

    def _note_judged(self, texts: Iterable[str]) -> None:
        """Journal which texts were blocked or redacted. In a session that is done after it was said."""
        marks = (mark.decode() for text in texts for mark in BARE.findall(text.encode()))
        self._journal.note(JUDGED, (f"{mark} {time.monotonic():.3f}" for mark in marks))

    def _refusal(self, headers: dict[str, str]) -> int | None:
        orders = self.orders
        if orders.fault in _STATUS:
            return _STATUS[orders.fault]
        key = headers["authorization"].removeprefix("Bearer ")
        if key in orders.keys:
            return None
        self._journal.note(REFUSED_KEY, [key])
        return 401


def texts_of(chunk: dict[str, Any]) -> Iterator[str]:
    """Yield a chunk's texts."""
    for choice in chunk["choices"]:
        if text := choice["delta"].get("content"):
            yield text


def redacted(chunk: dict[str, Any]) -> dict[str, Any]:
    """Return the chunk with PRIVATE replaced by GONE."""
    if not any(PRIVATE in text for text in texts_of(chunk)):
        return chunk
    changed = deepcopy(chunk)
    for choice in changed["choices"]:
        choice["delta"]["content"] = choice["delta"]["content"].replace(PRIVATE, GONE)
    return changed


def released(held: list[dict[str, Any]], manner: int) -> Iterator[dict[str, Any]]:
    """Remove from `held` and yield what to release now: all (0), all but the last (1), or pairs of texts joined (2)."""
    if manner == 2 and len(held) == 2 and _is_joinable(held):
        first, second = held
        held.clear()
        joined = deepcopy(first)
        joined["choices"][0]["delta"]["content"] += second["choices"][0]["delta"]["content"]
        yield joined
        return
    keeps = 1 if manner == 1 or (manner == 2 and _is_plain(held[-1])) else 0
    while len(held) > keeps:
        yield held.pop(0)


def _is_joinable(chunks: list[dict[str, Any]]) -> bool:
    return all(map(_is_plain, chunks)) and len({chunk["choices"][0]["index"] for chunk in chunks}) == 1


def _is_plain(chunk: dict[str, Any]) -> bool:
    """Return whether a chunk is one text that stays unchanged."""
    texts = list(texts_of(chunk))
    return len(chunk["choices"]) == len(texts) == 1 and PRIVATE not in texts[0]


async def _main(port: int, orders: Path, journal: Path, lag: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    aim = ScriptedAim()
    SoakAim(aim, orders, Journal(journal), lag)
    async with aim.running(port):
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])))
