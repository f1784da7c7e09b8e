"""The settings: file, environment and defaults. All problems are reported at once."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from extproc.config.address import Address
from extproc.config.described import described
from extproc.config.load import load
from extproc.config.model import Model
from extproc.config.profile import Profile
from extproc.config.settings import Settings
from extproc.core.dialects.paths import route
from extproc.core.errors import Reason, SettingsError
from extproc.core.policy import Inspect, Unmatched
from extproc.core.vocabulary import Hook, Leg

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIM_API_KEY", "AIM_API_KEY_FILE", "AIM_API_BASE", "AIM_API", "EXTPROC_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return path


def problems(path: Path | None = None, *, serving: bool = False) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(path, serving=serving)
    return list(caught.value.problems)


def test_reference_shows_the_defaults() -> None:
    """docs/settings.md has every field with its default, and no other field."""
    text = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/settings.md").read_text(), re.DOTALL)[0]
    documented = yaml.safe_load(text)
    assert Settings(**documented) == Settings()
    assert _names(documented) == _names(Settings().model_dump(by_alias=True))


def test_reference_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("settings_reference", ROOT / "tools" / "settings_reference.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    text = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/settings.md").read_text(), re.DOTALL)[0]
    assert text == tool.reference(), "run `make docs`"


def _names(node: Any) -> Any:
    if not isinstance(node, dict) or set(node) == {"host", "port", "path"}:
        return None
    return {name: _names(value) for name, value in node.items() if name not in ("paths",)}


def test_environment_overrides_file_and_file_overrides_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, "workers: 2\naim: {api: cato, api_key: file-key}\nlimits: {streams: 7}\n")
    monkeypatch.setenv("EXTPROC_WORKERS", "3")
    monkeypatch.setenv("EXTPROC_AIM__TIMEOUT_SECONDS", "1.5")
    monkeypatch.setenv("EXTPROC_PROFILES__DEFAULT__HOOKS", '["output"]')
    monkeypatch.setenv("AIM_API", "firewall")
    settings = load(path)
    assert (settings.workers, settings.aim.api, settings.limits.streams) == (3, "firewall", 7)
    assert settings.aim.timeout_seconds == 1.5
    assert settings.aim.api_key.get_secret_value() == "file-key"
    assert settings.profiles["default"].hooks == {Hook.OUTPUT}
    monkeypatch.setenv("EXTPROC_CONFIG", str(path))
    assert load() == settings


def test_key_file_in_the_environment_overrides_a_key_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIM_API_KEY_FILE", str(tmp_path / "key"))
    settings = load(written(tmp_path, "aim: {api_key: file-key}\n"))
    assert settings.aim.api_key.get_secret_value() == ""
    assert settings.aim.api_key_file == tmp_path / "key"


@pytest.mark.parametrize("name", ["paths", "models"])
def test_ordered_map_in_the_environment_replaces_that_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    of_file, own = {
        "paths": ({"/x/*": "block", "/keep": "block"}, {"/x/open": "pass"}),
        "models": ({"gpt-*": "default", "keep": "default"}, {"gpt-4": "models"}),
    }[name]
    profiles = {"default": {name: of_file, "sample": 0.5}, "other": {name: of_file}, "models": {"sample": 0.1}}
    path = written(tmp_path, json.dumps({"profiles": profiles}))
    monkeypatch.setenv(f"EXTPROC_PROFILES__DEFAULT__{name.upper()}", json.dumps(own))
    found = load(path).profiles
    assert getattr(found["default"], name) == own
    assert getattr(found["other"], name) == of_file
    assert (found["default"].sample, found["models"].sample) == (0.5, 0.1)
    monkeypatch.setenv("EXTPROC_PROFILES", json.dumps({"default": {name: {}}}))
    monkeypatch.delenv(f"EXTPROC_PROFILES__DEFAULT__{name.upper()}")
    assert getattr(load(path).profiles["default"], name) == {}


@pytest.mark.parametrize(
    ("of_file", "response_opens"),
    [
        ("true", {Reason.TIMEOUT, Reason.SESSION}),
        ("[timeout]", {Reason.TIMEOUT}),
        ("{response: [session]}", {Reason.SESSION}),
    ],
)
def test_one_leg_in_the_environment_leaves_the_other_as_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_file: str, response_opens: set[Reason]
) -> None:
    monkeypatch.setenv("EXTPROC_PROFILES__DEFAULT__FAILURE_MODE_ALLOW__REQUEST", "false")
    path = written(tmp_path, f"profiles: {{default: {{failure_mode_allow: {of_file}}}}}\n")
    allow = load(path).profiles["default"].failure_mode_allow
    assert not allow.request
    assert allow.response & {Reason.TIMEOUT, Reason.SESSION} == response_opens
    monkeypatch.setenv("EXTPROC_PROFILES__DEFAULT__FAILURE_MODE_ALLOW", "false")
    monkeypatch.delenv("EXTPROC_PROFILES__DEFAULT__FAILURE_MODE_ALLOW__REQUEST")
    allow = load(path).profiles["default"].failure_mode_allow
    assert (allow.request, allow.response) == (frozenset(), frozenset())


def test_groups_in_the_environment_keep_the_rest_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
aim: {breaker: {failures: 3, open_seconds: 4}}
profiles:
  default:
    refusal: {status: 451}
    inspect: {files: true, tools: false}
    user_email: ["header:a", "header:b"]
    hooks: [pre_call, output]
"""
    monkeypatch.setenv("EXTPROC_AIM__BREAKER__FAILURES", "5")
    monkeypatch.setenv("EXTPROC_PROFILES__DEFAULT__REFUSAL__AS", "answer")
    monkeypatch.setenv("EXTPROC_PROFILES__DEFAULT__INSPECT__TOOLS", "true")
    monkeypatch.setenv("EXTPROC_PROFILES__DEFAULT__USER_EMAIL", '["header:c"]')
    monkeypatch.setenv("EXTPROC_PROFILES__DEFAULT__HOOKS", '["output"]')
    settings = load(written(tmp_path, text))
    profile = settings.profiles["default"]
    assert (settings.aim.breaker.failures, settings.aim.breaker.open_seconds) == (5, 4)
    assert (profile.refusal.form, profile.refusal.status) == ("answer", 451)
    assert (profile.inspect.files, profile.inspect.tools) == (True, True)
    assert [source.name for source in profile.user_email] == ["c"]
    assert profile.hooks == {Hook.OUTPUT}


