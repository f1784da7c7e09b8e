"""The Helm chart, rendered by helm and checked by Kubernetes' schemas and the sidecar's settings."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from extproc.config.load import load
from extproc.config.serving_check import problems_when_serving
from extproc.config.settings import Settings
from tests.fakes.helm import CHART, ROOT, HelmFailed, helm, kubectl_patch, needs_helm, template

pytestmark = needs_helm

# The oldest version that the chart supports (1.29 for sidecars), and the newest that the package knows.
KUBERNETES = ("1.27", "1.29", "1.33", kubernetes_validate.latest_version())
SCHEMAS = ROOT.parent / "shared" / "schemas"

EVERYTHING: dict[str, Any] = {
    "settings": {
        "drain_seconds": 120.5,
        "log_level": "warning",
        "aim": {"api": "firewall", "ca_file": "/etc/ca/ca.crt"},
        "limits": {"request_bytes": 40_000_000, "streams": 500, "total_held_bytes": 200_000_000},
        "profiles": {"default": {"enforce": False}, "acme": {"routes": ["acme/*"]}, "globex": {}},
    },
    "profileKeys": {"acme": {"secret": "acme-key", "key": "aim"}, "globex": {"secret": "globex-key", "key": "aim"}},
    "tls": {"secret": "guard-tls", "clientCa": {"configMap": "gateway-ca", "key": "ca.pem"}},
    "image": {"repository": "registry.example/aim-extproc", "digest": "sha256:" + 64 * "a"},
    "imagePullSecrets": [{"name": "pull"}],
    "autoscaling": {"enabled": True},
    "networkPolicy": {
        "gatewayNamespace": "edge",
        "gatewayPodLabels": {"app": "gateway"},
        "gateways": [{"ipBlock": {"cidr": "10.0.0.0/24"}}],
        "monitoringNamespace": "monitoring",
        "monitoring": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}],
        "egressPorts": [443, 3128],
        "egress": [{"ports": [{"port": 4317, "protocol": "TCP"}]}],
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboard": {"enabled": True},
    "serviceAccount": {"annotations": {"a": "b"}},
    "podAnnotations": {"c": "d"},
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "corporate-ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca"}],
    "nodeSelector": {"pool": "edge"},
    "tolerations": [{"key": "edge", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "priorityClassName": "system-cluster-critical",
    "topologySpreadConstraints": [
        {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
    ],
}
SIDECAR: dict[str, Any] = {"mode": "sidecar", "serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}
VALUES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": EVERYTHING,
    "bare": {
        "aimKey": {"secret": ""},
        "podDisruptionBudget": {"enabled": False},
        "serviceAccount": {"create": False},
        "bindAddress": "[::]",
        "networkPolicy": {"enabled": False},
        "acceptOpenPort": True,
        "service": {"appProtocol": ""},
        "settings": {"profiles": {}},
        "extraEnv": [{"name": "AIM_API_KEY", "valueFrom": {"secretKeyRef": {"name": "k", "key": "k"}}}],
    },
    "sidecar": SIDECAR,
    "sidecar-istio": {
        **SIDECAR,
        "sidecar": {"group": 1337, "envoyContainer": ""},
        "profileKeys": {"default": {"secret": "acme-key", "key": "aim"}},
    },
}

STRING = {"type": "string"}
LABELS = {"type": "object", "additionalProperties": STRING}


def only(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


def monitor(endpoints: str) -> dict[str, Any]:
    relabeling = only("targetLabel", "replacement", targetLabel=STRING, replacement=STRING)
    endpoint = only(
        "port",
        port=STRING,
        path=STRING,
        interval={"type": "string", "pattern": "^[0-9]+(ms|s|m)$"},
        relabelings={"type": "array", "items": relabeling},
    )
    return only(
        "selector", endpoints, selector=only(matchLabels=LABELS), **{endpoints: {"type": "array", "items": endpoint}}
    )


RULE = only("alert", "expr", alert=STRING, expr=STRING, **{"for": STRING}, labels=LABELS, annotations=LABELS)
GROUP = only("name", "rules", name=STRING, rules={"type": "array", "items": RULE})

MONITORING = {
    "ServiceMonitor": monitor("endpoints"),
    "PodMonitor": monitor("podMetricsEndpoints"),
    "PrometheusRule": only("groups", groups={"type": "array", "items": GROUP}),
}
"""The fields of the Prometheus operator's kinds that the chart uses."""


