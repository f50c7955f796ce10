"""The declaration of a run: its name, its columns, and what belongs to what."""

import copy
import csv
import dataclasses
import json
import pickle
from typing import Annotated

import pytest

from robust_tf import runs, settings
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import KINDS, Mixture, Perturbation
from robust_tf.runs import declaration, defaults, tasks
from robust_tf.runs.experiments import Cell
from robust_tf.runs.presets import PRESETS
from robust_tf.settings import whole
from robust_tf.training import STRATEGIES
from robust_tf.training.recipes import TRANSFER
from tests.helpers import ROOT, fake_data

HOT = Perturbation("hot", 2)
MNIST = fake_data(1, 60_000, size=28, name="mnist")
PUBLISHED = fake_data(1, 50_000, size=28, divisor=256, name="mnist")
CIFAR10 = fake_data(3, 50_000, name="cifar10")
ALL = "stuck=1:10,dead=1:10,hot=1:10,noise=0.005:0.05,blur=0.1:1"


@pytest.mark.parametrize(
    ("name", "data", "given"),
    [
        ("mnist-natural-175c8336", MNIST, {}),
        ("mnist-constant-stuck-1-36f33a57", MNIST, {"perturb": "stuck", "level": 1}),
        ("mnist-natural-c289c1fb", MNIST, {"standardize": "global"}),
        ("mnist-natural-d8794307", PUBLISHED, {"preset": "published"}),
        ("mnist-natural-381a110a", PUBLISHED, {"preset": "published", "seed": 1}),
        (
            "mnist-constant-stuck-1-fadaf759",
            PUBLISHED,
            {"preset": "published", "perturb": "stuck", "level": 1},
        ),
        ("mnist-constant-all-d8836cfd", MNIST, {"perturb": "all"}),
        ("mnist-constant-all-62cfffc2", MNIST, {"perturb": "all", "standardize": "global"}),
        ("cifar10-natural-d4d3cf17", CIFAR10, {"model": "compact"}),
        ("cifar10-constant-all-49d9c2bc", CIFAR10, {"model": "compact", "perturb": "all"}),
        (
            "cifar10-transfer-all-e8953fd2",
            CIFAR10,
            {"model": "compact", "strategy": "transfer", "perturb": "all"},
        ),
        ("cifar10-natural-d5547fc7", fake_data(3, 10_000, name="cifar10"), {"epochs": 5}),
    ],
)
def test_shipped_runs_keep_their_names(name, data, given):
    assert runs.resolve(data, **given).name == name


def shipped_tables():
    folders = (ROOT / "results" / "paper", ROOT / "results" / "beyond")
    tables = [p for folder in folders for p in folder.rglob("*.csv")]
    return sorted(
        str(path.relative_to(ROOT))
        for path in tables
        if path.name == "models.csv" or (path.name == "runs.csv" and "tables" not in path.parts)
    )


