"""How much of an exchange goes to Aim: in how many detections, and with how many bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from extproc.core.content import json_codec
from extproc.core.dialects.leaf import Leaf
from extproc.core.errors import BodyTooLarge
from extproc.core.vocabulary import Input

MOST_INPUTS = 64
"""The most inputs of the detections of one exchange."""

SMALL = 65_536
"""The size of request and answer, in bytes, from which the size of what is sent to Aim is bounded."""

_FACTOR = 8
"""The most bytes that are sent to Aim for each byte of request and answer."""

_REQUEST_FACTOR = 7
"""The most bytes of them that all hooks of the request send. The rest is for the answer."""

_ESCAPED = 6
"""The most bytes that JSON takes for each byte of a string in memory."""

_CALL_BYTES = 64
"""The most bytes of a call to Aim in addition to its messages and the text of an answer."""

Messages = tuple[Mapping[str, Any], ...]


class Allowance:
    """What one exchange may send to Aim.

    It has at most 64 inputs. If request and answer have more than 64 KiB, at most eight times their size is sent,
    retries aside. Sizes are in bytes, without content-encoding.
    """

    __slots__ = ("inputs", "request_size", "sent")

    def __init__(self) -> None:
        """Begin with nothing sent."""
        self.inputs = 0
        """The number of inputs so far."""
        self.request_size = 0
        """The size of the request that was read."""
        self.sent = 0
        """The most bytes that the hooks of the request send."""

    def admit(self, messages: Messages, memory: int, size: int, calls: int) -> None:
        """Let `calls` calls send the messages of a request of `size` bytes.

        `memory` is what `size_of` returns for the messages. Raises BodyTooLarge if such a request may not send so much:
        most of it is then no text, but escapes, or what each of thousands of tiny texts needs for a message.
        """
        self.request_size = max(self.request_size, size)
        # The bound is cheap, and exact enough for most requests.
        most = calls * _ESCAPED * memory
        if most > 4 * SMALL:
            allowed = _REQUEST_FACTOR * max(self.request_size, SMALL)
            most = calls * (_CALL_BYTES + 1)
            for message in messages:  # one by one, because all of them may be much more than is allowed
                most += calls * (1 + _spelt(message))
                if most > allowed:
                    raise BodyTooLarge("a request would be sent to Aim with many times its size")
        self.sent = max(self.sent, most)

    def takes(self, inputs: Sequence[Input]) -> bool:
        """Return whether the messages of further inputs may be sent, which then count."""
        most = sum(_CALL_BYTES + _spelt(each.messages) for each in inputs)
        if self.sent + most > _FACTOR * max(self.request_size, SMALL):
            return False
        self.sent += most
        return True

    def inputs_of(self, leaves: Sequence[Leaf], messages: Messages, received: int) -> list[Input]:
        """Return the inputs for the texts of an answer of `received` bytes, in the context of the request's messages.

        The texts of `join(leaves, n)` are those of `n` inputs. If the full context would be too much, later inputs have
        the last message alone. If that is too much, too, texts are joined, and a single input may go without context.
        Raises BodyTooLarge if the texts alone are too much.
        """
        most = min(max(1, MOST_INPUTS - self.inputs), len(leaves))
        joined = join(leaves, most)
        exchange = self.request_size + received
        if exchange <= SMALL or not leaves:
            return [Input(messages, leaf.text) for leaf in joined]
        allowed = _FACTOR * exchange - self.sent
        short = messages[-1:]  # once: what is one value is encoded once
        last = _spelt(short)
        left = allowed - _cost(joined)
        while left < last * len(joined) and len(joined) > 1:
            joined = join(leaves, min(max(1, left // last), len(joined) - 1))
            left = allowed - _cost(joined)
        if left < 0:
            raise BodyTooLarge("an answer would be sent to Aim with many times the size of the exchange")
        if left < last:
            short, last = (), 0
        more = _spelt(messages) - last
        full = len(joined) if more <= 0 else (left - last * len(joined)) // more
        return [Input(messages if number < full else short, leaf.text) for number, leaf in enumerate(joined)]


def join(leaves: Sequence[Leaf], most: int) -> list[Leaf]:
    """Return at most `most` leaves: neighbours are joined, each beginning a line."""
    if len(leaves) <= most:
        return list(leaves)
    bounds = [number * len(leaves) // most for number in range(most + 1)]
    groups = [leaves[start:end] for start, end in pairwise(bounds)]
    return [group[0] if len(group) == 1 else _joined(group) for group in groups]


def _joined(leaves: Sequence[Leaf]) -> Leaf:
    return Leaf((), "\n".join(leaf.text for leaf in leaves), is_joined=True, parts=tuple(leaves))


def _cost(leaves: Sequence[Leaf]) -> int:
    """Return the bytes of the calls with these texts, without their context."""
    return sum(_CALL_BYTES + _spelt(leaf.text) for leaf in leaves)


def _spelt(value: Messages | Mapping[str, Any] | str) -> int:
    return len(json_codec.encode(value))
