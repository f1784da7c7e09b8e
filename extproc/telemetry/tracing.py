"""The spans of exchanges, in the trace that Envoy or the client began.

Spans are created when the exchange has ended, with their true times. Until then, a detection costs one tuple. No span
has content, a header's value or the caller's identity; docs/operations.md lists the attributes. Where possible, names
follow OpenTelemetry's semantic conventions for generative AI.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from extproc import __version__
from extproc.core.errors import Reason
from extproc.core.vocabulary import Headers, Hook
from extproc.telemetry.outage import Outage
from extproc.telemetry.record import ExchangeRecord

_W3C = TraceContextTextMapPropagator()

_EXCHANGE = "aim.exchange"

_CONVENTIONS: dict[str, dict[str, AttributeValue]] = {
    dialect: {"gen_ai.operation.name": operation, "gen_ai.provider.name": provider}
    for dialect, operation, provider in (
        ("openai-chat", "chat", "openai"),
        ("openai-completions", "text_completion", "openai"),
        ("openai-responses", "chat", "openai"),
        ("openai-embeddings", "embeddings", "openai"),
        ("openai-threads", "chat", "openai"),
        ("anthropic-messages", "chat", "anthropic"),
        ("anthropic-complete", "text_completion", "anthropic"),
        ("gemini", "generate_content", "gcp.gemini"),
        ("gemini-interactions", "generate_content", "gcp.gemini"),
        ("cohere-chat", "chat", "cohere"),
        ("cohere-embed", "embeddings", "cohere"),
        ("mistral-conversations", "chat", "mistral_ai"),
    )
}
"""The conventions' names for each dialect. The provider is that of the API, because the upstream is not known here."""

_ERRORS = ("refused", "aborted")
"""Outcomes that are errors. A block is not an error: it is the purpose of the guard."""


class Tracing:
    """Exports the spans of one process to a collector."""

    def __init__(self, exporter: SpanExporter, resource: Resource) -> None:
        """Export in the background. The environment sets the sampler, the limits and the size of the queue."""
        self._exporter = exporter
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Watched(exporter)))
        self.tracer = self._provider.get_tracer("extproc", __version__)

    def begin(self, metadata: Iterable[tuple[str, str | bytes]], headers: Headers) -> Trace:
        """Begin the part of a trace that belongs to an exchange (W3C Trace Context).

        If Envoy traces, the metadata of its gRPC stream names Envoy's span. Otherwise the client's header is used,
        except its flag: a client must not decide what is sampled.
        """
        if carrier := _trace_context(metadata):
            return Trace(self, _W3C.extract(carrier))
        return Trace(self, self._sampled_as_root(_W3C.extract(_trace_context(headers))))

    def _sampled_as_root(self, parent: Context) -> Context:
        """Return `parent` with the sampled flag that the sidecar's sampler gives to a new trace."""
        span = trace.get_current_span(parent).get_span_context()
        if not span.is_valid:
            return parent
        decision = self._provider.sampler.should_sample(Context(), span.trace_id, _EXCHANGE).decision
        flag = trace.TraceFlags.SAMPLED if decision is Decision.RECORD_AND_SAMPLE else trace.TraceFlags.DEFAULT
        own = trace.SpanContext(span.trace_id, span.span_id, True, trace.TraceFlags(flag), span.trace_state)
        return trace.set_span_in_context(trace.NonRecordingSpan(own), parent)

    def flush(self) -> None:
        """Export the remaining spans. Blocks as long as the collector does."""
        self._provider.shutdown()

    def close(self) -> None:
        """Close the exporter and drop spans that it has not exported."""
        self._exporter.shutdown()


class Trace:
    """The spans of one exchange."""

    __slots__ = ("_detections", "_parent", "_tracing")

    def __init__(self, tracing: Tracing, parent: Context) -> None:
        """Begin a trace whose spans are children of `parent`."""
        self._tracing = tracing
        self._parent = parent
        self._detections: list[tuple[str, float, float, dict[str, AttributeValue]]] = []

    def detection(
        self,
        kind: str,
        hook: Hook,
        began: float,
        ended: float,
        *,
        action: str | None,
        reason: Reason | None,
        policies: Sequence[str] = (),
    ) -> None:
        """Record a detection or a session, with its times on the monotonic clock."""
        attributes: dict[str, AttributeValue] = {"aim.hook": hook.value}
        if action is not None:
            attributes["aim.action"] = action
        if policies:
            attributes["aim.policies"] = list(policies)
        if reason is not None:
            attributes["error.type"] = reason.value
        self._detections.append((f"aim.{kind}", began, ended, attributes))

    def finish(self, record: ExchangeRecord, began: float, ended: float) -> None:
        """Create the spans of an exchange that has ended."""
        epoch = time.time_ns() - round(time.monotonic() * 1e9)
        tracer = self._tracing.tracer
        span = tracer.start_span(_EXCHANGE, self._parent, trace.SpanKind.SERVER, start_time=epoch + round(began * 1e9))
        if not span.is_recording():
            return
        below = trace.set_span_in_context(span, self._parent)
        for name, start, end, attributes in self._detections:
            child = tracer.start_span(
                name, below, trace.SpanKind.CLIENT, attributes, start_time=epoch + round(start * 1e9)
            )
            if "error.type" in attributes:
                child.set_status(trace.StatusCode.ERROR)
            child.end(epoch + round(end * 1e9))
        span.set_attributes(_attributes(record))
        if record.outcome in _ERRORS:
            span.set_status(trace.StatusCode.ERROR)
        span.end(epoch + round(ended * 1e9))


def _attributes(record: ExchangeRecord) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "aim.call_id": record.call_id,
        "aim.profile": record.profile,
        "aim.dialect": record.dialect,
        "aim.outcome": record.outcome,
        "aim.code": record.code,
        **_CONVENTIONS.get(record.dialect, {}),
    }
    for leg, leg_record in record.legs.items():
        attributes[f"aim.{leg}.action"] = leg_record.action
        attributes[f"aim.{leg}.policies"] = leg_record.policies
    if record.outcome in _ERRORS:
        attributes["error.type"] = record.code or record.outcome
    return attributes


def _trace_context(fields: Iterable[tuple[str, str | bytes]]) -> dict[str, list[str]]:
    """Return the `traceparent` fields of `fields`, if any.

    `tracestate` is ignored: a client can put any text into it, and spans must not contain such text.
    """
    parents = [value for name, value in fields if name == "traceparent" and isinstance(value, str)]
    return {"traceparent": parents} if parents else {}


class _Watched(SpanExporter):
    """An exporter that logs each outage once and raises no error."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._outage = Outage("traces")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception:
            result = SpanExportResult.FAILURE
        self._outage.note(was_exported=result is SpanExportResult.SUCCESS)
        return result
