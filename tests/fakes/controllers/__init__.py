"""Builds Envoy's configuration from rendered resources as the meshes' controllers do.

Each module covers one controller. It says in which files of which release that controller's own tests show what it
generates, and takes over what a request or a health check can notice. Names of fields are Envoy's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from extproc.render.commented import Tree

ANY_PORT = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
FILTERS = "type.googleapis.com/envoy.extensions.filters"
MANAGER = "envoy.filters.network.http_connection_manager"
ROUTER = "envoy.filters.http.router"


@dataclass(frozen=True)
class Cluster:
    """What stands for the Kubernetes cluster: the ports of the sidecars and of the model on this machine, and files.

    `folder` takes the endpoints, which Envoy reads as from a control plane. `ca` is the CA of the sidecars'
    certificate.
    """

    sidecars: Sequence[int]
    model: int
    folder: Path
    ca: str = ""
    paths: Sequence[str] = field(default=("/",))


def by_kind(documents: Sequence[Tree]) -> dict[str, Tree]:
    """Return the specs of rendered resources by kind."""
    return {document["kind"]: document["spec"] for document in documents}


def discovered(folder: Path, name: str, ports: Sequence[int]) -> Tree:
    """Return the fields of an EDS cluster with endpoints on `ports`, which come from a file."""
    assignment = {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": endpoints(ports)}],
    }
    path = folder / f"{name.replace('/', '_')}.json"
    path.write_text(json.dumps({"version_info": "1", "resources": [assignment]}))
    source = {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}
    return {"type": "EDS", "eds_cluster_config": {"service_name": name, "eds_config": source}}


def endpoints(ports: Sequence[int]) -> list[Tree]:
    """Return endpoints on `ports` of this machine."""
    address = [{"socket_address": {"address": "127.0.0.1", "port_value": port}} for port in ports]
    return [{"endpoint": {"address": each}} for each in address]


def router(**more: Any) -> Tree:
    """Return the last filter of a chain."""
    return {"name": ROUTER, "typed_config": {"@type": f"{FILTERS}.http.router.v3.Router", **more}}


def least_request() -> Tree:
    """Return the load-balancing policy that controllers generate by default."""
    type_ = "type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest"
    policy = {
        "name": "envoy.load_balancing_policies.least_request",
        "typed_config": {"@type": type_, "locality_lb_config": {"locality_weighted_lb_config": {}}},
    }
    return {"load_balancing_policy": {"policies": [{"typed_extension_config": policy}]}}


def tls(context: Tree) -> Tree:
    """Return a transport socket with an UpstreamTlsContext."""
    type_ = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    return {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": type_, **context}}


def bootstrap(listener: Tree, clusters: Sequence[Tree]) -> Tree:
    """Return the bootstrap of an Envoy with one listener."""
    return {
        "admin": {"address": ANY_PORT},
        "node": {"id": "test", "cluster": "test"},
        "static_resources": {"listeners": [listener], "clusters": list(clusters)},
    }
