"""Checks the ext_proc filter itself: what it sends, holds and lets the sidecar change."""

from __future__ import annotations

import re
from collections.abc import Iterator

from extproc.check.filters import Filter
from extproc.check.finding import Finding, actionable, error, warning
from extproc.check.mesh import Mesh, Setting
from extproc.check.node import Node, path, seconds
from extproc.config.profile import PROFILE_METADATA, Profile
from extproc.config.settings import Settings
from extproc.core.identity import Source
from extproc.core.vocabulary import CALL_ID_HEADER
from extproc.render.ext_proc import METADATA_NAMESPACE, message_timeout

_DEFAULT_TIMEOUT_SECONDS = 0.2

# Headers that the sidecar sets or removes: one for each kind in the rendered rule.
_CHANGED = (
    "accept-encoding",
    "content-length",
    "content-encoding",
    "content-type",
    "content-md5",
    "digest",
    "repr-digest",
    "etag",
    "x-amzn-errortype",
    "x-should-retry",
    "x-aim-user-email",
    "x-cato-user-email",
    CALL_ID_HEADER,
)

_BODY_MODES = {
    "request": ("BUFFERED", "FULL_DUPLEX_STREAMED"),
    "response": ("FULL_DUPLEX_STREAMED",),
}


def check_processor(settings: Settings, mesh: Mesh, processor: Filter, where: str) -> Iterator[Finding]:
    """Yield findings about the filter's own configuration, without those that `mesh` does not let anyone act on."""
    config = processor.config
    where = f"{where}, filter {processor.name}"
    if not processor.cluster:
        yield error(where, "its server is not a gRPC cluster", "set grpc_service.envoy_grpc.cluster_name")
    if config.get("failure_mode_allow"):
        yield error(where, "without a sidecar everything passes unguarded", "set failure_mode_allow: false")
    if config.get("observability_mode"):
        yield error(where, "it only observes: nothing is held, blocked or redacted", "set observability_mode: false")
    if config.get("disable_immediate_response"):
        yield error(where, "the sidecar cannot refuse anything", "set disable_immediate_response: false")
    if config.get("allow_mode_override"):
        yield warning(
            where, "the processing modes can be changed, which may bypass the sidecar", "set allow_mode_override: false"
        )
    if config.get("forward_rules"):
        yield warning(
            where,
            "forward_rules keep headers from the sidecar, which needs :method, :path, :status, content-* and those "
            "that profiles read",
            "remove forward_rules",
        )
    if config.get("route_cache_action") == "CLEAR":
        yield warning(where, "Envoy chooses the route again after the sidecar", "set route_cache_action: RETAIN")
    if processor.is_conditional:
        yield warning(
            where, "a matcher selects the requests that it guards; the others pass unguarded", "remove the matcher"
        )
    if path(config, "status_on_error", "code") != "ServiceUnavailable":
        advice = mesh.advice(Setting.STATUS, "set status_on_error: {code: ServiceUnavailable}")
        yield from actionable(warning, where, "without a sidecar clients get 500", advice)
    yield from check_modes(path(config, "processing_mode") or {}, where)
    yield from _timeouts(settings, config, where)
    yield from _attributes(settings, config.get("request_attributes", ()), where)
    yield from _metadata(settings, mesh, config, where)
    yield from _mutations(mesh, config.get("mutation_rules"), where)
    yield from check_profile(settings, path(config, "grpc_service", "initial_metadata") or (), where)


def check_modes(modes: Node, where: str) -> Iterator[Finding]:
    """Yield findings about processing modes."""
    for leg, known in _BODY_MODES.items():
        headers, body = modes.get(f"{leg}_header_mode", "DEFAULT"), modes.get(f"{leg}_body_mode", "NONE")
        trailers = modes.get(f"{leg}_trailer_mode", "DEFAULT")
        if headers == "SKIP":
            yield error(where, f"the {leg}'s headers are not sent", f"set processing_mode.{leg}_header_mode: SEND")
        if body not in known:
            yield error(
                where,
                f"the {leg}'s body is sent as {body}, which the sidecar refuses",
                f"set processing_mode.{leg}_body_mode: {known[0]}",
            )
        if body == "FULL_DUPLEX_STREAMED" and trailers != "SEND":
            yield error(
                where,
                f"the {leg}'s trailers are not sent, which full duplex needs",
                f"set processing_mode.{leg}_trailer_mode: SEND",
            )


