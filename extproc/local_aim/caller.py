"""Reads the caller from a request's headers: the key, the hook and the call id, with either prefix."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from extproc.local_aim.detector import Direction

# Only such a call id is logged, because a client may send anything.
_CALL_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_DIRECTIONS: dict[str, Direction] = {"pre_call": "input", "moderation": "input", "output": "output"}


class Refused(Exception):
    """The headers are not acceptable; `status` and `detail` are the answer."""

    def __init__(self, status: int, detail: object) -> None:
        super().__init__(str(status))
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller and its phase."""

    call_id: str
    hook: str
    direction: Direction
    prefix: Literal["x-aim", "x-cato"]


def read_caller(headers: Mapping[str, str], api_keys: tuple[str, ...], default_hook: str) -> Caller:
    """Read the headers of a request or handshake. Raises Refused: 401 for the key, 422 for the hook."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not _accepted(token.strip(), api_keys):
        raise Refused(401, "Invalid API token")
    prefix: Literal["x-aim", "x-cato"] = "x-cato" if "x-cato-litellm-hook" in headers else "x-aim"
    hook = headers.get(f"{prefix}-litellm-hook", default_hook)
    if hook not in _DIRECTIONS:
        place = ["header", f"{prefix}-litellm-hook"]
        raise Refused(422, [{"type": "enum", "loc": place, "msg": "must be pre_call, moderation or output"}])
    call_id = headers.get(f"{prefix}-call-id", "")
    return Caller(call_id if _CALL_ID.fullmatch(call_id) else "-", hook, _DIRECTIONS[hook], prefix)


def _accepted(token: str, api_keys: tuple[str, ...]) -> bool:
    if not api_keys:
        return bool(token)
    given = token.encode("latin-1", "replace")
    return any(hmac.compare_digest(given, key.encode()) for key in api_keys)
