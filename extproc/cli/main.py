"""The `extproc` command."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from extproc.core.errors import SettingsError

if TYPE_CHECKING:
    from extproc.config.settings import Settings
    from extproc.render.mesh import Place

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
render = typer.Typer(no_args_is_help=True, help="Print configuration for a data plane.")
app.add_typer(render, name="render")


class Topology(StrEnum):
    """Where the sidecar runs."""

    SERVICE = "service"
    SIDECAR = "sidecar"


class Context(StrEnum):
    """Which of Istio's Envoys are meant."""

    GATEWAY = "gateway"
    OUTBOUND = "outbound"
    INBOUND = "inbound"


Config = Annotated[Path | None, typer.Option("--config", help="Settings file (YAML). [env: EXTPROC_CONFIG]")]

Where = Annotated[Topology, typer.Option(help="A Service for all, or a unix socket in the gateway's pods.")]
Gateway = Annotated[str, typer.Option(help="The name of the Gateway to guard.")]
Namespace = Annotated[str, typer.Option(help="The Gateway's namespace, and that of its policies.")]
Service = Annotated[str, typer.Option(help="The sidecar's Service, NAME or NAME.NAMESPACE.")]
Authority = Annotated[
    str, typer.Option("--ca", help='Secret (istio) or ConfigMap with the CA of the Service\'s TLS; "" for none.')
]
ProfileName = Annotated[str, typer.Option("--profile", help="The profile of all routes that have none of their own.")]
Routes = Annotated[
    list[str] | None,
    typer.Option("--route", metavar="ROUTE=PROFILE", help="The profile of one route; may be repeated."),
]


def _print_version(asked: bool) -> None:
    if asked:
        from extproc import __version__

        typer.echo(f"aim-extproc {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run an Envoy external processor that puts Aim Security's guards on LLM traffic."""


def main() -> None:
    """Run the command that the arguments name."""
    app()


@contextmanager
def _problems(status: int = 2) -> Iterator[None]:
    """Print what is wrong with the settings, one line each, and exit with `status`."""
    try:
        yield
    except SettingsError as error:
        for problem in error.problems:
            typer.echo(problem, err=True)
        raise typer.Exit(status) from None


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Say which extra of the distribution to install where a package of it is missing; `_problems` prints that."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "extproc":
            raise
        raise SettingsError(
            [f"the package {error.name} is not installed: pip install 'aim-extproc[{name}]'"]
        ) from error


@app.command()
def serve(config: Config = None, worker: Annotated[int | None, typer.Option(hidden=True)] = None) -> None:
    """Run the sidecar until SIGTERM or SIGINT, then drain."""
    # Until there is something to reload: by default it would end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # What gRPC's core has to say it writes to standard error itself, and waits where nobody reads that: any peer whose
    # handshake fails could make it. What matters of it the sidecar says.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from extproc.config import load as settings_file
    from extproc.telemetry import metrics as telemetry

    with _problems():
        loaded = settings_file.load(config, serving=True)
        telemetry.configure_logging(loaded.log_level, worker)
        with _single_problems():
            if loaded.workers > 1 and worker is None:
                from extproc.serve import workers

                raise typer.Exit(asyncio.run(workers.supervise(loaded, config)))
            import uvloop

            from extproc.serve import server

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(server.serve(loaded, config, worker))


@contextmanager
def _single_problems() -> Iterator[None]:
    """Take wrong settings out of the groups that tasks wrap them in."""
    try:
        yield
    except BaseExceptionGroup as group:
        wrong = group.subgroup(SettingsError)
        if wrong is None:
            raise
        problems: list[str] = []
        pending: list[BaseException] = [wrong]
        while pending:
            error = pending.pop()
            if isinstance(error, SettingsError):
                problems += error.problems
            elif isinstance(error, BaseExceptionGroup):
                pending += error.exceptions
        raise SettingsError(problems) from None


@app.command()
def check(
    config: Config = None,
    envoy: Annotated[
        str | None, typer.Option(metavar="ADMIN_URL", help="Also read how the Envoy with this admin URL is wired.")
    ] = None,
) -> None:
    """Validate the settings, ask Aim one harmless question for each key, and say what is wrong."""
    from extproc import check as checking
    from extproc.config import load as settings_file

    with _problems(1):
        if envoy is not None and not envoy.startswith(("http://", "https://")):
            raise SettingsError([f"envoy: {envoy!r} is not the URL of Envoy's admin port, http://HOST:PORT"])
        findings = asyncio.run(checking.check(settings_file.load(config, serving=True), envoy))
    for finding in findings:
        typer.echo(finding)
    raise typer.Exit(any(finding.severity is checking.Severity.ERROR for finding in findings))


@render.command("envoy")
def render_envoy(
    listen: Annotated[str, typer.Option(help="Where Envoy listens, HOST:PORT.")],
    upstream: Annotated[list[str], typer.Option(help="[PREFIX=]URL; may be repeated, the longest prefix wins.")],
    admin: Annotated[str | None, typer.Option(help="Where Envoy's admin port listens, HOST:PORT.")] = None,
    allow_upgrades: Annotated[
        list[str] | None, typer.Option(metavar="PREFIX", help="Let upgrades pass UNGUARDED below this path.")
    ] = None,
    config: Config = None,
) -> None:
    """Print a complete Envoy bootstrap (YAML) that puts the sidecar before the upstreams."""
    from extproc.config.address import Address
    from extproc.render.envoy import Upstream
    from extproc.render.envoy import render_envoy as render_bootstrap

    def text(settings: Settings) -> str:
        upstreams = [Upstream.parse(item) for item in upstream]
        for item in upstreams:
            if item.path:
                typer.echo(
                    f"note: {item.prefix} becomes {item.path} after the sidecar, which knows an API by the client's "
                    "path: where that does not end as the API's own does, name it in profiles.*.paths",
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
        Context, typer.Option(help="Which Envoys: a gateway's, or one beside an app.")
    ] = Context.GATEWAY,
    selector: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=VALUE", help="The pods, where they are not the Gateway's; may be repeated."),
    ] = None,
    profile: ProfileName = "",
    route: Routes = None,
    config: Config = None,
) -> None:
    """Print the EnvoyFilter that puts the sidecar into Istio's Envoys."""
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
    config: Config = None,
) -> None:
    """Print Envoy Gateway's policies for a Gateway that the sidecar guards."""
    from extproc.render.envoy_gateway import render_envoy_gateway as render_resources

    _print_mesh(config, render_resources, namespace, gateway, service, authority, topology is Topology.SIDECAR)


