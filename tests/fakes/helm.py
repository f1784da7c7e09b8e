"""The command `helm`, from .venv (`make helm`) or the PATH, and what it makes of the chart."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "aim-extproc"
BINARY = shutil.which("helm", path=str(Path(sys.executable).parent)) or shutil.which("helm")

needs_helm = pytest.mark.skipif(BINARY is None, reason="no helm here: make helm")


class HelmFailed(Exception):
    """Helm refused the chart or the values; the message is what it said."""


def helm(*arguments: str, values: dict[str, Any] | None = None) -> str:
    """Run helm with `values` over the chart's own and return what it prints; raises HelmFailed."""
    options = () if values is None else ("--values", "-")
    done = subprocess.run(
        [str(BINARY), *arguments, *options],
        input=yaml.safe_dump(values or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise HelmFailed(done.stderr + done.stdout)
    return done.stdout


def template(release: str = "aim-extproc", **values: Any) -> dict[str, dict[str, Any]]:
    """Return the chart's resources by `Kind/name`; raises HelmFailed."""
    text = helm("template", release, str(CHART), "--namespace", "guards", values=values)
    documents = [document for document in yaml.safe_load_all(text) if document]
    return {f"{document['kind']}/{document['metadata']['name']}": document for document in documents}
