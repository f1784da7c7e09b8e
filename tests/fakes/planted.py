"""Recorded answers with a value planted in one of their texts, and an Aim that redacts it."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from extproc.core.content.aws_event_stream import Frame
from extproc.core.content.census import MAX_VALUES
from extproc.core.content.document import Document
from extproc.core.content.framing import Framing, Unit, decoder_of
from extproc.core.content.server_sent_event import ServerSentEvent
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.choice import choose
from extproc.core.dialects.endpoints import MCP
from extproc.core.dialects.json_rpc import read_known
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.dialects.paths import route
from extproc.core.redaction import is_json
from tests.fakes.aws import event as frame_of
from tests.fakes.aws import wrapped
from tests.fakes.edited import Edit, Raw, edited
from tests.fakes.reading import all_of, at, strings
from tests.fakes.recorded import CORPUS as CORPUS
from tests.fakes.recorded import recorded
from tests.fakes.world import World

VALUE = "ЖЩЮЯБД"
"""The value that must not leak. No recording contains any of its letters, so that each released letter is a leak."""

MASK = "[X]"

_TOKEN = re.compile(r"\s*\S{1,32}|\s+")

RECORDINGS = FilePath(__file__).parents[1] / "fixtures/recordings"

_REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
    "completions": ("/v1/completions", {"prompt": "Hi"}),
    "responses": ("/v1/responses", {"input": "Hi"}),
    "anthropic": ("/v1/messages", {"messages": [{"role": "user", "content": "Hi"}]}),
    "gemini": ("/v1beta/models/m:streamGenerateContent?alt=sse", {"contents": "Hi"}),
    "cohere": ("/v2/chat", {"messages": [{"role": "user", "content": "Hi"}]}),
    "cohere1": ("/v1/chat", {"message": "Hi"}),
    "interactions": ("/v1beta/interactions", {"input": "Hi"}),
    "mistral": ("/v1/conversations", {"inputs": "Hi"}),
    "tgi": ("/tgi/generate", {"inputs": "Hi"}),
    "llamacpp": ("/completion", {"prompt": "Hi"}),
    "sglang": ("/sglang/generate", {"text": "Hi"}),
    "threads": ("/v1/threads/thread_1/runs", {"assistant_id": "asst_1", "additional_instructions": "Hi there"}),
    "complete": ("/v1/complete", {"prompt": "Hi"}),
    "codeassist": (
        "/v1internal:streamGenerateContent?alt=sse",
        {"model": "m", "request": {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}},
    ),
    "bedrock": ("/model/m/converse-stream", {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}),
    "invoke": ("/model/m/invoke-with-response-stream", {"prompt": "Hi"}),
    "claude": (
        "/model/claude/invoke-with-response-stream",
        {"anthropic_version": "bedrock-2023-05-31", "messages": [{"role": "user", "content": "Hi"}]},
    ),
    "transcripts": ("/v1/audio/transcriptions", {"prompt": "Hi"}),
    "ollama": ("/api/chat", {"messages": [{"role": "user", "content": "Hi"}]}),
    "mcp": (
        "/mcp",
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "f", "arguments": {"q": "Hi"}}},
    ),
}
"""For each kind of recording a path, of its own, and a request."""


@dataclass(frozen=True)
class Recording:
    """A recorded or invented answer."""

    name: str
    path: str
    body: bytes

    @property
    def dialect(self) -> Dialect:
        dialect = dialect_at(self.path)
        assert dialect is not None
        return dialect

    @property
    def is_lines(self) -> bool:
        return self.name.endswith(".jsonl")

    @property
    def is_frames(self) -> bool:
        return self.name.endswith(".frames")

    @property
    def is_stream(self) -> bool:
        begins = self.body.lstrip()[:1]
        return self.is_lines or (begins != b"{" and (begins != b"[" or self.dialect.streams_in is Framing.JSON_ARRAY))

    @property
    def is_array(self) -> bool:
        return not self.is_lines and self.body.lstrip().startswith(b"[")

    @property
    def content_type(self) -> str:
        if self.is_lines:
            return "application/x-ndjson"
        if self.is_frames:
            return "application/vnd.amazon.eventstream"
        return "text/event-stream" if self.is_stream and not self.is_array else "application/json"

    def begin(self) -> World:
        """Return an exchange that waits for its answer."""
        world = World().request(self.request, ("content-type", "application/json"), path=self.path).judge()
        return world.head(self.content_type)

    @property
    def request(self) -> bytes:
        """A request for the answer."""
        request = next(body for path, body in _REQUESTS.values() if dialect_at(path) is self.dialect)
        return json.dumps({**request, "stream": self.is_stream}).encode()


def dialect_at(path: str) -> Dialect | None:
    """Return the dialect that reads the request for a path, which may depend on the request."""
    found = route("POST", path, {})
    request = json.dumps(next((body for known, body in _REQUESTS.values() if known == path), {})).encode()
    if read_known(request, None, MAX_VALUES):
        return MCP
    return choose(found.choices, request, MAX_VALUES)[0] if found.choices else found.dialect


def own() -> list[Recording]:
    """Return the recordings in the repository."""
    return [
        Recording(file.name, _REQUESTS[file.stem.split("-")[0]][0], _body(file))
        for file in sorted(RECORDINGS.iterdir())
        if file.suffix in (".sse", ".json", ".jsonl", ".frames")
    ]


def _body(file: FilePath) -> bytes:
    if file.suffix != ".frames":
        return file.read_bytes()
    kinds_and_payloads = (line.split(" ", 1) for line in file.read_text().splitlines())
    return b"".join(
        wrapped(payload, p="abcd") if kind == "chunk" else frame_of(kind, payload.encode())
        for kind, payload in kinds_and_payloads
    )


def corpus() -> list[Recording]:
    """Return the successful answers that other projects recorded of the APIs with streams."""
    return [
        Recording(one.name, one.path, one.response)
        for one in recorded(CORPUS)
        if one.response is not None and one.status == 200 and _has_streams(one.path)
    ]


def _has_streams(path: str) -> bool:
    dialect = dialect_at(path)
    return dialect is not None and any(dialect_at(known) is dialect for known, _ in _REQUESTS.values())


# -- streams -------------------------------------------------------------------------------------------------------


def units_of(body: bytes) -> list[Unit]:
    """Return the events or lines of a stream, or the elements of a growing array."""
    decoder = decoder_of(_framing(body.lstrip()), 2**24)
    return [*decoder.feed(body), *decoder.finish()]


def _framing(body: bytes) -> Framing:
    if body.startswith(b"\0"):
        return Framing.AWS_EVENT_STREAM
    first, _, rest = body.partition(b"\n")
    if body.startswith(b"[") and not (rest and is_json(first.decode())):
        return Framing.JSON_ARRAY
    return Framing.JSON_LINES if body[:1] in (b"[", b"{", b'"') else Framing.EVENT_STREAM


def type_of(event: Unit) -> str:
    """Return the type of an event. A line has none."""
    if isinstance(event, Frame):
        return event.event_type
    return event.type if isinstance(event, ServerSentEvent) else ""


def read(dialect: Dialect, event: Unit) -> tuple[Document | None, list[Leaf]]:
    """Return the document and the leaves of an event."""
    if not event.data or not event.data.strip() or dialect.is_final(event.data, None):
        return None, []
    document = Document(event.data)
    return document, dialect.deltas(document)


def running(recording: Recording) -> dict[Hashable, str]:
    """Return the running texts of a stream, each joined."""
    texts: dict[Hashable, str] = {}
    for event in units_of(recording.body):
        for leaf in read(recording.dialect, event)[1]:
            if leaf.kind is Kind.TEXT and leaf.place is not None and not leaf.is_embedded:
                texts[leaf.place] = texts.get(leaf.place, "") + leaf.text
    return texts


def is_argument(recording: Recording, place: Hashable) -> bool:
    """Return whether a running text is JSON for a program."""
    found = (leaf for event in units_of(recording.body) for leaf in read(recording.dialect, event)[1])
    return any(leaf.is_json and leaf.place == place for leaf in found)


def spots(text: str, *, is_argument: bool) -> list[int]:
    """Return the positions at which the value can be planted: start, middle and end, as long as JSON stays valid."""
    places = [at for at in range(len(text) + 1) if not is_argument or is_json(text[:at] + VALUE + text[at:])]
    return sorted({places[0], places[len(places) // 2], places[-1]}) if places else []


def plant(recording: Recording, place: Hashable, pieces: list[str]) -> bytes:
    """Return the stream with `pieces` as the running text at `place`, and with matching repeats."""
    dialect = recording.dialect
    before, after = running(recording)[place], "".join(pieces)
    out: list[bytes] = []
    left = list(pieces)
    together = _together(recording, place).count(True)
    for event in units_of(recording.body):
        document, leaves = read(dialect, event)
        mine = [leaf for leaf in leaves if leaf.place == place]
        mine = [leaf for leaf in mine if leaf.kind is not Kind.SEAL] or mine
        if document is None or not mine:
            # A repeat in a place that the dialect may not read. The value must not leak there either.
            again = {path: after for path, text in strings(document.root if document else None) if text == before}
            out.append(event.with_data(edited(document, again)) if document and again else event.raw)
            continue
        (leaf, *more) = mine
        assert all(one.kind is Kind.REPEAT for one in mine) or not more
        if leaf.kind is Kind.SEAL:
            out.append(event.raw)
        elif leaf.kind is Kind.REPEAT:
            assert all(one.text == before for one in mine)
            again = {one.path: after for one in mine}
            out.append(event.with_data(edited(document, again | _tokens(document, leaves, leaf, after))))
        elif others := {one.path: "" for one in leaves if one.kind is Kind.TEXT and one is not leaf}:
            # The event has other texts, so it stays: with the next piece or, if there is none, without text. If it is
            # the last one, further pieces follow alone.
            together -= 1
            piece = left.pop(0) if left else ""
            out.append(event.with_data(edited(document, {leaf.path: piece} | _tokens(document, leaves, leaf, piece))))
            while left and not together:
                piece = left.pop(0)
                edits = {leaf.path: piece, **others} | _tokens(document, leaves, leaf, piece)
                out.append(event.with_data(edited(document, edits)))
        else:
            # The first event is repeated for every piece, except those for shared events.
            shared = _shared(recording, place)
            while len(left) > shared:
                piece = left.pop(0)
                out.append(
                    event.with_data(edited(document, {leaf.path: piece} | _tokens(document, leaves, leaf, piece)))
                )
    assert not left
    return _array(out) if recording.is_array else b"".join(out)


def _array(elements: list[bytes]) -> bytes:
    """Return an array of elements, some of which are repeated or left out, with their brackets and commas."""
    first = elements[0].replace(b",", b"[", 1) if elements[0].lstrip().startswith(b",") else elements[0]
    others = (each.replace(b"[", b",", 1) if each.lstrip().startswith(b"[") else each for each in elements[1:])
    return b"".join((first, *others))


def _shared(recording: Recording, place: Hashable) -> int:
    """Return how many of the last events have a text at `place` together with another text."""
    together = _together(recording, place)
    return sum(together) if together == sorted(together) and not all(together) else 0


def _together(recording: Recording, place: Hashable) -> list[bool]:
    """Return for each event with a text at `place` whether it has another text, too."""
    said = (
        [leaf.place for leaf in read(recording.dialect, event)[1] if leaf.kind is Kind.TEXT]
        for event in units_of(recording.body)
    )
    return [len(texts) > 1 for texts in said if place in texts]


def _tokens(document: Document, leaves: list[Leaf], leaf: Leaf, text: str) -> dict[Any, Edit]:
    """Return the edits that make the tokens of a text match it."""
    paths = [one.path for one in leaves if one.kind is Kind.TOKENS and one.unit == leaf.unit]
    return {path: as_tokens(at(document.root, path), text) for path in paths}


def as_tokens(given: Any, text: str) -> Raw:
    """Return the tokens of a text, in the shape of the tokens that were given."""
    words = _TOKEN.findall(text)
    tokens = [{"token": word, "logprob": -0.5} for word in words]
    return Raw(json.dumps(tokens if isinstance(given, list) else {"content": tokens, "tokens": words}))


def client_texts(dialect: Dialect, body: bytes) -> tuple[dict[Hashable, str], dict[Hashable, set[str]]]:
    """Return the texts that a client reads: each running text, and the texts of its repeats."""
    texts: dict[Hashable, str] = {}
    repeats: dict[Hashable, set[str]] = {}
    for event in units_of(body):
        for leaf in read(dialect, event)[1]:
            if leaf.kind is Kind.TEXT and leaf.place is not None:
                texts[leaf.place] = texts.get(leaf.place, "") + leaf.text
            elif leaf.kind is Kind.REPEAT:
                repeats.setdefault(leaf.place, set()).add(leaf.text)
    return texts, repeats


def shape(dialect: Dialect, event: Unit) -> Any:
    """Return the parts of an event that a redaction does not change."""
    if read(dialect, event)[0] is None:
        return event.raw
    return type_of(event), all_of(json.loads(event.data or ""))


def letters(body: bytes) -> set[str]:
    """Return the letters of the value that occur anywhere in a body, in any spelling."""
    text = "".join(unit.data or "" for unit in units_of(body)) if body.startswith(b"\0") else body.decode()
    for letter in VALUE:
        text = text.replace(f"\\u{ord(letter):04x}", letter)
    return set(VALUE) & set(text)


# -- Aim -----------------------------------------------------------------------------------------------------------


@dataclass
class RedactingAim:
    """Aim in a session: it joins the chunks of each index and replaces the value.

    With `is_eager` it verifies at once what cannot be part of the value; otherwise it waits for the sidecar's `done`.
    With `drops` it omits chunks that became empty; otherwise it sends them empty. With `merges` it joins unchanged
    chunks. With `blocks` it blocks when it finds the value.
    """

    is_eager: bool = True
    drops: bool = False
    merges: bool = False
    blocks: bool = False

    def __post_init__(self) -> None:
        self._waiting: dict[int, list[str]] = {}

    def answer(self, world: World) -> None:
        """Answer the chunks that were submitted since the last call."""
        chunks, world.chunks[:] = list(world.chunks), []
        for chunk in chunks:
            texts = [(one["index"], one.get("delta", {}).get("content")) for one in chunk["choices"]]
            for index, text in texts:
                if text:
                    self._waiting.setdefault(index, []).append(text)
            if not any(text for _, text in texts):
                world.verify_chunk({"choices": [{"index": i, "delta": {}} for i, _ in texts]})
        for index in list(self._waiting):
            self._release(world, index, is_last=world.is_submitted_done)
        if world.is_submitted_done and not world.is_closed:
            world.done()

    def _release(self, world: World, index: int, *, is_last: bool) -> None:
        texts = self._waiting[index]
        joined = "".join(texts)
        if self.blocks and VALUE in joined:
            world.block(f"Found '{VALUE}' there.")
        if world.is_closed or not (is_last or self.is_eager):
            return
        held = 0 if is_last else next(n for n in range(len(VALUE) - 1, -1, -1) if joined.endswith(VALUE[:n]))
        sure = len(joined) - held
        count = end = 0
        while count < len(texts) and end + len(texts[count]) <= sure:
            end += len(texts[count])
            count += 1
        if joined[:end].endswith(tuple(VALUE[:n] for n in range(1, len(VALUE)))):
            return  # the rest of the value may be in the next chunk
        given, self._waiting[index] = texts[:count], texts[count:]
        said = list(_redacted(given))
        for text in _merged(given, said) if self.merges else said:
            if (text or not self.drops) and not world.is_closed:
                world.verify(text, index)


def _redacted(texts: list[str]) -> Iterator[str]:
    """Yield each text without its part of the value. The mask replaces the beginning of the value."""
    joined = "".join(texts)
    hidden: set[int] = set()
    starts: set[int] = set()
    found = joined.find(VALUE)
    while found >= 0:
        starts.add(found)
        hidden |= set(range(found, found + len(VALUE)))
        found = joined.find(VALUE, found + len(VALUE))
    position = 0
    for text in texts:
        places = range(position, position + len(text))
        yield "".join((MASK if at in starts else "") + ("" if at in hidden else joined[at]) for at in places)
        position += len(text)


def _merged(texts: list[str], said: list[str]) -> Iterator[str]:
    """Join unchanged neighbours."""
    joined = ""
    for text, kept in zip(texts, said, strict=True):
        if text == kept:
            joined += text
            continue
        if joined:
            yield joined
            joined = ""
        yield kept
    if joined:
        yield joined
