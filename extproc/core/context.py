"""The state that both legs of an exchange share: what is inspected, commands so far, and detections in progress."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from extproc.core.block_answers.base import BlockAnswer, Facts
from extproc.core.commands import (
    CancelDetection,
    Command,
    Detect,
    ReleaseHeaders,
    ReportFailOpen,
    ReportOutcome,
    ReportVerdict,
)
from extproc.core.content.body import declared_length
from extproc.core.content.framing import Framing
from extproc.core.content.media_type import media_types
from extproc.core.detections import Allowance, Messages
from extproc.core.errors import Reason
from extproc.core.gate import Gate, Released
from extproc.core.inspection import Inspection
from extproc.core.policy import Limits, Policy
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
        "gate",
        "has_foreign_id",
        "has_response_begun",
        "held",
        "inspection",
        "is_overloaded",
        "is_reply_local",
        "limits",
        "model",
        "now",
        "path",
        "refusal",
    )

    def __init__(self, call_id: str, policy: Policy, limits: Limits, began: int = 0) -> None:
        """Begin an exchange under `policy`, at `began` in seconds since 1970."""
        self.call_id = call_id
        self.began = began
        self.limits = limits
        self.now = 0.0
        """The time of the current event, in seconds of the shell's monotonic clock."""
        self.is_overloaded = False
        self.path = ""
        """The client's path."""
        self.model = ""
        """The model that the request names, if a block becomes an answer."""
        self.asks_for_stream = False
        """Whether the request asks for a stream."""
        self.is_reply_local = False
        """Whether the response is Envoy's own, because the request was not released."""
        self.allowance = Allowance()
        self.refusal: Refusal | None = None
        """The refusal with which the exchange ends, once the leg has handled the current event."""
        self.has_foreign_id = False
        """Whether the upstream's answer has a call id of its own."""
        self.has_response_begun = False
        """Whether the response's headers were released, so that no immediate response can follow."""
        self.gate = Gate()
        self._commands: list[Command] = []
        self.inspection = Inspection(policy, self._commands.append)
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

    def answer(self, headers: Headers) -> Answer:
        """Return the answer with these headers."""
        inspection, dialect = self.inspection, self.inspection.dialect
        first = dict(reversed(headers))
        self.has_foreign_id = CALL_ID_HEADER in first
        return Answer(
            scope=inspection.scope if inspection.reads_answer else Scope.NOTHING,
            status=first.get(":status", ""),
            types=media_types(headers),
            length=declared_length(first.get("content-length", "")),
            is_get=inspection.is_get,
            is_local=self.is_reply_local,
            has_media=dialect is not None and dialect.answers_media,
            streams_in=dialect.streams_in if dialect is not None else None,
        )

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
        if self.inspection.was_read:
            return ReleaseHeaders(RESPONSE, set=((CALL_ID_HEADER, self.call_id),), remove=remove)
        # The upstream's own would look as if the exchange had been inspected.
        return ReleaseHeaders(RESPONSE, remove=(*remove, CALL_ID_HEADER) if self.has_foreign_id else remove)

    def take_commands(self) -> list[Command]:
        """Remove and return the commands so far, in order."""
        commands = self._commands.copy()
        self._commands.clear()
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
        hooks = self.inspection.policy.hooks
        calls = len(hooks) - (OUTPUT in hooks)
        self.allowance.admit(messages, self._memory(messages), size, calls)

    def _memory(self, messages: Messages) -> int:
        return self._messages_bytes if messages is self._messages else size_of(messages)

    def detect(self, hook: Hook, inputs: Sequence[Input]) -> None:
        """Start a detection of `inputs`. Under `moderation` the gate stays closed until the verdict."""
        self.inspection.was_read = True
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
        if self.inspection.policy.failure_mode_allow.opens(leg, reason):
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
        policy = self.inspection.policy
        self.refuse(blocked((policy.block_message or message or fixed) + named(records), policy.block_status))

    def new_answer(self) -> BlockAnswer | None:
        """Return the answer that a block becomes; None if it becomes an error."""
        inspection, dialect = self.inspection, self.inspection.dialect
        if not inspection.policy.answers_blocks or dialect is None or inspection.is_get:
            return None
        kind = dialect.block_answer(self.path)
        return kind(Facts(self.call_id, self.model, self.began, self.path)) if kind is not None else None

    @property
    def asked_framing(self) -> Framing:
        """The framing of the answer that the request asks for."""
        dialect = self.inspection.dialect
        if dialect is None or not self.asks_for_stream:
            return Framing.WHOLE
        return dialect.stream_framing(self.path)

    def refuse(self, refusal: Refusal) -> None:
        """End the exchange with `refusal` once the current event is handled. The first refusal counts."""
        self.refusal = self.refusal or refusal

    @property
    def is_refused(self) -> bool:
        """Return whether the exchange is about to end with a refusal."""
        return self.refusal is not None
