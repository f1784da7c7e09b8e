"""Aim's wire format in its three forms: headers and bodies of calls, their answers, session frames. No I/O.

An answer that is not understood raises `DetectionError`: an unknown answer is never an allow. An answer or a frame with
a repeated key could be understood in two ways, so it is not understood. Error texts contain nothing that Aim sent,
because Aim echoes prompts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from extproc import __version__
from extproc.core.content import json_codec as codec
from extproc.core.errors import DetectionRejected, DetectionUnavailable, Reason
from extproc.core.identity import Identity
from extproc.core.verdict import MAX_POLICIES, Allow, Anonymize, Block, Invocation, Monitor, Verdict
from extproc.core.vocabulary import Hook, Input

Form = Literal["detect", "firewall", "cato"]

_MAX_POLICY_NAME = 128

_INVOCATION_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
"""An id that is safe to show. Any other text is left out, because it might be content."""


class UnknownAction(DetectionRejected):
    """Aim answered with an action that the sidecar does not know."""

    def __init__(self, policies: tuple[str, ...], invocation: Invocation | None) -> None:
        """Keep what the answer says beside the action, for operators."""
        super().__init__(Reason.UNKNOWN_ACTION, "Aim requires an unknown action")
        self.policies = policies
        self.invocation = invocation


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The URLs of one form."""

    request: str
    answer: str
    session: str


def endpoints(form: Form, base: str) -> Endpoints:
    """Return the URLs under `base`, an http or https URL without a trailing slash."""
    parts = urlsplit(base)
    ws_base = urlunsplit(parts._replace(scheme="wss" if parts.scheme == "https" else "ws"))
    if form == "detect":
        return Endpoints(f"{base}/detect/openai", f"{base}/detect/output", f"{ws_base}/detect/output/ws")
    return Endpoints(f"{base}/fw/v1/analyze", f"{base}/fw/v1/analyze", f"{ws_base}/fw/v1/analyze/stream")


def headers(form: Form, key: str, hook: Hook, call_id: str, identity: Identity) -> list[tuple[str, str]]:
    """Return the header fields of a call or a session. Aim's API requires the names with `litellm` of all clients."""
    prefix = "x-cato-" if form == "cato" else "x-aim-"
    alias = "litellm-key-alias" if form == "detect" else "gateway-key-alias"
    named = {
        "litellm-hook": hook.value,
        "litellm-version": __version__,
        "call-id": call_id,
        "user-email": identity.user_email,
        alias: identity.key_alias,
        "session-id": identity.session_id,
    }
    return [("authorization", f"Bearer {key}")] + [
        (prefix + name, value) for name, value in named.items() if value is not None
    ]


def encoded_messages(messages: Sequence[Mapping[str, Any]]) -> bytes:
    """Return `messages` as a JSON array, which calls that share them share, too."""
    return codec.encode(messages)


def call_body(form: Form, input_: Input, messages: bytes | None = None) -> bytes:
    """Return the JSON body of a call: the bytes that encoding it as a whole would give.

    `messages` are the messages of `input_`, if they have been encoded already.
    """
    if messages is None:
        messages = encoded_messages(input_.messages)
    if input_.output is None:
        return b'{"messages":%b}' % messages
    if form == "detect":
        return b'{"output":%b,"messages":%b}' % (codec.encode(input_.output), messages)
    last = codec.encode({"role": "assistant", "content": input_.output})
    # The list of messages is continued in place of its closing bracket.
    return b'{"messages":%b%b%b]}' % (messages[:-1], b"," if input_.messages else b"", last)


def answer(form: Form, input_: Input, status: int, body: bytes, encoding: str = "") -> Verdict:
    """Return the verdict in an HTTP answer with this body and content-encoding.

    No encoding was offered, so a body that claims one means something that the sidecar does not know, even if it reads
    as JSON. Raises DetectionUnavailable or DetectionRejected for an answer without a verdict.
    """
    if not 200 <= status < 300:
        raise _refusal(status)
    if encoding.strip().lower() not in ("", "identity"):
        raise _unreadable("it has a content-encoding")
    try:
        content = codec.decode_strictly(body)
    except (ValueError, RecursionError) as error:
        raise _unreadable("not JSON with unique keys") from error
    if not isinstance(content, dict):
        raise _unreadable("not an object")
    return _detect_verdict(content) if form == "detect" else _firewall_verdict(content, input_)


def _refusal(status: int) -> DetectionUnavailable | DetectionRejected:
    if status in (401, 403):
        return DetectionRejected(Reason.KEY_REFUSED, f"Aim refused the key (HTTP {status})")
    if status == 407:  # from a proxy: Aim's servers do not send it
        return DetectionUnavailable(Reason.UNREACHABLE, "the proxy requires a login (HTTP 407)")
    if status == 408:  # some servers send it on a connection that was idle for long; a retry uses another one
        return DetectionUnavailable(Reason.REJECTED, "Aim waited too long for the request (HTTP 408)")
    if status == 429:
        return DetectionUnavailable(Reason.RATE_LIMITED, "Aim limits the rate (HTTP 429)")
    if status >= 500:
        return DetectionUnavailable(Reason.SERVER_ERROR, f"Aim failed (HTTP {status})")
    if 300 <= status < 400 or status < 200:
        return DetectionRejected(Reason.UNREADABLE_ANSWER, f"Aim answered HTTP {status}")
    return DetectionRejected(Reason.REJECTED, f"Aim rejected the request (HTTP {status})")


