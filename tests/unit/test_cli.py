"""The command line: what it says of itself, and of arguments that cannot be meant."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from extproc.cli import app


def test_it_tells_its_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"aim-extproc {version('aim-extproc')}\n")


@pytest.mark.parametrize("command", [(), ("serve",), ("render", "istio")])
def test_help_is_short_or_long(command: tuple[str, ...]) -> None:
    short, long = (CliRunner().invoke(app, [*command, option]) for option in ("-h", "--help"))
    assert (short.exit_code, short.output) == (0, long.output)
    assert "Usage: " in short.output
