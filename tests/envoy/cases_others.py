"""The rows of further provider APIs: the usual ones, streams in pieces of any size, and what one API alone has."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.envoy.apis import IMAGES, RERANK, Api, js
from tests.envoy.apis import WITH_ANSWERS as MAIN
from tests.envoy.case import (
    ANY,
    BLOCKED,
    OWN_MESSAGE,
    TAGGED,
    Case,
    Ended,
    Said,
    blocked_request,
    blocks,
)
from tests.envoy.cases_dialects import requests_alone, usual
from tests.envoy.other_apis import EMBEDDINGS, REQUESTS_ALONE, SGLANG, UNKNOWN, WITH_ANSWERS


def single_bytes(body: bytes) -> Sequence[bytes]:
    """Cut into single bytes."""
    return [body[at : at + 1] for at in range(len(body))]


def random_pieces(body: bytes) -> Sequence[bytes]:
    """Cut at up to 20 places."""
    cuts = sorted(random.Random(len(body)).sample(range(1, len(body)), 20))
    return [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]


def in_pieces(api: Api) -> list[Case]:
    """Return the rows for answers that come in pieces of any size."""
    rows = []
    for how, cut in (("byte by byte", single_bytes), ("in random pieces", random_pieces)):
        pre_call, heard = ("pre_call", "Hello"), ("stream", "Hi ", "Jane", ", hi")
        rows += [
            Case(
                f"a stream passes {how}",
                api,
                api.request("Hello", stream=True),
                Said(cut(api.stream("Hi ", "Jane", ", hi")), api.stream_type),
                stream=True,
                asked=[pre_call, heard],
            ),
            Case(
                f"a stream is redacted {how}",
                api,
                api.request("Hello", stream=True),
                Said(cut(api.stream("Hi ", "Jane", ", hi")), api.stream_type),
                TAGGED,
                rig="firewall",
                stream=True,
                client=api.stream("Hi ", "[NAME_1]", ", hi"),
                asked=[pre_call, heard],
            ),
            Case(
                f"a stream is blocked in its midst {how}",
                api,
                api.request("Hello", stream=True),
                Said(cut(api.stream("One", " secret", " three")), api.stream_type),
                blocks("secret"),
                stream=True,
                client=Ended(
                    b"".join(api.events("One", " secret", " three")[: api.head + 1]),
                    "content_policy_violation",
                    "Not that.",
                    api.head + 1,
                ),
                asked=ANY,  # of what comes after the block Aim may have got some
            ),
            Case(
                f"an answer passes {how}",
                api,
                api.request("Hello"),
                Said(cut(api.answer("Hi Jane")), "application/json"),
                asked=[pre_call, ("output", "Hello", "Hi Jane")],
            ),
            Case(
                f"an answer is redacted {how}",
                api,
                api.request("Hello"),
                Said(cut(api.answer("Hi Jane")), "application/json"),
                TAGGED,
                rig="firewall",
                client=api.answer("Hi [NAME_1]"),
                asked=[pre_call, ("output", "Hello", "Hi Jane")],
            ),
            Case(
                f"a request is redacted {how}",
                api,
                cut(api.request("I am Jane")),
                Said(api.answer("Hi")),
                TAGGED,
                rig="firewall",
                upstream=api.request("I am [NAME_1]"),
                asked=[("pre_call", "I am Jane"), ("output", "I am [NAME_1]", "Hi")],
            ),
        ]
    return rows


def embeddings(api: Api) -> list[Case]:
    """Return the rows for embeddings, which are inspected only if the settings say so."""
    ask, asked = api.request("Hello"), [("pre_call", "Hello")]
    return [
        Case("an answer passes unread", api, ask, Said(api.answer()), rig="custom", asked=asked),
        blocked_request("a request is blocked", api, rig="custom", client=OWN_MESSAGE),
        Case(
            "a request is redacted",
            api,
            api.request("I am Jane"),
            Said(api.answer()),
            TAGGED,
            rig="firewall embeddings",
            upstream=api.request("I am [NAME_1]"),
            asked=[("pre_call", "I am Jane")],
        ),
    ]


def answers_of(api: Api, answer: Callable[[str], object]) -> list[Case]:
    """Return the rows for an API of data whose answers may hold texts, too."""
    ask, asked = api.request("Hello"), ("pre_call", "Hello")
    cuts: dict[str, Callable[[bytes], bytes | Sequence[bytes]]] = {
        "whole": bytes,
        "byte by byte": single_bytes,
        "in random pieces": random_pieces,
    }
    rows = [
        Case(
            "an answer is blocked",
            api,
            ask,
            Said(js(answer("a secret"))),
            blocks("secret"),
            status=400,
            client=BLOCKED,
            asked=[asked, ("output", "Hello", "a secret")],
        )
    ]
    for how, cut in cuts.items():
        rows += [
            Case(
                f"a text in an answer passes {how}",
                api,
                ask,
                Said(cut(js(answer("Hi Jane"))), "application/json"),
                asked=[asked, ("output", "Hello", "Hi Jane")],
            ),
            Case(
                f"a text in an answer is redacted {how}",
                api,
                ask,
                Said(cut(js(answer("Hi Jane"))), "application/json"),
                TAGGED,
                rig="firewall",
                client=js(answer("Hi [NAME_1]")),
                asked=[asked, ("output", "Hello", "Hi Jane")],
            ),
        ]
    return rows


_ANSWERS: dict[str, Callable[[str], object]] = {
    "images": lambda text: {"created": 1, "data": [{"url": "https://a.example/b.png", "revised_prompt": text}]},
    "rerank": lambda text: {"results": [{"index": 0, "relevance_score": 0.5, "document": {"text": text}}]},
    "cohere rerank": lambda text: {"results": [{"index": 0, "relevance_score": 0.5, "document": {"text": text}}]},
    "tei rerank": lambda text: [{"index": 0, "score": 0.5, "text": text}],
    "vertex predict": lambda text: {"predictions": [text], "deployedModelId": "1"},
    "videos": lambda text: {"id": "video_1", "object": "video", "status": "queued", "prompt": text},
    "realtime secrets": lambda text: {"value": "ek_1", "session": {"type": "realtime", "instructions": text}},
    "ocr": lambda text: {"pages": [{"index": 0, "markdown": text, "images": []}], "model": "m"},
}
"""Answers with a text, by the names of APIs."""


def _unmatched(row: Case) -> Case:
    """Return a row for a path that no dialect knows, whose request is read all the same."""
    return replace(row, is_inspected=False, has_id=True)


def _loses_tokens(row: Case) -> bool:
    """Return whether the row's stream loses token numbers by its redaction, which the usual rows do not expect."""
    return row.api is SGLANG and row.rig == "firewall" and row.stream


