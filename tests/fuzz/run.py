"""Coverage-guided fuzzing of every surface, with atheris (libFuzzer): `make fuzz`.

Each surface is fuzzed in a process of its own, for its share of the time. The corpus is kept in `.fuzz`, so that the
next run begins where this one ended. An input that breaks a promise, or takes too much time or memory, is kept in
`tests/fuzz/crashes/<surface>`, where `tests/fuzz/test_crashes.py` finds it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CRASHES = ROOT / "tests/fuzz/crashes"
CORPUS = ROOT / ".fuzz"
KEPT = ROOT / "tests/fuzz/corpus"
TOKENS = ROOT / "tests/fuzz/tokens.dict"

_INPUT_BYTES = 16_384
_INPUT_SECONDS = 10
_MEMORY_MIB = 1024


def main() -> int:
    """Fuzz the surfaces one after the other; return the number of surfaces that broke a promise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("surfaces", nargs="*", help="some of the surfaces; all by default")
    parser.add_argument("--seconds", type=int, default=300, help="for all together (%(default)s)")
    options = parser.parse_args()

    from tests.fuzz import seeds
    from tests.fuzz.surfaces import SURFACES

    wanted = options.surfaces or list(SURFACES)
    print(f"{'surface':12} {'inputs':>10} {'edges':>7} {'corpus':>7} {'MiB':>5}  finding", flush=True)
    findings = 0
    for surface in wanted:
        seeds.write(CORPUS / surface / "seeds", surface)
        findings += _run(surface, max(options.seconds // len(wanted), 1))
    return min(findings, 1)


def _run(surface: str, seconds: int) -> bool:
    """Fuzz one surface in a process of its own; print its figures; return whether it broke a promise."""
    folders = [CORPUS / surface / "found", CORPUS / surface / "seeds", CRASHES / surface, KEPT / surface]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    before = set(folders[2].iterdir())
    process = subprocess.run(
        [
            *(sys.executable, "-c", f"from tests.fuzz.run import fuzz; fuzz({surface!r})"),
            *(f"-max_total_time={seconds}", f"-timeout={_INPUT_SECONDS}", f"-rss_limit_mb={_MEMORY_MIB}"),
            *(
                f"-max_len={_INPUT_BYTES}",
                "-len_control=0",
                f"-dict={TOKENS}",
                f"-artifact_prefix={folders[2]}/",
                "-print_final_stats=1",
            ),
            *map(str, folders),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds + 300,
        check=False,
    )
    found = sorted(path.name for path in set(folders[2].iterdir()) - before)
    if not before and not found:
        folders[2].rmdir()
    text = process.stderr + process.stdout
    edges, corpus = (re.findall(r"cov: (\d+) ft: \d+ corp: (\d+)", text) or [("?", "?")])[-1]
    inputs, memory = (
        (re.findall(rf"stat::{name}:\s+(\d+)", text) or ["?"])[-1]
        for name in ("number_of_executed_units", "peak_rss_mb")
    )
    broken = process.returncode != 0
    finding = ", ".join(found) or (f"exit {process.returncode}" if broken else "none")
    print(f"{surface:12} {inputs:>10} {edges:>7} {corpus:>7} {memory:>5}  {finding}", flush=True)
    if broken:
        print(text.partition("=== Uncaught Python exception: ===")[2] or text[-4000:], file=sys.stderr)
    return broken


def fuzz(surface: str) -> None:
    """Fuzz one surface with libFuzzer's command-line arguments. The process ends afterwards."""
    import atheris

    with atheris.instrument_imports(include=["extproc"]):
        from tests.fuzz.surfaces import SURFACES
    from tests.fuzz.mutation import mutate

    def mutated(data: bytes, most: int, seed: int) -> bytes:
        """Change bytes or, equally often, values of JSON: changed bytes would seldom leave valid JSON."""
        changed = mutate(data, most, seed) if seed % 2 else None
        return atheris.Mutate(data, most) if changed is None else changed

    atheris.Setup(sys.argv, SURFACES[surface], custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
