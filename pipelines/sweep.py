"""What the experiments share: the flags and steps of a sweep; no command of its own."""

from __future__ import annotations

import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pipelines import app, flags
from pipelines.shared_flags import DryRun, ModelOutputs, some
from robust_tf import data, machine, results, settings
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation.suites import TRIALS
from robust_tf.executors.ray import Cluster
from robust_tf.files import prepare_directory
from robust_tf.perturbations import all_kinds
from robust_tf.runs import declaration, defaults
from robust_tf.runs.budget import seconds_of
from robust_tf.runs.experiments import Cell, Experiment, Selection, with_all_tests
from robust_tf.runs.sources import Sources
from robust_tf.settings import Setting, choice, names, number, switch, whole, wholes
from robust_tf.training import STRATEGIES

if TYPE_CHECKING:
    from robust_tf.runs.tasks import Task

# How many models are printed.
_SHOWN = 10


def _numbers(texts: Sequence[str]) -> tuple[float, ...]:
    try:
        return tuple(dict.fromkeys(float(text) for text in texts))
    except ValueError:
        raise InvalidArgument("levels", ",".join(texts), "numbers, separated by commas") from None


_PERTURBING = [name for name in STRATEGIES if name != "natural"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selected:
    """Which part of an experiment is carried out."""

    datasets: Annotated[
        tuple[str, ...] | None,
        names("TFDS datasets, or pictures as folder:PATH or csv:FILE, separated by commas."),
    ] = None
    strategies: Annotated[
        tuple[str, ...] | None, names(f"Some of {', '.join(_PERTURBING)}.", default="all")
    ] = None
    perturbs: Annotated[
        tuple[str, ...] | None, names(f"Some of {', '.join(all_kinds())}.", default="all")
    ] = None
    levels: Annotated[
        tuple[float, ...] | None,
        Setting("Some of the experiment's levels.", list, parse=_numbers, default="all"),
    ] = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepTests:
    """What the models are tested with."""

    eval: Annotated[
        str,
        choice(
            "The tests of each model: auto, those of its trained family, as in the paper; or all.",
            ("auto", "all"),
        ),
    ] = "auto"
    trials: Annotated[int, whole("Passes over the test images per random perturbation.")] = TRIALS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """What trains the models."""

    seeds: Annotated[tuple[int, ...], wholes("Seeds; each model is trained once per seed.", 0)] = (
        0,
    )
    workers: Annotated[
        int | None,
        whole(
            "How many models are trained at once.",
            default="one, or as many as a cluster has room for",
        ),
    ] = None
    threads: Annotated[
        int | None,
        whole(
            "Threads of each of them. Their number shows in the last digits of accuracies.",
            at_most=machine.MOST_THREADS,
            default="a fair share of the cores, or --num_cpus",
        ),
    ] = None
    budget: Annotated[
        float | None,
        Setting(
            "Begin no model that would not end within this time, such as 3h or 1h30m; the same "
            "command goes on with the others.",
            parse=seconds_of,
            allows=lambda seconds: True,
            default="none",
        ),
    ] = None
    executor: Annotated[
        str,
        choice(
            "What trains the models: processes on this machine, or a Ray cluster.",
            ("local", "ray"),
        ),
    ] = "local"
    ray_address: Annotated[
        str,
        Setting(
            "The cluster (executor ray): auto, the one that this machine belongs to; local, one "
            "of this machine alone, made for this sweep; or host:port."
        ),
    ] = Cluster.address
    num_cpus: Annotated[float, number("Cores per model (executor ray).", above=0)] = (
        Cluster.num_cpus
    )
    num_gpus: Annotated[
        float, number("GPUs per model, or a fraction of one (executor ray).", 0)
    ] = Cluster.num_gpus
    memory: Annotated[
        float | None, number("Memory per model in GiB (executor ray).", above=0, default="any")
    ] = Cluster.memory

    def cluster(self, given: set[str]) -> Cluster | None:
        """The cluster that is asked for; None for this machine alone."""
        if self.executor == "ray":
            return Cluster(self.ray_address, self.num_cpus, self.num_gpus, self.memory)
        for name in ("ray_address", "num_cpus", "num_gpus", "memory"):
            if name in given:
                raise InvalidArgument(name, getattr(self, name), "no value with executor=local")
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """What figures show besides."""

    reference: Annotated[bool, switch("Draw the published numbers where there are some.")] = True


def _of_models(experiment: Experiment) -> list[str]:
    """The settings of a run that are for all models of an experiment."""
    alone = experiment.decides | {"seed", "pretrained"}
    return [name for name in settings.declared(declaration.Run) if name not in alone]


def _groups(experiment: Experiment) -> flags.Groups:
    own = ", ".join(experiment.datasets)
    selected = ["datasets", *experiment.selects]
    tests = ["eval", "trials"] if "strategies" in experiment.selects else ["trials"]
    chosen = some(Selected, selected)
    about = dataclasses.replace(chosen[0].setting, default=own)
    chosen[0] = dataclasses.replace(chosen[0], setting=about)
    return {
        "Which models": chosen,
        "What carries them out": some(Execution),
        "Data": some(Sources),
        "Settings of all models that have them": some(declaration.Run, _of_models(experiment)),
        "Tests": some(SweepTests, tests),
        "Outputs": [*some(ModelOutputs), *some(Reference), *some(DryRun)],
    }


def launch(
    experiment: Experiment,
    main: Callable[[flags.Values], None],
    argv: Sequence[str] | None = None,
) -> None:
    """Runs the command line of an experiment."""
    words = defaults.defaults_in_words()
    check = functools.partial(_check, experiment)
    app.launch(main, _groups(experiment), argv, words=words, check=check)


def _check(experiment: Experiment, values: flags.Values) -> None:
    """Checks what the flags say of models and of what trains them."""
    _cells(experiment, values)
    settings.make(Execution, values.given).cluster(set(values.given))


def _cells(experiment: Experiment, values: flags.Values) -> list[Cell]:
    """The models that are asked for."""
    selection = Selection(**values.of(("datasets", *experiment.selects)))
    return experiment.cells(selection)


def run(
    experiment: Experiment,
    values: flags.Values,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Carries out an experiment as the flags say; exits with 1 if a model failed.

    Args:
        experiment: the experiment.
        values: what the flags say.
        finish: what else to make of the tables, given the output directory.
    """
    from robust_tf.executors.processes import LocalPool
    from robust_tf.executors.ray import RayPool
    from robust_tf.paper import examples, figures
    from robust_tf.runs import estimate, stages, sweeps
    from robust_tf.runs.budget import Budget
    from robust_tf.runs.tasks import plan, work

    begun = time.monotonic()
    cells = _cells(experiment, values)
    all_tests = values.defaults.get("eval") is not None and values.eval == "all"
    if all_tests:
        cells = with_all_tests(cells)
    execution = settings.make(Execution, values.given)
    outputs = settings.make(ModelOutputs, values.given)
    cluster = execution.cluster(set(values.given))
    cores = cluster.num_cpus if cluster else None
    threads = sweeps.threads_of_each(execution.workers, execution.threads, cores)
    machine.use_threads(threads)
    machine.share_gpus()  # with the workers
    sources = app.sources(values)
    asked = {name: _load(sources, name) for name in dict.fromkeys(c.dataset for c in cells)}
    places = {dataset.name: name for name, dataset in asked.items()}
    if len(places) < len(asked):
        raise InvalidArgument("datasets", ",".join(asked), "folders or lists of different names")
    cells = [dataclasses.replace(cell, dataset=asked[cell.dataset].name) for cell in cells]
    datasets = {dataset.name: dataset for dataset in asked.values()}
    given = values.of(_of_models(experiment))
    tasks = plan(cells, given, datasets, seeds=dict.fromkeys(execution.seeds), trials=values.trials)
    if values.dry_run:
        with app.local(outputs) as folders:
            seconds = estimate.seconds(tasks, datasets)
            _list(tasks, seconds, execution.workers or 1, folders["output_dir"])
        return
    with app.local(outputs) as folders:
        folders = {key: prepare_directory(key, folder) for key, folder in folders.items()}
        known = (t.run for t in tasks if stages.is_finished(t.run, folders["output_dir"]))
        app.warn_of_threads(stages.trained_with(run, folders["output_dir"]) for run in known)
        if cluster:  # its workers are started elsewhere
            folders = {key: folder.resolve() for key, folder in folders.items()}
        url = outputs.saved_models_dir
        function = functools.partial(work, threads=threads, saved_models_url=url, **folders)
        load = functools.partial(sources.of, places=places)
        pool = (
            RayPool(cluster, function, execution.workers, folders, datasets)
            if cluster
            else LocalPool(execution.workers or 1, functools.partial(function, load=load))
        )
        limit = None
        if execution.budget is not None:
            estimates = estimate.seconds(tasks, datasets)
            limit = Budget(execution.budget - (time.monotonic() - begun), estimates)
        with pool:
            failed = sweeps.carry_out(
                experiment.name,
                tasks,
                pool,
                **folders,
                ended=lambda task: app.upload(outputs, task.run.name),
                budget=limit,
            )
        done = sum(task.is_done(folders["output_dir"]) for task in tasks)
        done -= sum(outcome.task.is_done(folders["output_dir"]) for outcome in failed)
        if experiment.name == "impact":
            examples.write(tasks, datasets, **folders)
        if experiment.name in figures.FIGURES:
            figures.draw(experiment.name, folders["output_dir"], values.reference)
        if finish:
            finish(folders["output_dir"])
        if all_tests and done:
            trials, all_runs = (
                results.read_experiment(folders["output_dir"], experiment.name, name)
                for name in ("trials", "runs")
            )
            # The experiment may have others, which were not tested with all.
            trials = trials[trials["run"].isin([task.run.name for task in tasks])]
            print(f"\nThe {_SHOWN} best in the worst case of all tests\n{app.IN_BRACKETS}\n")
            app.print_profile(trials, all_runs, _SHOWN)
    are = "is" if len(tasks) == 1 else "are"
    print(f"{done} of {results.counted(len(tasks), 'model')} {are} done")
    if done + len(failed) < len(tasks):
        print("the others would not end in time; the same command goes on with them")
    print(f"tables   {outputs.output_dir}/{experiment.name}/tables")
    print(f"figures  {outputs.output_dir}/{experiment.name}/figures")
    if failed:
        for outcome in failed:
            print(f"error: {outcome.task}: {outcome.problem}", file=sys.stderr)
        sys.exit(1)


def _load(sources: Sources, dataset: str) -> data.Data:
    try:
        return sources.load(dataset)
    except (InvalidArgument, Unavailable) as error:
        raise (error.of("datasets") if error.argument == "dataset" else error) from error


def _list(tasks: list[Task], seconds: dict[str, float], workers: int, output_dir: Path) -> None:
    from robust_tf.runs import sweeps

    left = 0.0
    for task in tasks:
        done = task.is_done(output_dir)
        left += 0.0 if done else seconds[task.run.name]
        time = "done" if done else sweeps.duration(seconds[task.run.name])
        print(f"{str(task):40} {time:>12}")
    print(
        f"{results.counted(len(tasks), 'model')}, about {sweeps.duration(left / workers)} on this "
        f"machine with --workers={workers}"
    )
