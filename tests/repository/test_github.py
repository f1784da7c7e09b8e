""".github/: workflows and settings match a part of GitHub's schemas, pin what they use, and run commands that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.repository.files import ROOT, repository_files
from tests.repository.test_repository import pyproject

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yaml"))
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")

PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
VERSION = re.compile(r"uses: (\S+@[0-9a-f]{40}) # v\d+\.\d+\.\d+$", re.MULTILINE)
EXPRESSION = re.compile(r"\$\{\{ *(.*?) *\}\}")
# What a stranger can choose: in a script, it could be a command.
FORGEABLE = re.compile(r"github\.(event|head_ref|ref_name|actor)|inputs\.")
CONTEXTS = {"github", "matrix", "needs", "secrets", "steps"}

# The parts that are used here of the schemas for GitHub's files at schemastore.org (github-workflow, dependabot-2.0,
# github-issue-forms).
STRING = {"type": "string", "minLength": 1}
STRINGS = {"type": "array", "minItems": 1, "items": STRING}


def only(*required: str, **properties: Any) -> dict[str, Any]:
    """Return the schema of an object that has these properties alone; `_` in their names stands for a dash."""
    named = {name.replace("_", "-"): schema for name, schema in properties.items()}
    return {"type": "object", "additionalProperties": False, "required": [*required], "properties": named}


PERMISSIONS = {
    "type": "object",
    "additionalProperties": False,
    "patternProperties": {
        "^(actions|attestations|checks|contents|id-token|packages|pull-requests|security-events)$": {
            "enum": ["read", "write", "none"]
        }
    },
}
VALUES = {"type": "object", "additionalProperties": {"type": ["string", "boolean", "number"]}}
STEP = {
    **only(name=STRING, id=STRING, uses=STRING, run=STRING, env=VALUES, **{"with": VALUES, "if": STRING}),
    "oneOf": [{"required": ["uses"]}, {"required": ["run"]}],
    "dependentRequired": {"with": ["uses"]},
}
STRATEGY = only("matrix", fail_fast={"type": "boolean"}, matrix={"type": "object", "additionalProperties": STRINGS})
JOB = {
    **only(
        name=STRING,
        needs={"oneOf": [STRING, STRINGS]},
        runs_on=STRING,
        uses=STRING,
        timeout_minutes={"type": "integer", "minimum": 1},
        permissions=PERMISSIONS,
        outputs=VALUES,
        strategy=STRATEGY,
        steps={"type": "array", "minItems": 1, "items": STEP},
    ),
    "oneOf": [{"required": ["runs-on", "steps", "timeout-minutes"]}, {"required": ["uses"]}],
}
FILTER = only(branches=STRINGS, tags=STRINGS, paths=STRINGS)
NOTHING = {"type": "null"}
WORKFLOW = only(
    *("name", "on", "permissions", "jobs"),
    name=STRING,
    on=only(
        push=FILTER,
        pull_request={"oneOf": [NOTHING, FILTER]},
        schedule={"type": "array", "items": only("cron", cron={"type": "string", "pattern": r"^(\S+ ){4}\S+$"})},
        workflow_call=NOTHING,
        workflow_dispatch=NOTHING,
    ),
    permissions=PERMISSIONS,
    concurrency=only("group", group=STRING, cancel_in_progress={"type": ["string", "boolean"]}),
    jobs={"type": "object", "additionalProperties": JOB, "minProperties": 1},
)
# Names of events and of `pull_request` have underscores.
WORKFLOW["properties"]["on"]["properties"] = {
    name.replace("-", "_"): schema for name, schema in WORKFLOW["properties"]["on"]["properties"].items()
}

UPDATE = {
    **only(
        *("package-ecosystem", "schedule"),
        package_ecosystem={"enum": ["docker", "docker-compose", "github-actions", "pip"]},
        directory=STRING,
        directories=STRINGS,
        schedule=only("interval", interval={"enum": ["daily", "weekly", "monthly"]}),
        cooldown=only(default_days={"type": "integer", "minimum": 1, "maximum": 90}),
        groups={"type": "object", "additionalProperties": only(patterns=STRINGS)},
    ),
    "oneOf": [{"required": ["directory"]}, {"required": ["directories"]}],
}
DEPENDABOT = only("version", "updates", version={"const": 2}, updates={"type": "array", "items": UPDATE})

FIELD = only(
    *("type", "attributes"),
    type={"enum": ["input", "markdown", "textarea"]},
    id={"type": "string", "pattern": "^[a-z-]+$"},
    attributes=only(label=STRING, description=STRING, placeholder=STRING, render=STRING, value=STRING),
    validations=only(required={"type": "boolean"}),
)
FORM = only(
    *("name", "description", "body"),
    name=STRING,
    description=STRING,
    labels=STRINGS,
    body={"type": "array", "items": FIELD},
)


class _Loader(yaml.SafeLoader):
    """Reads YAML 1.2 as GitHub does: `on` is a string."""


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))


def read(path: Path) -> Any:
    return yaml.load(path.read_text(), _Loader)


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = read(path)["jobs"]
    return found


def steps() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield each step of each workflow."""
    for path in WORKFLOWS:
        for job in jobs(path).values():
            for step in job.get("steps", ()):
                yield path, step


