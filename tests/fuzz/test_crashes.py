"""Inputs that once broke a promise, and the seeds of fuzzing: none of them breaks one now."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz.choose import INPUT_BYTES, INPUTS, choose, steps
from tests.fuzz.mutation import mutate
from tests.fuzz.seeds import seeds
from tests.fuzz.surfaces import SURFACES

CRASHES = sorted(file for file in Path(__file__).with_name("crashes").glob("*/*") if file.is_file())

CORPUS = Path(__file__).with_name("corpus")

each_surface = pytest.mark.parametrize("surface", SURFACES)


@pytest.mark.parametrize("file", CRASHES, ids=lambda file: f"{file.parent.name}-{file.name}")
def test_found_inputs_break_no_promise(file: Path) -> None:
    SURFACES[file.parent.name](file.read_bytes())


@each_surface
def test_kept_corpus_breaks_no_promise(surface: str) -> None:
    files = sorted((CORPUS / surface).iterdir())
    assert 0 < len(files) <= INPUTS
    for file in files:
        data = file.read_bytes()
        assert len(data) <= INPUT_BYTES
        SURFACES[surface](data)


def test_chosen_inputs_reach_what_all_reach() -> None:
    surface = SURFACES["framing"]
    candidates = set(seeds("framing"))
    chosen = choose("framing", mutations=0)
    reached = set().union(*(steps(surface, data) for data in chosen))
    assert reached >= set().union(*(steps(surface, data) for data in candidates))
    assert 0 < len(chosen) < len(candidates)


@each_surface
def test_seeds_break_no_promise(surface: str) -> None:
    inputs = list(seeds(surface))
    assert inputs
    for data in inputs:
        SURFACES[surface](data)


@each_surface
def test_any_bytes_break_no_promise(surface: str) -> None:
    @given(st.binary(max_size=80))
    @example(b"")
    @settings(max_examples=150, deadline=None)
    def check(data: bytes) -> None:
        SURFACES[surface](data)

    check()


@each_surface
def test_mutated_seeds_break_no_promise(surface: str) -> None:
    inputs = list(seeds(surface))

    @given(st.data())
    @settings(max_examples=100, deadline=None)
    def check(data: st.DataObject) -> None:
        changed = data.draw(st.sampled_from(inputs))
        for _ in range(data.draw(st.integers(1, 4))):
            other = mutate(changed, len(changed) + 4096, data.draw(st.integers(0, 2**32)))
            if other is not None and data.draw(st.booleans()):
                changed = other
            else:
                start = data.draw(st.integers(0, len(changed)))
                changed = (
                    changed[:start] + data.draw(st.binary(max_size=8)) + changed[start + data.draw(st.integers(0, 8)) :]
                )
        SURFACES[surface](changed)

    check()
