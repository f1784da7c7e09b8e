"""Makes the registries of metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, disable_created_metrics


def make_registry() -> CollectorRegistry:
    """Return a new registry. No metric of the process gets a `_created` series, which would double their number."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    return CollectorRegistry()
