"""The status page of a serving sidecar in a browser, after real traffic.

With SCREENSHOTS=1 (`make screenshots`) the pictures go to docs/images, else to the test's own folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.async_api import Browser, Page
from prometheus_client.parser import text_string_to_metric_families

from extproc.admin.app import admin_app
from extproc.admin.port import listening
from extproc.config.address import Address
from extproc.serve.instance import Instance
from extproc.serve.readiness import Readiness
from extproc.telemetry.activity import Activity
from extproc.telemetry.snapshot import MINUTES, Phase
from tests.fakes.aim import Question, ScriptedAim, anonymize, block
from tests.fakes.browser import browser, needs_browser
from tests.fakes.envoy_stream import envoy_stream
from tests.fakes.process import free_port, get, serving, written
from tests.fakes.rig import CHAT, chat_request
from tests.fakes.sidecar import settings_for, sidecar

pytestmark = needs_browser

HOSTILE = "<script>document.title='owned'</script>"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
IMAGES = Path(__file__).parents[2] / "docs" / "images"

_LOW_CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !node.checkVisibility()) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${node.tagName} ${node.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return found;
}"""


async def judge(question: Question) -> Any:
    """Block, fail or allow, depending on the prompt."""
    (text,) = question.texts
    if "block" in text:
        return block("No.", **{HOSTILE: {}, "Prompt injection": {}})
    if "fail" in text:
        return (200, b"not JSON")
    return {"detected": False}


async def ask(port: int, text: str, path: str = CHAT) -> None:
    """Send a chat request through the sidecar, which may refuse it."""
    async with envoy_stream(f"127.0.0.1:{port}") as stream:
        await stream.request_headers(("content-type", "application/json"), path=path)
        await stream.read()
        await stream.body("request", json.dumps(chat_request(text)).encode())
        if not (await stream.read()).HasField("immediate_response"):
            await stream.response_headers(status=204, end=True)
            await stream.read()
        await stream.done()
        assert await stream.read() is None


async def visit(port: int, path: str, *headers: tuple[str, str]) -> None:
    """Send a request without a body through the sidecar, which may refuse it."""
    async with envoy_stream(f"127.0.0.1:{port}") as stream:
        await stream.request_headers(*headers, method="GET", path=path, end=True)
        if not (await stream.read()).HasField("immediate_response"):
            await stream.response_headers(status=204, end=True)
            await stream.read()
        await stream.done()
        assert await stream.read() is None


@asynccontextmanager
async def busy(tmp_path: Path, aim: ScriptedAim) -> AsyncIterator[int]:
    """Serve, after some traffic; yield the admin port."""
    aim.judge = judge
    profiles = {
        "default": {"failure_mode_allow": {"request": ["timeout", "unreachable", "unreadable_answer"]}},
        "trial": {"enforce": False, "hooks": ["moderation", "output"]},
    }
    config, port, admin = written(tmp_path, aim, profiles=profiles)
    async with serving(config, AIM_API_KEY="top-secret") as process:
        for text in ("Hello", "block this", "fail", "Hello again", "block that", "And once more"):
            await ask(port, text)
        await ask(port, "Hello", "/internal/users/jane@example.com/summaries?key=top-secret")
        for path in ("/internal/users/joe@example.com/photos", "/internal/users/42/photos", f"/{HOSTILE}"):
            await visit(port, path)
        await visit(port, CHAT, ("upgrade", "websocket"))
        await process.until("exchange")
        yield admin


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    async with browser() as started:
        yield started


@asynccontextmanager
async def opened(
    chromium: Browser, url: str, size: str = "desktop", scheme: str = "light", query: str = "?paused"
) -> AsyncIterator[Page]:
    """Open the page, and check that it logs nothing, calls no other host and loads without errors."""
    width, height = SIZES[size]
    complaints: list[str] = []
    async with await chromium.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,  # type: ignore[arg-type]
    ) as context:
        page = await context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        page.on(
            "request",
            lambda request: None if request.url.startswith((url, "data:")) else complaints.append(request.url),
        )
        answer = await page.goto(f"{url}/{query}")
        assert answer is not None
        assert answer.status == 200
        yield page
        assert complaints == []


async def samples(admin: int) -> dict[str, float]:
    """Return the sum of each metric's samples, and of the verdicts by their action."""
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families((await get(admin, "/metrics")).text):
        for sample in family.samples:
            name = sample.name + (f" {sample.labels['action']}" if "action" in sample.labels else "")
            totals[name] = totals.get(name, 0) + sample.value
    return totals


async def legend(page: Page, title: str) -> dict[str, str]:
    figure = page.locator("figure", has=page.get_by_role("heading", name=title))
    rows = await figure.locator(".legend li").all_inner_texts()
    return dict(row.strip().rsplit(" ", 1) for row in rows)


