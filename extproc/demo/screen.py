"""The demo's output: coloured panels in a terminal, plain ASCII lines in a file.

Texts are never read as rich markup, and control characters are shown as escapes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from extproc.demo.chain import Chain
from extproc.demo.client import Answer
from extproc.demo.plan import Plan
from extproc.demo.scenes import SCENES, Check, Scene, Take

_SHOWN = 400
"""How many characters of a text or of a list of chunks are shown."""

_FOUND = 160
"""How many characters of an unexpected result are shown."""

_BESIDE_ASKED = 36
"""Columns that a line with a text for Aim needs besides the text."""

_WIDEST = 110


class Screen:
    """Prints to standard output, and failures to standard error."""

    def __init__(self) -> None:
        """Read the capabilities of the terminal, if there is one."""
        self._out = Console(highlight=False, emoji=False, markup=False)
        self._err = Console(highlight=False, emoji=False, markup=False, stderr=True)
        # A file needs no frame and only ASCII.
        self._is_framed = self._out.is_terminal and not self._out.options.ascii_only
        self._width = min(self._out.width, _WIDEST)

    def opening(self, plan: Plan) -> None:
        """Show what will run."""
        aim = "the local stand-in for Aim: simple patterns, not Aim's detection"
        if plan.account is not None:
            aim = f"the real Aim: {plan.account.aim.base} (aim.api {plan.account.aim.api})"
        model = "a demo model with canned answers"
        if plan.upstream is not None:
            model = plan.upstream.url if plan.is_gateway else f"{plan.upstream.url} (model {plan.model})"
        rows = _rows()
        rows.add_row("path", Text("client -> Envoy -> sidecar, which asks Aim -> Envoy -> model, and back"))
        rows.add_row("Aim", self._text(aim))
        rows.add_row("model", self._text(model))
        self._block("aim-extproc demo", rows, "cyan")
        if not plan.is_enforced and not plan.is_gateway:
            self._line(
                "Verdicts are not checked here, because they depend on an account's policies and a provider's answers. "
                "Each scene only has to get an answer.",
                "yellow",
            )
        self._line("Starting Aim, model, sidecar and Envoy ..." if plan.account is None else "Starting ...", "dim")

    def started(self, seconds: float) -> None:
        """Show that all parts are up."""
        self._line(f"Everything is up after {seconds:.1f} s.", "dim")
        if not self._is_framed:
            self._out.print()

    def scene(self, number: int, scene: Scene, take: Take, checks: Sequence[Check], *, is_enforced: bool) -> None:
        """Show one scene: its purpose, what each part saw, and the checks."""
        answer, generation = take.answer, take.generation
        rows = _rows()
        rows.add_row("prompt", self._quoted(scene.prompt))
        if generation is not None:
            if generation.prompt != scene.prompt:
                rows.add_row("model got", self._quoted(generation.prompt))
            rows.add_row("model said", self._chunks(generation.chunks, is_stream=answer.is_stream))
            if not generation.is_complete:
                done, planned = len(generation.chunks), len(generation.planned)
                rows.add_row("", Text(f"stopped after {done} of {planned} chunks", style="dim"))
        rows.add_row("client got", self._got(answer))
        for position, detection in enumerate(take.detections):
            row = Text(f"{detection.hook:<8}  ")
            row.append(f"{detection.action:<9}", _ACTION_STYLES.get(detection.action, ""))
            row.append(f"  {detection.milliseconds:.1f} ms", "dim")
            row.append(f"  {', '.join(detection.policies)}" if detection.policies else "", "dim")
            rows.add_row("" if position else "Aim", row)
            if detection.text:
                rows.add_row(
                    "",
                    Text("  asked about ", style="dim")
                    + self._quoted(detection.text, max(self._width - _BESIDE_ASKED, 1)),
                )
        rows.add_row("times", Text(_times(answer)))
        verdicts = _rows()
        for check in checks:
            if check.holds:
                verdicts.add_row(Text("ok", style="bold green"), self._text(check.claim))
            else:
                wrong = self._text(f"{check.claim} -- found: {check.found[:_FOUND]}", "bold red")
                verdicts.add_row(Text("WRONG", style="bold red"), wrong)
        shows = Padding(Text(f"{'' if is_enforced else 'Expected: '}{scene.shows}", style="italic"), (0, 0, 1, 0))
        fine = all(check.holds for check in checks)
        title = f"{number}/{len(SCENES)}  {scene.title}"
        self._block(title, Group(shows, rows, Text(), verdicts), "green" if fine else "red")

    def summary(self, wrong: int, seconds: float) -> None:
        """Show how many scenes failed."""
        if wrong:
            self._line(f"{wrong} of {len(SCENES)} scenes went WRONG; see above.", "bold red")
        else:
            self._line(f"All {len(SCENES)} scenes went as expected, in {seconds:.1f} s.", "bold green")

    def invitation(self, chain: Chain) -> None:
        """Show the addresses of all parts, and a command to try; for a gateway, what to set in a client."""
        rows = _rows()
        rows.add_row("Envoy", self._text(chain.chat_url))
        rows.add_row("Envoy's admin", self._text(f"{chain.envoy.admin}/"))
        rows.add_row("Envoy's bootstrap", self._text(str(chain.envoy.bootstrap)))
        rows.add_row("status page", self._text(f"{chain.sidecar_admin}/"))
        rows.add_row("metrics", self._text(f"{chain.sidecar_admin}/metrics"))
        rows.add_row("Aim", self._text(chain.aim))
        rows.add_row("model", self._text(chain.model))
        self._block("A guarded gateway" if chain.plan.is_gateway else "Still running", rows, "cyan")
        if chain.plan.is_gateway:
            self._client_settings(chain)
        if chain.plan.upstream is None or not chain.plan.is_gateway:
            self._curl(chain)
        self._line("Press Ctrl-C to stop.")

    def _client_settings(self, chain: Chain) -> None:
        self._line(
            f"Requests to {chain.envoy.url}/... go to {chain.model}/... with the client's own key. Set in your client:"
        )
        self._out.print()
        for name, url in (("OPENAI_BASE_URL", chain.base_url), ("ANTHROPIC_BASE_URL", chain.envoy.url)):
            self._out.print(Text(f"export {name}={url}", style="bold"), soft_wrap=True)
        self._out.print()

    def _curl(self, chain: Chain) -> None:
        self._line('Try this; add "stream": true for a streamed answer:')
        headers = " -H 'content-type: application/json'"
        if chain.plan.authorization:
            headers += ' \\\n  -H "authorization: Bearer $OPENAI_API_KEY"'
        body = '{"model": "%s", "messages": [{"role": "user",\n  "content": "I am bob@example.com"}]}'
        curl = f"curl -iN {chain.chat_url} \\\n {headers} \\\n  -d '{body % chain.plan.model}'"
        self._out.print()
        # For copying: no frame and no extra line breaks.
        self._out.print(Text(curl, style="bold"), soft_wrap=True)
        self._out.print()

    def farewell(self) -> None:
        """Show that everything has stopped."""
        self._line("Everything is stopped.", "dim")

    def failure(self, message: str) -> None:
        """Print to standard error why the demo cannot continue."""
        text = "\n".join(str(self._text(line)) for line in message.splitlines())
        self._err.print(Text(f"demo: {text}", style="bold red"), soft_wrap=True)

    def _block(self, title: str, content: RenderableType, colour: str) -> None:
        if self._is_framed:
            heading = Text(f" {title} ", style=f"bold {colour}")
            self._out.print(
                Panel(content, title=heading, title_align="left", border_style=colour, box=box.ROUNDED),
                width=self._width,
            )
        else:
            with self._out.capture() as captured:
                self._out.print(Text(f"=== {title}\n", style="bold"))
                self._out.print(Padding(content, (0, 0, 0, 2)), width=self._width)
                self._out.print()
            # A table pads its lines with spaces.
            lines = captured.get().splitlines()
            self._out.out("\n".join(line.rstrip() for line in lines), highlight=False)

    def _line(self, text: str, style: str = "") -> None:
        self._out.print(self._text(text, style), width=self._width)

    def _got(self, answer: Answer) -> Text:
        got = Text(f"HTTP {answer.status}  " if answer.status else "")
        if answer.problem:
            got.append_text(self._text(answer.problem, "bold red"))
            return got
        got.append_text(self._chunks(answer.chunks, is_stream=answer.is_stream))
        if answer.error is not None:
            got.append("\nerror " if answer.is_stream and answer.chunks else "error ", "yellow")
            got.append_text(self._text(str(answer.error.get("code")), "yellow"))
            got.append_text(self._text(f": {answer.error.get('message')}"))
        if answer.is_stream:
            got.append("  [DONE]" if answer.is_ended else "  (no [DONE])", "dim")
        return got

    def _chunks(self, chunks: Sequence[str], *, is_stream: bool) -> Text:
        """Return the chunks of a stream one by one, or the text of a JSON answer."""
        if not chunks:
            return Text()
        if not is_stream:
            return self._quoted("".join(chunks))
        shown = Text()
        for position, chunk in enumerate(chunks):
            if len(shown) > _SHOWN:
                return shown.append(f" | ... {len(chunks) - position} more", "dim")
            shown.append(" | " if position else "", "dim")
            shown.append_text(self._quoted(chunk))
        return shown

    def _quoted(self, text: str, limit: int = _SHOWN) -> Text:
        shown = self._text(text if len(text) <= limit else f"{text[:limit]}...")
        shown.highlight_regex(_PLACEHOLDER, "bold magenta")
        return Text('"') + shown + Text('"')

    def _text(self, text: str, style: str = "") -> Text:
        """Return `text` with escapes for characters that the output cannot or should not show."""
        encoding = self._out.encoding if self._is_framed else "ascii"
        printable = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
        return Text(printable.encode(encoding, "backslashreplace").decode(encoding), style=style)


_PLACEHOLDER = re.compile(r"\[[A-Z_]+_\d+\]")
_ACTION_STYLES = {"allow": "green", "monitor": "cyan", "anonymize": "magenta", "block": "yellow"}


def _rows() -> Table:
    rows = Table.grid(padding=(0, 2, 0, 0))
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column(overflow="fold")
    return rows


def _times(answer: Answer) -> str:
    first = "" if answer.first_ms is None else f"first text after {answer.first_ms:.0f} ms, "
    return f"{first}all after {answer.total_ms:.0f} ms"
