"""OpenTelemetry without Envoy: the switches, metrics over OTLP, and unreachable or slow collectors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from extproc.core.errors import SettingsError
from extproc.telemetry import otel
from tests.fakes.aim import ScriptedAim
from tests.fakes.collector import Collector, collector
from tests.fakes.envoy_stream import envoy_stream
from tests.fakes.process import free_port, get, run, serving, written
from tests.fakes.rig import chat_request

REQUEST = json.dumps(chat_request("Hello")).encode()
FAST = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_METRIC_EXPORT_INTERVAL": "100"}


async def exchange(port: int, *headers: tuple[str, str], metadata: tuple[tuple[str, str], ...] = ()) -> None:
    """Send a whole exchange."""
    async with envoy_stream(f"127.0.0.1:{port}", metadata) as stream:
        await stream.request_headers(*headers)
        assert (await stream.read()).HasField("request_headers")
        await stream.body("request", REQUEST)
        assert (await stream.read()).HasField("request_body")
        await stream.response_headers(status=204, end=True)
        assert (await stream.read()).HasField("response_headers")
        await stream.done()
        assert await stream.read() is None


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OTEL_SDK_DISABLED",
        *(f"OTEL_{signal}_EXPORTER" for signal in ("TRACES", "METRICS")),
        *(
            f"OTEL_EXPORTER_OTLP_{signal}{what}"
            for signal in ("", "TRACES_", "METRICS_")
            for what in ("ENDPOINT", "PROTOCOL")
        ),
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "traces", "metrics"),
    [
        ({}, False, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, True, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c"}, True, False),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c"}, False, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_METRICS_EXPORTER": "none"}, True, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, False, False),
    ],
)
def test_variables_switch_the_export_on(
    variables: dict[str, str], traces: bool, metrics: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (otel.is_exported("traces"), otel.is_exported("metrics")) == (traces, metrics)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_METRICS_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "carrier-pigeon"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "often"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "few"),  # no limit of metrics, but the library reads it at its import
    ],
)
async def test_wrong_variables_are_problems(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="environment: OTEL_"):
        async with otel.metrics(CollectorRegistry()):
            pass


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "half"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        *((f"OTEL_BSP_{what}", "many") for what in ("SCHEDULE_DELAY", "MAX_QUEUE_SIZE", "EXPORT_TIMEOUT")),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "7"),  # less than a batch
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "few"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "-1"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "unset"),
    ],
)
async def test_wrong_variables_of_traces_are_problems(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        async with otel.tracing():
            pass
    (problem,) = caught.value.problems
    # If the library itself refuses a value, its error does not name the variable.
    assert problem.startswith((f"environment: {name} is no", "environment: OTEL_BSP_... cannot"))


async def test_limits_may_be_empty_or_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "")
    monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", "0")
    otel.make_exporter("traces").shutdown()


@pytest.mark.parametrize(
    ("protocol", "endpoint", "taken"),
    [
        ("grpc", "http://collector:4317", True),
        ("grpc", "collector:4317", True),
        ("grpc", "dns:///collector:4317", True),
        ("grpc", "https://", False),
        ("grpc", "collector:port", False),
        ("http/protobuf", "https://collector/otlp", True),
        ("http/protobuf", "http://[::1]:4318", True),
        ("http/protobuf", "collector:4318", False),
        ("http/protobuf", "ftp://collector", False),
        ("http/protobuf", "http://collector:99999", False),
    ],
)
def test_endpoint_is_checked(protocol: str, endpoint: str, taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    if taken:
        otel.make_exporter("traces").shutdown()
    else:
        with pytest.raises(SettingsError, match="environment: OTEL_EXPORTER_OTLP_ENDPOINT is not http://HOST:PORT or"):
            otel.make_exporter("traces")


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "is neither otlp nor none"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "few", "is no number from 0"),
    ],
)
async def test_wrong_variable_ends_the_start(name: str, value: str, problem: str, workers: str) -> None:
    settings = {"AIM_API_KEY": "k", "EXTPROC_LISTEN": f"127.0.0.1:{free_port(2)}", "EXTPROC_WORKERS": workers}
    variables = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1", name: value}
    status, _, err = await run("serve", **settings, EXTPROC_ADMIN="", **variables)
    assert status == 2
    assert set(err.splitlines()) == {f"environment: {name} {problem}"}


def test_opentelemetry_is_not_imported_when_off() -> None:
    code = "import extproc.serve.server, sys; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def values(metric: Any) -> dict[tuple[tuple[str, str], ...], float]:
    """Return the points of a sum or a gauge by their labels."""
    data = getattr(metric, metric.WhichOneof("data"))
    return {
        tuple(sorted((each.key, each.value.string_value) for each in point.attributes)): point.as_double
        for point in data.data_points
    }


@pytest.mark.parametrize(("workers", "protocol"), [(1, "http/protobuf"), (2, "grpc")])
async def test_exported_metrics_equal_a_scrape(tmp_path: Path, aim: ScriptedAim, workers: int, protocol: str) -> None:
    config, port, admin = written(tmp_path, aim, workers=workers)
    async with collector() as target:
        endpoint = target.grpc if protocol == "grpc" else target.http
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
        async with serving(config, None, **variables, **FAST) as process:
            for _ in range(workers - 1):
                await process.until("serving")
            for number in range(workers):
                await exchange(port + number)
            labels = (("dialect", "openai-chat"), ("outcome", "allowed"), ("profile", "default"))

            def counted() -> bool:
                metric = target.metrics.get("extproc_exchanges")
                return metric is not None and values(metric) == {labels: workers}

            await target.until(counted)
            await target.until(lambda: len(target.named("aim.exchange")) == workers)
            histogram = target.metrics["extproc_added_latency_seconds"]
            (point,) = histogram.histogram.data_points
            assert histogram.unit == "s"
            assert point.count == workers == sum(point.bucket_counts)
            assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
            assert target.metrics["extproc_exchanges"].sum.is_monotonic
            assert values(target.metrics["extproc_streams"]) == {(): 0}
            scraped = text_string_to_metric_families((await get(admin, "/metrics")).text)
            names = {family.name for family in scraped if family.samples and not family.name.endswith("_created")}
            assert set(target.metrics) == names
            process.signal()
            assert await process.ended() == 0


async def test_end_of_the_process_exports_the_rest(tmp_path: Path, aim: ScriptedAim) -> None:
    config, port, _ = written(tmp_path, aim)
    async with (
        collector() as target,
        serving(config, OTEL_EXPORTER_OTLP_ENDPOINT=target.grpc, OTEL_BSP_SCHEDULE_DELAY="3600000") as process,
    ):
        await exchange(port)
        process.signal()
        assert await process.ended() == 0
        assert len(target.named("aim.exchange")) == 1
        assert "extproc_exchanges" in target.metrics


def traceparent(trace: str, *, sampled: bool) -> tuple[str, str]:
    return ("traceparent", f"00-{trace * 32}-{'f' * 16}-{int(sampled):02}")


@pytest.mark.parametrize(
    ("sampler", "seen"),
    [
        ("parentbased_always_on", {"1", "2", "3"}),
        ("parentbased_always_off", {"3"}),
        ("always_on", {"1", "2", "3", "4"}),
        ("always_off", set()),
    ],
)
async def test_envoy_and_not_the_client_decides_sampling(
    tmp_path: Path, aim: ScriptedAim, sampler: str, seen: set[str]
) -> None:
    config, port, _ = written(tmp_path, aim)
    async with collector() as target:
        variables = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": target.grpc, "OTEL_TRACES_SAMPLER": sampler}
        async with serving(config, None, **variables) as process:
            await exchange(port, traceparent("1", sampled=False))
            await exchange(port, traceparent("2", sampled=True))
            await exchange(port, traceparent("5", sampled=False), metadata=(traceparent("3", sampled=True),))
            await exchange(port, traceparent("6", sampled=True), metadata=(traceparent("4", sampled=False),))
            process.signal()
            assert await process.ended() == 0
        exchanges = target.named("aim.exchange")
        assert {span.trace_id for span in exchanges} == {trace * 32 for trace in seen}
        assert {span.parent_id for span in exchanges} <= {"f" * 16}


async def _serve_without(target: Collector, endpoint: str, protocol: str, config: Path, port: int) -> list[str]:
    """Serve with a collector that does not answer; return the events that were logged."""
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    async with serving(config, None, **variables, OTEL_EXPORTER_OTLP_TIMEOUT="3600", **FAST) as process:
        for _ in range(3):
            await exchange(port)
        process.signal()
        # The collector's deadline is an hour, so only the sidecar's own bound can end it.
        assert await process.ended() == 0
        assert not target.spans
        return [line["event"] for line in process.lines]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_slow_collector_delays_nothing(tmp_path: Path, aim: ScriptedAim, protocol: str) -> None:
    config, port, _ = written(tmp_path, aim)
    async with collector() as target:
        target.is_holding = True
        endpoint = target.grpc if protocol == "grpc" else target.http
        events = await _serve_without(target, endpoint, protocol, config, port)
    assert events.count("exchange") == 3
    assert "stopped" in events


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_unreachable_collector_is_logged_once(tmp_path: Path, aim: ScriptedAim, protocol: str) -> None:
    config, port, _ = written(tmp_path, aim)
    variables = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    variables |= {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    async with serving(config, None, **variables, **FAST) as process:
        await exchange(port)
        assert (await process.until("otlp_export_failed"))["signal"] == "traces"
        await exchange(port)
        process.signal()
        assert await process.ended() == 0
        assert [line["event"] for line in process.lines].count("otlp_export_failed") == 1
        assert all(line["event"] != "unreadable" for line in process.lines)
