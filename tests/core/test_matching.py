"""How verified texts are matched with submitted ones, and what is left if the session is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.chunk import MARK, SessionViolation, mark_of, with_mark
from extproc.core.marks import Marks
from extproc.core.matching import Lane
from extproc.core.progress import Submission
from extproc.core.redaction import RedactionError


def lane(*texts: str) -> Lane[Submission]:
    """Return a lane in which texts wait, with the marks 1, 2, 3 ..."""
    marks = Marks()
    found: Lane[Submission] = Lane(marks)
    found.waiting.extend(Submission(marks.give(), text, text) for text in texts)
    return found


def match(found: Lane[Submission], text: str, mark: int | None = None) -> list[tuple[str, str | None]]:
    return [(waiting.text, new) for waiting, new in found.match(text, mark)]


def left(found: Lane[Submission]) -> list[str]:
    return [text.text for text in found.waiting]


class TestMark:
    @pytest.mark.parametrize(
        ("data", "marked"),
        [
            ("{}", '{"x_aim_extproc":7}'),
            ("{ }", '{ "x_aim_extproc":7}'),
            ('{"a": {} }\r\n ', '{"a": {} ,"x_aim_extproc":7}\r\n '),
            ('{"a":"{"}', '{"a":"{","x_aim_extproc":7}'),
        ],
    )
    def test_mark_is_the_last_field(self, data: str, marked: str) -> None:
        assert with_mark(data, 7) == marked

    @given(st.dictionaries(st.text(), st.text()), st.sampled_from([None, 1]))
    def test_marked_object_has_the_same_fields(self, fields: dict[str, str], indent: int | None) -> None:
        assert json.loads(with_mark(json.dumps(fields, indent=indent), 3)) == fields | {MARK: 3}

    def test_mark_is_read(self) -> None:
        assert mark_of({MARK: 3}, 3) == 3
        assert mark_of({MARK: None}, 3) is None
        assert mark_of({}, 3) is None

    @pytest.mark.parametrize("mark", [0, -1, 4, True, 1.0, "1", [1]])
    def test_unknown_mark_is_a_violation(self, mark: Any) -> None:
        with pytest.raises(SessionViolation):
            mark_of({MARK: mark}, 3)


class TestMatch:
    def test_equal_text_is_verified(self) -> None:
        assert match(lane("a", "b"), "a") == [("a", None)]

    def test_joined_texts_are_verified(self) -> None:
        assert match(lane("a", "b", "c"), "ab", 2) == [("a", None), ("b", None)]

    def test_marked_text_is_rewritten_and_those_before_it_are_dropped(self) -> None:
        assert match(lane("a", "b", "c"), "[X]", 2) == [("a", ""), ("b", "[X]")]
        assert match(lane("a", "b", "c"), "b", 2) == [("a", ""), ("b", None)]

    def test_text_without_a_mark_rewrites_the_oldest(self) -> None:
        assert match(lane("a", "b", "c"), "c") == [("a", "c")]

    @pytest.mark.parametrize("mark", [1, 7])
    def test_mark_that_does_not_wait_rewrites_the_oldest(self, mark: int) -> None:
        found = lane("a", "b")
        found.match("a", 1)
        assert match(found, "c", mark) == [("b", "c")]

    def test_mark_of_another_index_rewrites_the_oldest(self) -> None:
        found = lane("a", "b")
        found.waiting[1].mark = 3
        assert match(found, "c", 2) == [("a", "c")]

    def test_text_that_nothing_waits_for_is_a_violation(self) -> None:
        with pytest.raises(SessionViolation):
            lane().match("a", None)

    def test_texts_of_one_chunk_are_rewritten_together(self) -> None:
        found = lane("a", "b", "c")
        found.waiting[1].mark = 1
        assert match(found, "[X]", 1) == [("a", "[X]"), ("b", "")]
        assert (found.unspoken(), left(found)) == ((0, ""), ["c"])

    def test_text_that_was_not_submitted_yet_is_a_violation(self) -> None:
        found = lane("a")
        found.waiting[0].mark = 0
        with pytest.raises(SessionViolation):
            found.match("a", None)

    def test_text_whose_place_was_taken_may_still_be_dropped(self) -> None:
        found = lane("hello", "next", "b")
        found.match("he", 1)
        found.match("llo", 1)
        assert [found.expects(mark) for mark in (1, 2, 3, 4)] == [False, True, True, False]
        assert found.match("", 2) == []
        assert [found.expects(mark) for mark in (1, 2, 3, 4)] == [False, False, True, False]

    def test_placeholder_that_the_model_says_itself_is_no_look_ahead(self) -> None:
        for mark in (None, 1):
            found = lane("secret", "[X]")
            assert match(found, "[X]", mark) == [("secret", "[X]")]
            assert match(found, "[X]", mark and 2) == [("[X]", None)]


class TestUnspoken:
    """What a leg that fails open releases: (texts that Aim has said already, text that another took the place of)."""

    @pytest.mark.parametrize(
        ("texts", "said", "unspoken"),
        [
            (["a", "b"], [("a", 1)], (0, "")),
            (["secret", "b"], [("[X]", 1)], (0, "")),
            (["secret", "[X]"], [("[X]", 1)], (0, "")),
            (["secret", "b", "c"], [("[X]b", 1)], (1, "")),
            (["a", "b", "secret", "c"], [("ab[X]", 1)], (2, "")),
            (["a", "secret", "c", "d"], [("a[X]c", None)], (2, "")),
            (["jo", "hn", "b", "c"], [("[X]", None), ("b", None)], (1, "")),
            (["drop", "c", "d"], [("c", None), ("d", None)], (1, "")),
            (["hello", "next", "b"], [("he", 1), ("llo", 1)], (0, "next")),
            (["hello", "next", "b"], [("he", None), ("llo", None)], (0, "next")),
            (["hello", "next", "third", "b"], [("he", 1), ("llo", 1), ("next", 2)], (0, "third")),
            (["hello", "next", "third", "b"], [("he", 1), ("llo", 1), ("nextthird", 2)], (0, "")),
            (["a", "a", "b", "c"], [("a", 2)], (1, "")),
            (["secret", "b"], [("", None)], (0, "")),
        ],
    )
    def test_what_is_left(
        self, texts: list[str], said: list[tuple[str, int | None]], unspoken: tuple[int, str]
    ) -> None:
        found = lane(*texts)
        for text, mark in said:
            found.match(text, mark)
        assert found.unspoken() == unspoken

    @pytest.mark.parametrize(
        ("texts", "said", "unspoken"),
        [
            # The second half of a text, or what replaces a text, equals a text that the model says later.
            (["a", "on", "b", "n", "b"], [("a", 1), ("o", 2), ("n", 2)], (0, "b")),
            (["on", "[X]", "on", "b"], [("o", 1), ("n", 1), ("on", 2)], (0, "on")),
            (["on", "n", "c"], [("o", 1), ("n", 1)], (0, "n")),
            # The rest of a text that Aim has begun was not said, unless Aim goes on with a later text.
            (["hello", "b"], [("he", 1)], (0, "llo")),
            (["hello", "next", "b"], [("h", 1), ("el", 1)], (0, "lonext")),
            (["hello", "next", "b"], [("he", 1), ("next", 2)], (0, "")),
            (["he", "hello", "b"], [("he", 2)], (1, "llo")),
            (["hello", "next", "b"], [("he", 1), ("[X]", 1)], (0, "next")),
            # Aim drops a text whose place was taken.
            (["hello", "next", "b", "c"], [("he", 1), ("llo", 1), ("", 2)], (0, "")),
            (["hello", "next", "b", "c"], [("he", 1), ("llo", 1), ("c", 4)], (0, "")),
            # Joined texts have the mark of the first.
            (["a", "on", "on", "c"], [("onon", 2)], (1, "")),
            (["a", "b", "c", "d"], [("ab", 1), ("[X]d", 3)], (1, "")),
            (["secret", "x", "and so", "more", "c"], [("[X] and so [Y]", 1)], (3, "")),
            # Short texts are everywhere.
            (["secret", "a", "b"], [("[redacted]", 1)], (0, "")),
            (["my a@b.c.", ".", "b"], [("my [X].", 1)], (0, "")),
            (["a", "b"], [("ab!", 1)], (1, "")),
            # What one mark says in several parts.
            (["ab", "c", "d"], [("a", 1), ("bc", 1)], (0, "")),
            (["hello", "next", "b", "c"], [("he", 1), ("[X]", 1), ("next", 1)], (0, "b")),
            (["a", "b", "hello", "c", "d"], [("ab", 2), ("he", 3), ("[X]", 3)], (0, "c")),
            (["a", "a"], [("a", 2), ("[X]", 2)], (0, "")),
            # A chunk without a mark, in a session with marks.
            (["secret", "b", "c"], [("[X]", 1), ("b", None)], (0, "")),
        ],
    )
    def test_what_is_left_with_marks(
        self, texts: list[str], said: list[tuple[str, int | None]], unspoken: tuple[int, str]
    ) -> None:
        found = lane(*texts)
        for text, mark in said:
            found.match(text, mark)
        assert found.unspoken() == unspoken

    def test_equal_chunks_that_all_have_one_mark_tell_how_far_aim_is(self) -> None:
        found = lane("a", "secret", "more", "b", "c", "d")
        for text in ("a", "[X]", "[Y]", "b"):
            found.match(text, 1)
        assert (found.unspoken(), left(found)) == ((0, ""), ["c", "d"])
        found.match("[Z]", 1)
        assert (found.unspoken(), left(found)) == ((0, ""), ["d"])

    def test_text_that_was_not_submitted_yet_is_not_said(self) -> None:
        found = lane("secret", "x", "more")
        found.waiting[2].mark = 0
        found.match("[X]xmore", 1)
        assert found.unspoken() == (0, "")

    def test_two_texts_of_one_chunk_are_one_text(self) -> None:
        found = lane("he", "llo", "b")
        found.waiting[1].mark = 1
        found.match("he", 1)
        assert found.unspoken() == (0, "")
        found.match("l", 1)
        assert found.unspoken() == (0, "lo")
        found.match("lo", 1)
        assert (found.unspoken(), left(found)) == ((0, "b"), [])

    def test_mark_of_another_index_says_how_far_aim_is(self) -> None:
        """Aim joins texts of several indices in one chunk; here the index has no text with the mark 4."""
        for said, left_over in (("[X]", (1, "")), ("a", (0, "")), ("ab", (0, ""))):
            found = lane("a", "b", "x", "c")
            found.waiting[2].mark, found.waiting[3].mark = 5, 6
            found._marks.last = 6
            found.match(said, 4)
            assert found.unspoken() == left_over

    def test_joined_texts_are_known_to_have_the_mark_of_the_last(self) -> None:
        found = lane("a", "b", "secret", "c", "x", "on", "o", "n", "d")
        found.match("ab", 2)
        found.match("[X]c", 3)  # nothing is joined to it
        assert found.unspoken() == (0, "")
        found.match("c", 4)
        found.match("on", 5)
        assert left(found) == ["on", "o", "n", "d"]
        found.match("on", 6)
        found.match("on", 7)  # it does not take the place of two texts
        assert (found.unspoken(), left(found)) == ((0, ""), ["n", "d"])

    def test_late_part_of_an_earlier_text_changes_nothing(self) -> None:
        found = lane("a", "b", "c", "d", "e")
        found.match("ab", 2)
        found.match("c", 3)
        found.match("[X]", 1)
        assert (found.unspoken(), left(found)) == ((0, "d"), ["e"])

    def test_too_many_texts_that_lost_their_places_cannot_be_told(self) -> None:
        found = lane("hello", *(f"<{number}>" for number in range(100)), "x", "y")
        for part in ["he", *["l"] * 70]:
            found.match(part, 1)
        with pytest.raises(RedactionError):
            found.unspoken()
        found.match("[X]", 60)  # it is still not known what is owed
        with pytest.raises(RedactionError):
            found.unspoken()
        found.match("<80>", 82)
        assert found.unspoken() == (0, "")
        found = lane("hello", *(f"<{number}>" for number in range(100)))
        for part in ["[X]", *["l"] * 70, "<70>"]:  # all chunks have the mark of the first, and one was not changed
            found.match(part, 1)
        assert found.unspoken() == (0, "")

    def test_rest_of_a_long_text_cannot_be_told(self) -> None:
        found = lane("x" * 70_000, "y", "z")
        found.match("x" * 69_000, 1)
        with pytest.raises(RedactionError):
            found.unspoken()
        found.match("y", 2)
        assert found.unspoken() == (0, "")
        found = lane("x" * 70_000, "y", "z")
        found.match("[X]", 1)
        assert (found.unspoken(), left(found)) == ((0, ""), ["y", "z"])

    def test_rest_of_a_text_keeps_its_spelling(self) -> None:
        found = lane("x", "y")
        found.waiting[0].text, found.waiting[0].raw = 'a"\nb"', 'a\\"\\u000ab\\"'
        found.match('a"', 1)
        assert found.unspoken() == (0, '\\u000ab\\"')

    def test_little_is_remembered(self) -> None:
        found = lane(*(["x"] * 100), "y")
        for number in range(65):
            found.match(f"[{number}]", None)
        assert found.unspoken() == (0, "")
        found = lane("x" * 100_000, "y")
        found.match("y", None)
        assert found.unspoken() == (0, "")
        assert left(found) == ["y"]
