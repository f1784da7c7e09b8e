"""The scanner: any split of a text gives the same redaction, and text is released early but never too early."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extproc.local_aim.detector import MAX_MATCH
from extproc.local_aim.placeholders import Placeholders
from extproc.local_aim.policies import load, parse
from extproc.local_aim.scanner import Piece, Scanner

DEFAULT = load().detectors("output")
# Overlaps, open ends, nested repeats and lookaround, which are rare in the default policies.
ODD = parse(
    {
        "policies": [
            {"name": "a", "kind": "regex", "regex": "ab(?:cd)*e?", "action": "anonymize"},
            {"name": "b", "kind": "regex", "regex": r"(?<=x)b[a-z]{2,}\b", "action": "anonymize"},
            {"name": "c", "kind": "regex", "regex": "c.*?d(?!e)|cd+", "action": "anonymize"},
            {"name": "d", "kind": "phrases", "phrases": ["ab cd"], "action": "anonymize"},
            {"name": "e", "kind": "regex", "regex": "d+(?=e)", "action": "monitor"},
        ]
    }
).detectors("output")

VALUES = [
    "bob@example.com",
    "a.b@mail.example.co.uk.",
    "415-555-2671",
    "+44 20 7946 0958",
    "4111 1111 1111 1111",
    "378282246310005",
    "DE89 3704 0044 0532 0130 00",
    "sk-abcdefghijklmnopqrstuvwx",
    "AKIAIOSFODNN7EXAMPLE",
    "competitor",
]
OTHERS = [
    "Hello",
    " ",
    " ",
    ", ",
    ".",
    "\n",
    "12",
    "@",
    "x@y",
    "4111",
    "DE89 ",
    "sk-",
    "-",
    "日本",
    "\\n",
    "and ",
    "\ud83d",
]


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def whole(detectors: Any, text: str) -> str:
    return text_of(Scanner(detectors, Placeholders()).finish(text))


@st.composite
def cut(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> list[str]:
    text = draw(texts)
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=30)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


sensitive = st.lists(st.sampled_from(VALUES + OTHERS), max_size=12).map("".join)
odd = st.text("abcdex ", max_size=40)


@given(cut(sensitive))
def test_split_does_not_change_redaction_of_sensitive_text(chunks: list[str]) -> None:
    check(DEFAULT, chunks)


@given(cut(odd))
@example(["accde", "d"])  # a complete match after the beginning of an incomplete one
def test_split_does_not_change_redaction_for_unusual_expressions(chunks: list[str]) -> None:
    check(ODD, chunks)


def check(detectors: Any, chunks: list[str]) -> None:
    expected = whole(detectors, "".join(chunks))
    scanner = Scanner(detectors, Placeholders())
    pieces: list[Piece] = []
    for chunk in chunks:
        pieces += scanner.feed(chunk)
        assert expected.startswith(text_of(pieces))
    pieces += scanner.finish()
    assert text_of(pieces) == expected
    assert not scanner.holds
    # the pieces cover the text, in order
    ends = [0, *(piece.end for piece in pieces)]
    assert [piece.start for piece in pieces] == ends[:-1]
    assert ends[-1] == scanner.length
    # each detector has the same count
    once = Scanner(detectors, Placeholders())
    once.finish("".join(chunks))
    assert sorted(hit.policy for hit in scanner.hits) == sorted(hit.policy for hit in once.hits)


@given(cut(st.lists(st.sampled_from([*VALUES, *OTHERS, "Project ", "Nightfall"]), max_size=12).map("".join)))
def test_no_part_of_a_blocked_value_is_released(chunks: list[str]) -> None:
    text = "".join(chunks)
    once = Scanner(DEFAULT, Placeholders())
    once.finish(text)
    scanner = Scanner(DEFAULT, Placeholders())
    released = ""
    for chunk in chunks:
        pieces = scanner.feed(chunk)
        assert not (scanner.blocked and pieces)
        released += text_of(pieces)
    released += text_of(scanner.finish())
    assert scanner.blocked == once.blocked
    if once.blocked:
        assert "Nightfall" not in released
        assert whole(DEFAULT, text[: text.index("Project Nightfall")]).startswith(released.rstrip("Project "))


def test_word_is_released_with_the_next_piece() -> None:
    scanner = Scanner(DEFAULT, Placeholders())
    assert text_of(scanner.feed("Hello")) == ""
    assert text_of(scanner.feed(" wor")) == "Hello "
    assert text_of(scanner.feed("ld! ")) == "world! "
    assert not scanner.holds


def test_monitored_text_is_not_held() -> None:
    detectors = parse({"policies": [{"name": "m", "kind": "keywords", "keywords": ["ab cd"], "action": "monitor"}]})
    scanner = Scanner(detectors.detectors("input"), Placeholders())
    assert text_of(scanner.feed("ab ")) == "ab "
    assert scanner.hits == []
    assert text_of(scanner.feed("cd.")) == "cd."
    assert [hit.policy for hit in scanner.hits] == ["m"]


@pytest.mark.parametrize("text", ["a" * 5000, "sk-" + "a" * 5000, "a@" + "b." * 2500, "4 " * 800, "(" * 5000])
def test_held_text_is_bounded(text: str) -> None:
    scanner = Scanner(DEFAULT, Placeholders())
    pieces: list[Piece] = []
    for char in text:
        pieces += scanner.feed(char)
        assert scanner.length - scanner.released <= 2 * MAX_MATCH  # a second match may overlap the first
    pieces += scanner.finish()
    assert text_of(pieces) == whole(DEFAULT, text)


def test_open_ended_match_ends_at_the_window() -> None:
    policies = parse({"policies": [{"name": "p", "kind": "regex", "regex": "(?s)<.*>", "action": "anonymize"}]})
    detectors = policies.detectors("output")
    check(detectors, ["a<b", ">c", ">", "d" * 600, ">", "e"])
    check(detectors, list("<" + "d" * 600 + "> and <f>"))


def test_released_text_is_dropped_from_memory() -> None:
    scanner = Scanner(DEFAULT, Placeholders())
    for _ in range(1000):
        scanner.feed("lorem ipsum dolor ")
    assert len(scanner._kept) < 200


def test_overlapping_matches_become_one_redaction() -> None:
    policies = parse(
        {
            "policies": [
                {"name": "short", "kind": "regex", "regex": "abc", "action": "anonymize"},
                {"name": "long", "kind": "regex", "regex": "abcd", "action": "anonymize"},
                {"name": "tail", "kind": "regex", "regex": "def", "action": "anonymize"},
            ]
        }
    )
    detectors = policies.detectors("output")
    assert whole(detectors, "-abcdef-") == "-[LONG_1]-"
    assert whole(detectors, "abcx") == "[SHORT_1]x"
    for chunks in (list("-abcdef-"), ["-ab", "cd", "ef-"]):
        check(detectors, chunks)


def test_text_after_finish_is_scanned() -> None:
    scanner = Scanner(DEFAULT, Placeholders())
    assert text_of(scanner.finish("bob@example.com")) == "[EMAIL_1]"
    assert text_of(scanner.finish(" bob@example.com")) == " [EMAIL_1]"


def test_empty_matches_are_ignored() -> None:
    policies = parse({"policies": [{"name": "p", "kind": "regex", "regex": "(?<=a)", "action": "anonymize"}]})
    check(policies.detectors("output"), ["aba", "a", "b"])
    check(policies.detectors("output"), ["ba"])
