"""examples/: each configuration is what its README renders, and guards traffic through a real Envoy."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
import yaml

from extproc.check import Severity
from extproc.check.envoy import check_envoy
from extproc.config.address import Address
from extproc.config.load import load
from extproc.config.settings import Settings
from tests.envoy.bedrock_apis import CONVERSE
from tests.envoy.case import blocks, redacts
from tests.envoy.test_ai_gateway import insert
from tests.envoy.test_mesh_tls import unhealthy
from tests.fakes.ai_gateway import AIGateway
from tests.fakes.aim import Answer, Question, ScriptedAim, allow
from tests.fakes.controllers import Cluster, envoy_gateway, istio, kgateway
from tests.fakes.envoy import RunningEnvoy, run_envoy, validate
from tests.fakes.process import free_port, serving
from tests.fakes.rig import CHAT, chat_answer, chat_request, manager_of
from tests.fakes.sidecar import sidecar
from tests.fakes.sigv4 import is_signed
from tests.fakes.upstream import ScriptedUpstream, whole
from tests.render.test_meshes import NEWER, WITHOUT_SCHEMA, crds, problems
from tools.examples import EXAMPLES, commands, rendered

FOLDERS = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
PLAIN = ("bedrock", "compose-local-aim", "mcp-server", "plain-envoy", "two-tenants")
MESHES: dict[str, Callable[[list[Any], Cluster], Any]] = {
    "istio-gateway": istio.generated,
    "istio-sidecar": lambda documents, cluster: istio.generated(documents, cluster, context="SIDECAR_OUTBOUND"),
    "envoy-gateway": envoy_gateway.generated,
    "ai-gateway": envoy_gateway.generated,
    "kgateway": kgateway.generated,
}
JSON = {"content-type": "application/json"}


def only_file(name: str) -> Path:
    """Return the file that the README of an example renders."""
    (file,) = commands(EXAMPLES / name)
    return EXAMPLES / name / file


def settings_of(name: str, **changes: Any) -> dict[str, Any]:
    """Return the settings of an example, with the fields of `aim` that a test needs in place of the key's file."""
    written: dict[str, Any] = yaml.safe_load((EXAMPLES / name / "settings.yaml").read_text())
    aim = {key: value for key, value in written["aim"].items() if key != "api_key_file"}
    return {**written, "aim": {**aim, "api_key": "test-key", **changes}}


# Files


def test_each_example_is_tested_and_on_the_page() -> None:
    page = (EXAMPLES / "README.md").read_text()
    assert set(FOLDERS) == {*PLAIN, *MESHES, "agentgateway"}
    assert [name for name in FOLDERS if f"]({name}/README.md)" not in page] == []


@pytest.mark.parametrize("name", FOLDERS)
def test_file_is_what_the_readme_renders(name: str) -> None:
    ((file, arguments),) = commands(EXAMPLES / name).items()
    assert rendered(EXAMPLES / name, arguments) == (EXAMPLES / name / file).read_text(), "run `make examples`"


@pytest.mark.parametrize("name", FOLDERS)
def test_settings_are_valid(name: str) -> None:
    load(EXAMPLES / name / "settings.yaml")


@pytest.mark.parametrize("name", PLAIN)
def test_envoy_accepts_the_configuration(name: str) -> None:
    validate(only_file(name).read_text())


@pytest.mark.corpus
@pytest.mark.parametrize("name", [*MESHES, "agentgateway"])
def test_crds_accept_the_resources(name: str) -> None:
    schemas = crds()
    for document in yaml.safe_load_all(only_file(name).read_text()):
        if document["kind"] not in WITHOUT_SCHEMA:
            schema = schemas[document["apiVersion"], document["kind"]]
            found = problems({"spec": document["spec"]}, schema, document["kind"])
            assert [each for each in found if not NEWER.match(each)] == []


