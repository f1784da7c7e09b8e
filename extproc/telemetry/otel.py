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
from math import inf
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit
from uuid import uuid4

import structlog
from prometheus_client import CollectorRegistry

from extproc import __version__
from extproc.core.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

    from extproc.telemetry.tracing import Tracing

Signal = Literal["traces", "metrics"]

_PACKAGES = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
}
_EXPORTERS = {"traces": ("trace_exporter", "OTLPSpanExporter"), "metrics": ("metric_exporter", "OTLPMetricExporter")}

_RATIOS = ("traceidratio", "parentbased_traceidratio")
_SAMPLERS = ("always_on", "always_off", "parentbased_always_on", "parentbased_always_off", *_RATIOS)
_QUEUE = tuple(
    f"OTEL_BSP_{name}" for name in ("SCHEDULE_DELAY", "MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE", "EXPORT_TIMEOUT")
)

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


def _check_installed() -> None:
    """Raise SettingsError where the packages of the extra `otel` are missing."""
    try:
        import_module("opentelemetry.sdk")
        import_module("opentelemetry.exporter.otlp")
    except ModuleNotFoundError as error:
        problem = "OTEL_... asks for OpenTelemetry, which is not installed: pip install 'aim-extproc[otel]'"
        raise SettingsError([f"environment: {problem}"]) from error


def make_exporter(signal: Signal) -> Any:
    """Return the OTLP exporter of `signal` that the environment describes; raises SettingsError."""
    # What the libraries log may quote what they were given; an outage is logged here.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
    variable, protocol = _of_signal(signal, "PROTOCOL")
    package = _PACKAGES.get(protocol or "grpc")
    if package is None:
        raise SettingsError([f"environment: {variable} is none of {', '.join(_PACKAGES)}"])
    variable, endpoint = _of_signal(signal, "ENDPOINT")
    if endpoint and not _is_endpoint(endpoint, is_url=protocol == "http/protobuf"):
        raise SettingsError([f"environment: {variable} is not http://HOST:PORT or https://HOST:PORT"])
    module, name = _EXPORTERS[signal]
    try:
        return getattr(import_module(f"{package}.{module}"), name)()
    except (ValueError, OSError) as error:
        raise SettingsError([f"environment: OTEL_EXPORTER_OTLP_... cannot be used for {signal}"]) from error


def _of_signal(signal: Signal, what: str) -> tuple[str, str]:
    """Return the variable that counts for `signal`, which may be one for all signals, and its value."""
    names = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_{what}", f"OTEL_EXPORTER_OTLP_{what}")
    name = next((name for name in names if os.environ.get(name)), names[-1])
    return name, os.environ.get(name, "").strip()


def _is_endpoint(endpoint: str, *, is_url: bool) -> bool:
    """Tell whether it can be exported there; for gRPC whatever gRPC may take, such as host:port."""
    try:
        parts = urlsplit(endpoint if is_url or "://" in endpoint else f"//{endpoint}")
        parts.port  # noqa: B018 - it may be none
    except ValueError:
        return False
    if is_url or parts.scheme in ("http", "https"):
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    return bool(parts.hostname or parts.path)


def _check_traces() -> None:
    """Raise SettingsError for what OpenTelemetry would replace by a default, and tell only its own log, silent here."""
    problems = [f"environment: {name} is no positive number" for name in _QUEUE if not _is_number(name, int, 1, inf)]
    sampler = os.environ.get("OTEL_TRACES_SAMPLER", "").lower()
    if sampler and sampler not in _SAMPLERS:
        problems.append(f"environment: OTEL_TRACES_SAMPLER is none of {', '.join(_SAMPLERS)}")
    if sampler in _RATIOS and not _is_number("OTEL_TRACES_SAMPLER_ARG", float, 0, 1):
        problems.append("environment: OTEL_TRACES_SAMPLER_ARG is no number from 0 to 1")
    if problems:
        raise SettingsError(problems)


def _is_number(name: str, kind: type[int] | type[float], least: int, most: float) -> bool:
    """Tell whether the variable is unset, or a number of that kind in the bounds."""
    text = os.environ.get(name)
    try:
        return not text or least <= kind(text) <= most
    except ValueError:
        return False


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
    _check_installed()
    from extproc.telemetry.tracing import Tracing

    _check_traces()
    exporter = make_exporter("traces")
    try:
        spans = Tracing(exporter, make_resource())
    except ValueError as error:
        exporter.shutdown()
        raise SettingsError(["environment: OTEL_BSP_... or OTEL_SPAN_... cannot be used for traces"]) from error
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
    _check_installed()
    from extproc.telemetry.otlp_metrics import MetricsExport

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
