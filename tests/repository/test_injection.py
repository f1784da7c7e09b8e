"""The examples that put the sidecar into Envoy's pods: a pod template, and a policy that selects by a label."""

from __future__ import annotations

from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.fakes.helm import ROOT, kubectl_patch, needs_helm, template
from tests.repository.test_helm_chart import LABELS, SCHEMAS, STRING, only

FOLDER = ROOT / "deploy" / "injection"
IMAGE = "registry.example/aim-extproc"
SOCKET = {"name": "aim-extproc", "mountPath": "/run/extproc"}

STRINGS = {"type": "array", "minItems": 1, "items": STRING}
EXPRESSION = only("key", "operator", "values", key=STRING, operator={"enum": ["In"]}, values=STRINGS)
SELECTOR = only(matchLabels=LABELS, matchExpressions={"type": "array", "items": EXPRESSION})
RESOURCES = only("kinds", "selector", kinds=STRINGS, operations=STRINGS, selector=SELECTOR)
MATCH = only("any", any={"type": "array", "minItems": 1, "items": only("resources", resources=RESOURCES)})
MUTATE = only("patchStrategicMerge", patchStrategicMerge={"type": "object"})
RULE = only("name", "match", "mutate", name={"type": "string", "maxLength": 63}, match=MATCH, mutate=MUTATE)
KYVERNO = only(
    "rules",
    webhookConfiguration=only("failurePolicy", failurePolicy={"enum": ["Ignore", "Fail"]}),
    background={"type": "boolean"},
    rules={"type": "array", "minItems": 1, "items": RULE},
)
"""The fields of Kyverno's ClusterPolicy v1 that the example uses."""


def policy() -> Any:
    return yaml.safe_load((FOLDER / "kyverno.yaml").read_text())


def gateway() -> Any:
    return yaml.safe_load((FOLDER / "envoy.yaml").read_text())


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Return whether a label selector matches, as Kubernetes defines it for matchLabels and the operator In."""
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", ())
    )


def without_anchors(tree: Any) -> Any:
    """Return a patch as Kyverno applies it: a key in parentheses selects an element of a list by this field."""
    match tree:
        case dict():
            return {key.strip("()"): without_anchors(value) for key, value in tree.items()}
        case list():
            return [without_anchors(each) for each in tree]
    return tree


def deployment(**labels: str) -> dict[str, Any]:
    containers = [{"name": "envoy", "image": "envoyproxy/envoy"}, {"name": "app", "image": "app"}]
    if labels.get("aim-extproc/inject") == "istio":
        containers = containers[1:]
    app = {"app": "gateway"}
    spec = {
        "selector": {"matchLabels": app},
        "template": {"metadata": {"labels": app}, "spec": {"containers": containers}},
    }
    metadata = {"name": "gateway", "labels": app | labels}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def injected(resource: dict[str, Any]) -> dict[str, Any]:
    """Return the Deployment after the rules of the policy that select it."""
    for rule in policy()["spec"]["rules"]:
        (match,) = rule["match"]["any"]
        assert match["resources"]["kinds"] == [resource["kind"]]
        if selects(match["resources"]["selector"], resource["metadata"]["labels"]):
            resource = kubectl_patch(resource, yaml.safe_dump(without_anchors(rule["mutate"]["patchStrategicMerge"])))
    return resource


def patched(resource: dict[str, Any], **sidecar: Any) -> dict[str, Any]:
    """Return the Deployment after the patch of the chart, without the annotation that restarts its pods."""
    resources = template(mode="sidecar", image={"repository": IMAGE}, sidecar=sidecar)
    patch = yaml.safe_load(resources["ConfigMap/aim-extproc-patch"]["data"]["patch.yaml"])
    del patch["spec"]["template"]["metadata"]["annotations"]["aim-extproc/restarting-settings"]
    return kubectl_patch(resource, yaml.safe_dump(patch))


def test_policy_has_fields_that_kyverno_knows() -> None:
    found = policy()
    assert (found["apiVersion"], found["kind"]) == ("kyverno.io/v1", "ClusterPolicy")
    jsonschema.validate(found["spec"], KYVERNO)
    crd = SCHEMAS / "kyverno.io_clusterpolicies.yaml"
    if crd.is_file():
        (served,) = [each for each in yaml.safe_load(crd.read_text())["spec"]["versions"] if each["name"] == "v1"]
        jsonschema.Draft202012Validator(served["schema"]["openAPIV3Schema"]).validate(found)


@needs_helm
@pytest.mark.parametrize(
    ("label", "sidecar"), [("envoy", {}), ("istio", {"group": 1337, "envoyContainer": ""})], ids=["envoy", "istio"]
)
def test_policy_does_what_the_charts_patch_does(label: str, sidecar: dict[str, Any]) -> None:
    resource = deployment(**{"aim-extproc/inject": label})
    found = injected(resource)
    expected = patched(resource, **sidecar)
    # kubectl leaves an empty object of annotations.
    expected["spec"]["template"]["metadata"].setdefault("annotations", {})
    found["spec"]["template"]["metadata"].setdefault("annotations", {})
    assert found == expected
    for version in ("1.29", kubernetes_validate.latest_version()):
        kubernetes_validate.validate(found, version, strict=True)


@needs_helm
@pytest.mark.parametrize("labels", [{}, {"aim-extproc/inject": "no"}], ids=["without", "other"])
def test_policy_leaves_other_deployments_alone(labels: dict[str, str]) -> None:
    assert injected(deployment(**labels)) == deployment(**labels)


@needs_helm
def test_pod_template_has_the_charts_container_and_volumes() -> None:
    pod = gateway()["spec"]["template"]["spec"]
    expected = patched(deployment())["spec"]["template"]["spec"]
    assert pod["initContainers"] == expected["initContainers"]
    assert pod["terminationGracePeriodSeconds"] == expected["terminationGracePeriodSeconds"]
    assert [each for each in pod["volumes"] if each["name"] != "envoy"] == expected["volumes"]


@pytest.mark.parametrize("version", ["1.29", "1.33", kubernetes_validate.latest_version()])
def test_pod_template_matches_kubernetes_schemas(version: str) -> None:
    kubernetes_validate.validate(gateway(), version, strict=True)


def test_envoy_may_open_the_socket() -> None:
    pod = gateway()["spec"]["template"]["spec"]
    (envoy,), (sidecar,) = pod["containers"], pod["initContainers"]
    assert SOCKET in envoy["volumeMounts"]
    assert SOCKET in sidecar["volumeMounts"]
    assert envoy["securityContext"]["runAsGroup"] == sidecar["securityContext"]["runAsGroup"]


def test_sidecar_has_no_port_for_exchanges() -> None:
    (sidecar,) = gateway()["spec"]["template"]["spec"]["initContainers"]
    assert [port["name"] for port in sidecar["ports"]] == ["aim-admin"]
