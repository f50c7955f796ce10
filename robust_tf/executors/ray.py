"""A Ray cluster that carries out tasks; a task whose worker dies is given to another.

Like `processes`, it knows nothing of what a task is. All machines of the cluster must see
the directories that tasks work in.
"""

import contextlib
import dataclasses
import functools
import logging
import math
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import robust_tf
from robust_tf.errors import InvalidArgument, Unavailable, one_line
from robust_tf.executors.processes import attempt
from robust_tf.files import is_locked, locked, replacing
from robust_tf.runs.pool import Outcome

# A worker is replaced after so many tasks, so that no leak adds up.
_TASKS_PER_WORKER = 20
# How often a task is begun again because its worker died.
_RETRIES = 3
_CONNECT_SECONDS = 30  # of which a busy machine needs some to import Ray
# A folder by which other machines see whether they share a directory.
_MARK = ".cluster-"


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and what a task needs of it.

    Attributes:
        address: "auto" for the cluster that this machine belongs to; "local" for a new one
            of this machine alone, which no other machine can reach; or the host:port of a
            cluster that this machine belongs to.
        num_cpus: cores that are set aside for a task, above 0.
        num_gpus: GPUs that are set aside, from 0 on; a fraction lets tasks share one.
        memory: GiB that are set aside, above 0; None for no limit.

    Raises:
        InvalidArgument: if a number is out of range.
    """

    address: str = "auto"
    num_cpus: float = 1
    num_gpus: float = 0
    memory: float | None = None

    def __post_init__(self):
        """Checks the numbers."""
        if not 0 < self.num_cpus < math.inf:
            raise InvalidArgument("num_cpus", self.num_cpus, "a number above 0")
        if not 0 <= self.num_gpus < math.inf:
            raise InvalidArgument("num_gpus", self.num_gpus, "a number from 0 on")
        if self.memory is not None and not 0 < self.memory < math.inf:
            raise InvalidArgument("memory", self.memory, "GiB, a number above 0")

    @property
    def request(self) -> dict[str, tuple[str, float, float]]:
        """By Ray's resource: the argument, its value, and the amount in Ray's unit."""
        request = {
            "CPU": ("num_cpus", self.num_cpus, self.num_cpus),
            "GPU": ("num_gpus", self.num_gpus, self.num_gpus),
        }
        if self.memory is not None:
            request["memory"] = ("memory", self.memory, self.memory * 2**30)
        return request


@functools.cache
def _versions() -> dict[str, str]:
    """What must be the same everywhere for the same numbers, by package."""
    import keras
    import tensorflow as tf

    packages: dict[str, Any] = {"robust_tf": robust_tf, "tensorflow": tf, "keras": keras}
    return {name: package.__version__ for name, package in packages.items()}


class RayPool:
    """Workers of a Ray cluster; a `runs.pool.Pool`.

    Args:
        cluster: the cluster.
        function: carries out a task. It is called in another process, with the task and
            `load`, which gives the dataset of a run.
        count: how many tasks are carried out at once, at most; None for as many as
            there is room for.
        directories: what tasks write, by argument; made already. Paths must mean the same
            on all machines.
        datasets: by name; handed to the workers, which need no files of theirs.

    Raises:
        Unavailable: on entering, if Ray is not installed, the cluster is out of reach,
            or none of its machines has room for a task. On waiting, if a machine does not
            see a directory or has another version of a package.
    """

    def __init__(
        self,
        cluster: Cluster,
        function: Callable,
        count: int | None,
        directories: Mapping[str, Path],
        datasets: Mapping[str, Any],
    ):
        """See the class."""
        self._cluster = cluster
        self._function = function
        self._count = count
        self._directories = directories
        self._datasets = datasets
        self._mark = f"{_MARK}{secrets.token_hex(8)}"
        self._locks = contextlib.ExitStack()
        self._running: dict[Any, Any] = {}  # Ray's reference to an outcome, to the task
        self._tries: dict[Any, int] = {}

    def __enter__(self) -> "RayPool":
        """Connects to the cluster."""
        ray = self._ray = _connect(self._cluster.address)
        try:
            self._check_room()
            for directory in self._directories.values():
                for left in directory.glob(f"{_MARK}*"):  # by a sweep that was killed
                    if not is_locked(left):
                        shutil.rmtree(left, ignore_errors=True)
                self._locks.enter_context(locked(directory / self._mark))
            stored = _Stored({name: ray.put(data) for name, data in self._datasets.items()})
            # In a list, so that Ray does not read it for each task.
            self._call = [ray.put(functools.partial(self._function, load=stored.of))]
            self._remote = ray.remote(
                num_cpus=self._cluster.num_cpus,
                num_gpus=self._cluster.num_gpus,
                memory=self._cluster.request.get("memory", ("", None, None))[2],
                max_retries=0,  # we begin again ourselves, and count
                max_calls=_TASKS_PER_WORKER,
            )(_carry_out)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Ends all tasks, running or not, and leaves the cluster."""
        self._ray.shutdown()
        for directory in self._directories.values():
            shutil.rmtree(directory / self._mark, ignore_errors=True)
        self._locks.close()

    @property
    def busy(self) -> int:
        """How many tasks are being carried out or wait for room in the cluster."""
        return len(self._running)

    @property
    def free(self) -> int:
        """How many more tasks are welcome.

        Without a limit twice as many as there is room for, so that no machine waits for
        this one, and a cluster that can grow sees why it should.
        """
        most = self._count or max(2, 2 * sum(map(self._room, self._nodes())))
        return max(0, most - self.busy)

    def submit(self, task: Any) -> None:
        """Begins a task, or goes on with it after its last whole epoch."""
        marks = {key: path / self._mark for key, path in self._directories.items()}
        self._running[self._remote.remote(self._call, task, marks, _versions())] = task

    def wait(self, seconds: float) -> list[Outcome]:
        """Waits until a task has ended, or for some time.

        Args:
            seconds: the longest to wait.

        Returns:
            The tasks that have ended meanwhile.

        Raises:
            Unavailable: if a machine does not see a directory or has another version of a
                package.
        """
        ray = self._ray
        if not self._running:
            return []
        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=seconds)
        if ready:
            ready, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        outcomes = []
        for reference in ready:
            task = self._running.pop(reference)
            try:
                outcomes.append(Outcome(task, *self._result(ray.get(reference))))
            except _died(ray) as error:
                self._tries[task] = self._tries.get(task, 0) + 1
                if self._tries[task] <= _RETRIES:
                    self.submit(task)
                else:
                    problem = f"its worker died {self._tries[task]} times; {one_line(error)}"
                    outcomes.append(Outcome(task, problem))
            except ray.exceptions.RayError as error:
                outcomes.append(Outcome(task, one_line(error), str(error)))
        return outcomes

    def _result(self, result: "_Refusal | tuple") -> tuple:
        """What a worker returned, unless its machine is of no use."""
        if not isinstance(result, _Refusal):
            return result
        value = {**self._directories, "ray_address": self._cluster.address}[result.argument]
        raise Unavailable(result.argument, value, result.problem)

    def _nodes(self) -> list[dict[str, float]]:
        """What each machine of the cluster has in all."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _room(self, node: dict[str, float]) -> int:
        """How many tasks a machine has room for."""
        request = self._cluster.request.items()
        return min(
            int(node.get(resource, 0) // amount) for resource, (*_, amount) in request if amount
        )

    def _check_room(self) -> None:
        nodes = self._nodes()
        for resource, (argument, value, amount) in self._cluster.request.items():
            most = max(node.get(resource, 0) for node in nodes) * value / (amount or 1)
            if value > most:
                expected = f"expected at most {most:.4g}, what a machine of the cluster has"
                raise Unavailable(argument, value, expected)
        if not any(map(self._room, nodes)):
            request = self._cluster.request.values()
            asked = ", ".join(f"{argument}={value}" for argument, value, _ in request)
            problem = f"expected a cluster with a machine that has room for {asked}"
            raise Unavailable("ray_address", self._cluster.address, problem)


def _connect(address: str) -> Any:
    """Ray, connected to a cluster."""
    if address == "local":  # reachable from this machine only, on every system
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ImportError:
        problem = "expected the package ray; python -m pip install 'robust_tf[cluster]'"
        raise Unavailable("executor", "ray", problem) from None
    if address != "local":
        _check_address(address)
    try:
        _guard_token(makes_one=address == "local")
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=False if address == "local" else None,
        )
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        raise Unavailable("ray_address", address, one_line(error)) from error
    return ray


def _guard_token(makes_one: bool) -> None:
    """Keeps the file of Ray's token from all others; Ray writes it as the umask says."""
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        return
    path = Path.home() / ".ray" / "auth_token"
    if path.exists():
        path.chmod(0o600)
    elif makes_one:
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            temporary.chmod(0o600)
            temporary.write_text(secrets.token_hex(32), encoding="utf-8")


