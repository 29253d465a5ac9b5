"""Build the image without a daemon, weigh its layers and try it: `make image-test`.

Needs root and Debian's buildah; and debootstrap, which makes the base image (Debian 12 and its
Python 3.11) unless BASE_IMAGE names one to be pulled. Packages come from where pip is told to look:
its configuration is a secret of the build. All is in one folder, removed at the end.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
IMAGE = "localhost/lrf:tested"
# Bytes of the files and their tar headers, before compression.
MOST, MOST_BESIDE_TENSORFLOW = 1_600_000_000, 350_000_000
MADE_HERE = ("tensorflow", "packages", "lrf")
OF_PIP = ("index-url", "extra-index-url", "find-links", "cert", "trusted-host")
# What a slim image leaves out as well.
NOT_SLIM = ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/cache/apt", "var/lib/apt")
# Where the image can write.
SCRATCH = "/tmp"  # noqa: S108


def run(command: Sequence[str | Path], **options: Any) -> str:
    """Standard output of a command that must succeed; what it says else goes to the terminal."""
    options = {"stdout": subprocess.PIPE, **options}
    ended = subprocess.run([str(word) for word in command], check=True, text=True, **options)
    return (ended.stdout or "").strip()


class Builder:
    """buildah with storage of its own, below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.command = ["buildah", "--root", folder / "storage", "--runroot", folder / "run"]

    def __call__(self, *words: str | Path) -> str:
        return run([*self.command, *words])

    def clear(self) -> None:
        """Unmount and forget all containers; then nothing holds the folder."""
        self("rm", "--all")
        overlay = self._folder / "storage" / "overlay"
        if overlay.is_mount():
            run(["umount", overlay])


def make_base(builder: Builder, folder: Path) -> str:
    """A base image of Debian 12 and its Python, of about what the slim Python image holds."""
    system = folder / "debian"
    packages = "python3,python3-venv,python3-pip,ca-certificates"
    log = run(["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", system])
    (folder / "debootstrap.log").write_text(log)
    for path in NOT_SLIM:
        shutil.rmtree(system / path, ignore_errors=True)
    container = builder("from", "scratch")
    run(["cp", "--archive", f"{system}/.", builder("mount", container)])
    shutil.rmtree(system)
    builder("commit", "--quiet", "--rm", container, "localhost/base:tested")
    return "localhost/base:tested"


def pip_settings() -> dict[str, str]:
    """Where pip finds packages here: of its files, and of the environment."""
    python = os.environ.get("PYTHON", "python3")
    lines = run([python, "-m", "pip", "config", "list"]).splitlines()
    found = [re.fullmatch(r"(?:global|install|:env:)\.([a-z-]+)='(.*)'", line) for line in lines]
    settings = {match[1]: ast.literal_eval(f"'{match[2]}'") for match in found if match}
    return {key: value for key, value in settings.items() if key in OF_PIP}


def pip_options(folder: Path) -> list[str]:
    """The secret that tells pip of the build where to look, and the local folders named in it."""
    settings = pip_settings()
    secret = folder / "pip.conf"
    secret.touch(mode=0o600)
    lines = [f"{key} = " + " ".join(value.split()) for key, value in settings.items()]
    secret.write_text("\n".join(["[global]", *lines, ""]))
    folders = set()
    for word in " ".join(settings.values()).split():
        # The files of a local index lie beside it.
        index = word.startswith("file://")
        path = Path(word.removeprefix("file://")).parent if index else Path(word)
        if path.is_absolute() and path.exists() and len(path.parts) > 1:
            folders.add(path)
    mounted = [f"--volume={path}:{path}:ro" for path in folders]
    return [f"--secret=id=pip.conf,src={secret}", *mounted]


def build(builder: Builder, folder: Path, base: str) -> None:
    """The image, as the Dockerfile's last stage; the end of the log is shown where it fails."""
    # Layers: else buildah makes one of all. Format: OCI's has no HEALTHCHECK.
    options = ["--layers", "--isolation=chroot", "--format=docker", f"--tag={IMAGE}"]
    options += [*pip_options(folder), f"--build-arg=BASE_IMAGE={base}"]
    log = folder / "build.log"
    try:
        with log.open("w") as opened:
            run([*builder.command, "bud", *options, ROOT], stdout=opened, stderr=subprocess.STDOUT)
    except subprocess.CalledProcessError:
        print("".join(log.read_text().splitlines(keepends=True)[-30:]))
        raise


def layer_sizes(builder: Builder, folder: Path) -> list[int]:
    """Bytes of each layer of the image, not compressed, the base image's first."""
    pushed = folder / "pushed"
    builder("push", "--quiet", "--disable-compression", IMAGE, f"dir:{pushed}")
    layers = json.loads((pushed / "manifest.json").read_text())["layers"]
    shutil.rmtree(pushed)
    return [layer["size"] for layer in layers]


def check_sizes(sizes: list[int]) -> None:
    """Print what each layer weighs, and hold the image to its limits."""
    base, made = sum(sizes[: -len(MADE_HERE)]), sizes[-len(MADE_HERE) :]
    beside = sum(made[1:])
    for name, size in [("base", base), *zip(MADE_HERE, made, strict=True), ("total", sum(sizes))]:
        print(f"{name:<12}{size / 1e6:8,.1f} MB")
    print(f"beside TensorFlow {beside / 1e6:,.1f} MB; and the base {(base + beside) / 1e6:,.1f} MB")
    assert sum(sizes) < MOST, f"{sum(sizes)} bytes, at most {MOST}"
    assert beside < MOST_BESIDE_TENSORFLOW, f"{beside} bytes, at most {MOST_BESIDE_TENSORFLOW}"


