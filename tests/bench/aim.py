"""Aim's stand-in: it allows every call, and verifies every chunk of a session except those that contain WITHHELD.

In the `firewall` form it redacts calls that contain REDACTED: it changes one letter of the last text.

It reads as little as possible, so that it does not distort the measurement. `GET /counters` returns what it received:
a chain that does not call Aim would be fast, but its measurement would be worthless.

    python -m tests.bench.aim PORT [HANDSHAKE]

A session opens HANDSHAKE seconds after its request.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sys
from functools import partial
from typing import Final

from tests.bench.peer import HEAD_END, Peer, header, serve

WITHHELD: Final = "withheld"
"""A chunk that contains this word never gets an answer."""

REDACTED: Final = "redacted"
"""A call with this word in the script of its request is redacted."""

ALLOW: Final = json.dumps({"detected": False, "details": {}, "detection_message": None}).encode()
"""The allow of the `detect` form, which is the sidecar's default. The next is that of the `firewall` form, which is
the only one of LiteLLM."""

ALLOW_FIREWALL: Final = json.dumps({"analysis_result": {"policy_drill_down": {}}, "required_action": None}).encode()
DONE: Final = b'{"done": true}'
_ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_STAMPED = b"sent "  # the model writes it into each chunk: on a busy machine Envoy may join several chunks
_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA

COUNTERS = {"questions": 0, "chunks": 0, "withheld": 0, "open_sessions": 0}
"""The numbers of received calls and chunks, of chunks without an answer, and of open sessions."""


class Aim(Peer):
    """One connection to Aim."""

    def __init__(self, handshake: float = 0.0) -> None:
        """Open sessions after `handshake` seconds."""
        super().__init__()
        self._handshake = handshake
        self._frames = bytearray()

    def on_request(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"POST"):
            COUNTERS["questions"] += 1
            if not head.startswith(b"POST /fw/"):
                self.answer(ALLOW)
            else:
                self.answer(_redaction(body) if f" {REDACTED} ".encode() in body else ALLOW_FIREWALL)
        elif (key := header(head, b"sec-websocket-key")) is not None:
            accept = base64.b64encode(hashlib.sha1(key + _ACCEPT_GUID, usedforsecurity=False).digest())
            self.takes_raw = True
            COUNTERS["open_sessions"] += 1
            switching = (
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
                b"sec-websocket-accept: " + accept + HEAD_END
            )
            if self._handshake:
                asyncio.get_running_loop().call_later(self._handshake, self.transport.write, switching)
            else:
                self.transport.write(switching)
        else:
            self.answer(json.dumps(COUNTERS).encode())

    def connection_lost(self, exc: Exception | None) -> None:
        COUNTERS["open_sessions"] -= self.takes_raw

    def on_raw(self, data: bytes) -> None:
        frames = self._frames
        frames += data
        position = 0
        while len(frames) >= position + 2:
            length, start = frames[position + 1] & 0x7F, position + 2
            if length == 126:
                length, start = int.from_bytes(frames[start : start + 2]), start + 2
            elif length == 127:
                length, start = int.from_bytes(frames[start : start + 8]), start + 8
            end = start + 4 + length
            if len(frames) < end:
                break
            opcode = frames[position] & 0x0F
            self._on_frame(opcode, _unmasked(frames[start : start + 4], frames[start + 4 : end]))
            position = end
        del frames[:position]

    def _on_frame(self, opcode: int, payload: bytes) -> None:
        if opcode == _CLOSE:
            self._send(_CLOSE, payload)
            self.transport.close()
        elif opcode == _PING:
            self._send(_PONG, payload)
        elif payload == DONE:
            self._send(_TEXT, DONE)
        elif opcode == _TEXT:
            COUNTERS["chunks"] += payload.count(_STAMPED)
            if WITHHELD.encode() in payload:
                COUNTERS["withheld"] += 1
            else:
                self._send(_TEXT, b'{"verified_chunk": %b}' % payload)

    def _send(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        length = (
            bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2) if size < 65536 else b"\x7f" + size.to_bytes(8)
        )
        self.transport.write(bytes([0x80 | opcode]) + length + payload)


def _redaction(call: bytes) -> bytes:
    """Return the answer that redacts the last `a` of the last message of a call."""
    messages = json.loads(call)["messages"]
    before, letter, after = messages[-1]["content"].rpartition("a")
    messages[-1]["content"] = f"{before}{letter and 'x'}{after}"
    action, chat = {"action_type": "anonymize_action"}, {"all_redacted_messages": messages}
    answer = {"analysis_result": {"policy_drill_down": {}}, "required_action": action, "redacted_chat": chat}
    return json.dumps(answer).encode()


def _unmasked(mask: bytes | bytearray, payload: bytes | bytearray) -> bytes:
    size = len(payload)
    pattern = (bytes(mask) * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(pattern)).to_bytes(size)


if __name__ == "__main__":
    serve(partial(Aim, *map(float, sys.argv[2:])), int(sys.argv[1]))
