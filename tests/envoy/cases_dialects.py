"""The rows of every dialect, and those of single dialects."""

from __future__ import annotations

import json

from extproc.core.content.aws_event_stream import exception_frame
from tests.envoy.apis import (
    ANTHROPIC,
    CHAT,
    COMPLETIONS,
    DONE,
    EMBEDDINGS,
    GEMINI,
    IMAGES,
    RERANK,
    RESPONSES,
    SPEECH,
    WITH_ANSWERS,
    Api,
    data,
    js,
    typed,
)
from tests.envoy.case import (
    ASK,
    ASK_STREAM,
    BLOCKED,
    NEVER,
    OWN_MESSAGE,
    PRE_CALL,
    TAGGED,
    UNAVAILABLE,
    Case,
    Ended,
    Refused,
    Said,
    blocked_request,
    blocks,
    drops_at,
    fails,
    redacts,
    streams,
)
from tests.fakes.aws import wrapped
from tests.fakes.cuts import bytewise


def _under(api: Api, status: int) -> bytes:
    """Return the body of a block that the client gets under `status`: only Gemini repeats it there."""
    body = json.dumps(api.refusal(400, "content_policy_violation", "Not that.")).encode()
    return body.replace(b'"code": 400', b'"code": %d' % status)


_ARRAY = (b"[" + GEMINI.answer("Hi Jane"), b",\r\n" + GEMINI.answer(", hi"), b"]\n")
_BLOCKED_ELEMENT = b'{"error": {"code": 400, "message": "Not that.", "status": "INVALID_ARGUMENT"}}'

_AWS = "application/vnd.amazon.eventstream"


def _frames(*texts: str) -> tuple[bytes, ...]:
    """Return frames with JSON in base64, as Bedrock sends them."""
    return tuple(wrapped(json.dumps({"completion": text}), p="abcd") for text in texts)


def said_in_events(api: Api, *pieces: bytes) -> Said:
    """Answer with a stream in the API's framing."""
    return Said(pieces, api.stream_type)


