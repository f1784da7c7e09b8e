"""What of an exchange is inspected: by which dialect, and under the policy of which profile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from extproc.core.commands import Command, ReportDialect, ReportOutcome, ReportUnmatched, UseProfile
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.choice import Choice
from extproc.core.dialects.endpoints import GENERIC
from extproc.core.dialects.paths import Route, route, spellings
from extproc.core.policy import Inspect, Policy, Unmatched
from extproc.core.reading import Scope
from extproc.core.vocabulary import OUTPUT


class Inspection:
    """The dialect, the policy and the scope of one exchange. Path, body and model decide them, in this order."""

    __slots__ = (
        "_emit",
        "choices",
        "dialect",
        "is_get",
        "is_stored",
        "policy",
        "scope",
        "unmatched",
        "was_read",
    )

    def __init__(self, policy: Policy, emit: Callable[[Command], None]) -> None:
        """Begin under `policy`, without a dialect. `emit` takes the commands that report what was chosen."""
        self._emit = emit
        self.policy = policy
        self.dialect: Dialect | None = None
        self.choices: tuple[Choice, ...] = ()
        """The dialects of a path that is not specific to one API, until the request's body has decided."""
        self.unmatched = Unmatched.PASS
        self.scope = Scope.NOTHING
        self.is_get = False
        self.is_stored = False
        """Whether the answer is that of an earlier request, whose model the answer names."""
        self.was_read = False
        """Whether something went to Aim, or a dialect has read request or answer: the client gets the call id."""

    @property
    def reads_answer(self) -> bool:
        """Return whether the answer is inspected: it may have texts, and the `output` hook applies.

        Which hooks apply to a stored answer, only the answer tells if the policy depends on the model.
        """
        hooks = self.policy.hooks
        if self.is_stored:
            hooks = hooks.union(*(policy.hooks for policy in self.policy.models.values()))
        return OUTPUT in hooks and self.scope is not Scope.NOTHING

    def pick_dialect(self, method: str, path: str, *, is_upgrade: bool = False) -> Route:
        """Choose by method and path how the exchange is handled."""
        policy = self.policy
        found = route(method, path, policy.paths, policy.unmatched, is_upgrade=is_upgrade)
        self.is_get = method.upper() == "GET"
        # The answer to a cancellation is what was made so far.
        self.is_stored = self.is_get or (bool(policy.models) and any(map(_is_cancellation, spellings(path))))
        self.unmatched = found.unmatched
        if found.choices:
            # Until the body has decided, a refusal has its shape.
            self.dialect = found.dialect
            has_last = not found.choices[-1][0]
            if policy.hooks and not (has_last and not any(self._is_inspected(each) for _, each in found.choices)):
                self.choices, self.scope = found.choices, Scope.KNOWN
        elif found.dialect is not None:
            is_unread_file = found.dialect.opt_in is Inspect.FILES and not self._is_inspected(found.dialect)
            if is_unread_file and found.unmatched is Unmatched.BLOCK:
                self._emit(ReportUnmatched(method, path))
                return Route(None, Unmatched.BLOCK)
            self._know(found.dialect)
        else:
            self._emit(ReportUnmatched(method, path))
            if found.unmatched is Unmatched.INSPECT and policy.hooks and not is_upgrade:
                self.scope = Scope.UNMATCHED
        return found

    def settle(self, dialect: Dialect | None) -> None:
        """Take the dialect that the body has chosen. None: the path is unmatched."""
        self.choices, self.dialect = (), None
        self.scope = Scope.UNMATCHED if self.unmatched is Unmatched.INSPECT else Scope.NOTHING
        if dialect is not None:
            self.scope = Scope.NOTHING
            self._know(dialect)

    def _know(self, dialect: Dialect) -> None:
        self._name(dialect)
        if self.policy.hooks and self._is_inspected(dialect):
            self.scope = Scope.KNOWN
            self._allow()

    def _is_inspected(self, dialect: Dialect) -> bool:
        """Return whether what `dialect` knows is read, at least until the model is known."""
        return dialect.opt_in is None or self.policy.may_inspect(dialect.opt_in)

    def _allow(self) -> None:
        """Report the exchange as read, unless the model that the request names decides whether it is."""
        if not self.policy.models or self.is_get:
            self._emit(ReportOutcome("allowed"))

    def follow_models(self, names: Sequence[str]) -> bool:
        """Continue under the policy of the models that are named, if there is one for them.

        Return whether the exchange is still read: the policy may lack hooks, or the inspection of this API.
        """
        chosen = self.policy.for_model(names)
        if chosen is not None:
            self.policy = chosen
            self._emit(UseProfile(chosen.name))
        opt_in = self.dialect.opt_in if self.dialect is not None else None
        if self.policy.hooks and (opt_in is None or opt_in in self.policy.inspect):
            self._emit(ReportOutcome("allowed"))
            return True
        self.scope, self.was_read = Scope.NOTHING, False
        return False

    def verify_stream(self) -> None:
        """Let Aim verify the streamed answer, also if only the profile of some model demands it.

        That is a stored answer: its model is not known before it is read. The rest of the mesh's profile applies.
        """
        if OUTPUT not in self.policy.hooks:
            self.policy = replace(self.policy, hooks=self.policy.hooks | {OUTPUT})

    def adopt(self) -> None:
        """Let the generic dialect read the request: no dialect knows the path."""
        self._name(GENERIC)
        self._allow()

    def adopt_answer(self) -> None:
        """Let the generic dialect read the answer, if no dialect knows the path and the request was not read."""
        if self.dialect is None:
            self._name(GENERIC)
            self._emit(ReportOutcome("allowed"))

    def recognise(self, dialect: Dialect) -> None:
        """Let `dialect` read the exchange instead of the generic one, because the request's body is of its API."""
        self._name(dialect)

    def _name(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._emit(ReportDialect(dialect.name))


def _is_cancellation(path: str) -> bool:
    return path.endswith("/cancel")
