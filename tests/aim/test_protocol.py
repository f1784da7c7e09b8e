"""Aim's wire format: calls in its three forms, and every answer and frame, known or not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc import __version__
from extproc.aim import protocol
from extproc.aim.protocol import (
    Blocked,
    Done,
    Endpoints,
    Form,
    Verified,
    answer,
    call_body,
    encoded_messages,
    endpoints,
    frame,
    headers,
)
from extproc.core.content import json_codec as codec
from extproc.core.errors import DetectionError, DetectionRejected, DetectionUnavailable, Reason
from extproc.core.identity import Identity
from extproc.core.verdict import Allow, Anonymize, Block, Invocation, Monitor, Verdict
from extproc.core.vocabulary import Hook, Input

MARKER = "zq-marker"
"""Every answer of Aim in this module contains it. No error may contain it."""

MESSAGES = ({"role": "system", "content": "be kind"}, {"role": "user", "content": "I am Tom"})
REQUEST = Input(MESSAGES)
ANSWER = Input(MESSAGES, "hello Tom")

each_form = pytest.mark.parametrize("form", ["detect", "firewall", "cato"])
each_firewall = pytest.mark.parametrize("form", ["firewall", "cato"])


def judged(form: Form, content: Any, asked: Input = REQUEST) -> Verdict:
    return answer(form, asked, 200, json.dumps(content).encode())


def refused(form: Form, status: int, body: bytes, asked: Input = REQUEST) -> DetectionError:
    """Return the error of an answer without a verdict, and check that it contains nothing of the answer."""
    with pytest.raises(DetectionError) as caught:
        answer(form, asked, status, body)
    assert_content_free(caught.value)
    return caught.value


def assert_content_free(error: BaseException) -> None:
    assert MARKER not in str(error)
    assert MARKER not in repr(error)
    # A traceback would print the causes too.
    if error.__cause__ is not None:
        assert MARKER not in str(error.__cause__)


# -- calls -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "base", "expected"),
    [
        (
            "detect",
            "https://api.aim.security",
            Endpoints(
                "https://api.aim.security/detect/openai",
                "https://api.aim.security/detect/output",
                "wss://api.aim.security/detect/output/ws",
            ),
        ),
        (
            "firewall",
            "http://127.0.0.1:8000/prefix",
            Endpoints(
                "http://127.0.0.1:8000/prefix/fw/v1/analyze",
                "http://127.0.0.1:8000/prefix/fw/v1/analyze",
                "ws://127.0.0.1:8000/prefix/fw/v1/analyze/stream",
            ),
        ),
        (
            "cato",
            "HTTPS://api.aisec.catonetworks.com",
            Endpoints(
                "HTTPS://api.aisec.catonetworks.com/fw/v1/analyze",
                "HTTPS://api.aisec.catonetworks.com/fw/v1/analyze",
                "wss://api.aisec.catonetworks.com/fw/v1/analyze/stream",
            ),
        ),
    ],
)
def test_endpoints_follow_from_form_and_base_url(form: Form, base: str, expected: Endpoints) -> None:
    assert endpoints(form, base) == expected


def test_endpoints_may_have_ipv6_hosts() -> None:
    assert endpoints("detect", "http://[::1]:80").session == "ws://[::1]:80/detect/output/ws"


@pytest.mark.parametrize(
    ("form", "prefix", "alias"),
    [
        ("detect", "x-aim-", "x-aim-litellm-key-alias"),
        ("firewall", "x-aim-", "x-aim-gateway-key-alias"),
        ("cato", "x-cato-", "x-cato-gateway-key-alias"),
    ],
)
def test_headers_follow_from_the_form(form: Form, prefix: str, alias: str) -> None:
    identity = Identity(user_email="a@x.com", key_alias="team", session_id="s1")
    found = headers(form, "key", Hook.OUTPUT, "call-1", identity)
    assert len(found) == 7
    assert dict(found) == {
        "authorization": "Bearer key",
        f"{prefix}litellm-hook": "output",
        f"{prefix}litellm-version": __version__,
        f"{prefix}call-id": "call-1",
        f"{prefix}user-email": "a@x.com",
        alias: "team",
        f"{prefix}session-id": "s1",
    }


@each_form
@pytest.mark.parametrize("hook", Hook)
def test_unknown_caller_has_few_headers(form: Form, hook: Hook) -> None:
    names = dict(headers(form, "key", hook, "call-1", Identity()))
    assert {name.split("-", 2)[-1] for name in names} == {"authorization", "litellm-hook", "litellm-version", "call-id"}
    assert hook.value in names.values()


def test_hooks_have_aims_names() -> None:
    assert [hook.value for hook in Hook] == ["pre_call", "moderation", "output"]


@each_form
def test_call_for_a_request_has_its_messages(form: Form) -> None:
    assert json.loads(call_body(form, REQUEST)) == {"messages": list(MESSAGES)}


def test_call_for_an_answer_has_its_text() -> None:
    assert json.loads(call_body("detect", ANSWER)) == {"output": "hello Tom", "messages": list(MESSAGES)}


@each_firewall
def test_call_for_an_answer_has_one_more_message(form: Form) -> None:
    assert json.loads(call_body(form, ANSWER)) == {
        "messages": [*MESSAGES, {"role": "assistant", "content": "hello Tom"}]
    }


@each_form
def test_empty_answer_without_a_request_is_valid(form: Form) -> None:
    body = json.loads(call_body(form, Input((), "")))
    assert body == (
        {"output": "", "messages": []} if form == "detect" else {"messages": [{"role": "assistant", "content": ""}]}
    )


@each_form
def test_fields_of_a_message_are_sent_in_utf8(form: Form) -> None:
    message = {"role": "tool", "tool_call_id": "1", "content": "é \U0001f600 \ud800", "x": [{"y": None}, 1.5, 10**30]}
    asked = Input((message,))
    assert json.loads(call_body(form, asked).decode()) == {"messages": [message]}
    assert asked.messages == (message,)


@each_form
def test_call_is_json_for_any_numbers(form: Form) -> None:
    message = {"role": "user", "content": "x", "n": json.loads("1e999")}

    def fail(constant: str) -> None:
        raise ValueError(constant)

    json.loads(call_body(form, Input((message,))), parse_constant=fail)


def whole_body(form: Form, asked: Input) -> bytes:
    """Encode the body of a call at once."""
    messages = list(asked.messages)
    if asked.output is None:
        return codec.encode({"messages": messages})
    if form == "detect":
        return codec.encode({"output": asked.output, "messages": messages})
    return codec.encode({"messages": [*messages, {"role": "assistant", "content": asked.output}]})


@each_form
@given(
    st.lists(st.dictionaries(st.text(), st.text() | st.none() | st.lists(st.integers(-9, 9)))).map(tuple),
    st.none() | st.text(),
)
def test_body_of_encoded_messages_is_the_body_encoded_at_once(
    form: Form, messages: tuple[dict[str, Any], ...], output: str | None
) -> None:
    asked = Input(messages, output)
    assert call_body(form, asked) == call_body(form, asked, encoded_messages(messages)) == whole_body(form, asked)


@each_form
@pytest.mark.parametrize("texts", [("\ud800", "a"), ("a", "\ud800"), ("\ud800", "\udfff")])
def test_body_with_lone_surrogates_means_what_was_asked(form: Form, texts: tuple[str, str]) -> None:
    asked = Input(({"role": "user", "content": texts[0]},), texts[1])
    assert json.loads(call_body(form, asked)) == json.loads(whole_body(form, asked))


# -- answers that hold no verdict --------------------------------------------------------------------------------

STATUSES = [
    (401, DetectionRejected, Reason.KEY_REFUSED),
    (403, DetectionRejected, Reason.KEY_REFUSED),
    (400, DetectionRejected, Reason.REJECTED),
    (404, DetectionRejected, Reason.REJECTED),
    (413, DetectionRejected, Reason.REJECTED),
    (422, DetectionRejected, Reason.REJECTED),
    (499, DetectionRejected, Reason.REJECTED),
    (407, DetectionUnavailable, Reason.UNREACHABLE),
    (408, DetectionUnavailable, Reason.REJECTED),
    (429, DetectionUnavailable, Reason.RATE_LIMITED),
    (500, DetectionUnavailable, Reason.SERVER_ERROR),
    (502, DetectionUnavailable, Reason.SERVER_ERROR),
    (503, DetectionUnavailable, Reason.SERVER_ERROR),
    (599, DetectionUnavailable, Reason.SERVER_ERROR),
    (100, DetectionRejected, Reason.UNREADABLE_ANSWER),
    (101, DetectionRejected, Reason.UNREADABLE_ANSWER),
    (300, DetectionRejected, Reason.UNREADABLE_ANSWER),
    (302, DetectionRejected, Reason.UNREADABLE_ANSWER),
    (307, DetectionRejected, Reason.UNREADABLE_ANSWER),
    (399, DetectionRejected, Reason.UNREADABLE_ANSWER),
]
each_status = pytest.mark.parametrize(("status", "kind", "reason"), STATUSES)

ALLOWING = {"detected": False, "required_action": None, "detail": MARKER}


@each_form
@each_status
def test_error_status_is_never_an_allow(form: Form, status: int, kind: type[DetectionError], reason: Reason) -> None:
    """An error status is never an allow, not even with the body of an allow."""
    for body in (json.dumps(ALLOWING).encode(), json.dumps({"detail": MARKER}).encode(), b"", MARKER.encode()):
        error = refused(form, status, body)
        assert type(error) is kind
        assert error.reason is reason
        assert str(status) in str(error)


@each_status
def test_refused_session_has_a_reason(status: int, kind: type[DetectionError], reason: Reason) -> None:
    error = protocol.session_refused(status)
    assert (type(error), error.reason) == (kind, reason)


@each_form
@pytest.mark.parametrize("status", [200, 201, 299])
def test_every_2xx_is_read(form: Form, status: int) -> None:
    assert answer(form, REQUEST, status, json.dumps(ALLOWING).encode()) == Allow()


NOT_AN_ANSWER = {
    "empty": b"",
    "text": MARKER.encode(),
    "cut short": f'{{"detected": false, "required_action": null, "x": "{MARKER}'.encode(),
    "followed by more": json.dumps(ALLOWING).encode() + MARKER.encode(),
    "not UTF-8": json.dumps(ALLOWING).encode() + b"\xff",
    "string": f'"{MARKER}"'.encode(),
    "array": json.dumps([ALLOWING]).encode(),
    "null": b"null",
    "true": b"true",
    "too deep": b"[" * 100_000,
    "a number too long": b'{"detected": ' + b"1" * 5000 + b"}",
    "no verdict": json.dumps({"detail": MARKER}).encode(),
    "empty object": b"{}",
}


@each_form
@pytest.mark.parametrize("body", NOT_AN_ANSWER.values(), ids=NOT_AN_ANSWER)
def test_answer_that_cannot_be_read_has_a_reason(form: Form, body: bytes) -> None:
    error = refused(form, 200, body)
    assert (type(error), error.reason) == (DetectionRejected, Reason.UNREADABLE_ANSWER)


@each_form
@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "x-new"])
def test_answer_that_claims_an_encoding_has_no_verdict(form: Form, encoding: str) -> None:
    """None was offered, so nobody knows what such a body means, even if it reads as a verdict."""
    with pytest.raises(DetectionRejected) as caught:
        answer(form, REQUEST, 200, json.dumps(ALLOWING).encode(), encoding)
    assert caught.value.reason is Reason.UNREADABLE_ANSWER


@each_form
def test_answer_may_say_that_it_has_no_encoding(form: Form) -> None:
    assert answer(form, REQUEST, 200, json.dumps(ALLOWING).encode(), " Identity ") == Allow()


REPEATS = [
    f'{{"detected": true, "required_action": {{"action_type": "block_action"}}, {rest}, "x": "{MARKER}"}}'
    for rest in (
        '"detected": false, "required_action": null',
        '"detect\\u0065d": false, "required\\u005faction": null',
        f'"{MARKER}": [{{"content": "a", "content": "b"}}]',
        '"odd": NaN',
        '"odd": [-Infinity]',
    )
]


@each_form
@pytest.mark.parametrize("body", REPEATS)
def test_answer_of_two_meanings_has_no_verdict(form: Form, body: str) -> None:
    for content in (body, body.replace("true", "false").replace("block", "monitor")):
        error = refused(form, 200, content.encode())
        assert (type(error), error.reason) == (DetectionRejected, Reason.UNREADABLE_ANSWER)


def test_keys_may_occur_again_in_other_objects() -> None:
    content = {"detected": False, "details": {"detected": {"detected": True}}}
    assert judged("detect", content) == Allow(("detected",))


# -- detect ------------------------------------------------------------------------------------------------------


def test_detect_allows() -> None:
    assert judged("detect", {"detected": False}) == Allow()
    assert judged("detect", {"detected": False, "details": {"pii": {}, "code": 1}, "detection_message": "x"}) == Allow(
        ("pii", "code")
    )


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("no secrets", "no secrets"),
        ("", None),
        (None, None),
        (5, None),
        (["x"], None),
        ({"a": "b"}, None),
        (True, None),
    ],
)
def test_detect_blocks_whatever_the_message(message: Any, expected: str | None) -> None:
    content = {"detected": True, "details": {"pii": {"x": MARKER}}, "detection_message": message}
    assert judged("detect", content) == Block(expected, ("pii",))


def test_detect_may_block_without_message_and_details() -> None:
    assert judged("detect", {"detected": True}) == Block(None)


@pytest.mark.parametrize("details", [None, [], ["pii"], MARKER, 1])
def test_detect_accepts_details_of_other_types(details: Any) -> None:
    assert judged("detect", {"detected": False, "details": details}) == Allow()
    assert judged("detect", {"detected": True, "details": details}) == Block(None)


@pytest.mark.parametrize("detected", [None, 0, 1, "true", "false", MARKER, [], {}, 0.0])
def test_detect_refuses_a_verdict_of_another_type(detected: Any) -> None:
    body = json.dumps({"detected": detected, "detection_message": MARKER}).encode()
    assert refused("detect", 200, body).reason is Reason.UNREADABLE_ANSWER


def test_detect_refuses_the_answer_of_the_firewall_form() -> None:
    for action in (None, {"action_type": "block_action", "detection_message": MARKER}):
        body = json.dumps({"required_action": action}).encode()
        assert refused("detect", 200, body).reason is Reason.UNREADABLE_ANSWER


def test_policies_are_printable() -> None:
    verdict = answer("detect", Input(()), 200, b'{"detected": false, "details": {"\\ud800x\\n": 1, "P I": 1}}')
    assert verdict.policies == ("?x?", "P I")


def test_policies_are_bounded() -> None:
    details: dict[str, Any] = {f"{number:03}" + "x" * 500: {} for number in range(100)}
    verdict = judged("detect", {"detected": False, "details": details})
    assert verdict.policies == tuple(f"{number:03}" + "x" * 125 for number in range(32))


# -- firewall ----------------------------------------------------------------------------------------------------

DRILL_DOWN = {
    "uuid-1": {"policy_name": "PII Policy", "detections": [MARKER]},
    "uuid-2": {"detections": []},
    "uuid-3": {"policy_name": None},
    "uuid-4": "odd",
}
NAMED = ("PII Policy", "uuid-2", "uuid-3", "uuid-4")


def fw(action: Any, **more: Any) -> dict[str, Any]:
    return {
        "analysis_result": {"analysis_time_ms": 41, "policy_drill_down": DRILL_DOWN, "last_message_entities": [MARKER]},
        "required_action": action,
        "invocation_id": MARKER,
        **more,
    }


def chat(*texts: Any) -> dict[str, Any]:
    return {
        "all_redacted_messages": [
            {"role": "user", "content": text, "additional_contents": None, "entities": []} for text in texts
        ],
        "redacted_new_message": {"role": "user", "content": "not read"},
    }


@each_firewall
@pytest.mark.parametrize("action", [None, {}, {"action_type": None}, {"policy_name": "x", "detection_message": "y"}])
def test_firewall_allows(form: Form, action: Any) -> None:
    assert judged(form, fw(action)) == Allow(NAMED)
    assert judged(form, {"required_action": action}) == Allow()
    # An allow has a redacted chat too, which must not be applied.
    assert judged(form, fw(action, redacted_chat=chat("a", "b"))) == Allow(NAMED)


@each_firewall
def test_firewall_monitors(form: Form) -> None:
    assert judged(form, fw({"action_type": "monitor_action"}, redacted_chat=chat("a", "b"))) == Monitor(NAMED)


@each_firewall
@pytest.mark.parametrize(
    ("message", "expected"),
    [("no secrets", "no secrets"), ("", None), (None, None), (5, None), (["x"], None), ({"a": "b"}, None)],
)
def test_firewall_blocks_whatever_the_message(form: Form, message: Any, expected: str | None) -> None:
    action = {"action_type": "block_action", "policy_name": "PII", "detection_message": message}
    assert judged(form, fw(action, redacted_chat=chat("a", "b"))) == Block(expected, NAMED)


@each_firewall
def test_firewall_may_block_without_a_message(form: Form) -> None:
    assert judged(form, {"required_action": {"action_type": "block_action"}}) == Block(None)


@each_firewall
@pytest.mark.parametrize("place", ["redacted_chat", "chat_redaction_result"])
def test_firewall_anonymizes(form: Form, place: str) -> None:
    """The redacted chat may be in its current place or in that of older answers."""

    def asked(texts: dict[str, Any], about: Input) -> Verdict:
        action: dict[str, Any] = {"action_type": "anonymize_action", "policy_name": "PII", "detection_message": None}
        if place == "redacted_chat":
            return judged(form, fw(action, redacted_chat=texts), about)
        for absent in ({}, {"redacted_chat": None}):
            assert judged(form, fw({**action, place: texts}, **absent), about) == judged(
                form, fw({**action, place: texts}), about
            )
        return judged(form, fw({**action, place: texts}), about)

    assert asked(chat("be kind", "I am [NAME_1]"), REQUEST) == Anonymize(("be kind", "I am [NAME_1]"), NAMED)
    assert asked(chat("be kind", "I am [NAME_1]", "hi"), ANSWER) == Anonymize(("be kind", "I am [NAME_1]", "hi"), NAMED)
    assert asked(chat("be kind", ""), REQUEST) == Anonymize(("be kind", ""), NAMED)


@each_firewall
def test_newer_place_of_the_redacted_chat_takes_precedence(form: Form) -> None:
    action = {"action_type": "anonymize_action", "chat_redaction_result": chat("old", "old")}
    assert judged(form, fw(action, redacted_chat=chat("new", "new"))) == Anonymize(("new", "new"), NAMED)


@each_firewall
@pytest.mark.parametrize(
    "redacted",
    [
        *(chat(), chat("a"), chat("a", "b", "c"), {}, None, [], MARKER),
        *({"all_redacted_messages": odd} for odd in (None, MARKER, {"0": "a", "1": "b"})),
        {"redacted_new_message": {"content": MARKER}},
    ],
)
def test_unusable_redaction_has_no_texts(form: Form, redacted: Any) -> None:
    """This is not a DetectionError: the exchange must be refused regardless of its failure policy."""
    assert judged(form, fw({"action_type": "anonymize_action"}, redacted_chat=redacted)) == Anonymize((), NAMED)


@each_firewall
def test_redacted_chat_must_include_the_answer(form: Form) -> None:
    action = {"action_type": "anonymize_action"}
    assert judged(form, fw(action, redacted_chat=chat("a", "b")), ANSWER) == Anonymize((), NAMED)
    assert judged(form, fw(action, redacted_chat=chat("a")), Input((), "x")) == Anonymize(("a",), NAMED)
    assert judged(form, fw(action, redacted_chat=chat("a")), Input((), "")) == Anonymize(("a",), NAMED)


@each_firewall
@pytest.mark.parametrize("odd", [None, 5, ["a"], {"text": "a"}, True])
def test_redacted_text_of_another_type_is_missing(form: Form, odd: Any) -> None:
    action = {"action_type": "anonymize_action"}
    assert judged(form, fw(action, redacted_chat=chat("a", odd))) == Anonymize(("a", None), NAMED)
    messages = {"all_redacted_messages": [odd, {"role": "user"}]}
    assert judged(form, fw(action, redacted_chat=messages)) == Anonymize((None, None), NAMED)


@each_firewall
@pytest.mark.parametrize(
    "kind",
    [
        "quarantine_action",
        "",
        "BLOCK_ACTION",
        "block",
        "allow",
        "allow_action",
        MARKER,
        0,
        False,
        [],
        {},
        ["block_action"],
    ],
)
def test_an_unknown_action_is_never_an_allow(form: Form, kind: Any) -> None:
    body = json.dumps(fw({"action_type": kind, "detection_message": MARKER})).encode()
    error = refused(form, 200, body)
    assert isinstance(error, protocol.UnknownAction)
    assert error.reason is Reason.UNKNOWN_ACTION


@each_firewall
def test_an_unknown_action_keeps_what_aim_says_of_its_work(form: Form) -> None:
    content = fw({"action_type": "quarantine_action"}) | {"invocation_id": "inv_1"}
    error = refused(form, 200, json.dumps(content).encode())
    assert isinstance(error, protocol.UnknownAction)
    assert (error.policies, error.invocation) == (NAMED, Invocation("inv_1", 41))


@each_firewall
@pytest.mark.parametrize("action", [MARKER, "block_action", [], [{"action_type": None}], 0, False, True])
def test_required_action_of_another_type_is_an_error(form: Form, action: Any) -> None:
    error = refused(form, 200, json.dumps(fw(action)).encode())
    assert error.reason is Reason.UNREADABLE_ANSWER


@each_firewall
def test_missing_required_action_is_never_an_allow(form: Form) -> None:
    content = fw(None)
    del content["required_action"]
    for body in (content, {"detected": False, "x": MARKER}):
        assert refused(form, 200, json.dumps(body).encode()).reason is Reason.UNREADABLE_ANSWER


@each_firewall
@pytest.mark.parametrize("result", [None, [], MARKER, {}, {"policy_drill_down": None}, {"policy_drill_down": [MARKER]}])
def test_analysis_result_of_another_type_is_ignored(form: Form, result: Any) -> None:
    assert judged(form, {"required_action": None, "analysis_result": result}) == Allow()


@each_firewall
@pytest.mark.parametrize(
    ("action", "redacted"),
    [
        (None, None),
        ({"action_type": None}, None),
        ({"action_type": "monitor_action"}, None),
        ({"action_type": "block_action"}, None),
        ({"action_type": "anonymize_action"}, chat("a", "b")),
    ],
)
def test_verdict_has_the_invocation(form: Form, action: Any, redacted: Any) -> None:
    verdict = judged(form, fw(action, redacted_chat=redacted))
    assert verdict.invocation == Invocation(MARKER, 41)
    assert verdict.policies == NAMED


@pytest.mark.parametrize("name", ["inv_0a9f", "x", "a" * 128, "0d4c-11:22.3_Z"])
def test_invocation_id_is_kept(name: str) -> None:
    assert judged("firewall", {"required_action": None, "invocation_id": name}).invocation == Invocation(name, None)


@pytest.mark.parametrize("name", ["", "a" * 129, "my name is", "inv_1\n", "é", "a@b", "a/b", 5, None, ["inv_1"], True])
def test_text_that_is_no_id_is_left_out(name: Any) -> None:
    assert judged("firewall", {"required_action": None, "invocation_id": name}).invocation is None


@pytest.mark.parametrize("time", [0, 41, 2**40])
def test_time_of_the_analysis_is_kept(time: int) -> None:
    content = {"required_action": None, "analysis_result": {"analysis_time_ms": time}}
    assert judged("cato", content).invocation == Invocation(None, time)


@pytest.mark.parametrize("time", [-1, 4.5, "41", None, True, [41]])
def test_time_of_another_type_is_left_out(time: Any) -> None:
    content = {"required_action": None, "analysis_result": {"analysis_time_ms": time}}
    assert judged("cato", content).invocation is None


def test_detect_form_has_no_invocation() -> None:
    content = {"detected": False, "invocation_id": "inv_1", "analysis_result": {"analysis_time_ms": 41}}
    assert judged("detect", content).invocation is None


# -- session frames ----------------------------------------------------------------------------------------------


def test_done_of_the_sidecar_has_this_form() -> None:
    assert json.loads(protocol.DONE) == {"done": True}


@pytest.mark.parametrize(
    ("choices", "texts"),
    [
        ([{"index": 0, "delta": {"content": "a"}}], ((0, "a"),)),
        ([{"index": 0, "delta": {"content": ""}}], ((0, ""),)),
        ([{"index": 0, "delta": {"content": None}}], ((0, None),)),
        ([{"index": 3, "delta": {"role": "assistant"}}], ((3, None),)),
        ([{"index": 1, "delta": None}], ((1, None),)),
        ([{"index": 1, "delta": [], "finish_reason": "stop"}], ((1, None),)),
        ([{"index": 1024}], ((1024, None),)),
        ([{"delta": {"content": "a"}}], ((0, "a"),)),
        (
            [
                {"index": 1, "delta": {"content": "b"}},
                {"index": 0, "delta": {"content": "a"}},
                {"index": 1, "delta": {}},
            ],
            ((1, "b"), (0, "a"), (1, None)),
        ),
        ([], ()),
    ],
)
def test_verified_chunk_has_its_texts(choices: Any, texts: tuple[tuple[int, str | None], ...]) -> None:
    chunk = {"id": "1", "choices": choices, "usage": None}
    expected = Verified(texts, chunk)
    assert frame(json.dumps({"verified_chunk": chunk})) == expected
    assert frame(json.dumps({"verified_chunk": chunk}).encode()) == expected
    assert frame(json.dumps({"verified_chunk": chunk, "blocking_message": None, "more": 1})) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [("no secrets", "no secrets"), ("", ""), (0, ""), (False, ""), ([MARKER], ""), ({}, "")],
)
def test_blocking_frame_has_its_message(message: Any, expected: str) -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "a"}}]}
    for more in (
        {},
        {"first_blocked_chunk": chunk},
        {"verified_chunk": chunk},
        {"verified_chunk": None},
        {"done": True},
    ):
        assert frame(json.dumps({"blocking_message": message, **more})) == Blocked(expected)
        assert frame(json.dumps({**more, "blocking_message": message})) == Blocked(expected)


def test_done_of_aim_is_read() -> None:
    assert frame('{"done": true}') == Done()
    assert frame(b' {"done": true, "blocking_message": null, "analysis": {}} ') == Done()


BROKEN_FRAMES: dict[str, Any] = {
    "empty": {},
    "unknown": {"analysis": MARKER},
    "done: false": {"done": False, "x": MARKER},
    "done: 1": {"done": 1},
    "done: a string": {"done": "true"},
    "no blocking message": {"blocking_message": None},
    "blocked chunk alone": {"first_blocked_chunk": {"x": MARKER}},
    "null chunk": {"verified_chunk": None},
    "null chunk and done": {"verified_chunk": None, "done": True},
    "empty chunk": {"verified_chunk": {}},
    "string chunk": {"verified_chunk": MARKER},
    "array chunk": {"verified_chunk": [{"choices": []}]},
    "no choices": {"verified_chunk": {"id": MARKER}},
    "null choices": {"verified_chunk": {"choices": None, "id": MARKER}},
    "object choices": {"verified_chunk": {"choices": {"0": MARKER}}},
    "string choice": {"verified_chunk": {"choices": [MARKER]}},
    "null choice": {"verified_chunk": {"choices": [{"index": 0}, None]}},
    "string index": {"verified_chunk": {"choices": [{"index": "0", "delta": {"content": MARKER}}]}},
    "null index": {"verified_chunk": {"choices": [{"index": None, "delta": {"content": MARKER}}]}},
    "boolean index": {"verified_chunk": {"choices": [{"index": True, "delta": {"content": MARKER}}]}},
    "float index": {"verified_chunk": {"choices": [{"index": 0.0, "delta": {"content": MARKER}}]}},
    "array content": {"verified_chunk": {"choices": [{"index": 0, "delta": {"content": [MARKER]}}]}},
    "object content": {"verified_chunk": {"choices": [{"index": 0, "delta": {"content": {"text": MARKER}}}]}},
    "number content": {"verified_chunk": {"choices": [{"index": 0, "delta": {"content": 5}}]}},
    "array": [{"done": True}],
    "null": None,
    "string": MARKER,
    "true": True,
}


@pytest.mark.parametrize("content", BROKEN_FRAMES.values(), ids=BROKEN_FRAMES)
def test_frame_that_breaks_the_protocol_is_a_session_failure(content: Any) -> None:
    with pytest.raises(DetectionRejected) as caught:
        frame(json.dumps(content))
    assert caught.value.reason is Reason.SESSION
    assert_content_free(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        "",
        MARKER,
        "[DONE]",
        f'data: {{"done": true, "x": "{MARKER}"}}',
        '{"done": true',
        '{"done": true}{"done": true}',
        f'{{"{MARKER}": True}}',
        "[" * 100_000,
        '{"done": ' + "1" * 5000 + "}",
        b"",
        b"\xff\xfe\xfd",
        b'{"done": true, "' + MARKER.encode() + b'": "\xff"}',
        b"\x00\x01" + MARKER.encode(),
        f'{{"done": true, "done": true, "x": "{MARKER}"}}',
        f'{{"blocking_message": "{MARKER}", "blocking_message": null, "done": true}}',
        f'{{"blocking_message": "{MARKER}", "blocking\\u005fmessage": null, "done": true}}',
        '{"verified_chunk": {"choices": [{"delta": {"content": "a", "content": "b"}}]}}',
        '{"verified_chunk": {"choices": [{"delta": {"content": "\\u0022\\u0022", "x": 1, "x": 2}}]}}',
        '{"verified_chunk": {"choices": [], "id": NaN}}',
        '{"done": true, "x": Infinity}',
    ],
)
def test_frame_that_is_not_json_is_a_session_failure(data: str | bytes) -> None:
    with pytest.raises(DetectionRejected) as caught:
        frame(data)
    assert caught.value.reason is Reason.SESSION
    assert_content_free(caught.value)
