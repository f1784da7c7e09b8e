"""Checks Envoy's clusters: the sidecar's, and those of the models."""

from __future__ import annotations

from collections.abc import Iterator

from extproc.check.dump import Node, path
from extproc.check.finding import Finding, error, warning
from extproc.config.address import Address
from extproc.config.settings import Settings
from extproc.render.cluster import most_requests

_DEFAULT_REQUESTS = 1024
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def check_sidecar(settings: Settings, name: str, cluster: Node | None, hosts: list[Node]) -> Iterator[Finding]:
    """Yield findings about the sidecar's cluster; `hosts` is Envoy's status of its endpoints."""
    where = f"cluster {name}"
    if cluster is None:
        yield error(where, "it does not exist, so every exchange fails", "add it")
        return
    yield from _requests(where, cluster, settings.workers * settings.limits.streams)
    options = path(cluster, "typed_extension_protocol_options", _HTTP_OPTIONS) or {}
    http2 = path(options, "explicit_http_config", "http2_protocol_options")
    http2 = cluster.get("http2_protocol_options") if http2 is None else http2
    if http2 is None:
        yield error(
            where, "it does not use HTTP/2, which gRPC needs", "set explicit_http_config.http2_protocol_options"
        )
    elif "connection_keepalive" not in http2:
        yield warning(
            where,
            "a sidecar that hangs without closing its connection is not noticed",
            "set http2_protocol_options.connection_keepalive: {interval: 30s, timeout: 10s}",
        )
    yield from _tls(settings, where, cluster)
    yield from _hosts(settings, where, cluster, hosts)


def check_upstream(settings: Settings, name: str, cluster: Node | None) -> Iterator[Finding]:
    """Yield findings about the cluster of a model."""
    if cluster is not None:
        yield from _requests(f"cluster {name}", cluster, settings.limits.streams)


def _requests(where: str, cluster: Node, streams: int) -> Iterator[Finding]:
    thresholds = path(cluster, "circuit_breakers", "thresholds") or [{}]
    usual: Node = next((each for each in thresholds if each.get("priority", "DEFAULT") == "DEFAULT"), {})
    most = int(usual.get("max_requests", _DEFAULT_REQUESTS))
    if most < streams:
        default = "" if "max_requests" in usual else ", by default"
        yield error(
            where,
            f"its circuit breaker lets {most:,} exchanges live at once{default}; limits.streams allows {streams:,}",
            f"set circuit_breakers.thresholds: [{{max_requests: {most_requests(streams)}, ...}}]",
        )


def _tls(settings: Settings, where: str, cluster: Node) -> Iterator[Finding]:
    is_tls = "transport_socket" in cluster or "transport_socket_matches" in cluster
    if settings.tls.cert_file is not None and not is_tls:
        yield error(
            where, "the sidecar expects TLS, which is not configured here", "add a transport_socket, or remove tls"
        )
    if settings.tls.cert_file is None and "transport_socket" in cluster:
        yield error(
            where, "TLS is configured here, which the sidecar does not use", "set tls.cert_file and tls.key_file"
        )


def _hosts(settings: Settings, where: str, cluster: Node, hosts: list[Node]) -> Iterator[Finding]:
    if not hosts:
        yield error(
            where, "it has no endpoint: its name does not resolve, or no pod is ready", "check its name and its service"
        )
        return
    if all(_is_unhealthy(host) for host in hosts):
        yield error(where, "none of its endpoints is healthy", "check that the sidecar serves on this address")
    elif all(_fails(host) for host in hosts):
        yield error(
            where, "Envoy cannot connect to any of its endpoints", "check that the sidecar serves, and check TLS"
        )
    if cluster.get("type", "STATIC") != "STATIC":
        return
    dialled = {str(_address(host)) for host in hosts}
    workers = {str(settings.listen.for_worker(worker)) for worker in range(settings.workers)}
    wildcard = settings.listen.host in ("0.0.0.0", "::")  # noqa: S104 - recognised, not bound
    if not wildcard and not dialled >= workers:
        yield warning(
            where,
            f"it connects to {', '.join(sorted(dialled))}, but the sidecar of these settings listens on "
            f"{', '.join(sorted(workers))}",
            "render it again, or pass the sidecar's own settings with --config",
        )


def _address(host: Node) -> Address:
    pipe = path(host, "address", "pipe", "path")
    if pipe:
        return Address(path=pipe)
    socket = path(host, "address", "socket_address") or {}
    return Address(host=socket.get("address", ""), port=socket.get("port_value", 0))


def _is_unhealthy(host: Node) -> bool:
    health = host.get("health_status", {})
    return bool(health.get("failed_active_health_check") or health.get("failed_outlier_check")) or (
        health.get("eds_health_status") == "UNHEALTHY"
    )


def _fails(host: Node) -> bool:
    stats = {stat["name"]: int(stat.get("value", 0)) for stat in host.get("stats", ())}
    return stats.get("cx_connect_fail", 0) > 0 and stats.get("cx_active", 0) == 0
