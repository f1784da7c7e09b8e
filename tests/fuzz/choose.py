"""The kept corpus: small inputs of every surface that together reach the code which fuzzing has reached.

`python -m tests.fuzz.choose` chooses them anew, among those kept before, the inputs that `make fuzz` found in `.fuzz`,
the seeds and mutations of them. A smaller input is preferred; an input is kept if it takes a step between two lines of
`extproc` that no kept input takes. `tests/fuzz/test_crashes.py` replays the corpus, and `make fuzz` begins with it.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.fuzz.mutation import mutate
from tests.fuzz.seeds import seeds
from tests.fuzz.surfaces import SURFACES

ROOT = Path(__file__).resolve().parents[2]
KEPT = Path(__file__).with_name("corpus")
FOUND = ROOT / ".fuzz"

INPUT_BYTES = 2048
"""The largest input that is kept."""
INPUTS = 32
"""The most inputs that are kept of a surface."""

Step = tuple[CodeType, int, int]


def kept(surface: str) -> list[Path]:
    """Return the files of a surface."""
    return sorted((KEPT / surface).iterdir())


def steps(surface: Callable[[bytes], None], data: bytes) -> set[Step]:
    """Run a surface with an input; return the steps from line to line that the code of `extproc` took."""
    taken: set[Step] = set()
    package = str(ROOT / "extproc")

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(package):
            return None
        before = code.co_firstlineno

        def local(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal before
            if event == "line":
                taken.add((code, before, frame.f_lineno))
                before = frame.f_lineno
            return local

        return local if event == "call" else None

    sys.settrace(trace)
    try:
        surface(data)
    finally:
        sys.settrace(None)
    return taken


def _candidates(surface: str, mutations: int) -> Iterator[bytes]:
    """Yield inputs: the kept ones first, then those that fuzzing found, seeds, and mutations of all of them."""
    known: dict[bytes, None] = {}
    folders = [KEPT / surface, FOUND / surface / "found"]
    for file in (file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir())):
        known[file.read_bytes()] = None
    known |= dict.fromkeys(seeds(surface))
    small = [data for data in known if len(data) <= INPUT_BYTES]
    yield from small
    chance = random.Random(surface)
    for number in range(mutations):
        changed = mutate(chance.choice(small), INPUT_BYTES, number)
        if changed is None:
            data = bytearray(chance.choice(small))
            for _ in range(chance.randrange(1, 6)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            changed = bytes(data)
        yield changed


def choose(surface: str, mutations: int) -> list[bytes]:
    """Return the inputs of a surface that are worth keeping, those first that add most."""
    found = [(data, steps(SURFACES[surface], data)) for data in _candidates(surface, mutations)]
    chosen: list[bytes] = []
    reached: set[Step] = set()
    while found and len(chosen) < INPUTS:
        data, taken = max(found, key=lambda each: (len(each[1] - reached), -len(each[0])))
        if taken <= reached:
            break
        reached |= taken
        chosen.append(data)
        found = [each for each in found if not each[1] <= reached]
    return chosen


def main() -> None:
    """Write the corpus of the surfaces that are named, else of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("surfaces", nargs="*")
    parser.add_argument("--mutations", type=int, default=400, help="to try for each surface (%(default)s)")
    options = parser.parse_args()
    for surface in options.surfaces or SURFACES:
        folder = KEPT / surface
        chosen = choose(surface, options.mutations)
        with suppress(FileNotFoundError):
            for file in folder.iterdir():
                file.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        for data in chosen:
            (folder / hashlib.sha1(data).hexdigest()[:16]).write_bytes(data)
        print(f"{surface:12} {len(chosen):3} inputs, {sum(map(len, chosen)):6} bytes", flush=True)


if __name__ == "__main__":
    main()