@pytest.mark.parametrize("text", ["aim: firewall", "limits: 5", "profiles: [a]", "profiles: {default: strict}"])
def test_variables_do_not_hide_a_wrong_group_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("AIM_API_KEY", "k")
    monkeypatch.setenv("EXTPROC_LIMITS__STREAMS", "7")
    monkeypatch.setenv("EXTPROC_PROFILES__DEFAULT__SAMPLE", "0.5")
    (found,) = problems(written(tmp_path, text), serving=True)
    assert found.startswith(text.partition(":")[0])


def test_key_file_of_any_variable_overrides_a_key_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTPROC_AIM__API_KEY_FILE", str(tmp_path / "key"))
    settings = load(written(tmp_path, "aim: {api_key: file-key}\n"))
    assert settings.aim.api_key.get_secret_value() == ""
    assert settings.aim.api_key_file == tmp_path / "key"


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    text = """
listen: nowhere
workers: 0
colour: blue
aim: {api: other, base_url: "ftp://x", breaker: {failures: no}}
tls: {cert_file: /x}
profiles:
  "a b": {}
  default: {hooks: [output, zap], paths: {"/x": nope}, user_email: ["cookie:x"], failure_mode_allow: [zap]}
"""
    found = problems(written(tmp_path, text))
    for setting in (
        "listen:",
        "workers:",
        "colour: unknown setting",
        "aim.api:",
        "aim.base_url:",
        "aim.breaker.failures:",
        "tls:",
        "profiles.default.hooks",
        "profiles.default.paths:",
        "profiles.default.user_email",
        "profiles.default.failure_mode_allow",
    ):
        assert any(problem.startswith(setting) for problem in found), (setting, found)


