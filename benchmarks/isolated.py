"""Peers in processes of their own, so that one that crashes takes nothing else along.

The process reads a line of JSON per request, the arguments of its function or null to be timed,
and answers each by one.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.timing import Failed, medians, times


class Isolated:
    """A process that is started when it is needed, and again when it has died.

    Args:
        function: "module:name" of a function that returns what is to be timed, or None where
            the peer has nothing of the kind.
    """

    def __init__(self, function: str):
        """See the class."""
        self._command = [sys.executable, "-m", "benchmarks.isolated", function]
        self._process: subprocess.Popen | None = None

    def prepare(self, *arguments: Any) -> bool:
        """Calls the function there; whether there is something to time.

        Raises:
            Failed: if the function does, or its process dies.
        """
        return self._ask(list(arguments))

    def seconds(self) -> float:
        """Times once what was prepared; raises as `prepare`."""
        return self.times()[0]

    def times(self) -> tuple[float, float]:
        """Likewise, with the processor time; see `timing.times`."""
        return tuple(self._ask(None))

    def _ask(self, request: list | None) -> Any:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
        except (BrokenPipeError, ValueError):  # no answer is no JSON
            code = self.close()
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited ({code})"
            raise Failed(f"its process {how}") from None
        if "problem" in answer:
            raise Failed(answer["problem"])
        return answer["value"]

    def close(self) -> int:
        """Ends the process; its exit code, 0 if there was none."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.communicate()  # it ends when nothing more can come
        return process.returncode


def speeds(
    ours: dict[str, tuple[Callable[[], object], int]],
    peers: dict[str, tuple[Isolated, list, int]],
    rounds: int,
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Images per second of functions of this process and of peers, which take turns.

    Args:
        ours: by name, what is timed and how many images it takes.
        peers: by name, the process, the arguments of `prepare`, and its number of images.
        rounds: timed rounds.

    Returns:
        By name, the images per second of wall-clock and of processor time; and why peers are
        missing. Those that have nothing of the kind are in neither.
    """
    timed: dict[str, Callable] = {
        name: lambda run=run: times(run) for name, (run, _) in ours.items()
    }
    failed: dict[str, str] = {}
    for name, (process, arguments, _) in peers.items():
        try:
            if process.prepare(*arguments):
                timed[name] = process.times
        except Failed as error:
            failed[name] = str(error)
    images = {name: own[-1] for name, own in (ours | peers).items()}
    found = medians(timed, rounds, failed)
    return {name: images[name] / taken for name, taken in found.items()}, failed


def main(function: str) -> None:
    """What the process does."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    module, _, name = function.partition(":")
    timed = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request is None:
                answer = {"value": times(timed)}
            else:
                timed = getattr(importlib.import_module(module), name)(*request)
                answer = {"value": timed is not None}
        except Exception as error:  # a tool that is not installed or does not work
            answer = {"problem": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
