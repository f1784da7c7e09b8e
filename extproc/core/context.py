"""The state that both legs of an exchange share: policy, dialect, commands so far, and detections in progress."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace

from extproc.core.block_answers.base import BlockAnswer, Facts
from extproc.core.commands import (
    CancelDetection,
    Command,
    Detect,
    ReleaseHeaders,
    ReportDialect,
    ReportFailOpen,
    ReportOutcome,
    ReportUnmatched,
    ReportVerdict,
    UseProfile,
)
from extproc.core.content.body import declared_length
from extproc.core.content.framing import Framing
from extproc.core.content.media_type import media_types
from extproc.core.detections import Allowance, Messages
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.choice import Choice
from extproc.core.dialects.endpoints import GENERIC
from extproc.core.dialects.paths import Route, route, spellings
from extproc.core.errors import Reason
from extproc.core.gate import Gate, Released
from extproc.core.policy import Inspect, Limits, Policy, Unmatched
from extproc.core.reading import Answer, Scope
from extproc.core.refusal import BLOCKED_REQUEST, BLOCKED_RESPONSE, Refusal, blocked, failed, named, quotes_any
from extproc.core.verdict import Outcome
from extproc.core.vocabulary import (
    CALL_ID_HEADER,
    MODERATION,
    OUTPUT,
    REQUEST,
    RESPONSE,
    Headers,
    Hook,
    Input,
    Leg,
    size_of,
)

_UNKNOWN = None, 0


class Context:
    """The shared state of one exchange. The legs add commands here; the exchange collects them."""

    __slots__ = (
        "_commands",
        "_detections",
        "_messages",
        "_messages_bytes",
        "_numbers",
        "allowance",
        "asks_for_stream",
        "began",
        "call_id",
        "choices",
        "dialect",
        "gate",
        "has_foreign_id",
        "has_response_begun",
        "held",
        "is_get",
        "is_overloaded",
        "is_reply_local",
        "is_stored",
        "limits",
        "model",
        "now",
        "path",
        "policy",
        "refusal",
        "scope",
        "unmatched",
        "was_read",
    )

    def __init__(self, call_id: str, policy: Policy, limits: Limits, began: int = 0) -> None:
        """Begin an exchange under `policy`, at `began` in seconds since 1970."""
        self.call_id = call_id
        self.began = began
        self.policy = policy
        self.limits = limits
        self.now = 0.0
        """The time of the current event, in seconds of the shell's monotonic clock."""
        self.is_overloaded = False
        self.dialect: Dialect | None = None
        self.choices: tuple[Choice, ...] = ()
        """The dialects of a path that is not specific to one API, until the request's body has decided."""
        self.unmatched = Unmatched.PASS
        self.scope = Scope.NOTHING
        self.path = ""
        """The client's path."""
        self.model = ""
        """The model that the request names, if a block becomes an answer."""
        self.asks_for_stream = False
        """Whether the request asks for a stream."""
        self.is_get = False
        self.is_stored = False
        """Whether the answer is that of an earlier request, whose model the answer names."""
        self.is_reply_local = False
        """Whether the response is Envoy's own, because the request was not released."""
        self.was_read = False
        """Whether something went to Aim, or a dialect has read request or answer: the client gets the call id."""
        self.allowance = Allowance()
        self.refusal: Refusal | None = None
        """The refusal with which the exchange ends, once the leg has handled the current event."""
        self.has_foreign_id = False
        """Whether the upstream's answer has a call id of its own."""
        self.has_response_begun = False
        """Whether the response's headers were released, so that no immediate response can follow."""
        self.gate = Gate()
        self._commands: list[Command] = []
        self.held = 0
        """Bytes held until the exchange is complete, or Aim has answered: messages, and the calls with their texts."""
        self._messages: Messages = ()
        self._messages_bytes = 0
        self._detections: dict[int, tuple[Hook, int]] = {}  # the hook, and the bytes of the inputs
        self._numbers = 0

    @property
    def messages(self) -> Messages:
        """The request's messages as they went upstream: they are the context of the detection of the answer."""
        return self._messages

    @messages.setter
    def messages(self, messages: Messages) -> None:
        if messages is not self._messages:
            self._messages = messages
            size = size_of(messages) if messages else 0
            self.held += size - self._messages_bytes
            self._messages_bytes = size

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
            # Until the body has decided, a refusal has the shape of the first.
            self.dialect = found.dialect
            has_last = not found.choices[-1][0]
            if policy.hooks and not (has_last and not any(self._is_inspected(each) for _, each in found.choices)):
                self.choices, self.scope = found.choices, Scope.KNOWN
        elif found.dialect is not None:
            is_unread_file = found.dialect.opt_in is Inspect.FILES and not self._is_inspected(found.dialect)
            if is_unread_file and found.unmatched is Unmatched.BLOCK:
                self.emit(ReportUnmatched(method, path))
                return Route(None, Unmatched.BLOCK)
            self._know(found.dialect)
        else:
            self.emit(ReportUnmatched(method, path))
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
            self.emit(ReportOutcome("allowed"))

    def follow_models(self, names: Sequence[str]) -> bool:
        """Continue under the policy of the models that are named, if there is one for them.

        Return whether the exchange is still read: the policy may lack hooks, or the inspection of this API.
        """
        chosen = self.policy.for_model(names)
        if chosen is not None:
            self.policy = chosen
            self.emit(UseProfile(chosen.name))
        opt_in = self.dialect.opt_in if self.dialect is not None else None
        if self.policy.hooks and (opt_in is None or opt_in in self.policy.inspect):
            self.emit(ReportOutcome("allowed"))
            return True
        self.scope, self.was_read = Scope.NOTHING, False
        return False

    def verify_stream(self) -> None:
        """Let Aim verify the streamed answer, also if only the profile of some model demands it.

        That is a stored answer: its model is not known before it is read. The rest of the mesh's profile applies.
        """
        if OUTPUT not in self.policy.hooks:
            self.policy = replace(self.policy, hooks=self.policy.hooks | {OUTPUT})

    def answer(self, headers: Headers) -> Answer:
        """Return the answer with these headers."""
        first = dict(reversed(headers))
        self.has_foreign_id = CALL_ID_HEADER in first
        return Answer(
            scope=self.scope if self.reads_answer else Scope.NOTHING,
            status=first.get(":status", ""),
            types=media_types(headers),
            length=declared_length(first.get("content-length", "")),
            is_get=self.is_get,
            is_local=self.is_reply_local,
            has_media=self.dialect is not None and self.dialect.answers_media,
            streams_in=self.dialect.streams_in if self.dialect is not None else None,
        )

    def adopt(self) -> None:
        """Let the generic dialect read the request: no dialect knows the path."""
        self._name(GENERIC)
        self._allow()

    def adopt_answer(self) -> None:
        """Let the generic dialect read the answer, if no dialect knows the path and the request was not read."""
        if self.dialect is None:
            self._name(GENERIC)
            self.emit(ReportOutcome("allowed"))

    def recognise(self, dialect: Dialect) -> None:
        """Let `dialect` read the exchange instead of the generic one, because the request's body is of its API."""
        self._name(dialect)

    def _name(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.emit(ReportDialect(dialect.name))

    # -- commands --------------------------------------------------------------------------------------------------

    def emit(self, command: Command) -> None:
        """Add `command`."""
        self._commands.append(command)

    def release_response(self, command: Released) -> None:
        """Add a release of the response leg, or keep it while the gate is closed."""
        if self.gate.is_closed:
            self.gate.keep(command)
        else:
            self.has_response_begun = True
            self._commands.append(command)

    def release_headers(self, remove: tuple[str, ...] = ()) -> None:
        """Release the response's headers; add the call id if the exchange was read."""
        self.release_response(self.response_headers(remove))

    def response_headers(self, remove: tuple[str, ...] = ()) -> ReleaseHeaders:
        """Return the command that releases the response's headers."""
        if self.was_read:
            return ReleaseHeaders(RESPONSE, set=((CALL_ID_HEADER, self.call_id),), remove=remove)
        # The upstream's own would look as if the exchange had been inspected.
        return ReleaseHeaders(RESPONSE, remove=(*remove, CALL_ID_HEADER) if self.has_foreign_id else remove)

    def take_commands(self) -> list[Command]:
        """Remove and return the commands so far, in order."""
        commands, self._commands = self._commands, []
        return commands

    # -- detections ------------------------------------------------------------------------------------------------

    @property
    def is_detecting(self) -> bool:
        """Return whether a detection is in progress."""
        return bool(self._detections)

    def number(self) -> int:
        """Return a number that this exchange has not used yet."""
        self._numbers += 1
        return self._numbers

    def admit(self, messages: Messages, size: int) -> None:
        """Let the hooks of the request send `messages` for a request of `size` bytes; raises BodyTooLarge."""
        calls = len(self.policy.hooks) - (OUTPUT in self.policy.hooks)
        self.allowance.admit(messages, self._memory(messages), size, calls)

    def _memory(self, messages: Messages) -> int:
        return self._messages_bytes if messages is self._messages else size_of(messages)

    def detect(self, hook: Hook, inputs: Sequence[Input]) -> None:
        """Start a detection of `inputs`. Under `moderation` the gate stays closed until the verdict."""
        self.was_read = True
        number = self.number()
        # The call repeats the texts of its inputs. Messages that neighbours share are counted once.
        size = 0
        counted: Messages | None = None
        for each in inputs:
            if each.output is not None:
                size += sys.getsizeof(each.output)
            if each.messages is not counted:
                counted = each.messages
                size += self._memory(counted)
        self._detections[number] = hook, size
        self.held += size
        if hook is MODERATION:
            self.gate.close()
        self.allowance.inputs += len(inputs)
        self.emit(Detect(number, hook, tuple(inputs)))

    def finish_detection(self, number: int) -> Hook | None:
        """Remove a detection that has ended and return its hook; return None if its verdict no longer matters."""
        hook, size = self._detections.pop(number, _UNKNOWN)
        self.held -= size
        return hook

    def cancel_detections(self) -> None:
        """Cancel every detection in progress."""
        for number in self._detections:
            self.emit(CancelDetection(number))
        self._detections.clear()
        self.held = self._messages_bytes

    def report(self, leg: Leg, hook: Hook, outcomes: Sequence[Outcome], milliseconds: int = 0) -> None:
        """Report the outcomes of a detection or a session."""
        self.emit(ReportVerdict(leg, hook, tuple(outcomes), milliseconds))

    def report_redacted(self) -> None:
        """Report that the exchange was redacted."""
        self.emit(ReportOutcome("redacted"))

    # -- decisions -------------------------------------------------------------------------------------------------

    def fails_open(self, leg: Leg, reason: Reason, refusal: Refusal | None = None) -> bool:
        """Apply the failure policy: return True if the leg fails open, else refuse and return False.

        The refusal is that of the reason, unless a more precise one is given.
        """
        if self.policy.failure_mode_allow.opens(leg, reason):
            self.emit(ReportOutcome("failed_open", reason, reason))
            self.emit(ReportFailOpen(leg, reason))
            return True
        self.refuse(refusal or failed(leg, reason))
        return False

    def refuse_blocked(
        self, leg: Leg, message: str | None, withheld: Iterable[str] = (), records: Sequence[str] = ()
    ) -> None:
        """Refuse what Aim blocked. The client gets Aim's message unless it quotes one of the `withheld` texts.

        `records` are the names of the records of a batch that were blocked.
        """
        fixed = BLOCKED_REQUEST if leg is REQUEST else BLOCKED_RESPONSE
        if message and leg is RESPONSE and quotes_any(message, withheld):
            message = None
        self.refuse(blocked((self.policy.block_message or message or fixed) + named(records), self.policy.block_status))

    def new_answer(self) -> BlockAnswer | None:
        """Return the answer that a block becomes; None if it becomes an error."""
        if not self.policy.answers_blocks or self.dialect is None or self.is_get:
            return None
        kind = self.dialect.block_answer(self.path)
        return kind(Facts(self.call_id, self.model, self.began, self.path)) if kind is not None else None

    @property
    def asked_framing(self) -> Framing:
        """The framing of the answer that the request asks for."""
        if self.dialect is None or not self.asks_for_stream:
            return Framing.WHOLE
        return self.dialect.stream_framing(self.path)

    def refuse(self, refusal: Refusal) -> None:
        """End the exchange with `refusal` once the current event is handled. The first refusal counts."""
        self.refusal = self.refusal or refusal

    @property
    def is_refused(self) -> bool:
        """Return whether the exchange is about to end with a refusal."""
        return self.refusal is not None


def _is_cancellation(path: str) -> bool:
    return path.endswith("/cancel")
