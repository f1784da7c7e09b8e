"""Walks a document by the table of a dialect and finds every text in it.

Every string is a text, unless its place is known to hold none and the string looks like what the place holds. One
walker reads requests, answers and events. What differs is where a text goes: to a message of its own, to a running text
of the answer, or to the text that joins everything that no rule names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

from extproc.core.content.arguments import decode
from extproc.core.content.document import Document, Path, PlainText
from extproc.core.content.shapes import EncodedText, looks_inert, looks_like_url, looks_opaque, read_media
from extproc.core.dialects.chat_message import SENT_ROLES, as_sent, in_brief, is_flat, is_short
from extproc.core.dialects.definitions import definition, gather_definition
from extproc.core.dialects.gather import Gatherer
from extproc.core.dialects.leaf import Joined, Kind, Leaf, Prompt
from extproc.core.dialects.rules import UNNAMED, Holds, Place, Table
from extproc.core.dialects.tokens import no_tokens
from extproc.core.errors import MalformedBody

_ALONE = 256
"""The most texts of one list or object that are judged one by one. Those behind them are joined."""

_MESSAGES = 4096
"""The same for a list of messages."""

_ENTRIES = 4096
"""The most entries of one list whose texts are judged one by one, however few they are."""

_IN_EVENT = 32
"""The most texts of one event behind which unnamed ones are joined."""

_MOST = 8192
"""The most texts of one document that are judged one by one, whatever its shape."""

_EMPTY = frozenset({"{}", "[]", '""', "null"})
"""Arguments of a call without arguments."""


class Mode(Enum):
    """What is walked."""

    REQUEST = auto()
    ANSWER = auto()
    EVENT = auto()


@dataclass(slots=True)
class Reading:
    """What a walk found, in the order of the document.

    `prompts` are a request's messages; `leaves` the texts of an answer or event, and its tokens. `definitions` are a
    request's messages of tool definitions.
    """

    prompts: list[Prompt] = field(default_factory=list)
    leaves: list[Leaf] = field(default_factory=list)
    definitions: list[Prompt] = field(default_factory=list)


class Walk:
    """One walk through one document. With `locates` joined texts know their places, which costs memory."""

    __slots__ = (
        "_has_embedded",
        "_is_answer",
        "_is_request",
        "_joined",
        "_locates",
        "_mode",
        "_rest",
        "_table",
        "_tool",
        "_wants_tools",
        "reading",
    )

    def __init__(self, table: Table, mode: Mode, *, wants_tools: bool = False, locates: bool = False) -> None:
        """Walk by `table`; read tool definitions if they are wanted."""
        self._table = table
        self._mode = mode
        self._is_request = mode is Mode.REQUEST
        self._is_answer = mode is Mode.ANSWER
        self._wants_tools = wants_tools
        self._locates = locates
        self._has_embedded = False
        self._joined: Joined | None = None
        self._rest = Joined(locates=locates)
        self._tool = Joined(locates=locates)
        self.reading = Reading()

    def run(self, document: Document) -> Reading:
        """Return the texts of the document; raise MalformedBody if they cannot be determined with certainty."""
        base = _USER if self._is_request else _NOBODY
        if isinstance(document, PlainText) and "\\" in document.text:
            # It may be JSON for a reader that is more lenient, so its escapes are decoded like those of arguments.
            self._plain(document.text, base)
        else:
            self._value(document.root, self._table.root, (), base, ())
        if self._joined is not None:
            self._end_joined(_USER)
        if self._rest:
            self.reading.leaves.append(self._rest.leaf())
        if self._has_embedded:
            self._spell(document)
        return self.reading

    def _plain(self, text: str, base: Mapping[str, Any]) -> None:
        is_event = self._mode is Mode.EVENT
        self._found(
            Leaf((), text if is_event else decode(text), is_json=True, raw="" if is_event else text), UNNAMED, base
        )

    def _spell(self, document: Document) -> None:
        """Give arguments that are a value of JSON their spelling in the document."""
        reading = self.reading
        found = [leaf for leaf in (*reading.leaves, *(prompt.leaf for prompt in reading.prompts)) if leaf is not None]
        spelt = document.spelling([leaf.path for leaf in found if leaf.is_embedded])

        def respell(leaf: Leaf) -> Leaf:
            raw = spelt[leaf.path]
            return replace(leaf, raw=raw, text=decode(raw))

        reading.leaves = [respell(leaf) if leaf.is_embedded else leaf for leaf in reading.leaves]
        for number, prompt in enumerate(reading.prompts):
            if prompt.leaf is not None and prompt.leaf.is_embedded:
                leaf = respell(prompt.leaf)
                reading.prompts[number] = Prompt({**prompt.message, "content": leaf.text}, leaf)

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
        if kind is Holds.TEXT:
            self._found(Leaf(path, text, fixed=place.fixed, emptied=seals), place, base)
        elif kind is Holds.UNNAMED or kind is Holds.MESSAGE:
            self._found(Leaf(path, text, emptied=seals), place, base)
        elif kind is Holds.INERT:
            if not looks_inert(text):
                self._found(Leaf(path, text, emptied=seals), UNNAMED, base)
        elif kind is Holds.ARGUMENTS:
            self._arguments(text, path, base, seals)
        elif kind is Holds.TOKENS:
            self._tokens(text, place, path)
        elif kind is Holds.TOOLS:
            self._tools(text, path)
        elif kind is Holds.UNREADABLE:
            raise MalformedBody("a text in a form that cannot be judged")
        else:
            self._shaped(text, place, path, base)

    def _shaped(self, text: str, place: Place, path: Path, base: Mapping[str, Any]) -> None:
        """Read a string at the place of an address, of media, of a seal or of an opaque value."""
        if place.kind is Holds.OPAQUE or place.kind is Holds.SEAL:
            if looks_opaque(text):
                if place.kind is Holds.SEAL and self._mode is Mode.EVENT:
                    self.reading.leaves.append(Leaf(path, text, kind=Kind.SEAL))
                return
        elif looks_like_url(text):
            return
        elif media := read_media(text):
            if isinstance(media, EncodedText):
                self._found(Leaf(path, media.text, encoded=media), UNNAMED, base)
            return
        self._found(Leaf(path, text), UNNAMED, base)

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
        most = _MESSAGES if place.kind is Holds.MESSAGE else _ALONE
        is_mine = self._joined is None and len(nodes) > most // 8
        begun = self._count if is_mine else 0
        for index, node in enumerate(nodes):
            if node is None or node == "" or node == [] or node == {}:
                continue
            if (
                is_mine
                and self._joined is None
                and (self._count - begun >= most or (index >= _ENTRIES and not self._is_answer))
            ):
                self._joined = Joined(locates=self._locates)
            into = self._gathers(place)
            if into is not None:
                # Nothing is to be known of the rest but its texts.
                gatherer = Gatherer(self._table, into, lambda value, at: self._value(value, at, (), base, ()))
                gatherer.gather(nodes[index:] if index else nodes, place, is_request=self._is_request)
                break
            self._value(node, place, (*path, index), base, seals)
        if is_mine and self._joined is not None:
            self._end_joined(base)

    def _gathers(self, place: Place) -> list[str] | None:
        """Return the list that takes all texts below `place`, if they are joined and their places do not matter."""
        if self._locates or not place.is_plain or (place.children and not self._is_request):
            return None
        if self._joined is not None:
            return self._joined.texts
        return self._rest.texts if place.kind is Holds.UNNAMED and self._is_answer else None

    def _whole(self, node: Any, place: Place, path: Path, base: Mapping[str, Any], seals: tuple[Path, ...]) -> None:
        """Read a list or an object that is one thing."""
        match place.kind:
            case Holds.ARGUMENTS:
                self._embedded(node, path, base, seals)
            case Holds.TOOLS:
                self._tools(node, path)
            case Holds.TOKENS:
                self._tokens(node, place, path)
            case _:
                raise MalformedBody("a text in a form that cannot be judged")

    def _object(
        self,
        node: dict[str, Any],
        place: Place,
        path: Path,
        base: Mapping[str, Any],
        seals: tuple[Path, ...],
    ) -> None:
        if place.kind is Holds.MESSAGE:
            self._message(node, place, path)
            return
        if place.kind in _WHOLE:
            self._whole(node, place, path, base, seals)
            return
        if place.speaker is not None and self._is_request:
            base = place.speaker(node, base)
        elif place.role:
            base = _ROLES[place.role]
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
        is_mine = len(node) > _ALONE and self._joined is None
        begun = self._count if is_mine else 0
        for key, value in node.items():
            child = children.get(key)
            if child is None:
                if any_key is not None:
                    child = any_key
                    if key and not looks_inert(key):
                        self._found(Leaf((*path, key), key, fixed=True), UNNAMED, base)
                else:
                    if folded and self._is_request and place.is_disguise(key):
                        raise MalformedBody("a key in another letter case")
                    child = find(key)
                    if child is None:
                        child = self._table.name(key)
                        self._found(Leaf((*path, key), key, fixed=True), UNNAMED, base)
            if value is None or (child.is_inert and type(value) is str and looks_inert(value)):
                continue
            if is_mine and self._joined is None and self._count - begun >= _ALONE:
                self._joined = Joined(locates=self._locates)
            kind = type(value)
            if kind is str:
                if value:
                    self._string(value, child, (*path, key), base, seals)
            elif kind is dict or kind is list:
                self._value(value, child, (*path, key), base, seals)
            elif child.needs_text:
                raise MalformedBody("a number instead of a text")
        if is_mine and self._joined is not None:
            self._end_joined(base)

    # -- messages --------------------------------------------------------------------------------------------------

    def _message(self, node: dict[str, Any], place: Place, path: Path) -> None:
        """Read a chat message. Aim gets it with all its fields, once for each text of its content."""
        content = node.get("content")
        if type(content) is str and is_flat(node, may_lack_role=self._joined is not None):
            if content and self._joined is not None:
                self._joined.add(Leaf((*path, "content"), content))
            elif content:
                self.reading.prompts.append(Prompt(node, Leaf((*path, "content"), content)))
            return
        sent = as_sent(node)
        brief = in_brief(sent)
        has_calls = bool(node.get("tool_calls") or node.get("function_call"))
        begun = len(self.reading.prompts)
        if "content" in node:
            child = place.children["content"]
            self._value(content, child, (*path, "content"), sent if is_short(sent) else brief, ())
        if has_calls and len(self.reading.prompts) == begun and self._joined is None:
            # There is no text to redact, but Aim must see the calls in their message.
            self.reading.prompts.append(Prompt({**sent, "content": None}, None))
        others = {key: value for key, value in node.items() if key != "content"}
        self._fields(others, place, path, brief, ())

    # -- arguments -------------------------------------------------------------------------------------------------

    def _arguments(self, text: str, path: Path, base: Mapping[str, Any], seals: tuple[Path, ...]) -> None:
        """Read arguments that are a string."""
        if self._mode is Mode.EVENT:
            self._found(Leaf(path, text, is_json=True, emptied=seals), _ARGUMENTS, base)
        elif text.strip() in _EMPTY:
            return
        elif text.lstrip()[:1] in ("{", "[", '"'):
            said = decode(text)
            self._found(Leaf(path, said, is_json=True, raw=text, emptied=seals), _ARGUMENTS, base)
        else:
            self._found(Leaf(path, text, emptied=seals), _ARGUMENTS, base)

    def _embedded(self, node: Any, path: Path, base: Mapping[str, Any], seals: tuple[Path, ...]) -> None:
        """Read arguments that are a value of JSON."""
        if node:
            self._has_embedded = True
            raw = json.dumps(node, ensure_ascii=False)
            leaf = Leaf(path, decode(raw), is_json=True, is_embedded=True, raw=raw, emptied=seals)
            self._found(leaf, _ARGUMENTS, base)

    # -- tools -----------------------------------------------------------------------------------------------------

    def _tools(self, node: Any, path: Path) -> None:
        """Read definitions: in a request a message for each tool, elsewhere they are unnamed texts."""
        if self._is_request and not self._wants_tools:
            return
        for index, tool in enumerate(node) if isinstance(node, list) else [(-1, node)]:
            is_defined = type(tool) is str
            if self._is_request:
                if index % _ALONE == 0 or index < _ALONE:
                    self._end_tool()
                into = self._tool
            elif self._is_answer and self._joined is None:
                into = self._rest
            else:
                into = Joined(locates=True)
            if into.locates:
                into.add(*definition(tool, path if index < 0 else (*path, index), is_defined=is_defined))
            else:
                gather_definition(tool, into.texts, is_defined=is_defined)
            if self._mode is Mode.EVENT or self._joined is not None:
                for leaf in () if self._is_request else into.parts:
                    self._found(leaf, UNNAMED, _NOBODY)
        self._end_tool()

    def _end_tool(self) -> None:
        """End the message of a tool."""
        if self._tool:
            leaf = self._tool.leaf()
            self.reading.definitions.append(Prompt({"role": "system", "content": leaf.text}, leaf, True))
        self._tool = Joined(locates=self._locates)

    # -- what was found --------------------------------------------------------------------------------------------

    @property
    def _count(self) -> int:
        return len(self.reading.prompts) if self._is_request else len(self.reading.leaves)

    def _tokens(self, node: Any, place: Place, path: Path) -> None:
        """Keep the place of tokens, and read what does not look like a token there."""
        if node and not self._is_request:
            self.reading.leaves.append(Leaf(path, "", kind=Kind.TOKENS, is_everywhere=place.everywhere))
        for leaf in no_tokens(node, path):
            self._found(leaf, UNNAMED, _USER)

    def _found(self, leaf: Leaf, place: Place, base: Mapping[str, Any]) -> None:
        """Keep a text."""
        if leaf.emptied and self._is_request:
            # The provider checks a signature in a request, so the text cannot be changed. No API signs arguments.
            leaf = replace(leaf, fixed=place is not _ARGUMENTS, emptied=())
        if self._joined is None and self._count >= _MOST:
            self._joined = Joined(locates=self._locates)
        if self._joined is not None:
            self._joined.add(leaf)
        elif not self._is_request:
            if place.kind is Holds.UNNAMED and (self._is_answer or len(self.reading.leaves) >= _IN_EVENT):
                self._rest.add(leaf)
            else:
                self.reading.leaves.append(leaf)
        else:
            if place.role:
                base = _ROLES[place.role]
            elif place is _ARGUMENTS and base.get("role") != "tool":
                base = _ROLES["assistant"]
            self.reading.prompts.append(Prompt({**base, "content": leaf.text}, leaf))

    def _end_joined(self, base: Mapping[str, Any]) -> None:
        """End a list whose last texts were joined."""
        joined, self._joined = self._joined, None
        if joined:
            leaf = joined.leaf()
            if self._is_request:
                role = base.get("role")
                message = {"role": role if role in SENT_ROLES else "user", "content": leaf.text}
                self.reading.prompts.append(Prompt(message, leaf))
            else:
                self.reading.leaves.append(leaf)


_WHOLE = frozenset({Holds.ARGUMENTS, Holds.TOOLS, Holds.TOKENS, Holds.UNREADABLE})
_STRINGS = {str}
_NULL = {type(None)}
_NUMBERS = {int, float, bool, *_NULL}
_NOBODY: Mapping[str, Any] = {}
_ROLES: Mapping[str, Mapping[str, Any]] = {role: {"role": role} for role in SENT_ROLES}
_USER = _ROLES["user"]
_ARGUMENTS = Place()
_ARGUMENTS.kind = Holds.ARGUMENTS
