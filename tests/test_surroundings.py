"""Commands in surroundings that are not as usual: streams, languages, users, folders, clocks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from tiny import Trained, tiny_arrays

ROOT = Path(__file__).parents[1]
QUICK = ("--epochs", "1", "--params-reduction", "0.2", "--max-accuracy-drop", "90")
LIST = ("releases", "list", "--from")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def lrf(
    arguments: Sequence[object],
    environment: Mapping[str, str | None] | None = None,
    redirected: str = "",
    before: Sequence[str] = (),
    cwd: Path = ROOT,
) -> Ended:
    """Run the command line. Args: redirected: for a shell; before: a command that runs it."""
    settings = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    command = [sys.executable, "-m", "lrf_core", *map(str, arguments)]
    ended = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$@" {redirected}', "-", *before, *command],
        env={name: value for name, value in settings.items() if value is not None},
        cwd=cwd,
        capture_output=True,
        check=False,
    )
    said = Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())
    assert "Traceback" not in said.err
    return said


ASCII = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0"}


def as_unknown_user() -> list[str]:
    """What runs a command as a user without an entry in /etc/passwd."""
    command = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
    tried = shutil.which("unshare") and subprocess.run([*command, "true"], check=False)
    if not tried or tried.returncode:
        pytest.skip("needs a kernel that lets users make user namespaces")
    return command


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_a_stream_may_be_closed(closed: str, tmp_path: Path) -> None:
    assert lrf([*LIST, tmp_path], redirected=closed).code == 0


def test_a_reader_may_leave_early(tmp_path: Path) -> None:
    assert lrf(["compress", "--help"], redirected="| true").err == ""
    assert lrf([*LIST, tmp_path], redirected="| true").err == ""


def test_an_output_in_ascii_escapes_what_it_cannot_express(tmp_path: Path) -> None:
    listed = lrf([*LIST, tmp_path], ASCII)
    assert (listed.code, listed.out.isascii()) == (0, True)
    failed = lrf(["compress", "nó.keras", "--data", tmp_path / "é.npz"], ASCII)
    assert (failed.code, failed.err.isascii()) == (2, True)


def test_names_of_flags_and_files_do_not_steer_the_terminal(tmp_path: Path) -> None:
    for name in ("\x1b[31mred", "a\rb", "\x1b]8;;http://x\x07link", "\u202egnp", "a\nlrf: done"):
        for arguments in ([f"--{name}"], ["releases", "show", name, "--from", tmp_path]):
            ended = lrf(arguments)
            assert ended.code == 2
            assert all(line.isprintable() for line in ended.err.split("\n")), ended.err
            assert "\nlrf: done" not in ended.err


def test_a_user_without_a_home_is_told_what_to_set(tmp_path: Path) -> None:
    unknown = as_unknown_user()
    nobody = dict.fromkeys(("HOME", "USER", "LOGNAME", "LRF_CACHE", "XDG_CACHE_HOME"))
    script = (
        "from lrf_core.storage.cache import cache_folder\n"
        "from lrf_core.errors import StorageError\n"
        "try:\n    cache_folder()\nexcept StorageError as error:\n    print(error)"
    )
    settings = {key: value for key, value in os.environ.items() if key not in nobody}
    said = subprocess.run(
        [*unknown, sys.executable, "-c", script],
        env={**settings, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "set HOME, or LRF_CACHE" in said.stdout, said.stderr
    assert lrf([*LIST, tmp_path], nobody, before=unknown).code == 0


HOSTILE = "[red]x\x1b[2J\u202e"


def _hostile_images(folder: Path) -> Path:
    """Images in folders of classes, of which one has a name that would steer a terminal."""
    samples, labels = tiny_arrays(128)
    for index, (image, label) in enumerate(zip(samples, labels, strict=True)):
        place = folder / (HOSTILE if label == 0 else f"class{label}")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{index}.png")
    return folder


@pytest.mark.slow
def test_names_of_classes_reach_no_output_unescaped(trained: Trained, tmp_path: Path) -> None:
    out, images = tmp_path / "out", _hostile_images(tmp_path / "images")
    ended = lrf(
        [
            "compress",
            trained.model_file,
            "--data",
            images,
            "--out",
            out,
            "--set",
            "explore.samples=64",
            *QUICK,
        ],
        {"LRF_LOG_LEVEL": "debug"},
    )
    assert ended.code in (0, 3), ended.err
    report = (out / "report.html").read_text()
    assert "[red]x\\x1b[2J\\u202e" in report
    for text in (ended.out, ended.err, report):
        assert "\x1b" not in text
        assert "\u202e" not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "surroundings", ["no home", "ascii", "narrow", "unicode and blanks", "another user"]
)
def test_compression_works_in_unusual_surroundings(
    surroundings: str, trained: Trained, tmp_path: Path
) -> None:
    folder = tmp_path / ("sp ace [red] é" if surroundings == "unicode and blanks" else "plain")
    readonly = tmp_path / "readonly"
    for each in (folder, readonly):
        each.mkdir()
    model = shutil.copy(trained.model_file, folder / "tiny.keras")
    data = shutil.copy(trained.data_file, folder / "tiny.npz")
    readonly.chmod(0o555)
    settings: dict[str, dict[str, str | None]] = {
        "no home": dict.fromkeys(("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME")),
        "ascii": dict(ASCII),
        "narrow": {"COLUMNS": "20", "NO_COLOR": "1", "TERM": "dumb"},
        "another user": {"HOME": str(readonly), "USER": None, "LOGNAME": None},
    }
    before = as_unknown_user() if surroundings == "another user" else []
    out = folder / "out"
    ended = lrf(
        ["compress", model, "--data", data, "--out", out, *QUICK],
        settings.get(surroundings),
        before=before,
        cwd=readonly,
    )
    assert ended.code in (0, 3), ended.err
    assert (out / "report.html").is_file()
    assert str(out) in ended.out or surroundings in ("ascii", "unicode and blanks")
