"""The records of a batch: which messages each has, in which groups they go to Aim, and the search for a blocked one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from extproc.core.detections import Allowance, Messages
from extproc.core.dialects.leaf import Prompt
from extproc.core.verdict import Block, Outcome
from extproc.core.vocabulary import Input

MOST_SEARCHED = 16
"""The most inputs that the search for a blocked record takes, in addition to those of the batch."""

Group = tuple[int, int]
"""Neighbouring records: the first, and the one behind the last."""


class Batch:
    """The messages of a batch, by record."""

    __slots__ = ("_names", "_starts", "messages")

    def __init__(self, prompts: Sequence[Prompt], messages: Messages) -> None:
        """Take the messages of `prompts`. Those outside of all records are a record without a name."""
        self.messages = messages
        self._names: list[str] = []
        self._starts: list[int] = []
        record = object()
        for position, prompt in enumerate(prompts):
            if prompt.record != record:
                record = prompt.record
                self._names.append(prompt.record.name if prompt.record is not None else "")
                self._starts.append(position)
        self._starts.append(len(prompts))

    def groups(self, most: int) -> list[Group]:
        """Return at most `most` groups that hold all records."""
        count = len(self._names)
        most = min(most, count)
        return list(pairwise(number * count // most for number in range(most + 1))) if count else []

    def bounds(self, group: Group) -> tuple[int, int]:
        """Return the number of a group's first message, and that behind its last."""
        return self._starts[group[0]], self._starts[group[1]]

    def input(self, group: Group) -> Input:
        """Return the input of a detection of one group."""
        first, end = self.bounds(group)
        return Input(self.messages[first:end])

    def names(self, group: Group) -> list[str]:
        """Return the names of a group's records."""
        return list(filter(None, self._names[group[0] : group[1]]))


class Search:
    """Finds the smallest blocked group of a batch: it is halved until one half alone is no longer blocked."""

    __slots__ = ("_batch", "_halves", "_left", "block", "deadline", "group")

    def __init__(self, batch: Batch, group: Group, block: Block, deadline: float) -> None:
        """Begin with a blocked group. `deadline` is in the time of the exchange."""
        self._batch = batch
        self._left = MOST_SEARCHED
        self._halves: tuple[Group, ...] = ()
        self.group = group
        """The smallest group that was found so far."""
        self.block = block
        """What Aim said of it."""
        self.deadline = deadline
        """The time at which the search ends with what it has found."""

    @property
    def names(self) -> list[str]:
        """The names of the records in the group."""
        return self._batch.names(self.group)

    def inputs(self, allowance: Allowance) -> list[Input]:
        """Return the inputs of the next detection; none if the group cannot be halved, or there were enough inputs."""
        first, end = self.group
        middle = (first + end) // 2
        if middle == first or self._left < 2:
            return []
        self._halves = (first, middle), (middle, end)
        inputs = [self._batch.input(half) for half in self._halves]
        if not allowance.takes(inputs):
            return []
        self._left -= len(inputs)
        return inputs

    def take(self, outcomes: Sequence[Outcome]) -> bool:
        """Take what Aim said of the halves; return whether one of them is blocked."""
        block = next((outcome for outcome in outcomes if isinstance(outcome, Block)), None)
        if block is None:
            return False
        self.group, self.block = self._halves[block.input], block
        return True
