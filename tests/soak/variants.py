"""The variants of a soak: forms of deployment, each with its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Variant:
    """One form of deployment. The other settings are the same for all."""

    name: str
    workers: int = 1
    has_tls: bool = False
    """Whether the listener for Envoy speaks TLS."""
    has_client_tls: bool = False
    """Whether it demands a certificate of Envoy."""
    is_open: bool = False
    """Whether exchanges go on if Aim fails."""
    is_aim_slow: bool = False
    """Whether Aim needs long for each chunk, and some answers are very large."""


PLAIN: Final = Variant("plain")
VARIANTS: Final = {
    variant.name: variant
    for variant in (
        PLAIN,
        Variant("tls", has_tls=True),
        Variant("mtls", has_tls=True, has_client_tls=True),
        Variant("workers", workers=4),
        Variant("open", is_open=True),
        Variant("slow-aim", is_aim_slow=True),
    )
}
