"""docs/meshes.md: its commands are run as written, and its configuration fits what they print."""

from __future__ import annotations

import re
import shlex
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from typer.testing import CliRunner

from extproc.cli.main import app
from tests.envoy.test_getting_started import ROOT
from tests.envoy.test_mesh_tls import unhealthy, written_with_tls
from tests.fakes.aim import ScriptedAim
from tests.fakes.controllers import Cluster, envoy_gateway, istio, kgateway
from tests.fakes.envoy import run_envoy
from tests.fakes.process import run, serving
from tests.fakes.upstream import ScriptedUpstream

PAGE = (ROOT / "docs" / "meshes.md").read_text()
SECTIONS = dict(re.findall(r"^##+ (.+?)\n(.*?)(?=^##+ |\Z)", PAGE, re.MULTILINE | re.DOTALL))
CONTROLLERS: dict[str, Any] = {"Istio": istio, "Envoy Gateway": envoy_gateway, "kgateway": kgateway}
RENDERED = ("Istio", "Envoy Gateway", "Envoy AI Gateway", "kgateway", "agentgateway")


def blocks(section: str, language: str) -> list[str]:
    """Return the blocks of a section that are in `language`."""
    return re.findall(rf"^```{language}\n(.*?)^```", SECTIONS[section], re.MULTILINE | re.DOTALL)


def rendered(section: str, config: Path) -> list[Any]:
    """Run the section's command that renders, with the settings `config`; return the resources."""
    render, apply, *_ = blocks(section, "sh")[0].splitlines()
    program, *arguments, into, file = shlex.split(render.replace("--config settings.yaml", f"--config {config}"))
    assert (program, into) == ("extproc", ">")
    assert apply.startswith("kubectl apply ")
    assert apply.endswith(f" -f {file}")
    return printed(*arguments)


def printed(*arguments: str) -> list[Any]:
    """Run `extproc` with `arguments`; return the resources that it prints."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return list(yaml.safe_load_all(result.stdout))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write the settings that the page asks for before any mesh."""
    path = tmp_path / "settings.yaml"
    path.write_text("{listen: '0.0.0.0:50051', admin: '0.0.0.0:9902', tls: {cert_file: /c, key_file: /k}}")
    return path


def test_each_command_that_renders_is_in_a_tested_section() -> None:
    assert {name for name in SECTIONS if "extproc render" in "".join(blocks(name, "sh"))} == set(RENDERED)


@pytest.mark.parametrize("section", RENDERED)
def test_resources_that_are_to_be_checked_exist(section: str, config: Path) -> None:
    kinds = {document["kind"].lower() for document in rendered(section, config)}
    for named in re.findall(r"`kubectl get ([\w,]+)(?: aim-extproc)? -o", SECTIONS[section]):
        assert set(named.split(",")) <= kinds


@pytest.mark.parametrize("section", CONTROLLERS)
async def test_check_finds_nothing_in_what_the_controller_makes_of_the_output(section: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        aim = await stack.enter_async_context(ScriptedAim().running())
        upstream = await stack.enter_async_context(ScriptedUpstream().running())
        authority = trustme.CA()
        config, port = written_with_tls(tmp_path / "sidecar", aim, authority)
        await stack.enter_async_context(serving(config))
        cluster = Cluster([port], upstream.port, tmp_path, authority.cert_pem.bytes().decode())
        tree = CONTROLLERS[section].generated(rendered(section, config), cluster)
        envoy = await stack.enter_async_context(run_envoy(yaml.safe_dump(tree)))
        await unhealthy(envoy, 0)
        (line,) = re.findall(r"`(extproc check .*? --envoy) ADMIN_URL`", SECTIONS["After any of them"])
        command = shlex.split(line.replace("settings.yaml", str(config)))[1:]
        status, out, err = await run(*command, envoy.admin)
    assert (status, err) == (0, "")
    assert "error: " not in out
    assert "1 of 1 HTTP filter chains have the filter" in out


def test_socket_in_pods_of_envoy_gateway_is_that_of_the_output() -> None:
    (proxy,) = [each for each in map(yaml.safe_load, blocks("Envoy Gateway", "yaml")) if each["kind"] == "EnvoyProxy"]
    (backend, *_) = printed("render", "envoy-gateway", "--topology", "sidecar")
    (endpoint,) = backend["spec"]["endpoints"]
    deployment = proxy["spec"]["provider"]["kubernetes"]["envoyDeployment"]
    (container,) = deployment["patch"]["value"]["spec"]["template"]["spec"]["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert environment["EXTPROC_LISTEN"] == f"unix:{endpoint['unix']['path']}"
    (volume,) = deployment["pod"]["volumes"]
    mounts = [*deployment["container"]["volumeMounts"], *container["volumeMounts"]]
    assert {mount["name"] for mount in mounts} == {volume["name"]}
    assert {mount["mountPath"] for mount in mounts} == {str(Path(endpoint["unix"]["path"]).parent)}


@pytest.mark.parametrize(
    "options",
    ["--topology sidecar --context outbound --selector app=NAME", "--context waypoint --gateway NAME"],
)
def test_other_ways_into_istio_are_rendered(options: str) -> None:
    assert f"`{options}`" in SECTIONS["Istio"]
    (resource,) = printed("render", "istio", *shlex.split(options.replace("NAME", "chat")))
    assert resource["kind"] == "EnvoyFilter"


def test_google_cloud_sends_bodies_in_full_duplex_and_fails_closed() -> None:
    """The names are those of the types in google-cloud-network-services 0.10.4."""
    (resource,) = map(yaml.safe_load, blocks("Google Cloud", "yaml"))
    assert set(resource) == {"name", "loadBalancingScheme", "forwardingRules", "extensionChains"}
    (chain,) = resource["extensionChains"]
    assert set(chain) == {"name", "matchCondition", "extensions"}
    (extension,) = chain["extensions"]
    modes = {extension.pop("requestBodySendMode"), extension.pop("responseBodySendMode")}
    assert modes == {"BODY_SEND_MODE_FULL_DUPLEX_STREAMED"}
    kinds = ("HEADERS", "BODY", "TRAILERS")
    assert set(extension.pop("supportedEvents")) == {
        f"{leg}_{kind}" for leg in ("REQUEST", "RESPONSE") for kind in kinds
    }
    assert extension.pop("failOpen") is False
    assert extension.pop("timeout") == "10s"
    assert set(extension) == {"name", "authority", "service"}
