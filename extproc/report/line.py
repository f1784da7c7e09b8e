"""One line of an audit log, in any of its formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from extproc.core.content import json_codec as codec
from extproc.telemetry import audit_ecs, audit_ocsf
from extproc.telemetry.record import OUTCOMES

_TYPES = ("verdict", "exchange", "settings")
_FOUND = ("blocked_by", "redacted_by", "reported_by")
_MOST_CHARACTERS = 128


class BadLine(ValueError):
    """A line that cannot be read. The message says why, without the line's content."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of an exchange."""

    time: datetime
    profile: str
    dialect: str
    is_dry_run: bool
    outcome: str
    """in a dry run the outcome that the exchange would have had"""
    detections: int
    detection_bytes: int
    policies: Mapping[str, tuple[str, ...]]
    """the policies that blocked, redacted or reported, under `blocked_by`, `redacted_by` and `reported_by`"""


@dataclass(frozen=True, slots=True)
class Switched:
    """A change of `enforce`."""

    time: datetime
    profile: str
    enforce: bool


@dataclass(frozen=True, slots=True)
class Other:
    """A line that the report does not need: a verdict, or JSON that is not an audit line, such as a log record."""

    is_audit: bool


def parse(data: bytes) -> Ended | Switched | Other:
    """Return what a line says; raises BadLine."""
    try:
        document = codec.decode(data)
    except (ValueError, RecursionError):
        raise BadLine("not JSON") from None
    if not isinstance(document, dict):
        raise BadLine("not a JSON object")
    fields = document.get(audit_ecs.OWN, document.get(audit_ocsf.OWN, document))
    if not isinstance(fields, dict) or fields.get("type") not in _TYPES:
        return Other(is_audit=False)
    if fields["type"] == "verdict":
        return Other(is_audit=True)
    time = _time(document.get("@timestamp", document.get("time")))
    if fields["type"] == "settings":
        return Switched(time, _text(fields, "profile"), _flag(fields, "enforce"))
    is_dry_run = _flag(fields, "dry_run")
    outcome = fields.get("code" if is_dry_run else "outcome")
    if outcome not in OUTCOMES:
        raise BadLine("an unknown outcome")
    return Ended(
        time=time,
        profile=_text(fields, "profile"),
        dialect=_text(fields, "dialect"),
        is_dry_run=is_dry_run,
        outcome=outcome,
        detections=_number(fields, "detections"),
        detection_bytes=_number(fields, "detection_bytes"),
        policies={name: _names(fields, name) for name in _FOUND},
    )


def _time(value: Any) -> datetime:
    """Return a time in UTC, from text with a time zone or from milliseconds."""
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000, UTC)
        time = datetime.fromisoformat(value)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        pass
    raise BadLine("no valid time")


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise BadLine(f"no valid {name}")
    return value[:_MOST_CHARACTERS]


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name)
    if not isinstance(value, bool):
        raise BadLine(f"no valid {name}")
    return value


def _number(fields: Mapping[str, Any], name: str) -> int:
    """Return a count; 0 if there is none, as in lines of older versions."""
    value = fields.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadLine(f"no valid {name}")
    return value


def _names(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = fields.get(name, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise BadLine(f"no valid {name}")
    return tuple(each[:_MOST_CHARACTERS] for each in value)