def test_compose_example_is_the_repositorys_compose_file_with_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = EXAMPLES / "compose-local-aim"
    (included,) = yaml.safe_load((folder / "compose.yaml").read_text())["include"]
    compose = yaml.safe_load((folder / included).read_text())
    *_, script = compose["services"]["sidecar"]["entrypoint"]
    exported = dict(word.split("=", 1) for word in script.split() if word.startswith("AIM_"))
    from_file = load(folder / "settings.yaml")
    for name, value in exported.items():
        monkeypatch.setenv(name, value)
    assert load(None) == from_file
    mounted = compose["services"]["envoy"]["volumes"][0].split(":")[0]
    assert (folder / included).parent.joinpath(mounted).read_text() == (folder / "envoy.yaml").read_text()


# Plain Envoy


class Example:
    """A running example: a scripted Aim and model, the sidecar with the example's settings, its Envoy, and a client."""

    def __init__(self, aim: ScriptedAim, upstream: ScriptedUpstream, envoy: RunningEnvoy, settings: Settings) -> None:
        self.aim = aim
        self.upstream = upstream
        self.envoy = envoy
        self.settings = settings

    async def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with httpx.AsyncClient(base_url=self.envoy.url, trust_env=False, timeout=30) as client:
            return await client.post(path, content=content, headers={**JSON, **headers})

    async def errors(self) -> list[str]:
        """Return what `extproc check` finds, without what depends on the version of this Envoy."""
        findings = await check_envoy(self.settings, self.envoy.admin)
        told = [str(each) for each in findings if each.severity is not Severity.OK]
        return [each for each in told if "; upgrade to " not in each]


def placed(tree: Any, sidecar_port: int, model_port: int) -> None:
    """Let a bootstrap listen on free ports, and reach the sidecar and the model on this machine."""
    tree["admin"]["address"]["socket_address"]["port_value"] = 0
    (listener,) = tree["static_resources"]["listeners"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
    ours, model, *_ = tree["static_resources"]["clusters"]
    if model.pop("transport_socket", None):  # without TLS there is no ALPN to choose the protocol by
        (options,) = model["typed_extension_protocol_options"].values()
        options["explicit_http_config"] = {"http_protocol_options": options.pop("auto_config")["http_protocol_options"]}
    for cluster, port in ((ours, sidecar_port), (model, model_port)):
        cluster["type"] = "STATIC"
        address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]


@asynccontextmanager
async def running(
    name: str, edit: Callable[[Any], None] = lambda tree: None, profiles: dict[str, Any] | None = None
) -> AsyncIterator[Example]:
    """Run an example of plain Envoy; `edit` may change its bootstrap, `profiles` replaces those of the settings."""
    async with AsyncExitStack() as stack:
        aim = await stack.enter_async_context(ScriptedAim().running())
        upstream = await stack.enter_async_context(ScriptedUpstream().running())
        changed = settings_of(name, base_url=aim.base)
        settings = Settings.model_validate(changed | ({"profiles": profiles} if profiles else {}))
        guard = await stack.enter_async_context(sidecar(settings))
        tree = yaml.safe_load(only_file(name).read_text())
        placed(tree, guard.port, upstream.port)
        edit(tree)
        envoy = await stack.enter_async_context(run_envoy(yaml.safe_dump(tree)))
        here = settings.model_copy(update={"listen": Address(host="127.0.0.1", port=guard.port)})
        yield Example(aim, upstream, envoy, here)


@pytest.mark.parametrize("name", ["plain-envoy", "compose-local-aim"])
async def test_plain_envoy_guards_chats(name: str) -> None:
    async with running(name) as example:
        blocks("secret")(example.aim)
        example.upstream.answer = whole(chat_answer("Hi"))
        allowed = await example.post(CHAT, chat_request("Hello"))
        blocked = await example.post(CHAT, chat_request("a secret"))
        errors = await example.errors()
    assert (allowed.status_code, blocked.status_code) == (200, 400)
    assert len(example.upstream.requests) == 1
    # The settings of the compose file keep the default, which a client can forge.
    assert len(errors) == (name == "compose-local-aim"), errors


