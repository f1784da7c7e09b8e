"""Reads HTTP filters: plain ones, those that a matcher wraps, and what routes say about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from extproc.check.node import Node, messages, path, type_of

PROCESSOR = "ExternalProcessor"
_MATCHED = "ExtensionWithMatcher"
_COMPOSITE = "Composite"
_RUN = "ExecuteFilterAction"
_DYNAMIC_METADATA = "DynamicMetadataInput"

_AI_GATEWAY_FILTER = "envoy.filters.http.ext_proc/aigateway"
_AI_GATEWAY_CLUSTER = "ai-gateway-extproc-uds"


@dataclass(frozen=True, slots=True)
class Filter:
    """One HTTP filter: its name, the last part of its configuration's type, and the configuration.

    A filter that a matcher wraps has the name of the wrapper and the configuration of what is wrapped. `switch` is the
    metadata namespace that turns it off; `is_conditional` says that a matcher selects the requests in another way.
    """

    name: str
    type: str
    config: Node
    is_disabled: bool = False
    switch: str = ""
    is_conditional: bool = False

    @property
    def cluster(self) -> str:
        """The cluster of an ext_proc filter's server; empty for other filters."""
        return str(path(self.config, "grpc_service", "envoy_grpc", "cluster_name") or "")

    @property
    def is_ai_gateway(self) -> bool:
        """Whether this is a filter of Envoy AI Gateway."""
        return self.type == PROCESSOR and (self.name == _AI_GATEWAY_FILTER or self.cluster == _AI_GATEWAY_CLUSTER)


def read_filters(entries: Sequence[Node], extensions: Mapping[str, Node]) -> Iterator[Filter]:
    """Yield the filters of a chain; `extensions` are those that come from extension discovery, by name."""
    for entry in entries:
        name = entry.get("name", "")
        config = entry.get("typed_config") or extensions.get(name, {}).get("typed_config", {})
        is_disabled = bool(entry.get("disabled"))
        wrapped = list(_wrapped(config))
        if not wrapped:
            yield Filter(name, type_of(config), config, is_disabled)
            continue
        switch = _switch(config)
        for each in wrapped:
            yield Filter(name, type_of(each), each, is_disabled, switch, is_conditional=not switch)


def _wrapped(config: Node) -> Iterator[Node]:
    """Yield the configurations of the filters that `config` wraps."""
    inner = path(config, "extension_config", "typed_config") if type_of(config) == _MATCHED else config
    if type_of(inner) == _COMPOSITE:
        for action in messages(config, _RUN):
            chain = list(path(action, "filter_chain", "typed_config") or ())
            single = [action["typed_config"]] if "typed_config" in action else []
            yield from (extension.get("typed_config", {}) for extension in single + chain)
    elif type_of(config) == _MATCHED and inner:
        yield inner


def _switch(config: Node) -> str:
    """Return the metadata namespace that turns the wrapped filter off; empty if the matcher selects in another way."""
    matchers = list(path(config, "xds_matcher", "matcher_list", "matchers") or ())
    if len(matchers) != 1:
        return ""
    single = path(matchers[0], "predicate", "single_predicate")
    given = path(single, "input", "typed_config")
    is_inverted = path(single, "custom_match", "typed_config", "invert")
    return str(given.get("filter", "")) if type_of(given) == _DYNAMIC_METADATA and is_inverted else ""


def override(scopes: Sequence[Node], name: str) -> Node:
    """Return what the innermost of `scopes` says about the filter `name`: an ExtProcPerRoute or FilterConfig."""
    for scope in reversed(scopes):
        found = path(scope, "typed_per_filter_config", name)
        if isinstance(found, Mapping):
            inner = found.get("config")
            return {**(inner if isinstance(inner, Mapping) else {}), **found}
    return {}


def off_because(scopes: Sequence[Node], filters: Sequence[Filter], each: Filter) -> str:
    """Return why the filter `each` of the chain `filters` does not run on a route; empty if it runs.

    The answer is advice: what to change. `scopes` apply to the route, from the outermost in.
    """
    said = override(scopes, each.name)
    if said.get("disabled"):
        return f"remove disabled: true for {each.name}"
    if each.is_disabled and not said:
        return f"enable {each.name} here"
    for other in filters:
        sets = each.switch and each.switch in _namespaces(other.config)
        if sets and not off_because(scopes, [], other):
            return f"turn {other.name} off here, which turns it off"
    return ""


def _namespaces(config: Node) -> set[str]:
    """Return the namespaces that a set_metadata filter writes."""
    written = config.get("metadata", ())
    return {each.get("metadata_namespace", "") for each in written if isinstance(each, Mapping)}
