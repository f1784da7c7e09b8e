"""Walks a document by the table of a dialect and finds every text in it.

Every string is a text, unless its place is known to hold none and the string looks like what the place holds. One
walker reads requests, answers and events. What differs is where a text goes; see `extproc.core.dialects.found`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from extproc.core.content.document import Document, Path, PlainText
from extproc.core.content.shapes import looks_inert, looks_like_words
from extproc.core.dialects.call_arguments import CallArguments, take_spellings
from extproc.core.dialects.chat_message import as_sent, in_brief, is_flat, is_short
from extproc.core.dialects.definitions import read_definitions, read_own_definitions
from extproc.core.dialects.found import ROLES, Found, Mode
from extproc.core.dialects.gather import SOURCE, Gatherer
from extproc.core.dialects.joined import Joined
from extproc.core.dialects.leaf import Kind, Leaf, Prompt
from extproc.core.dialects.lines import lines_of
from extproc.core.dialects.rules import Holds
from extproc.core.dialects.shaped_values import ShapedValues
from extproc.core.dialects.table import UNNAMED, Place, Table
from extproc.core.dialects.tokens import has_tokens, read_others
from extproc.core.errors import MalformedBody

_ALONE = 256
"""The most texts of one list or object that are apart. Those behind them are joined."""

_MESSAGES = 4096
"""The same for a list of messages."""

_ENTRIES = 4096
"""The most entries of one list whose texts are apart, however few they are."""

_WHOLE = frozenset({Holds.ARGUMENTS, Holds.TOOLS, Holds.TOKENS, Holds.UNREADABLE})
_SHAPED = frozenset({Holds.INERT, Holds.MEDIA, Holds.OPAQUE, Holds.SEAL, Holds.URL})
_ARGUMENTS, _INERT, _MEDIA, _MESSAGE, _OPAQUE, _SEAL, _TEXT, _TOKENS, _TOOLS, _UNNAMED, _UNREADABLE = (
    Holds.ARGUMENTS,
    Holds.INERT,
    Holds.MEDIA,
    Holds.MESSAGE,
    Holds.OPAQUE,
    Holds.SEAL,
    Holds.TEXT,
    Holds.TOKENS,
    Holds.TOOLS,
    Holds.UNNAMED,
    Holds.UNREADABLE,
)
"""Members by short names, which are found faster in Python 3.11."""

_STRINGS = {str}
_NULL = {type(None)}
_NUMBERS = {int, float, bool, *_NULL}
_NOBODY: Mapping[str, Any] = {}
_USER = ROLES["user"]


class Walk:
    """One walk through one document. With `locates` joined texts know their places, which costs memory."""

    __slots__ = (
        "_arguments",
        "_found",
        "_is_answer",
        "_is_request",
        "_shaped",
        "_table",
        "_wants_tools",
    )

    def __init__(self, table: Table, mode: Mode, *, wants_tools: bool | None = None, locates: bool = False) -> None:
        """Walk by `table`; read tool definitions if they are wanted, by default those of answers and events."""
        self._table = table
        self._is_request = mode is Mode.REQUEST
        self._is_answer = mode is Mode.ANSWER
        self._wants_tools = mode is not Mode.REQUEST if wants_tools is None else wants_tools
        self._found = Found(mode, locates=locates)
        self._arguments = CallArguments(self._found, is_event=mode is Mode.EVENT)
        self._shaped = ShapedValues(self._found, is_event=mode is Mode.EVENT)

    @property
    def has_embedded(self) -> bool:
        """Return whether arguments were found that are a value of JSON, and whose spelling is still unknown."""
        return self._arguments.has_values

    def run(self, document: Document) -> Found:
        """Return the texts of the document; raise MalformedBody if they cannot be determined with certainty."""
        base = _USER if self._is_request else _NOBODY
        if isinstance(document, PlainText) and "\\" in document.text:
            # It may be JSON for a reader that is more lenient, so its escapes are decoded like those of arguments.
            self._arguments.read_plain(document.text, base)
        else:
            self._value(document.root, self._table.root, (), base, ())
        self._found.end()
        if self._arguments.has_values:
            found = self._found
            take_spellings(document, found.leaves, found.prompts)
        return self._found

    def find(self, node: Any, path: Path) -> Found:
        """Return the texts of a part of a document, which is at `path`; raise like `run`.

        `take_spellings` must give arguments that are a value of JSON their spelling.
        """
        self._value(node, self._table.root, path, _USER, ())
        self._found.end()
        return self._found

    # -- values ----------------------------------------------------------------------------------------------------

    def _value(self, node: Any, place: Place, path: Path, base: Mapping[str, Any], seals: tuple[Path, ...]) -> None:
        kind = type(node)
        if kind is str:
            if node:
                self._string(node, place, path, base, seals)
        elif kind is dict:
            self._object(node, place, path, base, seals)
        elif kind is list:
            self._list(node, place, path, base, seals)
        elif place.needs_text and node is not None:
            raise MalformedBody("a number instead of a text")

    def _string(self, text: str, place: Place, path: Path, base: Mapping[str, Any], seals: tuple[Path, ...]) -> None:
        kind = place.kind
        if kind is _TEXT:
            self._found.add(Leaf(path, text, fixed=place.fixed, emptied=seals), place, base)
        elif kind is _UNNAMED or kind is _MESSAGE:
            self._found.add(Leaf(path, text, emptied=seals), place, base)
        elif kind is _INERT:
            if not looks_inert(text):
                self._found.add(Leaf(path, text, emptied=seals), UNNAMED, base)
        elif kind is _ARGUMENTS:
            self._arguments.read_text(text, place, path, base, seals)
        elif kind is _TOKENS:
            self._tokens(text, place, path)
        elif kind is _TOOLS:
            self._tools(text, path)
        elif kind is _UNREADABLE:
            raise MalformedBody("a text in a form that Aim cannot read")
        else:
            self._shaped.read(text, place, path, base)

    def _source(
        self,
        node: dict[str, Any],
        place: Place,
        path: Path,
        base: Mapping[str, Any],
        seals: tuple[Path, ...],
        around: Mapping[str, Any],
    ) -> None:
        """Read an object with media, of which the object `around` it may say that they are text."""
        before = self._shaped.surround(around)
        self._value(node, place, path, base, seals)
        self._shaped.surround(before)

    def _list(
        self, nodes: list[Any], place: Place, path: Path, base: Mapping[str, Any], seals: tuple[Path, ...]
    ) -> None:
        if not nodes:
            return
        if place.kind in _WHOLE:
            self._whole(nodes, place, path, base, seals)
            return
        kinds = set(map(type, nodes))
        if kinds <= _NUMBERS:
            if place.needs_text and kinds != _NULL:
                raise MalformedBody("token numbers instead of a text")
            return
        found = self._found
        has_lines = False
        if (
            str in kinds
            and self._is_request
            and found.joined is None
            and (place.kind is _UNNAMED or place.kind is _INERT)
        ):
            is_inert = place.kind is _INERT
            lines = lines_of(nodes, path, is_inert=is_inert, is_fixed=bool(seals), locates=found.locates)
            if lines is not None:
                found.add(lines, UNNAMED, base)
                if kinds == _STRINGS:
                    return
                has_lines = True
        most = _MESSAGES if place.kind is _MESSAGE else _ALONE
        is_mine = found.joined is None and len(nodes) > most // 8
        begun = found.count if is_mine else 0
        for index, node in enumerate(nodes):
            if node is None or node == "" or node == [] or node == {} or (has_lines and type(node) is str):
                continue
            if (
                is_mine
                and found.joined is None
                and (found.count - begun >= most or (index >= _ENTRIES and not self._is_answer))
            ):
                found.begin_joined()
            gatherer = self._gatherer(place, seals)
            if gatherer is not None:
                # Nothing is to be known of the rest but its texts. Lines are among the texts already.
                rest = [None if type(each) is str else each for each in nodes] if has_lines else nodes
                gatherer.gather_list(rest, place, path, index)
                break
            into = found.rest if found.joined is None and self._is_answer else found.joined
            if into is not None and kinds == _STRINGS and place.kind in _SHAPED and not seals:
                self._shaped_list(nodes, place, path, base, index, into)
                break
            self._value(node, place, (*path, index), base, seals)
        if is_mine and found.joined is not None:
            found.end_joined(base)

    def _shaped_list(
        self, nodes: list[str], place: Place, path: Path, base: Mapping[str, Any], first: int, into: Joined
    ) -> None:
        """Read the strings of a list from the index `first` on, at a place of shapes, `into` joined texts."""
        around = into.outermost(path)
        for index in range(first, len(nodes)):
            node = nodes[index]
            if looks_like_words(node):
                into.add_text(node, around, index)
            else:
                self._value(node, place, (*path, index), base, ())

    def _gatherer(self, place: Place, seals: tuple[Path, ...]) -> Gatherer | None:
        """Return what gathers the texts below `place`, if all are joined and no seal must be known with its text."""
        if not place.is_plain or (place.children and not self._is_request) or (seals and self._found.locates):
            return None
        into = self._found.joined
        if into is None and place.kind is _UNNAMED and self._is_answer:
            into = self._found.rest
        if into is None:
            return None
        return Gatherer(self._table, into, self._gathered, is_request=self._is_request)

    def _gathered(self, node: Any, place: Place, path: Path, beside: Mapping[str, Any]) -> None:
        """Read a value below a gathered one that is not only texts. `beside` is the object around it."""
        source: Any = beside.get(SOURCE)
        if place.kind is _MEDIA and type(node) is str:
            self._shaped.read(node, place, path, _NOBODY, beside)
        elif type(node) is dict and node is source:
            self._source(node, place, path, _NOBODY, (), beside)
        else:
            self._value(node, place, path, _NOBODY, ())

    def _whole(self, node: Any, place: Place, path: Path, base: Mapping[str, Any], seals: tuple[Path, ...]) -> None:
        """Read a list or an object that is one thing."""
        match place.kind:
            case Holds.ARGUMENTS:
                self._arguments.read_value(node, place, path, base, seals)
            case Holds.TOOLS:
                self._tools(node, path)
            case Holds.TOKENS:
                self._tokens(node, place, path)
            case _:
                raise MalformedBody("a text in a form that Aim cannot read")

    def _object(
        self,
        node: dict[str, Any],
        place: Place,
        path: Path,
        base: Mapping[str, Any],
        seals: tuple[Path, ...],
    ) -> None:
        if place.kind is _MESSAGE:
            self._message(node, place, path)
            return
        if place.kind in _WHOLE:
            self._whole(node, place, path, base, seals)
            return
        if place.speaker is not None and self._is_request:
            base = place.speaker(node, base)
        elif place.role:
            base = ROLES[place.role]
        if place.seals:
            found = tuple((*path, key) for key in place.seals if isinstance(node.get(key), str) and node[key])
            seals = seals + found if found else seals
        self._fields(node, place, path, base, seals)

    def _fields(
        self,
        node: Mapping[str, Any],
        place: Place,
        path: Path,
        base: Mapping[str, Any],
        seals: tuple[Path, ...],
    ) -> None:
        children, any_key, folded, find = place.children, place.any_key, place.folded, self._table.find
        for one, other in place.twins:
            if one in node and other in node:
                raise MalformedBody("a field under both of its names")
        found = self._found
        is_mine = len(node) > _ALONE and found.joined is None
        begun = found.count if is_mine else 0
        for number, (key, value) in enumerate(node.items()):
            if is_mine and found.joined is None and found.count - begun >= _ALONE:
                found.begin_joined()
                gatherer = self._gatherer(place, seals)
                if gatherer is not None:
                    gatherer.gather_fields(dict(islice(node.items(), number, None)), place, path)
                    break
            child = children.get(key)
            if child is None:
                if any_key is not None:
                    child = any_key
                    if key and not looks_inert(key):
                        self._found.add(Leaf((*path, key), key, fixed=True), UNNAMED, base)
                else:
                    if folded and self._is_request and place.is_disguise(key):
                        raise MalformedBody("a key in another letter case")
                    child = find(key)
                    if child is None:
                        child = self._table.name(key)
                        self._found.add(Leaf((*path, key), key, fixed=True), UNNAMED, base)
            if value is None or (child.is_inert and type(value) is str and looks_inert(value)):
                continue
            kind = type(value)
            if kind is str:
                if child.kind is _MEDIA and value:
                    self._shaped.read(value, child, (*path, key), base, node)
                elif value:
                    self._string(value, child, (*path, key), base, seals)
            elif kind is dict and key == SOURCE:
                self._source(value, child, (*path, key), base, seals, node)
            elif kind is dict:
                self._object(value, child, (*path, key), base, seals)
            elif kind is list:
                self._list(value, child, (*path, key), base, seals)
            elif child.needs_text:
                raise MalformedBody("a number instead of a text")
        if is_mine and self._found.joined is not None:
            self._found.end_joined(base)

    # -- messages --------------------------------------------------------------------------------------------------

    def _message(self, node: dict[str, Any], place: Place, path: Path) -> None:
        """Read a chat message. Aim gets it with all its fields, once for each text of its content."""
        content = node.get("content")
        if type(content) is str and is_flat(node, may_lack_role=self._found.joined is not None):
            if content and self._found.joined is not None:
                joined = self._found.joined
                joined.add_text(content, joined.outermost(path), "content")
            elif content:
                self._found.prompts.append(Prompt(node, Leaf((*path, "content"), content)))
            return
        sent = as_sent(node)
        brief = in_brief(sent)
        has_calls = bool(node.get("tool_calls") or node.get("function_call"))
        begun = len(self._found.prompts)
        if "content" in node:
            child = place.children["content"]
            self._value(content, child, (*path, "content"), sent if is_short(sent) else brief, ())
        if has_calls and len(self._found.prompts) == begun and self._found.joined is None:
            # There is no text to redact, but Aim must see the calls in their message.
            self._found.prompts.append(Prompt({**sent, "content": None}, None))
        others = {key: value for key, value in node.items() if key != "content"}
        self._fields(others, place, path, brief, ())

    # -- tools and tokens ------------------------------------------------------------------------------------------

    def _tools(self, node: Any, path: Path) -> None:
        if not self._wants_tools:
            return
        if self._is_request:
            read_own_definitions(node, path, self._found)
        else:
            read_definitions(node, path, self._found, is_answer=self._is_answer)

    def _tokens(self, node: Any, place: Place, path: Path) -> None:
        """Keep the place of tokens, and read what does not look like a token there."""
        if not self._is_request and has_tokens(node):
            self._found.leaves.append(Leaf(path, "", kind=Kind.TOKENS, is_everywhere=place.everywhere))
        found = self._found
        read_others(node, path, lambda leaf: found.add(leaf, UNNAMED, _USER))