async def rows(page: Page, caption: str) -> list[list[str]]:
    """Return the cells of a table, without the column names that only a phone shows."""
    table = page.get_by_role("table", name=caption)
    found = [row.locator("th, td > span:not(.name)") for row in await table.locator("tbody tr").all()]
    return [[cell.replace("\N{NO-BREAK SPACE}", " ") for cell in await row.all_inner_texts()] for row in found]


async def test_page_of_a_busy_sidecar_in_a_browser(tmp_path: Path, aim: ScriptedAim, chromium: Browser) -> None:
    async with busy(tmp_path, aim) as admin:
        url = f"http://127.0.0.1:{admin}"
        for size in SIZES:
            async with opened(chromium, url, size) as page:
                await _looks_right(page)
                await _reads_well(page)
                assert await page.evaluate(_LOW_CONTRAST) == []
        async with opened(chromium, url, scheme="dark") as page:
            assert await page.evaluate(_LOW_CONTRAST) == []
        async with opened(chromium, url) as page:
            await _counts_what_happened(page, await samples(admin))
            await _tells_no_secret_and_runs_nothing(page)
            await page.get_by_role("link", name="Resume updates").click()
            assert await page.locator("meta[http-equiv=refresh]").count() == 1
            await page.get_by_role("link", name="Pause updates").click()
            assert await page.locator("meta[http-equiv=refresh]").count() == 0


async def _looks_right(page: Page) -> None:
    """Check that nothing exceeds the page's width, whether the details are open or not."""
    for _ in range(2):
        wide, inner = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= inner
        beyond = "[...document.querySelectorAll('section')].filter(n => n.scrollWidth > n.clientWidth).length"
        assert await page.evaluate(beyond) == 0
        for summary in await page.locator("summary").all():
            await summary.click()
    assert await page.locator("details[open]").count() == 0


