"""Dockerfile and docker-compose.yml, checked without a container engine: fields, files, addresses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from extproc.cli.main import app
from extproc.config.load import load
from extproc.config.settings import Settings
from tools.pin_images import IMAGE, pinned

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
FILES = ("Dockerfile", "docker-compose.yml")
ENVOY: dict[str, Any] = yaml.safe_load((ROOT / "envoy" / "envoy.yaml").read_text())

# The keys of the compose specification that are used here, with the type of their value.
SERVICE_KEYS = {
    "build": dict,
    "cap_drop": list,
    "command": list,
    "entrypoint": list,
    "environment": dict,
    "healthcheck": dict,
    "image": str,
    "network_mode": str,
    "ports": list,
    "read_only": bool,
    "restart": str,
    "security_opt": list,
    "stop_grace_period": str,
    "volumes": list,
}
HEALTHCHECK_KEYS = {"test", "interval", "timeout", "retries", "start_period"}
# fmt: off
INSTRUCTIONS = {
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "ONBUILD", "RUN",
    "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
}
# fmt: on


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions and their arguments, continuation lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line.strip())]


def endpoint(cluster: str) -> dict[str, Any]:
    (found,) = [each for each in ENVOY["static_resources"]["clusters"] if each["name"] == cluster]
    address = found["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    assert isinstance(address, dict)
    return address


# docker-compose.yml


@pytest.mark.parametrize("name", SERVICES)
def test_services_have_valid_fields(name: str) -> None:
    service = SERVICES[name]
    assert {key: type(value) for key, value in service.items()} == {key: SERVICE_KEYS[key] for key in service}
    assert all(isinstance(part, str) for key in ("command", "entrypoint") for part in service.get(key, []))
    check = service.get("healthcheck")
    # The sidecar's healthcheck is in its image.
    assert check is not None or name == "sidecar"
    if check is not None:
        assert set(check) == HEALTHCHECK_KEYS
        assert check["test"][0] == "CMD"


def test_services_share_envoys_network_and_only_envoy_publishes_ports() -> None:
    modes = {name: service.get("network_mode") for name, service in SERVICES.items()}
    assert modes.pop("envoy") is None
    assert set(modes.values()) == {"service:envoy"}
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["envoy"]


def test_published_port_is_the_listeners() -> None:
    (listener,) = ENVOY["static_resources"]["listeners"]
    address = listener["address"]["socket_address"]
    assert address["address"] == "0.0.0.0"
    ports = [published.rpartition(":")[2] for published in SERVICES["envoy"]["ports"]]
    assert ports == [str(address["port_value"])]


def test_envoy_clusters_are_the_other_services() -> None:
    listen = Settings().listen
    assert endpoint("aim-extproc") == {"address": listen.host, "port_value": listen.port}
    model = endpoint("http-127.0.0.1-8080")
    assert SERVICES["demo-model"]["command"] == ["--listen", f"{model['address']}:{model['port_value']}"]


def test_healthchecks_use_the_services_ports() -> None:
    admin = ENVOY["admin"]["address"]["socket_address"]
    asked = {name: " ".join(service["healthcheck"]["test"]) for name, service in SERVICES.items() if name != "sidecar"}
    assert f"/dev/tcp/{admin['address']}/{admin['port_value']}" in asked["envoy"]
    for name in ("demo-model", "local-aim"):
        host, _, port = SERVICES[name]["command"][-1].rpartition(":")
        assert f"('{host}', {port})" in asked[name]


LOCAL = {"AIM_API_KEY": "local", "AIM_API": "firewall", "AIM_API_BASE": "http://127.0.0.1:8090"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, LOCAL),
        ({"AIM_API": "cato"}, LOCAL),
        ({"AIM_API_KEY": "key"}, {"AIM_API_KEY": "key"}),
        ({"AIM_API_KEY": "key", "AIM_API": "cato"}, {"AIM_API_KEY": "key", "AIM_API": "cato"}),
        ({"AIM_API_BASE": "https://aim.example"}, {"AIM_API_BASE": "https://aim.example"}),  # the key is missing
    ],
    ids=["nothing", "an API alone", "a key", "a key and an API", "an address alone"],
)
def test_sidecar_uses_the_local_aim_unless_there_is_a_key(
    given: dict[str, str], expected: dict[str, str], tmp_path: Path
) -> None:
    program = tmp_path / "extproc"
    program.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$*" "AIM_API_KEY=$AIM_API_KEY" "AIM_API=$AIM_API" "AIM_API_BASE=$AIM_API_BASE"\n'
    )
    program.chmod(0o755)
    words = [word.replace("$$", "$") for word in SERVICES["sidecar"]["entrypoint"]]
    unset = dict.fromkeys(SERVICES["sidecar"]["environment"], "")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **unset, **given}
    printed = subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()
    assert printed == [
        "serve",
        *(f"{name}={expected.get(name, '')}" for name in ("AIM_API_KEY", "AIM_API", "AIM_API_BASE")),
    ]


def test_local_aim_listens_where_the_sidecar_looks_for_it() -> None:
    assert all("profiles" not in service for service in SERVICES.values())
    assert SERVICES["local-aim"]["command"] == ["local-aim", "--listen", LOCAL["AIM_API_BASE"].removeprefix("http://")]


def test_key_comes_from_the_environment() -> None:
    environment: dict[str, str] = SERVICES["sidecar"]["environment"]
    taken = {name: re.match(r"\$\{(\w+):", value) for name, value in environment.items()}
    assert "AIM_API_KEY" in taken
    assert [name for name, found in taken.items() if found is None or found[1] != name] == []


def test_unset_variables_keep_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SERVICES["sidecar"]["environment"]:
        monkeypatch.delenv(name, raising=False)
    unset = load()
    for name in SERVICES["sidecar"]["environment"]:
        monkeypatch.setenv(name, "")
    assert load() == unset


def test_stop_grace_period_covers_the_drain() -> None:
    assert int(SERVICES["sidecar"]["stop_grace_period"].removesuffix("s")) > Settings().drain_seconds


def test_mounts_exist_and_are_read_only() -> None:
    mounts = [mount.split(":") for service in SERVICES.values() for mount in service.get("volumes", [])]
    assert mounts
    assert all((ROOT / source).is_file() and mode == "ro" for source, _, mode in mounts)


def test_stand_ins_alone_have_the_packages_of_an_extra() -> None:
    builds = {name: service["build"] for name, service in SERVICES.items() if "build" in service}
    images = {name: SERVICES[name]["image"] for name in builds}
    assert builds.pop("sidecar") == {"context": "."}
    assert images.pop("sidecar") not in images.values()
    assert set(builds) == {"demo-model", "local-aim"}
    for build in builds.values():
        assert (ROOT / "requirements" / f"{build['args']['REQUIREMENTS']}.txt").is_file()


# Dockerfile


def test_dockerfile_has_known_instructions_only() -> None:
    found = instructions()
    assert found[0][0] == "FROM"
    assert {name for name, _ in found} <= INSTRUCTIONS


def test_copied_files_exist_and_are_not_ignored() -> None:
    sent = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), flags=re.MULTILINE))
    copied = {
        source.rstrip("/")
        for name, rest in instructions()
        if name == "COPY" and not rest.startswith("--from=")
        for source in rest.split()[:-1]
    }
    assert copied == sent
    assert [source for source in copied if not (ROOT / source).exists()] == []


def test_stages_are_defined_before_they_are_copied_from() -> None:
    stages: set[str] = set()
    for name, rest in instructions():
        if name == "FROM" and " AS " in rest:
            stages.add(rest.split(" AS ")[1])
        if copied := re.match(r"--from=(\S+)", rest):
            assert copied[1] in stages


def test_packages_are_installed_from_the_hashed_lock() -> None:
    installs = [part for _, rest in instructions() for part in rest.split("&&") if "pip install" in part]
    assert installs
    assert all("--require-hashes" in part or "--no-deps --no-index" in part for part in installs)
    lock = (ROOT / "requirements" / "dev.txt").read_text()
    # The lines that the sed expression of the build stage selects.
    assert re.search(r"^setuptools==\S+ \\\n(?:    --hash=\S+ \\\n)*    --hash=\S+$", lock, flags=re.MULTILINE)


def test_last_stage_runs_as_an_unprivileged_user() -> None:
    last = dict(instructions())
    program, *words = json.loads(last["ENTRYPOINT"]) + json.loads(last["CMD"])
    assert program in {script.name for script in entry_points(group="console_scripts")}
    assert CliRunner().invoke(app, [*words, "--help"]).exit_code == 0
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"])


def test_healthcheck_uses_the_default_admin_port() -> None:
    check = dict(instructions())["HEALTHCHECK"]
    command = json.loads(check[check.index("[") :])
    compile(command[-1], "HEALTHCHECK", "exec")
    assert f"http://{Settings().admin}/healthz" in command[-1]


# Images by digest


def test_images_that_others_build_are_found() -> None:
    named = [match["name"] for file in FILES for match in IMAGE.finditer((ROOT / file).read_text())]
    assert named[:2] == ["python:3.12-slim"] * 2
    assert {name for name in named[2:] if not name.startswith("aim-extproc")} == {SERVICES["envoy"]["image"]}


def test_base_of_the_image_is_pinned() -> None:
    bases = [rest.split(" ")[0] for name, rest in instructions() if name == "FROM"]
    assert len(bases) == 2
    assert len({base.partition("@")[2] for base in bases}) == 1
    assert all(re.fullmatch(r"[\w.:/-]+@sha256:[0-9a-f]{64}", base) for base in bases)


def test_pinning_adds_and_replaces_digests() -> None:
    old, new = (f"sha256:{digit * 64}" for digit in "01")
    dockerfile = (
        "FROM --platform=linux/amd64 python:3{} AS build\nFROM build\nFROM python:3{}\nCOPY --from=build /a /b\n"
    )
    assert pinned(dockerfile.format("", f"@{old}"), lambda image: new) == dockerfile.format(f"@{new}", f"@{new}")
    compose = "services:\n  a:\n    image: aim-extproc:latest\n  b:\n    image: host:5000/envoy:v1 # why\n"
    assert pinned(compose, lambda image: new) == compose.replace("envoy:v1", f"envoy:v1@{new}")


def test_pinning_asks_docker_for_the_digest_of_the_tag(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\ntest "$4" = base:1 && echo sha256:{"a" * 64}\n')
    docker.chmod(0o755)
    file = tmp_path / "Dockerfile"
    file.write_text("FROM base:1\n")
    command = [sys.executable, str(ROOT / "tools" / "pin_images.py"), str(file)]
    subprocess.run(command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=True)
    assert file.read_text() == f"FROM base:1@sha256:{'a' * 64}\n"