def test_each_wrong_entry_of_a_profile_is_named(tmp_path: Path) -> None:
    text = """
profiles:
  "a b": {}
  "c\\nd": {}
  default:
    paths: {"/x": nope, "POST y": pass, "/{z}": "{other}", "/good": pass}
    models: {"": default, m: none, "n": [1]}
    user_email: ["cookie:x", "header:ok", 5, "header:"]
    hooks: [zap, output, zip]
    unmatched: x
  strict: {models: {m: nowhere, n: default}, enforce: false}
  dry: {enforce: 5, models: {m: default}}
"""
    found = problems(written(tmp_path, text))
    assert sorted(problem.partition(": ")[0] for problem in found) == sorted(
        [
            "profiles.a b",
            "profiles.c d",
            *["profiles.default.paths"] * 3,
            *["profiles.default.models"] * 3,
            *[f"profiles.default.user_email.{each}" for each in (0, 2, 3)],
            *[f"profiles.default.hooks.{each}" for each in (0, 2)],
            "profiles.default.unmatched",
            *["profiles.strict.models"] * 2,
            "profiles.dry.enforce",
        ]
    )
    for entry in (
        "'/x'",
        "'POST y'",
        "'/{z}': unknown dialect '{other}'",
        "'': ",
        "unknown profile none; known: default, a b",
    ):
        assert any(entry in problem for problem in found), (entry, found)


@pytest.mark.parametrize("source", [{"kind": "header", "name": "x"}, None, ["header:x"]])
def test_source_of_identity_is_text(tmp_path: Path, source: Any) -> None:
    (problem,) = problems(written(tmp_path, json.dumps({"profiles": {"default": {"key_alias": [source]}}})))
    assert problem == "profiles.default.key_alias.0: a source is text, such as header:NAME"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "config: "),
        ("workers: 1\nworkers: 2\n", "the key 'workers' is repeated"),
        ("- a\n", "must hold a mapping of settings"),
    ],
)
def test_file_that_is_not_a_mapping_is_a_problem(tmp_path: Path, text: str, problem: str) -> None:
    (found,) = problems(written(tmp_path, text))
    assert problem in found


@pytest.mark.parametrize(
    "text",
    [
        "aim: {base_url: 'http://[::1'}",
        "aim: {base_url: 'http://x:99999'}",
        "aim: {base_url: 'http://ho\\st'}",
        "aim: {proxy: 'http://:80'}",
        "profiles: {default: {user_email: 5}}",
        "a: " + "[" * 3000,
    ],
)
def test_values_of_other_types_are_problems(tmp_path: Path, text: str) -> None:
    assert problems(written(tmp_path, text))


@pytest.mark.parametrize("value", ["true", "false"])
@pytest.mark.parametrize(
    ("text", "setting", "kind"),
    [
        ("workers: {}", "workers", "integer"),
        ("listen: {{host: x, port: {}}}", "listen.port", "integer"),
        ("drain_seconds: {}", "drain_seconds", "number"),
        ("limits: {{streams: {}}}", "limits.streams", "integer"),
        ("limits: {{request_bytes: {}}}", "limits.request_bytes", "integer"),
        ("aim: {{timeout_seconds: {}}}", "aim.timeout_seconds", "number"),
        ("aim: {{breaker: {{failures: {}}}}}", "aim.breaker.failures", "integer"),
        ("profiles: {{a: {{stream_ping_seconds: {}}}}}", "profiles.a.stream_ping_seconds", "number"),
    ],
)
def test_boolean_is_not_a_number(tmp_path: Path, text: str, setting: str, kind: str, value: str) -> None:
    expected = f"{setting}: Input should be a valid {kind}"
    assert problems(written(tmp_path, text.format(value))) == [expected]
    assert problems(written(tmp_path, text.format("[1]"))) == [expected], "as for any other wrong kind"


def test_every_number_refuses_booleans() -> None:
    """A number in a model without the common base class would accept them."""

    def numbers(model: type[BaseModel]) -> Iterator[tuple[type[BaseModel], str]]:
        for name, field in model.model_fields.items():
            kinds = (field.annotation, *get_args(field.annotation))
            for kind in kinds:
                if isinstance(kind, type) and issubclass(kind, Model):
                    yield from numbers(kind)
            if any(kind in (int, float) for kind in kinds):
                yield model, name

    found = list(numbers(Settings))
    assert len(found) > 15
    for model, name in found:
        with pytest.raises(ValidationError, match=r"should be a valid (integer|number)"):
            model.model_validate({name: True})