def usual(api: Api) -> list[Case]:
    """Return the rows for an API whose requests and answers hold text."""
    ask, ask_stream = api.request("Hello"), api.request("Hello", stream=True)
    events = api.events("One", " two", " secret", " four")
    upto_secret = b"".join(events[: api.head + 2])
    whole, stream = Said(api.answer("Hi")), said_in_events(api, *api.events("Hel", "lo"))
    pre_call, output, heard = ("pre_call", "Hello"), ("output", "Hello", "Hi"), ("stream", "Hel", "lo")
    return [
        Case("an answer passes as it came", api, ask, whole, asked=[pre_call, output]),
        Case("a stream passes as it came", api, ask_stream, stream, stream=True, asked=[pre_call, heard]),
        Case(
            "several texts are asked about together, in order",
            api,
            api.request("Hello", "again"),
            whole,
            asked=[("pre_call", "Hello", "again"), ("output", "Hello", "again", "Hi")],
        ),
        blocked_request("a request is blocked", api),
        Case(
            "a request is blocked with the status that the settings choose",
            api,
            api.request("a secret"),
            aim=blocks("secret"),
            rig="teapot",
            status=418,
            client=_under(api, 418),
            upstream=NEVER,
            asked=[("pre_call", "a secret")],
        ),
        blocked_request("a request for a stream is blocked", api, api.request("a secret", stream=True), stream=True),
        Case(
            "an answer is blocked",
            api,
            ask,
            Said(api.answer("a secret")),
            blocks("secret"),
            status=400,
            client=BLOCKED,
            asked=[pre_call, ("output", "Hello", "a secret")],
        ),
        Case(
            "a stream is blocked at its first text",
            api,
            ask_stream,
            said_in_events(api, *api.events("secret", " and more")),
            blocks("secret"),
            stream=True,
            status=400,
            client=BLOCKED,
            asked=[pre_call, ("stream", "secret")],
        ),
        Case(
            "a stream is blocked in its midst",
            api,
            ask_stream,
            said_in_events(api, *events),
            blocks("secret"),
            stream=True,
            client=Ended(upto_secret, "content_policy_violation", "Not that.", api.head + 2),
            asked=[pre_call, ("stream", "One", " two", " secret")],
        ),
        Case(
            "a request is redacted, and its answer judged with the redacted request",
            api,
            api.request("I am Jane", "Hello"),
            whole,
            TAGGED,
            rig="firewall",
            upstream=api.request("I am [NAME_1]", "Hello"),
            asked=[("pre_call", "I am Jane", "Hello"), ("output", "I am [NAME_1]", "Hello", "Hi")],
        ),
        Case(
            "an answer is redacted",
            api,
            ask,
            Said(api.answer("Hi Jane")),
            TAGGED,
            rig="firewall",
            client=api.answer("Hi [NAME_1]"),
            asked=[pre_call, ("output", "Hello", "Hi Jane")],
        ),
        Case(
            "a stream is redacted, its repeats too",
            api,
            ask_stream,
            said_in_events(api, *api.events("Hi ", "Jane", ", hi")),
            TAGGED,
            rig="firewall",
            stream=True,
            client=api.stream("Hi ", "[NAME_1]", ", hi"),
            asked=[pre_call, ("stream", "Hi ", "Jane", ", hi")],
        ),
        Case(
            "a value split over chunks is redacted by an Aim that looks ahead",
            api,
            ask_stream,
            said_in_events(api, *api.events("Hi Ja", "ne", ", hi")),
            redacts("Jane", "[NAME_1]", merges=True),
            rig="firewall",
            stream=True,
            client=api.stream("Hi [NAME_1], hi", "", ""),
            asked=[pre_call, ("stream", "Hi Ja", "ne", ", hi")],
        ),
        Case(
            "Aim down: closed", api, ask, aim=fails(), status=503, client=UNAVAILABLE, upstream=NEVER, asked=[pre_call]
        ),
        Case(
            "Aim down for the answer: closed",
            api,
            ask,
            whole,
            fails(leg="response"),
            status=503,
            client=UNAVAILABLE,
            asked=[pre_call, output],
        ),
        Case(
            "Aim down for the stream: closed",
            api,
            ask_stream,
            stream,
            fails(leg="response"),
            stream=True,
            status=503,
            client=UNAVAILABLE,
            asked=[pre_call],
        ),
        Case(
            "Aim gone in mid-stream: closed",
            api,
            ask_stream,
            said_in_events(api, *events),
            drops_at("secret"),
            stream=True,
            client=Ended(upto_secret, "guardrail_unavailable", sequence=api.head + 2),
            asked=[pre_call, ("stream", "One", " two", " secret")],
        ),
        Case("Aim down: open", api, ask, whole, fails(), rig="open", asked=[pre_call, output]),
        Case(
            "Aim down for the stream: open", api, ask_stream, stream, fails(), rig="open", stream=True, asked=[pre_call]
        ),
    ]