async def test_mcp_server_is_guarded() -> None:
    def call(text: str) -> dict[str, Any]:
        parameters = {"name": "mail", "arguments": {"text": text}}
        return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": parameters}

    async with running("mcp-server") as example:
        blocks("secret", "Not that.")(example.aim)
        result = {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "sent"}]}}
        example.upstream.answer = whole(json.dumps(result).encode())
        accept = {"accept": "application/json, text/event-stream"}
        allowed = await example.post("/mcp", call("Hello"), **accept)
        blocked = await example.post("/mcp", call("a secret"), **accept)
        errors = await example.errors()
    assert allowed.json() == result
    assert blocked.json() == {"jsonrpc": "2.0", "id": 1, "error": {"code": -32001, "message": "Not that."}}
    assert errors == []


async def test_bedrock_request_is_signed_after_its_redaction() -> None:
    secret = "made-up-secret"

    def with_credentials(tree: Any) -> None:
        _, signing, _ = manager_of(tree)["http_filters"]
        inline = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": secret}
        signing["typed_config"]["credential_provider"] = {"inline_credential": inline}

    async with running("bedrock", with_credentials) as example:
        redacts("Jane", "[NAME_1]")(example.aim)
        example.upstream.answer = whole(CONVERSE.answer("Hi"))
        answer = await example.post(CONVERSE.path_of(stream=False), CONVERSE.request("I am Jane"))
        errors = await example.errors()
    assert answer.status_code == 200
    (request,) = example.upstream.requests
    assert request.body == CONVERSE.request("I am [NAME_1]")
    assert is_signed(request, secret)
    assert errors == []


# Two tenants

SECRET = b"the key of the identity provider in this test"
CLAIMS = {"iss": "https://idp.example.com", "aud": "llm", "email": "jane@acme.example", "azp": "chat-app", "sid": "s1"}


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def token(secret: bytes = SECRET, **claims: Any) -> str:
    """Return the value of the header `authorization` for a signed token."""
    head, body = (
        encoded(json.dumps(each).encode())
        for each in ({"alg": "HS256", "kid": "1"}, {**CLAIMS, "exp": int(time.time()) + 600, **claims})
    )
    signature = hmac.digest(secret, f"{head}.{body}".encode(), hashlib.sha256)
    return f"Bearer {head}.{body}.{encoded(signature)}"


def with_keys_of_the_test(tree: Any) -> None:
    """Replace the keys that Envoy would fetch from the identity provider."""
    provider = manager_of(tree)["http_filters"][0]["typed_config"]["providers"]["idp"]
    del provider["remote_jwks"]
    keys = [{"kty": "oct", "alg": "HS256", "kid": "1", "k": encoded(SECRET)}]
    provider["local_jwks"] = {"inline_string": json.dumps({"keys": keys})}
    idp = tree["static_resources"]["clusters"].pop()
    assert idp["name"] == "idp"


async def guards(question: Question) -> Answer:
    """Block the word `merger` for the key of Acme alone."""
    if question.headers["authorization"] == "Bearer key-of-acme" and "merger" in question.texts[-1]:
        return {"required_action": {"action_type": "block_action", "detection_message": "acme says no"}}
    return await allow(question)


@pytest.fixture
def profiles(tmp_path: Path) -> dict[str, Any]:
    """Write the key files of the teams; return the profiles of the example with them."""
    found: dict[str, Any] = settings_of("two-tenants")["profiles"]
    for name in ("acme", "globex"):
        (tmp_path / name).write_text(f"key-of-{name}")
        found[name]["api_key_file"] = str(tmp_path / name)
    return found