def test_variables_may_be_numbers_and_booleans(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "LIMITS__STREAMS": "7",
        "DRAIN_SECONDS": "0.5",
        "ASSUME_FULL_DUPLEX": "1",
        "AIM__VERIFY": "false",
        "PROFILES__DEFAULT__ENFORCE": "false",
        "PROFILES__DEFAULT__FAILURE_MODE_ALLOW": "true",
    }.items():
        monkeypatch.setenv(f"EXTPROC_{name}", value)
    settings = load()
    profile = settings.profiles["default"]
    assert (settings.limits.streams, settings.drain_seconds) == (7, 0.5)
    assert (settings.assume_full_duplex, settings.aim.verify, profile.enforce) == (True, False, False)
    assert Reason.TIMEOUT in profile.failure_mode_allow.request
    monkeypatch.setenv("EXTPROC_LIMITS", '{"headers": true}')
    assert problems() == ["limits.headers: Input should be a valid integer"]


def test_unusable_files_are_problems(tmp_path: Path) -> None:
    path = tmp_path / "pem"
    path.write_text("no certificate")
    text = json.dumps({"aim": {"api_key": "k"}, "tls": {"cert_file": str(path), "key_file": str(path)}})
    (found,) = problems(written(tmp_path, text), serving=True)
    assert found.startswith("tls.cert_file:")
    (found,) = problems(written(tmp_path, json.dumps({"aim": {"api_key_file": "a\0b"}})), serving=True)
    assert found.startswith("aim.api_key_file:")


def test_grpcio_is_the_only_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(written(tmp_path, "engine: grpcio\n")) == Settings()
    expected = ["engine: must be grpcio, the only engine that is built; nghttp2 is not"]
    for value in ("nghttp2", "uring", "[grpcio]"):
        assert problems(written(tmp_path, f"engine: {value}\n")) == expected
    monkeypatch.setenv("EXTPROC_ENGINE", "nghttp2")
    assert problems() == expected
    monkeypatch.setenv("EXTPROC_ENGINE", "grpcio")
    assert load(written(tmp_path, "engine: nghttp2\n")).engine == "grpcio"


def test_missing_file_is_a_problem(tmp_path: Path) -> None:
    assert problems(tmp_path / "no.yaml")[0].startswith("config: cannot read")


def test_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load(written(tmp_path, "")) == Settings()


def test_variable_that_is_not_json_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTPROC_PROFILES", "{")
    assert problems() == ["profiles: EXTPROC_PROFILES is not valid JSON"]


def test_variables_that_are_not_json_are_named_and_hide_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "EXTPROC_PROFILES__DEFAULT__ROUTES": "a*secret",
        "extproc_profiles__strict__hooks": "output",
        "EXTPROC_PROFILES__OTHER": "{",
        "EXTPROC_TLS": "[" * 100_000,
        "EXTPROC_ZAP": "1",
        "EXTPROC_DRAIN_SECONDS": "-1",
    }.items():
        monkeypatch.setenv(name, value)
    found = problems(written(tmp_path, "workers: 0\nfoo: 1\n"))
    assert [problem.removesuffix(" is not valid JSON") for problem in found[:5]] == [
        "environment: EXTPROC_ZAP is not a setting",
        "tls: EXTPROC_TLS",
        "profiles.default.routes: EXTPROC_PROFILES__DEFAULT__ROUTES",
        "profiles.strict.hooks: extproc_profiles__strict__hooks",
        "profiles.other: EXTPROC_PROFILES__OTHER",
    ]
    assert sorted(problem.split(":")[0] for problem in found[5:]) == ["drain_seconds", "foo", "workers"]
    assert "secret" not in str(found)
    found = problems(tmp_path / "none.yaml")
    assert len(found) == 6
    assert found[-1].startswith("config:")