def requests_alone(api: Api) -> list[Case]:
    """Return the rows for an API whose answers hold no text."""
    ask = api.request("Hello")
    answer = Said(bytes(range(256)), "audio/mpeg") if api is SPEECH else Said(api.answer())
    rig = "custom" if api is EMBEDDINGS else "default"  # "custom" inspects embeddings and replaces messages
    blocked = OWN_MESSAGE if api is EMBEDDINGS else BLOCKED
    rows = [
        Case("an answer passes unread", api, ask, answer, rig=rig, asked=[("pre_call", "Hello")]),
        Case(
            "several texts",
            api,
            api.request("Hello", "again"),
            answer,
            rig=rig,
            asked=[("pre_call", "Hello", "again")],
        ),
        blocked_request("a request is blocked", api, rig=rig, client=blocked),
        Case(
            "Aim down: closed",
            api,
            ask,
            aim=fails(),
            rig=rig,
            status=503,
            client=UNAVAILABLE,
            upstream=NEVER,
            asked=[("pre_call", "Hello")],
        ),
    ]
    if api is EMBEDDINGS:
        redacted = Case(
            "a request is redacted",
            api,
            api.request("I am Jane"),
            answer,
            TAGGED,
            rig="firewall embeddings",
            upstream=api.request("I am [NAME_1]"),
            asked=[("pre_call", "I am Jane")],
        )
        return [*rows, redacted, Case("not inspected unless asked for", api, ask, answer, is_inspected=False)]
    return [
        *rows,
        Case("Aim down: open", api, ask, answer, fails(), rig="open", asked=[("pre_call", "Hello")]),
        Case(
            "a request is redacted",
            api,
            api.request("I am Jane"),
            answer,
            TAGGED,
            rig="firewall",
            upstream=api.request("I am [NAME_1]"),
            asked=[("pre_call", "I am Jane")],
        ),
    ]


# -- chat ---------------------------------------------------------------------------------------------------------


