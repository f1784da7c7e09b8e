"""Breaks the core on purpose, and checks that the test of each invariant notices.

    make mutants

Each mutant is one edit of one line, made in a copy of the code. Its invariants are those of docs/architecture.md. A
test that stays green with a mutant cannot fail for its reason, which is a defect of the test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STREAM = "tests/core/test_stream_invariants.py"
MACHINE = "tests/core/test_exchange_machine.py"
SPLITS = "tests/core/test_redaction_splits.py"

EXAMPLES = "1000"
"""The examples of each property. The seed is fixed, so that every run gives the same result."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One edit, and the test that must turn red: `old` stands once in `file` and becomes `new`."""

    invariant: int
    what: str
    file: str
    old: str
    new: str
    test: str


MUTANTS = (
    Mutant(
        1,
        "every failure policy opens (streams)",
        "extproc/core/context.py",
        "if self.inspection.policy.failure_mode_allow.opens(leg, reason):",
        "if True:",
        STREAM,
    ),
    Mutant(
        1,
        "every failure policy opens (whole bodies)",
        "extproc/core/context.py",
        "if self.inspection.policy.failure_mode_allow.opens(leg, reason):",
        "if True:",
        MACHINE,
    ),
    Mutant(
        1,
        "events leave before their text is verified",
        "extproc/core/release_queue.py",
        "if event.waiting or not self.is_head_open:",
        "if not self.is_head_open:",
        STREAM,
    ),
    Mutant(
        1,
        "what Aim has rewritten leaves as it came if the policy opens",
        "extproc/core/release_queue.py",
        "for piece in (self._writer.written(event), event.more)",
        "for piece in (event.unit.raw, event.more)",
        STREAM,
    ),
    Mutant(
        1,
        "what was joined to a rewritten text leaves again if the policy opens",
        "extproc/core/progress.py",
        "        self._ahead += count - owed",
        "        self._ahead += 0",
        STREAM,
    ),
    Mutant(
        1,
        "a text whose place was taken is lost if the policy opens",
        "extproc/core/verification.py",
        "if owed:",
        "if False:",
        STREAM,
    ),
    Mutant(
        1,
        "a blocked request goes on",
        "extproc/core/request_leg.py",
        "self.block.begin(PRE_CALL, outcome)",
        "self._release(None)",
        MACHINE,
    ),
    Mutant(
        1,
        "the gate of moderation is open",
        "extproc/core/context.py",
        "self.gate.close()",
        "pass",
        MACHINE,
    ),
    Mutant(
        2,
        "an answer that nothing changed loses its last byte",
        "extproc/core/held_answer.py",
        "body = original if rewritten is None else rewritten",
        "body = original[:-1] if rewritten is None else rewritten",
        MACHINE,
    ),
    Mutant(
        2,
        "an event that nothing changed is written anew",
        "extproc/core/event_writer.py",
        "return event.unit.raw if rewritten is None else",
        'return b"data: " + (event.unit.data or "").encode() + b"\\n\\n" if rewritten is None else',
        STREAM,
    ),
    Mutant(
        3,
        "the newest event leaves first",
        "extproc/core/release_queue.py",
        "event = self._events.popleft()",
        "event = self._events.pop()",
        STREAM,
    ),
    Mutant(
        4,
        "a rewritten text counts as verified",
        "extproc/core/verification.py",
        "                self._rewrite(waiting, new)",
        "                self._verify(waiting)",
        STREAM,
    ),
    Mutant(
        4,
        "a text equal to a later one drops those before it",
        "extproc/core/matching.py",
        "        if waits:",
        "        if mark is not None and (mark := next((t.mark for t in waiting if t.text == text), 0)):",
        STREAM,
    ),
    Mutant(
        5,
        "an early done of Aim ends the stream in good order",
        "extproc/core/response_stream.py",
        "(_S.SUBMITTING, SessionDone): ResponseStream._on_early_done",
        "(_S.SUBMITTING, SessionDone): ResponseStream._on_done",
        STREAM,
    ),
    Mutant(
        6,
        "a silent Aim is waited for without end",
        "extproc/core/deadlines.py",
        "due.setdefault(SILENCE, now + self._verdict)",
        "pass",
        STREAM,
    ),
    Mutant(
        6,
        "the session of a stream that has ended stays open",
        "extproc/core/stream_session.py",
        "self._context.emit(CloseSession(self.number))",
        "pass",
        STREAM,
    ),
    Mutant(
        7,
        "two exchanges share what waits for Aim",
        "extproc/core/waiting_texts.py",
        "self._lanes: dict[int, Lane[HeldText]] = {}",
        'self._lanes: dict[int, Lane[HeldText]] = globals().setdefault("_shared", {})',
        STREAM,
    ),
    Mutant(
        8,
        "what is withheld does not count as held",
        "extproc/core/release_queue.py",
        "        self.held += size",
        "        self.held += 0 * size",
        STREAM,
    ),
    Mutant(
        8,
        "what was released still counts as held",
        "extproc/core/release_queue.py",
        "self.held -= event.cost",
        "self.held -= 0",
        STREAM,
    ),
    Mutant(
        9,
        "a repeat keeps the text that its deltas lost",
        "extproc/core/event_writer.py",
        "if running.is_rewritten:",
        "if False:",
        SPLITS,
    ),
)


def survives(mutant: Mutant, folder: Path) -> bool:
    """Return whether the mutant's test stays green in `folder`, a copy of the code. The copy is left as it was."""
    path = folder / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        sys.exit(f"{mutant.file} has {mutant.old!r} {text.count(mutant.old)} times, not once: update the mutant")
    path.write_text(text.replace(mutant.old, mutant.new))
    try:
        # A failing example is not shrunk: it is found, and that is enough.
        hypothesis = ["--hypothesis-seed=1", "--hypothesis-profile=unshrunk"]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", *hypothesis, mutant.test]
        environment = {**os.environ, "EXAMPLES": EXAMPLES}
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    finally:
        path.write_text(text)
    if result.returncode not in (0, 1):
        sys.exit(f"pytest could not run with {mutant.what!r}:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    return result.returncode == 0


def main() -> int:
    """Try every mutant; return 1 if one survives."""
    survivors = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("extproc", "tests", "pyproject.toml"):
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, folder / part)
        for mutant in MUTANTS:
            is_alive = survives(mutant, folder)
            survivors += is_alive
            print(f"{'SURVIVED' if is_alive else 'caught':8}  invariant {mutant.invariant}: {mutant.what}", flush=True)
    print(f"{len(MUTANTS) - survivors} of {len(MUTANTS)} mutants caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
