"""The model's stand-in: it sends a chat completion at once, or an event stream at the pace of the request's script.

The text of each chunk of a stream has the time at which it was written, by the clock that all processes of a machine
share. Instead of these it can send the body of the last PUT.

    python -m tests.bench.model PORT
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from functools import lru_cache, partial
from typing import Final

from tests.bench.peer import Peer, serve
from tests.bench.script import Script

STAMP: Final = b"sent %d;"
"""The beginning of a chunk's text: the value of `time.monotonic_ns()` when it was written."""

_SENTENCE: Final = "The quick brown fox jumps over the lazy dog, and the model goes on about it for a while. "
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@lru_cache
def _whole(choices: int, text_bytes: int) -> bytes:
    text = (_SENTENCE * (text_bytes // len(_SENTENCE) + 1))[:text_bytes]
    answer = {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "bench",
        "choices": [
            {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for index in range(choices)
        ],
        "usage": {"prompt_tokens": 200, "completion_tokens": 250, "total_tokens": 450},
    }
    return json.dumps(answer).encode()


def _event(delta: str, *, index: str = "%d", finish: str = "null") -> bytes:
    return (
        'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench",'
        f'"choices":[{{"index":{index},"delta":{delta},"finish_reason":{finish}}}]}}\n\n'
    ).encode()


_FIRST = _event('{"role":"assistant","content":""}')
_TEXT = _event('{"content":"%b of the text %b"}')
_LAST = _event("{}", finish='"stop"')
_DONE = b"data: [DONE]\n\n"


class Model(Peer):
    """One connection to the model."""

    def __init__(self, given: bytearray) -> None:
        """Keep the body of a PUT in `given`, which all connections share."""
        super().__init__()
        self._given = given
        self._next: asyncio.TimerHandle | None = None

    def on_request(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"PUT"):
            self._given[:] = body
            self.answer(b"{}")
            return
        if not head.startswith(b"POST"):
            self.answer(b"{}")  # a proxy asks for the list of models
            return
        script = Script.of(body)
        if script.chunks:
            self._next = asyncio.get_running_loop().call_later(script.delay, self._begin, script)
        elif script.given:
            self.answer(bytes(self._given))
        else:
            self.answer(_whole(script.choices, script.text_bytes))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._next is not None:
            self._next.cancel()

    def _begin(self, script: Script) -> None:
        self.transport.write(_HEAD)
        if script.given:
            self._send(b"data: %b\n\n" % bytes(self._given))
            self._end(0)
            return
        self._send(b"".join(_FIRST % index for index in range(script.choices)))
        self._pace(script, 0, asyncio.get_running_loop().time() + script.interval)

    def _pace(self, script: Script, number: int, due: float) -> None:
        """Send the block that begins with chunk `number` at `due`, by the event loop's clock, then the later blocks."""
        loop = asyncio.get_running_loop()
        if number >= script.chunks:
            self._next = loop.call_later(script.linger, self._end, script.choices)
            return
        until = min(number + script.block, script.chunks)

        def send() -> None:
            stamp, word = STAMP % time.monotonic_ns(), script.word.encode()
            self._send(b"".join(_TEXT % (each % script.choices, stamp, word) for each in range(number, until)))
            self._pace(script, until, due + script.interval)

        self._next = loop.call_at(due, send)

    def _end(self, choices: int) -> None:
        self._next = None
        self._send(b"".join(_LAST % index for index in range(choices)) + _DONE)
        self.transport.write(b"0\r\n\r\n")

    def _send(self, data: bytes) -> None:
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))


if __name__ == "__main__":
    serve(partial(Model, bytearray()), int(sys.argv[1]))
