"""Audit lines in the Open Cybersecurity Schema Framework (OCSF).

Verdicts that found something are Detection Findings. Exchanges and other verdicts are API Activity: the call of the
model, and the sidecar's call to Aim. Changed settings are Entity Management. All fields of the plain format are under
`unmapped`, too.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from extproc import __version__

OCSF_VERSION = "1.5.0"

OWN = "unmapped"
"""The key of the fields of the plain format."""

_FINDING, _ENTITY, _API = 2004, 3004, 6003

_PRODUCT = {"name": "aim-extproc", "vendor_name": "Aim Security", "version": __version__}
_ENVOY = "envoy"

_INFORMATIONAL, _LOW, _MEDIUM, _HIGH = 1, 2, 3, 4

_ACTION_ALLOWED, _ACTION_DENIED, _ACTION_OBSERVED, _ACTION_MODIFIED = 1, 2, 3, 4
_BLOCKED, _CORRECTED, _DETECTED = 2, 11, 15

_FINDINGS = {
    "block": ("Aim blocks", _HIGH, _ACTION_DENIED, _BLOCKED),
    "anonymize": ("Aim redacts", _MEDIUM, _ACTION_MODIFIED, _CORRECTED),
    "monitor": ("Aim reports", _LOW, _ACTION_OBSERVED, _DETECTED),
}
"""For each action its title, severity, action and disposition."""

_SEVERITIES = {"failed_open": _HIGH, "refused": _MEDIUM, "aborted": _LOW, "error": _MEDIUM}
"""The severity of outcomes, and of verdicts without a finding; Informational for the others."""

_FAILURES = frozenset({"refused", "failed_open", "aborted", "error"})


def as_ocsf(line: Mapping[str, Any], time: datetime, *, is_hashed: bool) -> dict[str, Any]:
    """Return a plain line, written at `time`, in OCSF. With `is_hashed`, its caller is given as hashes."""
    milliseconds = int(time.timestamp() * 1000)
    uid = uuid.uuid4().hex
    match line["type"]:
        case "verdict" if line["action"] in _FINDINGS:
            document = _finding(line, uid, milliseconds)
        case "verdict":
            document = _api(line["action"], line.get("reason"), {"operation": line["hook"], "service": {"name": "Aim"}})
        case "exchange":
            reached = line["code"] if line["outcome"] == "dry_run" else line["outcome"]
            document = _api(reached, line["code"], {"operation": line["dialect"] or "unknown"})
        case _:
            document = _class(_ENTITY, 3, _INFORMATIONAL if line["enforce"] else _MEDIUM)
            document["entity"] = {"name": line["profile"], "type": "profile"}
    metadata: dict[str, Any] = {"version": OCSF_VERSION, "product": _PRODUCT, "uid": uid, "log_name": "audit"}
    if document["class_uid"] == _FINDING:
        metadata["profiles"] = ["security_control"]
        document["evidences"] = [{"actor": _actor(line, is_hashed=is_hashed)}]
    if document["class_uid"] == _API:
        document["actor"] = _actor(line, is_hashed=is_hashed)
        document["api"]["request"] = {"uid": line["call_id"]}
        document["src_endpoint"] = {"name": _ENVOY}
    if "call_id" in line:
        metadata["correlation_uid"] = line["call_id"]
    return {"time": milliseconds, **document, "metadata": metadata, OWN: dict(line)}


def _class(uid: int, activity: int, severity: int) -> dict[str, Any]:
    return {
        "class_uid": uid,
        "category_uid": uid // 1000,
        "activity_id": activity,
        "type_uid": uid * 100 + activity,
        "severity_id": severity,
    }


def _finding(line: Mapping[str, Any], uid: str, milliseconds: int) -> dict[str, Any]:
    words, severity, action, disposition = _FINDINGS[line["action"]]
    if line["dry_run"]:
        action, disposition = _ACTION_OBSERVED, _DETECTED
    info = {
        "uid": line.get("invocation_id", uid),
        "title": f"{words} a {line['leg']}",
        "created_time": milliseconds,
        "types": line["policies"],
    }
    return {
        **_class(_FINDING, 1, severity),
        "action_id": action,
        "disposition_id": disposition,
        "is_alert": line["action"] == "block",
        "finding_info": info,
    }


def _api(reached: str, code: str | None, api: dict[str, Any]) -> dict[str, Any]:
    """Return a call that ended as `reached`."""
    document = {
        **_class(_API, 99, _SEVERITIES.get(reached, _INFORMATIONAL)),
        "activity_name": "Inspect",
        "status_id": 2 if reached in _FAILURES else 1,
        "api": api,
    }
    return {**document, "status_code": code} if code else document


def _actor(line: Mapping[str, Any], *, is_hashed: bool) -> dict[str, Any]:
    """Return the caller. The application is Envoy, through which all calls come."""
    actor: dict[str, Any] = {"app_name": _ENVOY}
    if "user_email" in line:
        named = line["user_email"]
        is_address = not is_hashed and "@" in named
        actor["user"] = {"uid": named, "email_addr": named} if is_address else {"uid": named}
    if "session_id" in line:
        actor["session"] = {"uid": line["session_id"]}
    return actor
