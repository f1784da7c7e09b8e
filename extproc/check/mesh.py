"""Which control plane wrote Envoy's configuration: it decides what an operator can change, and where."""

from __future__ import annotations

import re
from enum import Enum, auto

from extproc.check.dump import Dump
from extproc.check.filters import Filter

_ISTIO_CLUSTER = re.compile(r"(outbound|inbound|inbound-vip)(_\.\d+_\._.*)?\|.*\||xds-grpc|BlackHoleCluster")


class Setting(Enum):
    """A setting of the filter, its cluster or its listener, whose place differs between meshes."""

    BUFFER = auto()
    TIMEOUT = auto()
    CIRCUIT_BREAKER = auto()
    IDLE = auto()
    KEEPALIVE = auto()
    STATUS = auto()
    METADATA = auto()
    MUTATIONS = auto()
    ESCAPED_SLASHES = auto()
    HEALTH_TLS = auto()
    STREAM_DURATION = auto()
    SWITCH = auto()


class Mesh(Enum):
    """A control plane, or none."""

    ENVOY = auto()
    ISTIO = auto()
    ENVOY_GATEWAY = auto()
    KGATEWAY = auto()

    def advice(self, setting: Setting, usual: str, value: object = "") -> str | None:
        """Return how to set `setting` to `value` here; None if this mesh cannot. `usual` is the way of Envoy itself."""
        place = _PLACES[self].get(setting, usual)
        return place.replace("{value}", str(value)) if place is not None else None


# None: this mesh cannot set it, so the finding is not printed. What is not named is set as in Envoy itself.
_PLACES: dict[Mesh, dict[Setting, str | None]] = {
    Mesh.ENVOY: {},
    Mesh.ISTIO: {},
    Mesh.ENVOY_GATEWAY: {
        Setting.BUFFER: "set connection.bufferLimit of a ClientTrafficPolicy to {value}",
        Setting.TIMEOUT: "set timeout.http.requestTimeout: 0s in a BackendTrafficPolicy",
        Setting.CIRCUIT_BREAKER: "set circuitBreaker.maxParallelRequests: {value} (a model: in a BackendTrafficPolicy; "
        "the sidecar: in backendSettings of the EnvoyExtensionPolicy)",
        Setting.IDLE: "set timeout.http.streamIdleTimeout: {value}s in a ClientTrafficPolicy",
        Setting.KEEPALIVE: "set backendSettings.http2.connectionKeepalive in the EnvoyExtensionPolicy",
        Setting.STATUS: "set statusOnError: 503 in the EnvoyExtensionPolicy",
        Setting.METADATA: "add {value} to metadata.writableNamespaces of the EnvoyExtensionPolicy",
        Setting.MUTATIONS: None,
        Setting.ESCAPED_SLASHES: "set path.escapedSlashesAction: KeepUnchanged in a ClientTrafficPolicy",
        Setting.HEALTH_TLS: "let the EnvoyExtensionPolicy use a Backend with tls.alpnProtocols: [h2]",
        Setting.STREAM_DURATION: "remove timeout.http.maxStreamDuration",
        Setting.SWITCH: "a policy of this HTTPRoute replaces the Gateway's EnvoyExtensionPolicy: repeat extProc there",
    },
    Mesh.KGATEWAY: {
        Setting.BUFFER: "set perConnectionBufferLimitBytes of a ListenerPolicy to {value}",
        Setting.TIMEOUT: "set timeouts.request: 0s in a TrafficPolicy",
        Setting.CIRCUIT_BREAKER: "set circuitBreakers.maxRequests: {value} in a BackendConfigPolicy for its Service",
        Setting.IDLE: "set timeouts.streamIdle: {value}s in a TrafficPolicy",
        Setting.KEEPALIVE: None,  # only its main branch can
        Setting.STATUS: None,
        Setting.METADATA: None,
        Setting.MUTATIONS: None,
        Setting.HEALTH_TLS: "set tls.alpnProtocols: [h2] in a BackendConfigPolicy, in place of a BackendTLSPolicy",
        Setting.STREAM_DURATION: "remove commonHttpProtocolOptions.maxStreamDuration of the BackendConfigPolicy",
        Setting.SWITCH: "remove extProc.disable from the TrafficPolicy, or reference the GatewayExtension there",
    },
}


def mesh_of(dump: Dump, processor: Filter) -> Mesh:
    """Return the control plane that wrote the filter `processor`."""
    if "envoyextensionpolicy/" in f"{processor.name} {processor.cluster}":
        return Mesh.ENVOY_GATEWAY
    if processor.name.startswith("ext_proc/") and processor.cluster.startswith("kube_"):
        return Mesh.KGATEWAY
    if any(_ISTIO_CLUSTER.match(name) for name in dump.clusters):
        return Mesh.ISTIO
    return Mesh.ENVOY
