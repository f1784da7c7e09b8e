"""The tables of the status page after traffic through a real Envoy, as the admin port serves them."""

from __future__ import annotations

import asyncio
import html
import re

import pytest

from extproc.admin.app import admin_app
from extproc.admin.port import listening
from extproc.config.address import Address
from extproc.serve.instance import Instance
from extproc.serve.readiness import Readiness
from extproc.telemetry.snapshot import Phase
from tests.fakes.aim import Answer, Question, allow, block
from tests.fakes.process import free_port, get
from tests.fakes.rig import Rigs, chat_answer, chat_stream
from tests.fakes.upstream import pieces, whole

HIDDEN = "sk-live-1234567890"


async def judge(question: Question) -> Answer:
    """Block, fail or allow, depending on the prompt."""
    if any("attack" in text for text in question.texts):
        return block("no")
    return (200, b"not JSON") if any("broken" in text for text in question.texts) else await allow(question)


def rows(page: str, caption: str) -> list[list[str]]:
    """Return the cells of the table whose caption begins so, without the column names that only a phone shows."""
    (table,) = re.findall(rf"<caption>{caption}.*?</table>", page, re.DOTALL)
    found = re.findall(r"<tr role=\"row\">(.*?)</tr>", table.partition("<tbody")[2], re.DOTALL)
    bare = (re.sub(r"<span class=\"name\".*?</span>", "", row) for row in found)
    cells = (re.findall(r"<t[hd] .*?>(.*?)</t[hd]>", row, re.DOTALL) for row in bare)
    return [[html.unescape(re.sub(r"<.*?>", "", cell)).replace("\xa0", " ") for cell in row] for row in cells]


@pytest.mark.asyncio(loop_scope="package")
async def test_page_shows_what_came_through_envoy(rigs: Rigs) -> None:
    chain = await rigs.get("page", profiles={"default": {"paths": {"/closed/*": "block"}}})
    chain.aim.judge, chain.upstream.answer = judge, whole(chat_answer("Hi"))
    for text in ("Hello", "an attack", "broken"):
        await chain.chat(text)
    chain.upstream.answer = pieces(chat_stream("Hel", "lo"))
    await chain.chat("Hello", stream=True)
    for method, path, body in (
        ("POST", f"/internal/users/jane%40example.com/summaries?key={HIDDEN}", {"note": "Hello"}),
        ("POST", "/internal/users/4711/summaries", {"note": "an attack"}),
        ("POST", f"/store/{HIDDEN}/<b>x", None),
        ("DELETE", "/closed/door", None),
        ("DELETE", "/closed/Jane", None),
    ):
        chain.upstream.answer = whole(chat_answer("Hi"))
        await chain.client.request(method, path, json=body, headers={"x-hidden": HIDDEN})
    service = chain.sidecar.service
    await asyncio.wait_for(service.idle.wait(), 60)
    readiness = Readiness(needs_aim=False)
    readiness.enter(Phase.SERVING)
    address = Address(host="127.0.0.1", port=free_port())
    async with asyncio.TaskGroup() as group, listening(admin_app(Instance(service, None, group, readiness)), address):
        page = (await get(address.port, "/")).text
    assert rows(page, "Exchanges that the sidecar refused") == [
        ["path_not_allowed", "none", "2"],
        ["guardrail_unavailable", "unreadable_answer", "1"],
    ]
    assert rows(page, "Detections and sessions that failed") == [["pre_call", "unreadable_answer", "1"]]
    assert "Nothing failed open since the start." in page
    assert rows(page, "Exchanges by profile") == [["default", "9", "100 %", "2", "0", "0"]]
    assert rows(page, "Paths that no dialect knows") == [
        ["/internal/users/{id}/summaries", "POST", "inspected", "2"],
        ["/store/{id}/{id}", "POST", "inspected", "1"],
        ["/closed/door", "DELETE", "refused", "1"],
        ["/closed/{id}", "DELETE", "refused", "1"],
    ]
    assert [row[:2] for row in rows(page, "How long Aim took")] == [
        ["pre_call", "6"],
        ["output, whole answers", "3"],
        ["output, whole streams", "1"],
    ]
    for hidden in (HIDDEN, "jane", "Jane", "4711", "Hello", "attack"):
        assert hidden not in page
