"""Audit lines in the Elastic Common Schema (ECS).

What ECS has no field for is under `aim`, with the names of the plain format.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from extproc import __version__

ECS_VERSION = "8.17.0"

OWN = "aim"
"""The key of the fields that ECS does not have."""

_OBSERVER = {"vendor": "Aim Security", "product": "aim-extproc", "version": __version__}
_ECS = {"version": ECS_VERSION}

_VERDICT_TYPES = {"allow": "allowed", "block": "denied"}
"""The event type of a verdict; `info` for other actions, and for all of a dry run, because it stops nothing."""

_EXCHANGE_TYPES = {
    "allowed": ["end", "allowed"],
    "redacted": ["end", "allowed"],
    "failed_open": ["end", "allowed"],
    "dry_run": ["end", "allowed"],
    "blocked": ["end", "denied"],
    "refused": ["end", "denied"],
}

_UNGUARDED = frozenset({"refused", "failed_open", "aborted"})
"""The outcomes of exchanges that got no verdict."""


def as_ecs(line: Mapping[str, Any], time: datetime, *, is_hashed: bool) -> dict[str, Any]:
    """Return a plain line, written at `time`, in ECS. With `is_hashed`, its caller is given as hashes."""
    own = {key: value for key, value in line.items() if key not in ("call_id", "user_email")}
    document: dict[str, Any] = {
        "@timestamp": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "ecs": _ECS,
        "event": {**_event(line), "id": uuid.uuid4().hex, "module": OWN, "dataset": "aim.audit"},
        "observer": _OBSERVER,
        OWN: own,
    }
    if "call_id" in line:
        document["http"] = {"request": {"id": line["call_id"]}}
    if "user_email" in line:
        document["user"] = {"hash" if is_hashed else "email": line["user_email"]}
    if line.get("policies"):
        document["rule"] = {"name": line["policies"]}
    return document


def _event(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the categorisation."""
    match line["type"]:
        case "verdict":
            action = line["action"]
            is_finding = action not in ("allow", "error")
            event = {
                "kind": "alert" if is_finding else "event",
                "category": ["intrusion_detection"],
                "type": ["info" if line["dry_run"] else _VERDICT_TYPES.get(action, "info")],
                "action": f"verdict-{action}",
                "outcome": "failure" if action == "error" else "success",
            }
            reason = line.get("reason")
        case "exchange":
            outcome = line["outcome"]
            reached = line["code"] if outcome == "dry_run" else outcome
            event = {
                "kind": "event",
                "category": ["api"],
                "type": _EXCHANGE_TYPES.get(outcome, ["end"]),
                "action": f"exchange-{outcome}",
                "outcome": "failure" if reached in _UNGUARDED else "success",
            }
            reason = line["code"]
        case _:
            event = {"kind": "event", "category": ["configuration"], "type": ["change"], "action": "settings-change"}
            event["outcome"] = "success"
            reason = None
    return {**event, "reason": reason} if reason else event
