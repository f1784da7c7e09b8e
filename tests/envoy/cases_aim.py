"""Rows about Aim: its three forms, its answers, the hooks, and its failures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tests.envoy.apis import ANTHROPIC, CHAT, GEMINI, RESPONSES, js
from tests.envoy.case import (
    ANSWER,
    ANY,
    ASK,
    ASK_STREAM,
    JUDGED,
    NEVER,
    OUTPUT,
    OWN_MESSAGE,
    PRE_CALL,
    TAGGED,
    UNAVAILABLE,
    Behaviour,
    Case,
    Ended,
    Refused,
    Said,
    allows,
    blocked_request,
    blocks,
    drops_at,
    fails,
    redacts,
    says,
    streams,
    texts_of,
)
from tests.fakes.aim import AimSession, ScriptedAim, chunk_of
from tests.fakes.upstream import Received

BLOCKED_REQUEST = Refused(
    "content_policy_violation", "The request was blocked by the organization's AI security policy."
)


def _action(kind: str | None, **more: Any) -> dict[str, Any]:
    return {"required_action": {"action_type": kind, **more}}


def _redacted(*texts: Any) -> dict[str, Any]:
    return {"all_redacted_messages": [{"role": "user", "content": text} for text in texts]}


def _request_answered(name: str, body: Any, rig: str = "firewall", **expected: Any) -> Case:
    """Return a case in which Aim answers `body` for the request. The upstream's answer has no text."""
    passes = "status" not in expected
    return Case(
        name,
        CHAT,
        ASK,
        Said(CHAT.answer("")),
        says(body),
        rig=rig,
        upstream=expected.pop("upstream", None if passes else NEVER),
        asked=[PRE_CALL],
        **expected,
    )


_UNAVAILABLE: dict[str, Any] = {"status": 503, "client": UNAVAILABLE}
_BLOCKED: dict[str, Any] = {"status": 400, "client": BLOCKED_REQUEST}
_UNREDACTABLE: dict[str, Any] = {"status": 400, "client": Refused("redaction_failed")}

ANSWERS = [
    *(
        _request_answered(f"{rig}: no action allows", body, rig)
        for rig in ("firewall", "cato")
        for body in ({"required_action": None},)
    ),
    _request_answered("an action without a type allows", _action(None)),
    _request_answered(
        "an allow with a redaction is an allow", {"required_action": None, "redacted_chat": _redacted("Bye")}
    ),
    _request_answered("monitor_action allows", _action("monitor_action", detection_message="Seen.")),
    _request_answered(
        "block_action blocks",
        _action("block_action", detection_message="Not that."),
        status=400,
        client=Refused("content_policy_violation", "Not that."),
    ),
    _request_answered(
        "block_action without a message blocks", _action("block_action"), status=400, client=BLOCKED_REQUEST
    ),
    _request_answered(
        "a redaction where older answers have it",
        _action("anonymize_action", chat_redaction_result=_redacted("Bye")),
        upstream=CHAT.request("Bye"),
    ),
    _request_answered(
        "cato: a redaction",
        _action("anonymize_action") | {"redacted_chat": _redacted("Bye")},
        "cato",
        upstream=CHAT.request("Bye"),
    ),
    *(
        _request_answered(
            f"a redaction that cannot be put back: {why}", _action("anonymize_action") | chat, **_UNREDACTABLE
        )
        for why, chat in {
            "none there": {},
            "too many messages": {"redacted_chat": _redacted("Bye", "Bye")},
            "no messages": {"redacted_chat": _redacted()},
            "a missing text": {"redacted_chat": _redacted(None)},
            "a text that is none": {"redacted_chat": _redacted(["Bye"])},
            "nothing changed": {"redacted_chat": _redacted("Hello")},
        }.items()
    ),
    *(
        _request_answered(f"unreadable: {why}", body, **_UNAVAILABLE)
        for why, body in {
            "an unknown action": _action("quarantine_action"),
            "no required_action": {"analysis_result": {}},
            "an action of another type": {"required_action": "block_action"},
            "a repeated key": (200, b'{"required_action": {"action_type": "monitor_action"}, "required_action": null}'),
            "the other form's answer": {"detected": False},
            "a list": [],
            "not JSON": (200, b"OK"),
            "empty": (200, b""),
            "a redirect": (302, b""),
        }.items()
    ),
    *(
        _request_answered(f"detect: {why}", body, "default", **expected)
        for why, body, expected in (
            ("no details", {"detected": False}, {}),
            ("an empty message blocks", {"detected": True, "detection_message": ""}, _BLOCKED),
            ("no message blocks", {"detected": True}, _BLOCKED),
            ("`detected` missing", {"detection_message": "x"}, _UNAVAILABLE),
            ("`detected` of another type", {"detected": "false"}, _UNAVAILABLE),
            ("the other form's answer", {"required_action": None}, _UNAVAILABLE),
        )
    ),
    *(
        _request_answered(
            f"HTTP {status}: closed", (status, {"detail": "Invalid API token"}), "default", **_UNAVAILABLE
        )
        for status in (401, 403, 404, 422, 429, 500, 503)
    ),
    *(
        _request_answered(f"HTTP {status}: open", (status, {"detail": "no"}), "open")
        for status in (404, 422, 429, 500, 503)
    ),
    *(
        _request_answered(f"HTTP {status} means a refused key and never opens", (status, {}), "open", **_UNAVAILABLE)
        for status in (401, 403)
    ),
    _request_answered("Aim's answer is unreadable: open", (200, b"OK"), "open"),
    *(
        Case(
            f"a redaction that cannot be put back in an answer: {why}",
            CHAT,
            b"",
            ANSWER,
            says(_action("anonymize_action") | {"redacted_chat": chat}),
            rig="firewall",
            status=502,
            client=Refused("redaction_failed"),
            asked=[("output", "Hi")],
        )
        for why, chat in {
            "another number of messages": _redacted("Bye", "Bye"),
            "a missing text": _redacted(None),
            "nothing changed": _redacted("Hi"),
        }.items()
    ),
    Case(
        "of an answer's texts one block blocks all",
        CHAT,
        ASK,
        Said(CHAT.answer("One", "secret", "Three")),
        blocks("secret"),
        status=400,
        client=Refused("content_policy_violation", "Not that."),
        asked=ANY,
    ),
    Case(
        "a block of an answer is stronger than a redaction of its other text",
        CHAT,
        ASK,
        Said(CHAT.answer("Jane", "secret")),
        lambda aim: _both(aim),
        rig="firewall",
        status=400,
        client=Refused("content_policy_violation", "Not that."),
        asked=ANY,
    ),
]


