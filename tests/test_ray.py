"""Sweeps on a real Ray cluster of two nodes, of which one does not see a directory of the other."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from robust_tf.errors import InvalidArgument
from robust_tf.executors import ray
from robust_tf.executors.ray import Cluster
from tests import short_sweep
from tests.forks import Begun
from tests.helpers import ROOT, check_one_line, command_line
from tests.test_sweeps import SMALL, tables

pytest.importorskip("ray", reason="needs Ray: python -m pip install 'robust_tf[cluster]'")

# Long enough to be disturbed.
GRID = (
    *[flag for flag in SMALL if not flag.startswith("--epochs")],
    "--epochs=120",
    "--strategies=constant,transfer",
    "--perturbs=hot",
    "--levels=4",
    "--threads=1",
)
NODES = ("127.0.0.2", "127.0.0.3")


def processes(text: str) -> dict[int, str]:
    """The command lines that have a text in them, by process."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if text in line:
                found[int(folder.name)] = line
    return found


def parent(process: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Nodes:
    """A cluster: its address, the environment to reach it with, and its processes."""

    def __init__(self, hidden: Path):
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: it holds sockets
        with socket.socket() as free:
            free.bind((NODES[0], 0))
            self.address = f"{NODES[0]}:{free.getsockname()[1]}"
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.environment = {**os.environ, **token, "RAY_ADDRESS": self.address}
        head = ["--head", f"--port={self.address.rpartition(':')[2]}", "--include-dashboard=false"]
        head.append(f"--temp-dir={self.folder}")
        self._starts = [self._start(NODES[0], head, [])]
        self.wait_for_nodes(1)
        # In a mount namespace of its own, with nothing where the first has a directory.
        hide = f'mount -t tmpfs none "{hidden}" && exec "$@"'
        hiding = ["unshare", "--mount", "sh", "-c", hide, "sh"]
        self.hides = not subprocess.call([*hiding, "true"], stderr=subprocess.DEVNULL)
        second = [f"--address={self.address}"]
        self._starts.append(self._start(NODES[1], second, hiding if self.hides else []))
        self.wait_for_nodes(2)

    def _start(self, node: str, flags: list[str], prefix: list[str]) -> subprocess.Popen:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *flags]
        options = ["--num-cpus=1", "--object-store-memory=200000000", "--disable-usage-stats"]
        environment = {k: v for k, v in self.environment.items() if k != "RAY_ADDRESS"}
        return subprocess.Popen(
            [*prefix, *command, f"--node-ip-address={node}", *options],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait_for_nodes(self, count: int) -> None:
        wait_for(lambda: len(self.raylets()) == count)
        command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
        wait_for(lambda: not subprocess.call(command, env=self.environment, timeout=60))

    def raylets(self) -> dict[str, int]:
        """The process of each node, by its address."""
        return {
            node: process
            for process, line in processes("/raylet/raylet ").items()
            for node in NODES
            if str(self.folder) in line and f"--node_ip_address={node} " in line
        }

    def workers(self, node: str) -> list[int]:
        """The processes of a node that carry out a task."""
        raylet = self.raylets()[node]
        return [each for each in processes("ray::_carry_out") if parent(each) == raylet]

    def stop(self) -> None:
        raylets = set(self.raylets().values())
        workers = {each for each in processes("ray::") if parent(each) in raylets}
        for start in self._starts:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(start.pid, signal.SIGTERM)
        time.sleep(1)
        for start in self._starts:  # Ray takes half a minute to end all by itself
            with contextlib.suppress(ProcessLookupError):
                os.killpg(start.pid, signal.SIGKILL)
            start.wait(60)
        for process in processes(str(self.folder)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        wait_for(lambda: not processes(str(self.folder)), 30)
        wait_for(lambda: not workers & set(processes("ray::")), 30)
        shutil.rmtree(self.folder)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """A folder that both nodes see."""
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def hidden() -> Iterator[Path]:
    """A folder that the second node does not see."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def nodes(hidden, forks) -> Iterator[Nodes]:
    both = Nodes(hidden)
    both.forks = forks
    yield both
    both.stop()  # fails if a process is left


def begin(nodes: Nodes, folder: Path, *flags: str, models=GRID, pipeline="grid") -> Begun:
    """Begins a sweep on the cluster in a fork."""
    line = command_line(folder, *models, *flags, pipeline=f"pipelines.{pipeline}")[2:]
    output = Path(tempfile.mkdtemp(dir=nodes.folder))
    return Begun(nodes.forks, nodes.forks.start(line, output, nodes.environment))


def epochs(folder: Path) -> dict[str, int]:
    """Epochs done of the models that are being trained, as this machine sees it."""
    return {
        path.parents[1].stem: int(path.stem.removeprefix("epoch-"))
        for path in folder.glob("results/*.partial/backup/epoch-*.npz")
    }


def check_same(folder: Path, expected: Path) -> None:
    trials, runs = tables(folder / "results")
    expected_trials, expected_runs = tables(expected / "results")
    assert trials == expected_trials
    pd.testing.assert_frame_equal(runs, expected_runs)
    saved_models = sorted(path.parent.name for path in folder.glob("saved_models/*/1"))
    assert saved_models == sorted(runs["run"])
    left = [path.name for path in (folder / "results").iterdir()]
    assert sorted(left) == sorted(["grid", *runs["run"]])


@pytest.fixture(scope="module")
def undisturbed(outputs, nodes) -> Path:
    """A sweep of this machine alone."""
    folder = outputs / "undisturbed"
    process = begin(nodes, folder, "--workers=2")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and "3 of 3 models are done" in out, err
    return folder


def test_two_nodes_with_a_worker_killed_in_the_middle(nodes, outputs, undisturbed):
    folder = outputs / "killed"
    process = begin(nodes, folder, "--executor=ray")
    # Both nodes are at work.
    wait_for(lambda: all(map(nodes.workers, NODES)) and len(epochs(folder)) >= 2)
    for node in NODES:
        for worker in nodes.workers(node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and "3 of 3 models are done" in out, err
    check_same(folder, undisturbed)
    row = pd.read_csv(folder / "results" / "grid" / "tables" / "runs.csv").iloc[0]
    # Version 2 if its worker was killed between the export and the results.
    assert Path(row["saved_model"]).parent == folder / "saved_models" / row["run"]
    assert Path(row["saved_model"]).is_dir()


def test_a_stopped_sweep_goes_on(nodes, outputs, undisturbed):
    folder = outputs / "stopped"
    process = begin(nodes, folder, "--executor=ray", "--workers=1")
    wait_for(lambda: max(epochs(folder).values(), default=0) > 30)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not any(map(nodes.workers, NODES)))  # they go with who began them
    before = epochs(folder)
    assert max(before.values()) > 30
    process = begin(nodes, folder, "--executor=ray")
    # It goes on from the state that was left, on whichever node.
    low = dict(before)
    while process.poll() is None:
        low = {run: min(done, epochs(folder).get(run, done)) for run, done in low.items()}
        time.sleep(0.05)
    assert low == before
    assert process.returncode == 0, process.communicate()
    check_same(folder, undisturbed)


def test_one_node_that_the_sweep_starts_itself(nodes, outputs):
    folder = outputs / "local"
    before = set(processes("raylet "))
    one = {"models": (*SMALL, "--perturbs=hot", "--threads=1"), "pipeline": "impact"}
    process = begin(nodes, folder, "--executor=ray", "--ray_address=local", **one)
    open_to_others = set()

    def look() -> bool:
        for raylet in set(processes("/raylet/raylet ")) - before:
            open_to_others.update(listening(raylet) - {"127.0.0.1"})
        time.sleep(2)  # looking at all processes takes half a second of a core
        return process.poll() is not None

    wait_for(look, 300)
    out, err = process.communicate()
    assert process.returncode == 0 and "1 of 1 model is done" in out, err
    assert open_to_others == set()
    wait_for(lambda: set(processes("/raylet/raylet ")) <= before, 30)


def listening(process: int) -> set[str]:
    """The addresses that a process waits for connections at."""
    found = set()
    with contextlib.suppress(OSError):  # it has ended meanwhile
        sockets = {os.readlink(path) for path in Path(f"/proc/{process}/fd").iterdir()}
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                if state == "0A" and f"socket:[{inode}]" in sockets:
                    words = bytes.fromhex(local.partition(":")[0])
                    found.add(socket.inet_ntoa(words[-4:][::-1]))
    return found


@pytest.fixture
def grid(nodes, forks, tmp_path, tmp_path_factory):
    """Runs a sweep on the cluster in a fork; see `command`."""

    def run(*flags: str, **changes: str) -> subprocess.CompletedProcess:
        line = command_line(tmp_path, *GRID, "--executor=ray", *flags, pipeline="pipelines.grid")
        environment = {**nodes.environment, **changes}
        return forks.run(line[2:], tmp_path_factory.mktemp("output"), environment, 120)

    return run


UNAVAILABLE = {
    "--ray_address=127.0.0.1:9": "--ray_address=127.0.0.1:9: nothing answers there",
    "--ray_address=a..b:6379": "--ray_address=a..b:6379: nothing answers there",
    "--ray_address=no.such.host:6379": "--ray_address=no.such.host:6379: nothing answers there",
    "--num_cpus=64": "--num_cpus=64.0: expected at most 1, what a machine of the cluster has",
    "--num_gpus=0.5": "--num_gpus=0.5: expected at most 0, what a machine of the cluster has",
    "--memory=9000": "--memory=9000.0: expected at most ",
}


@pytest.mark.parametrize("flag", UNAVAILABLE)
def test_what_the_cluster_does_not_have_is_one_line(grid, tmp_path, flag):
    done = grid(flag)
    check_one_line(done, 1, UNAVAILABLE[flag])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


BAD_FLAGS = {
    "--ray_address=junk": "--ray_address=junk: expected auto, local, or the host:port of a Ray",
    "--ray_address=ray://here:1": "--ray_address=ray://here:1: expected auto, local, or the",
    "--num_cpus=inf": "--num_cpus=inf: expected a number above 0",
    "--workers=0": "--workers=0: expected a whole number from 1 on",
}


@pytest.mark.parametrize("flag", BAD_FLAGS)
def test_bad_flags(grid, flag):
    check_one_line(grid(flag), 2, BAD_FLAGS[flag])


def test_another_token(grid):
    done = grid(RAY_AUTH_TOKEN=secrets.token_hex(32))
    check_one_line(done, 1, "its token is another; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN")


def test_without_the_extra(command, tmp_path):
    (tmp_path / "ray.py").write_text("raise ImportError('hidden')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    flags = (*GRID, "--executor=ray")
    done = command(*flags, pipeline="pipelines.grid", env={**os.environ, "PYTHONPATH": path})
    check_one_line(done, 1, "--executor=ray: expected the package ray; python -m pip install")


@pytest.mark.parametrize("flag", ["--ray_address=local", "--num_cpus=2", "--memory=1"])
def test_flags_of_a_cluster_without_one(command, flag):
    done = command(*GRID, flag, pipeline="pipelines.grid")
    check_one_line(done, 2, "expected no value with executor=local")


def test_a_cluster_checks_its_numbers():
    nan = float("nan")
    numbers = (("num_cpus", 0), ("num_cpus", nan), ("num_gpus", -1), ("num_gpus", nan))
    for name, value in (*numbers, ("memory", 0), ("memory", nan)):
        with pytest.raises(InvalidArgument, match=f"{name}={value}: expected"):
            Cluster(**{name: value})


def test_a_task_that_fails_is_not_tried_again(nodes, outputs, undisturbed):
    folder = outputs / "failing"
    name = next((undisturbed / "results").glob("*natural*")).name
    (folder / "results").mkdir(parents=True)
    (folder / "results" / f"{name}.partial").write_text("where its folder is to be")
    process = begin(nodes, folder, "--executor=ray")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1 and "1 of 3 models are done" in out, err
    assert err.count("error: mnist natural: ") == out.count("mnist natural failed: ") == 1
    assert "error: mnist transfer hot 4: its natural model failed" in err


def test_a_machine_that_does_not_see_a_directory_is_refused(nodes, hidden):
    if not nodes.hides:
        pytest.skip("needs the right to mount")
    process = begin(nodes, hidden, "--executor=ray")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    problem = "127.0.0.3 does not see it; expected a directory that all machines share"
    assert err.splitlines()[-1] == f"error: --saved_models_dir={hidden}/saved_models: {problem}"
    assert "Traceback" not in err and "failed" not in err
    assert not list(hidden.glob("*/.cluster-*"))


def test_a_machine_with_other_versions_is_refused():
    refusal = ray._carry_out([None], None, {}, {**ray._versions(), "keras": "1.2"})
    assert refusal.argument == "ray_address"
    assert f" has keras {ray._versions()['keras']}; expected 1.2, as on the" in refusal.problem


def test_a_task_whose_workers_die_is_given_up(nodes, outputs, forks, tmp_path):
    folder = outputs / "dying"
    (folder / short_sweep.FAULTS).mkdir(parents=True)
    (folder / short_sweep.FAULTS / "dies-natural").touch()
    line = ["tests.short_sweep", f"{folder}/results", f"{folder}/saved_models"]
    environment = {**nodes.environment, "SHORT_SWEEP_RAY": nodes.address}
    done = forks.run(line, tmp_path, environment, 120)
    assert done.returncode == 1 and "4 of 9 models are done" in done.stdout, done.stderr
    assert "\nmnist natural: its worker died 4 times; " in done.stderr
    assert done.stderr.count(": its natural model failed\n") == 4
