"""The rows of Bedrock's APIs, and of requests that clients of AWS have signed."""

from __future__ import annotations

from tests.envoy.apis import CHAT
from tests.envoy.bedrock_apis import (
    AGENT,
    BACKGROUND,
    CLAUDE,
    CONVERSE,
    COUNT_TOKENS,
    GUARDRAIL,
    INVOKE,
    KNOWLEDGE_BASE,
)
from tests.envoy.case import ANY, NEVER, TAGGED, Case, Refused, Said, blocked_request, fails
from tests.envoy.cases_dialects import requests_alone, usual
from tests.envoy.cases_others import in_pieces
from tests.fakes.aws import event

_SCOPE = "Credential=AKID/20260101/us-east-1/bedrock/aws4_request"
_ASK = CONVERSE.request("I am Jane")
_ASKED = ("pre_call", "I am Jane")


def _signed(*headers: str) -> tuple[str, str]:
    listed = ";".join(sorted(("host", "x-amz-date", *headers)))
    return "authorization", f"AWS4-HMAC-SHA256 {_SCOPE}, SignedHeaders={listed}, Signature=ab12"


_THOUGHT = [
    event("messageStart", {"role": "assistant"}),
    CONVERSE.delta(0, reasoningContent={"text": "Jane asks"}),
    CONVERSE.delta(0, reasoningContent={"signature": "c2ln"}),
    event("contentBlockStop", {"contentBlockIndex": 0}),
    event("contentBlockStart", {"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "t1", "name": "f"}}}),
    CONVERSE.delta(1, toolUse={"input": '{"to": "J'}),
    CONVERSE.delta(1, toolUse={"input": 'ane"}'}),
    event("contentBlockStop", {"contentBlockIndex": 1}),
    event("metadata", {"usage": {"inputTokens": 3}, "metrics": {}}),
]

OWN_ROWS = [
    Case(
        "a request is redacted",
        AGENT,
        AGENT.request("I am Jane", "Hello"),
        Said(AGENT.events("Hi"), AGENT.stream_type),
        TAGGED,
        rig="firewall",
        stream=True,
        upstream=AGENT.request("I am [NAME_1]", "Hello"),
        asked=[("pre_call", "I am Jane", "Hello"), ("stream", "Hi")],
    ),
    Case(
        "a block's reasoning, its signature and tool input stream as they came",
        CONVERSE,
        CONVERSE.request("Hello"),
        Said(_THOUGHT, CONVERSE.stream_type),
        stream=True,
        asked=[("pre_call", "Hello"), ("stream", "Jane asks", '{"to": "J', 'ane"}')],
    ),
    Case(
        "redacted reasoning loses its signature",
        CONVERSE,
        CONVERSE.request("Hello"),
        Said(_THOUGHT, CONVERSE.stream_type),
        TAGGED,
        rig="firewall",
        stream=True,
        client=b"".join(
            (
                _THOUGHT[0],
                CONVERSE.delta(0, reasoningContent={"text": "[NAME_1] asks"}),
                CONVERSE.delta(0, reasoningContent={"signature": ""}),
                *_THOUGHT[3:],
            )
        ),
        asked=[("pre_call", "Hello"), ("stream", "Jane asks", '{"to": "J', 'ane"}')],
    ),
    Case(
        "no answer of Aim is an unavailable service",
        CONVERSE,
        CONVERSE.request("Hello"),
        aim=fails(503),
        status=503,
        client=Refused("guardrail_unavailable"),
        upstream=NEVER,
        asked=ANY,
    ),
    Case(
        "a stream in both directions is refused",
        CONVERSE,
        b"",
        path="/model/amazon.nova-sonic-v1%3A0/invoke-with-bidirectional-stream",
        headers=(("content-type", CONVERSE.stream_type),),
        status=400,
        has_id=False,
        client=Refused("upgrade_not_inspected"),
        upstream=NEVER,
    ),
]

SIGNED_ROWS = [
    Case(
        "a signed request passes as it came, with its signed accept-encoding",
        CONVERSE,
        _ASK,
        Said(CONVERSE.answer("Hi")),
        headers=(_signed("accept-encoding"),),
        upstream_headers={"authorization": _signed("accept-encoding")[1], "accept-encoding": "gzip, br"},
        asked=[_ASKED, ("output", "I am Jane", "Hi")],
    ),
    Case(
        "a signed request is not redacted",
        CONVERSE,
        _ASK,
        aim=TAGGED,
        rig="firewall",
        headers=(_signed(),),
        status=400,
        client=Refused("redaction_failed"),
        upstream=NEVER,
        asked=[_ASKED],
    ),
    Case(
        "a presigned request is not redacted",
        CONVERSE,
        _ASK,
        aim=TAGGED,
        rig="firewall",
        path="/model/m/converse?X-Amz-SignedHeaders=host&X-Amz-Signature=ab12",
        status=400,
        client=Refused("redaction_failed"),
        upstream=NEVER,
        asked=[_ASKED],
    ),
    Case(
        "a request with a key of the API is redacted",
        CONVERSE,
        _ASK,
        Said(CONVERSE.answer("Hi")),
        TAGGED,
        rig="firewall",
        headers=(("authorization", "Bearer bedrock-api-key-1"),),
        upstream=CONVERSE.request("I am [NAME_1]"),
        asked=[_ASKED, ("output", "I am [NAME_1]", "Hi")],
    ),
    Case(
        "the answer to a signed request is redacted",
        CONVERSE,
        _ASK.replace(b"Jane", b"Tom"),
        Said(CONVERSE.answer("Hi Jane")),
        TAGGED,
        rig="firewall",
        headers=(_signed(),),
        client=CONVERSE.answer("Hi [NAME_1]"),
        asked=[("pre_call", "I am Tom"), ("output", "I am Tom", "Hi Jane")],
    ),
    *(
        Case(
            f"a signed header of Aim's is refused on {path}",
            api,
            _ASK,
            path=path,
            headers=(_signed("x-aim-session-id"),),
            status=400,
            has_id=False,
            client=Refused("signed_header"),
            upstream=NEVER,
        )
        for api, path in ((CONVERSE, "/model/m/converse"), (CHAT, "/unknown"))
    ),
    blocked_request("a signed request is blocked", CONVERSE, headers=(_signed(),)),
]

ROWS = [
    *(row for api in (CONVERSE, INVOKE, CLAUDE) for row in (*usual(api), *in_pieces(api))),
    *usual(KNOWLEDGE_BASE),
    *in_pieces(KNOWLEDGE_BASE),
    *(row for row in (*usual(AGENT), *in_pieces(AGENT)) if row.stream),
    *(row for row in (*usual(GUARDRAIL), *in_pieces(GUARDRAIL)) if not row.stream),
    *requests_alone(COUNT_TOKENS),
    *requests_alone(BACKGROUND),
    *OWN_ROWS,
    *SIGNED_ROWS,
]
