"""Envoy's clusters: one for the sidecar, and one for each upstream server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from extproc.config.address import Address
from extproc.config.settings import Settings
from extproc.render.commented import Tree, because
from extproc.render.upstream import Upstream, is_ip

SIDECAR = "aim-extproc"

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_TLS_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"

_EVERY_ADDRESS = "Each address of this name is a sidecar. A Kubernetes Service has several only if it is headless."
_REQUESTS = 1_000_000
_HEADERS = 100
_MORE_HEADERS = 64
_LOOPBACKS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not bound


def socket_address(address: Address) -> Tree:
    """Return `address` as Envoy's core Address message."""
    if address.path:
        return {"pipe": {"path": address.path}}
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def sidecar_cluster(settings: Settings) -> Tree:
    """Return the sidecar's cluster, with every worker of `settings.listen`."""
    return processor_cluster(
        settings,
        [_dialled(settings.listen.for_worker(worker)) for worker in range(settings.workers)],
        balanced=settings.workers > 1,
        tls=_sidecar_tls(settings) if settings.tls.cert_file is not None else None,
    )


def processor_cluster(
    settings: Settings, addresses: Sequence[Address], *, balanced: bool, tls: Tree | None = None
) -> Tree:
    """Return the cluster of the ext_proc servers on `addresses`: either all DNS names or none.

    `balanced` is for several servers, behind one name or several; `tls` is an UpstreamTlsContext.
    """
    named = any(address.host and not is_ip(address.host) for address in addresses)
    keepalive = because(
        "Detects a sidecar that hangs without closing its connection.",
        connection_keepalive={"interval": "30s", "timeout": "10s"},
    )
    return {
        "name": SIDECAR,
        **(because(_EVERY_ADDRESS, type="STRICT_DNS") if named else {"type": "STATIC"}),
        "connect_timeout": "1s",
        **(_balancing() if balanced else {}),
        **because(
            "Every live exchange counts as one request; with the default of 1024 the others would get 503. The "
            "sidecar's limits.streams bounds them instead, and refuses in the shape of the client's API.",
            circuit_breakers=circuit_breakers(settings.workers * settings.limits.streams * 2),
        ),
        **_http_options(
            because("gRPC is HTTP/2.", explicit_http_config={"http2_protocol_options": keepalive}),
        ),
        **(_transport_socket(tls) if tls is not None else {}),
        **_endpoints(SIDECAR, addresses),
    }


def upstream_cluster(settings: Settings, upstream: Upstream, ca_file: str) -> Tree:
    """Return the cluster of `upstream`'s server; `ca_file` holds the CA certificates for an https server."""
    https = upstream.scheme == "https"
    headers = because(
        f"For answers: limits.headers + {_MORE_HEADERS}, so that the sidecar's 502 comes before Envoy's. "
        f"The default is {_HEADERS}.",
        max_headers_count=_most_headers(settings),
    )
    return {
        "name": upstream.cluster,
        **_discovery(upstream),
        "connect_timeout": "10s",
        **because(
            "A streamed answer counts as one request until it ends; the default limit is 1024.",
            circuit_breakers=circuit_breakers(),
        ),
        **_http_options({"common_http_protocol_options": headers, **_upstream_protocol(https=https)}),
        **(_transport_socket(_upstream_tls(upstream, ca_file)) if https else {}),
        **_endpoints(upstream.cluster, [Address(host=upstream.host, port=upstream.port)]),
    }


def _dialled(address: Address) -> Address:
    """Return the address to connect to for a listener on `address`, which may be a wildcard."""
    return Address(host=_LOOPBACKS.get(address.host, address.host), port=address.port, path=address.path)


def _balancing() -> Tree:
    return {
        **because(
            "Exchanges last as long as their answers, so round robin would load servers unevenly.",
            lb_policy="LEAST_REQUEST",
        ),
        **because(
            "A worker that is draining or dead gets no new exchanges.",
            health_checks=[
                {
                    "interval": "1s",
                    **because("The default is 60 s.", no_traffic_interval="1s"),
                    "timeout": "1s",
                    "unhealthy_threshold": 1,
                    "healthy_threshold": 1,
                    "grpc_health_check": {},
                }
            ],
        ),
        **because(
            "If no worker is healthy, try them all: the check may be a second late.",
            common_lb_config={"healthy_panic_threshold": {"value": 1}},
        ),
    }


