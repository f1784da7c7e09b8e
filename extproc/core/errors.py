"""The exceptions of this package, in one tree.

    ExtprocError
    ├── SettingsError          settings that cannot be used; carries every problem
    ├── ProtocolError          Envoy, or the way its filter is configured, broke the protocol
    │   └── IllegalEvent       an event that the state does not allow
    ├── ContentError           a body or an event that cannot be read
    │   ├── MalformedBody
    │   ├── BodyTooLarge
    │   └── UnsupportedEncoding
    ├── DetectionError         Aim gave no usable answer; `reason` is the metric's label
    │   ├── DetectionTimeout
    │   ├── DetectionUnavailable
    │   └── DetectionRejected
    ├── RedactionError         a redaction cannot be put back (core/redaction.py)
    ├── SessionViolation       Aim broke the rules of a session (core/release_queue.py)
    └── DemoFailed             the demo cannot continue (demo)

A block is a `Verdict`, never an exception. No message holds content, a header value or a key: messages reach
logs, and Envoy's access log.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Reason(StrEnum):
    """Why an inspection failed: the `reason` label of the metrics and the names in `failure_mode_allow`."""

    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    SERVER_ERROR = "server_error"
    RATE_LIMITED = "rate_limited"
    KEY_REFUSED = "key_refused"
    REJECTED = "rejected"
    UNREADABLE_ANSWER = "unreadable_answer"
    UNKNOWN_ACTION = "unknown_action"
    SESSION = "session"
    BREAKER_OPEN = "breaker_open"
    BODY_TOO_LARGE = "body_too_large"
    BODY_UNREADABLE = "body_unreadable"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    HELD_BYTES = "held_bytes"


class ExtprocError(Exception):
    """Root of everything that this package raises."""


class SettingsError(ExtprocError):
    """Settings that cannot be used; `problems` holds one line for each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class ProtocolError(ExtprocError):
    """Envoy sent what the protocol does not allow, or its filter is wired in a way that would not guard."""


class IllegalEvent(ProtocolError):
    """An event that the state of its leg does not allow."""


class ContentError(ExtprocError):
    """A body or an event that cannot be read."""

    reason = Reason.BODY_UNREADABLE


class MalformedBody(ContentError):
    """Not what its place demands: not UTF-8 JSON, a repeated key, a broken compressed body."""


class BodyTooLarge(ContentError):
    """More bytes than the limit for its kind, or more than the inflate ratio allows."""

    reason = Reason.BODY_TOO_LARGE


class UnsupportedEncoding(ContentError):
    """A content-encoding that is unknown, or several on top of each other."""

    reason = Reason.UNSUPPORTED_ENCODING


class DetectionError(ExtprocError):
    """Aim gave no usable answer."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class DetectionTimeout(DetectionError):
    """Aim did not answer within the deadline."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.TIMEOUT, message)


class DetectionUnavailable(DetectionError):
    """Aim could not be reached, or failed on its side."""


class DetectionRejected(DetectionError):
    """Aim refused the question (4xx), or its answer cannot be understood."""
