"""The script of the model's answer. It is part of the request, so that it reaches the model through any proxy."""

from __future__ import annotations

import re
from dataclasses import astuple, dataclass

_IN_A_BODY = re.compile(rb"\[bench ([^\]]*)\]")


@dataclass(frozen=True, slots=True)
class Script:
    """A whole answer of `choices` texts of `text_bytes`; with `chunks`, an event stream of that many chunks instead.

    The head of a stream is sent after `delay` seconds. Every `interval` seconds `block` chunks, with alternating
    choices, are sent in one write. The stream ends `linger` seconds after the last chunk. Each chunk's text contains
    `word`. With `given` the answer, or the only chunk, is the document that the model was given with PUT.
    """

    chunks: int = 0
    interval: float = 0.0
    block: int = 1
    delay: float = 0.0
    linger: float = 0.0
    choices: int = 1
    text_bytes: int = 1080
    word: str = "-"
    given: bool = False

    def __str__(self) -> str:
        return f"[bench {' '.join(map(str, astuple(self)))}]"

    @classmethod
    def of(cls, body: bytes) -> Script:
        """Return the script in a request's body; raises ValueError if there is none."""
        match = _IN_A_BODY.search(body)
        if match is None:
            raise ValueError("a request without a script")
        chunks, interval, block, delay, linger, choices, text_bytes, word, given = match[1].decode().split(" ")
        return cls(
            *(int(chunks), float(interval), int(block), float(delay), float(linger)),
            *(int(choices), int(text_bytes), word, given == "True"),
        )