def _said(**message: object) -> bytes:
    return js({"choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}]})


def _call(arguments: str) -> dict[str, object]:
    return {"id": "call_1", "type": "function", "function": {"name": "mail", "arguments": arguments}}


_PARTS = (
    b'{"model":"m","n":1.50,"messages":[{"role":"system","content":"Be kind."},{"role":"user","content":'
    b'[{"type":"text","text":"I am Jane"},{"type":"image_url","image_url":{"url":"data:image/png;base64,'
    b'iVBORw0KGgoAAAJaneAA"}}]},'
    b'{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f",'
    b'"arguments":"{}"}}]},{"role":"tool","tool_call_id":"a","content":"Jane is in"}], "x":{"y":[1e3]}}'
)

_WITH_TOOL = js(
    {"messages": [{"role": "user", "content": "Hello"}], "tools": [{"function": {"description": "Mails."}}]}
)

CHAT_ROWS = [
    Case(
        "parts, tools and unknown fields survive a redaction byte for byte",
        CHAT,
        _PARTS,
        Said(CHAT.answer("Hi")),
        TAGGED,
        rig="firewall",
        upstream=_PARTS.replace(b"I am Jane", b"I am [NAME_1]").replace(b"Jane is in", b"[NAME_1] is in"),
        asked=[
            ("pre_call", "Be kind.", "I am Jane", "{}", "Jane is in"),
            ("output", "Be kind.", "I am [NAME_1]", "{}", "[NAME_1] is in", "Hi"),
        ],
    ),
    Case(
        "every choice is judged by itself",
        CHAT,
        ASK,
        Said(CHAT.answer("One", "Two", "Three")),
        asked=[PRE_CALL, *(("output", "Hello", text) for text in ("One", "Two", "Three"))],
    ),
    Case(
        "only the affected choice is redacted",
        CHAT,
        ASK,
        Said(CHAT.answer("One", "Jane", "Three")),
        TAGGED,
        rig="firewall",
        client=CHAT.answer("One", "[NAME_1]", "Three"),
        asked=[PRE_CALL, *(("output", "Hello", text) for text in ("One", "Jane", "Three"))],
    ),
    Case(
        "refusal and reasoning are judged",
        CHAT,
        ASK,
        Said(_said(content=None, refusal="No.", reasoning_content="Hm", reasoning="Oh")),
        asked=[PRE_CALL, *(("output", "Hello", text) for text in ("No.", "Hm", "Oh"))],
    ),
    Case(
        "tool arguments are judged",
        CHAT,
        ASK,
        Said(_said(content=None, tool_calls=[_call('{"to":"Bob"}')])),
        asked=[PRE_CALL, ("output", "Hello", '{"to":"Bob"}')],
    ),
    Case(
        "tool arguments are redacted and stay JSON",
        CHAT,
        ASK,
        Said(_said(content=None, tool_calls=[_call('{"to":"Jane"}')])),
        TAGGED,
        rig="firewall",
        client=_said(content=None, tool_calls=[_call('{"to":"[NAME_1]"}')]),
        asked=[PRE_CALL, ("output", "Hello", '{"to":"Jane"}')],
    ),
    Case(
        "a redaction that breaks tool arguments is refused",
        CHAT,
        ASK,
        Said(_said(content=None, tool_calls=[_call('{"to":"Jane"}')])),
        redacts('Jane"', "[NAME_1]"),
        rig="firewall",
        status=502,
        client=Refused("redaction_failed"),
        asked=[PRE_CALL, ("output", "Hello", '{"to":"Jane"}')],
    ),
    Case(
        "an answer without text is not sent to Aim",
        CHAT,
        ASK,
        Said(_said(content="")),
        asked=[PRE_CALL],
    ),
    Case(
        "an answer of unknown shape: its texts are judged",
        CHAT,
        ASK,
        Said(b'{"result": {"text": "Hi", "id": "x"}}'),
        asked=[PRE_CALL, ("output", "Hello", "Hi")],
    ),
    Case(
        "a redacted choice loses its logprobs",
        CHAT,
        ASK,
        Said(js({"choices": [{"message": {"content": "Jane"}, "logprobs": {"content": [{"token": "Jane"}]}}]})),
        TAGGED,
        rig="firewall",
        client=js({"choices": [{"message": {"content": "[NAME_1]"}, "logprobs": None}]}),
        asked=[PRE_CALL, ("output", "Hello", "Jane")],
    ),
    Case(
        "a message that quotes what is withheld is not relayed",
        CHAT,
        ASK,
        Said(CHAT.answer("the Secret")),
        blocks("Secret", 'Found "secret".'),
        status=400,
        client=Refused(
            "content_policy_violation", "The response was blocked by the organization's AI security policy."
        ),
        asked=[PRE_CALL, ("output", "Hello", "the Secret")],
    ),
    Case(
        "a request's message may quote the client's own words",
        CHAT,
        CHAT.request("the secret"),
        aim=blocks("secret", 'Found "secret".'),
        status=400,
        client=Refused("content_policy_violation", 'Found "secret".'),
        upstream=NEVER,
        asked=[("pre_call", "the secret")],
    ),
    Case(
        "a block without a message gets a fixed sentence",
        CHAT,
        CHAT.request("secret"),
        aim=blocks("secret", None),
        status=400,
        client=Refused("content_policy_violation", "The request was blocked by the organization's AI security policy."),
        upstream=NEVER,
        asked=[("pre_call", "secret")],
    ),
    Case(
        "a stream's choices are verified side by side",
        CHAT,
        ASK_STREAM,
        streams(
            CHAT.event(content="A"),
            CHAT.event(index=1, content="B"),
            CHAT.event(content="Jane"),
            CHAT.event(index=1, content="C"),
            DONE,
        ),
        TAGGED,
        rig="firewall",
        client=CHAT.event(content="A")
        + CHAT.event(index=1, content="B")
        + CHAT.event(content="[NAME_1]")
        + CHAT.event(index=1, content="C")
        + DONE,
        asked=[PRE_CALL, ("stream", "A", "B", "Jane", "C")],
    ),
    Case(
        "a stream's reasoning, refusal and tool arguments are verified",
        CHAT,
        ASK_STREAM,
        streams(
            CHAT.event(reasoning_content="Hm"),
            CHAT.event(refusal="No"),
            CHAT.event(tool_calls=[{"index": 0, "function": {"arguments": '{"a":'}}]),
            CHAT.event(tool_calls=[{"index": 0, "function": {"arguments": "1}"}}]),
            CHAT.event(finish="tool_calls"),
            DONE,
        ),
        asked=[PRE_CALL, ("stream", "Hm", "No", '{"a":', "1}")],
    ),
    Case(
        "comments, usage and odd line ends of a stream pass byte for byte",
        CHAT,
        ASK_STREAM,
        streams(
            b"\xef\xbb\xbf: keep-alive\r\n\r\n",
            b"id: 7\rdata:" + js({"choices": [{"index": 0, "delta": {"content": "Hi"}}]}) + b"\r\r",
            b": ping\n\n",
            b"data: {}\n\ndata:\n\n",
            b'data: {"choices": [], "usage": {"total_tokens": 3}}\r\n\r\n',
            b"data: [DONE]",
        ),
        asked=[PRE_CALL, ("stream", "Hi")],
    ),
    Case(
        "a stream without text asks nothing, and a comment that is not listed leaves empty",
        CHAT,
        ASK_STREAM,
        streams(b": nothing\n\n", DONE),
        client=b":\n\n" + DONE,
        asked=[PRE_CALL],
    ),
    Case("an empty stream", CHAT, ASK_STREAM, streams(), asked=[PRE_CALL]),
    Case(
        "a stream that was not requested is verified all the same",
        CHAT,
        ASK,
        streams(*CHAT.events("Hi")),
        asked=[PRE_CALL, ("stream", "Hi")],
    ),
    Case(
        "an answer in JSON to a request for a stream",
        CHAT,
        ASK_STREAM,
        Said(CHAT.answer("Hi")),
        asked=[PRE_CALL, ("output", "Hello", "Hi")],
    ),
    Case(
        "a stream's data that is not JSON is unreadable",
        CHAT,
        ASK_STREAM,
        streams(b"data: free text\n\n"),
        status=502,
        client=Refused("guardrail_unreadable_response"),
        asked=[PRE_CALL],
    ),
    Case(
        "a stream's data that repeats a key is unreadable",
        CHAT,
        ASK_STREAM,
        streams(b'data: {"choices":[{"index":0,"delta":{"content":"a","content":"b"}}]}\n\n'),
        status=502,
        client=Refused("guardrail_unreadable_response"),
        asked=[PRE_CALL],
    ),
    Case("no messages: Aim is not asked", CHAT, b'{"model":"m"}', Said(_said(content="")), asked=[]),
    Case("an empty message is not asked about", CHAT, CHAT.request(""), Said(_said(content="")), asked=[]),
    Case(
        "tool definitions are asked about",
        CHAT,
        _WITH_TOOL,
        Said(_said(content="")),
        asked=[("pre_call", "Mails.", "Hello")],
    ),
    Case(
        "tool definitions are not asked about where the settings say so",
        CHAT,
        _WITH_TOOL,
        Said(_said(content="")),
        rig="custom",
        asked=[("pre_call", "Hello")],
    ),
]

# -- the others ---------------------------------------------------------------------------------------------------

_TOOL_STREAM = [
    typed("message_start", message=ANTHROPIC.message()),
    typed("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}),
    typed("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "Jane asks"}),
    typed("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "c2ln"}),
    typed("content_block_stop", index=0),
    typed("content_block_start", index=1, content_block={"type": "tool_use", "id": "t", "input": {}}),
    typed("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": '{"a":'}),
    typed("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": "1}"}),
    typed("content_block_stop", index=1),
    typed("message_stop"),
]

OTHER_ROWS = [
    Case(
        "system, tool use and tool results are asked about; an image is kept",
        ANTHROPIC,
        js(
            {
                "system": [{"type": "text", "text": "I am Jane"}],
                "messages": [
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]},
                    {
                        "role": "user",
                        "content": [
                            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "Jane"}]},
                            {"type": "image", "source": {"type": "base64", "data": "iVBORw0KGgoAAAJaneAA"}},
                        ],
                    },
                ],
            }
        ),
        Said(ANTHROPIC.answer("Hi")),
        TAGGED,
        rig="firewall",
        upstream=js(
            {
                "system": [{"type": "text", "text": "I am [NAME_1]"}],
                "messages": [
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]},
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "tool_result",
                                "tool_use_id": "t",
                                "content": [{"type": "text", "text": "[NAME_1]"}],
                            },
                            {"type": "image", "source": {"type": "base64", "data": "iVBORw0KGgoAAAJaneAA"}},
                        ],
                    },
                ],
            }
        ),
        asked=[
            ("pre_call", "I am Jane", '{"a": 1}', "Jane"),
            ("output", "I am [NAME_1]", '{"a": 1}', "[NAME_1]", "Hi"),
        ],
    ),
    Case(
        "signed thinking that is sent back cannot be redacted",
        ANTHROPIC,
        js(
            {
                "messages": [
                    {"role": "assistant", "content": [{"type": "thinking", "thinking": "Jane", "signature": "c2ln"}]}
                ]
            }
        ),
        aim=TAGGED,
        rig="firewall",
        status=400,
        client=Refused("redaction_failed"),
        upstream=NEVER,
        asked=[("pre_call", "Jane")],
    ),
    Case(
        "thinking and tool input stream as they came",
        ANTHROPIC,
        ANTHROPIC.request("Hello", stream=True),
        streams(*_TOOL_STREAM),
        asked=[PRE_CALL, ("stream", "Jane asks", '{"a":', "1}")],
    ),
    Case(
        "redacted thinking loses its signature",
        ANTHROPIC,
        ANTHROPIC.request("Hello", stream=True),
        streams(*_TOOL_STREAM),
        TAGGED,
        rig="firewall",
        client=b"".join(_TOOL_STREAM).replace(b"Jane", b"[NAME_1]").replace(b"c2ln", b""),
        asked=[PRE_CALL, ("stream", "Jane asks", '{"a":', "1}")],
    ),
    blocked_request("counting tokens is guarded too", ANTHROPIC, path="/v1/messages/count_tokens"),
    Case(
        "Vertex's spelling",
        ANTHROPIC,
        ANTHROPIC.request("Hello"),
        Said(ANTHROPIC.answer("Hi")),
        path="/v1/projects/p/locations/l/publishers/anthropic/models/claude:rawPredict",
        asked=[PRE_CALL, ("output", "Hello", "Hi")],
    ),
    *(
        Case(
            f"a growing array {how} is verified element by element",
            GEMINI,
            GEMINI.request("Hello"),
            Said(body),
            TAGGED,
            rig="firewall",
            path="/v1beta/models/gemini-pro:streamGenerateContent",
            client=b"[%s,\r\n%s]\n" % (GEMINI.answer("Hi [NAME_1]"), GEMINI.answer(", hi")),
            asked=[PRE_CALL, ("stream", "Hi Jane", ", hi")],
        )
        for how, body in (("with its length", b"".join(_ARRAY)), ("in pieces", _ARRAY))
    ),
    Case(
        "a growing array is blocked, and ends as an array",
        GEMINI,
        GEMINI.request("Hello"),
        Said(_ARRAY),
        blocks("hi"),
        path="/v1beta/models/gemini-pro:streamGenerateContent",
        client=b"[%s,%s]" % (GEMINI.answer("Hi Jane"), _BLOCKED_ELEMENT),
        asked=[PRE_CALL, ("stream", "Hi Jane", ", hi")],
    ),
    *(
        Case(
            f"no dialect: frames of an AWS event stream {how} are redacted",
            CHAT,
            b'{"prompt": "Hello"}',
            Said(body, _AWS),
            TAGGED,
            rig="firewall",
            path="/own/frames",
            client=b"".join(_frames("Hi [NAME_1]", ", hi")),
            is_inspected=False,
            has_id=True,
            asked=[PRE_CALL, ("stream", "Hi Jane", ", hi")],
        )
        for how, body in (
            ("with their length", b"".join(_frames("Hi Jane", ", hi"))),
            ("in single bytes", bytewise(b"".join(_frames("Hi Jane", ", hi")))),
        )
    ),
    Case(
        "no dialect: an AWS event stream is blocked with an exception",
        CHAT,
        b'{"prompt": "Hello"}',
        Said(_frames("Hi Jane", ", hi"), _AWS),
        blocks("hi"),
        path="/own/frames",
        client=b"".join((*_frames("Hi Jane"), exception_frame("validationException", b'{"message": "Not that."}'))),
        is_inspected=False,
        has_id=True,
        asked=[PRE_CALL, ("stream", "Hi Jane", ", hi")],
    ),
    Case(
        "system instruction and function responses are asked about",
        GEMINI,
        js(
            {
                "systemInstruction": {"parts": [{"text": "Be kind."}]},
                "contents": [{"parts": [{"functionResponse": {"name": "f", "response": {"who": "Bob"}}}]}],
            }
        ),
        Said(GEMINI.answer("Hi")),
        asked=[("pre_call", "Be kind.", '{"who": "Bob"}'), ("output", "Be kind.", '{"who": "Bob"}', "Hi")],
    ),
    Case(
        "a function call's arguments are judged",
        GEMINI,
        GEMINI.request("Hello"),
        Said(js({"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {"to": "Bob"}}}]}}]})),
        asked=[PRE_CALL, ("output", "Hello", '{"to": "Bob"}')],
    ),
    Case(
        "instructions, items and function outputs are asked about",
        RESPONSES,
        js(
            {
                "instructions": "Be kind.",
                "input": [
                    {"role": "user", "content": [{"type": "input_text", "text": "I am Bob"}]},
                    {"type": "function_call_output", "call_id": "c", "output": "rain"},
                ],
            }
        ),
        Said(RESPONSES.answer("Hi")),
        asked=[
            ("pre_call", "Be kind.", "I am Bob", "rain"),
            ("output", "Be kind.", "I am Bob", "rain", "Hi"),
        ],
    ),
    Case(
        "a stream's function arguments are verified once, not again where they are repeated",
        RESPONSES,
        RESPONSES.request("Hello", stream=True),
        streams(
            data({"type": "response.function_call_arguments.delta", "output_index": 0, "delta": '{"a":'}),
            data({"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "1}"}),
            data({"type": "response.function_call_arguments.done", "output_index": 0, "arguments": '{"a":1}'}),
        ),
        asked=[PRE_CALL, ("stream", '{"a":', "1}")],
    ),
    Case(
        "a repeat that differs from its deltas is verified itself",
        RESPONSES,
        RESPONSES.request("Hello", stream=True),
        streams(
            data({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hi"}),
            data({"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "Hi secret"}),
        ),
        blocks("secret"),
        client=Ended(
            data({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hi"}),
            "content_policy_violation",
            "Not that.",
        ),
        asked=[PRE_CALL, ("stream", "Hi", "Hi secret")],
    ),
    Case(
        "prompts given as tokens cannot be judged",
        COMPLETIONS,
        js({"prompt": [1, 2, 3]}),
        status=400,
        client=Refused("invalid_body"),
        upstream=NEVER,
    ),
    Case(
        "a query is asked about before its documents",
        RERANK,
        js({"query": "Who?", "documents": ["One", {"text": "Two"}]}),
        Said(b'{"results":[]}'),
        asked=[("pre_call", "Who?", "One", "Two")],
    ),
    Case(
        "an image passes",
        IMAGES,
        IMAGES.request("Hello"),
        Said(b"\x89PNG\r\n", "image/png"),
        asked=[PRE_CALL],
    ),
]

ROWS = [
    *(row for api in WITH_ANSWERS for row in usual(api)),
    *(row for api in (EMBEDDINGS, IMAGES, SPEECH, RERANK) for row in requests_alone(api)),
    *CHAT_ROWS,
    *OTHER_ROWS,
]
