"""The kustomize base and its example, as kubectl builds them: the base equals the default output of the Helm chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from extproc.config.load import load
from extproc.config.settings import Settings
from tests.fakes.helm import ROOT, kustomize, needs_helm, template

pytestmark = needs_helm

BASE = ROOT / "deploy" / "kustomize" / "base"
EXAMPLE = ROOT / "deploy" / "kustomize" / "overlays" / "example"

# Labels and annotations that only Helm sets, or that only the chart needs.
HELMS = (
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
    "aim-extproc/restarting-settings",
)


def without_helms(tree: Any) -> Any:
    """Return `tree` without Helm's labels and with the settings file as parsed YAML."""
    match tree:
        case dict():
            found = {key: without_helms(value) for key, value in tree.items() if key not in HELMS}
            if isinstance(found.get("settings.yaml"), str):
                found["settings.yaml"] = yaml.safe_load(found["settings.yaml"])
            return found
        case list():
            return [without_helms(each) for each in tree]
    return tree


def settings_of(resources: dict[str, dict[str, Any]], folder: Path) -> Settings:
    path = folder / "settings.yaml"
    path.write_text(resources["ConfigMap/aim-extproc"]["data"]["settings.yaml"])
    return load(path)


def test_base_equals_the_charts_defaults() -> None:
    chart = {name: resource for name, resource in template().items() if not name.startswith("Pod/")}
    base = kustomize(BASE)
    assert base.keys() == chart.keys()
    for name, resource in chart.items():
        assert without_helms(base[name]) == without_helms(resource), name


@pytest.mark.parametrize("folder", [BASE, EXAMPLE], ids=lambda folder: folder.name)
@pytest.mark.parametrize("version", ["1.27", "1.33", kubernetes_validate.latest_version()])
def test_resources_match_kubernetes_schemas(folder: Path, version: str) -> None:
    for resource in kustomize(folder).values():
        kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize("folder", [BASE, EXAMPLE], ids=lambda folder: folder.name)
def test_every_selector_selects_the_sidecars_pods(folder: Path) -> None:
    resources = kustomize(folder)
    spec = resources["Deployment/aim-extproc"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    selectors = [
        spec["selector"]["matchLabels"],
        resources["Service/aim-extproc"]["spec"]["selector"],
        resources["NetworkPolicy/aim-extproc"]["spec"]["podSelector"]["matchLabels"],
        resources["PodDisruptionBudget/aim-extproc"]["spec"]["selector"]["matchLabels"],
        *(each["labelSelector"]["matchLabels"] for each in spec["template"]["spec"]["topologySpreadConstraints"]),
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()


def test_example_changes_what_it_says(tmp_path: Path) -> None:
    resources = kustomize(EXAMPLE)
    assert {resource["metadata"]["namespace"] for resource in resources.values()} == {"guards"}
    settings = settings_of(resources, tmp_path)
    pod = resources["Deployment/aim-extproc"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"].startswith("registry.example/aim-extproc:")
    folder = str(Path(settings.tls.cert_file or "").parent)
    (name,) = [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == folder]
    (volume,) = [each for each in pod["volumes"] if each["name"] == name]
    assert volume["secret"]["secretName"] == "aim-extproc-tls"
    ingress = resources["NetworkPolicy/aim-extproc"]["spec"]["ingress"]
    assert [
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for rule in ingress
        for peer in rule["from"]
    ] == ["default", "monitoring"]


def test_example_only_adds_to_the_settings_of_the_base(tmp_path: Path) -> None:
    base, example = (settings_of(kustomize(folder), tmp_path) for folder in (BASE, EXAMPLE))
    assert example.model_copy(update={"tls": base.tls}) == base
