"""The rows of further provider APIs: the usual ones, streams in pieces of any size, and what one API alone has."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tests.envoy.apis import Api
from tests.envoy.case import ANY, OWN_MESSAGE, TAGGED, Case, Ended, Said, blocked_request, blocks
from tests.envoy.cases_dialects import requests_alone, usual
from tests.envoy.other_apis import EMBEDDINGS, REQUESTS_ALONE, SGLANG, WITH_ANSWERS


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
    ]


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
    *(row for api in REQUESTS_ALONE for row in requests_alone(api)),
    *(row for api in EMBEDDINGS for row in embeddings(api)),
]