async def _reads_well(page: Page) -> None:
    """Check that a screen reader finds landmarks, headings in order, and a name for everything."""
    for role in ("banner", "main", "contentinfo"):
        assert await page.get_by_role(role).count() == 1
    levels = await page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(n => Number(n.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for section in await page.locator("section").all():
        assert await section.get_attribute("aria-labelledby")
    assert await page.get_by_role("region", name="Recent blocks").count() == 1
    for picture in await page.locator("svg").all():
        assert re.search(r"in 15 minutes", await picture.get_attribute("aria-label") or "")
    assert await page.locator("table:not(:has(caption))").count() == 0
    assert await page.locator("th:not([scope])").count() == 0
    table = page.get_by_role("table", name="The profiles in force.")
    assert await table.get_by_role("columnheader", name="hooks").count() == 1
    assert await table.get_by_role("rowheader", name="trial").count() == 1
    assert "dry run" in " ".join(await table.get_by_role("cell").all_inner_texts())
    unnamed = "[...document.querySelectorAll('a, summary')].filter(n => !n.innerText.trim()).length"
    assert await page.evaluate(unnamed) == 0
    assert await page.locator("html").get_attribute("lang") == "en"


async def _counts_what_happened(page: Page, metrics: dict[str, float]) -> None:
    """Check that charts and metrics show the same counts."""
    shown = await legend(page, "Verdicts")
    counted = {
        name: f"{metrics.get(f'extproc_verdicts_total {action}', 0):.0f}"
        for action, name in (
            ("allow", "allowed"),
            ("monitor", "monitored"),
            ("anonymize", "redacted"),
            ("block", "blocked"),
            ("error", "no verdict"),
        )
    }
    assert shown == counted == {"allowed": "4", "monitored": "0", "redacted": "0", "blocked": "2", "no verdict": "1"}
    latency = await page.get_by_role("img", name="Added latency").get_attribute("aria-label")
    assert latency is not None
    waits = int(metrics["extproc_added_latency_seconds_count"])
    assert f"{waits} waits on the guard" in latency
    names, values = [await page.locator(f".figures {part}").all_inner_texts() for part in ("dt", "dd b")]
    figures = dict(zip(names, values, strict=True))
    assert figures["Exchanges"] == f"{metrics['extproc_exchanges_total']:.0f}" == "11"
    assert figures["Failed open"] == f"{metrics['extproc_fail_open_total']:.0f}" == "1"
    assert figures["Blocked"] == "2"
    assert "without a verdict 1 time" in await page.get_by_role("region", name="Needs attention").inner_text()
    assert await rows(page, "Exchanges that the sidecar refused") == [["upgrade_not_inspected", "none", "1"]]
    assert await rows(page, "Detections and sessions that failed") == [["pre_call", "unreadable_answer", "1"]]
    assert await rows(page, "Legs that failed open") == [["request", "unreadable_answer", "1"]]
    assert await rows(page, "Exchanges by profile") == [["default", "11", "100 %", "2", "0", "3"]]
    assert await rows(page, "Exchanges by dialect") == [
        ["openai-chat", "7", "64 %", "2", "0", "0"],
        ["none", "3", "27 %", "0", "0", "3"],
        ["generic", "1", "9 %", "0", "0", "0"],
    ]
    ((hook, count, *times),) = await rows(page, "How long Aim took")
    assert (hook, count) == ("pre_call", f"{metrics['extproc_detection_seconds_count']:.0f}") == ("pre_call", "7")
    assert all(re.fullmatch(r"[\d.]+ m?s", each) for each in times)
    assert await rows(page, "Paths that no dialect knows") == [
        ["/internal/users/{id}/photos", "GET", "passed", "2"],
        ["/internal/users/{id}/summaries", "POST", "inspected", "1"],
        ["/{id}/{id}", "GET", "passed", "1"],
    ]


async def _tells_no_secret_and_runs_nothing(page: Page) -> None:
    for hidden in ("top-secret", "jane", "joe", "example.com"):
        assert hidden not in await page.content()
    assert await page.title() == "aim-extproc: serving"
    assert await page.locator("script").count() == 0
    assert HOSTILE in await page.get_by_role("table", name="The last blocks").inner_text()


# -- the pictures of the documentation ---------------------------------------------------------------------------


class Clock:
    """A time of day that the test controls."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def firewall(question: Question) -> Any:
    """Answer in the firewall form, with a delay."""
    (text,) = question.texts
    await asyncio.sleep(random.uniform(0.004, 0.03))
    if "card" in text:
        return anonymize(question, lambda content: content.replace("card", "[CARD_1]"))
    action, policy = next(
        ((f"{action}_action", policy) for action, word, policy in _FINDINGS if word in text), (None, None)
    )
    return {
        "analysis_result": {"policy_drill_down": {"u1": {"policy_name": policy}} if policy else {}},
        "required_action": {"action_type": action, "policy_name": policy, "detection_message": None}
        if action
        else None,
    }


_FINDINGS = (
    ("block", "ignore", "Prompt injection"),
    ("block", "password", "Secrets"),
    ("monitor", "salary", "Internal topics"),
)
_PATHS = (CHAT,) * 14 + ("/v1/messages",) * 4 + ("/internal/summarize", "/tools/7/run")
_UNREAD = ("/v1/models", "/v1/models", "/health", "/users/jane/avatar")
_PROMPTS = ("Hello",) * 14 + ("my card", "your salary", "the password", "ignore that", "a card", "one more card")


async def test_pictures_of_the_page(tmp_path: Path, aim: ScriptedAim, chromium: Browser) -> None:
    """The exchanges are real; the sidecar's clock advances a minute after each burst of them."""
    random.seed(11)
    aim.judge = firewall
    clock = Clock(1_790_000_000.0)
    profiles = {
        "default": {"failure_mode_allow": {"request": ["timeout", "unreachable"]}},
        "research": {"enforce": False, "hooks": ["moderation", "output"]},
    }
    settings = settings_for(aim.base, aim={"api": "firewall"}, profiles=profiles)
    async with AsyncExitStack() as stack:
        guard = await stack.enter_async_context(sidecar(settings))
        service = guard.service
        service.telemetry.activity = Activity(clock)
        for minute in range(MINUTES):
            clock.now += 60 if minute else 7 * 3600
            async with asyncio.TaskGroup() as group:
                for _ in range(random.randint(9, 24)):
                    group.create_task(ask(guard.port, random.choice(_PROMPTS), random.choice(_PATHS)))
                if minute % 4 == 0:
                    group.create_task(visit(guard.port, CHAT, ("upgrade", "websocket")))
                group.create_task(visit(guard.port, random.choice(_UNREAD)))
        for _ in range(3):
            stream = await stack.enter_async_context(envoy_stream(f"127.0.0.1:{guard.port}"))
            await stream.request_headers()
            await stream.read()
            await stream.body("request", json.dumps(chat_request("Hello", stream=True)).encode())
            await stream.read()
        readiness = Readiness(needs_aim=False)
        readiness.enter(Phase.SERVING)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        address = Address(host="127.0.0.1", port=free_port())
        app = admin_app(Instance(service, None, group, readiness))
        await stack.enter_async_context(listening(app, address))
        for size in SIZES:
            async with opened(chromium, f"http://{address}", size, query="") as page:
                shown = Image.open(BytesIO(await page.screenshot(full_page=size == "desktop")))
                picture = (IMAGES if os.environ.get("SCREENSHOTS") else tmp_path) / f"status-{size}.png"
                shown.convert("RGB").quantize(method=Image.Quantize.MAXCOVERAGE).save(picture, optimize=True)
                assert 10_000 < picture.stat().st_size < 150_000