def _both(aim: ScriptedAim) -> None:
    TAGGED(aim)
    redact = aim.judge
    blocks("secret")(aim)
    refuse = aim.judge

    async def judge(question: Any) -> Any:
        return await (refuse if "secret" in str(question.body["messages"][-1]) else redact)(question)

    aim.judge = judge


HEADERS = [
    Case(
        "detect: headers",
        CHAT,
        ASK,
        ANSWER,
        headers=(("x-aim-user-email", "ann@example.com"), ("x-key", "team-a")),
        asked=JUDGED,
        aim_headers={
            "x-aim-user-email": "ann@example.com",
            "x-aim-litellm-version": ANY,
            "x-aim-litellm-key-alias": None,
            "x-cato-user-email": None,
        },
    ),
    Case(
        "firewall: headers",
        CHAT,
        ASK_STREAM,
        streams(*CHAT.events("Hi")),
        rig="firewall",
        headers=(("x-aim-user-email", "ann@example.com"),),
        asked=[PRE_CALL, ("stream", "Hi")],
        aim_headers={"x-aim-user-email": "ann@example.com", "x-aim-gateway-key-alias": None},
    ),
    *(
        Case(
            f"a user's name in any script: {name}",
            CHAT,
            CHAT.request("Hello", stream=stream),
            streams(*CHAT.events("Hi")),
            headers=(("x-aim-user-email", name.encode().decode("latin-1")),),
            asked=[PRE_CALL, ("stream", "Hi")],
            aim_headers={"x-aim-user-email": name},
        )
        for name, stream in (("Jürgen", True), ("Юрий", True), ("日本", False))
    ),
    Case(
        "cato: headers",
        CHAT,
        ASK_STREAM,
        streams(*CHAT.events("Hi")),
        rig="cato",
        headers=(("x-aim-user-email", "ann@example.com"),),
        asked=[PRE_CALL, ("stream", "Hi")],
        aim_headers={"x-cato-user-email": "ann@example.com", "x-aim-user-email": None, "x-aim-call-id": None},
    ),
    Case(
        "cato: an answer",
        CHAT,
        ASK,
        ANSWER,
        rig="cato",
        asked=JUDGED,
    ),
    Case(
        "the settings name user and key",
        CHAT,
        ASK,
        ANSWER,
        rig="custom",
        headers=(("x-aim-user-email", "forged@example.com"), ("x-key", "team-a")),
        upstream_headers={"x-key": "team-a"},
        asked=JUDGED,
        aim_headers={"x-aim-user-email": "ann@example.com", "x-aim-litellm-key-alias": "team-a"},
    ),
    Case(
        "credentials of the client go to the upstream, not to Aim",
        CHAT,
        ASK,
        ANSWER,
        headers=(("authorization", "Bearer sk-upstream"), ("x-api-key", "k")),
        upstream_headers={"authorization": "Bearer sk-upstream", "x-api-key": "k"},
        asked=JUDGED,
        aim_headers={"x-api-key": None},
    ),
]

