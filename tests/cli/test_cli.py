"""The command line: what it says of itself, and of arguments that cannot be meant."""

from __future__ import annotations

import socket
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from extproc.cli.main import app


def test_it_tells_its_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"aim-extproc {version('aim-extproc')}\n")


@pytest.mark.parametrize("command", [(), ("serve",), ("render", "istio")])
def test_help_is_short_or_long(command: tuple[str, ...]) -> None:
    short, long = (CliRunner().invoke(app, [*command, option]) for option in ("-h", "--help"))
    assert (short.exit_code, short.output) == (0, long.output)
    assert "Usage: " in short.output


@pytest.mark.parametrize(
    ("arguments", "status", "problem"),
    [
        (("serve", "--config", ""), 2, "config: it has to name a file"),
        (("check", "--config", ""), 1, "config: it has to name a file"),
        (("check", "--envoy", "foo"), 1, "envoy: 'foo' is not the URL of Envoy's admin port, http://HOST:PORT"),
    ],
)
def test_arguments_that_cannot_be_meant_are_problems(arguments: tuple[str, ...], status: int, problem: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.output) == (status, f"{problem}\n")


def test_an_address_in_use_is_named_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = CliRunner().invoke(app, ["local-aim", "--listen", address])
    assert (result.exit_code, result.output) == (2, f"listen: cannot listen on {address}: Address already in use\n")
