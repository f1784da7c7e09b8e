"""Refusals: the table of the contract, and which messages of Aim a client may see."""

from __future__ import annotations

import pytest

from extproc.core import refusal
from extproc.core.errors import BodyTooLarge, MalformedBody, Reason, UnsupportedEncoding
from extproc.core.refusal import Refusal, blocked, failed, quotes_any, redaction_failed
from extproc.core.vocabulary import Leg

INVALID = "invalid_request_error"


@pytest.mark.parametrize(
    ("given", "status", "kind", "code"),
    [
        (blocked("no"), 400, INVALID, "content_policy_violation"),
        (refusal.UNAVAILABLE, 503, "api_error", "guardrail_unavailable"),
        (refusal.OVERLOADED, 503, "api_error", "guardrail_overloaded"),
        (refusal.REQUEST_TOO_LARGE, 413, INVALID, "request_too_large"),
        (refusal.INVALID_BODY, 400, INVALID, "invalid_body"),
        (refusal.UNREADABLE_RESPONSE, 502, "api_error", "guardrail_unreadable_response"),
        (redaction_failed(Leg.REQUEST), 400, INVALID, "redaction_failed"),
        (redaction_failed(Leg.RESPONSE), 502, "api_error", "redaction_failed"),
        (refusal.UPGRADE_NOT_INSPECTED, 400, INVALID, "upgrade_not_inspected"),
        (refusal.PATH_NOT_ALLOWED, 403, INVALID, "path_not_allowed"),
        (refusal.MISCONFIGURED, 500, "api_error", "guardrail_misconfigured"),
    ],
)
def test_refusals_are_those_of_the_contract(given: Refusal, status: int, kind: str, code: str) -> None:
    assert (given.status, given.type, given.code) == (status, kind, code)
    assert given.message
    assert given.details == f"aim_{code}"


def test_status_of_a_block_can_be_chosen_but_not_that_of_an_error_answer() -> None:
    assert blocked("no").http_status == 400
    chosen = blocked("no", 451)
    assert (chosen.http_status, chosen.status) == (451, 400)
    assert chosen.for_error("404", "").http_status == 404


def test_refusals_that_would_repeat_tell_sdks_not_to_retry() -> None:
    repeated = (refusal.REQUEST_TOO_LARGE, refusal.UNREADABLE_RESPONSE, *map(redaction_failed, Leg))
    assert all(each.headers == (("x-should-retry", "false"),) for each in repeated)
    assert not any(each.headers for each in (refusal.UNAVAILABLE, refusal.OVERLOADED, blocked("no")))


def test_block_has_the_given_message() -> None:
    assert blocked("because").message == "because"


IN_WORDS = {
    (Leg.REQUEST, Reason.BODY_TOO_LARGE): refusal.REQUEST_TOO_LARGE,
    (Leg.REQUEST, Reason.BODY_UNREADABLE): refusal.INVALID_BODY,
    (Leg.REQUEST, Reason.UNSUPPORTED_ENCODING): refusal.INVALID_BODY,
    (Leg.RESPONSE, Reason.BODY_TOO_LARGE): refusal.UNREADABLE_RESPONSE,
    (Leg.RESPONSE, Reason.BODY_UNREADABLE): refusal.UNREADABLE_RESPONSE,
    (Leg.RESPONSE, Reason.UNSUPPORTED_ENCODING): refusal.UNREADABLE_RESPONSE,
    (Leg.REQUEST, Reason.HELD_BYTES): refusal.OVERLOADED,
    (Leg.RESPONSE, Reason.HELD_BYTES): refusal.OVERLOADED,
}


@pytest.mark.parametrize("leg", Leg)
@pytest.mark.parametrize("reason", Reason)
def test_every_failure_has_its_refusal(leg: Leg, reason: Reason) -> None:
    """Whatever Aim answered, the client is told that the service is unavailable."""
    found = failed(leg, reason)
    assert found == IN_WORDS.get((leg, reason), refusal.UNAVAILABLE)
    assert found.reason == reason


@pytest.mark.parametrize("error", [BodyTooLarge, MalformedBody, UnsupportedEncoding])
def test_errors_of_a_body_have_other_refusals(error: type[MalformedBody]) -> None:
    assert failed(Leg.RESPONSE, error.reason) == refusal.UNREADABLE_RESPONSE
    assert failed(Leg.REQUEST, error.reason).status in (400, 413)


# -- quotes ------------------------------------------------------------------------------------------------------

QUOTES = ['"{}"', "'{}'", "`{}`", "“{}”", "‘{}’", "«{}»"]  # noqa: RUF001
each_quote = pytest.mark.parametrize("quote", QUOTES)


@each_quote
def test_quoted_part_in_a_text_is_found(quote: str) -> None:
    message = f"Found {quote.format('Tom Smith')} in the text."
    assert quotes_any(message, ["I am Tom Smith."])
    assert quotes_any(message, ["something", "Tom Smith"])
    assert quotes_any(message, iter(["something", "Tom Smith"]))


@each_quote
def test_quoted_part_in_no_text_is_not_found(quote: str) -> None:
    message = f"Policy {quote.format('No Secrets')} was violated."
    assert not quotes_any(message, ["I am Tom Smith.", "no, secrets"])
    assert not quotes_any(message, [""])
    assert not quotes_any(message, [])


@each_quote
def test_letter_case_and_outer_spaces_do_not_matter(quote: str) -> None:
    assert quotes_any(f"Found {quote.format(' TOM smith ')}", ["i am tom SMITH"])
    assert quotes_any(f"Found {quote.format('STRASSE')}", ["Straße"])
    assert quotes_any(f"Found {quote.format('Straße')}", ["STRASSE"])


@each_quote
def test_empty_quotes_are_ignored(quote: str) -> None:
    assert not quotes_any(f"Found {quote.format('')} and {quote.format(' ')}", [" any text "])


@pytest.mark.parametrize(
    "message",
    [
        "Policy 'PII' found \"Tom\".",
        "'a', 'b' and 'Tom'",
        "«Tom» (by `guard`)",
        "\"it's Tom\": 'Tom'",
        '"Tom"',
        "“Tom” and “a\nb”",
        "‘PII’: ‘tom’",  # noqa: RUF001
    ],
)
def test_each_of_several_quotes_is_searched(message: str) -> None:
    assert quotes_any(message, ["its name: Tom"])


@pytest.mark.parametrize("message", ["", "Tom", "Tom is not quoted", 'an open "Tom', "Tom' and Tom", "”Tom“"])
def test_unquoted_words_are_ignored(message: str) -> None:
    assert not quotes_any(message, ["Tom"])


def test_quotes_may_span_lines() -> None:
    assert quotes_any('Found "first\nsecond" there', ["the first\nsecond line"])
    assert not quotes_any('Found "first\nsecond" there', ["first", "second"])


@pytest.mark.parametrize("message", ["Aim's guard found 'Tom'", "You can't send 'Tom'", 'a 5" screen and "Tom"'])
def test_apostrophe_does_not_hide_a_quote(message: str) -> None:
    assert quotes_any(message, ["I am Tom."])


def test_message_with_too_many_quotation_marks_is_not_shown() -> None:
    assert quotes_any('"' * 65, ["any"])
    assert not quotes_any('"' * 64, ["any"])
