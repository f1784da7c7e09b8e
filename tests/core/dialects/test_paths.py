"""The choice of a dialect by method and for any spelling of a path."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.dialects.base import Dialect
from extproc.core.dialects.endpoints import GENERIC, NAMES
from extproc.core.dialects.paths import Route, _recall, normalised_glob, route, spellings
from extproc.core.policy import Unmatched


def pick(method: str, path: str, paths: Mapping[str, str]) -> Dialect | None:
    return route(method, path, paths).dialect


def normalise(path: str) -> str:
    return spellings(path)[0]


SPELLINGS = [
    "/v1/chat/completions",
    "/v1/chat/completions/",
    "/v1/chat/completions///",
    "//v1//chat/completions",
    "///v1/chat//completions",
    "v1/chat/completions",
    "/V1/Chat/COMPLETIONS",
    "/v1/chat/completions?a=b",
    "/v1/chat/completions?",
    "/v1/chat/completions?x=/../..",
    "/v1/chat/completions/?a=b",
    "/v1/chat/completions#x",
    "/v1/chat/completions#x?y",
    "/v1/chat/completions?x#/y",
    "/v1/x/../chat/completions",
    "/v1/x/y/../../chat/completions",
    "/v1/./chat/./completions/.",
    "/../../v1/chat/completions",
    "/v1/x/%2e%2e/chat/completions",
    "/v1/x/%2E./chat/completions",
    "/v1/%2e/chat/completions",
    "/v1/chat%2Fcompletions",
    "/v1/chat%2fcompletions",
    "%2Fv1%2Fchat%2Fcompletions",
    "/v1/c%68at/completions",
    "/v1/chat/completions%2F",
    "/v1\\chat\\completions",
    "/v1/chat\\/completions\\",
    "/v1/chat%5Ccompletions",
    "/v1/x\\..\\chat/completions",
    "/v1/chat/completions;a=b",
    "/v1/chat/completions;",
    "/v1;x/chat;y=z/completions;a=b;c",
    "/v1/chat/completions%3Ba=b",
    "/v1/x/..;/chat/completions",
    "/v1/;/chat/completions",
    "/v1/chat/completions%20",
    "/v1/chat/completions ",
    "/v1/chat/completions%09",
    "/v1/chat/completions%0d%0A",
    "/v1/chat/completions%00",
    "/v1/chat/completions%00/",
    "/v1/chat%20/completions",
    "/v1/chat/completions%20;a=b",
    "/v1/x/..%20/chat/completions",
    "/v1/chat%252Fcompletions",
    "/v1/chat%25252525252Fcompletions",
    "/v1/c%2568at/completions",
    "/v1/x/%25%32%65./chat/completions",
    "/v1/chat/completions%3F",
    "/v1/chat/completions%3Fa=b",
    "/v1/chat/completions%23",
    "/v1/chat/completions%253F",
    "/v1/chat/completions%3B",
    "/v1/chat/completions%7f",
    "/v1/chat/completions%00x",
    "/v1/chat/completions%C2%A0",
]


@pytest.mark.parametrize("path", SPELLINGS)
def test_spellings_of_one_path_have_the_same_dialect(path: str) -> None:
    assert normalise(path) == "/v1/chat/completions"
    found = pick("POST", path, {})
    assert found is not None
    assert found.name == "openai-chat"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "/"),
        ("/", "/"),
        ("*", "/*"),
        ("?x", "/"),
        ("#/v1/chat/completions", "/"),
        ("/..", "/"),
        ("/a/..", "/"),
        ("/a/../..//b", "/b"),
        ("/a/b/..", "/a"),
        ("/...", "/..."),
        ("/a/..b/c..", "/a/..b/c.."),
        ("/%252F", "/"),
        ("/%252e%252e/a", "/a"),
        ("/%2525252525", "/%"),
        ("/%2%35%32%35a", "/%a"),
        ("/a%3Fb", "/a"),
        ("/a%23b/c", "/a/c"),
        ("/a%00b", "/a"),
        ("/\x01a\x7f\x85\xa0", "/a"),
        ("/a.json", "/a.json"),
        ("/a%", "/a%"),
        ("/a%zz", "/a%zz"),
        ("/%C3%89", "/\u00e9"),
        ("/%ff", "/\ufffd"),
        ("/a+b", "/a+b"),
        ("/a%20b", "/a b"),
        ("/;a", "/"),
        ("/v1beta/models/Gemini:streamGenerateContent", "/v1beta/models/gemini:streamgeneratecontent"),
    ],
)
def test_path_is_normalised(path: str, expected: str) -> None:
    assert normalise(path) == expected


def test_normalised_path_without_escapes_stays_the_same() -> None:
    for path in SPELLINGS:
        assert normalise(normalise(path)) == normalise(path)


@pytest.mark.parametrize(
    "path",
    [
        "/chat/completions",
        "/api/v1/chat/completions",
        "/openai/deployments/gpt-4o/chat/completions?api-version=2024-06-01",
        "/openai/deployments/my%2Fdeployment/chat/completions",
        "/v1beta/openai/chat/completions",
        "/a/very/long/prefix/chat/completions",
        "/compatible-mode/v1/chat/completions",
    ],
)
def test_path_may_have_any_prefix(path: str) -> None:
    found = pick("POST", path, {})
    assert found is NAMES["openai-chat"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/models",
        "/v1/chat/completions/x",
        "/v1/chat/completions/chatcmpl-1/messages",
        "/v1/chat/completionsx",
        "/v1/chat.completions",
        "/v1/chat/completions.veryverylong",
        "/v1/xchat/x",
        "/v1/chat/completions/../models",
        "/v1/models?path=/chat/completions",
        "/v1/models#/chat/completions",
    ],
)
def test_other_paths_have_no_dialect(path: str) -> None:
    assert pick("POST", path, {}) is None


def test_longer_name_is_not_chat() -> None:
    assert pick("POST", "/v1/notchat/completions", {}) is not NAMES["openai-chat"]


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "", "POSTS", "CONNECT"])
def test_other_methods_have_no_dialect(method: str) -> None:
    assert pick(method, "/v1/chat/completions", {}) is None


@pytest.mark.parametrize("method", ["POST", "post", "Post"])
def test_method_post_is_known_in_any_letter_case(method: str) -> None:
    assert pick(method, "/v1/chat/completions", {}) is NAMES["openai-chat"]


def test_paths_of_the_settings_have_their_dialect() -> None:
    chat = NAMES["openai-chat"]
    for path in ("/llm/x", "/LLM//x/y", "/a/../llm/%78", "/llm/x?y", "/llm/x/"):
        assert pick("POST", path, {"/llm/*": "openai-chat"}) is chat
    for path in ("/llm", "/llm/", "/x/llm/y", "/llmx/y"):
        assert pick("POST", path, {"/llm/*": "openai-chat"}) is None
    assert pick("POST", "/exact", {"/EXACT": "openai-chat"}) is chat
    assert pick("POST", "/v1/chat/completions", {"/llm/*": "openai-chat"}) is chat


def test_paths_of_the_settings_take_precedence_in_their_order() -> None:
    other = next(name for name in NAMES if name != "openai-chat")
    path = "/v1/chat/completions"
    assert pick("POST", path, {"*": other}) is NAMES[other]
    assert pick("POST", path, {"*/completions": other, "*": "openai-chat"}) is NAMES[other]
    assert pick("POST", path, {"*": "openai-chat", "*/completions": other}) is NAMES["openai-chat"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files", "/v1/chat/completions" + "/." * 400])
def test_path_is_cached_without_its_query(path: str) -> None:
    _recall.cache_clear()
    for query in ("", "?key=SECRET", "#SECRET", "?other=SECRET"):
        assert pick("POST", path + query, {}) is pick("POST", path, {})
        assert (spellings(path + query) is spellings(path)) == (len(path) < 512)
    assert _recall.cache_info().currsize == (len(path) < 512)


# -- spellings that only some servers take for the same path ---------------------------------------------------------


@pytest.mark.parametrize(
    "ending",
    [
        *(".json", ".JSON", ".json/", ".json?x", ".json%20", ".json.json", ".json;x=y", ".", "%2Ejson", "%00.json"),
        *("%3Fa=/b/c", "%23/b/c", "%253Fx/../y", "%3f.json", ".json%3Fa=/b"),
    ],
)
def test_suffix_and_encoded_delimiter_are_matched_like_the_path_before_them(ending: str) -> None:
    assert pick("POST", "/v1/chat/completions" + ending, {}) is NAMES["openai-chat"]
    assert pick("POST", "/llm/x" + ending, {"/llm/x": "gemini"}) is NAMES["gemini"]


def test_rounds_of_decoding_are_bounded() -> None:
    def nested(depth: int) -> str:
        path = "/v1/chat/completions%3f"
        for _ in range(depth):
            head, _, tail = path.rpartition("%")
            path = f"{head}%2%35{tail}"
        return path

    assert normalise(nested(5)) == "/v1/chat/completions"
    assert "%" in normalise(nested(40))


def test_suffixes_are_cut_until_none_is_left() -> None:
    assert pick("POST", "/v1/responses.json%20.json", {}) is NAMES["openai-responses"]
    assert pick("POST", "/v1/responses.json%20.a%20.b", {}) is NAMES["openai-responses"]


def test_longest_suffix_is_short() -> None:
    assert pick("POST", "/v1/chat/completions" + ".a" * 16, {}) is NAMES["openai-chat"]
    assert pick("POST", "/v1/chat/completions" + ".a" * 4000 + "!", {}) is None


_SLASHES = ["/", "//", "/./", "\\", "/x/../", ";a=b/", "/;x/", "%20/"]
_ENDINGS = ["%3F", "%23", "%20", "%00", "%0a", "%3B", "%3Bx", ".json", "%09", "%253f"]
_LAST: list[list[str]] = [[], ["/"], ["?a=/b"], ["/", "#x"]]


@given(
    path=st.sampled_from(["/v1/chat/completions", "/v1/responses", "/v1beta/models/m:generateContent", "/v1/files"]),
    data=st.data(),
)
def test_spellings_of_any_path_have_the_same_dialect(path: str, data: st.DataObject) -> None:
    letters = [letter if letter != "/" else data.draw(st.sampled_from(_SLASHES)) for letter in path[1:]]
    for _ in range(data.draw(st.integers(0, 3))):
        letters = [
            f"%{ord(letter):02x}" if data.draw(st.integers(0, 3)) == 0 else letter for letter in "".join(letters)
        ]
    if data.draw(st.booleans()):
        letters = [letter.swapcase() for letter in letters]
    endings = data.draw(st.lists(st.sampled_from(_ENDINGS), max_size=4)) + data.draw(st.sampled_from(_LAST))
    spelt = "/" + "".join(letters) + "".join(endings)
    assert pick("POST", spelt, {}) is pick("POST", path, {})


# -- methods -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/v1/responses/resp_1", "openai-responses"),
        ("GET", "/v1/responses/resp_1?stream=true&starting_after=3", "openai-responses"),
        ("GET", "/openai/v1/responses/resp_1/input_items", "openai-responses"),
        ("get", "/v1/conversations/conv_1/items", "openai-responses"),
        ("GET", "/v1/conversations/conv_1/items/msg_1", "openai-responses"),
        ("GET", "/v1/chat/completions/chatcmpl-1", "openai-chat"),
        ("GET", "/v1/chat/completions/chatcmpl-1/messages", "openai-chat"),
        ("POST", "/v1/responses/resp_1/cancel", "openai-responses"),
    ],
)
def test_stored_answer_has_the_dialect_of_the_path_that_made_it(method: str, path: str, name: str) -> None:
    assert pick(method, path, {}) is NAMES[name]
    others = {"GET": ("POST", "PUT", "DELETE"), "POST": ("GET", "PATCH")}[method.upper()]
    assert all(pick(other, path, {}) is None for other in others if (other, path[-5:]) != ("POST", "items"))


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses/a/b", "/v1/chat/completions", "/v1/models/x"])
def test_other_paths_of_a_get_have_no_dialect(path: str) -> None:
    assert pick("GET", path, {}) is None


# -- the settings --------------------------------------------------------------------------------------------------


def test_key_of_the_settings_may_have_a_method() -> None:
    paths = {"GET /llm/*": "gemini", "PATCH   /llm/*": "rerank", "/llm/*": "openai-chat"}
    assert [pick(method, "/llm/x", paths) for method in ("get", "PATCH", "DELETE")] == [
        NAMES["gemini"],
        NAMES["rerank"],
        NAMES["openai-chat"],
    ]


def test_path_of_the_settings_may_be_inspected_passed_or_blocked() -> None:
    paths = {"GET /v1/models": "pass", "/v1/chat/completions": "block", "/x/*": "inspect"}
    assert route("GET", "/v1/models", paths, Unmatched.BLOCK) == Route(None, Unmatched.PASS)
    assert route("POST", "/v1/models", paths, Unmatched.BLOCK) == Route(None, Unmatched.BLOCK)
    assert route("POST", "/v1/chat/completions", paths) == Route(None, Unmatched.BLOCK)
    assert route("PUT", "/x/y", paths, Unmatched.PASS) == Route(None, Unmatched.INSPECT)
    assert route("PUT", "/y", paths, Unmatched.PASS) == Route(None, Unmatched.PASS)
    assert route("POST", "/y", {"/y": "generic"}).dialect is GENERIC


def test_upgrade_has_the_route_of_a_post_too() -> None:
    chat = NAMES["openai-chat"]
    assert route("GET", "/v1/chat/completions", {}, is_upgrade=True).dialect is chat
    assert route("CONNECT", "/llm", {"POST /llm": "openai-chat"}, is_upgrade=True).dialect is chat
    assert route("GET", "/v1/chat/completions", {"GET /v1/*": "pass"}, is_upgrade=True).dialect is None
    assert route("GET", "/v1/chat/completions", {"PUT /v1/*": "pass"}, is_upgrade=True).dialect is chat


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("/internal/", "/internal"),
        ("//a/./b/../c//", "/a/c"),
        ("/ext/a%2Fb", "/ext/a/b"),
        ("/ext\\a", "/ext/a"),
        ("/ext/c;d/e", "/ext/c/e"),
        ("/sp%20ace/*", "/sp ace/*"),
        ("/%2578", "/x"),
        ("/", "/"),
        ("/x/*", "/x/*"),
        ("/x/*/", "/x/*"),
        ("/X?/[A-C]/[!/;]/", "/x?/[a-c]/[!/;]"),
        ("*/llm/", "*/llm"),
        ("*", "*"),
        ("/x*/y/../z", "/x*/z"),
        ("/a%2ab", "/a[*]b"),
        ("/a[b%5D", "/a[[]b]"),
    ],
)
def test_glob_is_normalised_like_a_path_and_keeps_its_wildcards(glob: str, expected: str) -> None:
    assert normalised_glob(glob) == expected
    assert normalised_glob(expected) == expected


@pytest.mark.parametrize("glob", ["/a;*", "/a%3B*/b", "/a#*", "/a%3F[bc]", "/a/*/../b", "/\ud800", "/" + 0x801 * "*"])
def test_glob_that_would_lose_a_wildcard_or_can_never_match_is_refused(glob: str) -> None:
    with pytest.raises(ValueError, match=r"wildcard|Unicode"):
        normalised_glob(glob)


@given(st.text(st.sampled_from("/ab.;%2eEfFcC\\ "), min_size=1))
def test_glob_without_wildcards_matches_the_path_that_it_spells(path: str) -> None:
    path = "/" + path
    assert route("GET", path, {normalised_glob(path): "block"}).unmatched is Unmatched.BLOCK
