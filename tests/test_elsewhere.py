"""Machines unlike this one: without what only Linux has, and with other users."""

import os
import re
import sys
from pathlib import Path

import pytest

from robust_tf import machine
from robust_tf.executors import processes, ray, uploads
from robust_tf.files import is_locked, locked, new_folder, replacing

# What Python's documentation says is available on Linux, but not on macOS.
LINUX_ONLY = {
    "os": """copy_file_range eventfd fdatasync getrandom getresgid getresuid getxattr listxattr
        memfd_create pidfd_open pipe2 posix_fadvise posix_fallocate removexattr
        sched_getaffinity sched_getparam sched_getscheduler sched_rr_get_interval
        sched_setaffinity sched_setparam sched_setscheduler setns setresgid setresuid setxattr
        splice unshare O_DIRECT O_NOATIME O_PATH O_RSYNC O_TMPFILE""",
    "select": "epoll EPOLLIN EPOLLOUT",
    "signal": "sigtimedwait sigwaitinfo pidfd_send_signal SIGPWR SIGSTKFLT SIGRTMIN SIGRTMAX",
    "resource": "prlimit RUSAGE_THREAD",
    "fcntl": "F_ADD_SEALS F_OFD_SETLK F_NOTIFY F_SETPIPE_SZ",
}
TAKEN_AWAY = f"""
import builtins, importlib, io
for module, names in {LINUX_ONLY!r}.items():
    for name in names.split():
        vars(importlib.import_module(module)).pop(name, None)
real = io.open
def without_proc(path, *arguments, **options):
    if str(path).startswith("/proc"):
        raise FileNotFoundError(2, "No such file or directory", str(path))
    return real(path, *arguments, **options)
io.open = builtins.open = without_proc
"""


def work(folder: str) -> None:
    """A task, for a process from which all that is taken away."""
    assert not hasattr(os, "sched_getaffinity")
    with pytest.raises(FileNotFoundError):
        Path("/proc/cpuinfo").read_text()
    assert 1 <= machine.cores() <= machine.threads() <= os.cpu_count()
    assert machine.name().endswith(f"{machine.cores()} cores")
    with locked(Path(folder)), replacing(Path(folder, "done")) as temporary:
        assert is_locked(Path(folder))
        temporary.write_text(str(os.getpid()))


def test_processes_without_what_only_linux_has(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(TAKEN_AWAY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert processes._context(work).get_start_method() == "spawn"
    with processes.LocalPool(1, work) as pool:
        pool.submit(str(tmp_path))
        (outcome,) = pool.wait(300)
    assert outcome.problem is None, outcome.details
    assert int((tmp_path / "done").read_text()) != os.getpid()
    monkeypatch.undo()
    assert processes._context(work).get_start_method() == "forkserver"


@pytest.mark.parametrize(("count", "expected"), [(8, 8), (1, 1), (None, 1)])
def test_cores_where_no_process_is_bound_to_some(monkeypatch, count, expected):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert machine.cores() == expected


def test_no_module_uses_what_only_linux_has():
    calls = {f"{module}.{name}" for module, names in LINUX_ONLY.items() for name in names.split()}
    calls.remove("os.sched_getaffinity")  # used where there is one, see above
    root = Path(processes.__file__).parents[2]
    found = [
        (path.name, call)
        for package in ("robust_tf", "pipelines")
        for path in (root / package).rglob("*.py")
        for call in re.findall(r"\b(?:os|select|signal|resource|fcntl)\.\w+", path.read_text())
        if call in calls
    ]
    assert found == []


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_the_umask_is_honoured(tmp_path, tmp_path_factory, monkeypatch, umask):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    before = os.umask(umask)
    try:
        with uploads.local({"output_dir": f"file://{tmp_path}/there"}) as folders:
            (folders["output_dir"] / "run").mkdir()
            (folders["output_dir"] / "run" / "runs.csv").write_text("a")
        with new_folder(tmp_path / "folder") as temporary, replacing(temporary / "file") as file:
            file.touch()
    finally:
        os.umask(before)
    made = list(tmp_path.rglob("*"))
    assert len(made) == 6
    for path in made:
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_rays_token_is_made_for_its_user_alone(home):
    ray._guard_token(makes_one=False)
    assert not (home / ".ray").exists()
    ray._guard_token(makes_one=True)
    path = home / ".ray" / "auth_token"
    assert path.stat().st_mode & 0o777 == 0o600
    token = path.read_text()
    assert re.fullmatch("[0-9a-f]{64}", token)
    ray._guard_token(makes_one=True)
    assert path.read_text() == token


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o666])
def test_a_token_that_others_can_read_is_closed_to_them(home, mode):
    (home / ".ray").mkdir()
    path = home / ".ray" / "auth_token"
    path.write_text("secret")
    path.chmod(mode)
    ray._guard_token(makes_one=False)
    assert (path.stat().st_mode & 0o777, path.read_text()) == (0o600, "secret")


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_a_token_from_elsewhere_needs_no_file(home, monkeypatch, name):
    monkeypatch.setenv(name, "x")
    ray._guard_token(makes_one=True)
    assert not (home / ".ray").exists()
