"""Runs pipelines in forks of a process that has imported TensorFlow, which takes seconds.

A fork is a process of its own, with its flags, files, output and exit code. It is not a
fresh one: what happens when libraries are imported is not seen.
"""

import dataclasses
import gc
import json
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Fork:
    """What was begun: its arguments, the files of its outputs and its process."""

    arguments: list[str]
    outputs: list[str]
    pid: int


class Begun:
    """What was begun, with what tests use of `subprocess.Popen`."""

    def __init__(self, forks: "Forks", fork: Fork):
        self._forks, self._fork = forks, fork
        self._done: subprocess.CompletedProcess | None = None

    @property
    def returncode(self) -> int | None:
        return self._done.returncode if self._done else None

    def poll(self) -> int | None:
        # One that has ended stays a zombie until it is waited for.
        stat = Path(f"/proc/{self._fork.pid}/stat")
        if not self._done and stat.read_text().rpartition(")")[2].split()[0] == "Z":
            self.communicate()
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self._fork.pid, number)

    def communicate(self, timeout: float = 60) -> tuple[str, str]:
        self._done = self._done or self._forks.wait(self._fork, timeout)
        return self._done.stdout, self._done.stderr


class Forks:
    """The process, as those see it that ask for forks.

    Args:
        cwd: where it is started.
    """

    def __init__(self, cwd: Path):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forks"],
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(
        self, arguments: list[str], folder: Path, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess:
        """Does what `python -m` with such arguments does.

        Args:
            arguments: a module and its flags.
            folder: where files for the output are made.
            environment: its environment variables.
            timeout: seconds.
        """
        fork = self.start(arguments, folder, environment)
        return self.wait(fork, timeout)

    def start(self, arguments: list[str], folder: Path, environment: Mapping[str, str]) -> "Fork":
        """Begins what `run` does; with `wait` it is that."""
        outputs = [str(folder / "stdout"), str(folder / "stderr")]
        for output in outputs:  # also of a fork that is killed before it opens them
            Path(output).touch()
        return Fork(arguments, outputs, self._ask([arguments, dict(environment), *outputs], 60))

    def wait(self, fork: "Fork", timeout: float) -> subprocess.CompletedProcess:
        """Waits until a fork ends; its exit code is negative if a signal ended it."""
        code = self._ask(fork.pid, timeout)
        texts = [Path(output).read_text() for output in fork.outputs]
        return subprocess.CompletedProcess(fork.arguments, code, *texts)

    def _ask(self, request: object, timeout: float) -> int:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], timeout)
        if not ready:
            raise subprocess.TimeoutExpired(str(request), timeout)
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """Ends the process; a fork that still runs goes on."""
        self._process.stdin.close()
        self._process.wait(60)


def _serve() -> None:
    # Nothing that computes: threads are not forked.
    import pipelines  # noqa: F401  (what they set in the environment)
    from robust_tf import machine

    machine.load_tensorflow()
    import matplotlib.pyplot  # noqa: F401
    import scipy.stats  # noqa: F401
    import seaborn  # noqa: F401
    import tensorflow_datasets  # noqa: F401

    gc.freeze()
    # Such a process does not take TensorFlow down when it ends, which takes a second.
    fork = multiprocessing.get_context("fork").Process
    children = {}
    for line in sys.stdin:
        request = json.loads(line)
        if isinstance(request, int):
            child = children.pop(request)
            child.join()
            print(child.exitcode, flush=True)
        else:
            child = fork(target=_run, args=request)
            child.start()
            children[child.pid] = child
            print(child.pid, flush=True)


def _run(arguments: list[str], environment: dict[str, str], *outputs: str) -> None:
    for descriptor, output in enumerate(outputs, start=1):
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    # As in a terminal, even where what started the tests ignores Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _fork_a_server()
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


def _fork_a_server() -> None:
    """Starts the server that a sweep's processes are forks of: as a fork, not as a fresh process.

    `multiprocessing` would start one that imports TensorFlow once more.
    """
    server = multiprocessing.forkserver._forkserver
    with socket.socket(socket.AF_UNIX) as listener:
        address = multiprocessing.connection.arbitrary_address("AF_UNIX")
        listener.bind(address)
        listener.listen()
        alive, server._forkserver_alive_fd = os.pipe()
        server._forkserver_address, server._forkserver_pid = address, os.fork()
        if not server._forkserver_pid:
            os.close(server._forkserver_alive_fd)  # it ends when all others have closed it
            try:
                multiprocessing.forkserver.main(listener.detach(), alive, [])
            finally:
                os._exit(0)
    os.close(alive)


if __name__ == "__main__":
    _serve()