HOOKS = [
    Case("moderation: allowed", CHAT, ASK, ANSWER, rig="moderation", asked=[("moderation", "Hello")]),
    Case(
        "moderation: a stream is not verified without `output`",
        CHAT,
        ASK_STREAM,
        streams(*CHAT.events("Hi")),
        rig="moderation",
        asked=[("moderation", "Hello")],
    ),
    *(
        Case(
            f"moderation: blocked, in {api.name}'s shape",
            api,
            api.request("a secret"),
            Said(api.answer("Hi")),
            blocks("secret"),
            rig="moderation",
            status=400,
            client=Refused("content_policy_violation", "Not that."),
            upstream=ANY,
            asked=[("moderation", "a secret")],
        )
        for api in (CHAT, RESPONSES, ANTHROPIC, GEMINI)
    ),
    Case(
        "moderation: Aim down, closed",
        CHAT,
        ASK,
        ANSWER,
        fails(),
        rig="moderation",
        status=503,
        client=UNAVAILABLE,
        upstream=ANY,
        asked=[("moderation", "Hello")],
    ),
    Case(
        "moderation: too late to redact",
        CHAT,
        CHAT.request("I am Jane"),
        ANSWER,
        TAGGED,
        rig="moderation firewall",
        status=400,
        client=Refused("redaction_failed"),
        upstream=ANY,
        asked=[("moderation", "I am Jane")],
    ),
    Case(
        "moderation holds an upstream's error back too",
        CHAT,
        CHAT.request("a secret"),
        Said(b"no", "text/plain", 500),
        blocks("secret"),
        rig="moderation",
        status=400,
        client=Refused("content_policy_violation", "Not that."),
        upstream=ANY,
        asked=[("moderation", "a secret")],
    ),
    Case(
        "all hooks: a stream",
        CHAT,
        ASK_STREAM,
        streams(*CHAT.events("Hi")),
        rig="all hooks",
        asked=[PRE_CALL, ("moderation", "Hello"), ("stream", "Hi")],
    ),
    Case("all hooks: an answer", CHAT, ASK, ANSWER, rig="all hooks", asked=[PRE_CALL, ("moderation", "Hello"), OUTPUT]),
    blocked_request("all hooks: a block of pre_call spares moderation", CHAT, rig="all hooks"),
    Case("output only: the request is context", CHAT, ASK, ANSWER, rig="output only", asked=[OUTPUT]),
    Case(
        "output only: a blocked word in the request passes",
        CHAT,
        CHAT.request("a secret"),
        ANSWER,
        blocks("secret"),
        rig="output only",
        asked=[("output", "a secret", "Hi")],
    ),
    Case(
        "output only: an answer is blocked",
        CHAT,
        ASK,
        Said(CHAT.answer("a secret")),
        blocks("secret"),
        rig="output only",
        status=400,
        client=Refused("content_policy_violation", "Not that."),
        asked=[("output", "Hello", "a secret")],
    ),
    Case(
        "output only: an unreadable request passes", CHAT, b"Hello", ANSWER, rig="output only", asked=[("output", "Hi")]
    ),
    Case(
        "output only: a stream",
        CHAT,
        ASK_STREAM,
        streams(*CHAT.events("Hi")),
        rig="output only",
        asked=[("stream", "Hi")],
    ),
    blocked_request("block_message takes the place of Aim's", CHAT, rig="custom", client=OWN_MESSAGE),
]

DRY_RUN = [
    Case(
        "a blocked request passes", CHAT, CHAT.request("a secret"), ANSWER, blocks("secret"), rig="dry run", asked=ANY
    ),
    Case(
        "a request that would be redacted passes",
        CHAT,
        CHAT.request("I am Jane"),
        ANSWER,
        TAGGED,
        rig="dry run",
        asked=ANY,
    ),
    Case("a blocked answer passes", CHAT, ASK, Said(CHAT.answer("secret")), blocks("secret"), rig="dry run", asked=ANY),
    Case(
        "a blocked stream passes",
        CHAT,
        ASK_STREAM,
        streams(*CHAT.events("One", "secret", "three")),
        blocks("secret"),
        rig="dry run",
        asked=ANY,
    ),
    Case("Aim down passes", CHAT, ASK, ANSWER, fails(), rig="dry run", asked=ANY),
    Case("an unreadable request passes", CHAT, b"Hello", ANSWER, rig="dry run", asked=ANY),
    Case("an unreadable answer passes", CHAT, ASK, Said(b"Hi", "text/plain"), rig="dry run", asked=ANY),
]