def session_refused(status: int) -> DetectionUnavailable | DetectionRejected:
    """Return the error for a websocket handshake that Aim answered with `status`."""
    return _refusal(status)


def _unreadable(what: str) -> DetectionRejected:
    return DetectionRejected(Reason.UNREADABLE_ANSWER, f"Aim's answer cannot be read: {what}")


def _policies(names: Sequence[Any]) -> tuple[str, ...]:
    """Return policy names that are safe to show: limited in number and length, and printable."""
    return tuple(_printable(str(name)[:_MAX_POLICY_NAME]) for name in names[:MAX_POLICIES])


def _printable(name: str) -> str:
    return name if name.isprintable() else "".join(c if c.isprintable() else "?" for c in name)


def _message(value: Any) -> str | None:
    # A block without a readable message is still a block.
    return value if isinstance(value, str) and value else None


def _detect_verdict(content: Mapping[str, Any]) -> Verdict:
    details = content.get("details")
    policies = _policies(list(details)) if isinstance(details, dict) else ()
    match content.get("detected"):
        case True:
            return Block(_message(content.get("detection_message")), policies)
        case False:
            return Allow(policies)
        case _:
            raise _unreadable("`detected` is not a boolean")


def _firewall_verdict(content: Mapping[str, Any], input_: Input) -> Verdict:
    if "required_action" not in content:
        raise _unreadable("no `required_action`")
    action = content["required_action"]
    policies, invocation = _drill_down(content.get("analysis_result")), _invocation(content)
    if action is None:
        return Allow(policies, invocation)
    if not isinstance(action, dict):
        raise _unreadable("`required_action` is not an object")
    match action.get("action_type"):
        case None:
            return Allow(policies, invocation)
        case "monitor_action":
            return Monitor(policies, invocation)
        case "block_action":
            return Block(_message(action.get("detection_message")), policies, invocation)
        case "anonymize_action":
            chat = content.get("redacted_chat")
            if not isinstance(chat, dict):
                chat = action.get("chat_redaction_result")  # its place in older answers
            return Anonymize(_redacted_texts(chat, input_), policies, invocation)
        case _:
            raise UnknownAction(policies, invocation)


def _invocation(content: Mapping[str, Any]) -> Invocation | None:
    """Return what the answer says of Aim's own work; None if that is nothing readable."""
    name, result = content.get("invocation_id"), content.get("analysis_result")
    time = result.get("analysis_time_ms") if isinstance(result, dict) else None
    invocation = Invocation(
        name if isinstance(name, str) and _INVOCATION_ID.fullmatch(name) else None,
        time if type(time) is int and time >= 0 else None,
    )
    return None if invocation == Invocation() else invocation


def _drill_down(result: Any) -> tuple[str, ...]:
    entries = result.get("policy_drill_down") if isinstance(result, dict) else None
    if not isinstance(entries, dict):
        return ()
    return _policies(
        [
            entry["policy_name"] if isinstance(entry, dict) and isinstance(entry.get("policy_name"), str) else key
            for key, entry in entries.items()
        ]
    )


def _redacted_texts(chat: Any, input_: Input) -> tuple[str | None, ...]:
    """Return the redacted text of each message of the input; none at all if Aim returns another number."""
    messages = chat.get("all_redacted_messages") if isinstance(chat, dict) else None
    expected = len(input_.messages) + (input_.output is not None)
    if not isinstance(messages, list) or len(messages) != expected:
        return ()
    texts = [message.get("content") if isinstance(message, dict) else None for message in messages]
    return tuple(text if isinstance(text, str) else None for text in texts)


# -- session frames ----------------------------------------------------------------------------------------------

DONE = '{"done": true}'
"""The frame that tells Aim that no more chunks follow."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A verified chunk: its texts as (choice index, text), and the whole chunk."""

    texts: tuple[tuple[int, str | None], ...]
    chunk: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Blocked:
    """Aim blocks the stream."""

    message: str


@dataclass(frozen=True, slots=True)
class Done:
    """Aim sends no more verified chunks."""


def frame(data: str | bytes) -> Verified | Blocked | Done:
    """Decode one frame of a session.

    Raises DetectionRejected with reason `session` for a frame that is not part of the protocol.
    """
    try:
        content = codec.decode_strictly(data)
    except (ValueError, RecursionError) as error:
        raise _violation("a frame is not JSON with unique keys") from error
    if not isinstance(content, dict):
        raise _violation("a frame is not an object")
    if content.get("blocking_message") is not None:
        message = content["blocking_message"]
        return Blocked(message if isinstance(message, str) else "")
    if "verified_chunk" in content:
        return _verified(content["verified_chunk"])
    if content.get("done") is True:
        return Done()
    raise _violation("an unknown frame")


def _verified(chunk: Any) -> Verified:
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    if not isinstance(choices, list):
        raise _violation("a verified chunk without choices")
    texts: list[tuple[int, str | None]] = []
    for choice in choices:
        if not isinstance(choice, dict):
            raise _violation("a choice is not an object")
        index = choice.get("index", 0)
        delta = choice.get("delta")
        text = delta.get("content") if isinstance(delta, dict) else None
        if type(index) is not int or not isinstance(text, str | None):
            raise _violation("a choice with fields of the wrong type")
        texts.append((index, text))
    return Verified(tuple(texts), chunk)


def _violation(what: str) -> DetectionRejected:
    return DetectionRejected(Reason.SESSION, f"Aim violated the protocol of a session: {what}")
