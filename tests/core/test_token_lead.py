"""Tokens of a stream that no text accompanies."""

from __future__ import annotations

from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.token_lead import TokenLead


def test_number_of_units_that_are_followed_is_bounded() -> None:
    """The upstream chooses how many choices there are."""
    lead = TokenLead()
    lost = []
    for number in range(4097):
        tokens = [Leaf(("choices", number, "logprobs"), "", kind=Kind.TOKENS, unit=("choices", number))]
        alone, units = lead.read(tokens, tokens)
        assert alone == tokens
        lost += units
    assert lost == [("choices", 4096)]


def test_text_of_another_unit_does_not_accompany() -> None:
    text = Leaf(("a",), "x", unit="a")
    own, other, of_any = (
        Leaf((key,), "", kind=Kind.TOKENS, unit=unit) for key, unit in (("t", "a"), ("u", "b"), ("v", None))
    )
    assert TokenLead().read([text, own, other, of_any], [own, other, of_any]) == ([other], [])
