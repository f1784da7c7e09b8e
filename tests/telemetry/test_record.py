"""Records: the most severe outcome, and the strictest verdict of each leg."""

from __future__ import annotations

import itertools

from extproc.core.verdict import MAX_POLICIES, Allow, Anonymize, Block
from extproc.telemetry.record import ExchangeRecord, LegRecord

FROM_LIGHT_TO_GRAVE = ("unmatched", "allowed", "redacted", "failed_open", "refused", "blocked", "aborted")


def record() -> ExchangeRecord:
    return ExchangeRecord("call", "default")


def test_new_record_is_unmatched() -> None:
    new = record()
    assert (new.outcome, new.code, new.untold) == ("unmatched", "", {})
    assert new.as_fields() == {"call_id": "call", "profile": "default", "dialect": ""}


def test_most_severe_outcome_counts() -> None:
    for light, grave in itertools.combinations(FROM_LIGHT_TO_GRAVE, 2):
        for order in ((light, grave), (grave, light)):
            new = record()
            for outcome in order:
                new.reach(outcome, f"code of {outcome}")
            assert (new.outcome, new.code) == (grave, f"code of {grave}")


def test_later_code_of_an_equal_outcome_counts() -> None:
    new = record()
    new.reach("failed_open", "timeout")
    new.reach("failed_open", "session")
    assert new.code == "session"
    new.reach("failed_open")
    assert new.code == "session"
    new.reach("allowed", "other")
    assert (new.outcome, new.code) == ("failed_open", "session")


def test_reason_belongs_to_the_code() -> None:
    new = record()
    new.reach("refused", "guardrail_unavailable", "timeout")
    new.reach("allowed", "other", "session")
    assert (new.code, new.reason) == ("guardrail_unavailable", "timeout")
    new.reach("aborted")
    assert (new.code, new.reason) == ("guardrail_unavailable", "timeout")
    new.reach("aborted", "guardrail_misconfigured")
    assert (new.code, new.reason) == ("guardrail_misconfigured", "")


def test_each_fact_is_sent_to_envoy_once() -> None:
    new = record()
    new.name_dialect("openai-chat")
    new.reach("allowed")
    assert new.take_untold() == {"call_id": "call", "profile": "default", "dialect": "openai-chat"}
    new.add_outcomes("request", [Allow()], 3)
    assert new.take_untold() == {"request": LegRecord("allow", (), 3)}
    assert new.take_untold() == {}


def test_metadata_has_the_facts() -> None:
    new = record()
    new.dialect = "openai-chat"
    new.add_outcomes("request", [Allow()], 3)
    new.add_outcomes("response", [Allow()], 1)
    new.add_outcomes("response", [Block(None, ("pii", "code"))], 41)
    assert new.as_fields() == {
        "call_id": "call",
        "profile": "default",
        "dialect": "openai-chat",
        "request": {"action": "allow", "policies": [], "ms": 3},
        "response": {"action": "block", "policies": ["pii", "code"], "ms": 42},
    }


def test_policies_are_bounded() -> None:
    new = record()
    for start in (0, 20):
        new.add_outcomes("response", [Allow(tuple(str(number) for number in range(start, start + 20)))], 1)
    assert new.legs["response"].policies == tuple(str(number) for number in range(MAX_POLICIES))


def test_strictest_verdict_of_a_leg_counts() -> None:
    new = record()
    new.add_outcomes("request", [Anonymize((), ("pii",))], 3)
    new.add_outcomes("request", [Allow(("pii", "code"))], 4)
    assert new.legs["request"] == LegRecord("anonymize", ("pii", "code"), 7)


def test_records_share_nothing() -> None:
    first, second = record(), record()
    first.add_outcomes("request", [Allow()], 3)
    assert second.legs == {}
