"""The two brands of Aim: Cato Networks bought Aim Security. Each has its own addresses, names of headers, and keys."""

from __future__ import annotations

from urllib.parse import urlsplit

from extproc.config.aim import Aim

_CATO = "catonetworks.com"
_AIM = "aim.security"


def advice_on_key(aim: Aim) -> str:
    """Return what to try if the address refuses the key; empty for an address that neither brand has.

    Public sources do not say how the keys of the two brands differ, so the advice is by address and `aim.api`.
    """
    host = urlsplit(aim.base).hostname or ""
    if _is_below(host, _CATO):
        if aim.api != "cato":
            return f"{host} is an address of Cato Networks: set aim.api: cato"
        return (
            "a key of Aim Security needs aim.api: firewall or detect, and a key of another region needs that region's "
            "aim.base_url"
        )
    if _is_below(host, _AIM):
        if aim.api == "cato":
            return f"{host} is an address of Aim Security: set aim.api: firewall or detect, or remove aim.base_url"
        return "a key of Cato Networks needs aim.api: cato"
    return ""


def _is_below(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")
