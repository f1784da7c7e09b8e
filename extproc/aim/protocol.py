"""Aim's wire in its three forms: questions and headers out, answers and session frames in. No I/O.

Whatever is not understood raises `DetectionError`: an unknown answer is never an allow. The texts of errors hold
nothing that Aim sent, because Aim echoes prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from extproc import __version__
from extproc.core.content import json_codec as codec
from extproc.core.errors import DetectionRejected, DetectionUnavailable, Reason
from extproc.core.identity import Identity
from extproc.core.verdict import MAX_POLICIES, Allow, Anonymize, Block, Monitor, Verdict
from extproc.core.vocabulary import Hook, Input

Form = Literal["detect", "firewall", "cato"]

_MAX_POLICY_NAME = 128


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
    """Return the header fields of a question or a session; the names with `litellm` are Aim's, whoever calls."""
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


def question(form: Form, asked: Input) -> bytes:
    """Return the JSON body of a question."""
    messages = list(asked.messages)
    if asked.output is None:
        body: dict[str, Any] = {"messages": messages}
    elif form == "detect":
        body = {"output": asked.output, "messages": messages}
    else:
        body = {"messages": [*messages, {"role": "assistant", "content": asked.output}]}
    return codec.encode(body)


def answer(form: Form, asked: Input, status: int, body: bytes) -> Verdict:
    """Return the verdict that an HTTP answer holds.

    Raises DetectionUnavailable and DetectionRejected for every answer that holds none.
    """
    if not 200 <= status < 300:
        raise _refusal(status)
    try:
        content = codec.decode(body)
    except (ValueError, RecursionError) as error:
        raise _unreadable("not JSON") from error
    if not isinstance(content, dict):
        raise _unreadable("not an object")
    return _detect_verdict(content) if form == "detect" else _firewall_verdict(content, asked)


def _refusal(status: int) -> DetectionUnavailable | DetectionRejected:
    if status in (401, 403):
        return DetectionRejected(Reason.KEY_REFUSED, f"Aim refused the key (HTTP {status})")
    if status == 407:  # of a proxy: no server of Aim's asks for a proxy's login
        return DetectionUnavailable(Reason.UNREACHABLE, "a proxy demands a login (HTTP 407)")
    if status == 408:  # some servers answer so on a connection that was idle for long; a retry gets another one
        return DetectionUnavailable(Reason.REJECTED, "Aim waited too long for the question (HTTP 408)")
    if status == 429:
        return DetectionUnavailable(Reason.RATE_LIMITED, "Aim limits the rate (HTTP 429)")
    if status >= 500:
        return DetectionUnavailable(Reason.SERVER_ERROR, f"Aim failed (HTTP {status})")
    if 300 <= status < 400 or status < 200:
        return DetectionRejected(Reason.UNREADABLE_ANSWER, f"Aim answered HTTP {status}")
    return DetectionRejected(Reason.REJECTED, f"Aim rejected the question (HTTP {status})")


def session_refused(status: int) -> DetectionUnavailable | DetectionRejected:
    """Return the error for a websocket handshake that was answered with `status`."""
    return _refusal(status)


def _unreadable(what: str) -> DetectionRejected:
    return DetectionRejected(Reason.UNREADABLE_ANSWER, f"Aim's answer cannot be read: {what}")


def _policies(names: Sequence[Any]) -> tuple[str, ...]:
    """Return names as they can be shown: they are Aim's to choose."""
    return tuple(_printable(str(name)[:_MAX_POLICY_NAME]) for name in names[:MAX_POLICIES])


def _printable(name: str) -> str:
    return name if name.isprintable() else "".join(c if c.isprintable() else "?" for c in name)


def _message(value: Any) -> str | None:
    # A block without a readable message is a block all the same.
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
            raise _unreadable("`detected` is no boolean")


def _firewall_verdict(content: Mapping[str, Any], asked: Input) -> Verdict:
    if "required_action" not in content:
        raise _unreadable("no `required_action`")
    action = content["required_action"]
    policies = _drill_down(content.get("analysis_result"))
    if action is None:
        return Allow(policies)
    if not isinstance(action, dict):
        raise _unreadable("`required_action` is no object")
    match action.get("action_type"):
        case None:
            return Allow(policies)
        case "monitor_action":
            return Monitor(policies)
        case "block_action":
            return Block(_message(action.get("detection_message")), policies)
        case "anonymize_action":
            chat = content.get("redacted_chat")
            if not isinstance(chat, dict):
                chat = action.get("chat_redaction_result")  # where older answers have it
            return Anonymize(_redacted_texts(chat, asked), policies)
        case _:
            raise DetectionRejected(Reason.UNKNOWN_ACTION, "Aim demands an action that is not known")


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


def _redacted_texts(chat: Any, asked: Input) -> tuple[str | None, ...]:
    """Return the redacted text of each message that was asked about; nothing at all if they cannot be told apart."""
    messages = chat.get("all_redacted_messages") if isinstance(chat, dict) else None
    expected = len(asked.messages) + (asked.output is not None)
    if not isinstance(messages, list) or len(messages) != expected:
        return ()
    texts = [message.get("content") if isinstance(message, dict) else None for message in messages]
    return tuple(text if isinstance(text, str) else None for text in texts)


# -- session frames ----------------------------------------------------------------------------------------------

DONE = '{"done": true}'
"""The frame that tells Aim that no chunk follows."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A verified chunk: its texts as (choice index, text), and the chunk itself."""

    texts: tuple[tuple[int, str | None], ...]
    chunk: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Blocked:
    """The stream is blocked."""

    message: str


@dataclass(frozen=True, slots=True)
class Done:
    """Aim has released all that it will."""


def frame(data: str | bytes) -> Verified | Blocked | Done:
    """Read one frame of a session.

    Raises DetectionRejected with reason `session` for every frame that the protocol does not know.
    """
    try:
        content = codec.decode(data)
    except (ValueError, RecursionError) as error:
        raise _violation("a frame is not JSON") from error
    if not isinstance(content, dict):
        raise _violation("a frame is no object")
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
            raise _violation("a choice is no object")
        index = choice.get("index", 0)
        delta = choice.get("delta")
        text = delta.get("content") if isinstance(delta, dict) else None
        if type(index) is not int or not isinstance(text, str | None):
            raise _violation("a choice of another shape")
        texts.append((index, text))
    return Verified(tuple(texts), chunk)


def _violation(what: str) -> DetectionRejected:
    return DetectionRejected(Reason.SESSION, f"Aim's session broke the protocol: {what}")