@pytest.mark.parametrize("path", shipped_tables())
def test_the_name_of_every_shipped_run_follows_from_its_row(path):
    """Each value of a row, given as a setting, makes the run of that name."""
    with open(ROOT / path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        channels, size = (1, 28) if row["dataset"] == "mnist" else (3, 32)
        data = fake_data(
            channels,
            int(row["train_examples"]),
            size=size,
            divisor=int(row["divisor"]),
            name=row["dataset"],
        )
        given = _settings_of(row)
        run = runs.resolve(data, loosely=given.keys() - {"strategy", "perturb"}, **given)
        assert run.name == row["run"]
        columns = run.columns()
        for name in ("model", "strategy", "train_perturb", "train_range", "pretrained"):
            assert (columns[name] or "") == row.get(name, columns[name] or "")


def _settings_of(row) -> dict:
    declared = settings.declared(runs.Run)
    texts = {name: row[name] for name in declared if row.get(name)}
    del texts["preset"]  # its settings are in the others
    texts.pop("pretrained", None)
    if row["train_perturb"] != "none":
        texts["perturb"] = row["train_perturb"]
        texts["level"] = row.get("train_range") or row["train_level"]
    if row["strategy"] == "transfer":  # its natural run has others
        for name in {name for recipe in TRANSFER.values() for name in recipe}:
            texts.pop(name, None)
    given = {}
    for name, text in texts.items():
        setting = declared[name].setting
        if setting.type is bool:
            given[name] = text == "True"
        elif name == "extra_pixels":
            given[name] = int(float(text))
        else:
            given[name] = setting.check(name, setting.read(name, text))
    return given


def test_a_new_setting_at_its_default_leaves_names_as_they_are(monkeypatch):
    before = {strategy: _run(strategy) for strategy in STRATEGIES}
    later = dataclasses.make_dataclass(
        "Run",
        [("patience", Annotated[int, whole("Of the trainer.")], dataclasses.field(default=3))],
        bases=(runs.Run,),
        frozen=True,
        kw_only=True,
    )
    for module in (declaration, defaults):
        monkeypatch.setattr(module, "Run", later)
    for strategy, run in before.items():
        assert _run(strategy).name == run.name
        assert _run(strategy, patience=3).name == run.name
        assert _run(strategy, patience=4).name != run.name


def _run(strategy, data=MNIST, **given) -> runs.Run:
    perturbed = {} if strategy == "natural" else {"perturb": "hot"}
    return runs.resolve(data, strategy=strategy, **perturbed, **given)


def test_settings_that_came_later_change_a_name_where_they_are_not_at_their_defaults():
    plain = runs.resolve(MNIST).name
    later = [
        {"optimizer": "adamw"}, {"schedule": "one_cycle"}, {"label_smoothing": 0.1},
        {"weight_average": 0.9}, {"augment": "shift"}, {"precision": "mixed_bfloat16"},
        {"jit_compile": "on"}, {"distribute": "mirrored"},
    ]  # fmt: skip
    names = {runs.resolve(MNIST, **given).name for given in later}
    assert len(names | {plain}) == len(later) + 1
    at_defaults = {"optimizer": "adam", "schedule": "constant", "weight_average": 0.0}
    assert runs.resolve(MNIST, **at_defaults, precision="float32").name == plain


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_natural_run_has_all_settings_that_are_not_the_strategys(strategy):
    run = _run(strategy, epochs=7, seed=3, activation="tanh", channel_blur=True)
    if strategy == "natural":
        assert run.natural is None and run.starts_from is None and run.start is None
        return
    assert run.natural == _run("natural", epochs=7, seed=3, activation="tanh", channel_blur=True)
    starts = strategy == "transfer"
    assert run.starts_from == (run.natural if starts else None)
    assert run.start == (run.natural.name if starts else None)


def test_the_natural_run_of_transfer_has_the_recipe_of_natural_training():
    run = _run("transfer")
    assert run.natural == runs.resolve(MNIST)
    assert (run.recipe.epochs, run.natural.recipe.epochs) == (20, 50)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kind", [*KINDS, "all"])
@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "natural"])
def test_a_preset_fits_every_strategy_and_kind(strategy, kind, preset):
    run = runs.resolve(MNIST, strategy=strategy, perturb=kind, preset=preset)
    columns = run.columns()
    pixels = kind in ("stuck", "dead", "hot")
    extra = 1 if preset == "published" else 0
    assert columns["extra_pixels"] == (extra if pixels else None)
    if strategy == "incremental":
        epochs = run.recipe.epochs
        ends = (0.0, 1 - 1 / epochs) if preset == "published" else (0.05, 0.95)
        assert (columns["ramp_start"], columns["ramp_end"]) == ends
    else:
        assert columns["ramp"] is columns["ramp_start"] is None


def test_what_a_user_asks_for_takes_precedence_over_preset_and_recipe():
    run = _run(
        "incremental", preset="published", ramp_end=0.5, extra_pixels=0, epochs=4, beta_1=0.2
    )
    columns = run.columns()
    assert (columns["ramp_end"], columns["extra_pixels"], columns["epochs"]) == (0.5, 0, 4)
    assert (columns["beta_1"], columns["shuffle"]) == (0.2, False)
    assert _run("incremental", preset="published", epochs=4).strategy.ramp.end == 0.75


def test_a_perturbation_is_one_value_however_it_is_asked_for():
    by_name = runs.resolve(MNIST, perturb="noise", level=0.03)
    by_text = runs.resolve(MNIST, perturb="noise", level="0.03")
    by_value = runs.resolve(MNIST, perturbation=Perturbation("noise", 0.03))
    assert by_name == by_text == by_value
    assert by_value.perturbation == Perturbation("noise", 0.03)
    assert isinstance(runs.resolve(MNIST, perturb="hot,blur").perturbation, Mixture)
    blurred = runs.resolve(CIFAR10, perturb="blur", channel_blur=True)
    assert blurred.perturbation.channel_blur
    assert _run("constant").strategy == STRATEGIES["constant"](perturbation=Perturbation("hot", 6))


