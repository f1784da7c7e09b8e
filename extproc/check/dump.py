"""Reads a running Envoy's configuration dump: listeners, HTTP filters, routes and clusters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from extproc.check.filters import PROCESSOR, Filter, read_filters
from extproc.check.node import Node, path, type_of

_MANAGER = "HttpConnectionManager"
_OF_APPS = "virtualOutbound"
"""The listener by which an Envoy beside an app is known: Istio gives it to no gateway."""

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@dataclass(frozen=True, slots=True)
class Route:
    """One route to upstreams: its place, the scopes that apply to it from the outermost in, and its clusters."""

    where: str
    node: Node
    scopes: tuple[Node, ...]
    clusters: frozenset[str]


@dataclass(frozen=True, slots=True)
class Manager:
    """One HTTP connection manager of a listener."""

    where: str
    listener: Node
    config: Node
    filters: tuple[Filter, ...]
    routes: tuple[Route, ...]
    is_app: bool = False
    """Whether it is for what the app in Envoy's own pod sends and receives, as in a sidecar of Istio."""

    @property
    def processors(self) -> list[Filter]:
        """Its ext_proc filters."""
        return [each for each in self.filters if each.type == PROCESSOR]

    @property
    def is_outbound(self) -> bool:
        """Whether it is for what an app sends."""
        return self.is_app and self.listener.get("traffic_direction") == "OUTBOUND"

    @property
    def clusters(self) -> frozenset[str]:
        """The clusters of its routes."""
        return frozenset().union(*(route.clusters for route in self.routes))


class Dump:
    """The whole configuration."""

    def __init__(self, dump: Node) -> None:
        """Read the answer of `/config_dump?include_eds`."""
        self._sections = {type_of(each): each for each in dump.get("configs", ())}
        self.clusters: dict[str, Node] = {
            node["name"]: node for node in self._resources("ClustersConfigDump", "cluster") if "name" in node
        }
        self._routes = {node.get("name", ""): node for node in self._resources("RoutesConfigDump", "route_config")}
        self._extensions = {node.get("name", ""): node for node in self._resources("EcdsConfigDump", "ecds_filter")}
        self.upstream_filters = {name: self._upstream_filters(node) for name, node in self.clusters.items()}
        """The filters of each cluster's upstream chain."""
        self.managers: list[Manager] = []
        self.tcp: list[tuple[str, frozenset[str]]] = []
        """The TCP proxies: their place and their clusters."""
        listeners = list(self._resources("ListenersConfigDump", "listener"))
        self._is_app = any(listener.get("name") == _OF_APPS for listener in listeners)
        for listener in listeners:
            self._read_listener(listener)

    def _resources(self, section: str, name: str) -> Iterator[Node]:
        """Yield the resources of a section, static and dynamic."""
        for key, entries in self._sections.get(section, {}).items():
            if not isinstance(entries, list) or key.startswith("dynamic_warming"):
                continue
            for entry in entries:
                node = entry.get(name) or path(entry, "active_state", name)
                if isinstance(node, Mapping):
                    yield node

    def _upstream_filters(self, cluster: Node) -> tuple[Filter, ...]:
        entries = http_options(cluster).get("http_filters", ())
        return tuple(read_filters(entries, self._extensions))

    def _read_listener(self, listener: Node) -> None:
        chains = [*listener.get("filter_chains", ())]
        if "default_filter_chain" in listener:
            chains.append(listener["default_filter_chain"])
        for number, chain in enumerate(chains, 1):
            where = f"listener {listener.get('name', '')}"
            if len(chains) > 1:
                where += f", filter chain {chain.get('name') or number}"
            for each in chain.get("filters", ()):
                config = each.get("typed_config", {})
                if type_of(config) == _MANAGER:
                    self.managers.append(self._manager(where, listener, config))
                elif type_of(config) == "TcpProxy":
                    self.tcp.append((where, clusters_of(config)))

    def _manager(self, where: str, listener: Node, config: Node) -> Manager:
        filters = tuple(read_filters(config.get("http_filters", ()), self._extensions))
        named = path(config, "rds", "route_config_name")
        routes = config.get("route_config") or self._routes.get(str(named), {})
        return Manager(where, listener, config, filters, tuple(_routes(where, routes)), self._is_app)


def _routes(where: str, config: Node) -> Iterator[Route]:
    for host in config.get("virtual_hosts", ()):
        for number, node in enumerate(host.get("routes", ()), 1):
            action = node.get("route")
            if action is None:
                continue  # a redirect or a direct response: nothing goes upstream
            match = node.get("match", {})
            shown = next((str(match[key]) for key in ("prefix", "path", "path_separated_prefix") if key in match), "")
            name = node.get("name") or shown or number
            label = f"{where}, virtual host {host.get('name', '')}, route {name}"
            scopes = (config, host, node)
            weighted = path(action, "weighted_clusters", "clusters") or ()
            yield Route(label, node, scopes, clusters_of(action))
            for each in weighted:
                if each.get("typed_per_filter_config"):
                    part = f"{label}, cluster {each.get('name', '')}"
                    yield Route(part, node, (*scopes, each), frozenset({each.get("name", "")}))


def clusters_of(action: Node) -> frozenset[str]:
    """Return the clusters that a route's action or a TCP proxy names."""
    weighted = path(action, "weighted_clusters", "clusters") or ()
    return frozenset(str(name) for name in (action.get("cluster"), *(each.get("name") for each in weighted)) if name)


def http_options(cluster: Node) -> Node:
    """Return a cluster's HttpProtocolOptions."""
    found = path(cluster, "typed_extension_protocol_options", _HTTP_OPTIONS)
    return found if isinstance(found, Mapping) else {}
