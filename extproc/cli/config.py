"""What the commands share: the `--config` option, and how they report problems of the settings and missing extras."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from extproc.core.errors import SettingsError

_SLOW_SECONDS = 5.0
"""Reading the settings usually takes milliseconds."""

Config = Annotated[
    Path | None, typer.Option("--config", help="Settings file (YAML). Default: the file that EXTPROC_CONFIG names.")
]


@contextmanager
def problems_reported(status: int = 2) -> Iterator[None]:
    """Print the problems of the settings, one on each line, and exit with `status`."""
    try:
        yield
    except SettingsError as error:
        for problem in error.problems:
            typer.echo(problem, err=True)
        raise typer.Exit(status) from None


@contextmanager
def slowness_told() -> Iterator[None]:
    """Say so if reading the settings takes long: a file on a mount that is lost hangs for ever."""
    what = "still reading the settings and the files that they name, such as keys; one of them may hang"
    timer = threading.Timer(_SLOW_SECONDS, typer.echo, (what,), {"err": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def needs_extra(name: str) -> Iterator[None]:
    """Name the extra of the distribution to install if a package of it is missing; `problems_reported` prints that."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "extproc":
            raise
        raise SettingsError(
            [f"the package {error.name} is not installed: pip install 'aim-extproc[{name}]'"]
        ) from error
