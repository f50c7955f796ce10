"""Processes that carry out tasks, several at once; one that dies takes only its task along.

They know nothing of what a task is. With `concurrent.futures` all tasks fail when a
process dies. With `pebble` they fail when a process dies while it waits for a task, and a
task goes on when the process that gave it is killed.
"""

import functools
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from robust_tf.errors import InvalidArgument, Unavailable, one_line
from robust_tf.runs.pool import Outcome

# A process is replaced after so many tasks, so that no leak adds up.
_TASKS_PER_PROCESS = 20


class LocalPool:
    """Processes on this machine, started when they are needed; a `runs.pool.Pool`.

    At the end of the `with` statement all processes are ended, busy or not. They also end
    when this process does, for whatever reason.

    Args:
        count: how many tasks are carried out at once, from 1 on.
        function: carries out a task, and returns what is to be noted of it, if anything. It is
            called in another process, so it must be picklable, and so must each task.

    Raises:
        InvalidArgument: if `count` is below 1.
    """

    def __init__(self, count: int, function: Callable[[Any], Iterable[str] | None]):
        """See the class."""
        if count < 1:
            raise InvalidArgument("workers", count, "a whole number from 1 on")
        self._count = count
        self._function = function
        self._context = _context(function)
        self._idle: list[_Process] = []
        self._busy: dict[Any, _Process] = {}

    def __enter__(self) -> "LocalPool":
        """Starts nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends all processes."""
        for process in [*self._idle, *self._busy.values()]:
            process.kill()

    @property
    def busy(self) -> int:
        """How many tasks have been submitted and not ended."""
        return len(self._busy)

    @property
    def free(self) -> int:
        """How many more tasks are welcome."""
        return self._count - self.busy

    def submit(self, task: Any) -> None:
        """Begins a task; `free` must not be 0."""
        self._idle = [process for process in self._idle if process.reusable]
        process = self._idle.pop() if self._idle else _Process(self._context, self._function)
        process.begin(task)
        self._busy[process.connection] = process

    def wait(self, seconds: float) -> list[Outcome]:
        """Waits until a task has ended, or for some time.

        Args:
            seconds: the longest to wait.

        Returns:
            The tasks that have ended meanwhile.
        """
        outcomes = []
        for connection in multiprocessing.connection.wait(list(self._busy), seconds):
            process = self._busy.pop(connection)
            outcomes.append(process.outcome())
            if process.reusable:
                self._idle.append(process)
            else:
                process.kill()
        return outcomes


def _context(function: Callable) -> multiprocessing.context.BaseContext:
    """How processes are started: on Linux as forks of one that has imported all they need.

    Elsewhere libraries are not safe to be forked, and each process takes seconds to import
    TensorFlow.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    while isinstance(function, functools.partial):
        function = function.func
    # Where this process has TensorFlow, those that carry out tasks need it.
    quietly = ["robust_tf.executors.preload"] if "tensorflow" in sys.modules else []
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*quietly, function.__module__])
    # Ctrl-C is for this process; starting the tracker later would unblock it again.
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


class _Process:
    """A process, and the end of a pipe to it."""

    def __init__(self, context: Any, function: Callable):
        self.connection, other = context.Pipe()
        for last in (False, True):
            self._process = context.Process(target=_serve, args=(other, function), daemon=True)
            try:
                self._process.start()
                break
            except EOFError:  # the process that forks was killed; soon there is another
                if last:
                    raise
                time.sleep(1)
        other.close()  # so that the pipe breaks when the process dies
        self._done = 0

    @property
    def reusable(self) -> bool:
        died = self.connection.poll()  # while it waits nothing comes but the pipe's end
        return not died and self._done < _TASKS_PER_PROCESS

    def begin(self, task: Any) -> None:
        self._task = task
        self.connection.send(task)

    def outcome(self) -> Outcome:
        self._done += 1
        try:
            return Outcome(self._task, *self.connection.recv())
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode or 0
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited ({code})"
            return Outcome(self._task, f"its process {how}")

    def kill(self) -> None:  # which takes no second, as leaving TensorFlow would
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(connection: Any, function: Callable) -> None:
    """What the other process does: one task at a time, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started us
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(attempt(function, task))


def attempt(
    function: Callable[..., Iterable[str] | None], *arguments: Any, **named: Any
) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Calls a function; returns the problem, the details and the notes, as in `Outcome`."""
    try:
        notes = function(*arguments, **named) or ()
    except (InvalidArgument, Unavailable) as error:
        return str(error), None, ()
    except Exception as error:
        return f"{type(error).__name__}: {one_line(error)}", traceback.format_exc(), ()
    return None, None, tuple(dict.fromkeys(notes))


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