# -- sessions -----------------------------------------------------------------------------------------------------

Script = Callable[[AimSession], Awaitable[None]]
_EVENTS = CHAT.events("One", " two", " three")
_BEFORE = b"".join(_EVENTS[:2])
"""What a client has when Aim verified the first text."""


def scripted(script: Script) -> Behaviour:
    """Let `script` speak in sessions."""

    def apply(aim: ScriptedAim) -> None:
        allows(aim)
        aim.script = script

    return apply


async def _all(session: AimSession) -> list[Any]:
    """Receive all that will come; return what has text."""
    chunks = []
    while (chunk := await session.receive()) is not None:
        if texts_of(chunk):
            chunks.append(chunk)
    return chunks


async def _looks_ahead(session: AimSession) -> None:
    for chunk in await _all(session):
        await session.verify(chunk)
    await session.done()


async def _merges(session: AimSession) -> None:
    await _all(session)
    await session.verify(chunk_of("One two three"))
    await session.done()


async def _merges_two(session: AimSession) -> None:
    *_, last = await _all(session)
    await session.verify(chunk_of("One two"))
    await session.verify(last)
    await session.done()


async def _drops_the_second(session: AimSession) -> None:
    first, _, last = await _all(session)
    await session.verify(first)
    await session.verify(last)
    await session.done()


async def _says_only_done(session: AimSession) -> None:
    await _all(session)
    await session.done()


async def _done_before_ours(session: AimSession) -> None:
    await session.receive()
    await session.done()


async def _invents(session: AimSession) -> None:
    first, *_ = await _all(session)
    await session.verify(first)
    await session.verify(chunk_of("invented", 7))


async def _both_in_one(session: AimSession) -> None:
    first, *_ = await _all(session)
    await session.verify(first)
    await session.socket.send_json({"verified_chunk": chunk_of(" two"), "blocking_message": "Not that."})


async def _unending(request: Received) -> None:
    """Begin a stream and leave it open as long as the client reads."""
    await request.head(headers=[("content-type", "text/event-stream"), ("transfer-encoding", "chunked")])
    for event in _EVENTS[:2]:
        await request.chunk(event)
    await request.gone.wait()


_HEARD = [PRE_CALL, ("stream", "One", " two", " three")]
_HEARD_TWO = [PRE_CALL, ("stream", "One", " two")]
_LATE_FAILURE = Ended(_BEFORE, "guardrail_unavailable")

