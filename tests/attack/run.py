"""Attacks a sidecar with small scripts, one after the other, and prints which promises hold.

    python -m tests.attack.run [--quick] [WORD ...]

With words, only the attacks whose name has one of them; with --quick, every fourth attack. The status is 1 if a promise
was broken. Each attack has a time limit, so the run ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence

from tests.attack import documents, http, lying_aim, ports
from tests.attack.attack import Attack
from tests.attack.target import SECONDS, Target, target

ATTACKS: Sequence[Attack] = [*documents.ATTACKS, *http.ATTACKS, *ports.ATTACKS, *lying_aim.ATTACKS]


async def attack(it: Attack, victim: Target) -> str:
    """Return why the promise, or one that every attack tries to break, does not hold; an empty text if all hold."""
    try:
        victim.reset()
        async with asyncio.timeout(2 * SECONDS):
            await it.run(victim)
            victim.reset()
            await victim.serves()
            await victim.answers_probes()
            await victim.settles()
    except TimeoutError:
        return "it takes too long"
    except Exception as error:  # the others are to be tried all the same
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return ""


async def run(attacks: Sequence[Attack]) -> int:
    """Perform the attacks; print a row for each and a summary; return how many promises were broken."""
    began = time.monotonic()
    broken: list[str] = []
    async with target() as victim:
        for it in attacks:
            problem = await attack(it, victim)
            print(f"{'BROKEN' if problem else 'holds':6}  {it.name:58}  {problem or it.promise}", flush=True)
            if problem:
                broken.append(it.name)
    print(f"{len(attacks) - len(broken)} of {len(attacks)} promises hold, {time.monotonic() - began:.0f} s")
    return len(broken)


def chosen(words: Sequence[str], *, is_quick: bool) -> Sequence[Attack]:
    """Return the attacks whose name has one of `words`, or all without words; every fourth of them if `is_quick`."""
    found = [it for it in ATTACKS if not words or any(word in it.name for word in words)]
    return found[::4] if is_quick else found


def main() -> int:
    """Read the arguments and attack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    attacks = chosen(arguments.words, is_quick=arguments.quick)
    if not attacks:
        parser.error("no attack has such a name")
    return min(asyncio.run(run(attacks)), 1)


if __name__ == "__main__":
    sys.exit(main())
