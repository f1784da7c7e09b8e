"""Runs `helm` and `kubectl`, from .venv (`make helm`) or the PATH, on the chart and the kustomize base."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "aim-extproc"


def _found(command: str) -> str | None:
    return shutil.which(command, path=str(Path(sys.executable).parent)) or shutil.which(command)


HELM, KUBECTL = _found("helm"), _found("kubectl")

needs_helm = pytest.mark.skipif(HELM is None or KUBECTL is None, reason="no helm or kubectl here: make helm")


class HelmFailed(Exception):
    """Helm refused the chart or the values; the message is Helm's."""


def helm(*arguments: str, values: dict[str, Any] | None = None) -> str:
    """Run helm with `values` over the chart's own and return what it prints; raises HelmFailed."""
    options = () if values is None else ("--values", "-")
    done = subprocess.run(
        [str(HELM), *arguments, *options],
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
    return _by_name(text)


def kustomize(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the resources that `kubectl kustomize` builds of a folder, by `Kind/name`."""
    done = subprocess.run(
        [str(KUBECTL), "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=True
    )
    return _by_name(done.stdout)


def _by_name(text: str) -> dict[str, dict[str, Any]]:
    documents = [document for document in yaml.safe_load_all(text) if document]
    return {f"{document['kind']}/{document['metadata']['name']}": document for document in documents}


def kubectl_patch(resource: dict[str, Any], patch: str) -> dict[str, Any]:
    """Return `resource` after a strategic merge of `patch`, without a cluster."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "resource.yaml").write_text(yaml.safe_dump(resource))
        (Path(folder) / "patch.yaml").write_text(patch)
        done = subprocess.run(
            [str(KUBECTL), "patch", "--local", "-f", "resource.yaml", "--patch-file", "patch.yaml", "-o", "yaml"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    found = yaml.safe_load(done.stdout)
    assert isinstance(found, dict)
    return found
