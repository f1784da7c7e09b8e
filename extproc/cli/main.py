"""The `extproc` command: its options, and every command except `extproc render`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from extproc.cli.config import Config, needs_extra, problems_reported, slowness_told
from extproc.cli.render import render
from extproc.core.errors import SettingsError

_GRPC_EXPERIMENTS = "-event_engine_listener,-event_engine_client,-event_engine_for_all_other_endpoints"
"""gRPC's older poller: its newer one passes each message from thread to thread, which costs an eighth of the CPU."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(render, name="render")


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
    """Run the command given by the arguments."""
    _open_standard_files()
    app()


def _open_standard_files() -> None:
    """Open what the caller has closed of standard input, output and error: a socket must not get their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest free number


@app.command()
def serve(config: Config = None, worker: Annotated[int | None, typer.Option(hidden=True)] = None) -> None:
    """Run the sidecar until SIGTERM or SIGINT, then drain."""
    # Ignored until there is something to reload, because by default this signal ends the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.environ.setdefault("GRPC_EXPERIMENTS", _GRPC_EXPERIMENTS)
    from extproc.config import load as settings_file
    from extproc.telemetry.logs import configure_logging

    with problems_reported():
        is_outdated = _never
        if worker is None:
            with slowness_told():
                loaded = settings_file.load(config, serving=True)
        else:
            from extproc.serve.accepted import Accepted

            accepted = Accepted.by_supervisor(config)
            loaded, is_outdated = accepted.settings(), accepted.is_outdated
        with _single_problems():
            if loaded.workers > 1 and worker is None:
                from extproc.serve import supervisor

                configure_logging(loaded.log_level)
                raise typer.Exit(asyncio.run(supervisor.supervise(config)))
            with _grpc_logged(loaded.log_level, worker):
                import uvloop

                from extproc.serve import server

                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    runner.run(server.serve(loaded, config, worker, is_outdated))


def _never() -> bool:
    return False


@contextmanager
def _grpc_logged(level: str, worker: int | None) -> Iterator[None]:
    """Configure logging, and log what gRPC's core says. After an error, standard error leads to its reader again."""
    from extproc.telemetry import grpc_log
    from extproc.telemetry.logs import configure_logging

    os.environ.setdefault("GRPC_VERBOSITY", grpc_log.VERBOSITY)
    if sys.stderr is None:
        configure_logging(level, worker)
        yield
        return
    diversion = grpc_log.Diversion()
    diversion.start(configure_logging(level, worker, diversion.descriptor))
    try:
        yield
    except BaseException:
        diversion.end()
        raise


@contextmanager
def _single_problems() -> Iterator[None]:
    """Unwrap SettingsErrors from the exception groups of tasks."""
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
        str | None,
        typer.Option(metavar="ADMIN_URL", help="Also check the Envoy whose admin port has this URL."),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Also find out how Aim behaves, with a few more harmless questions for each key."),
    ] = False,
) -> None:
    """Check the settings, the network to Aim and every key. Each key is used for one harmless question."""
    from extproc import check as checking
    from extproc.config import load as settings_file

    with problems_reported(1):
        if envoy is not None and not envoy.startswith(("http://", "https://")):
            raise SettingsError([f"envoy: {envoy!r} is not the URL of Envoy's admin port, http://HOST:PORT"])
        with slowness_told():
            settings = settings_file.load(config, serving=True)
        findings = asyncio.run(checking.check(settings, envoy, probes=probe))
    for finding in findings:
        typer.echo(finding)
    raise typer.Exit(any(finding.severity is checking.Severity.ERROR for finding in findings))


@app.command()
def report(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE...]", help="Audit files, plain or gzip; - is stdin.")
    ] = None,
    audit: Annotated[list[str] | None, typer.Option(metavar="FILE", help="The same as FILE; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    since: Annotated[
        datetime | None, typer.Option(help="Only count from this time on; UTC, unless it has an offset such as +02:00.")
    ] = None,
) -> None:
    """Say what was, or in a dry run would have been, blocked and redacted, from the lines of the audit log."""
    from extproc.core.content import json_codec
    from extproc.report import shown, source
    from extproc.report.tally import Tally

    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=UTC)
    tally = Tally(since=since)
    with problems_reported():
        named = [*(audit or ()), *(files or ())]
        if not named:
            raise SettingsError(["audit: name at least one file of the audit log, or - for standard input"])
        for file in named:
            with source.opened(file) as stream:
                for number, line in enumerate(source.lines(stream), 1):
                    tally.add(file, number, line)
    if as_json:
        typer.echo(json_codec.encode(shown.as_json(tally)))
    else:
        shown.show(tally)


@app.command("local-aim")
def local_aim(
    listen: Annotated[str, typer.Option(help="The address on which it listens, HOST:PORT.")] = "127.0.0.1:8090",
    policies: Annotated[
        Path | None, typer.Option(help="Policies file (YAML). It replaces the built-in policies.")
    ] = None,
) -> None:
    """Run a local stand-in for Aim, to try the sidecar. It only matches simple patterns."""
    from extproc.config.address import Address, unaddressed

    with problems_reported(), needs_extra("local"):
        from extproc.local_aim import policies as policy_file
        from extproc.local_aim.service import serve as serve_local_aim

    with problems_reported():
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

    with problems_reported():
        try:
            asyncio.run(until_terminated())
        except OSError as error:
            raise SettingsError([f"listen: cannot listen on {address}: {unaddressed(error)}"]) from None


@app.command()
def demo(
    once: Annotated[bool, typer.Option(help="Exit after the scenes; the status is not 0 if one went wrong.")] = False,
    upstream: Annotated[
        str | None, typer.Option(metavar="URL", help="The URL of a provider to use instead of the demo model.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The port for clients, on 127.0.0.1. Default: a free one.")
    ] = None,
) -> None:
    """Run the sidecar behind a real Envoy, and show how it allows, blocks and redacts.

    With --upstream or --port, unless --once is given, it shows nothing: it is a guarded gateway for your own client.
    """
    with problems_reported(), needs_extra("demo"):
        from extproc.demo.show import run

    with problems_reported():
        raise typer.Exit(asyncio.run(run(once=once, upstream=upstream, port=port)))