def check_profile(settings: Settings, metadata: object, where: str) -> Iterator[Finding]:
    """Yield findings about the profile that `metadata`, gRPC initial metadata, names."""
    for entry in metadata if isinstance(metadata, list) else ():
        if entry.get("key") == PROFILE_METADATA and entry.get("value") not in settings.profiles:
            yield error(
                where,
                f"the profile {entry.get('value')!r} is not in the settings: every exchange is refused",
                f"name one of {', '.join(settings.profiles)}",
            )


def _timeouts(settings: Settings, config: Node, where: str) -> Iterator[Finding]:
    limit = seconds(config.get("message_timeout"), _DEFAULT_TIMEOUT_SECONDS)
    is_held = path(config, "processing_mode", "request_body_mode") == "BUFFERED"
    if is_held and limit <= settings.aim.timeout_seconds:
        yield error(
            where,
            f"Envoy waits {limit:g} s for a verdict, but Aim may take {settings.aim.timeout_seconds:g} s",
            f"set message_timeout: {message_timeout(settings)}",
        )


def _attributes(settings: Settings, sent: object, where: str) -> Iterator[Finding]:
    known = set(sent) if isinstance(sent, list) else set()
    for name, profile in settings.profiles.items():
        wanted = [source.name for source in _sources(profile) if source.kind == "attribute"]
        if profile.routes:
            wanted.append("xds.route_name")
        for attribute in dict.fromkeys(wanted):
            if attribute not in known:
                yield error(
                    where,
                    f"the attribute {attribute}, which profile {name} reads, is not sent",
                    f"add it to request_attributes: {', '.join([*sorted(known), attribute])}",
                )


def _metadata(settings: Settings, mesh: Mesh, config: Node, where: str) -> Iterator[Finding]:
    options = config.get("metadata_options", {})
    forwarded = {*(path(options, "forwarding_namespaces", "untyped") or ())}
    for name, profile in settings.profiles.items():
        wanted = {source.name.split("/")[0] for source in _sources(profile) if source.kind == "metadata"}
        for namespace in sorted(wanted - forwarded):
            yield error(
                where,
                f"the metadata {namespace}, which profile {name} reads, is not forwarded",
                "add it to metadata_options.forwarding_namespaces.untyped",
            )
    if METADATA_NAMESPACE not in (path(options, "receiving_namespaces", "untyped") or ()):
        usual = f"add {METADATA_NAMESPACE} to metadata_options.receiving_namespaces.untyped"
        advice = mesh.advice(Setting.METADATA, usual, METADATA_NAMESPACE)
        yield from actionable(warning, where, "the access log cannot show verdicts", advice)


def _mutations(mesh: Mesh, rules: Node | None, where: str) -> Iterator[Finding]:
    if rules is None:
        advice = mesh.advice(Setting.MUTATIONS, "set mutation_rules, as `extproc render envoy` does")
        yield from actionable(warning, where, "the sidecar may change any header", advice)
        return
    allowed = path(rules, "allow_expression", "regex")
    denied = path(rules, "disallow_expression", "regex")
    refused = [
        name
        for name in _CHANGED
        if (denied and re.fullmatch(denied, name))
        or (rules.get("disallow_all") and not (allowed and re.fullmatch(allowed, name)))
    ]
    if refused:
        yield error(
            where,
            f"the sidecar may not change {', '.join(refused)}",
            "set mutation_rules, as `extproc render envoy` does",
        )


def _sources(profile: Profile) -> Iterator[Source]:
    yield from (*profile.user_email, *profile.session_id, *profile.key_alias)
