"""What a process can no longer do once it is confined."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from lrf_core.models.sandboxed import _readable, _search_path
from lrf_core.sandbox.confine import Limits
from lrf_core.sandbox.landlock import landlock_version

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux restricts system calls")
needs_landlock = pytest.mark.skipif(not landlock_version(), reason="this kernel has no Landlock")

GIB = 1 << 30
LIMITS = Limits(memory=GIB, cpu=60, file=1 << 20)
MORE = Limits(memory=4 * GIB, cpu=60, file=1 << 20)
CONFINED = """
import ctypes, errno, json, os, sys, threading
request = json.loads(sys.argv[1])
sys.path[:] = request["path"]
from pathlib import Path
from lrf_core.sandbox.confine import Limits, confine_calls, confine_files, confine_writing
libc = ctypes.CDLL(None, use_errno=True)
writable = [Path(path) for path in request["writable"]]
first()
if request["landlock"]:
    confine_files([Path(path) for path in request["readable"]], writable)
before()
assert confine_calls(Limits(**request["limits"]))
assert request["writing"] or confine_writing()
try:
    attack()
except OSError as error:
    sys.exit("denied: " + errno.errorcode[error.errno])
except MemoryError:
    sys.exit("denied: memory")
"""
NOTHING = "def {}(): pass\n"


def run_confined(
    attack: str,
    folder: Path,
    *,
    landlock: bool = True,
    writing: bool = True,
    limits: Limits = LIMITS,
    readable: Iterable[Path] = (),
    first: str = NOTHING.format("first"),
    before: str = NOTHING.format("before"),
) -> subprocess.CompletedProcess[str]:
    """Run a function `attack` in a confined process that may write in a folder.

    Args:
        first, before: functions of these names, called before files and before system calls are
            restricted.
    """
    request = {
        "path": _search_path(),
        "readable": list(map(str, [*_readable(), *readable])),
        "writable": [str(folder), os.devnull],
        "writing": writing,
        "landlock": landlock,
        "limits": vars(limits),
    }
    program = f"{first}{before}{attack}\n{CONFINED}"
    return subprocess.run(
        [sys.executable, "-I", "-B", "-c", program, json.dumps(request)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The folder in which a confined process may write; secrets lie beside it."""
    (tmp_path / "secret").write_text("key")
    (tmp_path / "own").mkdir()
    return tmp_path / "own"


ENDED_BY_THE_KERNEL = {
    "opens_a_socket": "import socket; socket.socket()",
    "opens_a_local_socket": "import socket; socket.socketpair()",
    "runs_a_command": "os.system('/bin/true')",
    "becomes_another_program": "os.execv('/bin/true', ['true'])",
    "forks": "os.fork()",
    "looks_whether_its_parent_lives": "os.kill(os.getppid(), 0)",
    "traces_its_parent": "libc.ptrace(16, os.getppid(), 0, 0)",
    "reads_the_memory_of_its_parent": "libc.process_vm_readv(os.getppid(), 0, 0, 0, 0, 0)",
    "hides_memory": "os.memfd_create('x')",
    "makes_namespaces": "libc.unshare(0x10000000)",
    "mounts": "libc.mount(b'none', b'/mnt', b'tmpfs', 0, 0)",
    "uses_io_uring": "libc.syscall(425, 1, 0)",
    "loads_a_bpf_program": "libc.syscall(321 if os.uname().machine == 'x86_64' else 280, 0, 0, 0)",
}


@pytest.mark.parametrize("attack", ENDED_BY_THE_KERNEL.values(), ids=ENDED_BY_THE_KERNEL)
def test_a_forbidden_system_call_ends_the_process(attack: str, own: Path) -> None:
    ended = run_confined(f"def attack(): {attack}", own)
    assert ended.returncode == -signal.SIGSYS, ended.stderr


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the other calls of x86_64")
def test_the_calls_of_x32_are_no_way_around(own: Path) -> None:
    ended = run_confined("def attack(): libc.syscall(0x40000000 + 41, 2, 1, 0)", own)
    assert ended.returncode == -signal.SIGSYS


