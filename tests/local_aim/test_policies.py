"""The policies file of the local Aim: what is accepted, and how problems are reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from extproc.local_aim.judge import Judge
from extproc.local_aim.policies import PoliciesError, load, parse


def policy(**fields: Any) -> dict[str, Any]:
    return {"name": "p", "kind": "keywords", "keywords": ["night fall"], "action": "block", **fields}


def problems(document: object) -> list[str]:
    with pytest.raises(PoliciesError) as caught:
        parse(document)
    return caught.value.problems


def test_default_file_is_valid() -> None:
    policies = load()
    assert policies.api_keys == ()
    assert [p.name for p in policies.policies] == [
        "email",
        "phone",
        "payment card",
        "iban",
        "api key",
        "prompt injection",
        "confidential projects",
        "competitors",
    ]
    assert "prompt injection" not in [d.policy for d in policies.detectors("output")]


def test_every_problem_is_reported_at_once() -> None:
    document = {
        "policies": [
            policy(name="a", keywords=[], action="stop", colour="red"),
            policy(name="a", keywords=["..."]),
            {"name": "b", "kind": "regex", "regex": "(", "action": "block"},
            {"name": "c", "kind": "regex", "regex": "a*", "action": "block"},
            {"name": "d", "kind": "pattern", "pattern": "ssn", "action": "block", "region": "Mars"},
            {"name": "e", "kind": "magic"},
            {"name": "f"},
            "g",
            policy(name="h", entity="no good"),
        ],
        "api_keys": "secret-key",
        "extra": 1,
    }
    found = problems(document)
    assert [problem.split(":")[0] for problem in found] == [
        "policies",
        "api_keys",
        "policies[0].action",
        "policies[0].keywords",
        "policies[0].colour",
        "policies[1].keywords[0]",
        "policies[2].regex",
        "policies[3].regex",
        "policies[4].pattern",
        "policies[4].region",
        "policies[5].kind",
        "policies[6].kind",
        "policies[7]",
        "policies[8].entity",
        "extra",
    ]
    assert "policies[0].colour: unknown key" in found
    assert "policies[3].regex: matches the empty text" in found
    assert not any("secret-key" in problem for problem in found)


@pytest.mark.parametrize("document", [None, [], "text", [policy()]])
def test_document_that_is_not_a_mapping_is_rejected(document: object) -> None:
    assert problems(document) == ["the file: must be a mapping with the key policies"]


def test_empty_document_is_rejected() -> None:
    assert problems({}) == ["policies: missing"]
    assert len(problems({"policies": []})) == 1


def test_repeated_name_is_a_problem() -> None:
    assert problems({"policies": [policy(), policy()]}) == ["policies: the name 'p' is used 2 times"]


def test_load_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text("api_keys: [k]\npolicies: [{name: n, kind: phrases, phrases: [a b], action: monitor}]\n")
    policies = load(path)
    assert policies.api_keys == ("k",)
    assert len(policies.detectors("input")) == len(policies.detectors("output")) == 1


def test_unreadable_files_are_reported(tmp_path: Path) -> None:
    cases = {
        "syntax": b"policies: [\n",
        "control": b"policies: \x00",
        "latin1": b"policies: caf\xe9",
    }
    for name, content in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(PoliciesError) as caught:
            load(path)
        assert len(caught.value.problems) == 1
    with pytest.raises(PoliciesError, match="No such file"):
        load(tmp_path / "missing")


@pytest.mark.parametrize(
    ("fields", "text", "redacted"),
    [
        ({"kind": "keywords", "keywords": ["night", "night fall"]}, "a Night\n Fall b", "a [P_1] b"),
        (
            {"kind": "keywords", "keywords": ["night fall"]},
            "night falls, night-fall",
            "night falls, night-fall",
        ),
        ({"kind": "phrases", "phrases": ["night fall"]}, "night-fall, night_fall", "[P_1], [P_2]"),
        ({"kind": "keywords", "keywords": ["C++"]}, "C++ and C", "[P_1] and C"),
        (
            {"kind": "regex", "regex": "tk-[0-9]+", "entity": "TICKET"},
            "tk-12 tk-3 tk-12",
            "[TICKET_1] [TICKET_2] [TICKET_1]",
        ),
        ({"kind": "regex", "regex": "abc", "ignore_case": True}, "xABCx", "x[P_1]x"),
        ({"kind": "pattern", "pattern": "phone", "region": "DE"}, "ruf 030 901820", "ruf [PHONE_1]"),
        ({"kind": "keywords", "keywords": ["x"], "name": "日本"}, "x", "[REDACTED_1]"),
    ],
)
def test_each_kind_of_policy_matches(fields: dict[str, Any], text: str, redacted: str) -> None:
    policies = parse({"policies": [{"name": "p", "action": "anonymize", **fields}]})
    assert Judge(policies.detectors("input")).text(text) == redacted


def test_policy_applies_to_its_direction_only() -> None:
    policies = parse({"policies": [policy(name="i", direction="input"), policy(name="o", direction="output")]})
    assert [d.policy for d in policies.detectors("input")] == ["i"]
    assert [d.policy for d in policies.detectors("output")] == ["o"]
