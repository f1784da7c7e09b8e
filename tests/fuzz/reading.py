"""The surfaces that read bodies, framings and documents, outside of an exchange."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from extproc.aim import protocol
from extproc.core.content import arguments
from extproc.core.content import escapes as running_escapes
from extproc.core.content.aws_event_stream import FrameDecoder
from extproc.core.content.body import inflater
from extproc.core.content.document import Document, Path
from extproc.core.content.framing import FIRST_BYTES, Decoder, Unit, framing_of
from extproc.core.content.json_array import END, ArrayDecoder
from extproc.core.content.json_lines import LineDecoder
from extproc.core.content.multipart import FormDecoder
from extproc.core.content.server_sent_event import BOM
from extproc.core.content.sse import EventDecoder
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.endpoints import NAMES
from extproc.core.dialects.found import Mode
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.errors import ContentError, MalformedBody
from extproc.core.redaction import RedactionError, edits
from extproc.core.vocabulary import Input
from tests.fakes.reading import strings
from tests.fuzz.knobs import Knobs

FORMS: tuple[protocol.Form, ...] = ("detect", "firewall", "cato")
MASK = "[X]"

# -- bodies and their framings -----------------------------------------------------------------------------------------


def events(data: bytes) -> None:
    """Decode an event stream and check that no byte is lost and that the cut does not matter."""
    knobs = Knobs(data)
    limit = knobs.pick((1 << 20, 64, 1024))
    stream = knobs.payload
    decoder = EventDecoder(limit)
    found = []
    pieces = knobs.cut(stream)
    is_whole = False
    with suppress(ContentError):
        while pieces:
            found += list(decoder.feed(pieces.pop(0)))
            assert decoder.pending <= limit
        found += list(decoder.finish())
        is_whole = True
    check_lines(b"".join(event.raw for event in found), stream, is_whole=is_whole)
    if not is_whole:
        return
    assert decoder.pending == 0
    whole = EventDecoder(1 << 30)
    said = [(event.type, event.data) for event in (*whole.feed(stream), *whole.finish()) if event.data is not None]
    assert said == [(event.type, event.data) for event in found if event.data is not None]
    for event in found:
        if event.data is not None and not event.is_foreign:
            again = EventDecoder(1 << 30)
            changed = [*again.feed(event.with_data("new\n text")), *again.finish()]
            # A foreign line between the type and the data takes the line of the type with it.
            kind = event.type if b"event:" in event.raw else ""
            assert [(one.data, one.type) for one in changed if one.data is not None] == [("new\n text", kind)]


def check_lines(left: bytes, stream: bytes, *, is_whole: bool = True) -> None:
    """Check that each line of an event stream left unchanged or as an empty comment."""
    lines = stream.splitlines()
    assert all(new in (old, b":", BOM + b":") for new, old in zip(left.splitlines(), lines, strict=is_whole))


def body(data: bytes) -> None:
    """Decode a content-encoding and check that the limits hold and that the cut does not matter."""
    knobs = Knobs(data)
    coding = knobs.pick(("gzip", "deflate", "br", "zstd", "x-gzip", "gzip, br", "", "x", "identity"))
    most, ratio = knobs.pick(((10_000, 50), (1_000_000, 100), (100, 2)))
    results: list[bytes | None] = []
    for pieces in (knobs.cut(knobs.payload), [knobs.payload]):
        try:
            undo = inflater((("content-encoding", coding),), most, ratio)
            if undo is None:
                return
            plain = b"".join([undo.feed(piece) for piece in pieces])
            undo.finish()
        except ContentError:
            results.append(None)
            continue
        assert len(plain) <= most
        results.append(plain)
    pieced, whole = results
    # One may be refused although the other is not: the ratio counts the bytes so far, and libzstd only notices that a
    # frame is shorter than declared if it gets the whole frame at once.
    assert pieced is None or whole is None or pieced == whole


def lines(data: bytes) -> None:
    """Cut JSON lines; check that no byte is lost, that the cut does not matter, and that an edit stays in its line."""
    knobs = Knobs(data)
    limit = knobs.pick((1 << 20, 64, 1024))
    decoder = LineDecoder(limit)
    found = []
    is_whole = False
    with suppress(ContentError):
        for piece in knobs.cut(knobs.payload):
            found += list(decoder.feed(piece))
            assert decoder.pending <= limit
        found += list(decoder.finish())
        is_whole = True
    raw = b"".join(line.raw for line in found)
    assert raw == (knobs.payload if is_whole else knobs.payload[: len(raw)])
    if not is_whole:
        return
    whole = LineDecoder(1 << 30)
    said = [line.data for line in (*whole.feed(knobs.payload), *whole.finish()) if line.data is not None]
    assert said == [line.data for line in found if line.data is not None]
    for line in found:
        again = LineDecoder(1 << 30)
        changed = [*again.feed(line.with_data("{\n}")), *again.finish()]
        assert [one.data for one in changed if one.data] == (["{ }"] if line.data else [])


def units(data: bytes) -> None:
    """Cut AWS event streams, growing arrays and forms; check as for lines."""
    knobs = Knobs(data)
    limit = knobs.pick((1 << 20, 64, 1024))
    kinds: tuple[Callable[[int], Decoder], ...] = (ArrayDecoder, FrameDecoder, lambda limit: FormDecoder("x", limit))
    new = knobs.pick(kinds)
    decoder = new(limit)
    found: list[Unit] = []
    pieces = knobs.cut(knobs.payload)
    is_whole = False
    with suppress(ContentError):
        while pieces:
            found.extend(decoder.feed(pieces.pop(0)))  # keeps the units before an error
            assert decoder.pending <= limit
        found += list(decoder.finish())
        is_whole = True
    assert b"".join(unit.raw for unit in found) + decoder.take_rest() + b"".join(pieces) == knobs.payload
    if not is_whole:
        return
    whole = new(1 << 30)
    said = [unit.data for unit in (*whole.feed(knobs.payload), *whole.finish()) if unit.data is not None]
    assert said == [unit.data for unit in found if unit.data is not None]
    again = new(1 << 30)
    changed = b"".join(unit.with_data(unit.data) if unit.data and unit.data != END else unit.raw for unit in found)
    assert said == [unit.data for unit in (*again.feed(changed), *again.finish()) if unit.data is not None]


def framing(data: bytes) -> None:
    """Recognise a framing and check that more bytes do not change what the first ones told."""
    knobs = Knobs(data)
    media_type = knobs.pick(
        ("", "text/plain", "application/json", "text/event-stream; charset=utf-8", "application/x-ndjson", "image/png")
    )
    told = None
    for size in range(FIRST_BYTES + 2):
        found = framing_of(media_type, knobs.payload[:size])
        assert told is None or found is told
        told = found
        assert framing_of(media_type, knobs.payload[:size], is_all=True) is not None
    assert told is not None or len(knobs.payload) < FIRST_BYTES


def escapes(data: bytes) -> None:
    """Decode the escapes of JSON, whole and in pieces, and put a redaction back into the spelling."""
    knobs = Knobs(data)
    text = knobs.payload.decode(errors="replace")
    whole, used = running_escapes.decode(text)
    said = rest = ""
    nesting = running_escapes.Nesting()
    for piece in _cut_text(knobs, text):
        nesting.feed(piece)
        decoded, read = running_escapes.decode(rest + piece)
        said, rest = said + decoded, (rest + piece)[read:]
        assert len(rest) <= running_escapes.MAX_CUT
    assert (said, rest) == (whole, text[used:])
    at_once = running_escapes.Nesting()
    at_once.feed(text)
    assert (nesting.in_string, nesting.depth) == (at_once.in_string, at_once.depth)
    assert running_escapes.respell(text[:used], whole, whole, in_string=knobs.flag()) == text[:used]
    try:
        root = Document(text).root
    except ContentError:
        return
    decoded = arguments.decode(text)
    assert arguments.put_back(text, decoded) == {}
    start = knobs.number(256) * len(decoded) // 256
    redacted = decoded[:start] + MASK + decoded[start + knobs.number(9) :]
    with suppress(arguments.Misfit):
        new = arguments.replace_strings(text, arguments.put_back(text, redacted))
        assert arguments.decode(new) == redacted
        assert _shape(Document(new).root) == _shape(root)


def _cut_text(knobs: Knobs, text: str) -> Iterator[str]:
    """Yield pieces of a text."""
    position = 0
    while position < len(text):
        size = 1 + knobs.number(256) if position < 1024 else len(text)
        yield text[position : position + size]
        position += size


def _shape(node: Any) -> Any:
    """Return a JSON value without its strings."""
    if isinstance(node, dict):
        return {key: _shape(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_shape(value) for value in node]
    return "" if isinstance(node, str) else node


# -- documents ---------------------------------------------------------------------------------------------------------


def document(data: bytes) -> None:
    """Parse JSON and edit any of its texts in place."""
    knobs = Knobs(data)
    try:
        parsed = Document.from_bytes(knobs.payload)
    except MalformedBody:
        return
    assert parsed.rewrite({}).encode() == knobs.payload
    paths = list(_texts(parsed.root, ()))
    wanted = dict.fromkeys(paths[knobs.number(4) :: 1 + knobs.number(3)], 'new "text" \ud800')
    again = Document.from_bytes(parsed.rewrite(wanted).encode())
    expected = json.loads(knobs.payload)
    for path, text in wanted.items():
        expected = _put(expected, path, text)
    assert _same(again.root, expected)


def _texts(node: Any, path: Path) -> Iterator[Path]:
    """Yield the places of strings, except those in objects that repeat a key."""
    if isinstance(node, str):
        yield path
    elif type(node) is dict:
        for key, value in node.items():
            yield from _texts(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _texts(value, (*path, index))


def _put(root: Any, path: Path, value: Any) -> Any:
    if not path:
        return value
    root[path[0]] = _put(root[path[0]], path[1:], value)
    return root


def _same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


_SENTENCE = re.compile("[A-Za-z]{2,12}(?: [A-Za-z]{2,12}){2,}").fullmatch
"""A text that looks like nothing else, wherever it stands."""


def request(data: bytes) -> None:
    """Read a request in any dialect, encode its detection, and redact all of it."""
    knobs = Knobs(data)
    dialect = NAMES[knobs.pick(list(NAMES))]
    tools = knobs.flag()
    try:
        parsed = Document.from_bytes(knobs.payload)
        prompts = dialect.prompts(parsed, tools=tools)
    except ContentError:
        return
    dialect.streams(parsed, "/v1/models/m:generateContent")
    asked = Input(tuple(dict(prompt.message) for prompt in prompts))
    for form in FORMS:
        assert json.loads(protocol.call_body(form, asked))["messages"] is not None
    for prompt in prompts:
        assert prompt.leaf is None or prompt.message["content"] == prompt.leaf.text
    located = dialect.prompts(parsed, tools=tools, locates=True)
    assert [prompt.message for prompt in located] == [prompt.message for prompt in prompts]


def walk(data: bytes) -> None:
    """Read a document by the tables of any dialect, as a request, an answer or an event, and redact all of it.

    Its sentences are found, wherever they stand. Reading without places finds the same texts. What is redacted is gone.
    """
    knobs = Knobs(data)
    dialect, mode = NAMES[knobs.pick(list(NAMES))], knobs.pick(list(Mode))
    try:
        parsed = Document.from_bytes(knobs.payload)
        leaves = _leaves(dialect, mode, parsed, locates=False)
    except ContentError:
        return
    located = _leaves(dialect, mode, parsed, locates=True)
    assert [leaf.text for leaf in located] == [leaf.text for leaf in leaves]
    said = "\0".join(leaf.text for leaf in leaves)
    unseen = [path for path, text in strings(parsed.root) if _SENTENCE(text) and text not in said]
    assert unseen == []
    texts = [leaf for leaf in located if leaf.kind in (Kind.TEXT, Kind.REPEAT) and _masked(leaf) != leaf.text]
    try:
        changes = edits([(leaf, _masked(leaf)) for leaf in texts])
    except RedactionError:
        return
    again = _leaves(dialect, mode, Document(parsed.rewrite(changes)), locates=True)
    # A redacted type of an event may make a text of it redactable that was not.
    kept = {leaf.text for leaf in located if leaf.fixed}
    left = [leaf.text for leaf in again if leaf.kind in (Kind.TEXT, Kind.REPEAT) and _masked(leaf) != leaf.text]
    assert set(left) <= kept


def _leaves(dialect: Dialect, mode: Mode, parsed: Document, *, locates: bool) -> Sequence[Leaf]:
    match mode:
        case Mode.REQUEST:
            prompts = dialect.prompts(parsed, tools=True, locates=locates)
            return [prompt.leaf for prompt in prompts if prompt.leaf is not None]
        case Mode.ANSWER:
            return dialect.answers(parsed, locates=locates)
        case Mode.EVENT:
            return dialect.deltas(parsed, locates=locates)


def _masked(leaf: Leaf) -> str:
    """Return the text of a leaf after a redaction of all that can be redacted."""
    if leaf.fixed:
        return leaf.text
    if leaf.is_joined:
        return "\n".join(map(_masked, leaf.parts))
    if leaf.raw:
        every = dict.fromkeys(range(leaf.raw.count('"')), MASK)
        return arguments.decode(arguments.replace_strings(leaf.raw, every))
    return MASK + "\n" * leaf.text.count("\n")