async def test_each_team_has_its_guard_by_its_token(profiles: dict[str, Any]) -> None:
    async with running("two-tenants", with_keys_of_the_test, profiles) as example:
        example.aim.judge = guards
        example.upstream.answer = whole(chat_answer("Fine"))
        forged = {"x-extproc-profile": "globex", "x-aim-user-email": "boss@acme.example", "x-cato-user-email": "boss"}
        acme = await example.post(CHAT, chat_request("the merger"), authorization=token(team="acme"), **forged)
        globex = await example.post(
            CHAT, chat_request("the merger"), authorization=token(team="globex", email="joe@globex.example", azp="bot")
        )
        errors = await example.errors()
    assert (acme.status_code, globex.status_code) == (400, 200)
    assert acme.json()["error"]["message"] == "acme says no"
    (request,) = example.upstream.requests
    assert request.header("authorization") is None
    asked = [question.headers for question in example.aim.asked("pre_call")]
    names = ("authorization", "x-cato-user-email", "x-cato-gateway-key-alias", "x-cato-session-id")
    assert [tuple(headers.get(name) for name in names) for headers in asked] == [
        ("Bearer key-of-acme", "jane@acme.example", "chat-app", "s1"),
        ("Bearer key-of-globex", "joe@globex.example", "bot", "s1"),
    ]
    assert errors == []


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        (token(secret=b"another key", team="acme"), 401),
        (token(team="acme", aud="other"), 403),
        (token(team="initech"), 403),
        (token(), 403),
    ],
    ids=["no token", "another signature", "another audience", "another team", "no team"],
)
async def test_others_reach_neither_model_nor_aim(
    authorization: str | None, status: int, profiles: dict[str, Any]
) -> None:
    async with running("two-tenants", with_keys_of_the_test, profiles) as example:
        given = {} if authorization is None else {"authorization": authorization}
        answer = await example.post(CHAT, chat_request("Hello"), **given)
    assert answer.status_code == status
    assert example.upstream.requests == []
    assert example.aim.questions == []


# Meshes


def write_settings(name: str, folder: Path, aim: ScriptedAim, ports: tuple[int, int], authority: trustme.CA) -> Path:
    """Write the settings of an example with the addresses, the key and the certificate of this test."""
    settings = settings_of(name, base_url=aim.base)
    settings |= {"listen": f"127.0.0.1:{ports[0]}", "admin": f"127.0.0.1:{ports[1]}"}
    if "tls" in settings:
        leaf = authority.issue_cert("aim-extproc.guards.svc")
        leaf.private_key_pem.write_to_path(str(folder / "tls.key"))
        leaf.cert_chain_pems[0].write_to_path(str(folder / "tls.crt"))
        settings["tls"] = {"cert_file": str(folder / "tls.crt"), "key_file": str(folder / "tls.key")}
    file = folder / "settings.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


@pytest.mark.parametrize("name", MESHES)
async def test_mesh_guards_chats_with_the_resources(name: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        aim = await stack.enter_async_context(ScriptedAim().running())
        upstream = await stack.enter_async_context(ScriptedUpstream().running())
        gateway = await stack.enter_async_context(AIGateway().running())
        authority = trustme.CA()
        ports = free_port(4), free_port(4)
        config = write_settings(name, tmp_path, aim, ports, authority)
        await stack.enter_async_context(serving(config))
        ca = "" if name == "istio-sidecar" else authority.cert_pem.bytes().decode()
        documents = list(yaml.safe_load_all(only_file(name).read_text()))
        tree = MESHES[name](documents, Cluster([ports[0]], upstream.port, tmp_path, ca))
        if name == "ai-gateway":
            insert(gateway, tree)
        envoy = await stack.enter_async_context(run_envoy(yaml.safe_dump(tree)))
        await unhealthy(envoy, 0)
        redacts("secret", "[X]")(aim)
        upstream.answer = whole(chat_answer("Hi"))
        url = next(url for listener, url in envoy.urls.items() if listener != "virtualOutbound")
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
            answer = await client.post(CHAT, json=chat_request("a secret"))
        errors = [
            str(each)
            for each in await check_envoy(load(config, serving=True), envoy.admin)
            if each.severity is Severity.ERROR
        ]
    assert answer.status_code == 200
    (request,) = upstream.requests
    assert b"a [X]" in request.body
    assert errors == []