def test_threads_that_ran_before_are_restricted_too(own: Path) -> None:
    before = """
def before():
    global go
    go = threading.Event()
    def late():
        go.wait()
        libc.socket(2, 1, 0)
    threading.Thread(target=late).start()
"""
    ended = run_confined("def attack(): go.set(); threading.Event().wait(5)", own, before=before)
    assert ended.returncode == -signal.SIGSYS


def test_threads_can_still_be_started(own: Path) -> None:
    attack = """
def attack():
    found = []
    thread = threading.Thread(target=found.append, args=(1,))
    thread.start(); thread.join()
    print(found)
"""
    ended = run_confined(attack, own)
    assert (ended.returncode, ended.stdout) == (0, "[1]\n"), ended.stderr


OUTSIDE = {
    "writes_a_file": "open('{0}/new', 'w')",
    "appends_to_a_file": "open('{0}/secret', 'a')",
    "truncates_a_file": "os.truncate('{0}/secret', 0)",
    "removes_a_file": "os.remove('{0}/secret')",
    "renames_a_file": "os.rename('{0}/secret', '{0}/other')",
    "makes_a_folder": "os.mkdir('{0}/new')",
    "links_to_a_file": "os.link('{0}/secret', '{0}/own/secret')",
}
READS = {
    "reads_a_file": "open('{0}/secret').read()",
    "lists_a_folder": "os.listdir('{0}')",
    "reads_the_environment_of_its_parent": "open(f'/proc/{{os.getppid()}}/environ').read()",
    "reads_the_accounts": "open('/etc/passwd').read()",
    "opens_a_terminal": "open('/dev/ptmx')",
}


def assert_denied(ended: subprocess.CompletedProcess[str], own: Path) -> None:
    # A link between folders of different rights fails as one between file systems does.
    assert ended.stderr in ("denied: EACCES\n", "denied: EXDEV\n"), ended.stderr
    assert sorted(path.name for path in own.parent.iterdir()) == ["own", "secret"]
    assert (own.parent / "secret").read_text() == "key"
    assert not list(own.iterdir())


@needs_landlock
@pytest.mark.parametrize("attack", [*OUTSIDE.values(), *READS.values()], ids=[*OUTSIDE, *READS])
def test_files_elsewhere_are_out_of_reach(attack: str, own: Path) -> None:
    ended = run_confined(f"def attack(): {attack.format(own.parent)}", own)
    assert_denied(ended, own)


@pytest.mark.parametrize("attack", OUTSIDE.values(), ids=OUTSIDE)
def test_without_landlock_no_file_can_be_changed(attack: str, own: Path) -> None:
    ended = run_confined(
        f"def attack(): {attack.format(own.parent)}", own, landlock=False, writing=False
    )
    assert_denied(ended, own)


@pytest.mark.parametrize("attack", ["os.chmod({!r}, 0)", "os.utime({!r})", "os.chown({!r}, 1, 1)"])
def test_rights_and_times_of_files_cannot_be_changed(attack: str, own: Path) -> None:
    ended = run_confined(f"def attack(): {attack.format(str(own.parent / 'secret'))}", own)
    assert ended.stderr.startswith("denied: EPERM"), ended.stderr


def test_its_own_folder_can_be_written(own: Path) -> None:
    ended = run_confined(f"def attack(): open('{own}/new', 'w').write('x')", own)
    assert ended.returncode == 0, ended.stderr
    assert (own / "new").read_text() == "x"


USED_UP = {
    "memory": ("bytearray(10 << 30)", "denied: memory"),
    "memory_in_small_parts": ("[bytearray(16 << 20) for _ in range(1 << 10)]", "denied: memory"),
    "shared_memory": ("__import__('mmap').mmap(-1, 10 << 30)", "denied: ENOMEM"),
    "disk": ("open('{0}/big', 'wb').write(bytes(2 << 20))", "denied: EFBIG"),
    "files": ("[os.open('/dev/urandom', 0) for _ in range(1000)]", "denied: EMFILE"),
}


