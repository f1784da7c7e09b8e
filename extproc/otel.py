"""OpenTelemetry, where the standard variables ask for it: traces and metrics over OTLP, by gRPC or HTTP.

Off by default; nothing of OpenTelemetry is imported then. A collector that is slow or away delays no exchange, and the
end of the process by no more than a bound; it is logged once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import structlog
from prometheus_client import CollectorRegistry

from extproc import __version__
from extproc.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

    from extproc.tracing import Tracing

Signal = Literal["traces", "metrics"]

_PACKAGES = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
}
_EXPORTERS = {"traces": ("trace_exporter", "OTLPSpanExporter"), "metrics": ("metric_exporter", "OTLPMetricExporter")}

_FLUSH_SECONDS = 3.0
"""How long the end of the process may wait until what is left has been exported."""

_log = structlog.get_logger()


def is_exported(signal: Signal) -> bool:
    """Tell whether the environment asks for the export of `signal`; raises SettingsError."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    match os.environ.get(variable, "").strip():
        case "otlp":
            return True
        case "none":
            return False
        case "":
            endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
            return any(os.environ.get(name) for name in endpoints)
        case _:
            raise SettingsError([f"environment: {variable} is neither otlp nor none"])


def make_exporter(signal: Signal) -> Any:
    """Return the OTLP exporter of `signal` that the environment describes; raises SettingsError."""
    # What the libraries log may quote what they were given; an outage is logged here.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
    variables = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    variable = next((name for name in variables if os.environ.get(name)), None)
    package = _PACKAGES.get(os.environ[variable].strip() if variable else "grpc")
    if package is None:
        raise SettingsError([f"environment: {variable} is none of {', '.join(_PACKAGES)}"])
    module, name = _EXPORTERS[signal]
    try:
        return getattr(import_module(f"{package}.{module}"), name)()
    except (ValueError, OSError) as error:
        raise SettingsError([f"environment: OTEL_EXPORTER_OTLP_... cannot be used for {signal}"]) from error


def make_resource() -> Resource:
    """Return what is said of this process: the name of the service, unless the environment gives another."""
    from opentelemetry.sdk.resources import Resource

    ours = {"service.name": "aim-extproc", "service.version": __version__, "service.instance.id": str(uuid4())}
    stated = Resource.create().attributes
    is_named = not str(stated.get("service.name", "")).startswith("unknown_service")
    return Resource.create(
        {
            name: value
            for name, value in ours.items()
            if not (is_named if name == "service.name" else name in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""))
        }
    )


class Outage:
    """Tells when a collector is away, and when it is back, once each."""

    def __init__(self, signal: Signal) -> None:
        """Watch the export of `signal`."""
        self._signal = signal
        self._is_away = False

    def note(self, *, was_exported: bool) -> None:
        """Note how an export went."""
        if self._is_away is was_exported:
            self._is_away = not was_exported
            if self._is_away:
                _log.error("otlp_export_failed", signal=self._signal)
            else:
                _log.info("otlp_export_recovered", signal=self._signal)


@asynccontextmanager
async def tracing() -> AsyncIterator[Tracing | None]:
    """Export spans while the context lasts, if the environment asks for it; raises SettingsError."""
    if not is_exported("traces"):
        yield None
        return
    from extproc.tracing import Tracing

    spans = Tracing(make_exporter("traces"), make_resource())
    try:
        yield spans
    finally:
        await _bounded(spans.flush)
        spans.close()


@asynccontextmanager
async def metrics(registry: CollectorRegistry) -> AsyncIterator[None]:
    """Export `registry` while the context lasts, if the environment asks for it; raises SettingsError."""
    if not is_exported("metrics"):
        yield
        return
    from extproc.otlp_metrics import MetricsExport

    export = MetricsExport(registry, make_exporter("metrics"), make_resource())
    try:
        yield
    finally:
        await _bounded(export.flush)
        export.close()


async def _bounded(work: Callable[[], object]) -> None:
    """Wait for blocking work, for a while; what takes longer is left to a thread that ends with the process."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def run() -> None:
        work()
        with suppress(RuntimeError):  # nobody waits any more
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, daemon=True).start()
    with suppress(TimeoutError):
        async with asyncio.timeout(_FLUSH_SECONDS):
            await done.wait()