def test_settings_for_many_runs_hold_for_those_that_have_them():
    given = {"ramp_start": 0.3, "beta_1": 0.2, "extra_pixels": 2}
    for strategy in ("natural", "constant", "incremental", "transfer"):
        perturbed = {} if strategy == "natural" else {"perturb": "hot"}
        run = runs.resolve(MNIST, loosely=given, strategy=strategy, **perturbed, **given)
        columns = run.columns()
        assert columns["beta_1"] == 0.2
        assert columns["ramp_start"] == (0.3 if strategy == "incremental" else None)
        assert columns["extra_pixels"] == (2 if perturbed else None)
    noisy = runs.resolve(MNIST, loosely=given, perturbation=Perturbation("noise", 0.05), **given)
    assert noisy.columns()["extra_pixels"] is None
    adamless = runs.resolve(MNIST, loosely=["beta_1"], optimizer="sgd", beta_1=0.2)
    assert adamless.columns()["beta_1"] is None
    with pytest.raises(InvalidArgument, match="beta_1=2: expected a number from 0 to below 1"):
        runs.resolve(MNIST, loosely=["beta_1"], optimizer="sgd", beta_1=2)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_columns_are_those_of_every_run_and_say_what_it_was_asked_for(strategy):
    run = _run(strategy)
    columns = run.columns()
    assert set(columns) < set(runs.RUN_COLUMNS)
    assert columns["run"] == run.name and columns["strategy"] == strategy
    assert columns["train_perturb"] == ("none" if strategy == "natural" else "hot")
    assert (columns["dataset"], columns["train_examples"]) == ("mnist", 60_000)
    json.dumps(columns)  # nothing but plain values
    mixed = runs.resolve(MNIST, perturb="all").columns()
    assert (mixed["train_perturb"], mixed["train_level"], mixed["train_range"]) == (
        "all",
        None,
        ALL,
    )


def test_tables_have_all_columns_that_shipped_ones_have():
    for path in shipped_tables():
        with open(ROOT / path, newline="") as file:
            header = next(csv.reader(file))
        assert set(header) <= {*runs.RUN_COLUMNS, "tests", "trials"}
        assert header[:8] == runs.RUN_COLUMNS[:8]
    assert len(set(runs.RUN_COLUMNS)) == len(runs.RUN_COLUMNS)


def test_every_setting_has_a_column():
    renamed = {"perturb": "train_perturb", "defects": "train_perturb", "level": "train_level"}
    wanted = {renamed.get(name, name) for name in settings.declared(runs.Run)}
    assert wanted <= set(runs.RUN_COLUMNS)


def test_a_run_is_a_value():
    run = _run("transfer")
    assert run == copy.deepcopy(run) == pickle.loads(pickle.dumps(run))
    assert hash(run) == hash(_run("transfer"))
    assert run != _run("transfer", seed=1)


def test_a_setting_that_nobody_knows_is_refused_with_the_ones_there_are():
    with pytest.raises(InvalidArgument, match="epoch=3: expected a setting .* such as epochs"):
        runs.resolve(MNIST, epoch=3)


def test_a_perturbation_that_is_given_keeps_its_blur_over_colours():
    blur = Perturbation("blur", 0.5, channel_blur=True)
    run = runs.resolve(MNIST, perturbation=blur)
    assert run.perturbation == blur and run.channel_blur
    assert run == runs.resolve(MNIST, perturb="blur", level=0.5, channel_blur=True)


@pytest.mark.parametrize(
    ("given", "cells"),
    [
        ({"ramp": "cosine"}, [{}, {"strategy": "transfer", "perturbation": HOT}]),
        ({"extra_pixels": 1}, [{"perturbation": Perturbation("noise", 0.05)}]),
        ({"weight_decay": 0.1}, [{}]),
        ({"depth": 10}, [{}, {"model": "compact"}]),
    ],
)
def test_a_setting_that_none_of_a_sweeps_models_has_is_refused(given, cells):
    models = [Cell("mnist", cell) for cell in cells]
    (name,) = given
    with pytest.raises(
        InvalidArgument, match=f"{name}=.*: expected no value with .*; no model would"
    ):
        tasks.plan(models, given, {"mnist": MNIST})
    having = {
        "ramp": {"strategy": "incremental", "perturbation": HOT},
        "extra_pixels": {"perturbation": HOT},
        "weight_decay": {"optimizer": "sgd"},
        "depth": {"model": "wide_resnet"},
    }
    planned = tasks.plan([*models, Cell("mnist", having[name])], given, {"mnist": MNIST})
    values = [settings.flatten(task.run).get(name) for task in planned]
    assert values.count(given[name]) == 1


@pytest.mark.parametrize("names", [("cat",), ("",), ("a,b",)])
@pytest.mark.parametrize("strategy", ["natural", "constant"])
def test_one_class_leaves_nothing_to_learn(names, strategy):
    data = dataclasses.replace(fake_data(3, 20), label_names=names)
    perturb = {} if strategy == "natural" else {"perturb": "hot"}
    with pytest.raises(InvalidArgument, match=r"^dataset=d: expected two classes or more; there"):
        runs.resolve(data, strategy=strategy, **perturb)
