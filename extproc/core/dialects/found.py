"""What a walk finds: where each text goes, and which texts are joined, so that there is a bounded number of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum, auto
from typing import Any

from extproc.core.dialects.chat_message import SENT_ROLES
from extproc.core.dialects.joined import Joined
from extproc.core.dialects.leaf import Leaf, Prompt
from extproc.core.dialects.rules import Holds
from extproc.core.dialects.table import Place

_IN_EVENT = 32
"""The most texts of one event behind which unnamed ones are joined."""

_MOST = 8192
"""The most texts of one document that are apart, whatever its shape."""

_UNNAMED = Holds.UNNAMED

ROLES: Mapping[str, Mapping[str, Any]] = {role: {"role": role} for role in SENT_ROLES}

ARGUMENTS = Place()
"""The place of arguments, which the assistant has said."""
ARGUMENTS.kind = Holds.ARGUMENTS


class Mode(Enum):
    """What is walked."""

    REQUEST = auto()
    ANSWER = auto()
    EVENT = auto()


class Found:
    """The texts of one document, in its order.

    `prompts` are a request's messages; `leaves` the texts of an answer or event, and its tokens. `definitions` are a
    request's messages of tool definitions. While texts are `joined`, all that are found become one. `rest` joins the
    unnamed texts of an answer, and of an event that has many.
    """

    __slots__ = ("_is_answer", "_is_request", "definitions", "joined", "leaves", "locates", "prompts", "rest")

    def __init__(self, mode: Mode, *, locates: bool) -> None:
        """Find the texts of a document. With `locates` joined texts know their places, which costs memory."""
        self._is_request = mode is Mode.REQUEST
        self._is_answer = mode is Mode.ANSWER
        self.locates = locates
        self.prompts: list[Prompt] = []
        self.leaves: list[Leaf] = []
        self.definitions: list[Prompt] = []
        self.joined: Joined | None = None
        self.rest = Joined(locates=locates)

    @property
    def count(self) -> int:
        """The number of texts that are apart."""
        return len(self.prompts) if self._is_request else len(self.leaves)

    def add(self, leaf: Leaf, place: Place, base: Mapping[str, Any]) -> None:
        """Keep a text from `place`, in a request as a message with the fields of `base`."""
        if leaf.emptied and self._is_request:
            # The provider checks a signature in a request, so the text cannot be changed. No API signs arguments.
            leaf = replace(leaf, fixed=place.kind is not Holds.ARGUMENTS, emptied=())
        if self.joined is None and len(self.prompts if self._is_request else self.leaves) >= _MOST:
            self.begin_joined()
        if self.joined is not None:
            self.joined.add(leaf)
        elif not self._is_request:
            if place.kind is _UNNAMED and (self._is_answer or len(self.leaves) >= _IN_EVENT):
                self.rest.add(leaf)
            else:
                self.leaves.append(leaf)
        else:
            if place.role:
                base = ROLES[place.role]
            elif place is ARGUMENTS and base.get("role") != "tool":
                base = ROLES["assistant"]
            self.prompts.append(Prompt({**base, "content": leaf.text}, leaf))

    def add_definition(self, texts: Joined) -> None:
        """Keep the texts of a tool definition of a request, if there are any."""
        if texts:
            leaf = texts.leaf()
            self.definitions.append(Prompt({"role": "system", "content": leaf.text}, leaf, True))

    def begin_joined(self) -> None:
        """Join all texts that are found from now on."""
        self.joined = Joined(locates=self.locates)

    def end_joined(self, base: Mapping[str, Any]) -> None:
        """Keep the joined texts as one."""
        joined, self.joined = self.joined, None
        if joined:
            leaf = joined.leaf()
            if self._is_request:
                role = base.get("role")
                message = {"role": role if role in SENT_ROLES else "user", "content": leaf.text}
                self.prompts.append(Prompt(message, leaf))
            else:
                self.leaves.append(leaf)

    def end(self) -> None:
        """Keep what is still joined at the end of the document."""
        if self.joined is not None:
            self.end_joined(ROLES["user"])
        if self.rest:
            self.leaves.append(self.rest.leaf())
