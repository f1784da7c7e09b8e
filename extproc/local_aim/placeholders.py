"""The numbered names that replace redacted values: [EMAIL_1], [EMAIL_2], [PHONE_1].

Each analysis or session has its own object, so exchanges never share a number.
"""

from __future__ import annotations


class Placeholders:
    """Numbers values per entity, in order of appearance; the same value keeps its number."""

    def __init__(self) -> None:
        self._numbers: dict[str, dict[str, int]] = {}

    def of(self, entity: str, key: str) -> str:
        """Return the placeholder for the value whose canonical spelling is `key`."""
        numbers = self._numbers.setdefault(entity, {})
        return f"[{entity}_{numbers.setdefault(key, len(numbers) + 1)}]"
