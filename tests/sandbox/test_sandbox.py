"""What becomes of a model file that is read in the sandbox, and of one that attacks it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny import Trained, tiny_cnn

from components.step import step
from lrf_core.commands import app as cli
from lrf_core.errors import ModelError, SandboxError, SpecError
from lrf_core.models import sandboxed as reading
from lrf_core.models.load import load_model, model_digest, save_model
from lrf_core.models.sandboxed import read_in_sandbox
from lrf_core.sandbox.confine import Limits
from lrf_core.sandbox.landlock import landlock_version
from lrf_core.sandbox.setting import sandbox_is_on
from lrf_core.spec import Spec

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux restricts system calls")

needs_landlock = pytest.mark.skipif(not landlock_version(), reason="this kernel has no Landlock")

# The real process, in which instead of Keras this function reads the file.
_HOSTILE = """
import ctypes, json, os, sys, time, types
request = json.load(sys.stdin)
sys.path[:] = request["path"]
from lrf_core.errors import ModelError
class formats(types.ModuleType):
    @staticmethod
    def read_model(source, weights, once_copied):
        libc = ctypes.CDLL(None)
        {attack}
class carried(types.ModuleType):
    @staticmethod
    def described(model):
        return model, []
    @staticmethod
    def write_contents(contents, file):
        pass