# A mount namespace of its own, so that nothing is left mounted: the image read-only except /tmp.
INSIDE = """
root=$1; given=$2; folder=$3; user=$4; shift 4
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind -o ro "$given" "$root/mnt"
exec chroot --userspec="$user" --groups= "$root" /usr/bin/env -i --chdir="$folder" "$@"
"""


class Container:
    """The image as a pod with a read-only root file system runs it, `given` mounted at /mnt."""

    def __init__(self, builder: Builder, given: Path) -> None:
        self.root = Path(builder("mount", builder("from", IMAGE)))
        self._given = given
        self.config = json.loads(builder("inspect", "--type", "image", IMAGE))["OCIv1"]["config"]

    def __call__(self, *command: str) -> str:
        inside = [self.root, self._given, self.config["WorkingDir"], self.config["User"]]
        namespace = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", INSIDE, "sh"]
        return run([*namespace, *inside, *self.config["Env"], *command])


def check_content(container: Container, settings: dict[str, str]) -> None:
    """No installer, compiler, cache or build setting is left."""
    ours = container.root / "opt/lrf"
    for name in ("pip", "gcc", "cc", "c++", "strip"):
        assert not list(ours.glob(f"bin/{name}")), name
        assert name == "pip" or not list(container.root.glob(f"usr/bin/{name}")), name
    assert not list(ours.glob("lib/python3.*/site-packages/pip"))
    assert not (container.root / "root/.cache").exists()
    assert not (container.root / "etc/pip.conf").exists()
    shown = json.dumps(container.config)
    assert not [value for value in settings.values() if value in shown]
    assert container("id", "-u") == "65532"
    assert container("sh", "-c", "touch /opt/lrf/x 2>/dev/null || echo read-only") == "read-only"
    assert container("python", "-c", "import getpass; print(getpass.getuser())") == "lrf"


def check_commands(container: Container) -> None:
    """The command line, and the whole way of a small model."""
    assert "compress" in container("lrf", "--help")
    goal = ("--params-reduction", "0.3", "--max-accuracy-drop", "20", "--epochs", "1")
    given = ("/mnt/tiny.keras", "--data", "/mnt/tiny.npz", "--out", f"{SCRATCH}/out")
    print(container("lrf", "compress", *given, *goal))


def check_step(container: Container) -> None:
    """The first step of the pipeline, started as Kubeflow's launcher starts it."""
    import yaml

    pipeline, *_ = yaml.safe_load_all((ROOT / "pipelines/compress.yaml").read_text())
    step = pipeline["deploymentSpec"]["executors"]["exec-analyze"]["container"]
    spec = {"model": "/mnt/tiny.keras", "data": "/mnt/tiny.npz", "goal": {"params_reduction": 0.3}}

    def artifact(name: str, kind: str) -> dict[str, object]:
        described = {"name": name, "type": {"schemaTitle": kind}, "uri": f"{SCRATCH}/made/{name}"}
        return {"artifacts": [{**described, "metadata": {}}]}

    given = {
        "inputs": {"parameterValues": {"spec": json.dumps(spec)}},
        "outputs": {
            "artifacts": {
                "baseline": artifact("baseline", "system.Model"),
                "analysis": artifact("analysis", "system.Artifact"),
            },
            "parameters": {"Output": {"outputFile": f"{SCRATCH}/made/Output"}},
            "outputFile": f"{SCRATCH}/made/metadata.json",
        },
    }
    words = [*step["command"], *step["args"]]
    logged = container(*(json.dumps(given) if word == "{{$}}" else word for word in words))
    print(logged)
    assert "[lrf analyze] done" in logged


def make_inputs(folder: Path) -> None:
    """A small trained model and its data, as files that anybody may read."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from lrf_core.console.quiet import import_tensorflow_quietly

    import_tensorflow_quietly()
    import numpy as np
    from tiny import tiny_cnn, tiny_data, train_tiny

    from lrf_core.models.load import save_model

    folder.mkdir()
    data = tiny_data(noise=60.0)
    save_model(train_tiny(tiny_cnn(), data, epochs=6), folder / "tiny.keras")
    (x_train, y_train), (x_test, y_test) = data.train.arrays(), data.test.arrays()
    np.savez(folder / "tiny.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def main() -> None:
    """Everything, in order; an AssertionError or CalledProcessError says what is wrong."""
    base = os.environ.get("BASE_IMAGE", "")
    needed = ["buildah", "unshare"] if base else ["buildah", "unshare", "debootstrap"]
    missing = [name for name in needed if shutil.which(name) is None]
    if missing or os.geteuid():
        sys.exit(f"image-test needs root and {', '.join(needed)}; install {missing or 'nothing'}")
    with tempfile.TemporaryDirectory(prefix="lrf-image-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        builder = Builder(folder)
        try:
            make_inputs(folder / "given")
            base = base or make_base(builder, folder)
            started = time.monotonic()
            build(builder, folder, base)
            print(f"built in {time.monotonic() - started:.0f} s")
            check_sizes(layer_sizes(builder, folder))
            container = Container(builder, folder / "given")
            check_content(container, pip_settings())
            check_commands(container)
            check_step(container)
        finally:
            builder.clear()


if __name__ == "__main__":
    main()
