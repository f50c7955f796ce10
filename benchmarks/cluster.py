"""Eight equal MNIST models, by processes of this machine and by Ray, in turn."""

import statistics
import sys
import tempfile
from pathlib import Path

import pandas as pd

from benchmarks import processes

# A natural and a constant model for each of four seeds: one epoch of either takes as long.
MODELS = 8
GRID = [
    "--datasets=mnist",
    "--strategies=constant",
    "--perturbs=hot",
    "--levels=3",
    "--seeds=0,1,2,3",
    "--threads=1",
    "--workers=2",
    "--noreference",
]
EXECUTORS = {
    "local": ["--executor=local"],
    # With the time that the cluster itself takes to start and stop.
    "ray": ["--executor=ray", "--ray_address=local"],
}


def measure(rounds: int, flags: list[str]) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Times the same sweep on both.

    Args:
        rounds: timed rounds, without a warm-up.
        flags: those of `pipelines.grid` that say where the data come from.

    Returns:
        One row per executor: seconds (median), ratio to local, and median seconds of the
        training of one model; the bytes of a model's results and of its SavedModel; and what
        was left out.
    """
    executors, left_out = dict(EXECUTORS), []
    try:
        import ray  # noqa: F401
    except ImportError as error:
        del executors["ray"]
        left_out.append(f"ray: {error}")
    seconds: dict[str, list[float]] = {name: [] for name in executors}
    training: dict[str, list[float]] = {name: [] for name in executors}
    with tempfile.TemporaryDirectory() as scratch:
        for round_ in range(rounds):
            for name, chosen in list(executors.items()):
                folder = Path(scratch, f"{name}-{round_}")
                command = [sys.executable, "-m", "pipelines.grid", *GRID, *chosen, *flags]
                command += [f"--output_dir={folder}/results", f"--saved_models_dir={folder}/saved"]
                try:
                    seconds[name].append(processes.run(command)[0])
                except RuntimeError as error:
                    if name == "local":  # what the other is compared with
                        raise
                    left_out.append(f"{name}: {error}")
                    del executors[name]
                    continue
                place = folder
                runs = pd.read_csv(folder / "results" / "grid" / "tables" / "runs.csv")
                assert len(runs) == MODELS
                training[name] += runs["seconds"].tolist()
        moved = [
            ("results", _bytes(place / "results" / runs["run"][1])),
            ("SavedModel", _bytes(place / "saved" / runs["run"][1])),
        ]
    rows = [
        (name, statistics.median(seconds[name]), statistics.median(training[name]))
        for name in executors
    ]
    table = pd.DataFrame(rows, columns=["executor", "seconds", "training_seconds_a_model"])
    table.insert(2, "ratio", table["seconds"] / table["seconds"][0])
    return table, pd.DataFrame(moved, columns=["what", "bytes"]), left_out


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def goals(table: pd.DataFrame) -> list[tuple]:
    """(number, what, goal, figure, whether it is met) of the README's table."""
    what = "mnist: 8 models, times local"
    ratios = table[table["executor"] == "ray"]["ratio"]
    return [(8, what, 1.15, ratio, ratio < 1.15) for ratio in ratios]
