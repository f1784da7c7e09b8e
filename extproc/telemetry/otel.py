"""OpenTelemetry, if the standard environment variables switch it on: traces and metrics over OTLP, by gRPC or HTTP.

It is off by default and is then not imported. A slow or unreachable collector is logged once. It delays no exchange,
and it delays the end of the process only for a bounded time.
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
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

from prometheus_client import CollectorRegistry

from extproc import __version__
from extproc.core.errors import SettingsError
from extproc.telemetry.outage import Signal

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

    from extproc.telemetry.tracing import Tracing

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

_LIMITS = (
    *(f"OTEL_{of}ATTRIBUTE_COUNT_LIMIT" for of in ("", "SPAN_", "EVENT_", "LINK_")),
    *(f"OTEL_{of}ATTRIBUTE_VALUE_LENGTH_LIMIT" for of in ("", "SPAN_")),
    *("OTEL_SPAN_EVENT_COUNT_LIMIT", "OTEL_SPAN_LINK_COUNT_LIMIT"),
)
"""The library reads one of them when it is imported, for metrics too. So they are checked before any import of it."""

_FLUSH_SECONDS = 3.0
"""How long the end of the process may wait for the last export."""


def is_exported(signal: Signal) -> bool:
    """Return whether the environment switches the export of `signal` on; raises SettingsError for a wrong value."""
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
    """Raise SettingsError if the packages of the extra `otel` are missing."""
    try:
        import_module("opentelemetry.sdk")
        import_module("opentelemetry.exporter.otlp")
    except ModuleNotFoundError as error:
        problem = "OTEL_... asks for OpenTelemetry, which is not installed: pip install 'aim-extproc[otel]'"
        raise SettingsError([f"environment: {problem}"]) from error


def make_exporter(signal: Signal) -> Any:
    """Return the OTLP exporter of `signal` that the environment describes; raises SettingsError."""
    _check_limits()
    # The library's log records may quote content. `Outage` logs outages.
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
    """Return the name and value of the variable that applies to `signal`: its own or that for all signals."""
    names = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_{what}", f"OTEL_EXPORTER_OTLP_{what}")
    name = next((name for name in names if os.environ.get(name)), names[-1])
    return name, os.environ.get(name, "").strip()


def _is_endpoint(endpoint: str, *, is_url: bool) -> bool:
    """Return whether `endpoint` is valid: a URL or, for gRPC, also a target such as host:port."""
    try:
        parts = urlsplit(endpoint if is_url or "://" in endpoint else f"//{endpoint}")
        parts.port  # noqa: B018 - raises ValueError for an invalid port
    except ValueError:
        return False
    if is_url or parts.scheme in ("http", "https"):
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    return bool(parts.hostname or parts.path)


def _check_traces() -> None:
    """Raise SettingsError for values that OpenTelemetry would silently replace with a default."""
    problems = [f"environment: {name} is no positive number" for name in _QUEUE if not _is_number(name, int, 1, inf)]
    sampler = os.environ.get("OTEL_TRACES_SAMPLER", "").lower()
    if sampler and sampler not in _SAMPLERS:
        problems.append(f"environment: OTEL_TRACES_SAMPLER is none of {', '.join(_SAMPLERS)}")
    if sampler in _RATIOS and not _is_number("OTEL_TRACES_SAMPLER_ARG", float, 0, 1):
        problems.append("environment: OTEL_TRACES_SAMPLER_ARG is no number from 0 to 1")
    if problems:
        raise SettingsError(problems)


def _check_limits() -> None:
    """Raise SettingsError for limits that the library would refuse."""
    if wrong := [name for name in _LIMITS if not _is_number(name, int, 0, inf)]:
        raise SettingsError([f"environment: {name} is no number from 0" for name in wrong])


def _is_number(name: str, kind: type[int] | type[float], least: int, most: float) -> bool:
    """Return whether the variable is unset or empty, or a number of type `kind` within the bounds."""
    text = os.environ.get(name)
    try:
        return not text or least <= kind(text) <= most
    except ValueError:
        return False


def make_resource() -> Resource:
    """Return the attributes of this process. Attributes from the environment take precedence."""
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


@asynccontextmanager
async def tracing() -> AsyncIterator[Tracing | None]:
    """Export spans within the context if the environment switches that on; raises SettingsError."""
    if not is_exported("traces"):
        yield None
        return
    _check_installed()
    _check_traces()
    exporter = make_exporter("traces")
    from extproc.telemetry.tracing import Tracing

    try:
        spans = Tracing(exporter, make_resource())
    except ValueError as error:
        exporter.shutdown()
        raise SettingsError(["environment: OTEL_BSP_... cannot be used for traces"]) from error
    try:
        yield spans
    finally:
        await _bounded(spans.flush)
        spans.close()


@asynccontextmanager
async def metrics(registry: CollectorRegistry) -> AsyncIterator[None]:
    """Export `registry` within the context if the environment switches that on; raises SettingsError."""
    if not is_exported("metrics"):
        yield
        return
    _check_installed()
    exporter = make_exporter("metrics")
    from extproc.telemetry.otlp_metrics import MetricsExport

    export = MetricsExport(registry, exporter, make_resource())
    try:
        yield
    finally:
        await _bounded(export.flush)
        export.close()


async def _bounded(work: Callable[[], object]) -> None:
    """Run blocking work in a thread and wait for it for a bounded time. The thread ends with the process."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def run() -> None:
        work()
        with suppress(RuntimeError):  # the loop is closed: the wait has timed out
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, daemon=True).start()
    with suppress(TimeoutError):
        async with asyncio.timeout(_FLUSH_SECONDS):
            await done.wait()
