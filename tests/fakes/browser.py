"""A headless Chromium, where this machine has one."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, async_playwright

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

needs_browser = pytest.mark.skipif(BINARY is None, reason="no Chromium here: apt-get install chromium")
"""Mark of a test that looks at a page as a person does."""

# Nothing but what the test asks for: no sandbox inside a container, no request of the browser's own.
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Run the browser while the context lasts."""
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=BINARY, args=list(_FLAGS))
        try:
            yield started
        finally:
            await started.close()