@render.command("kgateway")
def render_kgateway(
    gateway: Gateway = "llm",
    namespace: Namespace = "default",
    service: Service = "aim-extproc",
    authority: Authority = "aim-extproc-ca",
    config: Config = None,
) -> None:
    """Print kgateway's extension and policies for a Gateway that the sidecar, a Service, guards."""
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
    """Print agentgateway's policies for a Gateway that the sidecar, a Service, guards."""
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
    """Print what `text` makes of the settings and the place; notes on what does not go together go to stderr."""
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
    """Print what `text` makes of the settings; its ValueError is a problem of the operator's."""
    from extproc.config import load as settings_file

    with _problems():
        loaded = settings_file.load(config)
        try:
            rendered = text(loaded)
        except ValueError as error:
            raise SettingsError([str(error)]) from None
    typer.echo(rendered, nl=False)


@app.command("local-aim")
def local_aim(
    listen: Annotated[str, typer.Option(help="HOST:PORT.")] = "127.0.0.1:8090",
    policies: Annotated[Path | None, typer.Option(help="Policies (YAML) instead of the built-in ones.")] = None,
) -> None:
    """Run a local stand-in for Aim: simple patterns for trying the sidecar, not Aim's detection."""
    from extproc.config.address import Address, unaddressed

    with _problems(), _extra("local"):
        from extproc.local_aim import policies as policy_file
        from extproc.local_aim.service import serve as serve_local_aim

    with _problems():
        try:
            address = Address.parse(listen)
            if address.path:
                raise ValueError("local-aim listens on HOST:PORT")
            loaded = policy_file.load(policies)
        except ValueError as error:
            raise SettingsError([f"listen: {error}"]) from None
        except policy_file.PoliciesError as error:
            raise SettingsError(error.problems) from None

    async def until_terminated() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        with suppress(asyncio.CancelledError):
            await serve_local_aim(address.host, address.port, loaded)

    with _problems():
        try:
            asyncio.run(until_terminated())
        except OSError as error:
            raise SettingsError([f"listen: cannot listen on {address}: {unaddressed(error)}"]) from None


@app.command()
def demo(
    once: Annotated[bool, typer.Option(help="End after the scenes; non-zero if anything went wrong.")] = False,
    upstream: Annotated[str | None, typer.Option(help="A real provider instead of the demo model.")] = None,
) -> None:
    """Show the main job on this machine: prompts and streams allowed, blocked and redacted through a real Envoy."""
    with _problems(), _extra("demo"):
        from extproc.demo.show import run

    with _problems():
        raise typer.Exit(asyncio.run(run(once=once, upstream=upstream)))