@pytest.mark.parametrize(("attack", "said"), USED_UP.values(), ids=USED_UP)
def test_what_it_may_use_up_is_limited(attack: str, said: str, own: Path) -> None:
    ended = run_confined(f"def attack(): {attack.format(own)}", own)
    assert ended.stderr.startswith(said), ended.stderr


def test_a_process_that_never_stops_computing_is_ended(own: Path) -> None:
    limits = Limits(memory=GIB, cpu=1, file=0)
    ended = run_confined("def attack():\n    while True: pass", own, limits=limits)
    assert ended.returncode in (-signal.SIGXCPU, -signal.SIGKILL)


@pytest.mark.skipif(os.geteuid() != 0, reason="root only has privileges to give up")
def test_root_gives_up_its_privileges(own: Path) -> None:
    attack = "def attack(): print(open('/proc/self/status').read())"
    status = run_confined(attack, own).stdout.split()
    assert int(status[status.index("CapEff:") + 1], 16) in (0, 1 << 2)
    assert status[status.index("NoNewPrivs:") + 1] == "1"


AS_NOBODY = "def first(): os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as such a user already")
@pytest.mark.parametrize(
    ("attack", "code", "said"),
    [
        ("os.fork()", -signal.SIGSYS, ""),
        pytest.param("open('/etc/passwd')", 1, "denied: EACCES\n", marks=needs_landlock),
        ("bytearray(10 << 30)", 1, "denied: memory\n"),
    ],
)
def test_a_user_without_privileges_is_confined_as_well(
    attack: str, code: int, said: str, own: Path
) -> None:
    ended = run_confined(f"def attack(): {attack}", own, first=AS_NOBODY)
    assert (ended.returncode, ended.stderr) == (code, said)


LOADS_A_GRAPH = """
def before():
    global keras
    import tempfile
    tempfile.tempdir = os.environ["HOME"] = os.environ["KERAS_HOME"] = str(request["writable"][0])
    import keras
def attack():
    model = keras.saving.load_model({0!r}, safe_mode=False)
    print("loaded", flush=True)
    model(keras.ops.ones((1, 2)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("landlock", [pytest.param(True, marks=needs_landlock), False])
def test_a_graph_of_tensorflow_that_writes_a_file(
    landlock: bool, own: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The file operations of TensorFlow pass by Python; Keras itself loads the model here."""
    import keras
    import tensorflow as tf

    class Writes(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 2))])
        def serve(self, x: tf.Tensor) -> tf.Tensor:
            with tf.control_dependencies([tf.io.write_file(str(target), "attack")]):
                return tf.identity(x)

    target, model = own.parent / "written", tmp_path_factory.mktemp("attack")
    tf.saved_model.save(Writes(), model / "graph", signatures=None)
    layer = keras.layers.TFSMLayer(str(model / "graph"), call_endpoint="serve")
    keras.Sequential([keras.Input((2,)), layer]).save(model / "model.keras")
    target.unlink(missing_ok=True)
    keras.saving.load_model(model / "model.keras", safe_mode=False)(np.ones((1, 2), np.float32))
    assert target.read_text() == "attack"  # it works if nothing confines it
    target.unlink()

    attack = LOADS_A_GRAPH.format(str(model / "model.keras"))
    ended = run_confined(
        attack, own, landlock=landlock, writing=landlock, readable=[model], limits=MORE
    )
    assert ended.stdout == "loaded\n", ended.stderr
    assert "Permission denied" in ended.stderr, ended.stderr
    assert not target.exists()


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    child = (
        "import os, sys, time; sys.path[:] = eval(sys.argv[1]);"
        "from lrf_core.sandbox.confine import *; end_with(int(sys.argv[2]));"
        "confine_calls(Limits(1 << 30, 60, 1 << 20));"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys;"
        f"subprocess.run([sys.executable, '-c', {child!r}, {str(_search_path())!r},"
        " str(os.getpid())])"
    )
    with subprocess.Popen([sys.executable, "-c", parent]) as started:
        pid = _eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        started.kill()
    _eventually(lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(str(pid)))


def _is_zombie(pid: str) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def _eventually(found: object) -> object:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if value := found():  # type: ignore[operator]
            return value
        time.sleep(0.05)
    raise AssertionError("did not happen within 30 seconds")
