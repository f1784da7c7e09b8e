"""The exceptions of this package, in one tree.

    ExtprocError
    ├── SettingsError          unusable settings; carries every problem
    ├── ProtocolError          Envoy, or the way its filter is configured, broke the protocol
    │   └── IllegalEvent       an event that the state does not allow
    ├── ContentError           a body or an event that cannot be read
    │   ├── MalformedBody
    │   │   └── PieceOfText     a piece of a text that goes on in another exchange
    │   ├── BodyTooLarge
    │   └── UnsupportedEncoding
    ├── DetectionError         Aim gave no usable answer; `reason` is the metric's label
    │   ├── DetectionTimeout
    │   ├── DetectionUnavailable
    │   └── DetectionRejected
    ├── RedactionError         a redaction cannot be applied (core/redaction.py)
    ├── SessionViolation       Aim broke the rules of a session (core/chunk.py)
    └── DemoFailed             the demo cannot continue (demo)

A block is a `Verdict`, never an exception. No message contains content, a header value or a key, because messages reach
the logs and Envoy's access log.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Reason(StrEnum):
    """Why an inspection failed: the values of the metrics' label `reason` and of `failure_mode_allow`."""

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
    """Base class of every exception that this package raises."""


class SettingsError(ExtprocError):
    """Unusable settings; `problems` has one line for each problem."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class ProtocolError(ExtprocError):
    """Envoy broke the protocol, or its filter is configured in a way that would let traffic pass unguarded."""


class IllegalEvent(ProtocolError):
    """An event that the state of its leg does not allow."""


class ContentError(ExtprocError):
    """A body or an event that cannot be read."""

    reason = Reason.BODY_UNREADABLE


class MalformedBody(ContentError):
    """A body or an event with invalid content: no UTF-8 JSON, a repeated key, a broken compressed body."""


class PieceOfText(MalformedBody):
    """A piece of a text that goes on in another exchange, where no record or word is whole."""


class BodyTooLarge(ContentError):
    """A body or an event over its size limit, or over the inflate ratio."""

    reason = Reason.BODY_TOO_LARGE


class UnsupportedEncoding(ContentError):
    """An unknown content-encoding, or several stacked ones."""

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
    """Aim rejected the call (4xx), or its answer cannot be understood."""
