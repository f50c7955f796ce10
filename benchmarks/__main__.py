"""Measures everything and writes tables and a figure; see README.md.

Ratios within one run: variants take turns, and a figure is the median of the rounds.
"""

import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import tensorflow as tf
from absl import app, flags

from benchmarks import (
    cluster,
    disk,
    evaluation,
    fleet,
    input_cost,
    perturbations,
    processes,
    roofline,
    sensor,
    steps,
)
from robust_tf import data, machine
from robust_tf.perturbations import all_kinds

# What a part returns: tables by name, rows of the table of goals, and what was left out.
Found = tuple[dict[str, pd.DataFrame], list[tuple], list[str]]


def main() -> None:
    """Measures the parts and writes what they found."""
    folder = Path(_OUTPUT_DIR.value)
    folder.mkdir(parents=True, exist_ok=True)
    if len(_ONLY.value) > 1:
        # One by one: threads and memory that a part leaves behind would slow the next.
        common = [f"--rounds={_ROUNDS.value}", f"--output_dir={folder}", *source_flags()]
        common += ["--quick"] if _QUICK.value else []
        failed = [
            part
            for part in _ONLY.value
            if subprocess.run(
                [sys.executable, "-m", "benchmarks", f"--only={part}", *common]
            ).returncode
        ]
        if failed:
            sys.exit(f"these parts failed: {', '.join(failed)}")
        return
    (part,) = _ONLY.value
    # XLA cannot compile a training step of deterministic ops; other tools are not asked for them.
    if part not in ("precision", "disk"):
        tf.config.experimental.enable_op_determinism()
    print(f"{machine.name()}, Python {platform.python_version()}, TensorFlow {tf.__version__}")
    tables, goals, left_out = PARTS[part](folder)
    columns = ["goal", "what", "limit", "figure", "met"]
    if goals:
        tables[f"goals_{part}"] = pd.DataFrame(goals, columns=columns)
    for name, table in tables.items():
        write(table, folder, name)
    for line in left_out:
        print(f"left out: {line}")


def write(table: pd.DataFrame, folder: Path, name: str) -> None:
    """Writes a table as CSV and prints it."""
    table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    print(f"\n{name}\n{table.to_string(index=False, float_format='{:.3f}'.format)}", flush=True)


def share() -> int:
    """The part of the work that is done: 1 of this many."""
    return 20 if _QUICK.value else 1


def measure_perturbations(folder: Path) -> Found:
    """Goal 1."""
    table, missing = perturbations.measure(_ROUNDS.value, share())
    perturbations.draw(table, folder / "perturbations.png")
    return {"perturbations": table}, perturbations.goals(table), missing