import lrf_core.sandbox as sandbox, lrf_core.models as models
models.formats, sandbox.carried = formats("formats"), carried("carried")
from lrf_core.models.sandbox_child import main
main(request)
"""


@pytest.fixture(autouse=True)
def _no_registered_classes() -> Iterator[None]:
    """Those of other tests in this process would have files read without the sandbox."""
    registered = keras.saving.get_custom_objects()
    before = dict(registered)
    registered.clear()
    yield
    registered.update(before)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "model.keras").write_bytes(b"anything")
    return tmp_path / "model.keras"


def attacked(monkeypatch: pytest.MonkeyPatch, file: Path, attack: str, **settings: object) -> str:
    """What is said of a file that makes whoever reads it run this code."""
    monkeypatch.setattr(reading, "_BOOT", _HOSTILE.replace("{attack}", attack))
    with pytest.raises(ModelError) as caught:
        read_in_sandbox(file, **settings)  # type: ignore[arg-type]
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 2500
    return text


KERNEL = "tried what reading never needs (the network, another process, or a part of the kernel)"
HOSTILE = {
    "network": ("import socket; socket.socket()", "tried to use the network"),
    "network_past_python": ("libc.socket(2, 1, 0)", KERNEL),
    "program": ("os.system('id')", "tried to start a program: b'id'"),
    "program_past_python": ("libc.system(b'id')", KERNEL),
    "process": ("os.fork()", "tried to start another process"),
    "signal": ("os.kill(os.getppid(), 9)", "tried to send a signal to a process"),
    "file": ("open('/var/attack', 'w')", "tried to change the file '/var/attack'"),
    "caught": (
        "try: os.system('id')\n        finally: return {}, None",
        "tried to start a program",
    ),
    "memory": ("bytearray(10 << 30)", "needed more than 2.1 GB of memory"),
    "crash": (
        "ctypes.string_at(0)",
        "than there is (signal 11, Segmentation fault)",
    ),
    "end": ("libc.abort()", "(signal 6, Aborted)"),
    "signal_to_itself": ("libc.kill(os.getpid(), 40)", "(signal 40, Real-time signal 6)"),
    "walls": ("os.write(request['result'], b'{\"walls\": 3}\\n'); os._exit(0)", "gave no model"),
    "nothing": ("return {}, None", "gave no model"),
    "text": ("os.write(request['result'], b'no JSON'); os._exit(0)", "gave no model"),
    "list": ("os.write(request['result'], b'[]\\n'); os._exit(0)", "gave no model"),
    "deep": ("os.write(request['result'], b'[' * 100000 + b'\\n'); os._exit(0)", "gave no model"),
    "code": (
        "return {'config': {'class_name': 'Lambda', 'module': 'keras.layers', 'config': {}}}, None",
        "Lambda",
    ),
    "rubbish": (
        "return {'config': {'class_name': 'Dense', 'module': 'keras.layers', 'config': 3}}, None",
        "a model of class 'Dense'",
    ),
    "words": ("raise ModelError('\\x1b[31mred\\n' + 'x' * 9999)", "\\x1b[31mred xxx"),
    "error": ("raise RuntimeError('why')", "failed: RuntimeError: why"),
}


# One for each wall; the others start a process that imports TensorFlow each, too.
_GATE = {"program", "network_past_python", "code"}


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        pytest.param(*each, id=name, marks=() if name in _GATE else pytest.mark.slow)
        for name, each in HOSTILE.items()
    ],
)
def test_an_attack_is_stopped_and_named(
    attack: str, said: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said in attacked(monkeypatch, file, attack)
    assert not Path("/var/attack").exists()


@pytest.mark.slow
def test_a_file_that_keeps_computing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(memory=1 << 30, cpu=1, file=1 << 20)
    text = attacked(monkeypatch, file, "while True: pass", limits=limits)
    assert "needed more than 1 seconds of processor time" in text


@pytest.mark.slow
def test_the_file_is_named_as_it_was_given(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    text = attacked(monkeypatch, Path(file.name), "raise ModelError(f'{source} is no model')")
    assert text == "model.keras is no model"


@pytest.mark.slow
def test_a_file_that_keeps_waiting(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = attacked(monkeypatch, file, "time.sleep(60)", timeout_s=1.0)
    assert text == (
        f"{file}: the model was refused: reading it took longer than 1 seconds; if you trust where "
        "the file comes from, set LRF_SANDBOX=0"
    )


def test_secrets_of_this_process_are_not_there(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    look = (
        "raise ModelError(repr(dict(os.environ)) + open('/proc/self/environ').read() "
        "+ ' files=' + str(len(os.listdir('/proc/self/fd'))))"
    )
    text = attacked(monkeypatch, file, look)
    assert "wJalrXUtnFEMI" not in text
    assert "TF_CPP_MIN_LOG_LEVEL" in text
    assert text.endswith("files=5")  # the standard streams, the result, and the list itself


@pytest.mark.slow
@needs_landlock
def test_other_files_beside_the_model_cannot_be_read(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file.parent / "id_rsa").write_text("key")
    attack = "raise ModelError(open(str(source.parent / 'id_rsa')).read())"
    assert "PermissionError" in attacked(monkeypatch, file, attack)
    assert "anything" in attacked(monkeypatch, file, "raise ModelError(source.read_text())")


@pytest.mark.parametrize("folder", ["/nonexistent", "/proc"])
def test_a_folder_for_temporary_files_is_needed(
    folder: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", folder)
    with pytest.raises(SandboxError, match="set TMPDIR"):
        read_in_sandbox(file)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.slow
def test_nothing_is_left_behind(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    leave = "open(os.environ['TMPDIR'] + '/left', 'w').write('x'); raise ModelError('left')"
    opened = open_files()
    assert attacked(monkeypatch, file, leave) == "left"
    assert not list((tmp_path / "temporary").iterdir())
    assert open_files() == opened


def test_an_interrupt_ends_the_process(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(BaseException):
        pass

    def communicate(process: subprocess.Popen[bytes], *_: object, **__: object) -> None:
        started.append(process)
        raise Interrupted

    started: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(subprocess.Popen, "communicate", communicate)
    with pytest.raises(Interrupted):
        read_in_sandbox(file)
    assert started[0].returncode is not None


def test_a_process_that_does_not_start_is_no_fault_of_the_model(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_BOOT", "raise SystemExit(5)")
    with pytest.raises(SandboxError, match="ended with exit code 5 before it read anything"):
        read_in_sandbox(file)


@pytest.mark.slow
@needs_landlock
def test_packages_that_the_sandbox_cannot_see_are_no_fault_of_the_model(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_readable", list)
    with pytest.raises(SandboxError, match="cannot import Keras"):
        read_in_sandbox(file)


def with_vocabulary() -> keras.Model:
    """A model with a file of its own beside its weights."""
    text, image = keras.Input((), dtype="string", name="text"), tiny_cnn()
    words = keras.layers.TextVectorization(output_mode="multi_hot", name="words")
    words.adapt(np.array(["low rank", "tensor train", "Zürich"]))
    outputs = keras.layers.Concatenate()([image.output, words(text)])
    return keras.Model([image.input, text], keras.layers.Dense(2)(outputs))


def test_models_are_read_in_the_sandbox_as_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two at once, of which one is refused, in a folder with another alphabet in its name."""
    monkeypatch.setenv("LRF_SANDBOX", "1")
    monkeypatch.setattr(reading, "_shown", set())
    good = save_model(with_vocabulary(), tmp_path / "модель 模型")
    bad = tmp_path / "code.h5"
    keras.Sequential([keras.Input((4,)), keras.layers.Lambda(abs, name="code")]).save(bad)
    with ThreadPoolExecutor(2) as pool, caplog.at_level(logging.DEBUG, "lrf"):
        made = pool.submit(load_model, good.parent)
        refused = pool.submit(load_model, bad)
        with pytest.raises(ModelError) as here:
            load_model(bad, sandbox=False)
        with pytest.raises(ModelError) as there:
            refused.result()
        assert model_digest(made.result()) == model_digest(load_model(good, sandbox=False))
    assert str(there.value) == str(here.value)
    assert "the sandbox of model files restricts" in caplog.text


