"""The names under which the admin port shows what it knows.

A web page on the internet can point its own name at an address of the user's network (DNS rebinding), and then read
what answers there. It cannot choose another name than its own, and browsers put the name into the Host header. So only
names that nobody can register on the internet are accepted, and those that the operator lists.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

_PRIVATE = ("localhost", "local", "internal", "svc", "cluster.local")
"""Endings that belong to no one on the internet: of the machine, the local network, and Kubernetes."""


def is_known(host: str | None, names: Iterable[str]) -> bool:
    """Return whether a request with this Host header may read the page and the metrics.

    IP addresses, names without a dot, and names with a private ending are accepted, and `names`. Browsers always send
    the header; a request without it comes from an HTTP/1.0 client.
    """
    if host is None:
        return True
    name = _without_port(host.strip()).lower().removesuffix(".")
    if not name:
        return False
    if name.startswith("[") or _is_address(name):
        return _is_address(name.removeprefix("[").removesuffix("]"))
    private = "." not in name or name.endswith(tuple(f".{ending}" for ending in _PRIVATE))
    return private or name in {each.lower().removesuffix(".") for each in names}


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() and (":" not in name or name.endswith("]")) else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