@pytest.mark.parametrize("key", ["sec\nret", "sec ret", "s\xe9cret"])
def test_problem_with_a_key_does_not_show_the_key(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("AIM_API_KEY", key)
    (found,) = problems()
    assert found.startswith("aim.api_key:")
    assert "ret" not in found


def test_a_key_is_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIM_API_KEY", "very-secret")
    settings = load()
    assert "very-secret" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


def test_misspelt_variable_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTPROC_LISTN", "x")
    assert problems() == ["environment: EXTPROC_LISTN is not a setting"]


def test_variables_of_kubernetes_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVICE_HOST", "SERVICE_PORT_GRPC", "PORT", "PORT_50051_TCP_ADDR", "ADMIN_SERVICE_HOST"):
        monkeypatch.setenv(f"EXTPROC_{name}", "x")
    assert load() == Settings()


def test_password_in_a_base_url_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIM_API_BASE", "http://user:secret@host")
    (found,) = problems()
    assert found.startswith("aim.base_url:")
    assert "secret" not in found


class TestServing:
    def test_a_missing_key_names_the_variable(self) -> None:
        (found,) = problems(serving=True)
        assert "AIM_API_KEY" in found

    def test_files_must_be_readable_and_not_empty(self, tmp_path: Path) -> None:
        empty = tmp_path / "empty"
        empty.write_text("\n")
        text = json.dumps(
            {
                "aim": {"api_key_file": str(empty), "ca_file": str(tmp_path / "none")},
                "tls": {"cert_file": str(tmp_path / "c"), "key_file": str(tmp_path / "k")},
                "profiles": {"b": {"api_key_file": str(tmp_path / "b")}},
                "listen": "127.0.0.1:65535",
                "workers": 2,
            }
        )
        found = problems(written(tmp_path, text), serving=True)
        names = [problem.split(":")[0] for problem in found]
        assert names == [
            "workers",
            "aim.api_key_file",
            "aim.ca_file",
            "tls.cert_file",
            "tls.key_file",
            "profiles.b.api_key_file",
        ]

    @pytest.mark.parametrize("text", ["foo: 1", "workers: 0", "aim: {x: 5}", "profiles: {default: {hooks: [x]}}"])
    def test_missing_key_is_reported_beside_other_problems(self, tmp_path: Path, text: str) -> None:
        found = problems(written(tmp_path, text), serving=True)
        assert len(found) == 2
        assert "AIM_API_KEY" in found[1]

    @pytest.mark.parametrize(
        "text", ["aim: {api_key: [k]}", "aim: {api_key: 'a b'}", "aim: 5", "aim: {api_key_file: 5}"]
    )
    def test_wrong_key_is_not_a_missing_key(self, tmp_path: Path, text: str) -> None:
        (found,) = problems(written(tmp_path, text), serving=True)
        assert found.startswith("aim")

    @pytest.mark.parametrize(("name", "count"), [("AIM", 1), ("PROFILES", 1), ("LIMITS", 2)])
    def test_variable_that_cannot_be_read_may_hold_the_key(
        self, monkeypatch: pytest.MonkeyPatch, name: str, count: int
    ) -> None:
        monkeypatch.setenv(f"EXTPROC_{name}", "{")
        assert len(problems(serving=True)) == count

    def test_files_are_checked_beside_other_problems(self, tmp_path: Path) -> None:
        pem = tmp_path / "pem"
        pem.write_text("no certificate")
        none = str(tmp_path / "none")
        text = json.dumps(
            {
                "workers": 0,
                "aim": {"api": "x", "api_key": "k", "ca_file": none},
                "tls": {"cert_file": str(pem), "key_file": str(pem), "client_ca_file": none, "x": 1},
                "audit": {"file": f"{none}/x", "format": "x", "key_file": [1]},
                "profiles": {"default": {"api_key_file": none, "hooks": 1}, "b": 5, "c d": {}},
            }
        )
        found = [problem.partition(": ")[0] for problem in problems(written(tmp_path, text), serving=True)]
        assert found[-5:] == [
            "audit.file",
            "aim.ca_file",
            "tls.client_ca_file",
            "profiles.default.api_key_file",
            "tls.cert_file",
        ]
        assert len(found) == len(set(found))

    def test_keys_of_every_profile_are_enough(self, tmp_path: Path) -> None:
        key = tmp_path / "key"
        key.write_text("k\n")
        load(written(tmp_path, json.dumps({"profiles": {"default": {"api_key_file": str(key)}}})), serving=True)


@pytest.mark.parametrize(
    ("text", "shown", "second"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051", "127.0.0.1:50052"),
        ("[::1]:5", "[::1]:5", "[::1]:6"),
        ("localhost:0", "localhost:0", "localhost:1"),
        ("unix:/run/x.sock", "unix:/run/x.sock", "unix:/run/x.sock-1"),
    ],
)
def test_addresses_are_parsed(text: str, shown: str, second: str) -> None:
    address = Address.parse(text)
    assert str(address) == shown
    assert address.for_worker(0) == address
    assert str(address.for_worker(1)) == second


@pytest.mark.parametrize(
    "text",
    ["", "x", "x:", ":1", "x:70000", "unix:relative", "unix:/", "unix:/x" + 100 * "y", "::1:5", "http://x:1", "a b:1"],
)
def test_text_that_is_not_an_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|unix"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("value", "request_opens", "response_opens"),
    [
        (True, {Reason.TIMEOUT}, {Reason.TIMEOUT}),
        (False, set(), set()),
        (["timeout", "key_refused"], {Reason.TIMEOUT, Reason.KEY_REFUSED}, {Reason.TIMEOUT, Reason.KEY_REFUSED}),
        ({"response": True}, set(), {Reason.TIMEOUT}),
    ],
)
def test_failure_modes_are_parsed(value: Any, request_opens: set[Reason], response_opens: set[Reason]) -> None:
    mode = (
        Profile(failure_mode_allow=value)
        .policy("default", timeout_seconds=1, verdict_timeout_seconds=1)
        .failure_mode_allow
    )
    for leg, opens in ((Leg.REQUEST, request_opens), (Leg.RESPONSE, response_opens)):
        tried = (Reason.TIMEOUT, Reason.KEY_REFUSED)
        assert {reason for reason in tried if mode.opens(leg, reason)} == opens


