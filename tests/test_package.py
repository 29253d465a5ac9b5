"""The wheel and the source distribution hold all that a user of the library needs, and install."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from tiny import Trained

ROOT = Path(__file__).parents[1]
PACKAGES = ("lrf_core", "components", "pipelines")


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel, which is built from the source distribution, and that."""
    folder = tmp_path_factory.mktemp("distributions")
    source = folder / "source"
    names = ["pyproject.toml", "README.md", "LICENSE", *PACKAGES]
    for name in names:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        source.mkdir(exist_ok=True)
        copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source],
        check=True,
        capture_output=True,
    )
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def tracked_files() -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return {name for name in listed.stdout.split() if Path(name).suffix in PACKAGED}


PACKAGED = {".py", ".pyi", ".typed", ".j2"}


def test_both_distributions_hold_every_module_and_template(
    distributions: tuple[Path, Path],
) -> None:
    wheel, sdist = distributions
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    expected = tracked_files() | {"pipelines/compress.yaml", "lrf_core/py.typed"}
    assert expected <= in_wheel
    assert expected | {"LICENSE", "README.md"} <= in_sdist
    assert not [name for name in in_wheel if name.startswith(("tests", "benchmarks"))]


def test_the_wheel_runs_the_library_example_and_the_command(
    distributions: tuple[Path, Path], trained: Trained, tmp_path: Path
) -> None:
    python = empty_environment(tmp_path / "venv")
    # The dependencies of this environment, without its own lrf.
    (site_packages(python) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    install(python, "--no-deps", "--no-index", distributions[0])
    check_installed(python, trained, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_installs_with_its_dependencies_into_an_empty_environment(
    distributions: tuple[Path, Path], trained: Trained, tmp_path: Path
) -> None:
    python = empty_environment(tmp_path / "venv")
    install(python, "-r", ROOT / "requirements.lock")
    install(python, distributions[0])
    check_installed(python, trained, tmp_path)


def empty_environment(folder: Path) -> Path:
    venv.create(folder, with_pip=False)
    return folder / "bin" / "python"


def site_packages(python: Path) -> Path:
    (folder,) = python.parents[1].glob("lib/python*/site-packages")
    return folder


def install(python: Path, *what: object) -> None:
    # The pip of the interpreter that this environment was made from: a venv's own may be missing.
    base = Path(sys.base_prefix) / "bin" / "python3"
    command = [base, "-m", "pip", "--python", python, "install", "--quiet", *what]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


def check_installed(python: Path, trained: Trained, folder: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    (example,) = [block for block in blocks if "import lrf_core" in block]
    shutil.copy(trained.model_file, folder / "model.keras")
    shutil.copy(trained.data_file, folder / "data.npz")
    (folder / "example.py").write_text(example)
    bare = {"PATH": os.environ["PATH"], "HOME": str(folder)}

    def output_of(*command: object) -> str:
        ended = subprocess.run(
            [str(part) for part in command], cwd=folder, env=bare, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    where = output_of(python, "-c", "import lrf_core; print(lrf_core.__file__)")
    assert Path(where.strip()).is_relative_to(python.parents[1])
    assert "parameters" in output_of(python, "example.py")
    assert "compress" in output_of(python.parent / "lrf", "--help")
