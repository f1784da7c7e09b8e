"""The script of exchange number N of a soak: its request, the model's answer, and what the client may see of it.

It is a function of the seed and the number, so that client, model and checker can compute it independently. Every text
has a unique mark, `<NUMBER.PIECE>`, which shows where the text was seen.
"""

from __future__ import annotations

import random
import re
import zlib
from dataclasses import dataclass
from typing import Final

from tests.envoy.apis import ANTHROPIC, CHAT, RESPONSES, WITH_ANSWERS, Api

MARK: Final = re.compile(rb"<(\d+\.(?:p|\d+))>")
"""The mark of a text: of a piece of an answer, or of a prompt (`p`)."""

BARE: Final = re.compile(rb"<(\d+\.(?:p|\d+))>[^<\"]*?(?:forbidden|private)")
"""The mark of a text in which a word for Aim is still there."""

FORBIDDEN: Final = "forbidden"
"""Aim blocks texts with this word."""
PRIVATE: Final = "private"
"""Aim replaces this word by GONE."""
GONE: Final = "[GONE]"

REQUEST_BYTES: Final = 65_536
"""The sidecar's limit for a request. Requests that are too large are a little larger."""

_WORDS = ("mesh", "guard", "filter", "stream", "prompt", "model", "answer", "cluster", "listener", "route")
_SLOW_BYTES = 8192
_BURST_PIECES = 48
"""The repeats at the end of a Responses stream of so many pieces fit into the held bytes, which count each twice."""

LARGE: Final = 500_000_000
"""The first number of the exchanges whose answers are so large that Aim is far behind."""
_LARGE_PIECE_BYTES = 32_768
_LARGE_APIS = tuple(api for api in WITH_ANSWERS if api not in (RESPONSES, ANTHROPIC))
"""Streams of the other APIs may repeat the whole text. So the sidecar keeps it, in addition to what waits for Aim."""

SLOW: Final = 1_000_000_000
"""The first number of the exchanges with which slow clients are measured."""
SLOW_PIECES: Final = 256
SLOW_PIECE_BYTES: Final = 32_768


@dataclass(frozen=True, slots=True)
class Pace:
    """The length of streams: at most `pieces` of text, `interval` seconds apart."""

    pieces: int
    interval: float
    large_pieces: int = 0
    """The pieces of a large answer."""
    lag: float = 0.0
    """How long a session needs for a chunk, in seconds."""

    @classmethod
    def parse(cls, text: str) -> Pace:
        """Return the pace that `str` has written."""
        pieces, interval, large_pieces, lag = text.split(",")
        return cls(int(pieces), float(interval), int(large_pieces), float(lag))

    def __str__(self) -> str:
        """Return the pace as an argument of a command."""
        return f"{self.pieces},{self.interval},{self.large_pieces},{self.lag}"


@dataclass(frozen=True, slots=True)
class Script:
    """One exchange. `api` is None on a path that no dialect knows. A word is FORBIDDEN, PRIVATE or ""."""

    number: int
    api: Api | None
    is_stream: bool = False
    texts: tuple[str, ...] = ()
    """The model's texts: the pieces of a stream, or the choices of a whole answer."""
    prompt_word: str = ""
    answer_word: str = ""
    encoding: str = ""
    """The answer's content-encoding."""
    delay: float = 0.0
    """Seconds until the model begins to answer."""
    interval: float = 0.0
    lag: float = 0.0
    """How long Aim needs for a chunk, in seconds."""
    cut_after: int | None = None
    """The number of events after which the model drops the connection; in a whole answer, after the head."""
    leaves_after: int | None = None
    """The number of marks after which the client leaves; 0 means right after its request."""
    pause: float = 0.0
    """How long the client does not read, in seconds. Its socket has a tiny buffer."""
    is_too_large: bool = False

    @property
    def path(self) -> str:
        """The request's path, with the query."""
        return "/v1/files" if self.api is None else self.api.path_of(stream=self.is_stream)

    @property
    def content_type(self) -> str:
        """The type of the request and of a whole answer. An upload passes: it is not held for its content."""
        return "application/octet-stream" if self.api is None else "application/json"

    @property
    def request(self) -> bytes:
        """The request's body."""
        if self.api is None:
            return b"file %d " % self.number * 20
        padding = "x" * (REQUEST_BYTES + 1 if self.is_too_large else 0)
        prompt = f"<{self.number}.p> Tell me of the {self.prompt_word or 'mesh'}. {padding}"
        return self.api.request(prompt, stream=self.is_stream)

    @property
    def events(self) -> list[bytes]:
        """The model's answer: the events of a stream, or one whole body."""
        return self._said(self.texts)

    @property
    def expected(self) -> list[bytes]:
        """The most that a client gets: `events` with Aim's redactions, up to its block."""
        said = self._said(tuple(text.replace(PRIVATE, GONE) for text in self.texts))
        allowed = (at for at, event in enumerate(said) if FORBIDDEN.encode() in event)
        return said[: next(allowed, len(said))]

    def _said(self, texts: tuple[str, ...]) -> list[bytes]:
        if self.api is None:
            return [b'{"id": "file-%d"}' % self.number]
        return self.api.events(*texts) if self.is_stream else [self.api.answer(*texts)]

    @property
    def is_refused(self) -> bool:
        """Return whether this exchange cannot end well."""
        return self.is_too_large or FORBIDDEN in (self.prompt_word, self.answer_word) or self.cut_after is not None

    @property
    def is_large(self) -> bool:
        """Return whether the answer is so large that Aim is far behind."""
        return LARGE <= self.number < SLOW

    @property
    def seconds(self) -> float:
        """The duration of the exchange without faults."""
        return self.delay + max(self.interval, self.lag) * len(self.texts) + self.pause


