"""A headless Chromium, if it is installed."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, async_playwright

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

needs_browser = pytest.mark.skipif(BINARY is None, reason="no Chromium here: apt-get install chromium")
"""The mark of tests that look at a page in a browser."""

# No sandbox inside a container, and no requests of the browser's own.
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
    """Run the browser within the context."""
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=BINARY, args=list(_FLAGS))
        try:
            yield started
        finally:
            await started.close()