each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


@each_workflow
def test_workflow_matches_the_schema(path: Path) -> None:
    jsonschema.validate(read(path), WORKFLOW)


def test_wrong_workflows_do_not_match() -> None:
    job: dict[str, Any] = {"runs-on": "u", "timeout-minutes": 1, "steps": [{"run": "make"}]}
    usual = {"name": "n", "on": {"pull_request": None}, "permissions": {"contents": "read"}, "jobs": {"j": job}}
    jsonschema.validate(usual, WORKFLOW)
    for wrong in (
        usual | {"true": usual["on"]},
        usual | {"permissions": "write-all"},
        usual | {"jobs": {"j": job | {"step": []}}},
        usual | {"jobs": {"j": job | {"steps": [{"run": "make", "uses": "a/b@c"}]}}},
        usual | {"jobs": {"j": {key: value for key, value in job.items() if key != "timeout-minutes"}}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, WORKFLOW)


def test_dependabot_matches_the_schema_and_looks_where_there_are_files() -> None:
    config = read(GITHUB / "dependabot.yml")
    jsonschema.validate(config, DEPENDABOT)
    assert {each["package-ecosystem"] for each in config["updates"]} >= {"pip", "github-actions", "docker"}
    for each in config["updates"]:
        for folder in each.get("directories", [each.get("directory")]):
            assert (ROOT / folder.lstrip("/")).is_dir()


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_form_matches_the_schema(path: Path) -> None:
    form = read(path)
    jsonschema.validate(form, FORM)
    ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(set(ids)) == len(ids)


def test_each_action_is_pinned_by_its_commit_and_names_its_version() -> None:
    for path, step in steps():
        if "uses" in step:
            assert PINNED.fullmatch(step["uses"]), f"{path.name}: {step['uses']}"
            assert step["uses"] in VERSION.findall(path.read_text())


def test_an_action_has_one_version_everywhere() -> None:
    used: dict[str, set[str]] = {}
    for _, step in steps():
        if "uses" in step:
            action, _, commit = step["uses"].partition("@")
            used.setdefault("/".join(action.split("/")[:2]), set()).add(commit)
    assert {action: commits for action, commits in used.items() if len(commits) > 1} == {}


@each_workflow
def test_jobs_and_steps_that_are_named_exist(path: Path) -> None:
    every = jobs(path)
    for name, job in every.items():
        needed = [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])
        assert set(needed) <= every.keys() - {name}
        if "uses" in job:
            assert (ROOT / job["uses"]).is_file()
            assert "workflow_call" in read(ROOT / job["uses"])["on"]
        ids = [step["id"] for step in job.get("steps", ()) if "id" in step]
        for expression in EXPRESSION.findall(yaml.safe_dump(job, width=1000)):
            for context, first, rest in re.findall(r"\b([a-z]+)\.([\w-]+)((?:\.[\w-]+)*)", expression):
                assert context in CONTEXTS
                match context:
                    case "steps":
                        assert first in ids
                    case "needs":
                        assert first in needed
                        assert rest.split(".")[-1] in every[first]["outputs"]
                    case "matrix":
                        assert first in job["strategy"]["matrix"]


