"""The worst documents: each repeats a small unit, and costs a reader much more than a plain text of its size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from tests.bench.aim import REDACTED
from tests.bench.script import Script

_ALLOWED: Final = Script()


class Carrier(Enum):
    """What carries the document."""

    REQUEST = "request"
    ANSWER = "answer"
    EVENT = "event"


@dataclass(frozen=True, slots=True)
class Shape:
    """A JSON text: `before`, then the unit again and again with `separator` between, then `after`.

    Each `#` in the unit becomes its number, in seven digits. `values` are those of a unit, as `limits.values` counts
    them; those of `before` and `after` are few. `script` is that of the request.
    """

    carrier: Carrier
    before: str
    unit: str
    after: str
    values: float
    separator: str = ","
    script: Script = _ALLOWED

    @property
    def is_redacted(self) -> bool:
        """Return whether Aim redacts the document."""
        return self.script.word == REDACTED

    def redacted(self) -> Shape:
        """Return the same document, one text of which Aim redacts."""
        script = replace(self.script, word=REDACTED)
        return replace(self, before=self.before.replace(str(self.script), str(script)), script=script)

    def text(self, values: int, size: int) -> str:
        """Return the document with as many units as fit into `values` values and `size` characters."""
        width = len(self.unit) + 6 * self.unit.count("#") + len(self.separator)
        count = (size - len(self.before) - len(self.after)) // width
        if self.values:
            count = min(count, int((values - _FEW) / self.values))
        if "#" in self.unit:
            units = [self.unit.replace("#", f"{number:07d}") for number in range(count)]
        else:
            units = [self.unit] * count
        return self.before + self.separator.join(units) + self.after


PLAIN: Final = "plain prompt"
"""The shape of comparison: a text that readers copy as a whole."""

_FEW = 48
"""At least the values around the units."""

MEDIA: Final = 16
"""What an encoded text counts here, although its values are fewer: a document may have 32,768 media."""

_SYSTEM = f'{{"role":"system","content":"{Script()}"}}'
_REQUEST = f'{{"model":"bench","messages":[{_SYSTEM},{{"role":"user","content":"Hello"}}'
_ANSWER = '{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench",'
_EVENT = '{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench",'
_CALL = '{"id":"c","type":"function","function":{"name":"f","arguments":"'


def _made_up(unit: str, values: float, brackets: str = "[]") -> Shape:
    """Return a request with the units under a key that no API has."""
    return Shape(Carrier.REQUEST, _REQUEST + '],"zz":' + brackets[0], unit, brackets[1] + "}", values)


def _message(before: str, unit: str, after: str, values: float, separator: str = ",") -> Shape:
    """Return a request with the units in its last message."""
    return Shape(Carrier.REQUEST, f"{_REQUEST},{before}", unit, after + "]}", values, separator)


def _answer(before: str, unit: str, after: str, values: float) -> Shape:
    return Shape(Carrier.ANSWER, _ANSWER + before, unit, after + "}", values)


def _event(before: str, unit: str, after: str, values: float) -> Shape:
    return Shape(Carrier.EVENT, _EVENT + before, unit, after + "}", values)


_WHOLE_CHOICE = '"choices":[{"index":0,"message":{"role":"assistant","content":"Hello"}'
_DELTA_CHOICE = '"choices":[{"index":0,"delta":{"content":"Hello"}'
_LOGPROB = '{"token":"a","logprob":-1.5}'

_READ: Final = {
    PLAIN: _message('{"role":"user","content":"', "mesh and ", '"}', 0, ""),
    "escapes in tool arguments": _message(
        f'{{"role":"assistant","content":null,"tool_calls":[{_CALL}{{\\"a\\":\\"', r"\\u0041", '\\"}"}}]}', 0, ""
    ),
    "escapes beside an invalid one": _message(
        f'{{"role":"assistant","content":null,"tool_calls":[{_CALL}{{\\"a\\":\\"\\\\q', r"\\n", '\\"}"}}]}', 0, ""
    ),
    "strings under a made-up key": _made_up('"a"', 1),
    "strings as content": _message('{"role":"user","content":[', '"a"', "]}", 1),
    "content parts": _message('{"role":"user","content":[', '{"type":"text","text":"a"}', "]}", 5),
    "messages": _message("", '{"role":"user","content":"a"}', "", 5),
    "bare messages": _message("", '{"content":"a"}', "", 3),
    "objects of one key": _made_up('{"a":"b"}', 3),
    "keys of one object": _made_up('"k#":"a b"', 2, "{}"),
    "keys with spaces": _made_up('"k #":1', 1.125, "{}"),
    "lists of one string": _made_up('["a"]', 2),
    "lists 100 deep": _made_up("[" * 100 + '"a"' + "]" * 100, 101),
    "empty lists": _made_up("[]", 1),
    "empty objects": _made_up("{}", 1),
    "numbers": _made_up("1", 1 / 8),
    "tool calls": _message(
        '{"role":"assistant","content":null,"tool_calls":[', _CALL + '{\\"a\\":\\"b\\"}"}}', "]}", 11
    ),
    "tool definitions": Shape(
        Carrier.REQUEST, _REQUEST + '],"tools":[', '{"type":"function","function":{"description":"a b"}}', "]}", 7
    ),
    "enum of a tool": Shape(
        Carrier.REQUEST,
        _REQUEST + '],"tools":[{"type":"function","function":{"name":"f","parameters":{"properties":{"a":{"enum":[',
        '"a"',
        "]}}}}}]}",
        1,
    ),
    "semicolons of a data URL": Shape(Carrier.REQUEST, _REQUEST + '],"a_url":"data:', ";", '"}', 0, ""),
    "media beside their type": Shape(
        Carrier.REQUEST,
        _REQUEST + '],"zz":{"mime_type":"application/' + "+" * 900 + '"',
        ',"k#_b64":"QUJD"',
        "}}",
        MEDIA,
        "",
    ),
    "base64 of texts": _message(
        '{"role":"user","content":[', '{"type":"image_url","image_url":{"url":"YWIgYw=="}}', "]}", MEDIA
    ),
    "sentences as names": Shape(Carrier.REQUEST, _REQUEST + '],"models":[', '"a b"', "]}", 1),
    "answer: sentences as addresses": _answer(_WHOLE_CHOICE + '}],"citations":[', '"a b"', "]", 1),
    "answer: base64 of texts": _answer(
        '"choices":[{"index":0,"message":{"role":"assistant","content":"a","images":[',
        '{"image_url":{"url":"YWIgYw=="}}',
        "]}}]",
        MEDIA,
    ),
    "answer: sentences as tokens": _answer(_WHOLE_CHOICE + ',"logprobs":[', '"a b"', "]}]", 1),
    "answer: strings under a made-up key": _answer(_WHOLE_CHOICE + '}],"zz":[', '"a"', "]", 1),
    "answer: choices": _answer('"choices":[', '{"index":0,"message":{"role":"assistant","content":"a"}}', "]", 8.125),
    "answer: tool calls": _answer(
        '"choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[',
        _CALL + '{\\"a\\":\\"b\\"}"}}',
        "]}}]",
        11,
    ),
    "answer: log probabilities": _answer(_WHOLE_CHOICE + ',"logprobs":{"content":[', _LOGPROB, "]}}]", 4.125),
    "event: strings under a made-up key": _event(_DELTA_CHOICE + '}],"zz":[', '"a"', "]", 1),
    "event: choices": _event('"choices":[', '{"index":0,"delta":{"content":"a"}}', "]", 6.125),
    "event: log probabilities": _event(_DELTA_CHOICE + ',"logprobs":{"content":[', _LOGPROB, "]}}]", 4.125),
}

_REDACTED: Final = (
    "strings under a made-up key",
    "content parts",
    "bare messages",
    "keys of one object",
    "lists of one string",
    "lists 100 deep",
    "answer: choices",
)
"""The shapes whose redaction is measured, too."""

SHAPES: Final = _READ | {f"redacted: {name}": _READ[name].redacted() for name in _REDACTED}
