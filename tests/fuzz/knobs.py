"""The choices of an input: its last bytes make those that the peer does not make."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

_T = TypeVar("_T")

KNOBS = 8
"""The number of bytes at the end of an input that make choices."""


class Knobs:
    """The choices of an input."""

    def __init__(self, data: bytes) -> None:
        self.payload = data[:-KNOBS]
        self._left = list(data[-KNOBS:]) if len(data) >= KNOBS else []

    def number(self, below: int) -> int:
        """Return a number below `below`; 0 if the choices are used up."""
        return self._left.pop() % below if self._left else 0

    def flag(self) -> bool:
        return self.number(2) == 1

    def pick(self, options: Sequence[_T]) -> _T:
        return options[self.number(len(options))]

    def cut(self, data: bytes) -> list[bytes]:
        """Cut into non-empty pieces: one piece, single bytes, or pieces of any size."""
        seed = self.number(256)
        if seed < 2 or len(data) < 2:
            size = 1 if seed and len(data) <= 4096 else max(len(data), 1)
            return [data[at : at + size] for at in range(0, len(data), size)]
        chance = random.Random(seed)
        ends = sorted({0, len(data), *(chance.randrange(len(data)) for _ in range(chance.randrange(1, 12)))})
        return [data[start:end] for start, end in pairwise(ends)]
