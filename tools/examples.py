"""Render the configurations in examples/ again, as the README of each example says.

    python tools/examples.py

The README of an example has one command `extproc render ... > FILE`. If the folder has an additions.yaml, its
envoy.yaml has what the command prints and what that file lists: filters `before` and `after` the sidecar's,
`clusters`, and `routes` that replace the rendered one. Each such route is the rendered route with the fields that are
given, unless it has an answer of its own.
"""

from __future__ import annotations

import io
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import yaml

from extproc.cli.main import app
from extproc.render.commented import dump

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

_COMMAND = re.compile(r"^ *(extproc render (?:.*\\\n)*.*) > (\S+\.yaml)$", re.MULTILINE)
_HEADER = (
    "The output of the command in README.md with what additions.yaml adds: written by `make examples`.\n"
    "The reasons for the values are in ../plain-envoy/envoy.yaml."
)


def commands(folder: Path) -> dict[str, list[str]]:
    """Return the arguments of each `extproc render` in the README of an example, by the file that holds the result."""
    found = _COMMAND.findall((folder / "README.md").read_text())
    # What has additions is rendered to a file of its own, so that the command does not overwrite the finished one.
    finished = "envoy.yaml" if (folder / "additions.yaml").exists() else ""
    return {finished or file: shlex.split(command.replace("\\\n", ""))[1:] for command, file in found}


def rendered(folder: Path, arguments: list[str]) -> str:
    """Return what the file of an example has to hold. Raises ValueError if `extproc` refuses `arguments`."""
    printed, said = io.StringIO(), io.StringIO()
    given = [str(folder / each) if each == "settings.yaml" else each for each in arguments]
    with redirect_stdout(printed), redirect_stderr(said):
        status = app(given, standalone_mode=False)
    if status:
        raise ValueError(f"{folder.name}: {said.getvalue()}")
    additions = folder / "additions.yaml"
    if not additions.exists():
        return printed.getvalue()
    tree = yaml.safe_load(printed.getvalue())
    add(tree, yaml.safe_load(additions.read_text()))
    return dump(tree, header=_HEADER)


def add(bootstrap: Any, additions: Any) -> None:
    """Put `additions` into a parsed bootstrap."""
    resources = bootstrap["static_resources"]
    manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    sidecar, *others = manager["http_filters"]
    manager["http_filters"] = [*additions.get("before", ()), sidecar, *additions.get("after", ()), *others]
    (host,) = manager["route_config"]["virtual_hosts"]
    (usual,) = host["routes"]
    if "routes" in additions:
        host["routes"] = [route if "direct_response" in route else {**usual, **route} for route in additions["routes"]]
    resources["clusters"] += additions.get("clusters", ())


def main() -> None:
    """Write the files of all examples."""
    for folder in sorted(path.parent for path in EXAMPLES.glob("*/README.md")):
        for file, arguments in commands(folder).items():
            (folder / file).write_text(rendered(folder, arguments))


if __name__ == "__main__":
    main()
