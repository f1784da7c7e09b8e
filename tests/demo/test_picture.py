"""The demo's picture in the documentation: its output in a terminal, two scenes, as SVG.

With SCREENSHOTS=1 (`make screenshots`) the picture is written to docs/images, else to the test's own folder.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from tests.fakes.envoy import needs_envoy
from tests.fakes.process import environment

pytestmark = [*needs_envoy, pytest.mark.more]

COLUMNS = 96
IMAGES = Path(__file__).parents[2] / "docs" / "images"
FONTS = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"


async def printed() -> str:
    """Return the demo's output in a terminal with colours."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "extproc", "demo", "--once"),
        stdout=asyncio.subprocess.PIPE,
        env=environment(FORCE_COLOR="1", COLUMNS=str(COLUMNS), PYTHONIOENCODING="utf-8", TERM="xterm-256color"),
    )
    out, _ = await asyncio.wait_for(process.communicate(), 100)
    assert process.returncode == 0
    return out.decode()


async def test_two_scenes(tmp_path: Path) -> None:
    text = Text.from_ansi(await printed())
    panels = re.findall(r"^╭.*?^╰[^\n]*$", text.plain, re.DOTALL | re.MULTILINE)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text("$ make demo ARGS=--once"))
    for panel in (panels[2], panels[4]):
        begin = text.plain.index(panel)
        console.print(text[begin : begin + len(panel)])
    picture = (IMAGES if os.environ.get("SCREENSHOTS") else tmp_path) / "demo.svg"
    drawn = console.export_svg(title="aim-extproc demo", unique_id="demo")
    # Rich's own font would be loaded from another host. Renderers other than browsers trim non-breaking spaces by
    # default, and ignore textLength: this font size makes their columns as wide as Rich's.
    drawn = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL).replace("Fira Code, monospace", FONTS)
    drawn = drawn.replace('<svg class="rich-terminal"', '<svg xml:space="preserve" class="rich-terminal"')
    drawn = re.sub(r"font-size: 20px", "font-size: 20.26px", drawn)
    picture.write_text(drawn)
    assert "A&#160;blocked&#160;prompt" in drawn
    assert "[EMAIL_1]" in drawn
    assert re.findall(r"https?://(?!www\.w3\.org/|www\.textualize\.io)", drawn) == []
    assert len(drawn) < 60_000