def measure_input(_: Path) -> Found:
    """Goal 2."""
    mnist = load("mnist").train
    kinds = ("noise",) if _QUICK.value else all_kinds()
    table = input_cost.measure(mnist.first(len(mnist) // share()), _ROUNDS.value, kinds)
    tables, goals = {"input_mnist": table}, input_cost.goals("mnist", table)
    if _DATA_SOURCE.value == "sample":
        return tables, goals, ["input, cifar10: there is no sample of it"]
    few = load("cifar10").train.first(500 // share())
    tables["input_cifar10"] = input_cost.measure(few, _ROUNDS.value, ("noise",))
    return tables, [*goals, *input_cost.goals("cifar10", tables["input_cifar10"])], []


def measure_steps(_: Path) -> Found:
    """Goal 3."""
    table, missing = steps.measure(_ROUNDS.value, share())
    return {"steps": table}, steps.goals(table), missing


def measure_roofline(_: Path) -> Found:
    """Goal 3: what stands in the way of quicker steps."""
    rounds = _ROUNDS.value
    layers, tried = roofline.measure(rounds), roofline.alternatives(rounds)
    return {"roofline": layers, "alternatives": tried}, [], []


def measure_evaluation(_: Path) -> Found:
    """Goal 4."""
    table = evaluation.measure(load("mnist").test, _ROUNDS.value)
    return {"evaluation": table}, evaluation.goals(table), []


def measure_processes(_: Path) -> Found:
    """Goal 5, and start-up and memory of MNIST."""
    rounds = max(1, _ROUNDS.value - 2)
    few = ["--epochs=2", "--trials=2"] if _QUICK.value else []
    table, parts, missing = processes.measure(load("mnist"), rounds, [*source_flags(), *few])
    seconds = pd.DataFrame(parts.items(), columns=["part", "seconds"])
    return {"processes": table, "parts": seconds}, processes.goals(table, parts), missing


def measure_memory(_: Path) -> Found:
    """Goal 7, of CIFAR-10."""
    if _DATA_SOURCE.value == "sample":
        return {}, [], ["memory, cifar10: there is no sample of it"]
    load("cifar10")
    few = ["--train_examples=500"] if _QUICK.value else []
    with tempfile.TemporaryDirectory() as scratch:
        run = [*processes.CIFAR10, *source_flags(), *few]
        _, memory, _ = processes.timed_run(run, Path(scratch) / "run")
    return {}, [(7, "cifar10: peak memory in GiB", 2.0, memory, memory < 2.0)], []


def measure_cluster(_: Path) -> Found:
    """What Ray adds to a sweep, and how much is moved per model."""
    few = ["--epochs=2", "--trials=2"] if _QUICK.value else []
    rounds = max(1, _ROUNDS.value - 2)
    table, moved, missing = cluster.measure(rounds, [*source_flags(), *few])
    return {"cluster": table, "moved": moved}, cluster.goals(table), missing


def measure_precision(_: Path) -> Found:
    """Training steps in other precisions, and compiled by XLA (see `--jit_compile`)."""
    settings = ["mnist"] if _QUICK.value else list(steps.SETTINGS)
    return {"precision": steps.precisions(_ROUNDS.value, settings)}, [], []


def measure_disk(_: Path) -> Found:
    """Goals 9 and 10: photos, and a dataset larger than memory."""
    table, missing = disk.measure(_ROUNDS.value, share())
    memory = disk.peak_gib(share())
    return {"disk": table}, disk.goals(table, memory), missing


def measure_sensor(_: Path) -> Found:
    """Goals 11 and 12: sensors, corrections, later kinds, and fleets."""
    table, missing = sensor.measure(_ROUNDS.value, share())
    mnist, rounds = load("mnist"), max(1, _ROUNDS.value - 2)
    ways = fleet.measure(mnist, rounds, source_flags(), share())
    found = [*sensor.goals(table), *fleet.goals(ways)]
    return {"sensor": table, "fleet": ways}, found, missing


def source_flags() -> list[str]:
    """Where data come from, as flags of `pipelines.run`."""
    directory = [f"--data_dir={_DATA_DIR.value}"] if _DATA_DIR.value else []
    return [f"--data_source={_DATA_SOURCE.value}", *directory]


def load(name: str) -> data.Data:
    """A dataset as the flags say."""
    return data.load(name, data_dir=_DATA_DIR.value, data_source=_DATA_SOURCE.value)


PARTS: dict[str, Callable[[Path], Found]] = {
    "perturbations": measure_perturbations,
    "input": measure_input,
    "steps": measure_steps,
    "roofline": measure_roofline,
    "evaluation": measure_evaluation,
    "processes": measure_processes,
    "memory": measure_memory,
    "cluster": measure_cluster,
    "precision": measure_precision,
    "disk": measure_disk,
    "sensor": measure_sensor,
}

_ONLY = flags.DEFINE_multi_enum(
    "only", list(PARTS), list(PARTS), "A part to measure; may be repeated."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "TFDS's data directory.")
_DATA_SOURCE = flags.DEFINE_enum("data_source", "auto", list(data.SOURCES), "As in pipelines.run.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed rounds; two fewer for whole processes.")
_QUICK = flags.DEFINE_bool("quick", False, "A small part of the work, to see that it runs.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "benchmarks/results", "Where the tables go.")


if __name__ == "__main__":
    app.run(lambda _: main())
