"""Measures everything and writes tables and a figure; see README.md.

Ratios within one run: variants take turns, and a figure is the median of the rounds.
"""

import platform
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import tensorflow as tf
from absl import flags

from benchmarks import evaluation, input_cost, perturbations, processes, steps
from pipelines import app
from robust_tf import data, runs
from robust_tf.perturbations import KINDS

PARTS = ("perturbations", "input", "steps", "evaluation", "processes", "memory")

_ONLY = flags.DEFINE_list("only", list(PARTS), f"Which parts: {', '.join(PARTS)}.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "TFDS's data directory.")
_DATA_SOURCE = flags.DEFINE_enum("data_source", "auto", data.DATA_SOURCES, "As in pipelines.run.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed rounds; whole processes have two less.")
_QUICK = flags.DEFINE_bool("quick", False, "A small part of everything: a try, not a figure.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "benchmarks/results", "Where the tables go.")


def main() -> None:
    """Measures the parts and writes what they found."""
    folder = Path(_OUTPUT_DIR.value)
    folder.mkdir(parents=True, exist_ok=True)
    rounds, goals, left_out = _ROUNDS.value, [], []
    part = 20 if _QUICK.value else 1
    print(f"{runs.machine()}, Python {platform.python_version()}, TensorFlow {tf.__version__}")

    def report(name: str, table: pd.DataFrame) -> None:
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
        print(f"\n{name}\n{table.to_string(index=False, float_format='{:.3f}'.format)}", flush=True)

    if "perturbations" in _ONLY.value:
        table, missing = perturbations.measure(rounds, part)
        report("perturbations", table)
        goals += perturbations.goals(table)
        left_out += missing
        draw(table, folder / "perturbations.png")
    if "input" in _ONLY.value:
        mnist = load("mnist").train
        table = input_cost.measure(mnist.first(len(mnist) // part), rounds, tuple(KINDS))
        report("input_mnist", table)
        goals += input_cost.goals("mnist", table)
        if _DATA_SOURCE.value != "sample":
            few = load("cifar10").train.first(1000 // part)
            table = input_cost.measure(few, rounds, ("noise",))
            report("input_cifar10", table)
            goals += input_cost.goals("cifar10", table)
    if "steps" in _ONLY.value:
        table, missing = steps.measure(rounds, part)
        report("steps", table)
        goals += steps.goals(table)
        left_out += missing
    if "evaluation" in _ONLY.value:
        table = evaluation.measure(load("mnist").test, rounds)
        report("evaluation", table)
        goals += evaluation.goals(table)
    if "processes" in _ONLY.value:
        table, parts, missing = processes.measure(load("mnist"), max(1, rounds - 2))
        report("processes", table)
        report("parts", pd.DataFrame(parts.items(), columns=["part", "seconds"]))
        goals += processes.goals(table, parts)
        left_out += missing
    if "memory" in _ONLY.value and _DATA_SOURCE.value != "sample":
        scratch = folder / "memory"
        _, memory, _ = processes.timed_run(processes.CIFAR10, scratch)
        shutil.rmtree(scratch)
        goals.append((7, "cifar10: peak memory in GiB", 3.0, memory, memory < 3.0))
    report("goals", pd.DataFrame(goals, columns=["goal", "what", "limit", "figure", "met"]))
    for line in left_out:
        print(f"left out: {line}")


def load(name: str) -> data.Data:
    """A dataset as the flags say."""
    return data.load(name, data_dir=_DATA_DIR.value, data_source=_DATA_SOURCE.value)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Images a second of all tools, as bars on a logarithmic axis."""
    grid = sns.catplot(
        table, kind="bar", x="images_per_s", y="perturb", hue="tool", col="setting",
        height=7, aspect=0.8, palette="tab20",
    )  # fmt: skip
    grid.set(xscale="log", xlabel="images per second", ylabel="")
    grid.savefig(path, dpi=100)
    plt.close(grid.figure)


if __name__ == "__main__":
    app.launch(main)
