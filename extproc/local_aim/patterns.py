"""The well-known patterns: their expressions, checks of candidates, and entity names.

Expressions find candidates; checksums and number plans come from python-stdnum and phonenumbers. Every
expression except `api_key`'s has a bounded length; the window of `detector` bounds that one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import regex
from phonenumbers import Leniency, NumberParseException, PhoneNumberMatcher, is_valid_number, parse
from stdnum import iban, luhn

from extproc.local_aim.detector import Refine, whole

PatternName = Literal["email", "phone", "payment_card", "iban", "api_key", "prompt_injection"]
PATTERN_NAMES: tuple[PatternName, ...] = get_args(PatternName)

# The streamed arguments of a tool call are raw JSON text. There a word may follow the letter of an escape
# sequence, as in "Hello\nproject", and that letter is not part of the word.
WORD_START = r"(?:(?<!\w)|(?<=\\[bfnrt]))"
WORD_END = r"(?!\w)"
_NOT_AN_ESCAPE = r"(?!(?<=\\)[bfnrt])"

_EMAIL = (
    _NOT_AN_ESCAPE + r"[\p{Latin}0-9._%+'-]{1,64}@"
    r"(?:[\p{Latin}0-9](?:[\p{Latin}0-9-]{0,61}[\p{Latin}0-9])?\.){1,6}\p{Latin}{2,24}(?![\p{Latin}0-9])"
)
_PHONE = r"(?<!\d)(?:\+ ?)?\(?\d{1,15}(?:[ ()./\u00a0-]{1,3}\d{1,10}){0,6}(?!\d)"
_PAYMENT_CARD = r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)"
_IBAN = WORD_START + r"(?i:[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?)" + WORD_END
# Issuers and lengths of the digits. Luhn's check alone accepts one number in ten.
_ISSUERS = regex.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|[689]\d)\d{11}"  # Diners Club
    r"|(?:6011|65\d{2}|64[4-9]\d)\d{12}"  # Discover
    r"|35(?:2[89]|[3-8]\d)\d{12}"  # JCB
    r"|62\d{14,17}"  # UnionPay
    r"|(?:50|5[6-9]|6[0-9])\d{10,17}"  # Maestro
)
_API_KEY = (
    WORD_START + r"(?:sk-[A-Za-z0-9_-]{20,}"  # OpenAI, Anthropic and others
    r"|[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"  # Stripe
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}(?!\w)"  # AWS access key id
    r"|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}|glpat-[A-Za-z0-9_-]{20,}"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,}"  # Slack
    r"|AIza[A-Za-z0-9_-]{35}"  # Google
    r"|hf_[A-Za-z0-9]{30,})"  # Hugging Face
)
_GAP = r"[\W_]{1,8}"
_FILLER = rf"(?:{_GAP}(?:all|any|of|the|these|those|your|my|its)){{0,3}}{_GAP}"
# A space means a gap, a tilde a gap that may hold a few small words.
_INJECTIONS = (
    r"(?:ignore|disregard|forget|override)~"
    r"(?:previous|prior|above|earlier|preceding|system|initial|original) "
    r"(?:instructions?|prompts?|rules?|directions?|guidelines?|messages?)",
    r"(?:ignore|disregard|forget)~(?:instructions?|rules?|guidelines?) "
    r"(?:above|before|given before|you (?:were given|have been given|received))",
    r"(?:reveal|show|print|repeat|output|display|tell me)~"
    r"(?:system|hidden|initial|secret|developer) (?:prompts?|instructions?|messages?)",
    r"you are (?:now|no longer) (?:in )?(?:dan|jailbroken|developer mode|unrestricted|bound by)",
    r"do anything now",
    r"(?:pretend|act as if)(?: that)? you have no (?:restrictions?|rules?|limits?|guidelines?)",
    r"(?:enable|enter|activate) (?:developer|jailbreak|dan|god) mode",
)
_PROMPT_INJECTION = tuple(phrase.replace(" ", _GAP).replace("~", _FILLER) for phrase in _INJECTIONS)


@dataclass(frozen=True, slots=True)
class WellKnown:
    """A well-known pattern; `refine` and `canonical` are those of `detector.Detector`."""

    entity: str
    expression: str
    refine: Refine = whole
    canonical: Callable[[str], str] = str.casefold


def one_of(expressions: Iterable[str]) -> str:
    """Join expressions of words into one that matches any of them as whole words, ignoring case."""
    return f"{WORD_START}(?i:{'|'.join(expressions)}){WORD_END}"


def words(text: str, gap: str) -> str:
    """Return an expression for the words of `text` in order, with `gap` between them."""
    return gap.join(regex.escape(word) for word in text.split())


def well_known(name: PatternName, region: str = "US") -> WellKnown:
    """Return a pattern; `region` is the country whose phone numbers need no country code."""
    match name:
        case "email":
            return WellKnown("EMAIL", _EMAIL)
        case "phone":
            return WellKnown("PHONE", _PHONE, lambda text: _phone(text, region), _compact)
        case "payment_card":
            return WellKnown("PAYMENT_CARD", _PAYMENT_CARD, _payment_card, _compact)
        case "iban":
            return WellKnown("IBAN", _IBAN, _iban, _compact)
        case "api_key":
            return WellKnown("API_KEY", _API_KEY, canonical=str)
        case "prompt_injection":
            return WellKnown("PROMPT_INJECTION", one_of(_PROMPT_INJECTION))


def _compact(value: str) -> str:
    return "".join(char for char in value.casefold() if char.isalnum())


def _ends(candidate: str) -> Iterator[int]:
    """Yield possible ends of a candidate, longest first, because other words may follow the value."""
    for end in range(len(candidate), 0, -1):
        if candidate[end - 1].isalnum() and not candidate[end : end + 1].isalnum():
            yield end


def _longest(candidate: str, valid: Callable[[str], bool]) -> tuple[int, int] | None:
    return next(((0, end) for end in _ends(candidate) if valid(candidate[:end])), None)


def _payment_card(candidate: str) -> tuple[int, int] | None:
    def valid(text: str) -> bool:
        digits = _compact(text)
        return _ISSUERS.fullmatch(digits) is not None and luhn.is_valid(digits)

    return _longest(candidate, valid)


def _iban(candidate: str) -> tuple[int, int] | None:
    return _longest(candidate, iban.is_valid)


def _phone(candidate: str, region: str) -> tuple[int, int] | None:
    def valid(text: str) -> bool:
        # Bare digits are more often an order number or a time than a phone number.
        if text.isdigit() or not 7 <= len(_compact(text)) <= 15:
            return False
        try:  # a quick check first, because each number of a table is a candidate
            if not is_valid_number(parse(text, region)):
                return False
        except NumberParseException:
            return False
        # The grouping distinguishes a phone number from a date and a time.
        matcher = PhoneNumberMatcher(text, region, leniency=Leniency.STRICT_GROUPING)
        return any(match.start == 0 and match.end == len(text) for match in matcher)

    return _longest(candidate, valid)
