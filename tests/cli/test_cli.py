"""The command line: version, help and invalid arguments."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from extproc.cli.main import app


def test_version_option_prints_the_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"aim-extproc {version('aim-extproc')}\n")


@pytest.mark.parametrize("command", [(), ("serve",), ("render", "istio")])
def test_help_has_a_short_and_a_long_option(command: tuple[str, ...]) -> None:
    short, long = (CliRunner().invoke(app, [*command, option]) for option in ("-h", "--help"))
    assert (short.exit_code, short.output) == (0, long.output)
    assert "Usage: " in short.output


@pytest.mark.parametrize(
    ("arguments", "status", "problem"),
    [
        (("serve", "--config", ""), 2, "config: must name a file"),
        (("check", "--config", ""), 1, "config: must name a file"),
        (("check", "--envoy", "foo"), 1, "envoy: 'foo' is not the URL of Envoy's admin port, http://HOST:PORT"),
    ],
)
def test_invalid_arguments_are_reported_as_problems(arguments: tuple[str, ...], status: int, problem: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.output) == (status, f"{problem}\n")


def test_address_in_use_is_reported_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = CliRunner().invoke(app, ["local-aim", "--listen", address])
    assert (result.exit_code, result.output) == (2, f"listen: cannot listen on {address}: Address already in use\n")


def without(package: str, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run the command where `package` is not installed; return its status and standard error."""
    code = f"import sys; sys.modules[{package!r}] = None; from extproc.cli.main import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], env={**os.environ, **environment}, capture_output=True, text=True
    )
    return result.returncode, result.stderr


@pytest.mark.parametrize(
    ("package", "command", "extra"), [("regex", "local-aim", "local"), ("phonenumbers", "demo", "demo")]
)
def test_command_names_the_extra_that_it_needs(package: str, command: str, extra: str) -> None:
    problem = f"the package {package} is not installed: pip install 'aim-extproc[{extra}]'\n"
    assert without(package, command) == (2, problem)


@pytest.mark.parametrize("signal", ["TRACES", "METRICS"])
def test_serving_names_the_extra_that_an_export_needs(signal: str) -> None:
    status, errors = without(
        "opentelemetry", "serve", AIM_API_KEY="k", EXTPROC_ADMIN="", **{f"OTEL_{signal}_EXPORTER": "otlp"}
    )
    problem = "environment: OTEL_... asks for OpenTelemetry, which is not installed: pip install 'aim-extproc[otel]'"
    assert (status, errors.splitlines()[-1]) == (2, problem)