def test_commands_of_the_steps_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    ran = "\n".join(step["run"] for _, step in steps() if "run" in step)
    named = [
        word
        for line in re.findall(r"^\s*make ([^|\n]*)", ran, re.MULTILINE)
        for word in line.split()
        if re.fullmatch("[a-z-]+", word)
    ]
    assert {"audit", "chart", "chart-push", "dist", "helm", "sbom"} <= set(named)
    assert set(named) <= targets
    assert ".ci/run" in [step["run"] for step in (step for _, step in steps()) if "run" in step]


def test_scripts_take_what_a_stranger_can_choose_from_the_environment() -> None:
    """The actor's name and the like are data there; in the text of a script they would be a part of the program."""
    for path, step in steps():
        for expression in EXPRESSION.findall(step.get("run", "")):
            assert not FORGEABLE.search(expression), f"{path.name}: {expression}"


@each_workflow
def test_permissions_are_minimal(path: Path) -> None:
    assert read(path)["permissions"] == {"contents": "read"}
    written = {
        name: {scope for scope, level in job.get("permissions", {}).items() if level == "write"}
        for name, job in jobs(path).items()
    }
    assert {name: scopes for name, scopes in written.items() if scopes} == {
        "audit": {},
        "ci": {},
        "codeql": {"analyze": {"security-events"}},
        "release": {
            "packages": {"id-token", "attestations"},
            "image": {"packages", "id-token", "attestations"},
            "chart": {"packages", "id-token"},
            "release": {"contents"},
        },
    }[path.stem]


def test_secrets_are_used_in_the_release_alone_and_never_in_a_script() -> None:
    assert [path.stem for path in WORKFLOWS if "secrets." in path.read_text()] == ["release"]
    assert set(re.findall(r"secrets\.(\w+)", (GITHUB / "workflows" / "release.yaml").read_text())) == {"GITHUB_TOKEN"}
    assert [step for _, step in steps() if "secrets." in step.get("run", "")] == []
    assert read(GITHUB / "workflows" / "release.yaml")["on"] == {"push": {"tags": ["v*"]}}


def test_checkouts_leave_no_credentials_behind() -> None:
    checkouts = [step for _, step in steps() if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)


def test_ci_runs_every_supported_python() -> None:
    classifiers = pyproject()["classifiers"]
    assert isinstance(classifiers, list)
    supported = [found[1] for each in classifiers if (found := re.fullmatch(r".* :: (3\.\d+)", each))]
    assert jobs(GITHUB / "workflows" / "ci.yaml")["test"]["strategy"]["matrix"]["python"] == supported


def test_what_is_released_is_signed_and_has_its_provenance() -> None:
    release = jobs(GITHUB / "workflows" / "release.yaml")
    text = {name: yaml.safe_dump(job) for name, job in release.items()}
    for name in ("packages", "image"):
        assert "actions/attest-build-provenance@" in text[name]
        assert release[name]["needs"] == "ci"
    for name in ("image", "chart"):
        assert "cosign sign --yes" in text[name]
    assert "linux/amd64,linux/arm64" in text["image"]
    assert "sbom" in text["packages"]
    assert "sbom: true" in text["image"]


def test_owned_paths_exist() -> None:
    lines = [line.split() for line in (GITHUB / "CODEOWNERS").read_text().splitlines() if not line.startswith("#")]
    paths = [parts[0] for parts in lines if parts]
    files = {f"/{path.relative_to(ROOT)}" for path in repository_files()}
    assert paths[0] == "*"
    assert [path for path in paths[1:] if not any(file.startswith(path) for file in files)] == []
    assert all(owner.startswith("@") for parts in lines if parts for owner in parts[1:])
