"""The answers of Aim's REST forms, in the shapes that public clients read."""

from __future__ import annotations

from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

from extproc.local_aim.chat import Message
from extproc.local_aim.judge import Outcome

_FIELDS_OF_AIM: dict[str, Any] = {
    "additional_contents": None,
    "received_message_id": None,
    "extra_fields": {},
    "entities": [],
}


def detect_answer(outcome: Outcome) -> dict[str, Any]:
    """Build the answer of the `detect` form: `detected` true blocks.

    This form has no field for a redacted text, so a match that anonymizes also blocks.
    """
    message = outcome.message
    if outcome.action == "anonymize" and message is None:
        message = f'Found by the policy "{outcome.policy}"; this form of the API cannot redact it.'
    details = {
        policy: {"action": outcome.actions[policy], "matches": matches} for policy, matches in outcome.counts.items()
    }
    detected = outcome.action in ("block", "anonymize")
    return {"detected": detected, "details": details, "detection_message": message if detected else None}


def firewall_answer(outcome: Outcome, redacted: list[Message], milliseconds: float) -> dict[str, Any]:
    """Build the answer of the `firewall` and `cato` forms; `redacted` holds every message of the request."""
    required_action = None
    if outcome.action != "allow":
        required_action = {
            "action_type": f"{outcome.action}_action",
            "policy_name": outcome.policy,
            "detection_message": outcome.message,
        }
    last = redacted[-1] if redacted else None
    return {
        "analysis_result": {
            "analysis_time_ms": round(milliseconds),
            # Real answers had empty detections on a hit; the contents of an entry are not public.
            "policy_drill_down": {
                str(uuid5(NAMESPACE_URL, policy)): {"policy_name": policy, "detections": []}
                for policy in outcome.policies
            },
            "last_message_entities": [],
            "session_entities": [],
        },
        "required_action": required_action,
        "redacted_chat": {
            "all_redacted_messages": [{**message, **_FIELDS_OF_AIM} for message in redacted],
            "redacted_new_message": last and {"role": last["role"], "content": last.get("content")},
        },
        "invocation_id": f"inv_{uuid4().hex}",
    }
