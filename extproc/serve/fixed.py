"""Settings that need a restart: those of the process, and the two limits that gRPC enforces from its start."""

from __future__ import annotations

from operator import attrgetter

from extproc.config.settings import Settings

FIXED = ("listen", "admin", "workers", "tls", "log_level", "limits.request_bytes", "limits.streams")


def changed(new: Settings, started: Settings) -> list[str]:
    """Return the names of the fixed settings that differ."""
    return [name for name in FIXED if attrgetter(name)(started) != attrgetter(name)(new)]


def with_fixed(new: Settings, started: Settings) -> Settings:
    """Return `new` with the fixed settings of `started`: what is in force until a restart."""
    top = {name: getattr(started, name) for name in FIXED if "." not in name}
    limits = {name.removeprefix("limits."): attrgetter(name)(started) for name in FIXED if name.startswith("limits.")}
    kept = new.model_copy(update={**top, "limits": new.limits.model_copy(update=limits)})
    for derived in ("policies", "exchange_limits"):  # model_copy copies what was computed from the others
        kept.__dict__.pop(derived, None)
    return kept
