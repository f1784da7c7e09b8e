"""Packs the texts of an answer into a bounded number of detections, and splits the redactions up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from extproc.core.content import json_codec
from extproc.core.dialects.leaf import Leaf
from extproc.core.vocabulary import Input

MOST_INPUTS = 64
"""The most inputs of the detections of one exchange."""

_SMALL = 65_536
"""The size of request and answer, in bytes, from which the size of what is sent to Aim is bounded."""

_FACTOR = 8
"""The most bytes that are sent to Aim for each byte of request and answer."""

_INPUT_BYTES = 256
"""The bytes of an input in addition to its messages and its text."""

Messages = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Detection:
    """One text of an answer, with the input that Aim gets: several texts are joined, each beginning a line."""

    leaf: Leaf
    input: Input


def pack(leaves: Sequence[Leaf], messages: Messages, *, inputs: int, sent: int, received: int) -> list[Detection]:
    """Return the detections of an answer's texts, in order.

    `messages` are the request's. `inputs` is the number of those so far, `sent` the size of the request and `received`
    the size of the answer, both in bytes. An exchange has at most 64 inputs. If it is not small, what is sent to Aim is
    at most eight times the exchange: later detections then have only the last message as their context, and if that is
    still too much, texts are joined.
    """
    last_message = messages[-1:]  # once: what is one value is encoded once
    most = min(max(1, MOST_INPUTS - inputs), len(leaves))
    full = most
    if sent + received > _SMALL and leaves:
        said = sum(_size(leaf.text) for leaf in leaves)
        context, last = _spelt(messages), _spelt(last_message)
        # Each hook of the request has sent its context, and definitions of tools.
        left = _FACTOR * (sent + received) - inputs * max(context, sent) - said
        most = max(1, min(most, 1 + (left - context) // (last + _INPUT_BYTES)))
        full = min(most, max(1, (left - most * (last + _INPUT_BYTES)) // max(1, context - last)))
    return [
        Detection(leaf, Input(messages if number < full else last_message, leaf.text))
        for number, leaf in enumerate(_join(leaves, most))
    ]


def _join(leaves: Sequence[Leaf], most: int) -> list[Leaf]:
    """Return at most `most` leaves: neighbours are joined."""
    if len(leaves) <= most:
        return list(leaves)
    bounds = [number * len(leaves) // most for number in range(most + 1)]
    groups = [leaves[start:end] for start, end in pairwise(bounds)]
    return [group[0] if len(group) == 1 else _joined(group) for group in groups]


def _joined(leaves: Sequence[Leaf]) -> Leaf:
    return Leaf((), "\n".join(leaf.text for leaf in leaves), is_joined=True, parts=tuple(leaves))


def _spelt(messages: Messages) -> int:
    return len(json_codec.encode(messages))


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
