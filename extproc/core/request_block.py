"""What follows when Aim blocks a request: it is refused; of a batch, the blocked records are found first."""

from __future__ import annotations

from collections.abc import Sequence

from extproc.core.batch import Batch, Search
from extproc.core.context import Context
from extproc.core.verdict import Block, Outcome
from extproc.core.vocabulary import Hook, Leg, size_of

_SEARCH_SECONDS = 4.0
"""How long a search may take at most. Envoy waits for a request's verdict 5 s longer than one detection may take."""


class RequestBlock:
    """The refusal of one request."""

    __slots__ = ("_batch", "_context", "_most", "_search", "held")

    def __init__(self, context: Context) -> None:
        """Begin with a request that is no batch."""
        self._context = context
        self._batch: Batch | None = None
        self._most = 0
        self._search: Search | None = None
        self.held = 0
        """The bytes of the messages that are kept for a search."""

    @property
    def deadline(self) -> float | None:
        """The time at which the search ends, whatever it has found; None if there is none."""
        return self._search.deadline if self._search is not None else None

    def expect(self, batch: Batch | None, most: int) -> None:
        """Keep the records of a batch, whose detection has at most `most` inputs. None: it is no batch."""
        self._batch, self._most = batch, most
        self.held = size_of(batch.messages) if batch is not None else 0

    def forget(self) -> None:
        """Free what is kept."""
        self.expect(None, 0)
        self._search = None

    def takes(self, hook: Hook, outcomes: Sequence[Outcome]) -> bool:
        """Return whether a blocked record is looked for. The outcomes of `hook` are then those of the search."""
        if self._search is None:
            if not any(isinstance(outcome, Block) for outcome in outcomes):
                self.forget()
            return False
        if self._search.take(outcomes):
            self._go_on(hook, self._search)
        else:
            self._refuse(self._search)
        return True

    def begin(self, hook: Hook, block: Block) -> None:
        """Refuse the request. Of a batch, first look for the blocked records with detections of `hook`."""
        if self._batch is None:
            self._context.refuse_blocked(Leg.REQUEST, block.message)
            return
        group = self._batch.groups(self._most)[block.input]
        deadline = self._context.now + min(self._context.inspection.policy.timeout_seconds, _SEARCH_SECONDS)
        self._search = Search(self._batch, group, block, deadline)
        self._go_on(hook, self._search)

    def wake(self) -> None:
        """End a search whose time is over, with the smallest group that it has found."""
        if self._search is not None and self._search.deadline <= self._context.now:
            self._refuse(self._search)

    def _go_on(self, hook: Hook, search: Search) -> None:
        inputs = search.inputs(self._context.allowance)
        if inputs:
            self._context.detect(hook, inputs)
        else:
            self._refuse(search)

    def _refuse(self, search: Search) -> None:
        self._context.refuse_blocked(Leg.REQUEST, search.block.message, records=search.names)