def _check_address(address: str) -> None:
    """Sees within seconds what `ray.init` would try for minutes."""
    expected = "expected auto, local, or the host:port of a Ray cluster"
    if address != "auto":
        host, _, port = address.rpartition(":")
        if not (host and port.isdecimal()) or "/" in host:
            raise InvalidArgument("ray_address", address, expected.removeprefix("expected "))
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        except (OSError, OverflowError, UnicodeError) as error:  # no such port, no such name
            problem = f"nothing answers there ({one_line(error)}); {expected}"
            raise Unavailable("ray_address", address, problem) from error
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    command += [] if address == "auto" else ["--address", address]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_CONNECT_SECONDS, check=False
        )
        lines = done.stderr.strip().splitlines()
        healthy, said = done.returncode == 0, lines[-1] if lines else f"exit code {done.returncode}"
    except subprocess.TimeoutExpired:
        healthy, said = False, "no answer"
    if not healthy:
        if "uthentication" in said or "uthToken" in said:
            said = "its token is another; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as there"
        elif "ConnectionError" in said:
            said = "no cluster runs here; start one with `ray start --head`, or use local"
        raise Unavailable("ray_address", address, said)


def _died(ray: Any) -> tuple[type[Exception], ...]:
    """What Ray says when a task's worker, or its machine, is gone."""
    errors = ray.exceptions
    return (
        errors.WorkerCrashedError,
        errors.NodeDiedError,
        errors.OutOfMemoryError,
        errors.ObjectLostError,
    )


@dataclasses.dataclass(frozen=True)
class _Stored:
    """Datasets in Ray's object store, by name."""

    references: dict[str, Any]

    def of(self, run: Any) -> Any:
        return _fetch(self.references[run.dataset])


@functools.lru_cache(maxsize=4)  # a worker keeps its datasets
def _fetch(reference: Any) -> Any:
    import ray

    return ray.get(reference)


@dataclasses.dataclass(frozen=True)
class _Refusal:
    """Why a machine cannot carry out tasks, and which argument is about that."""

    argument: str
    problem: str


def _carry_out(
    references: list, task: Any, marks: Mapping[str, Path], versions: Mapping[str, str]
) -> "_Refusal | tuple":
    """Carries out a task, in a worker; returns how it ended, as `attempt`."""
    import ray

    here = ray.util.get_node_ip_address()
    for package, version in versions.items():
        if _versions()[package] != version:
            problem = f"{here} has {package} {_versions()[package]}; expected {version}, as on the "
            return _Refusal("ray_address", f"{problem}machine that began this")
    for argument, mark in marks.items():
        if not mark.exists():
            problem = f"{here} does not see it; expected a directory that all machines share"
            return _Refusal(argument, problem)
    return attempt(ray.get(references[0]), task)
