"""The soak's model: it answers exchange N as its script says, and journals the requests.

python -m tests.soak.model PORT SEED PACE JOURNAL
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from pathlib import Path
from typing import Final

from tests.bench.peer import Peer, header, serve
from tests.soak.journal import LEAKED, PAUSED, RECEIVED, SENT, Journal
from tests.soak.script import FORBIDDEN, MARK, PRIVATE, Pace, Script, Scripts, encoded

NUMBER: Final = "x-soak"
"""The header with the number of the exchange."""

_SMALL_BUFFER = 65_536
"""The bytes of a large answer that the kernel keeps for the model."""

_PAUSE_SECONDS = 0.2
"""Shorter pauses of an answer are not noted."""


def model(scripts: Scripts, journal: Journal) -> type[Peer]:
    """Return the class of one connection to the model."""

    class Model(Peer):
        def __init__(self) -> None:
            super().__init__()
            self._next: asyncio.TimerHandle | None = None
            self._paused: float | None = None
            self._waiting: tuple[Script, list[bytes], int] | None = None

        def connection_lost(self, exc: Exception | None) -> None:
            if self._next is not None:
                self._next.cancel()

        def pause_writing(self) -> None:
            self._paused = time.monotonic()

        def resume_writing(self) -> None:
            began, self._paused = self._paused, None
            if self._waiting is not None:
                script, pieces, at = self._waiting
                self._waiting = None
                if began is not None and (seconds := time.monotonic() - began) >= _PAUSE_SECONDS:
                    journal.note(PAUSED, [f"{script.number} {seconds:.1f}"])
                self._stream(script, pieces, at)

        def on_request(self, head: bytes, body: bytes) -> None:
            number = header(head, NUMBER.encode())
            if number is None:
                self.answer(b"{}")
                return
            script = scripts[int(number)]
            journal.note(RECEIVED, (mark.decode() for mark in MARK.findall(body)))
            if script.api is not None and (FORBIDDEN.encode() in body or PRIVATE.encode() in body):
                journal.note(LEAKED, [number.decode()])
            self._later(script.delay, self._begin, script)

        def _later(self, seconds: float, what: object, *arguments: object) -> None:
            self._next = asyncio.get_running_loop().call_later(seconds, what, *arguments)  # type: ignore[arg-type]

        def _begin(self, script: Script) -> None:
            pieces = encoded(script.events, script.encoding)
            coding = f"content-encoding: {script.encoding}\r\n" if script.encoding else ""
            if script.is_large:
                self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALL_BUFFER)
            if script.is_stream:
                self._write(f"text/event-stream\r\n{coding}transfer-encoding: chunked")
                self._stream(script, pieces, 0)
                return
            (body,) = pieces
            self._write(f"{script.content_type}\r\n{coding}content-length: {len(body)}")
            if script.cut_after is None:
                self.transport.write(body)
            else:
                self.transport.write(body[: len(body) // 2])
                self.transport.close()

        def _write(self, fields: str) -> None:
            self.transport.write(f"HTTP/1.1 200 OK\r\ncontent-type: {fields}\r\n\r\n".encode())

        def _stream(self, script: Script, pieces: list[bytes], at: int) -> None:
            if self._paused is not None:
                self._waiting = script, pieces, at
                return
            if at == script.cut_after:
                self.transport.close()
                return
            if at == len(pieces):
                self.transport.write(b"0\r\n\r\n")
                if script.is_large:
                    journal.note(SENT, [f"{script.number} {time.monotonic():.3f}"])
                return
            self.transport.write(b"%x\r\n%b\r\n" % (len(pieces[at]), pieces[at]))
            self._later(script.interval, self._stream, script, pieces, at + 1)

    return Model


if __name__ == "__main__":
    _, port, seed, pace, path = sys.argv
    serve(model(Scripts(int(seed), Pace.parse(pace)), Journal(Path(path))), int(port))