SESSIONS = [
    *(
        Case(f"an Aim that {what}", CHAT, ASK_STREAM, streams(*_EVENTS), scripted(script), client=client, asked=_HEARD)
        for what, script, client in (
            ("looks ahead", _looks_ahead, None),
            ("merges all", _merges, None),
            ("merges two", _merges_two, None),
            ("drops one", _drops_the_second, CHAT.stream("One", "", " three")),
            ("verifies nothing and is done", _says_only_done, CHAT.stream("", "", "")),
            ("verifies what was never sent", _invents, _LATE_FAILURE),
            (
                "verifies and blocks in one frame",
                _both_in_one,
                Ended(_BEFORE, "content_policy_violation", "Not that."),
            ),
        )
    ),
    *(
        Case(
            f"a frame that breaks off the stream: {what}",
            CHAT,
            ASK_STREAM,
            streams(*_EVENTS),
            drops_at(" two", say=frame),
            client=_LATE_FAILURE,
            asked=_HEARD_TWO,
        )
        for what, frame in {
            "unknown": '{"hello": 1}',
            "not JSON": "hello",
            "a list": "[]",
            "an empty chunk": '{"verified_chunk": {}}',
            "a null chunk": '{"verified_chunk": null}',
            "a chunk without choices": '{"verified_chunk": {"id": "c1"}}',
            "a choice of another type": '{"verified_chunk": {"choices": [7]}}',
            "not done": '{"done": false}',
        }.items()
    ),
    Case(
        "an empty blocking message blocks",
        CHAT,
        ASK_STREAM,
        streams(*_EVENTS),
        drops_at(" two", say='{"blocking_message": "", "first_blocked_chunk": {}}'),
        client=Ended(
            _BEFORE, "content_policy_violation", "The response was blocked by the organization's AI security policy."
        ),
        asked=_HEARD_TWO,
    ),
    Case(
        "a blocking message that quotes what is withheld is not relayed",
        CHAT,
        ASK_STREAM,
        streams(*_EVENTS),
        drops_at(" two", say='{"blocking_message": "Found \'TWO\'."}'),
        client=Ended(
            _BEFORE, "content_policy_violation", "The response was blocked by the organization's AI security policy."
        ),
        asked=_HEARD_TWO,
    ),
    Case(
        "done before the done of the sidecar",
        CHAT,
        ASK_STREAM,
        _unending,
        scripted(_done_before_ours),
        status=503,
        client=UNAVAILABLE,
        asked=ANY,
    ),
    Case(
        "a socket dropped in mid-stream: open",
        CHAT,
        ASK_STREAM,
        streams(*_EVENTS),
        drops_at(" two"),
        rig="open",
        asked=_HEARD_TWO,
    ),
    Case(
        "an unknown frame in mid-stream: open",
        CHAT,
        ASK_STREAM,
        streams(*_EVENTS),
        drops_at(" two", say="{}"),
        rig="open",
        asked=_HEARD_TWO,
    ),
    *(
        Case(
            f"the session is refused with {status}: closed",
            CHAT,
            ASK_STREAM,
            streams(*_EVENTS),
            fails(status, leg="response"),
            status=503,
            client=UNAVAILABLE,
            asked=[PRE_CALL],
        )
        for status in (401, 429, 500)
    ),
    Case(
        "the session is refused with 500: open",
        CHAT,
        ASK_STREAM,
        streams(*_EVENTS),
        fails(500, leg="response"),
        rig="open",
        asked=[PRE_CALL],
    ),
    Case(
        "the session is refused with 401: never open",
        CHAT,
        ASK_STREAM,
        streams(*_EVENTS),
        fails(401, leg="response"),
        rig="open",
        status=503,
        client=UNAVAILABLE,
        asked=[PRE_CALL],
    ),
    Case(
        "a session that cannot be opened does not matter to an answer in JSON",
        CHAT,
        ASK_STREAM,
        ANSWER,
        lambda aim: _refuses_sessions(aim),
        asked=JUDGED,
    ),
    Case(
        "tool arguments that a redaction broke end in an error",
        CHAT,
        ASK_STREAM,
        streams(
            CHAT.event(content="One"),
            CHAT.event(tool_calls=[{"index": 0, "function": {"arguments": '{"to":"Jane"}'}}]),
            CHAT.event(finish="tool_calls"),
        ),
        redacts('Jane"', "[NAME_1]"),
        rig="firewall",
        client=Ended(
            CHAT.event(content="One")
            + CHAT.event(tool_calls=[{"index": 0, "function": {"arguments": '{"to":"[NAME_1]}'}}]),
            "redaction_failed",
        ),
        asked=[PRE_CALL, ("stream", "One", '{"to":"Jane"}')],
    ),
    Case(
        "tool arguments are redacted in a stream",
        CHAT,
        ASK_STREAM,
        streams(
            CHAT.event(tool_calls=[{"index": 0, "function": {"arguments": '{"to":'}}]),
            CHAT.event(tool_calls=[{"index": 0, "function": {"arguments": '"Jane"}'}}]),
            CHAT.event(finish="tool_calls"),
        ),
        TAGGED,
        rig="firewall",
        client=CHAT.event(tool_calls=[{"index": 0, "function": {"arguments": '{"to":'}}])
        + CHAT.event(tool_calls=[{"index": 0, "function": {"arguments": '"[NAME_1]"}'}}])
        + CHAT.event(finish="tool_calls"),
        asked=[PRE_CALL, ("stream", '{"to":', '"Jane"}')],
    ),
    Case(
        "a redacted choice of a stream loses its logprobs",
        CHAT,
        ASK_STREAM,
        streams(b"data: " + js({"choices": [{"delta": {"content": "Jane"}, "logprobs": {"x": "Jane"}}]}) + b"\n\n"),
        TAGGED,
        rig="firewall",
        client=b"data: " + js({"choices": [{"delta": {"content": "[NAME_1]"}, "logprobs": None}]}) + b"\n\n",
        asked=[PRE_CALL, ("stream", "Jane")],
    ),
]


def _refuses_sessions(aim: ScriptedAim) -> None:
    async def handshake() -> int:
        return 500

    allows(aim)
    aim.handshake = handshake


ROWS = [*ANSWERS, *HEADERS, *HOOKS, *DRY_RUN, *SESSIONS]
