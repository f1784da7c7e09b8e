"""Refusals: what the client is told when an exchange is refused. Each dialect has its own shape for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from extproc.core.errors import ContentError, Reason
from extproc.core.vocabulary import Headers, Leg

BLOCKED_REQUEST = "The request was blocked by the organization's AI security policy."
BLOCKED_RESPONSE = "The response was blocked by the organization's AI security policy."


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status, a message, and OpenAI's `type` and `code`. Other dialects derive their codes from the status."""

    status: int
    """the status of its kind; the client gets `http_status`"""
    type: str
    code: str
    message: str
    reason: str = field(default="", compare=False)
    """Why, for the log, where the code does not tell: a `Reason`, or one word more."""
    chosen_status: int | None = None
    """The HTTP status that the settings choose for it, without changing the rest of its shape."""

    @property
    def http_status(self) -> int:
        """The status that the client gets."""
        return self.chosen_status or self.status

    @property
    def details(self) -> str:
        """The response code details for Envoy's access log."""
        return f"aim_{self.code}"

    @property
    def outcome(self) -> str:
        """The outcome of the exchange: blocked by Aim, or refused for another reason."""
        return "blocked" if self.is_block else "refused"

    @property
    def is_block(self) -> bool:
        """Whether Aim has blocked the exchange, so that the message may become an answer."""
        return self.code == BLOCKED_CODE

    @property
    def headers(self) -> Headers:
        """The headers that every dialect's refusal has, beside its content type."""
        return _NO_RETRY if self.code in _REPEATED else ()

    def for_error(self, status: str, block_message: str) -> Refusal:
        """Return the refusal that replaces the body of an error answer: under its status, with a fixed message."""
        message = (block_message or BLOCKED_RESPONSE) if self.is_block else self.message
        status_ = int(status) if status.isdecimal() else self.status
        return replace(self, status=status_, chosen_status=None, message=message)


BLOCKED_CODE = "content_policy_violation"

_REPEATED = frozenset({"redaction_failed", "guardrail_unreadable_response", "request_too_large"})
"""The codes of refusals that the same request meets again. SDKs would repeat some of them, by their status."""

_NO_RETRY = (("x-should-retry", "false"),)
"""What the SDKs of OpenAI and Anthropic obey."""


def blocked(message: str, status: int = 400) -> Refusal:
    """Return the refusal of a leg that Aim blocked, for a client that gets it under `status`."""
    return Refusal(400, "invalid_request_error", BLOCKED_CODE, message, chosen_status=status)


_MOST_NAMED = 16
_LONGEST_NAME = 64
"""The most records of a batch that a message names, and the most characters of a name that it shows."""


def named(records: Sequence[str]) -> str:
    """Return the end of a message that names the blocked records of a batch; nothing if there are none."""
    if not records:
        return ""
    more = f" and {len(records) - _MOST_NAMED} more" if len(records) > _MOST_NAMED else ""
    return f" (custom_id: {', '.join(name[:_LONGEST_NAME] for name in records[:_MOST_NAMED])}{more})"


