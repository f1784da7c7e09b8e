"""Reads a running Envoy's configuration dump: listeners, HTTP filters, routes and clusters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Node = Mapping[str, Any]
"""A protobuf message as JSON: fields in snake_case, default values left out."""

_MANAGER = "HttpConnectionManager"
_PROCESSOR = "ExternalProcessor"


@dataclass(frozen=True, slots=True)
class Filter:
    """One HTTP filter: its name, the last part of its configuration's type, and the configuration."""

    name: str
    type: str
    config: Node
    is_disabled: bool = False

    @property
    def cluster(self) -> str:
        """The cluster of an ext_proc filter's server; empty for other filters."""
        return str(path(self.config, "grpc_service", "envoy_grpc", "cluster_name") or "")


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

    @property
    def processors(self) -> list[Filter]:
        """Its ext_proc filters."""
        return [each for each in self.filters if each.type == _PROCESSOR]

    @property
    def clusters(self) -> frozenset[str]:
        """The clusters of its routes."""
        return frozenset().union(*(route.clusters for route in self.routes))


class Dump:
    """The whole configuration."""

    def __init__(self, dump: Node) -> None:
        """Read the answer of `/config_dump?include_eds`."""
        self._sections = {_type(each): each for each in dump.get("configs", ())}
        self.clusters: dict[str, Node] = {
            node["name"]: node for node in self._resources("ClustersConfigDump", "cluster") if "name" in node
        }
        self._routes = {node.get("name", ""): node for node in self._resources("RoutesConfigDump", "route_config")}
        self._extensions = {node.get("name", ""): node for node in self._resources("EcdsConfigDump", "ecds_filter")}
        self.managers: list[Manager] = []
        self.tcp: list[tuple[str, frozenset[str]]] = []
        """The TCP proxies: their place and their clusters."""
        for listener in self._resources("ListenersConfigDump", "listener"):
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
                if _type(config) == _MANAGER:
                    self.managers.append(self._manager(where, listener, config))
                elif _type(config) == "TcpProxy":
                    self.tcp.append((where, clusters_of(config)))

    def _manager(self, where: str, listener: Node, config: Node) -> Manager:
        filters = tuple(self._filter(each) for each in config.get("http_filters", ()))
        named = path(config, "rds", "route_config_name")
        routes = config.get("route_config") or self._routes.get(str(named), {})
        return Manager(where, listener, config, filters, tuple(_routes(where, routes)))

    def _filter(self, each: Node) -> Filter:
        name = each.get("name", "")
        config = each.get("typed_config") or self._extensions.get(name, {}).get("typed_config", {})
        return Filter(name, _type(config), config, bool(each.get("disabled")))


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


def path(node: Any, *steps: str) -> Any:
    """Return the value at the path `steps` below `node`, or None."""
    for step in steps:
        if not isinstance(node, Mapping):
            return None
        node = node.get(step)
    return node


def seconds(duration: Any, default: float) -> float:
    """Return a protobuf duration in JSON form as seconds, or `default` if it is None."""
    return float(str(duration).removesuffix("s")) if duration is not None else default


def mentions(node: Any, text: str) -> bool:
    """Return whether `text` occurs anywhere in `node`, ignoring case."""
    return text.lower() in json.dumps(node).lower()


def _type(node: Node) -> str:
    return str(node.get("@type", "")).rpartition(".")[2]
