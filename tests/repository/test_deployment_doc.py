"""The guides: code and chart accept their settings, values and commands."""

from __future__ import annotations

import re
import shlex
import textwrap
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from extproc.cli.main import app
from extproc.config.settings import Settings
from tests.fakes.helm import CHART, helm, kustomize, needs_helm, template

ROOT = Path(__file__).parents[2]
LOCAL_CHART = CHART.relative_to(ROOT)
PAGES = ("deployment.md", "getting-started.md", "meshes.md", "operations.md", "upgrade.md")


def fenced(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text()
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for block in found]


def commands(page: str, name: str) -> list[list[str]]:
    """Return the arguments of each command `name` of the page's shell blocks, up to a pipe or a redirection."""
    found = []
    for block in fenced(page, "sh"):
        block = re.sub(r"\\\n", " ", block)
        variables = dict(re.findall(r"^(\w+)='(.*)'$", block, flags=re.MULTILINE))
        for line in re.findall(rf"^{name} .*$", block, flags=re.MULTILINE):
            for variable, value in variables.items():
                line = line.replace(f"${variable}", value)
            words = shlex.split(line, comments=True)
            end = next((place for place, word in enumerate(words) if word in ("|", ">", "&")), len(words))
            found.append(words[1:end])
    return found


def values(page: str) -> list[dict[str, Any]]:
    """Return the page's YAML blocks that are values of the chart."""
    return [block for text in fenced(page, "yaml") if "settings" in (block := yaml.safe_load(text))]


RENDERED = [(page, words) for page in PAGES for words in commands(page, "extproc") if words[0] == "render"]


@pytest.mark.parametrize(("page", "words"), RENDERED, ids=lambda value: value if isinstance(value, str) else value[1])
def test_documented_commands_print_resources(page: str, words: list[str], tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("profiles: {acme: {}, globex: {}}\ntls: {cert_file: /c, key_file: /k}\nlisten: 0.0.0.0:50051\n")
    result = CliRunner().invoke(app, [str(settings) if word == "settings.yaml" else word for word in words])
    assert result.exit_code == 0, result.output
    assert list(yaml.safe_load_all(result.stdout))


def test_documented_commands_without_tls_render() -> None:
    # Split as the shell splits $where: quotes inside it would stay.
    (where,) = re.findall(r"^where='(.*)'$", "\n".join(fenced("getting-started.md", "sh")), flags=re.MULTILINE)
    result = CliRunner().invoke(app, ["render", "istio", *where.split(), "--ca="])
    assert result.exit_code == 0, result.output
    assert "in the clear" in result.stdout


def test_documented_values_are_valid_settings() -> None:
    keys, routes, models = [Settings(**block["settings"]).profiles.keys() for block in values("deployment.md")]
    assert {"acme", "globex"} <= keys & routes
    assert {"strict", "relaxed"} <= models


@needs_helm
@pytest.mark.parametrize("block", values("deployment.md"), ids=["keys", "routes", "models"])
def test_chart_accepts_documented_values(block: dict[str, Any]) -> None:
    assert "ConfigMap/aim-extproc" in template(**block)


@needs_helm
@pytest.mark.parametrize("page", ["deployment.md", "getting-started.md"])
def test_documented_command_installs_the_chart(page: str) -> None:
    words, *others = [words for words in commands(page, "helm") if "install" in words and str(LOCAL_CHART) in words]
    place = words.index("install")
    assert words[place + 1 : place + 3] == ["aim-extproc", str(LOCAL_CHART)]
    rest = words[place + 3 :]
    printed = helm("template", "aim-extproc", str(CHART), *words[:place], *rest)
    assert f"REGISTRY/aim-extproc:{version('aim-extproc')}" in printed
    assert "secretName: aim-extproc-tls" in printed
    assert "kubernetes.io/metadata.name: default" in printed
    assert [each[each.index(str(LOCAL_CHART)) + 1 :] for each in others] in ([], [["--set", "mode=sidecar"]])


@needs_helm
def test_documented_chart_values_exist() -> None:
    for page in (*PAGES, "faq.md"):
        text = (ROOT / "docs" / page).read_text()
        for assigned in re.findall(r"--set ((?:[\w.]+=\w+,?)+)", text):
            helm("template", "aim-extproc", str(CHART), "--set", assigned)


@needs_helm
def test_documented_folders_are_built_by_kustomize() -> None:
    folders = {words[-1] for words in commands("deployment.md", "kubectl") if words[:1] == ["kustomize"]}
    assert folders
    for folder in folders:
        assert "Deployment/aim-extproc" in kustomize(ROOT / folder)


def test_documented_manifests_exist() -> None:
    files = {words[-1] for words in commands("deployment.md", "kubectl") if "apply" in words and "-f" in words}
    assert [name for name in files - {"-"} if not (ROOT / name).is_file()] == []


def test_network_policy_values_are_documented() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text()
    names = yaml.safe_load((CHART / "values.yaml").read_text())["networkPolicy"]
    assert [name for name in names if f"| `{name}` |" not in page] == []
