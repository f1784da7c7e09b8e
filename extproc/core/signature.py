"""The signature that a client of AWS has put on its request: Signature Version 4, and 4A.

Source: "Authenticating Requests (AWS Signature Version 4)". The signature covers the body, the path, and the headers
that it names. So such a request goes upstream with these unchanged, or AWS rejects it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

from extproc.core.vocabulary import Headers

_SCHEMES = ("aws4-hmac-sha256", "aws4-ecdsa-p256-sha256")

_PLACES = frozenset({"authorization", ":path"})

_SIGNED_HEADERS = re.compile(r"signedheaders\s*=\s*([^,\s]*)", re.IGNORECASE).search


@dataclass(frozen=True, slots=True)
class Signature:
    """The names of the headers that a request's signature covers, in lower case."""

    headers: frozenset[str]


def signature_of(headers: Headers) -> Signature | None:
    """Return the signature of a request with these headers, in its `authorization` or its query; None without one."""
    for name, value in [each for each in headers if each[0] in _PLACES]:
        if name == "authorization":
            if value.strip().lower().startswith(_SCHEMES):
                found = _SIGNED_HEADERS(value)
                return Signature(_names(found[1] if found else ""))
        elif "x-amz-signature" in value.lower():
            query = {key.lower(): text for key, text in parse_qsl(value.partition("?")[2], keep_blank_values=True)}
            if "x-amz-signature" in query:
                return Signature(_names(query.get("x-amz-signedheaders", "")))
    return None


def _names(listed: str) -> frozenset[str]:
    return frozenset(filter(None, listed.lower().split(";")))
