"""Whole runs as processes: time by part, start-up, peak memory, and PyTorch's beside it."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.timing import medians
from robust_tf.data import Data
from robust_tf.runs import resolve

# The paper's constant training on MNIST with three tests of 25 trials, without the natural
# model that `pipelines.run` trains to compare with.
MNIST = ["--strategy=constant", "--perturb=hot", "--nocompare_natural"]
# One epoch of the whole of CIFAR-10: longer runs take no more memory.
CIFAR10 = [*MNIST, "--dataset=cifar10", "--epochs=1", "--trials=1", "--test_examples=1000"]


def measure(
    data: Data, rounds: int, flags: list[str]
) -> tuple[pd.DataFrame, dict[str, float], list[str]]:
    """Times one MNIST model, robust_tf's process and PyTorch's in turn.

    Args:
        data: MNIST, handed to PyTorch as arrays; robust_tf reads it itself.
        rounds: timed rounds, without a warm-up.
        flags: those of `pipelines.run` that say where the data come from.

    Returns:
        One row per tool: seconds (median) and peak memory in GiB; the seconds of the parts of
        robust_tf's last run; and what was left out, with the reason.
    """
    left_out = []
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "mnist.npz"
        np.savez(
            arrays,
            train_images=data.train.images.numpy(),
            train_labels=data.train.labels.numpy(),
            test_images=data.test.images.numpy(),
            test_labels=data.test.labels.numpy(),
        )
        peer = [sys.executable, "-m", "benchmarks.torch_run", str(arrays), f"{folder}/torch"]
        size = resolve(data, perturb="hot").recipe.batch_size
        commands = {
            "PyTorch, channels-last": [*peer, "channels_last", str(size)],
            "PyTorch": [*peer, "contiguous", str(size)],
        }
        try:
            import torch  # noqa: F401
        except ImportError as error:
            left_out.append(f"PyTorch: {error}")
            commands = {}
        found: dict[str, list[tuple[float, float]]] = {}
        parts: dict[str, float] = {}
        for round_ in range(rounds):
            seconds, memory, parts = timed_run([*MNIST, *flags], Path(folder) / str(round_))
            found.setdefault("robust_tf", []).append((seconds, memory))
            for name in list(commands):
                try:
                    found.setdefault(name, []).append(run(commands[name]))
                except RuntimeError as error:
                    left_out.append(f"{name}: {error}")
                    del commands[name], found[name]
    rows = [
        (name, statistics.median(s for s, _ in values), max(m for _, m in values))
        for name, values in found.items()
    ]
    table = pd.DataFrame(rows, columns=["tool", "seconds", "peak_gib"])
    table["ratio"] = table["seconds"] / table["seconds"][0]
    return table, {**parts, **first_words(rounds)}, left_out


def first_words(rounds: int) -> dict[str, float]:
    """Seconds (median) that `pipelines.run` takes to print its help, and to refuse a flag."""

    def run_with(flag: str, code: int) -> float:
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "pipelines.run", flag], capture_output=True)
        assert done.returncode == code, done.stderr.decode()
        return time.perf_counter() - start

    asked = {"help": ("--help", 0), "a flag that is refused": ("--strategy=none", 2)}
    return medians(
        {
            what: lambda flag=flag, code=code: run_with(flag, code)
            for what, (flag, code) in asked.items()
        },
        rounds,
    )


def timed_run(flags: list[str], folder: Path) -> tuple[float, float, dict[str, float]]:
    """Seconds, peak memory in GiB and seconds by part of a `pipelines.run`."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "benchmarks.timed_run", *flags]
    command += [f"--output_dir={folder}/results", f"--saved_models_dir={folder}/saved"]
    seconds, memory = run(command, ROBUST_TF_SECONDS=str(folder / "seconds.json"))
    parts = json.loads((folder / "seconds.json").read_text(encoding="utf-8"))
    (history,) = (folder / "results").glob("*/history.csv")
    epochs = pd.read_csv(history)["seconds"]
    # What the first epoch takes longer than others is tracing and starting.
    tracing = max(0.0, epochs[0] - epochs.median()) if len(epochs) > 1 else 0.0
    parts["start-up"] = parts["imports"] + parts["data"] + parts["set-up"] + tracing
    parts["others"] = seconds - sum(
        parts[part]
        for part in ("imports", "data", "set-up", "training", "export", "tests", "figures")
    )
    return seconds, memory, parts


def run(command: list[str], **environment: str) -> tuple[float, float]:
    """Seconds and peak memory in GiB of a process.

    Raises:
        RuntimeError: if it fails.
    """
    memory = 0.0
    with tempfile.TemporaryFile("w+") as output:
        start = time.time()
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, "ROBUST_TF_BEGIN": str(start)},
        )
        # What the system reports of a child afterwards includes the parent's memory.
        while process.poll() is None:
            memory = max(memory, _peak_gib(process.pid))
            time.sleep(0.05)
        seconds = time.time() - start
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed: {output.read()[-2000:]}")
    return seconds, memory


def _peak_gib(pid: int) -> float:
    """The most memory that a running process has had; 0 when it has just ended."""
    try:
        lines = (
            Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
        )
    except FileNotFoundError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def goals(table: pd.DataFrame, parts: dict[str, float]) -> list[tuple]:
    """(number, what, goal, figure, whether it is met) of the README's table."""
    rows = []
    for row in table[table["tool"] != "robust_tf"].itertuples():
        rows.append((5, f"mnist: one model, times {row.tool}", 2.5, row.ratio, row.ratio >= 2.5))
    most = [
        (6, "mnist: start-up in seconds", 4.0, parts["start-up"]),
        (6, "mnist: reading in seconds", 0.7, parts["data"]),
        (6, "help in seconds", 0.5, parts["help"]),
        (6, "a flag that is refused, in seconds", 0.3, parts["a flag that is refused"]),
        (7, "mnist: peak memory in GiB", 0.9, table["peak_gib"][0]),
    ]
    return rows + [(*row, row[-1] < row[-2]) for row in most]