def test_with_registered_classes_the_file_is_read_here_with_a_warning(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reading, "_BOOT", "raise SystemExit(5)")
    monkeypatch.setitem(keras.saving.get_custom_objects(), "mine>Layer", object)
    assert model_digest(load_model(trained.model_file, sandbox=True))
    assert "is read without the sandbox: classes are registered" in caplog.text
    assert "mine>Layer" in caplog.text


def test_the_setting_is_0_or_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRF_SANDBOX", "yes")
    with pytest.raises(SpecError, match="LRF_SANDBOX is 'yes'; set 1"):
        load_model("model.keras")
    monkeypatch.delenv("LRF_SANDBOX")
    assert not sandbox_is_on()


def test_components_use_it_unless_the_setting_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = Spec(model="model.keras", data="data.npz").model_dump_json()
    for value, expected in (("", True), ("0", False), ("1", True)):
        monkeypatch.setenv("LRF_SANDBOX", value)
        with step("analyze", spec):
            assert sandbox_is_on() is expected
        assert os.environ["LRF_SANDBOX"] == value


@pytest.mark.parametrize(
    ("setting", "flag", "expected"),
    [
        ("0", ["--sandbox"], "before it read anything"),
        ("1", [], "before it read anything"),
        ("1", ["--no-sandbox"], "is no Keras model file"),
        ("0", [], "is no Keras model file"),
    ],
)
def test_commands_have_a_flag_for_it(
    setting: str,
    flag: list[str],
    expected: str,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LRF_SANDBOX", setting)
    monkeypatch.setattr(reading, "_BOOT", "raise SystemExit(5)")
    arguments = ["export", str(file), "--to", "litert", "--out", str(file.parent / "x"), *flag]
    monkeypatch.setattr(sys, "argv", ["lrf", *arguments])
    with pytest.raises(SystemExit):
        cli.main()
    assert expected in capsys.readouterr().err
    assert os.environ["LRF_SANDBOX"] == setting


# A kernel without Landlock, for whoever this process starts; seccomp itself stays.
_WITHOUT_LANDLOCK = """
import ctypes, logging, platform, struct, sys
from pathlib import Path
from lrf_core.sandbox import seccomp
from lrf_core.sandbox.kernel import NO_NEW_PRIVILEGES, control_process, system_call
seccomp._program = lambda *_, **__: [
    seccomp._step(seccomp._LOAD, seccomp._NUMBER),
    seccomp._step(seccomp._IF_EQUAL, 444, 0, 1),
    seccomp._step(seccomp._RETURN, seccomp._FAIL | 38),
    seccomp._step(seccomp._RETURN, seccomp._ALLOW),
]
original = seccomp.restrict_calls
assert original(platform.machine(), writing=True)
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from lrf_core.models.load import load_model, model_digest
print(model_digest(load_model(sys.argv[1], sandbox=True)))
"""


@pytest.mark.slow
def test_without_landlock_models_are_read_with_a_warning(trained: Trained) -> None:
    command = [sys.executable, "-c", _WITHOUT_LANDLOCK, str(trained.model_file)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == [
        "the sandbox of model files restricts system calls (seccomp), memory, time, but not files "
        "(Landlock), which this system does not offer",
        model_digest(trained.model),
    ]