class Scripts:
    """The scripts of one soak."""

    def __init__(self, seed: int, pace: Pace) -> None:
        """Draw the scripts from `seed`."""
        self._seed = seed
        self._pace = pace

    def __getitem__(self, number: int) -> Script:
        """Return the script of exchange `number`."""
        draw = random.Random(self._seed * 1_000_003 + number)
        if number >= SLOW:
            return Script(number, CHAT, True, _texts(draw, number, SLOW_PIECES, "", size=SLOW_PIECE_BYTES))
        if number >= LARGE:
            word = draw.choice(("", PRIVATE))
            texts = _texts(draw, number, self._pace.large_pieces, word, size=_LARGE_PIECE_BYTES)
            return Script(number, draw.choice(_LARGE_APIS), True, texts, "", word, lag=self._pace.lag)
        if draw.random() < 0.06:
            return Script(number, None, delay=0.2 * draw.random())
        return self._stream(draw, number) if draw.random() < 0.6 else self._whole(draw, number)

    def _stream(self, draw: random.Random, number: int) -> Script:
        api = draw.choice(WITH_ANSWERS)
        prompt_word, answer_word = _words(draw)
        if draw.random() < 0.03 and not self._pace.large_pieces:
            # The model sends everything at once, and the client reads slowly.
            texts = _texts(draw, number, _BURST_PIECES, answer_word, size=_SLOW_BYTES)
            return Script(number, api, True, texts, prompt_word, answer_word, pause=2 * self._pace.interval)
        count = draw.randint(max(2, self._pace.pieces // 4), self._pace.pieces)
        return Script(
            number,
            api,
            True,
            _texts(draw, number, count, answer_word),
            prompt_word,
            answer_word,
            encoding=draw.choice(("", "", "", "gzip", "deflate")),
            delay=self._pace.interval * draw.random(),
            interval=self._pace.interval * draw.uniform(0.7, 1.3),
            lag=self._pace.lag,
            cut_after=draw.randrange(count) if draw.random() < 0.05 else None,
            leaves_after=draw.randrange(count) if draw.random() < 0.08 else None,
        )

    def _whole(self, draw: random.Random, number: int) -> Script:
        prompt_word, answer_word = _words(draw)
        return Script(
            number,
            draw.choice(WITH_ANSWERS),
            False,
            _texts(draw, number, draw.randint(1, 2), answer_word, size=600),
            prompt_word,
            answer_word,
            encoding=draw.choice(("", "", "gzip", "deflate")),
            delay=self._pace.interval * draw.random(),
            cut_after=0 if draw.random() < 0.05 else None,
            leaves_after=0 if draw.random() < 0.05 else None,
            is_too_large=draw.random() < 0.02,
        )


def _words(draw: random.Random) -> tuple[str, str]:
    """Return the words of the prompt and of the answer: mostly "", never both."""
    return draw.choices([("", ""), (FORBIDDEN, ""), (PRIVATE, ""), ("", FORBIDDEN), ("", PRIVATE)], [70, 5, 7, 8, 10])[
        0
    ]


def _texts(draw: random.Random, number: int, count: int, word: str, size: int = 40) -> tuple[str, ...]:
    texts = []
    where = draw.randrange(count)
    for piece in range(count):
        words = " ".join(draw.choices(_WORDS, k=5))
        held = f" {word}" if word and piece == where else ""
        texts.append(f"<{number}.{piece}>{held} {words} ".ljust(size, "."))
    return tuple(texts)


def encoded(pieces: list[bytes], encoding: str) -> list[bytes]:
    """Return a body's pieces in a content-encoding, flushed so that each can be decoded at once."""
    if not encoding:
        return pieces
    packer = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
    packed = [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    return [*packed[:-1], packed[-1] + packer.flush()]


def decoded(body: bytes, encoding: str) -> bytes:
    """Return a body without its content-encoding. A cut body is decoded as far as possible."""
    if not encoding:
        return body
    unpacker = zlib.decompressobj(wbits=31 if encoding == "gzip" else 15)
    return unpacker.decompress(body)
