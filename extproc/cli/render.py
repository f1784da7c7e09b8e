"""The commands `extproc render ...`: print configuration for a data plane."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from extproc.cli.config import Config, problems_reported
from extproc.core.errors import SettingsError

if TYPE_CHECKING:
    from extproc.config.settings import Settings
    from extproc.render.mesh import Place

render = typer.Typer(no_args_is_help=True, help="Print configuration for Envoy or a mesh.")


class Topology(StrEnum):
    """Where the sidecar runs."""

    SERVICE = "service"
    SIDECAR = "sidecar"


class Context(StrEnum):
    """Which of Istio's Envoys get the sidecar."""

    GATEWAY = "gateway"
    OUTBOUND = "outbound"
    INBOUND = "inbound"
    WAYPOINT = "waypoint"


Where = Annotated[
    Topology, typer.Option(help="The sidecar runs as a Service, or in the gateway's pods on a unix socket.")
]
Gateway = Annotated[str, typer.Option(help="The name of the Gateway to guard.")]
Namespace = Annotated[str, typer.Option(help="The namespace of the Gateway and its policies.")]
Service = Annotated[str, typer.Option(help="The sidecar's Service, NAME or NAME.NAMESPACE.")]
Authority = Annotated[
    str,
    typer.Option(
        "--ca",
        help='The Secret (Istio, kgateway) or ConfigMap with the CA of the Service\'s certificate; "" for no TLS.',
    ),
]
ProfileName = Annotated[str, typer.Option("--profile", help="The profile of all routes that --route does not name.")]
Routes = Annotated[
    list[str] | None,
    typer.Option("--route", metavar="ROUTE=PROFILE", help="The profile of one route; may be repeated."),
]


@render.command("envoy")
def render_envoy(
    listen: Annotated[str, typer.Option(help="The address on which Envoy listens, HOST:PORT.")],
    upstream: Annotated[
        list[str],
        typer.Option(help="A provider: URL or PREFIX=URL. May be repeated; the longest matching prefix wins."),
    ],
    admin: Annotated[
        str | None, typer.Option(help="The address of Envoy's admin port, HOST:PORT. Default: no admin port.")
    ] = None,
    allow_upgrades: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PREFIX", help="Allow upgrades on paths with this prefix; may be repeated. They pass UNGUARDED."
        ),
    ] = None,
    config: Config = None,
) -> None:
    """Print a complete Envoy bootstrap (YAML) with the sidecar in front of the upstreams."""
    from extproc.config.address import Address
    from extproc.render.envoy import Upstream
    from extproc.render.envoy import render_envoy as render_bootstrap

    def text(settings: Settings) -> str:
        upstreams = [Upstream.parse(item) for item in upstream]
        for item in upstreams:
            if item.path:
                typer.echo(
                    f"note: Envoy rewrites {item.prefix} to {item.path} after the sidecar, which finds the API by the "
                    "client's path: if that does not end like the API's own path, add it to profiles.*.paths",
                    err=True,
                )
        return render_bootstrap(
            settings,
            listen=Address.parse(listen),
            upstreams=upstreams,
            admin=Address.parse(admin) if admin else None,
            allow_upgrades=allow_upgrades or (),
        )

    _print_rendered(config, text)


@render.command("istio")
def render_istio(
    topology: Where = Topology.SERVICE,
    gateway: Gateway = "llm",
    namespace: Namespace = "default",
    service: Service = "aim-extproc",
    authority: Authority = "aim-extproc-ca",
    context: Annotated[
        Context,
        typer.Option(help="The Envoys that get the sidecar: of a gateway, of apps, or of a waypoint (ambient mode)."),
    ] = Context.GATEWAY,
    selector: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=VALUE", help="A label of the pods, if they are not the Gateway's own; may be repeated."
        ),
    ] = None,
    profile: ProfileName = "",
    route: Routes = None,
    config: Config = None,
) -> None:
    """Print the EnvoyFilter that adds the sidecar to Istio's Envoys."""
    from extproc.render import istio, mesh

    def text(settings: Settings, place: Place) -> str:
        return istio.render_istio(
            settings,
            place,
            context=context.value,
            labels=mesh.labels(selector or []),
            profile=mesh.known_profile(settings, profile),
            routes=mesh.profiles_of_routes(settings, route or []),
        )

    _print_mesh(config, text, namespace, gateway, service, authority, topology is Topology.SIDECAR)


@render.command("envoy-gateway")
def render_envoy_gateway(
    topology: Where = Topology.SERVICE,
    gateway: Gateway = "llm",
    namespace: Namespace = "default",
    service: Service = "aim-extproc",
    authority: Authority = "aim-extproc-ca",
    ai_gateway: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LISTENER",
            help="Envoy AI Gateway runs on this listener of the Gateway: put the sidecar in front of it. May be "
            "repeated.",
        ),
    ] = None,
    config: Config = None,
) -> None:
    """Print the policies that add the sidecar to a Gateway of Envoy Gateway."""
    from extproc.render.envoy_gateway import render_envoy_gateway as render_resources

    def text(settings: Settings, place: Place) -> str:
        return render_resources(settings, place, ai_gateway=ai_gateway or ())

    _print_mesh(config, text, namespace, gateway, service, authority, topology is Topology.SIDECAR)


@render.command("kgateway")
def render_kgateway(
    gateway: Gateway = "llm",
    namespace: Namespace = "default",
    service: Service = "aim-extproc",
    authority: Authority = "aim-extproc-ca",
    config: Config = None,
) -> None:
    """Print the extension and policies that add the sidecar, as a Service, to kgateway."""
    from extproc.render.kgateway import render_kgateway as render_resources

    _print_mesh(config, render_resources, namespace, gateway, service, authority)


@render.command("agentgateway")
def render_agentgateway(
    gateway: Gateway = "llm",
    namespace: Namespace = "default",
    service: Service = "aim-extproc",
    authority: Authority = "aim-extproc-ca",
    profile: ProfileName = "",
    route: Routes = None,
    config: Config = None,
) -> None:
    """Print the policies that add the sidecar, as a Service, to agentgateway."""
    from extproc.render import agentgateway, mesh

    def text(settings: Settings, place: Place) -> str:
        return agentgateway.render_agentgateway(
            settings,
            place,
            profile=mesh.known_profile(settings, profile),
            routes=mesh.profiles_of_routes(settings, route or []),
        )

    _print_mesh(config, text, namespace, gateway, service, authority)


def _print_mesh(
    config: Path | None,
    text: Callable[[Settings, Place], str],
    namespace: str,
    gateway: str,
    service: str,
    authority: str,
    sidecar: bool = False,
) -> None:
    """Print `text` of the settings and the place; warnings about contradictions go to stderr."""
    from extproc.config.load import config_path
    from extproc.render import mesh

    def noted(settings: Settings) -> str:
        place = mesh.Place(namespace, gateway, service, authority, sidecar)
        rendered = text(settings, place)
        for note in mesh.notes(settings, place, given=config_path(config) is not None):
            typer.echo(f"note: {note}", err=True)
        return rendered

    _print_rendered(config, noted)


def _print_rendered(config: Path | None, text: Callable[[Settings], str]) -> None:
    """Print `text` of the settings; report its ValueError as a problem."""
    from extproc.config import load as settings_file

    with problems_reported():
        loaded = settings_file.load(config)
        try:
            rendered = text(loaded)
        except ValueError as error:
            raise SettingsError([str(error)]) from None
    typer.echo(rendered, nl=False)
