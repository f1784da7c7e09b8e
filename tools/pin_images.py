"""Pin the images of Dockerfiles and compose files: add to each the digest that its tag has now, for all platforms.

    python tools/pin_images.py FILE...

Asks the registry through `docker buildx imagetools inspect`. Images that these files build themselves, and stages of a
Dockerfile, stay as they are.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

IMAGE = re.compile(
    r"^(?P<before>FROM +(?:--\S+ +)*|\s+image: )(?P<name>[^\s@]+)(?:@(?P<digest>sha256:[0-9a-f]{64}))?(?=\s|$)",
    re.MULTILINE,
)
"""An image with an optional digest, in a line of a Dockerfile or of a compose file."""

_OURS = re.compile(r"aim-extproc\b")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@cache
def current_digest(image: str) -> str:
    """Return the digest of `image` in its registry. Raises CalledProcessError, ValueError."""
    command = ["docker", "buildx", "imagetools", "inspect", image, "--format", "{{.Manifest.Digest}}"]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()  # noqa: S603
    if not _DIGEST.fullmatch(answer):
        raise ValueError(f"docker names no digest of {image}: {answer!r}")
    return answer


def pinned(text: str, digest_of: Callable[[str], str] = current_digest) -> str:
    """Return a Dockerfile or compose file with the digest of each image that comes from a registry."""
    stages = set(re.findall(r"^FROM .* AS (\S+)", text, re.MULTILINE))

    def pin(found: re.Match[str]) -> str:
        name = found["name"]
        if name in stages or _OURS.match(name):
            return found[0]
        return f"{found['before']}{name}@{digest_of(name)}"

    return IMAGE.sub(pin, text)


def main() -> None:
    """Pin the files that the command line names."""
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(pinned(path.read_text()))


if __name__ == "__main__":
    main()
