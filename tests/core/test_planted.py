"""No text passes unseen, whatever its key: texts planted at every object and list of recorded bodies.

Each run makes up its own keys and texts; a failure names the seed that repeats it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from extproc.core.vocabulary import Leg
from tests.fakes.made_up import PLANT, SEED, Garden, differences, is_sealed, masked, plants_in, stream_differences
from tests.fakes.planted import own
from tests.fakes.recorded import FOLDERS, Recorded, recorded
from tests.fakes.witness import Traffic, Witness

_MOST_NAMED = 12
"""The most places that one failure names."""

_MOST_BLAMED = 3
"""The most places that are found one by one: each takes several exchanges."""

_MINIMAL: dict[str, dict[str, Any]] = {
    "/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/completions": {"prompt": "Hi"},
    "/responses": {"input": "Hi"},
    "/messages": {"messages": [{"role": "user", "content": "Hi"}]},
    "/embeddings": {"input": "Hi"},
    "/interactions": {"input": "Hi"},
    "/v1/chat": {"message": "Hi"},
    "/transcriptions": {"prompt": "Hi"},
    "/runs": {"assistant_id": "asst_1"},
    "/complete": {"prompt": "Hi"},
    "/conversations": {"inputs": "Hi"},
    "/tgi/generate": {"inputs": "Hi"},
    "/completion": {"prompt": "Hi"},
    "/sglang/generate": {"text": "Hi"},
    "/chat": {"messages": [{"role": "user", "content": "Hi"}]},
    "v1internal:streamGenerateContent": {"request": {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}},
    "enerateContent": {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
}
"""Requests for answers that were recorded without one, or with one that is not readable. By the end of the path."""


@dataclass(frozen=True, slots=True)
class Case:
    """One leg of a recorded exchange."""

    name: str
    leg: Leg
    traffic: Traffic

    @property
    def body(self) -> bytes:
        """The recorded body of the leg."""
        body = self.traffic.request if self.leg is Leg.REQUEST else self.traffic.answer
        assert body is not None
        return body

    def with_body(self, body: bytes) -> Traffic:
        """Return the exchange with another body of the leg."""
        if self.leg is Leg.REQUEST:
            return replace(self.traffic, request=body)
        return replace(self.traffic, answer=body)


def _cases() -> Iterator[Case]:
    for each in recorded(*FOLDERS):
        yield from _legs(each)
    for own_one in own():
        yield from _legs(Recorded(own_one.name, "POST", own_one.path, 200, own_one.content_type, None, own_one.body))


def _legs(each: Recorded) -> Iterator[Case]:
    request = each.request
    if request is not None:
        yield Case(f"{each.name}-request", Leg.REQUEST, Traffic(each.path, request, method=each.method))
    if each.response is not None and _is_text(each):
        if request is None or _is_of_numbers(request):
            request = None if each.method == "GET" else _minimal(each)
        traffic = Traffic(each.path, request, each.response, each.method, each.status, each.content_type)
        yield Case(f"{each.name}-answer", Leg.RESPONSE, traffic)


def _is_text(each: Recorded) -> bool:
    """Return whether the answer has the framing of JSON or of an event stream."""
    if each.content_type.startswith(("text/event-stream", "application/x-ndjson")):
        return True
    try:
        json.loads(each.response or b"")
    except ValueError:
        return False
    return True


def _is_of_numbers(request: bytes) -> bool:
    """Return whether the request has numbers in place of its text. The sidecar cannot read them."""
    root = json.loads(request)
    return any(map(_numbers, (root.get("prompt"), root.get("input")))) if isinstance(root, dict) else False


def _numbers(node: Any) -> bool:
    return isinstance(node, list) and any(isinstance(item, int | float) or _numbers(item) for item in node)


def _minimal(each: Recorded) -> bytes:
    path = each.path.partition("?")[0]
    found = (request for end, request in _MINIMAL.items() if path.endswith(end))
    request = next(found, {})
    return json.dumps(request | ({"stream": True} if "event-stream" in each.content_type else {})).encode()


CASES = list(_cases())
READABLE = [case for case in CASES if case.leg is Leg.RESPONSE or not _is_of_numbers(case.body)]

Check = Callable[[Case, frozenset[int] | None], tuple[Witness, Garden, list[str]]]
"""Drives a case with plants at the chosen places (None: all); returns the complaints, too."""


def parameters(cases: list[Case]) -> list[Any]:
    """Return the cases as parameters, and a skipped one in place of those that need recorded traffic."""
    found = [pytest.param(case, id=case.name) for case in cases]
    if not any(folder.is_dir() for folder in FOLDERS):
        skip = pytest.mark.skip(reason=f"no recorded traffic in {FOLDERS[0].parent}")
        found.append(pytest.param(None, id="recorded", marks=skip))
    return found


def planted(case: Case, chosen: frozenset[int] | None) -> tuple[Traffic, Garden]:
    """Return the exchange with plants at the chosen places of its leg."""
    garden = Garden(chosen)
    is_stream = case.leg is Leg.RESPONSE and case.traffic.is_stream
    return case.with_body((garden.stream if is_stream else garden.document)(case.body)), garden


def allowed(case: Case, chosen: frozenset[int] | None) -> tuple[Witness, Garden, list[str]]:
    """Let Aim allow everything; return the complaints."""
    traffic, garden = planted(case, chosen)
    it = Witness(traffic, is_eager=False, watched=PLANT)
    released = it.released(case.leg)
    unseen = plants_in(released.decode()) - plants_in(*it.texts[case.leg])
    complaints = [f"released unseen: {garden.plants[number]}" for number in sorted(unseen)]
    early = set(map(int, it.early)) - unseen
    complaints += [f"released before its verdict: {garden.plants[number]}" for number in sorted(early)]
    if not it.is_refused and released != (traffic.request if case.leg is Leg.REQUEST else traffic.answer):
        complaints.append("allowed, but not released byte for byte")
    return it, garden, complaints


def redacted(case: Case, chosen: frozenset[int] | None) -> tuple[Witness, Garden, list[str]]:
    """Let Aim redact the plants; return the complaints."""
    traffic, garden = planted(case, chosen)
    it = Witness(traffic, redact=masked, watched=PLANT)
    released = it.released(case.leg)
    left = plants_in(released.decode())
    complaints = [f"released in spite of the redaction: {garden.plants[number]}" for number in sorted(left)]
    if not (it.is_refused or left):
        before = traffic.request if case.leg is Leg.REQUEST else traffic.answer
        assert before is not None
        is_stream = case.leg is Leg.RESPONSE and traffic.is_stream
        places = (
            stream_differences(before, released) if is_stream else differences(json.loads(before), json.loads(released))
        )
        complaints += [f"changed: {place}" for place in places]
    return it, garden, complaints


def refused_alone(case: Case, check: Check, numbers: list[int]) -> Iterator[tuple[int, str, list[str]]]:
    """Yield the plants that make the sidecar refuse the exchange, each with the reason.

    Yields also groups that complain, under number 0. Halves of a refused group are tried until single plants are left.
    """
    it, _, complaints = check(case, frozenset(numbers))
    if complaints:
        yield 0, "", complaints
    elif it.is_refused and len(numbers) == 1:
        yield numbers[0], it.why, []
    elif it.is_refused:
        half = len(numbers) // 2
        yield from refused_alone(case, check, numbers[:half])
        yield from refused_alone(case, check, numbers[half:])


def expect_none(complaints: list[str], case: Case, garden: Garden) -> None:
    """Fail if there are complaints; say where, and how to repeat it."""
    if complaints:
        more = len(complaints) - _MOST_NAMED
        lines = [*complaints[:_MOST_NAMED], *([f"and {more} more"] if more > 0 else [])]
        head = f"{case.name}: {case.traffic.method} {case.traffic.path.partition('?')[0]}"
        pytest.fail("\n  ".join([f"{head}, {len(garden.plants)} plants, PLANT_SEED={SEED}", *lines]), pytrace=False)


@pytest.mark.parametrize("case", parameters(READABLE))
def test_recording_without_plants_passes(case: Case) -> None:
    it = Witness(case.traffic, is_eager=False)
    assert not it.is_refused, f"{case.name}: refused as {it.why}"
    assert it.released(case.leg) == case.body


@pytest.mark.parametrize("case", parameters(CASES))
def test_planted_text_is_seen_or_the_exchange_is_refused(case: Case) -> None:
    it, garden, complaints = allowed(case, None)
    if it.is_refused and not complaints and not _is_refused_anyway(case):
        for _, _, found in refused_alone(case, allowed, sorted(garden.plants)):
            complaints += found
    expect_none(complaints, case, garden)


@pytest.mark.parametrize("case", parameters(READABLE))
def test_planted_text_is_redacted_in_its_place(case: Case) -> None:
    it, garden, complaints = redacted(case, None)
    # The provider would refuse a changed text under its seal.
    may_refuse = case.leg is Leg.REQUEST and is_sealed(json.loads(case.body))
    if it.is_refused and not complaints:
        for number, why, found in refused_alone(case, redacted, sorted(garden.plants)):
            if not (number and may_refuse and why == "redaction_failed"):
                complaints += [f"refused as {why}: {garden.plants[number]}"] if number else found
            if len(complaints) >= _MOST_BLAMED:
                break
        if not (complaints or may_refuse):
            complaints = [f"refused as {it.why}, but with no single plant"]
    expect_none(complaints, case, garden)


def _is_refused_anyway(case: Case) -> bool:
    return Witness(case.traffic, is_eager=False).is_refused
