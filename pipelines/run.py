"""Trains one classifier, measures how it holds up under sensor changes, and saves it.

Example:
  python -m pipelines.run --strategy=constant --perturb=hot
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pipelines import app, flags
from pipelines.shared_flags import Dataset, DryRun, Model, ModelOutputs, Tests, some
from robust_tf import machine, models, results, runs, settings
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation.suites import standard_tests
from robust_tf.runs import declaration, defaults
from robust_tf.runs.sources import Sources
from robust_tf.sensors import is_sensor, is_sensor_file
from robust_tf.settings import switch, whole, wholes
from robust_tf.training import Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repeats:
    """How often the run is trained, and with what."""

    seeds: Annotated[
        tuple[int, ...] | None,
        wholes(
            "Several seeds, separated by commas: the run is trained with each, and the tables "
            "have the deviation between them.",
            0,
            default="the one of --seed",
        ),
    ] = None
    threads: Annotated[
        int | None,
        whole(
            "Threads of TensorFlow. Their number shows in the last digits of accuracies.",
            at_most=machine.MOST_THREADS,
            default="one per core",
        ),
    ] = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extras:
    """What else a run does."""

    compare_natural: Annotated[
        bool | None,
        switch(
            "Also train the same network on natural images, or take it from an earlier run with "
            "the same settings, to compare with.",
            default="yes, except with --pretrained",
        ),
    ] = None
    tensorboard: Annotated[bool, switch("Write TensorBoard logs to the run's folder.")] = False


_SETTINGS = settings.declared(declaration.Run)
_PERTURBATION = [
    "perturb", "level", "defects", "fresh", "extra_pixels", "channel_blur", "ramp", "ramp_start",
    "ramp_end",
]  # fmt: skip
_RECIPE = list(settings.declared(Recipe))
# The device that a model is trained for is tested.
_TESTS = [name for name in settings.declared(Tests) if name != "defects"]
_TRAINED = [name for name in _SETTINGS if name not in {*_PERTURBATION, *_RECIPE}]


def _groups() -> flags.Groups:
    run = {name: some(declaration.Run, [name]) for name in _SETTINGS}
    first = ["strategy", "model", "seed"]
    return {
        "What is trained": [
            *(run[name][0] for name in first),
            *some(Repeats),
            *(run[name][0] for name in _TRAINED if name not in first),
            *some(Extras, ["compare_natural"]),
        ],
        "Perturbation": [run[name][0] for name in _PERTURBATION],
        "Data": [*some(Dataset, dataset="mnist"), *some(Sources)],
        "Recipe": [run[name][0] for name in _RECIPE],
        "Tests": [*some(Tests, _TESTS), *some(Model, ["same_classes"])],
        "Outputs": [*some(ModelOutputs), *some(Extras, ["tensorboard"]), *some(DryRun)],
    }


def check(values: flags.Values) -> None:
    """Checks the flags, but for perturbations that are in files."""
    given = values.of(_SETTINGS)
    if values.seeds is not None and "seed" in given:
        raise InvalidArgument("seeds", ",".join(map(str, values.seeds)), "no value with --seed")
    perturb = None if "defects" in given else given.get("perturb")
    if "defects" not in given and not is_sensor_file(perturb or ""):
        defaults.check(given)
    if values.compare_natural and models.is_file(values.pretrained or ""):
        expected = "no value with a file as --pretrained, which pipelines.evaluate tests"
        raise InvalidArgument("compare_natural", True, expected)
    settings.make(Tests, values.given | _device(given)).kinds(perturb)
    if not values.dry_run:
        app.check_outputs(settings.make(ModelOutputs, values.given))


def _device(given: dict[str, Any]) -> dict[str, Any]:
    """The tests on the device that is trained for."""
    return {"defects": [given["defects"]]} if "defects" in given else {}


def main(values: flags.Values) -> None:
    """Trains, tests and draws as the flags say."""
    import pandas as pd

    from robust_tf.runs import stages

    given = values.of(_SETTINGS)
    seeds = dict.fromkeys(values.seeds or (values.seed,))
    checked = defaults.check(given)
    device = _device(given)
    tests = settings.make(Tests, values.given | device)
    kinds = tests.kinds(checked["perturbation"].kind if device else given.get("perturb"))
    outputs = settings.make(ModelOutputs, values.given)
    if values.threads is not None:
        machine.use_threads(values.threads)
    sources = app.sources(values)
    dataset = sources.load(values.dataset)
    several = [runs.resolve(dataset, **given | {"seed": seed}) for seed in seeds]
    conditions = (
        *standard_tests(kinds, several[0].channel_blur, tests.bits),
        *tests.other_images(dataset, values.data_dir, values.test_examples, values.same_classes),
    )
    trained = several[0].perturbation
    if trained is not None and is_sensor(trained.kind) and "auto" in tests.eval:
        conditions += tests.rounded([trained])
    if values.dry_run:
        _print_configuration(several, conditions, tests.trials)
        return
    compare = values.compare_natural
    if compare is None:
        compare = not checked.get("pretrained")
    todo = [
        each
        for run in several
        for each in ([run.natural, run] if run.natural and compare else [run])
    ]
    trials = []
    with app.local(outputs) as folders:
        for each in todo:
            if runs.is_finished(each, folders["output_dir"]):
                print(f"{each.label} is trained already: {outputs.output_dir}/{each.name}")
                app.warn_of_threads([runs.trained_with(each, folders["output_dir"])])
            runs.train(
                each,
                dataset,
                saved_models_url=outputs.saved_models_dir,
                tensorboard=values.tensorboard,
                **folders,
            )
            trials.append(runs.test(each, dataset, conditions, trials=tests.trials, **folders))
        table = pd.concat(trials, ignore_index=True)
        runs.draw(todo, dataset, conditions, table, **folders)
        saved_model: Path | str = stages.saved_model_of(several[-1], **folders)
        if saved_model.is_relative_to(own := folders["saved_models_dir"]):
            place = outputs.saved_models_dir.rstrip("/")
            saved_model = f"{place}/{saved_model.relative_to(own).as_posix()}"
    heading = (
        "Accuracy in percent, mean ± standard deviation over "
        f"{results.counted(tests.trials, 'trial')} on {app.images_of(dataset)}"
    )
    print(f"{app.heading(heading)}\n{app.IN_BRACKETS}\n")
    app.print_accuracies(table)
    if len(seeds) > 1:
        print(f"\nOver {len(seeds)} seeds, mean ± standard deviation of the seeds' means\n")
        app.print_table(results.over_seeds(table))
    run = several[-1]
    print(f"\nresults     {outputs.output_dir}/{run.name}")
    print(f"figures     {outputs.output_dir}/{run.name}/figures")
    print(f"SavedModel  {saved_model}")


def _print_configuration(several: list[runs.Run], conditions: tuple, trials: int) -> None:
    for run in several:
        for name, value in run.columns().items():
            print(f"{name} = {'' if value is None else value}")
    print(f"tests = {', '.join(map(str, conditions))}")
    print(f"trials = {trials}")


def cli(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    app.launch(main, _groups(), argv, words=defaults.defaults_in_words(), check=check)


if __name__ == "__main__":
    cli()