def settings_of(resources: dict[str, dict[str, Any]], folder: Path) -> Settings:
    """Return the rendered settings as the sidecar loads them."""
    path = folder / "settings.yaml"
    path.write_text(resources["ConfigMap/aim-extproc"]["data"]["settings.yaml"])
    return load(path)


def pod_of(resources: dict[str, dict[str, Any]]) -> Any:
    return resources["Deployment/aim-extproc"]["spec"]["template"]["spec"]


def patch_of(resources: dict[str, dict[str, Any]]) -> Any:
    return yaml.safe_load(resources["ConfigMap/aim-extproc-patch"]["data"]["patch.yaml"])


def patched(resources: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a Deployment of Envoy after kubectl applied the patch."""
    envoy = {"name": "envoy", "image": "envoyproxy/envoy", "volumeMounts": [{"name": "own", "mountPath": "/own"}]}
    pod = {"containers": [envoy, {"name": "other", "image": "other"}], "volumes": [{"name": "own", "emptyDir": {}}]}
    labels = {"app": "gateway"}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "gateway"}, "spec": spec}
    return kubectl_patch(deployment, resources["ConfigMap/aim-extproc-patch"]["data"]["patch.yaml"])


def mebibytes(quantity: str) -> float:
    number, unit = quantity[:-2], quantity[-2:]
    return float(number) * {"Mi": 1, "Gi": 1024}[unit]


@pytest.mark.parametrize("name", VALUES)
def test_helm_lint_passes(name: str) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), values=VALUES[name])


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("version", KUBERNETES)
def test_resources_match_kubernetes_schemas(name: str, version: str) -> None:
    resources = template(**VALUES[name])
    if VALUES[name].get("mode") == "sidecar":
        if version == "1.27":
            pytest.skip("native sidecars came with 1.28")
        resources["patched"] = patched(resources)
    for resource in resources.values():
        if resource["kind"] not in MONITORING:
            kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize("name", VALUES)
def test_resources_match_the_operators_schemas(name: str) -> None:
    for resource in template(**VALUES[name]).values():
        kind = resource["kind"]
        if kind not in MONITORING:
            continue
        assert resource["apiVersion"] == "monitoring.coreos.com/v1"
        jsonschema.validate(resource["spec"], MONITORING[kind])
        crd = SCHEMAS / f"monitoring.coreos.com_{kind.lower()}s.yaml"
        if crd.is_file():
            (served,) = yaml.safe_load(crd.read_text())["spec"]["versions"]
            # Not `validate`: these schemas hold a pattern that is invalid in Python.
            jsonschema.Draft202012Validator(served["schema"]["openAPIV3Schema"]).validate(resource)


@pytest.mark.parametrize("name", VALUES)
def test_sidecar_accepts_rendered_settings(name: str, tmp_path: Path) -> None:
    values = VALUES[name]
    settings = settings_of(template(**values), tmp_path)
    expected = Settings(**values.get("settings", {}))
    assert settings.workers == 1
    assert settings.aim.api == expected.aim.api
    assert settings.limits.request_bytes == expected.limits.request_bytes
    assert settings.drain_seconds == expected.drain_seconds
    assert settings.profiles.keys() == expected.profiles.keys()
    for profile in settings.profiles:
        assert settings.profiles[profile].enforce == expected.profiles[profile].enforce
        assert settings.profiles[profile].routes == expected.profiles[profile].routes


@pytest.mark.parametrize("name", ["defaults", "everything", "bare"])
def test_ports_and_probes_match_the_settings(name: str, tmp_path: Path) -> None:
    resources = template(**VALUES[name])
    settings = settings_of(resources, tmp_path)
    (container,) = pod_of(resources)["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert settings.admin is not None
    assert ports == {"grpc": settings.listen.port, "aim-admin": settings.admin.port}
    assert settings.listen.host in ("0.0.0.0", "::")
    assert settings.admin.host == settings.listen.host
    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    assert {probe["port"] for probe in probes.values()} == {"aim-admin"}
    assert [probes[kind]["path"] for kind in probes] == ["/healthz", "/readyz", "/healthz"]
    service = resources["Service/aim-extproc"]["spec"]
    assert service["clusterIP"] == "None"
    assert {port["name"]: (port["port"], port["targetPort"]) for port in service["ports"]} == {
        "grpc": (50051, "grpc"),
        "aim-admin": (9902, "aim-admin"),
    }
    assert (
        service["selector"].items()
        <= resources["Deployment/aim-extproc"]["spec"]["template"]["metadata"]["labels"].items()
    )


def files_of(pod: Any, container: Any) -> set[str]:
    """Return the named files in the container's mounts of ConfigMaps and Secrets."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    found = set()
    for mount in container["volumeMounts"]:
        assert "subPath" not in mount, "a subPath file is not updated with its ConfigMap or Secret"
        volume = volumes[mount["name"]]
        sources = [
            *(source["secret"] for source in volume.get("projected", {}).get("sources", [])),
            *([volume["configMap"]] if "items" in volume.get("configMap", {}) else []),
        ]
        found |= {f"{mount['mountPath']}/{item['path']}" for source in sources for item in source["items"]}
        if "secret" in volume:  # of type kubernetes.io/tls
            found |= {f"{mount['mountPath']}/{name}" for name in ("tls.crt", "tls.key")}
    return found


@pytest.mark.parametrize("name", VALUES)
def test_every_file_in_the_settings_is_mounted(name: str, tmp_path: Path) -> None:
    resources = template(**VALUES[name])
    settings = settings_of(resources, tmp_path)
    if "Deployment/aim-extproc" in resources:
        pod = pod_of(resources)
        (container,) = pod["containers"]
    else:
        pod = patched(resources)["spec"]["template"]["spec"]
        (container,) = pod["initContainers"]
    named = {
        str(path)
        for path in (
            settings.aim.api_key_file,
            *(profile.api_key_file for profile in settings.profiles.values()),
            settings.tls.cert_file,
            settings.tls.key_file,
            settings.tls.client_ca_file,
        )
        if path is not None
    }
    assert files_of(pod, container) == named
    (config,) = [entry["value"] for entry in container["env"] if entry["name"] == "EXTPROC_CONFIG"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "aim-extproc-settings"]
    assert config == f"{mount['mountPath']}/settings.yaml"
    assert problems_when_serving(settings) != []  # the files are missing here, and were looked for


def test_each_tenant_has_its_own_key(tmp_path: Path) -> None:
    resources = template(**EVERYTHING)
    settings = settings_of(resources, tmp_path)
    (keys,) = [volume for volume in pod_of(resources)["volumes"] if volume["name"] == "aim-extproc-keys"]
    secrets = {
        f"/run/secrets/aim/{source['secret']['items'][0]['path']}": source["secret"]["name"]
        for source in keys["projected"]["sources"]
    }
    assert secrets[str(settings.aim.api_key_file)] == "aim-api-key"
    assert secrets[str(settings.profiles["acme"].api_key_file)] == "acme-key"
    assert secrets[str(settings.profiles["globex"].api_key_file)] == "globex-key"


def policy_of(**values: Any) -> Any:
    return template(**values)["NetworkPolicy/aim-extproc"]["spec"]


def in_namespace(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


OWN_NAMESPACE: dict[str, Any] = {"podSelector": {}}
BLOCK: dict[str, Any] = {"ipBlock": {"cidr": "10.0.0.0/24"}}


def test_network_policy_admits_only_the_releases_namespace_by_default() -> None:
    resources = template()
    spec = resources["NetworkPolicy/aim-extproc"]["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    labels = resources["Deployment/aim-extproc"]["spec"]["template"]["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"].items() <= labels.items()
    assert [(rule["ports"][0]["port"], rule["from"]) for rule in spec["ingress"]] == [
        (50051, [OWN_NAMESPACE]),
        (9902, [OWN_NAMESPACE]),
    ]


@pytest.mark.parametrize(
    ("policy", "peers"),
    [
        ({"gatewayNamespace": "edge"}, [{**in_namespace("edge"), "podSelector": {}}]),
        ({"gatewayPodLabels": {"app": "gw"}}, [{"podSelector": {"matchLabels": {"app": "gw"}}}]),
        (
            {"gatewayNamespace": "edge", "gatewayPodLabels": {"app": "gw"}},
            [{**in_namespace("edge"), "podSelector": {"matchLabels": {"app": "gw"}}}],
        ),
        ({"gateways": [BLOCK]}, [BLOCK]),
        ({"gatewayNamespace": "edge", "gateways": [BLOCK]}, [{**in_namespace("edge"), "podSelector": {}}, BLOCK]),
    ],
    ids=["namespace", "labels", "both", "peers", "namespace and peers"],
)
def test_values_say_which_gateways_reach_the_listener(policy: dict[str, Any], peers: list[Any]) -> None:
    listener, admin = policy_of(networkPolicy=policy)["ingress"]
    assert listener["from"] == peers
    assert admin["from"] == [OWN_NAMESPACE]


def test_monitoring_namespace_reaches_only_the_admin_port() -> None:
    listener, admin = policy_of(networkPolicy={"monitoringNamespace": "monitoring"})["ingress"]
    assert [port["port"] for port in admin["ports"]] == [9902]
    assert admin["from"] == [{**in_namespace("monitoring"), "podSelector": {}}]
    assert listener["from"] == [OWN_NAMESPACE]


@pytest.mark.parametrize(
    ("aim", "ports"),
    [
        ({}, [443]),
        ({"base_url": "https://aim.example"}, [443]),
        ({"base_url": "https://aim.example:8443/path"}, [443, 8443]),
        ({"base_url": "http://aim.example"}, [443, 80]),
        ({"base_url": "https://[fd00::7]:8443", "proxy": "http://proxy.example:3128"}, [443, 8443, 3128]),
    ],
    ids=["default", "https", "port", "http", "proxy"],
)
def test_network_policy_lets_dns_and_aim_through(aim: dict[str, Any], ports: list[int]) -> None:
    dns, out = policy_of(settings={"aim": aim})["egress"]
    assert dns["ports"] == [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    assert out == {"ports": [{"port": port, "protocol": "TCP"} for port in ports]}


@pytest.mark.parametrize(
    ("variable", "ports"),
    [
        ({"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}, [443, 3128]),
        ({"name": "https_proxy", "value": "http://proxy.example:3128"}, [443, 3128]),
        ({"name": "AIM_API_BASE", "value": "https://aim.example:8443"}, [443, 8443]),
        ({"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4317"}, [443, 4317]),
        ({"name": "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "value": "http://collector:4318/v1/traces"}, [443, 4318]),
        # Not URLs.
        ({"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "10.0.0.1:4317"}, [443]),
        ({"name": "HTTPS_PROXY", "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "url"}}}, [443]),
        ({"name": "NO_PROXY", "value": "http://other.example:81"}, [443]),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "-".join(map(str, value)),
)
def test_network_policy_lets_urls_of_the_environment_through(variable: dict[str, Any], ports: list[int]) -> None:
    _, out = policy_of(extraEnv=[variable])["egress"]
    assert [each["port"] for each in out["ports"]] == ports


@pytest.mark.parametrize(
    "values", [{"tls": {"secret": "guard-tls"}}, {"acceptOpenPort": True}, {"mode": "sidecar"}], ids=str
)
def test_network_policy_can_be_switched_off_where_the_listener_is_protected(values: dict[str, Any]) -> None:
    policies = [name for name in template(networkPolicy={"enabled": False}, **values) if name.startswith("Network")]
    assert policies == []


def test_sidecar_in_envoys_pod_has_no_port_for_exchanges(tmp_path: Path) -> None:
    resources = template(**SIDECAR)
    assert settings_of(resources, tmp_path).listen.path
    (container,) = patch_of(resources)["spec"]["template"]["spec"]["initContainers"]
    assert [port["name"] for port in container["ports"]] == ["aim-admin"]


@pytest.mark.parametrize("name", ["defaults", "sidecar"])
def test_probes_are_patient(name: str) -> None:
    """An exchange or a settings file keeps the process from answering for up to a second."""
    resources = template(**VALUES[name])
    spec = patch_of(resources)["spec"]["template"]["spec"] if name == "sidecar" else pod_of(resources)
    (container,) = spec["initContainers" if name == "sidecar" else "containers"]
    for kind in ("startup", "readiness", "liveness"):
        assert container[f"{kind}Probe"]["timeoutSeconds"] >= 2
    liveness = container["livenessProbe"]
    assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 30


def test_values_change_the_probes() -> None:
    (container,) = pod_of(template(probes={"liveness": {"failureThreshold": 9}}))["containers"]
    assert container["livenessProbe"] == {
        "httpGet": {"path": "/healthz", "port": "aim-admin"},
        "periodSeconds": 10,
        "timeoutSeconds": 5,
        "failureThreshold": 9,
    }


def test_replicas_are_spread_over_zones_and_nodes() -> None:
    resources = template()
    spread = pod_of(resources)["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    labels = resources["Deployment/aim-extproc"]["spec"]["template"]["metadata"]["labels"]
    for each in spread:
        assert each["whenUnsatisfiable"] == "ScheduleAnyway"
        assert each["matchLabelKeys"] == ["pod-template-hash"]
        assert each["labelSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("name", ["defaults", "everything", "sidecar"])
def test_grace_period_covers_the_drain(name: str, tmp_path: Path) -> None:
    resources = template(**VALUES[name])
    settings = settings_of(resources, tmp_path)
    if name == "sidecar":
        assert patch_of(resources)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > settings.drain_seconds
        return
    pod = pod_of(resources)
    (container,) = pod["containers"]
    (command, seconds) = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert pod["terminationGracePeriodSeconds"] >= int(seconds) + settings.drain_seconds + 5


@pytest.mark.parametrize("name", VALUES)
def test_container_has_minimal_privileges(name: str) -> None:
    resources = template(**VALUES[name])
    pods = [resource["spec"] for resource in resources.values() if resource["kind"] == "Pod"]
    if "Deployment/aim-extproc" in resources:
        pods.append(pod_of(resources))
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
    contexts = [{**pod["securityContext"], **pod["containers"][0]["securityContext"]} for pod in pods]
    if name.startswith("sidecar"):
        (container,) = patched(resources)["spec"]["template"]["spec"]["initContainers"]
        assert container["restartPolicy"] == "Always"
        contexts.append(container["securityContext"])
        assert container["securityContext"]["runAsGroup"] == VALUES[name].get("sidecar", {}).get("group", 65532)
    assert contexts
    # The user of the image, who can read its files.
    (user,) = map(int, re.findall(r"^USER (\d+)", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE))
    for context in contexts:
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == user
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_only_settings_that_need_a_restart_restart_pods() -> None:
    def pod_template(**settings: Any) -> Any:
        return template(settings=settings)["Deployment/aim-extproc"]["spec"]["template"]

    before = pod_template()
    live = {"profiles": {"default": {"enforce": False}}, "aim": {"timeout_seconds": 9}, "limits": {"sessions": 9}}
    assert pod_template(**live) == before
    for fixed in ({"log_level": "debug"}, {"drain_seconds": 31}):
        assert pod_template(**fixed) != before
    for limit in ("request_bytes", "streams"):
        assert pod_template(limits={limit: 1_000_000}) != before


def test_held_bytes_fit_into_the_memory_limit(tmp_path: Path) -> None:
    resources = template()
    limits = settings_of(resources, tmp_path).limits
    (container,) = pod_of(resources)["containers"]
    # The formula of docs/deployment.md.
    needed = 80 + limits.streams * 85 / 1024 + 3.5 * limits.total_held_bytes / 2**20
    assert needed <= mebibytes(container["resources"]["limits"]["memory"])


def test_autoscaler_controls_replicas() -> None:
    assert template()["Deployment/aim-extproc"]["spec"]["replicas"] == 2
    resources = template(**EVERYTHING)
    assert "replicas" not in resources["Deployment/aim-extproc"]["spec"]
    scaler = resources["HorizontalPodAutoscaler/aim-extproc"]["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "aim-extproc"}
    (metric,) = scaler["metrics"]
    assert metric["containerResource"]["container"] == "aim-extproc"


def test_sidecar_and_envoy_share_the_socket(tmp_path: Path) -> None:
    resources = template(**SIDECAR)
    settings = settings_of(resources, tmp_path)
    spec = patch_of(resources)["spec"]["template"]["spec"]
    (envoy,), (guard,) = spec["containers"], spec["initContainers"]
    assert envoy["name"] == "envoy"
    assert envoy["volumeMounts"] == [{"name": "aim-extproc", "mountPath": str(Path(settings.listen.path or "").parent)}]
    assert envoy["volumeMounts"][0] in guard["volumeMounts"]
    istio = patch_of(template(**VALUES["sidecar-istio"]))["spec"]["template"]
    assert "containers" not in istio["spec"]
    mounts = json.loads(istio["metadata"]["annotations"]["sidecar.istio.io/userVolumeMount"])
    assert mounts == envoy["volumeMounts"]


def test_istio_does_not_intercept_the_probes(tmp_path: Path) -> None:
    """With Istio's mTLS, or before its proxy runs, a redirected probe would fail and the pod would not start."""
    resources = template(**VALUES["sidecar-istio"])
    annotations = patch_of(resources)["spec"]["template"]["metadata"]["annotations"]
    admin = settings_of(resources, tmp_path).admin
    assert admin is not None
    assert annotations["traffic.sidecar.istio.io/excludeInboundPorts"] == str(admin.port)


def test_patch_keeps_existing_fields() -> None:
    after = patched(template(**SIDECAR))["spec"]["template"]["spec"]
    envoy, other = after["containers"]
    assert {mount["name"] for mount in envoy["volumeMounts"]} == {"own", "aim-extproc"}
    assert other == {"name": "other", "image": "other"}
    assert {volume["name"] for volume in after["volumes"]} > {"own"}
    istio = patched(template(**VALUES["sidecar-istio"]))["spec"]["template"]["spec"]["containers"]
    assert [len(container.get("volumeMounts", [])) for container in istio] == [1, 0]


def test_sidecar_mode_creates_no_service_or_deployment() -> None:
    assert set(template(**SIDECAR)) == {
        "ConfigMap/aim-extproc",
        "ConfigMap/aim-extproc-patch",
        "PodMonitor/aim-extproc",
        "PrometheusRule/aim-extproc",
    }
    (label,) = template(**SIDECAR)["PodMonitor/aim-extproc"]["spec"]["selector"]["matchLabels"].items()
    assert label in patch_of(template(**SIDECAR))["spec"]["template"]["metadata"]["labels"].items()


def test_alerts_and_dashboard_equal_the_repositorys() -> None:
    resources = template(**EVERYTHING)
    alerts = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text())
    assert resources["PrometheusRule/aim-extproc"]["spec"] == alerts
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "aim-extproc.json").read_text())
    assert json.loads(resources["ConfigMap/aim-extproc-dashboard"]["data"]["aim-extproc.json"]) == dashboard


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"settings": {"aim": {"api_key": "x"}}}, "/settings/aim/api_key"),
        ({"settings": {"listen": "0.0.0.0:1"}}, "listen"),
        ({"settings": {"profiles": {"a": {"api_key_file": "/x"}}}}, "/settings/profiles/a/api_key_file"),
        ({"replica": 3}, "replica"),
        ({"profileKeys": {"unknown": {"secret": "s", "key": "k"}}}, "unknown"),
        ({"tls": {"clientCa": {"configMap": "ca"}}}, "tls.clientCa needs tls.secret"),
        ({"networkPolicy": {"enabled": False}}, "set acceptOpenPort: true to accept this"),
        ({"networkPolicy": {"gatewayNamespace": "Edge"}}, "/networkPolicy/gatewayNamespace"),
        ({"probes": {"readiness": {"periodSeconds": 0}}}, "/probes/readiness/periodSeconds"),
    ],
)
def test_invalid_values_are_named(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(HelmFailed, match=problem):
        template(**values)


def test_schema_has_every_setting_except_the_charts_own() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    known = set(schema["properties"]["settings"]["properties"])
    assert known == Settings.model_fields.keys() - {"listen", "admin", "workers", "tls"}


def test_dependent_chart_can_include_the_templates(tmp_path: Path) -> None:
    """The include is the one in the chart's README."""
    (line,) = [line for line in (CHART / "README.md").read_text().splitlines() if "{{ include" in line]
    (include,) = re.findall(r"`({{.*?}})`", line)
    shutil.copytree(CHART, tmp_path / "charts" / "aim-extproc")
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: app, version: 0.0.1}")
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "container.yaml").write_text(f"# of the app's own chart\n{include}\n")
    values = {"aim-extproc": {"mode": "sidecar", "sidecar": {"group": 1337}}}
    text = helm("template", "app", str(tmp_path), "--show-only", "templates/container.yaml", values=values)
    container = yaml.safe_load(text)
    assert container["restartPolicy"] == "Always"
    assert container["securityContext"]["runAsGroup"] == 1337


def test_every_value_is_in_schema_and_readme() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert values.keys() == schema["properties"].keys() - {"global"}
    readme = (CHART / "README.md").read_text()
    assert [name for name in values if f"`{name}" not in readme] == []


def test_chart_version_equals_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (project, project)


def test_package_has_the_whole_chart(tmp_path: Path) -> None:
    """`make chart` packages the folder; files outside it are behind links."""
    helm("package", str(CHART), "--destination", str(tmp_path))
    (package,) = tmp_path.iterdir()
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert package.name == f"aim-extproc-{chart['version']}.tgz"
    assert helm("template", "aim-extproc", str(package), values=EVERYTHING) == helm(
        "template", "aim-extproc", str(CHART), values=EVERYTHING
    )


def test_make_pushes_the_package_of_this_version() -> None:
    make = ["make", "--dry-run", "chart-push", "REGISTRY=oci://registry.example/charts"]
    printed = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    assert "helm package deploy/helm/aim-extproc --destination dist" in printed
    assert f"helm push dist/aim-extproc-{version}.tgz oci://registry.example/charts" in printed


def test_release_name_prefixes_resource_names() -> None:
    names = {name.partition("/")[2] for name in template("blue")}
    assert names == {"blue-aim-extproc", "blue-aim-extproc-check"}


def notes(**values: Any) -> str:
    """Return the notes that helm prints after an installation."""
    return helm("install", "aim-extproc", str(CHART), "--namespace", "guards", "--dry-run=client", values=values)


def test_notes_show_the_next_steps() -> None:
    said = notes()
    assert "WARNING: no tls.secret" in said
    assert "WARNING: only pods of the namespace guards may reach the sidecar" in said
    assert '--service aim-extproc.guards --ca ""' in said
    assert "dry run" not in said
    said = notes(**EVERYTHING)
    assert "WARNING" not in said
    assert "The profile default is a dry run" in said
    assert "--topology sidecar" in notes(**SIDECAR)


def test_notes_warn_of_what_may_not_reach_the_sidecar() -> None:
    tls = {"tls": {"secret": "guard-tls"}}
    assert "WARNING" not in notes(**tls, networkPolicy={"gatewayNamespace": "edge"})
    said = notes(**tls, networkPolicy={"gatewayNamespace": "edge"}, serviceMonitor={"enabled": True})
    assert "WARNING: only a Prometheus in the namespace guards" in said
    assert "WARNING: no networkPolicy" in notes(**tls, networkPolicy={"enabled": False})
