"""The initial inputs: recorded traffic, and the messages of stand-ins for Envoy and Aim."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import brotli
import zstandard

from extproc.core.content.aws_event_stream import exception_frame
from extproc.processor import wire
from tests.fakes.planted import CORPUS, RECORDINGS, units_of
from tests.fakes.rig import chat_answer, chat_request, chat_stream
from tests.fuzz.surfaces import SURFACES

_Request = wire.Request

_NO_KNOBS = bytes(8)


def seeds(surface: str) -> Iterator[bytes]:
    """Yield inputs for a surface, each with the first option of every choice, and some with other options."""
    plain: list[bytes] = []
    match surface:
        case "events" | "stream":
            plain += [body for name, body in _recorded() if b"data:" in body]
            plain += [b"".join(chat_stream("Hello", "you")), b"\xef\xbb\xbfdata: x\r\rid\r\n: c\n\ndata\r\n\r\n"]
        case "lines" | "framing":
            plain += [
                b'{"a": 1}\n\n \r\n{"b": [2]}\r\n"c"',
                b"\xef\xbb\xbf\n[]\n",
                b"event: x\ndata: y\n\n",
                b"\x89PNG",
            ]
            plain += [chat_answer("Hello") + b"\n" + chat_answer("you")]
        case "units":
            part = b'--x\r\nContent-Disposition: form-data; name="a"; filename="b c.jsonl"\r\n\r\n{"a": 1}\r\n'
            plain += [
                b'[{"a": "\\"]"}\n,\r\n{"b": [[], {}]}\n]\n',
                exception_frame("validationException", b'{"bytes": "e30=", "p": "ab"}') * 2,
                part * 2 + b"--x--\r\n",
            ]
        case "escapes":
            plain += [
                b'{"q": "caf\\u00e9 \\ud83d\\ude00 \\"so\\" \\\\n", "\\u0071": ["a\\tb", {"c": ""}]}',
                b'"\\ud83d\\u0041\\',
            ]
        case "document" | "request" | "answer" | "walk":
            plain += [body for _, body in _recorded() if body.lstrip().startswith((b"{", b"["))]
            if surface == "walk":
                plain += [data for name, body in _recorded() if b"data:" in body for data in _data_of(body)]
            plain += [b'{"a": ["\\u00e9\\ud83d\\ude00", 1e5, null], "": {}}', chat_answer("Hello", "you")]
        case "body":
            for body in (chat_answer("Hello"), b"".join(chat_stream("Hello")) * 20):
                plain += [gzip.compress(body), zlib.compress(body), brotli.compress(body), zstandard.compress(body)]
        case "verdict":
            plain += [json.dumps(answer).encode() for answer in _VERDICTS]
        case "frames":
            plain += [b"\n".join(json.dumps(frame).encode() for frame in frames) for frames in _FRAMES]
        case "messages":
            plain += [_framed(body, answer) for body, answer in _exchanges()]
        case "exchange":
            plain += [bytes([0, 1, 2, 3, 4, 26, 5, 5, 6, 7]), bytes([0, 1, 2, 14, 83, 2, 6]), bytes([0, 1, 10, 2, 21])]
    for body in plain:
        for number in range(5):
            yield body[:60_000] + bytes([*_NO_KNOBS[:-2], 7 * number, number])


def _data_of(body: bytes) -> list[bytes]:
    """Return the JSON of the longest events of a stream."""
    data = (event.data for event in units_of(body))
    return sorted((each.encode() for each in data if each and each.startswith("{")), key=len)[-3:]


def _recorded() -> Iterator[tuple[str, bytes]]:
    folders = [RECORDINGS, *(sorted(CORPUS.iterdir()) if CORPUS.is_dir() else ())]
    for folder in folders:
        for file in sorted(folder.iterdir()) if folder.is_dir() else ():
            if file.suffix in (".sse", ".body") or (file.suffix == ".json" and file.name != "meta.json"):
                yield f"{folder.name}/{file.name}", file.read_bytes()


_REDACTED = [{"role": "user", "content": "[X]"}, {"role": "user", "content": "two"}]
_VERDICTS: tuple[dict[str, Any], ...] = (
    {"detected": False, "details": {}, "detection_message": None},
    {"detected": True, "details": {"pii": {}}, "detection_message": "No."},
    {"analysis_result": {"policy_drill_down": {"u": {"policy_name": "PII"}}}, "required_action": None},
    {"required_action": {"action_type": "monitor_action"}},
    {"required_action": {"action_type": "block_action", "detection_message": "No."}},
    {"required_action": {"action_type": "anonymize_action"}, "redacted_chat": {"all_redacted_messages": _REDACTED}},
    {"required_action": {"action_type": "anonymize_action", "chat_redaction_result": {"all_redacted_messages": []}}},
)


def _verified(*texts: str | None) -> dict[str, Any]:
    choices = [{"index": index, "delta": {"content": text}} for index, text in enumerate(texts)]
    return {"verified_chunk": {"id": "c1", "choices": choices}}


_FRAMES: tuple[list[dict[str, Any]], ...] = (
    [_verified("ALPHA"), _verified("BRAVO"), _verified("CHARLIE"), _verified("DELTA"), {"done": True}],
    [_verified("ALPHABRAVO"), _verified("DELTA"), {"blocking_message": "No."}],
    [_verified(None), _verified(""), _verified("ALPHA", "ECHO"), {"done": False}],
    [{"verified_chunk": {"choices": []}}, {}],
)


def _exchanges() -> Iterator[tuple[bytes, list[bytes]]]:
    yield json.dumps(chat_request("Hello")).encode(), [chat_answer("Hi")]
    yield json.dumps(chat_request("Hello", stream=True)).encode(), chat_stream("Hi", "you")


def _framed(body: bytes, answer: list[bytes]) -> bytes:
    """Return the messages of an exchange as Envoy sends them, each preceded by its length."""
    found = []
    head = _Request()
    head.protocol_config.request_body_mode, head.protocol_config.response_body_mode = 2, 4
    for name, value in ((":method", "POST"), (":path", "/v1/chat/completions"), ("x-aim-user-email", "a@b.c")):
        head.request_headers.headers.headers.add(key=name, raw_value=value.encode())
    head.attributes["envoy.filters.http.ext_proc"].fields["xds.route_name"].string_value = "chat"
    head.metadata_context.filter_metadata["jwt"].fields["n"].list_value.values.add().number_value = 1
    found.append(head)
    asked = _Request()
    asked.request_body.body, asked.request_body.end_of_stream = body, True
    found.append(asked)
    answered = _Request()
    kind = "text/event-stream" if answer[0].startswith(b"data") else "application/json"
    for name, value in ((":status", "200"), ("content-type", kind)):
        answered.response_headers.headers.headers.add(key=name, raw_value=value.encode())
    found.append(answered)
    for piece in answer:
        part = _Request()
        part.response_body.body = piece
        found.append(part)
    end = _Request()
    end.response_trailers.SetInParent()
    found.append(end)
    return b"".join(len(data).to_bytes(2, "big") + data for data in (one.SerializeToString() for one in found))


def write(folder: Path, surface: str) -> None:
    """Write the seeds of a surface to `folder`."""
    assert surface in SURFACES
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds(surface)):
        (folder / f"seed-{number:03}").write_bytes(data)
