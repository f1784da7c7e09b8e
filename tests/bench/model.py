"""The model's stand-in: a chat completion at once, or an event stream at a pace, as the request's header says.

    x-bench: COUNT INTERVAL LINGER [WORD]

asks for COUNT chunks of text: chunk k is sent INTERVAL * k seconds after the first, and carries in its text when that
was, by the clock that all processes of a machine share. LINGER seconds later the stream ends.

    python -m tests.bench.model PORT
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Final

from tests.bench.peer import Peer, header, serve

ANSWER_TEXT: Final = "The quick brown fox jumps over the lazy dog, and the model goes on about it for a while. " * 12
STAMP: Final = b"sent %d;"
"""What opens the text of a chunk: `time.monotonic_ns()` when it was written."""

_WHOLE = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "bench",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": ANSWER_TEXT}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 200, "completion_tokens": 250, "total_tokens": 450},
    }
).encode()
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _event(delta: str, finish: str = "null") -> bytes:
    return (
        'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench",'
        f'"choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}\n\n'
    ).encode()


_FIRST = _event('{"role":"assistant","content":""}')
_TEXT = _event('{"content":"%b of the text %b"}')
_LAST = _event("{}", '"stop"') + b"data: [DONE]\n\n"


class Model(Peer):
    """One connection to the model."""

    def __init__(self) -> None:
        super().__init__()
        self._next: asyncio.TimerHandle | None = None

    def on_request(self, head: bytes, body: bytes) -> None:
        script = header(head, b"x-bench")
        if script is None:
            self.answer(_WHOLE)
            return
        count, interval, linger, *word = script.split()
        self.transport.write(_HEAD)
        self._chunk(_FIRST)
        loop = asyncio.get_running_loop()
        self._pace(0, int(count), loop.time() + float(interval), float(interval), float(linger), b"".join(word))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._next is not None:
            self._next.cancel()

    def _pace(self, number: int, count: int, due: float, interval: float, linger: float, word: bytes) -> None:
        """Send chunk `number` at `due`, by the loop's clock, and so on to the end."""
        loop = asyncio.get_running_loop()

        def send() -> None:
            self._chunk(_TEXT % (STAMP % time.monotonic_ns(), word))
            self._pace(number + 1, count, due + interval, interval, linger, word)

        if number < count:
            self._next = loop.call_at(due, send)
        else:
            self._next = loop.call_later(linger, self._end)

    def _end(self) -> None:
        self._next = None
        self._chunk(_LAST)
        self.transport.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))


if __name__ == "__main__":
    serve(Model, int(sys.argv[1]))
