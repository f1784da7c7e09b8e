"""Documents: edits keep everything else byte for byte, and ambiguous JSON is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from extproc.core.content.document import MAX_DEPTH, Document, Path, PlainText, fields
from extproc.core.errors import BodyTooLarge, MalformedBody

ODD = """ {
\t"model" : "gpt\\u002d4", "n":1.0E+2 ,"big":123456789012345678901234567890,
  "neg": -0, "e":1e-07,\r\n"messages":[ {"role":"user" ,"content":"a\\/b\\"c"},{"content" :"second", "x":[ ]} ],
  "":{"":"empty"}, "nested": [[["deep", {"k" : null}]], {}, [] ] , "last":true}
 """


@pytest.mark.parametrize(
    ("edits", "old", "new"),
    [
        ({}, "", ""),
        ({("model",): "x"}, '"gpt\\u002d4"', '"x"'),
        ({("n",): "x"}, "1.0E+2", '"x"'),
        ({("big",): None}, "123456789012345678901234567890", "null"),
        ({("neg",): "x"}, "-0,", '"x",'),
        ({("messages", 0, "content"): 'q"\n'}, '"a\\/b\\"c"', '"q\\"\\n"'),
        ({("messages", 1, "content"): "\u00e9\U0001f600\ud800"}, '"second"', '"\\u00e9\\ud83d\\ude00\\ud800"'),
        ({("messages", 1, "x"): "x"}, "[ ]", '"x"'),
        ({("messages", 0): None}, '{"role":"user" ,"content":"a\\/b\\"c"}', "null"),
        ({("", ""): "x"}, '"empty"', '"x"'),
        ({("nested", 0, 0, 0): "x"}, '"deep"', '"x"'),
        ({("nested", 0, 0, 1, "k"): "x"}, '{"k" : null}', '{"k" : "x"}'),
        ({("nested", 2): "x"}, "{}, [] ]", '{}, "x" ]'),
        ({("last",): None}, "true", "null"),
    ],
)
def test_edit_changes_only_its_own_place(edits: dict[Path, str | None], old: str, new: str) -> None:
    assert ODD.count(old) == 1 or not edits
    assert Document(ODD).rewrite(edits) == ODD.replace(old, new)


def test_several_edits_apply_in_any_order() -> None:
    edits: dict[Path, str | None] = {
        ("nested", 0, 0, 1, "k"): "4",
        ("messages", 1, "content"): "3",
        ("model",): "1",
        ("messages", 0, "content"): "2",
        ("nested", 0, 0, 0): None,
    }
    expected = (
        ODD.replace('"gpt\\u002d4"', '"1"')
        .replace('"a\\/b\\"c"', '"2"')
        .replace('"second"', '"3"')
        .replace('{"k" : null}', '{"k" : "4"}')
        .replace('"deep"', "null")
    )
    assert Document(ODD).rewrite(edits) == expected
    assert Document(ODD).rewrite(dict(reversed(edits.items()))) == expected


def test_array_at_the_root_can_be_edited() -> None:
    assert Document(' [1 , "a",{"b":"c"}]\n').rewrite({(1,): "x", (2, "b"): "y"}) == ' [1 , "x",{"b":"y"}]\n'


def test_escaped_key_is_found_by_its_value() -> None:
    assert Document('{"\\u0063ontent":"a","b\\"\\\\":1}').rewrite({("content",): "x", ('b"\\',): "y"}) == (
        '{"\\u0063ontent":"x","b\\"\\\\":"y"}'
    )


def test_brackets_and_quotes_in_strings_are_ignored() -> None:
    text = '{"a":"]}\\\\","b":["{\\"",{"c":"}]"}],"d":"x"}'
    assert Document(text).rewrite({("d",): "y", ("b", 1, "c"): "z"}) == text.replace('"x"', '"y"').replace(
        '"}]"', '"z"'
    )


def test_edit_below_another_has_no_effect() -> None:
    text = '{"tokens":[{"token":"a"}],"text":"a"}'
    edits: dict[Any, Any] = {("tokens", 0, "token"): "x", ("tokens",): None, ("text",): "y"}
    for given in (edits, dict(reversed(edits.items()))):
        assert Document(text).rewrite(given) == '{"tokens":null,"text":"y"}'


def test_rewrite_does_not_change_the_document() -> None:
    document = Document('{"a":"b"}')
    document.rewrite({("a",): "c"})
    assert (document.text, document.root) == ('{"a":"b"}', {"a": "b"})
    assert document.rewrite({("a",): "d"}) == '{"a":"d"}'


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"a":1}', ("b",)),
        ('{"a":1}', ("a", "b")),
        ('{"a":1}', (0,)),
        ('{"a":{}}', ("a", "b")),
        ('{"a":[]}', ("a", 0)),
        ('{"a":[1]}', ("a", 1)),
        ('{"a":[1]}', ("a", -1)),
        ('{"a":[1]}', ("a", "0")),
        ('{"0":1}', (0,)),
        ("{}", ("a",)),
        ("[]", (0,)),
        ('"a"', ("a",)),
        ("1", (0,)),
        ("null", ("a", "b")),
    ],
)
def test_missing_path_raises_a_key_error(text: str, path: Path) -> None:
    with pytest.raises(KeyError):
        Document(text).rewrite({path: "x"})


def test_one_missing_path_of_two_raises_a_key_error() -> None:
    with pytest.raises(KeyError):
        Document('{"a":"b"}').rewrite({("a",): "c", ("d",): "e"})


def test_key_error_contains_no_content() -> None:
    with pytest.raises(KeyError) as caught:
        Document('{"secret":"secret"}').rewrite({("hidden",): "hidden"})
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


# -- what is JSON ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("{}", {}),
        (" [ ] ", []),
        ('"a"', "a"),
        ("null", None),
        ("\r\n\t 1 \r\n\t", 1),
        ("-1.5e3", -1500.0),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("1e999", math.inf),
        ('"\\ud83d\\ude00 \\ud800"', "\U0001f600 \ud800"),
        ('"\u2028\x7f"', "\u2028\x7f"),
    ],
)
def test_json_is_parsed(text: str, root: Any) -> None:
    document = Document(text)
    assert (document.text, document.root) == (text, root)
    assert Document.from_bytes(text.encode()).root == root
    assert document.rewrite({}) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        '{"a":1',
        "[1,]",
        '{"a":1,}',
        "{'a':1}",
        '{"a" 1}',
        "{a:1}",
        "01",
        "+1",
        ".5",
        "1.",
        "0x1",
        "True",
        "undefined",
        "{} {}",
        "{}x",
        "{}\0",
        "// c\n{}",
        '"a',
        '"\\x"',
        '"\\u12"',
        '"\n"',
        '"\0"',
        "\ufeff",
        "\ufeff\ufeff{}",
        " \ufeff{}",
        "{}\ufeff",
        "\u00a0{}",
        "{}\u00a0",
        "\x0c{}",
    ],
)
def test_text_that_is_not_json_is_malformed(text: str) -> None:
    for read in (Document, lambda text: Document.from_bytes(text.encode())):
        with pytest.raises(MalformedBody):
            read(text)


@pytest.mark.parametrize(
    "data",
    [
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\xc0\xaf"',
        b'"\xe2\x82"',
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-16-le"),
        '{"a":1}'.encode("utf-32-be"),
        '"é"'.encode("latin-1"),
    ],
)
def test_bytes_that_are_not_utf8_json_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedBody):
        Document.from_bytes(data)


def test_errors_contain_no_content() -> None:
    for data in (b'{"marker": marker}', b'"marker\xff"', b"marker"):
        with pytest.raises(MalformedBody) as caught:
            Document.from_bytes(data)
        assert "marker" not in str(caught.value) + str(caught.value.__cause__)


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}'])
def test_numbers_that_only_python_accepts_are_kept(text: str) -> None:
    """The standard library accepts them, and so would an upstream in Python, so their document must be readable."""
    assert Document(text).rewrite({}) == text
    assert Document(f'{{"n":{text},"a":"b"}}').rewrite({("a",): "c"}) == f'{{"n":{text},"a":"c"}}'


def test_huge_integers_are_kept_or_refused_quickly() -> None:
    """Python converts up to 4300 digits. Longer integers must be refused quickly."""
    longest = "9" * 4300
    assert Document(f'{{"n":{longest},"a":"b"}}').rewrite({("a",): "c"}) == f'{{"n":{longest},"a":"c"}}'
    for digits in (4301, 1_000_000):
        with pytest.raises(MalformedBody):
            Document("9" * digits)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000]
)
def test_deeply_nested_text_is_malformed(text: str) -> None:
    with pytest.raises(MalformedBody):
        Document(text)


def test_one_level_over_the_depth_limit_is_malformed() -> None:
    Document("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    Document("[" + "[]," * MAX_DEPTH + "[]]")  # many arrays, but no deep nesting
    with pytest.raises(MalformedBody):
        Document("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


def test_whole_document_can_be_replaced() -> None:
    assert Document(' "a" ').rewrite({(): "b"}) == '"b"'


def test_depth_at_the_limit_is_accepted() -> None:
    depth = MAX_DEPTH // 2
    text = '[{"a":' * depth + '"x"' + "}]" * depth
    path: Path = (0, "a") * depth
    assert Document(text).rewrite({path: "y"}) == text.replace("x", "y")


# -- repeated keys -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":1}',
        '{"a":1,"\\u0061":2}',
        '{"":1,"":1}',
        '{"b":1,"a":1,"b":{}}',
        '{"a":{"b":1,"b":2},"c":{"b":1}}',
        '[[[{"x":[{"b":1,"b":2}]}]]]',
    ],
)
def test_repeated_key_is_malformed_at_any_depth(text: str) -> None:
    with pytest.raises(MalformedBody, match="repeated"):
        Document(text)


def test_different_keys_are_not_repeated() -> None:
    text = '{"a":1,"A":2,"\u00e9":3,"e\u0301":4," a":5}'
    assert len(fields(Document(text).root)) == 5


# -- reading without surprises -----------------------------------------------------------------------------------


@pytest.mark.parametrize("node", [None, True, 0, 1.5, "text", [], [{"a": 1}]])
def test_values_that_are_not_objects_have_no_fields(node: Any) -> None:
    assert fields(node) == {}


def test_fields_are_the_object_itself() -> None:
    node = {"a": 1}
    assert fields(node) is node


# -- a byte order mark -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ['{"a":"b"}', ' [ {"a":"b"}, 1]', '"a"', "1", "\n{}"])
def test_byte_order_mark_is_skipped_and_kept(text: str) -> None:
    document = Document.from_bytes(b"\xef\xbb\xbf" + text.encode())
    assert document.root == Document(text).root
    assert document.rewrite({}) == "\ufeff" + text
    assert document.rewrite({(): "x"}) == '\ufeff"x"'


def test_edit_behind_a_byte_order_mark_changes_only_its_own_place() -> None:
    assert Document('\ufeff {"a":["b"]}').rewrite({("a", 0): "c"}) == '\ufeff {"a":["c"]}'
    with pytest.raises(KeyError):
        Document('\ufeff"a"').rewrite({("a",): "c"})


# -- the number of values ----------------------------------------------------------------------------------------


def test_values_are_limited() -> None:
    text = json.dumps({"a": ["b", {"c": [1] * 8}]})
    assert Document(text, 8).root
    with pytest.raises(BodyTooLarge):
        Document(text, 7)
    with pytest.raises(BodyTooLarge):
        Document.from_bytes(text.encode(), 7)


@pytest.mark.parametrize("unit", ['"a"', "[]", '{"a":"b"}', "1,2,3,4,5,6,7,8"])
def test_too_many_values_are_refused_before_parsing(unit: str) -> None:
    """Parsing would raise MalformedBody: the text is cut short."""
    text = "[" + ",".join([unit] * 900_000)
    with pytest.raises(BodyTooLarge):
        Document(text)


# -- plain texts -------------------------------------------------------------------------------------------------


def test_plain_text_is_one_value() -> None:
    text = '{"not": JSON\n'
    document = PlainText(text, 0)
    assert (document.text, document.root) == (text, text)
    document.forget()
    assert document.rewrite({}) == text
    assert document.rewrite({(): 'new "text"\n'}) == 'new "text"\n'
    assert document.rewrite({(): None}) == document.rewrite({(): ""}) == ""
    with pytest.raises(KeyError):
        document.rewrite({(): "x", ("a",): "x"})


def test_plain_text_from_bytes_is_utf8() -> None:
    assert PlainText.from_bytes("\u00e9 {".encode()).root == "\u00e9 {"
    with pytest.raises(MalformedBody):
        PlainText.from_bytes(b"\xff")
