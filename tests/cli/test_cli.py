"""The command line: version, help and invalid arguments."""

from __future__ import annotations

import socket
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
