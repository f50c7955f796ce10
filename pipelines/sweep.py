"""What the paper's experiments share: the flags and steps of a sweep; no command of its own."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from absl import flags

from pipelines import app
from robust_tf import machine, models
from robust_tf.data import Data
from robust_tf.errors import InvalidArgument
from robust_tf.executors.processes import LocalPool
from robust_tf.executors.ray import Cluster, RayPool
from robust_tf.files import prepare_directory
from robust_tf.paper import experiments, figures, numbers
from robust_tf.perturbations import KINDS
from robust_tf.runs import estimate, sweeps
from robust_tf.runs.tasks import Sources, Task, plan, work

flags.disclaim_key_flags()

# How many models are printed.
_SHOWN = 10


def define_flags(datasets: str, fields: tuple[str, ...]) -> None:
    """Defines the flags of a sweep.

    Args:
        datasets: the default datasets, in words.
        fields: which fields of `experiments.Selection` can be chosen besides datasets; and
            "eval", if tests can be.
    """
    flags.DEFINE_list("datasets", None, f"TFDS datasets, separated by commas; {datasets}.")
    if "strategies" in fields:
        flags.DEFINE_list(
            "strategies", None, f"Some of {', '.join(experiments.FIGURE_LETTERS)}; by default all."
        )
    if "perturbs" in fields:
        flags.DEFINE_list("perturbs", None, f"Some of {', '.join(KINDS)}; by default all.")
    if "levels" in fields:
        flags.DEFINE_list("levels", None, "Some of the experiment's levels; by default all.")
    if "eval" in fields:
        flags.DEFINE_enum(
            "eval",
            "auto",
            ("auto", "all"),
            "The tests of each model: auto, those of its trained family, as in the paper; or all.",
        )
    flags.DEFINE_list("seeds", ["0"], "Seeds; each model is trained once a seed.")
    app.define_preset_flag()
    app.define_source_flags()
    flags.DEFINE_integer(
        "train_examples", None, "Train on this many images, the first. By default on all."
    )
    flags.DEFINE_enum(
        "model", None, list(models.MODELS), "The network; by default the paper's for the dataset."
    )
    flags.DEFINE_integer(
        "epochs", None, "Passes over the training images; by default as many as for one run."
    )
    app.define_device_flags()
    flags.DEFINE_integer(
        "trials", experiments.TRIALS, "Passes over the test images for a random perturbation."
    )
    flags.DEFINE_enum(
        "executor",
        "local",
        ("local", "ray"),
        "What trains the models: processes on this machine, or a Ray cluster.",
    )
    flags.DEFINE_integer(
        "workers",
        None,
        "How many models are trained at once. By default one, or as many as a cluster has room "
        "for.",
    )
    flags.DEFINE_integer(
        "threads",
        None,
        "Threads of each of them; by default a fair share of the cores, or --num_cpus. Their "
        "number shows in the last digits of accuracies.",
    )
    flags.DEFINE_string(
        "ray_address",
        Cluster.address,
        "The cluster (executor ray): auto, the one that this machine belongs to; local, one of "
        "this machine alone, made for this sweep; or host:port.",
    )
    flags.DEFINE_float("num_cpus", Cluster.num_cpus, "Cores for a model (executor ray).")
    flags.DEFINE_float(
        "num_gpus", Cluster.num_gpus, "GPUs for a model, or a fraction of one (executor ray)."
    )
    flags.DEFINE_float(
        "memory", Cluster.memory, "Memory for a model in GiB (executor ray). By default any."
    )
    flags.DEFINE_string("output_dir", "results", "Where tables, figures and runs are kept.")
    flags.DEFINE_string("saved_models_dir", "saved_models", "Where SavedModels are exported.")
    flags.DEFINE_bool("reference", True, "Draw the published numbers where there are some.")
    flags.DEFINE_bool("dry_run", False, "List the models with an estimate of time and stop.")


def run(experiment: str, finish: Callable[[Path], None] | None = None) -> None:
    """Carries out an experiment as the flags say; exits with 1 if a model failed.

    Args:
        experiment: a name of `experiments.EXPERIMENTS`.
        finish: what else to make of the tables, given the output directory.
    """
    values = flags.FLAGS
    if values.trials < 1:
        raise InvalidArgument("trials", values.trials, "a whole number from 1 on")
    seeds = _numbers("seeds", int)
    if min(seeds) < 0:
        raise InvalidArgument("seeds", ",".join(values.seeds), "whole numbers from 0 on")
    cells = experiments.EXPERIMENTS[experiment](_selection())
    all_tests = "eval" in values and values.eval == "all"
    if all_tests:
        cells = experiments.with_all_tests(cells)
    sources = Sources(
        data_dir=values.data_dir,
        data_source=values.data_source,
        train_examples=values.train_examples,
        test_examples=values.test_examples,
        preset=values.preset,
    )
    cluster = _cluster()
    cores = cluster.num_cpus if cluster else None
    threads = sweeps.threads_of_each(values.workers, values.threads, cores)
    machine.use_threads(threads)
    machine.share_gpus()  # with the workers
    datasets = {name: sources.load(name) for name in dict.fromkeys(cell.dataset for cell in cells)}
    options = {
        name: values[name].value
        for name in ("preset", "model", "epochs", "precision", "jit_compile", "distribute")
    }
    tasks = plan(cells, options, datasets, seeds=seeds, trials=values.trials)
    if values.dry_run:
        with app.outputs() as folders:
            _list(
                tasks,
                estimate.seconds(tasks, datasets),
                values.workers or 1,
                folders["output_dir"],
            )
        return
    with app.outputs() as folders:
        with _pool(cluster, threads, sources, datasets, folders) as pool:
            failed = sweeps.carry_out(
                experiment,
                tasks,
                pool,
                output_dir=folders["output_dir"],
                ended=lambda task: app.upload(task.run.name),
            )
        if experiment == "impact":
            sweeps.save_examples(tasks, datasets, **folders)
        figures.draw(experiment, folders["output_dir"], values.reference)
        if finish:
            finish(folders["output_dir"])
        if all_tests:
            trials = numbers.table(folders["output_dir"], experiment, "trials")
            # The experiment may have others, which were not tested with all.
            trials = trials[trials["run"].isin([task.run.name for task in tasks])]
            print(f"\nThe {_SHOWN} best in the worst case of all tests\n")
            app.print_profile(trials, _SHOWN)
    print(f"{len(tasks) - len(failed)} of {len(tasks)} models are done")
    print(f"tables   {values.output_dir}/{experiment}/tables")
    print(f"figures  {values.output_dir}/{experiment}/figures")
    if failed:
        for outcome in failed:
            print(f"error: {outcome.task}: {outcome.problem}", file=sys.stderr)
        sys.exit(1)


def _pool(
    cluster: Cluster | None,
    threads: int,
    sources: Sources,
    datasets: Mapping[str, Data],
    folders: Mapping[str, Path],
) -> LocalPool | RayPool:
    """What carries out the models."""
    values = flags.FLAGS
    folders = {name: prepare_directory(name, folder) for name, folder in folders.items()}
    if cluster:  # whose workers are started elsewhere
        folders = {name: folder.resolve() for name, folder in folders.items()}
    carry_out = functools.partial(
        work, threads=threads, saved_models_url=values.saved_models_dir, **folders
    )
    if cluster:
        return RayPool(cluster, carry_out, values.workers, folders, datasets)
    return LocalPool(values.workers or 1, functools.partial(carry_out, load=sources.of))


def _cluster() -> Cluster | None:
    """The cluster that the flags ask for."""
    values = flags.FLAGS
    if values.executor == "ray":
        return Cluster(values.ray_address, values.num_cpus, values.num_gpus, values.memory)
    for flag in ("ray_address", "num_cpus", "num_gpus", "memory"):
        if values[flag].present:
            raise InvalidArgument(flag, values[flag].value, "no value with executor=local")
    return None


def _selection() -> experiments.Selection:
    values = flags.FLAGS
    asked = {
        field.name: tuple(dict.fromkeys(values[field.name].value))
        for field in dataclasses.fields(experiments.Selection)
        if field.name in values and values[field.name].value is not None
    }
    if "levels" in asked:
        asked["levels"] = tuple(_numbers("levels", float))
    return experiments.Selection(**asked)


def _numbers(flag: str, kind: type) -> list:
    texts = flags.FLAGS[flag].value
    try:
        numbers = [kind(text) for text in texts]
    except ValueError:
        numbers = []
    if not numbers:
        raise InvalidArgument(flag, ",".join(texts), "numbers, separated by commas")
    return list(dict.fromkeys(numbers))


def _list(tasks: list[Task], seconds: dict[str, float], workers: int, output_dir: Path) -> None:
    left = 0.0
    for task in tasks:
        done = task.is_done(output_dir)
        left += 0.0 if done else seconds[task.run.name]
        time = "done" if done else sweeps.duration(seconds[task.run.name])
        print(f"{str(task):40} {time:>12}")
    print(
        f"{len(tasks)} models, about {sweeps.duration(left / workers)} on this machine with "
        f"--workers={workers}"
    )
