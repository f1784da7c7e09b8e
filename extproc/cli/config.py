"""The `--config` option, and how a command reports problems of the settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from extproc.core.errors import SettingsError

Config = Annotated[Path | None, typer.Option("--config", help="Settings file (YAML). [env: EXTPROC_CONFIG]")]


@contextmanager
def problems_reported(status: int = 2) -> Iterator[None]:
    """Print the problems of the settings, one on each line, and exit with `status`."""
    try:
        yield
    except SettingsError as error:
        for problem in error.problems:
            typer.echo(problem, err=True)
        raise typer.Exit(status) from None
