"""Which profile an exchange belongs to: named by Envoy per route, else matched by the route's name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from extproc.config.profile import DEFAULT_PROFILE, PROFILE_METADATA, Profile
from extproc.core.events import HeadersReceived
from extproc.core.identity import find_attribute


def profile_of(headers: HeadersReceived, metadata: Iterable[Any], profiles: Mapping[str, Profile]) -> str:
    """Return the name of a stream's profile, which may be one that nobody configured.

    `metadata` is the stream's gRPC initial metadata, as (key, value): Envoy sets it, a client cannot.
    """
    for key, value in metadata:
        if key == PROFILE_METADATA:
            return str(value)
    route = find_attribute(headers.attributes, "xds.route_name")
    if isinstance(route, str):
        for name, profile in profiles.items():
            if any(fnmatchcase(route, pattern) for pattern in profile.routes):
                return name
    return DEFAULT_PROFILE
