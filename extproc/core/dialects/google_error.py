"""The error object of Google's APIs. Source: Google's API design guide, "Errors" (AIP-193)."""

from __future__ import annotations

import json

from extproc.core.refusal import Refusal

_STATUSES = {403: "PERMISSION_DENIED", 500: "INTERNAL", 502: "INTERNAL", 503: "UNAVAILABLE"}


def google_status(refusal: Refusal) -> str:
    """Return the name of a refusal's status."""
    return _STATUSES.get(refusal.status, "INVALID_ARGUMENT")


def google_error(refusal: Refusal) -> bytes:
    """Return the error object of a refusal."""
    error = {"code": refusal.http_status, "message": refusal.message, "status": google_status(refusal)}
    return json.dumps({"error": error}).encode()
