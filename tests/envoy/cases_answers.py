"""The rows of blocks as answers (`refusal: {as: answer}`), for every dialect."""

from __future__ import annotations

from tests.envoy.apis import IMAGES, RERANK, SPEECH, Api
from tests.envoy.apis import WITH_ANSWERS as FIRST
from tests.envoy.bedrock_apis import CLAUDE, CONVERSE, COUNT_TOKENS, INVOKE
from tests.envoy.case import BLOCKED, NEVER, Answered, Case, Refused, Said, blocks, fails
from tests.envoy.cases_dialects import said_in_events
from tests.envoy.other_apis import REQUESTS_ALONE, WITH_ANSWERS

_THREADS = tuple(api for api in WITH_ANSWERS if api.name == "threads")
_ANSWERING: tuple[Api, ...] = (*FIRST, *(api for api in WITH_ANSWERS if api not in _THREADS), CONVERSE, CLAUDE)
_REFUSING: tuple[Api, ...] = (*_THREADS, *REQUESTS_ALONE, IMAGES, SPEECH, RERANK, INVOKE, COUNT_TOKENS)

_OWN_FORM = {"cohere v1": "application/x-ndjson", "cohere v1 in events": "application/x-ndjson"}
"""The content type in which the API itself streams, where that is not the type of the rows' streams."""


def answers(api: Api) -> list[Case]:
    """Return the rows for an API that has an answer for a block."""
    ask, ask_stream = api.request("Hello"), api.request("Hello", stream=True)
    events = api.events("One", " two", " secret", " four")
    upto_secret = b"".join(events[: api.head + 2])
    streamed = "text/event-stream" if api.name == "tgi in lines" else _OWN_FORM.get(api.name, api.stream_type)
    begun = "application/x-ndjson" if api.stream_type == "application/stream+json" else api.stream_type
    return [
        Case(
            "a blocked request becomes an answer",
            api,
            api.request("a secret"),
            aim=blocks("secret"),
            rig="answers",
            client=Answered("Not that."),
            upstream=NEVER,
            asked=[("pre_call", "a secret")],
        ),
        Case(
            "a blocked request for a stream becomes a stream",
            api,
            api.request("a secret", stream=True),
            aim=blocks("secret"),
            rig="answers",
            stream=True,
            client=Answered("Not that.", type=streamed),
            upstream=NEVER,
            asked=[("pre_call", "a secret")],
        ),
        Case(
            "a blocked answer becomes another",
            api,
            ask,
            Said(api.answer("a secret")),
            blocks("secret"),
            rig="answers",
            client=Answered("Not that."),
            asked=[("pre_call", "Hello"), ("output", "Hello", "a secret")],
        ),
        Case(
            "a stream that is blocked at its first text becomes another",
            api,
            ask_stream,
            said_in_events(api, *api.events("secret", " and more")),
            blocks("secret"),
            rig="answers",
            stream=True,
            client=Answered("Not that.", type=begun),
            asked=[("pre_call", "Hello"), ("stream", "secret")],
        ),
        Case(
            "a stream that is blocked in its midst ends with the message",
            api,
            ask_stream,
            said_in_events(api, *events),
            blocks("secret"),
            rig="answers",
            stream=True,
            client=Answered("One twoNot that.", upto_secret, type=api.stream_type),
            asked=[("pre_call", "Hello"), ("stream", "One", " two", " secret")],
        ),
        Case(
            "a failure stays an error",
            api,
            ask,
            aim=fails(),
            rig="answers",
            status=503,
            client=Refused("guardrail_unavailable"),
            upstream=NEVER,
            asked=[("pre_call", "Hello")],
        ),
    ]


def refusals(api: Api) -> list[Case]:
    """Return the row for an API without an answer of text."""
    return [
        Case(
            "a block stays an error",
            api,
            api.request("a secret"),
            aim=blocks("secret"),
            rig="answers",
            status=400,
            client=BLOCKED,
            upstream=NEVER,
            asked=[("pre_call", "a secret")],
        )
    ]


ROWS = [
    *(row for api in _ANSWERING for row in answers(api)),
    *(row for api in _REFUSING for row in refusals(api)),
]