UNAVAILABLE = Refusal(503, "api_error", "guardrail_unavailable", "The AI security service is unavailable.")
OVERLOADED = Refusal(503, "api_error", "guardrail_overloaded", "The AI security guardrail is overloaded.")
REQUEST_TOO_LARGE = Refusal(
    413, "invalid_request_error", "request_too_large", "The request body is too large.", Reason.BODY_TOO_LARGE
)
TOO_MANY_HEADERS = Refusal(
    413, "invalid_request_error", "request_too_large", "The request has too many headers.", "too_many_headers"
)
INVALID_BODY = Refusal(400, "invalid_request_error", "invalid_body", "The request body could not be read.")
UNREADABLE_RESPONSE = Refusal(
    502,
    "api_error",
    "guardrail_unreadable_response",
    "The response could not be read by the AI security guardrail.",
)
TOO_MANY_RESPONSE_HEADERS = Refusal(
    502, "api_error", "guardrail_unreadable_response", "The response has too many headers.", "too_many_headers"
)
UPLOAD_NOT_INSPECTED = Refusal(
    400,
    "invalid_request_error",
    "upload_not_inspected",
    "A text cannot be inspected in parts. Upload the file in one piece.",
    Reason.BODY_UNREADABLE,
)
REQUEST_REDACTION_FAILED = Refusal(
    400,
    "invalid_request_error",
    "redaction_failed",
    "The request could not be redacted as the policy demands.",
)
SIGNED_REQUEST = replace(REQUEST_REDACTION_FAILED, reason="signed_request")
"""The client has signed the body, so a redacted one would be rejected."""
SIGNED_HEADER = Refusal(
    400,
    "invalid_request_error",
    "signed_header",
    "The request's signature must not cover headers that begin with x-aim- or x-cato-: they do not reach the upstream.",
)
RESPONSE_REDACTION_FAILED = Refusal(
    502, "api_error", "redaction_failed", "The response could not be redacted as the policy demands."
)
UPGRADE_NOT_INSPECTED = Refusal(
    400, "invalid_request_error", "upgrade_not_inspected", "Protocol upgrades are not allowed on this path."
)
TWO_WAY_NOT_INSPECTED = Refusal(
    400, "invalid_request_error", "upgrade_not_inspected", "Streams in both directions are not allowed on this path."
)
PATH_NOT_ALLOWED = Refusal(403, "invalid_request_error", "path_not_allowed", "This path is not allowed.")
MISCONFIGURED = Refusal(500, "api_error", "guardrail_misconfigured", "The AI security guardrail is misconfigured.")

_BODY_REASONS = {error.reason for error in ContentError.__subclasses__()} | {ContentError.reason}


def failed(leg: Leg, reason: Reason) -> Refusal:
    """Return the refusal of a leg whose inspection failed for `reason`."""
    if leg is Leg.REQUEST and reason is Reason.BODY_TOO_LARGE:
        return REQUEST_TOO_LARGE
    if reason in _BODY_REASONS:
        return replace(INVALID_BODY if leg is Leg.REQUEST else UNREADABLE_RESPONSE, reason=reason)
    return replace(OVERLOADED if reason is Reason.HELD_BYTES else UNAVAILABLE, reason=reason)


def redaction_failed(leg: Leg) -> Refusal:
    """Return the refusal of a leg whose redaction could not be applied."""
    return REQUEST_REDACTION_FAILED if leg is Leg.REQUEST else RESPONSE_REDACTION_FAILED


_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "„": "“", "‘": "’", "‚": "‘", "«": "»", "‹": "›", "「": "」"}  # noqa: RUF001
_MARKS = frozenset(_QUOTES) | frozenset(_QUOTES.values())

_MOST_QUOTES = 64
"""The most quotation marks that are examined in a message. A message with more is not shown."""


def quotes_any(message: str, texts: Iterable[str]) -> bool:
    """Return whether a quoted part of `message` occurs in one of `texts`, regardless of letter case.

    Aim's messages quote what they found. Such a message would tell the client what is being withheld.
    """
    marks = [(position, mark) for position, mark in enumerate(message) if mark in _MARKS]
    if len(marks) > _MOST_QUOTES:
        return True
    folded = [text.casefold() for text in texts]
    # An apostrophe looks like a quotation mark, so every mark that could open a quote is tried. The first mark that
    # could close the quote is enough: a longer quote can only occur where the shorter one does.
    for number, (start, mark) in enumerate(marks):
        ends = (end for end, other in marks[number + 1 :] if other == _QUOTES.get(mark))
        parts = (message[start + 1 : end].strip().casefold() for end in ends)
        shortest = next(filter(None, parts), None)
        if shortest is not None and any(shortest in text for text in folded):
            return True
    return False