@pytest.mark.parametrize(
    ("value", "inspected"),
    [
        ({}, {Inspect.TOOLS}),
        ({"tools": False}, set()),
        ({"embeddings": True}, {Inspect.EMBEDDINGS, Inspect.TOOLS}),
        ({"files": True}, {Inspect.FILES, Inspect.TOOLS}),
    ],
)
def test_tool_definitions_are_inspected_unless_they_are_switched_off(value: Any, inspected: set[Inspect]) -> None:
    assert Profile(inspect=value).policy("default", timeout_seconds=1, verdict_timeout_seconds=1).inspect == inspected


def test_pings_are_off_or_at_least_a_second_apart(tmp_path: Path) -> None:
    assert [Profile(stream_ping_seconds=seconds).stream_ping_seconds for seconds in (0, 1, 300)] == [0, 1, 300]
    (problem,) = problems(written(tmp_path, "profiles: {default: {stream_ping_seconds: 0.000001}}\n"))
    assert problem == "profiles.default.stream_ping_seconds: must be 0, or at least 1"


def test_paths_of_a_profile_have_methods_in_upper_case_and_known_targets(tmp_path: Path) -> None:
    text = """
aim: {api_key: k}
profiles:
  default:
    unmatched: block
    paths: {"get  /v1/models": pass, "GET /v1/models": block, "*/llm": gemini, "/x/*": inspect, "PATCH /y": generic}
"""
    profile = load(written(tmp_path, text)).profiles["default"]
    policy = profile.policy("default", timeout_seconds=1, verdict_timeout_seconds=1)
    assert policy.unmatched is Unmatched.BLOCK
    assert list(policy.paths.items()) == [
        ("GET /v1/models", "pass"),
        ("*/llm", "gemini"),
        ("/x/*", "inspect"),
        ("PATCH /y", "generic"),
    ]


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("/internal/", "/internal"),
        ("/internal/", "/internal/"),
        ("POST /admin/x/", "/admin/x"),
        ("/ext/a%2Fb", "/ext/a%2fb"),
        ("/ext/c;d", "/ext/c;e"),
        ("//a//b", "/a/b"),
        ("/sp%20ace/*", "/sp%20ace/x"),
    ],
)
def test_key_of_paths_matches_however_it_is_spelled(tmp_path: Path, key: str, path: str) -> None:
    text = f"profiles: {{default: {{paths: {{{json.dumps(key)}: block}}}}}}"
    policy = load(written(tmp_path, text)).policies["default"]
    assert route("POST", path, policy.paths).unmatched is Unmatched.BLOCK