_SGLANG_EVENTS = SGLANG.events("Hi ", "Jane", ", hi")

OWN_ROWS = [
    Case(
        "a stream loses its token numbers from the redacted text on",
        SGLANG,
        SGLANG.request("Hello", stream=True),
        Said(_SGLANG_EVENTS, SGLANG.stream_type),
        TAGGED,
        rig="firewall",
        client=b"".join(_SGLANG_EVENTS[:1])
        + b"".join(_SGLANG_EVENTS[1:]).replace(b"Jane", b"[NAME_1]").replace(b"[7]", b"null"),
        asked=[("pre_call", "Hello"), ("stream", "Hi ", "Jane", ", hi")],
    ),
]

ROWS = [
    *(row for api in WITH_ANSWERS for row in (*usual(api), *in_pieces(api)) if not _loses_tokens(row)),
    *OWN_ROWS,
    *(row for api in MAIN for row in in_pieces(api)),
    *(_unmatched(row) for row in (*usual(UNKNOWN), *in_pieces(UNKNOWN))),
    *(row for api in REQUESTS_ALONE for row in requests_alone(api)),
    *(
        row
        for api in (IMAGES, RERANK, *REQUESTS_ALONE)
        if api.name in _ANSWERS
        for row in answers_of(api, _ANSWERS[api.name])
    ),
    *(row for api in EMBEDDINGS for row in embeddings(api)),
]