def _discovery(upstream: Upstream) -> Tree:
    if is_ip(upstream.host):
        return {"type": "STATIC"}
    if upstream.scheme == "http":
        return {
            **because("Each address of this name is a separate server.", type="STRICT_DNS"),
            "dns_lookup_family": "V4_PREFERRED",
        }
    return {
        **because("The addresses of a public name change; live connections stay.", type="LOGICAL_DNS"),
        **because("IPv6 or IPv4: the first that connects.", dns_lookup_family="ALL"),
    }


def _upstream_protocol(*, https: bool) -> Tree:
    if not https:
        return {"explicit_http_config": {"http_protocol_options": {}}}
    return because(
        "HTTP/2 if the server offers it (ALPN), else HTTP/1.1.",
        auto_config={"http_protocol_options": {}, "http2_protocol_options": {}},
    )


def _sidecar_tls(settings: Settings) -> Tree:
    certificate = {"filename": str(settings.tls.cert_file)}
    common: Tree = {
        "alpn_protocols": ["h2"],
        "validation_context": because(
            "Trusts the sidecar's own certificate, so its names do not matter. Envoy reads this file when it "
            "starts: if the certificate is renewed, use the file of its CA instead.",
            trusted_ca=certificate,
        ),
    }
    if settings.tls.client_ca_file is not None:
        common |= because(
            "The sidecar asks for a client certificate (tls.client_ca_file). This is the sidecar's own certificate, "
            "which works only if that CA issued it for clients too. Better: give Envoy its own certificate.",
            tls_certificates=[
                {"certificate_chain": certificate, "private_key": {"filename": str(settings.tls.key_file)}}
            ],
        )
    return {"common_tls_context": common}


def _upstream_tls(upstream: Upstream, ca_file: str) -> Tree:
    address = is_ip(upstream.host)
    validation = {
        **because(
            "The system's CA certificates on Debian, Ubuntu, Alpine and in Envoy's images. On other systems use "
            "/etc/pki/tls/certs/ca-bundle.crt or /etc/ssl/cert.pem.",
            trusted_ca={"filename": ca_file},
        ),
        **because(
            "Without this Envoy would accept any certificate of a trusted CA.",
            match_typed_subject_alt_names=[
                {"san_type": "IP_ADDRESS" if address else "DNS", "matcher": {"exact": upstream.host}}
            ],
        ),
    }
    # An IP address is not allowed as a server name.
    sni = {} if address else {"sni": upstream.host}
    return {**sni, "common_tls_context": {"validation_context": validation}}


def request_headers(settings: Settings) -> Tree:
    """Return the HttpProtocolOptions of a connection manager: how many header fields of a request it accepts."""
    return because(
        f"limits.headers + {_MORE_HEADERS}, so that the sidecar's 413 comes before Envoy's 431. The default is "
        f"{_HEADERS}; if the sidecar's own headers exceed it, the client gets an empty 503.",
        max_headers_count=_most_headers(settings),
    )


def _most_headers(settings: Settings) -> int:
    """Return how many header fields Envoy accepts: more than the sidecar, because filters add some.

    It is at least Envoy's default, because limits.headers does not apply to uninspected exchanges.
    """
    return max(_HEADERS, settings.limits.headers + _MORE_HEADERS)


def most_requests(expected: int = 0) -> int:
    """Return the limit of concurrent requests for a cluster that expects `expected`: far above Envoy's 1024."""
    return max(_REQUESTS, expected)


def circuit_breakers(expected: int = 0) -> Tree:
    """Return circuit breakers that allow `expected` exchanges, and at least a million."""
    most = most_requests(expected)
    return {"thresholds": [{"max_connections": most, "max_pending_requests": most, "max_requests": most}]}


def _http_options(options: Tree) -> Tree:
    return {
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: {"@type": f"type.googleapis.com/{_HTTP_OPTIONS}", **options}
        }
    }


def _transport_socket(context: Tree) -> Tree:
    return {
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {"@type": _TLS_TYPE, **context},
        }
    }


def _endpoints(cluster: str, addresses: Iterable[Address]) -> Tree:
    endpoints = [{"endpoint": {"address": socket_address(address)}} for address in addresses]
    return {"load_assignment": {"cluster_name": cluster, "endpoints": [{"lb_endpoints": endpoints}]}}
