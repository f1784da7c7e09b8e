"""Verifies the signatures of AWS (Signature Version 4), by the specification alone."""

from __future__ import annotations

import hashlib
import hmac
import re
from urllib.parse import quote

from tests.fakes.upstream import Received

_FIELDS = re.compile(r"AWS4-HMAC-SHA256 Credential=[^/]+/(\S+?), ?SignedHeaders=(\S+?), ?Signature=(\w+)").fullmatch


def is_signed(request: Received, secret: str) -> bool:
    """Return whether a request has a valid signature that covers its body. Its path has no query."""
    found = _FIELDS(request.header("authorization") or "")
    assert found is not None, "no signature"
    scope, names, signature = found.groups()
    values = {name: " ".join((request.header(name) or "").split()) for name in names.split(";")}
    canonical = "\n".join(
        (
            request.method,
            quote(request.path, safe="/-_.~"),  # encoded once more, as for all services but S3
            "",
            *(f"{name}:{value}" for name, value in values.items()),
            "",
            names,
            hashlib.sha256(request.body).hexdigest(),
        )
    )
    text = "\n".join(
        (
            "AWS4-HMAC-SHA256",
            request.header("x-amz-date") or "",
            scope,
            hashlib.sha256(canonical.encode()).hexdigest(),
        )
    )
    key = f"AWS4{secret}".encode()
    for step in (*scope.split("/"), text):
        key = hmac.digest(key, step.encode(), "sha256")
    return hmac.compare_digest(key.hex(), signature)