@pytest.mark.parametrize("key", ["x", "GET", "GET x", "/a b", "G@T /x", "", " /x", "GET PUT /x", "/a;*", "/x/*/../y"])
def test_key_of_paths_is_a_glob_with_or_without_a_method(tmp_path: Path, key: str) -> None:
    text = f"profiles: {{default: {{paths: {{{json.dumps(key)}: pass}}}}}}"
    assert any(problem.startswith("profiles.default.paths:") for problem in problems(written(tmp_path, text)))


def test_unmatched_is_inspected_by_default(tmp_path: Path) -> None:
    assert load(written(tmp_path, "aim: {api_key: k}\n")).profiles["default"].unmatched == "inspect"
    assert any("unmatched" in each for each in problems(written(tmp_path, "profiles: {default: {unmatched: maybe}}")))


def test_models_lead_to_the_policies_of_other_profiles(tmp_path: Path) -> None:
    text = """
aim: {api_key: k}
profiles:
  default: {models: {"gpt-4*": strict, "*": default}}
  strict: {hooks: [moderation], models: {"*": default}}
"""
    policies = load(written(tmp_path, text)).policies
    chosen = policies["default"].models["gpt-4*"]
    assert (chosen.name, set(chosen.hooks)) == ("strict", {Hook.MODERATION})
    assert not chosen.models  # one step, never a chain
    assert policies["strict"].models["*"].name == "default"


@pytest.mark.parametrize(
    ("profile", "problem"),
    [
        ("{models: {x: other}}", "default.models: unknown profile other; known: default"),
        ("{models: {x: default}, enforce: false}", "models needs a profile that enforces and has a hook"),
        ("{models: {x: default}, hooks: []}", "models needs a profile that enforces and has a hook"),
        ('{models: {"": default}}', "String should have at least 1 character"),
    ],
)
def test_models_that_cannot_apply_are_refused(tmp_path: Path, profile: str, problem: str) -> None:
    (found,) = problems(written(tmp_path, f"profiles: {{default: {profile}}}"))
    assert problem in found


@pytest.mark.parametrize(("text", "answers"), [("{as: answer}", True), ("{as: error}", False), ("{}", False)])
def test_blocks_become_answers_if_the_profile_says_so(tmp_path: Path, text: str, answers: bool) -> None:
    settings = load(written(tmp_path, f"profiles: {{default: {{refusal: {text}}}}}\n"))
    assert settings.policies["default"].answers_blocks is answers


def test_form_of_a_refusal_has_one_name(tmp_path: Path) -> None:
    assert problems(written(tmp_path, "profiles: {default: {refusal: {form: answer}}}\n")) == [
        "profiles.default.refusal.form: unknown setting"
    ]
    (problem,) = problems(written(tmp_path, "profiles: {default: {refusal: {as: text}}}\n"))
    assert problem.startswith("profiles.default.refusal.as: ")
    assert "profiles.default.refusal.as" in {each.name for each in described(Settings())}


def test_audit_file_that_hangs_prevents_no_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python cannot make a mount hang, so the look at the file does."""
    monkeypatch.setenv("AIM_API_KEY", "key")
    recovered = threading.Event()
    monkeypatch.setattr(os, "access", lambda *_: recovered.wait(60))
    try:
        assert load(
            written(tmp_path, json.dumps({"audit": {"file": str(tmp_path / "audit")}})), serving=True
        ).audit.file
        assert not recovered.is_set()
    finally:
        recovered.set()


def test_audit_file_in_a_folder_that_must_not_be_searched_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIM_API_KEY", "key")

    def refuse(*_: object) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "access", refuse)  # root may search any folder
    text = json.dumps({"audit": {"file": str(tmp_path / "audit")}})
    assert problems(written(tmp_path, text), serving=True) == [f"audit.file: cannot write {tmp_path / 'audit'}"]
