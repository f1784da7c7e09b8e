"""Requests, answers and streams that hide a text from the reader, but not from a model or a client."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from tests.attack.attack import UNSEEN_ANSWER, UNSEEN_REQUEST, Attack, Script
from tests.attack.target import SECRET, Target
from tests.fakes.rig import DONE, chat_answer, chat_event, chat_request
from tests.fakes.upstream import pieces, whole

_CHAT: Final = json.dumps(chat_request(SECRET))
_ESCAPED: Final = "".join(f"\\u{ord(each):04x}" for each in SECRET)
_HELLO: Final = '{"role": "user", "content": "Hello"}'


def _message(content: str) -> str:
    """Return a request with a message of this content, written in JSON."""
    return f'{{"model": "m", "messages": [{{"role": "user", "content": {content}}}]}}'


REQUESTS: Final[Mapping[str, bytes]] = {
    "escapes in the text": _message(f'"{_ESCAPED}"').encode(),
    "escapes in the keys": _CHAT.replace("messages", "\\u006dessages").replace("content", "conten\\u0074").encode(),
    "a byte order mark": b"\xef\xbb\xbf" + _CHAT.encode(),
    "UTF-16": _CHAT.encode("utf-16"),
    "bytes that are no UTF-8": _CHAT.encode().replace(b"jane", b"jane\xff"),
    "a key twice, the harmless one first": f'{{"messages": [{_HELLO}], {_CHAT[1:]}'.encode(),
    "a key twice, the harmless one last": f'{_CHAT[:-1]}, "messages": [{_HELLO}]}}'.encode(),
    "a key in another letter case": f'{{"messages": [{_HELLO}], "Messages": {json.dumps(SECRET)}}}'.encode(),
    "a field that no API has": json.dumps({**chat_request("Hello"), "x_new_field": {"deep": [SECRET]}}).encode(),
    "an empty key": json.dumps({**chat_request("Hello"), "": SECRET}).encode(),
    "a key that is the text": json.dumps({**chat_request("Hello"), "tools": [{"x": {"y": SECRET}}]}).encode(),
    "a list of parts": _message(
        json.dumps([{"type": "text", "text": "Hello"}, {"type": "text", "text": SECRET}])
    ).encode(),
    "a part of an unknown type": _message(json.dumps([{"type": "new", "new": {"body": SECRET}}])).encode(),
    "an inert field that holds text": json.dumps({**chat_request("Hello"), "user": f"a b {SECRET}"}).encode(),
    "a role that holds text": json.dumps({"messages": [{"role": SECRET, "content": "Hello"}]}).encode(),
    "arguments of a tool call": json.dumps(
        {
            "messages": [
                {"role": "user", "content": "Hello"},
                {
                    "role": "assistant",
                    "tool_calls": [{"function": {"name": "f", "arguments": json.dumps({"q": SECRET})}}],
                },
            ]
        }
    ).encode(),
    "a data URL": _message(
        json.dumps([{"type": "image_url", "image_url": {"url": f"data:text/plain,{SECRET}"}}])
    ).encode(),
    "a second document": b"{}" + _CHAT.encode(),
    "text behind the document": _CHAT.encode() + b" trailing",
    "white space before the document": b" \n\t" * 30_000 + _CHAT.encode(),
    "a document that is nested deeply": _message("[" * 100_000 + json.dumps(SECRET) + "]" * 100_000).encode(),
    "ten thousand messages before it": json.dumps(
        {"messages": [*[{"role": "user", "content": "Hi"}] * 10_000, {"role": "user", "content": SECRET}]}
    ).encode(),
    "half a surrogate beside it": _message(f'"{SECRET} \\ud83d"').encode(),
    "NUL and control characters": _message(f'"\\u0000{SECRET}\\u001b"').encode(),
}
"""Each holds the secret where some reader finds it. None may reach the model."""

ANSWERS: Final[Mapping[str, bytes]] = {
    "escapes in the text": chat_answer("X").replace(b'"X"', f'"{_ESCAPED}"'.encode()),
    "the second choice": chat_answer("Hi", SECRET),
    "a field beside the choices": chat_answer("Hi")[:-1] + f', "output_text": "{SECRET}"}}'.encode(),
    "a key twice": chat_answer("Hi")[:-1] + b', "choices": ' + chat_answer(SECRET).partition(b'"choices": ')[2],
    "a byte order mark": b"\xef\xbb\xbf" + chat_answer(SECRET),
    "reasoning": chat_answer("Hi").replace(b'"content"', f'"reasoning_content": "{SECRET}", "content"'.encode()),
    "the name of a tool": chat_answer("Hi").replace(
        b'"content"', f'"tool_calls": [{{"function": {{"name": "{SECRET}", "arguments": "{{}}"}}}}], "content"'.encode()
    ),
}
"""Each holds the secret. None may reach the client."""

STREAMS: Final[Mapping[str, list[bytes]]] = {
    "a letter per event": [*(chat_event(letter) for letter in SECRET), DONE],
    "a byte per chunk of HTTP": [bytes([byte]) for byte in chat_event(SECRET) + DONE],
    "a refusal instead of content": [chat_event(refusal=SECRET), DONE],
    "a comment": [f": {SECRET}\n\n".encode(), chat_event("Hi"), DONE],
    "the name of an event": [f"event: {SECRET}\n".encode() + chat_event("Hi"), DONE],
    "a line that is no field": [f"{SECRET}\n\n".encode(), chat_event("Hi"), DONE],
    "data on several lines": [
        b'data: {"choices": [{"index": 0,\ndata: "delta": {"content":\n',
        f'data: "{SECRET}"}}}}]}}\n\n'.encode(),
        DONE,
    ],
    "behind the end mark": [chat_event("Hi"), DONE, chat_event(SECRET)],
    "without the last line end": [chat_event("Hi"), chat_event(SECRET).rstrip(b"\n")],
    "carriage returns": [chat_event(SECRET).replace(b"\n", b"\r"), DONE.replace(b"\n", b"\r")],
    "a choice of any index": [chat_event("Hi"), chat_event(SECRET, index=10**9), DONE],
}
"""Each holds the secret. None may reach the client."""


def _sends(body: bytes) -> Script:
    async def run(target: Target) -> None:
        got = await target.ask(body)
        assert not target.model.requests, f"the model got it, the client {got.status}"
        assert got.status >= 400

    return run


def _answers(body: bytes) -> Script:
    async def run(target: Target) -> None:
        target.model.answer = whole(body)
        _check_unseen((await target.ask(json.dumps(chat_request("Hello")).encode())).body)

    return run


def _streams(events: list[bytes]) -> Script:
    async def run(target: Target) -> None:
        target.model.answer = pieces(events)
        _check_unseen((await target.ask(json.dumps(chat_request("Hello", stream=True)).encode())).body)

    return run


def _check_unseen(body: bytes) -> None:
    shown = body.decode(errors="replace")
    joined = "".join(json.loads(f'"{text}"') for text in _texts(shown))
    assert SECRET not in shown
    assert _ESCAPED not in shown
    assert SECRET not in joined


def _texts(shown: str) -> list[str]:
    """Return what follows each `"content": "` of an answer, up to the next quotation mark."""
    return [part.partition('"')[0] for part in shown.split('"content": "')[1:]]


ATTACKS: Final = [
    *(Attack(f"request: {name}", UNSEEN_REQUEST, _sends(body)) for name, body in REQUESTS.items()),
    *(Attack(f"answer: {name}", UNSEEN_ANSWER, _answers(body)) for name, body in ANSWERS.items()),
    *(Attack(f"stream: {name}", UNSEEN_ANSWER, _streams(events)) for name, events in STREAMS.items()),
]
