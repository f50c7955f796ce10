import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.executors.processes import LocalPool
from tests.helpers import ROOT


def work(task: tuple[str, str]) -> None:
    """A task: what to do, and a file to write then."""
    what, path = task
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(3)
    if what == "fail":
        raise ValueError("no such luck\nand more")
    if what == "mend":
        raise Unavailable("output_dir", "here", "no room")
    if what == "sleep":
        time.sleep(60)
    Path(path).write_text(str(os.getpid()))


def carry_out(tasks, count=2):
    outcomes = {}
    with LocalPool(count, work) as workers:
        waiting = list(tasks)
        while waiting or workers.busy:
            while waiting and workers.free:
                workers.submit(waiting.pop(0))
            for outcome in workers.wait(60):
                outcomes[outcome.task] = outcome
    return outcomes


@pytest.mark.skipif(sys.platform != "linux", reason="no process forks here")
def test_a_process_that_forks_may_be_killed(tmp_path, monkeypatch):
    tasks = [("write", str(tmp_path / str(i))) for i in range(2)]
    carry_out(tasks[:1])
    read = multiprocessing.forkserver.read_signed
    killed = []

    def killed_once(pipe):
        if not killed:
            killed.append(multiprocessing.forkserver._forkserver._forkserver_pid)
            os.kill(killed[0], signal.SIGKILL)
            raise EOFError
        return read(pipe)

    monkeypatch.setattr(multiprocessing.forkserver, "read_signed", killed_once)
    (outcome,) = carry_out(tasks[1:]).values()
    assert outcome.problem is None and (tmp_path / "1").exists()
    assert multiprocessing.forkserver._forkserver._forkserver_pid != killed[0]


def test_tasks_are_done_in_other_processes_and_failures_stay_alone(tmp_path):
    whats = ["write", "die", "fail", "write", "mend", "exit", "write"]
    tasks = [(what, str(tmp_path / str(i))) for i, what in enumerate(whats)]
    outcomes = carry_out(tasks)
    problems = [outcomes[task].problem for task in tasks]
    assert problems == [
        None,
        "its process was ended by SIGKILL",
        "ValueError: no such luck",
        None,
        "output_dir=here: no room",
        "its process exited (3)",
        None,
    ]
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["0", "3", "6"]
    assert str(os.getpid()) not in {path.read_text() for path in tmp_path.iterdir()}
    # A traceback only where a user cannot be expected to mend it.
    assert "Traceback" in outcomes[tasks[2]].details
    assert outcomes[tasks[4]].details is None


def test_a_process_that_dies_while_it_waits_is_replaced(tmp_path):
    with LocalPool(2, work) as workers:
        for i in range(4):
            workers.submit(("write", str(tmp_path / str(i))))
            (outcome,) = workers.wait(60)
            assert outcome.problem is None
            idle = int((tmp_path / str(i)).read_text())
            os.kill(idle, signal.SIGKILL)
            _wait_for(lambda pid=idle: not Path(f"/proc/{pid}").exists())
    assert len({path.read_text() for path in tmp_path.iterdir()}) == 4


def test_a_process_is_replaced_before_leaks_add_up(tmp_path, monkeypatch):
    monkeypatch.setattr("robust_tf.executors.processes._TASKS_PER_PROCESS", 2)
    tasks = [("write", str(tmp_path / str(i))) for i in range(5)]
    carry_out(tasks, count=1)
    processes = [Path(path).read_text() for _, path in tasks]
    assert processes[0] == processes[1] != processes[2] == processes[3] != processes[4]


def test_wait_gives_up_and_the_end_ends_busy_processes(tmp_path):
    start = time.monotonic()
    with LocalPool(1, work) as workers:
        workers.submit(("sleep", str(tmp_path / "never")))
        assert (workers.busy, workers.free) == (1, 0)
        assert workers.wait(0.1) == []
    assert time.monotonic() - start < 30
    assert list(tmp_path.iterdir()) == []


def test_processes_end_with_the_one_that_started_them(tmp_path):
    code = (
        "from robust_tf.executors.processes import LocalPool\n"
        "from tests import test_workers\n"
        "import time\n"
        "workers = LocalPool(1, test_workers.work)\n"
        f"workers.submit(('write', {str(tmp_path / 'pid')!r}))\n"
        "workers.wait(60)\n"
        "workers.submit(('sleep', ''))\n"
        f"open({str(tmp_path / 'ready')!r}, 'w').close()\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    _wait_for((tmp_path / "ready").exists)
    child = int((tmp_path / "pid").read_text())
    assert _alive(child)
    parent.kill()
    parent.wait()
    _wait_for(lambda: not _alive(child))


def test_ctrl_c_is_for_the_process_that_started_them(tmp_path):
    code = (
        "import os, signal, time\n"
        # Which is not so where the tests run in the background.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from robust_tf.executors.processes import LocalPool\n"
        "from tests import test_workers\n"
        "with LocalPool(1, test_workers.work) as workers:\n"
        "    for path in ('early', 'late'):\n"
        "        try:\n"
        "            os.killpg(0, signal.SIGINT)\n"
        "            time.sleep(60)\n"
        "        except KeyboardInterrupt:\n"
        f"            workers.submit(('write', os.path.join({str(tmp_path)!r}, path)))\n"
        "            workers.wait(60)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0
    assert "KeyboardInterrupt" not in process.stderr
    # By the same one, which the second did not end either.
    assert (tmp_path / "early").read_text() == (tmp_path / "late").read_text()


def _wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be noticed does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # the second while it is being read
        return False
    return state != "Z"


def test_at_least_one_worker():
    with pytest.raises(InvalidArgument, match="workers=0: expected a whole number from 1 on"):
        LocalPool(0, work)
