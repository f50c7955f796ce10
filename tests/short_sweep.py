"""The real scheduler with work of some 50 ms: a sweep of 9 models, none of which is trained.

`python -m tests.short_sweep OUTPUTS SAVED_MODELS` carries it out; both may be URLs. Work
leaves what a run leaves, step by step and under the same locks as `runs.stages`; its
numbers follow from the run's name.
"""

import contextlib
import functools
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

import pandas as pd

from robust_tf import data as data_lib
from robust_tf import results
from robust_tf.evaluation import number_of_trials
from robust_tf.executors import processes, ray, uploads
from robust_tf.files import locked, prepare_directory, writing_to
from robust_tf.paper import experiments
from robust_tf.runs import RUN_COLUMNS, stages, sweeps
from robust_tf.runs.experiments import Selection
from robust_tf.runs.tasks import Task, plan

STEPS, SECONDS = 5, 0.01
STATE = b"x" * 50_000
# A file that has a test in its name makes work fail: "dies-hot 4" ends its process.
FAULTS = "faults"
# The names of the runs, as often as they were trained to the end.
LOG = "trained.log"


def tasks() -> list[Task]:
    """A natural model, four by constant and four by transfer, which start from the first."""
    data = data_lib.load("mnist", data_source="sample", train_examples=20, test_examples=10)
    selection = Selection(("mnist",), ("constant", "transfer"), ("hot",), (1.0, 4.0, 7.0, 10.0))
    return plan(experiments.grid(selection), {"epochs": STEPS}, {"mnist": data}, trials=2)


def work(task: Task, *, output_dir: Path, saved_models_dir: Path, load: object = None) -> None:
    """Stands for `tasks.work`."""
    run = task.run
    partial, folder = stages.folders(run, output_dir)
    with locked(partial), writing_to("output_dir", output_dir):
        if stages.is_finished(run, output_dir):  # perhaps by the process that we waited for
            with contextlib.suppress(OSError):
                partial.rmdir()
        else:
            if run.starts_from is not None:
                assert stages.is_finished(run.starts_from, output_dir)
            for step in range(STEPS):
                time.sleep(SECONDS / 2)
                (partial / f"state-{step}").write_bytes(STATE)
                fail(output_dir, run.label)
            saved = saved_models_dir / run.name / "1"
            saved.mkdir(parents=True, exist_ok=True)
            (saved / "saved_model.pb").write_text(run.name)
            pd.DataFrame({"epoch": range(STEPS)}).to_csv(partial / "history.csv")
            row = {**run.columns(), "natural_accuracy": random.Random(run.name).random()}
            table = pd.DataFrame([row]).reindex(columns=RUN_COLUMNS)
            results.write(table, partial / "runs.csv", RUN_COLUMNS)
            for state in partial.glob("state-*"):
                state.unlink()
            os.rename(partial, folder)
            with open(saved_models_dir / LOG, "a") as log:
                log.write(f"{run.name}\n")
    rows: list[dict] = []
    with locked(folder):
        for condition in task.conditions:
            kind, level = condition.kind, condition.level
            for trial in range(number_of_trials(condition, task.trials)):
                accuracy = random.Random(f"{run.name} {kind} {level} {trial}").randint(0, 10) / 10
                test = {"test_perturb": kind, "test_level": level, "trial": trial}
                test |= {"saved_model": f"{run.name}/1"}
                rows.append({**run.columns(), **test, "accuracy": accuracy, "n_examples": 10})
            time.sleep(SECONDS / 2)
            table = pd.DataFrame(rows).reindex(columns=results.TRIAL_COLUMNS)
            with writing_to("output_dir", output_dir):
                results.write(table, folder / "trials.csv", results.TRIAL_COLUMNS)


def fail(output_dir: Path, label: str) -> None:
    faults = output_dir.parent / FAULTS
    if (faults / f"fails-{label}").exists():
        raise ValueError("no such luck")
    if (faults / f"dies-{label}").exists():
        os.kill(os.getpid(), signal.SIGKILL)


def main(output_dir: str, saved_models_dir: str) -> None:
    limit = os.environ.get("SHORT_SWEEP_LIMIT")
    if limit:  # bytes per file
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    # The sweep is a fork itself, of a process that has imported all.
    processes._context = lambda function: multiprocessing.get_context("fork")
    sweeps._POLL_SECONDS = 0.02
    directories = {"saved_models_dir": saved_models_dir, "output_dir": output_dir}
    planned = tasks()
    with uploads.local(directories) as folders:
        for name, folder in folders.items():
            prepare_directory(name, folder)
        function = functools.partial(work, **folders)
        address = os.environ.get("SHORT_SWEEP_RAY")
        if address:
            pool = ray.RayPool(ray.Cluster(address), function, None, folders, {})
        else:
            pool = processes.LocalPool(2, function)
        with pool:
            failed = sweeps.carry_out(
                "grid",
                planned,
                pool,
                output_dir=folders["output_dir"],
                ended=lambda task: uploads.upload(directories, task.run.name),
            )
    for outcome in failed:
        print(f"{outcome.task}: {outcome.problem}", file=sys.stderr)
    print(f"{len(planned) - len(failed)} of {len(planned)} models are done")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
