"""Checks Envoy's clusters: the sidecar's, and those of the models."""

from __future__ import annotations

from collections.abc import Iterator

from extproc.check.dump import http_options
from extproc.check.finding import Finding, actionable, error, warning
from extproc.check.mesh import Mesh, Setting
from extproc.check.node import Node, messages, path, seconds
from extproc.check.route import SHORT_SECONDS
from extproc.config.address import Address
from extproc.config.settings import Settings
from extproc.render.cluster import most_requests

_DEFAULT_REQUESTS = 1024


def check_sidecar(
    settings: Settings, mesh: Mesh, name: str, cluster: Node | None, hosts: list[Node]
) -> Iterator[Finding]:
    """Yield findings about the sidecar's cluster; `hosts` is Envoy's status of its endpoints."""
    where = f"cluster {name}"
    if cluster is None:
        yield error(where, "it does not exist, so every exchange fails", "add it")
        return
    yield from _requests(mesh, where, cluster, settings.workers * settings.limits.streams)
    yield from _duration(mesh, where, cluster, "exchanges")
    http2 = path(http_options(cluster), "explicit_http_config", "http2_protocol_options")
    http2 = cluster.get("http2_protocol_options") if http2 is None else http2
    if http2 is None:
        yield error(
            where, "it does not use HTTP/2, which gRPC needs", "set explicit_http_config.http2_protocol_options"
        )
    elif "connection_keepalive" not in http2:
        usual = "set http2_protocol_options.connection_keepalive: {interval: 30s, timeout: 10s}"
        what = "a sidecar that hangs without closing its connection is not noticed"
        yield from actionable(warning, where, what, mesh.advice(Setting.KEEPALIVE, usual))
    yield from _tls(settings, where, cluster)
    yield from _health(mesh, where, cluster)
    yield from _hosts(settings, where, cluster, hosts)


def check_upstream(settings: Settings, mesh: Mesh, name: str, cluster: Node | None) -> Iterator[Finding]:
    """Yield findings about the cluster of a model."""
    if cluster is not None:
        yield from _requests(mesh, f"cluster {name}", cluster, settings.limits.streams)
        yield from _duration(mesh, f"cluster {name}", cluster, "answers")


def _duration(mesh: Mesh, where: str, cluster: Node, what: str) -> Iterator[Finding]:
    options = path(http_options(cluster), "common_http_protocol_options") or cluster.get("common_http_protocol_options")
    longest = seconds(path(options, "max_stream_duration"), 0)
    if longest:
        make = error if longest < SHORT_SECONDS else warning
        advice = mesh.advice(Setting.STREAM_DURATION, "remove max_stream_duration")
        yield from actionable(make, where, f"{what} that take longer than {longest:g} s are cut off", advice)


def _health(mesh: Mesh, where: str, cluster: Node) -> Iterator[Finding]:
    """Yield a finding if health checks over TLS do not offer HTTP/2, so that a gRPC server refuses them.

    Envoy adds ALPN to the connections of requests, but not to those of health checks.
    """
    for check in cluster.get("health_checks", ()):
        contexts = messages(cluster, "UpstreamTlsContext")
        offered = [path(each, "common_tls_context", "alpn_protocols") or () for each in contexts]
        own = path(check, "tls_options", "alpn_protocols") or ()
        if "grpc_health_check" in check and any("h2" not in (own or each) for each in offered):
            usual = "set alpn_protocols: [h2] in the transport_socket's common_tls_context"
            yield from actionable(
                error,
                where,
                "its health checks go over TLS without ALPN, so the sidecar refuses each of them",
                mesh.advice(Setting.HEALTH_TLS, usual),
            )


def _requests(mesh: Mesh, where: str, cluster: Node, streams: int) -> Iterator[Finding]:
    thresholds = path(cluster, "circuit_breakers", "thresholds") or [{}]
    usual: Node = next((each for each in thresholds if each.get("priority", "DEFAULT") == "DEFAULT"), {})
    most = int(usual.get("max_requests", _DEFAULT_REQUESTS))
    if most < streams:
        default = "" if "max_requests" in usual else ", by default"
        needed = most_requests(streams)
        yield from actionable(
            error,
            where,
            f"its circuit breaker lets {most:,} exchanges live at once{default}; limits.streams allows {streams:,}",
            mesh.advice(
                Setting.CIRCUIT_BREAKER, f"set circuit_breakers.thresholds: [{{max_requests: {needed}, ...}}]", needed
            ),
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
    if cluster.get("type", "STATIC") != "STATIC" or "cluster_type" in cluster:
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
