import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from robust_tf import results, runs, settings, training
from robust_tf.data import Split
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import Natural
from robust_tf.evaluation.suites import standard_tests
from robust_tf.perturbations import Perturbation, all_kinds
from robust_tf.runs.defaults import check
from robust_tf.training import STRATEGIES
from tests.helpers import CONDITIONS, carry_out, fake_data, short


def test_the_papers_defaults():
    def recipe(channels, examples=60_000, **given):
        run = runs.resolve(fake_data(channels, examples), **given)
        flat = settings.flatten(run)
        names = ("model", "epochs", "batch_size", "learning_rate", "beta_1")
        return [flat[name] for name in names], run

    of_mnist, _ = recipe(1, strategy="constant", perturb="hot")
    assert of_mnist == ["mnist_cnn", 50, 1500, 0.05, 0.5]
    of_cifar10, _ = recipe(3)
    assert of_cifar10 == ["cifar10_cnn", 20, 100, 0.0005, 0.5]
    of_mnist, mnist = recipe(1, strategy="transfer", perturb="hot")
    of_cifar10, cifar10 = recipe(3, strategy="transfer", perturb="hot")
    assert of_mnist == ["mnist_cnn", 20, 200, 0.0005, 0.5]
    assert of_cifar10 == ["cifar10_cnn", 5, 200, 0.0005, 0.5]
    assert mnist.strategy.head_units == (256,)
    assert cifar10.strategy.head_units == (256, 512)
    assert mnist.natural == recipe(1)[1]
    assert recipe(1, 4000)[0][2] == 400
    assert recipe(3, 5)[0][2] == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strategy": "adversarial"}, "strategy=adversarial: expected one of natural, constant"),
        (
            {"strategy": "natural", "perturb": "hot"},
            "perturb=hot: expected no value with strategy=natural",
        ),
        ({"level": 2}, "level=2: expected no value with strategy=natural"),
        ({"strategy": "constant"}, "perturb: expected all, or some of stuck"),
        (
            {"strategy": "constant", "perturb": "rain"},
            "perturb=rain: expected all, or some of stuck",
        ),
        ({"model": "vgg"}, "model=vgg: expected one of mnist_cnn"),
        ({"epochs": 0}, "epochs=0: expected a whole number from 1 on"),
        ({"batch_size": 0}, "batch_size=0: expected a whole number from 1 on"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: expected a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: expected a number above 0"),
        ({"beta_1": 1.0}, "beta_1=1.0: expected a number from 0 to below 1"),
        ({"standardize": "rows"}, "standardize=rows: expected one of pixel"),
        ({"preset": "mine"}, "preset=mine: expected one of text, published"),
        ({"dropout": 1.0}, "dropout=1.0: expected a rate from 0 to below 1"),
        ({"activation": "step"}, "activation=step: expected one of relu, tanh"),
        ({"extra_pixels": -1}, "extra_pixels=-1: expected a whole number from 0 on"),
        ({"seed": -1}, "seed=-1: expected a whole number from 0 on"),
        ({"ramp_end": 2.0}, "ramp_end=2.0: expected a fraction from 0 to 1"),
        ({"pretrained": "m"}, "pretrained=m: expected no value with strategy=natural"),
        ({"freeze_base": True}, "freeze_base=True: expected no value with strategy=natural"),
        ({"head_units": (8,)}, "head_units=8: expected no value with strategy=natural"),
        (
            {"strategy": "constant", "perturb": "hot", "keep_standardization": True},
            "keep_standardization=True: expected no value with strategy=constant",
        ),
        (
            {"strategy": "transfer", "perturb": "hot", "head_units": (8, 0)},
            "head_units=8,0: expected whole numbers from 1 on",
        ),
        ({"strategy": "transfer"}, "perturb: expected all, or some of stuck"),
    ],
)
def test_settings_are_checked_before_any_data(given, message):
    with pytest.raises(InvalidArgument) as caught:
        check(given)
    assert str(caught.value).startswith(message)


def test_settings_are_checked_against_the_data(small):
    with pytest.raises(InvalidArgument, match="batch_size=201: expected at most 200"):
        runs.resolve(small, batch_size=201)
    with pytest.raises(InvalidArgument, match="level=785: expected .* from 1 to 784"):
        runs.resolve(small, perturb="dead", level=785)


@pytest.mark.parametrize(
    ("network", "message"),
    [({"batch_norm": False}, "batch_norm=False"), ({"dropout": 0.0}, "dropout=0.0")],
)
def test_a_pretrained_model_decides_its_network(small, network, message):
    with pytest.raises(InvalidArgument, match=f"^{message}: expected no value with pretrained"):
        runs.resolve(small, strategy="transfer", perturb="hot", pretrained="m", **network)


def test_images_too_small_for_the_network(small):
    split = Split(small.train.images[:, :6, :5], small.train.labels)
    tiny = dataclasses.replace(small, train=split, test=split)
    with pytest.raises(InvalidArgument, match=r"model=mnist_cnn: .* shape \(6, 5, 1\)"):
        runs.resolve(tiny)


def test_images_that_are_not_square_and_have_colours(small, folders):
    images = tf.tile(small.train.images[:, :24], [1, 1, 1, 3])
    split = Split(images, small.train.labels)
    wide = dataclasses.replace(small, train=split, test=split)
    run = short(wide, perturb="stuck", model="mnist_cnn")
    trials = carry_out(run, wide, folders, standard_tests(all_kinds()), trials=2)
    assert len(trials) == 1 + 3 * 2 + 3 * 2 + 3
    runs.draw([run], wide, standard_tests(("hot",)), trials, **folders)


def test_a_name_tells_runs_apart_and_only_those(small):
    def name(**given):
        return runs.resolve(small, **{"perturb": "hot", **given}).name

    plain = name()
    assert plain.startswith("mnist-constant-hot-6-")
    different = [
        {"seed": 1}, {"level": 7}, {"epochs": 3}, {"beta_1": 0.9}, {"fresh": True},
        {"standardize": "global"}, {"channel_blur": True}, {"extra_pixels": 1},
        {"shuffle": False}, {"drop_remainder": True}, {"batch_norm": False}, {"dropout": 0.0},
        {"activation": "tanh"}, {"strategy": "incremental"},
        {"strategy": "incremental", "ramp": "cosine"},
        {"strategy": "incremental", "ramp_start": 0.3},
    ]  # fmt: skip
    names = {plain, *(name(**given) for given in different)}
    assert len(names) == len(different) + 1
    assert name(strategy="constant", level=6, extra_pixels=0, fresh=False) == plain
    # A preset is no more than its settings.
    published = {"beta_1": 0.9, "channel_blur": True, "extra_pixels": 1}
    published |= {"shuffle": False, "drop_remainder": True}
    assert name(preset="published") == name(**published)
    fewer = dataclasses.replace(small, test=Split(small.test.images[:9], small.test.labels[:9]))
    # Nor do the test images affect the training.
    assert runs.resolve(fewer, perturb="hot").name == plain
    assert runs.resolve(small, perturb="hot", fresh=True).natural == runs.resolve(small)


def test_a_setting_of_another_strategy_optimizer_or_kind_is_refused(small):
    for given, message in [
        ({"perturb": "hot", "ramp_start": 0.3}, "ramp_start=0.3: .*no value with strategy=consta"),
        ({"optimizer": "sgd", "beta_1": 0.5}, "beta_1=0.5: expected no value with optimizer=sgd"),
        ({"perturb": "noise", "extra_pixels": 1}, "extra_pixels=1: .*no value with perturb=noise"),
        ({"perturb": "all", "extra_pixels": 1}, "extra_pixels=1: .*no value with a range of lev"),
        ({"fresh": True}, "fresh=True: expected no value with strategy=natural"),
    ]:
        with pytest.raises(InvalidArgument, match=message):
            runs.resolve(small, **given)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_from_data_to_results(small, folders, strategy):
    given = {} if strategy == "natural" else {"perturb": "stuck", "level": 3}
    run = short(small, strategy=strategy, seed=5, **given)
    trials = carry_out(run, small, folders)
    folder = folders["output_dir"] / run.name
    assert trials.columns.tolist() == results.TRIAL_COLUMNS
    assert trials["test_perturb"].tolist() == ["none", "hot", "hot", "hot"]
    pd.testing.assert_frame_equal(results.read(folders["output_dir"], "trials"), trials)
    history = pd.read_csv(folder / "history.csv")
    assert history.columns.tolist() == results.HISTORY_COLUMNS
    fractions = {"natural": [0, 0], "incremental": [0.05, 0.95]}.get(strategy, [1, 1])
    assert history["perturbed_fraction"].tolist() == pytest.approx(fractions)
    table = results.read(folders["output_dir"], "runs")
    assert table.columns.tolist() == runs.RUN_COLUMNS
    row = table.set_index("run", drop=False).loc[run.name]
    assert (row["run"], row["strategy"], row["seed"]) == (run.name, strategy, 5)
    assert row["train_perturb"] == ("none" if strategy == "natural" else "stuck")
    assert row["natural_accuracy"] == trials["accuracy"][0]
    assert row["train_accuracy"] == history["accuracy"].iloc[-1]
    assert row["tensorflow_version"] == tf.__version__
    assert (row["train_examples"], row["test_examples"]) == (200, 100)
    assert row["saved_model"] == (folders["saved_models_dir"] / run.name / "1").as_posix()
    names = {path.name for path in folders["output_dir"].iterdir()}
    # Transfer trains what it starts from.
    assert names == {run.name} | ({run.natural.name} if strategy == "transfer" else set())
    assert sorted(path.name for path in folder.iterdir()) == [
        "checksums.json", "history.csv", "runs.csv", "trials.csv",
    ]  # fmt: skip


def test_the_robustness_figures_go_with_the_savedmodel(small, finished, folders):
    more = carry_out(finished, small, folders, standard_tests(("hot", "blur")))
    path = folders["saved_models_dir"] / finished.name / "1" / "assets.extra" / "robustness.csv"
    pd.testing.assert_frame_equal(pd.read_csv(path), results.summarize(more))


def test_a_finished_run_is_not_trained_again(small, finished, folders, monkeypatch):
    first = results.read(folders["output_dir"], "trials")
    monkeypatch.setattr(training, "fit", lambda *args, **kwargs: pytest.fail("trained again"))
    pd.testing.assert_frame_equal(carry_out(finished, small, folders), first)


def test_further_tests_are_added_to_those_that_are_there(small, finished, folders):
    more = standard_tests(("hot", "blur"))
    trials = carry_out(finished, small, folders, more, trials=4)
    counts = trials.groupby(["test_perturb"], sort=False).size().to_dict()
    assert counts == {"none": 1, "hot": 4, "blur": 3}
    few = carry_out(finished, small, folders, CONDITIONS, trials=1)
    assert few["test_perturb"].tolist() == ["none", "hot"]
    stored = results.read(folders["output_dir"], "trials")
    assert len(stored) == 8
    keys = ["test_perturb", "test_level", "trial", "n_examples"]
    assert not stored.duplicated(keys).any()


def test_trials_are_found_again_whatever_their_level(small, finished, folders):
    levels = np.linspace(0.001, 0.05, 5)[[1, 3]].tolist() + [0.1 + 0.2]
    conditions = [Natural(), *(Perturbation("noise", level) for level in levels)]
    first = carry_out(finished, small, folders, conditions, trials=2)
    assert len(first) == 1 + 3 * 2
    again = carry_out(finished, small, folders, conditions, trials=2)
    pd.testing.assert_frame_equal(again, first)
    stored = results.read(folders["output_dir"], "trials")
    assert len(stored) == len(first) + 3  # and those of hot pixels


def test_tests_on_other_images_are_kept_apart(small, finished, folders):
    half = dataclasses.replace(small, test=Split(small.test.images[:50], small.test.labels[:50]))
    trials = carry_out(finished, half, folders)
    assert (trials["n_examples"] == 50).all() and len(trials) == 4
    stored = results.read(folders["output_dir"], "trials")
    assert stored["n_examples"].value_counts().to_dict() == {100: 4, 50: 4}


def test_a_savedmodel_that_is_gone_is_named(small, finished, folders):
    (folders["saved_models_dir"] / finished.name).rename(folders["saved_models_dir"] / "moved")
    with pytest.raises(Unavailable, match=f"{finished.name}/1 is not there; remove the folder"):
        carry_out(finished, small, folders, standard_tests(("dead",)))


def test_trials_must_be_at_least_one(small, finished, folders):
    with pytest.raises(InvalidArgument, match="trials=0"):
        runs.test(finished, small, CONDITIONS, trials=0, **folders)


def test_figures(small, finished, folders):
    run = short(small, perturb="blur")
    assert run.natural == finished
    both = [run.natural, run]
    conditions = standard_tests(("blur",))
    trials = pd.concat([carry_out(each, small, folders, conditions) for each in both])
    drawn = runs.draw(both, small, conditions, trials, **folders)
    assert drawn == folders["output_dir"] / run.name / "figures"
    assert sorted(path.name for path in drawn.iterdir()) == [
        "accuracy.png", "examples.png", "training.png",
    ]  # fmt: skip
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in drawn.iterdir())


def test_the_papers_test_conditions():
    conditions = standard_tests(all_kinds(), channel_blur=True)
    assert conditions[0] == Natural()
    assert [str(condition) for condition in conditions[1:]] == [
        "stuck 2", "dead 2", "hot 2", "noise 0.0255", "noise 0.03775", "noise 0.05",
        "blur 0.5", "blur 0.75", "blur 1",
    ]  # fmt: skip
    assert conditions[-1] == Perturbation("blur", 1.0, channel_blur=True)


@pytest.mark.parametrize("killed_at", ["export", "run"])
def test_a_kill_around_the_export_leaves_one_version(small, folders, monkeypatch, killed_at):
    """The SavedModel of a run that is not finished is made again, not beside the other."""
    run = short(small, epochs=1)
    rename = os.rename

    def killed(source, target):
        if killed_at == "export":
            shutil.copytree(source, Path(target).with_name(".1-01234567"))  # is left there
        elif Path(target).name == "1":
            return rename(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        runs.train(run, small, progress=False, **folders)
    monkeypatch.undo()
    assert not runs.is_finished(run, folders["output_dir"])
    exports = folders["saved_models_dir"] / run.name
    assert len(list(exports.iterdir())) == 1
    shutil.copytree(exported_by_another(exports), exports / "7")
    runs.train(run, small, progress=False, **folders)
    assert sorted(path.name for path in exports.iterdir()) == ["7", "8"]


def exported_by_another(exports: Path) -> Path:
    """A version that another output directory's run has made there."""
    (folder,) = exports.iterdir()
    copy = exports.parent / "another"
    shutil.copytree(folder, copy)
    path = copy / "assets.extra" / "checksums.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "mark": "another's"}))
    return copy


def test_a_column_of_the_users_survives_further_trials(small, finished, folders):
    path = folders["output_dir"] / finished.name / "trials.csv"
    table = pd.read_csv(path).assign(note=["a", "7", "b", ""], checked=1)
    table.to_csv(path, index=False)
    more = carry_out(finished, small, folders, trials=4)
    assert more.columns.tolist() == results.TRIAL_COLUMNS and len(more) == 5
    stored = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert stored["note"].tolist() == ["a", "7", "b", "", ""]
    assert stored["checked"].tolist() == ["1", "1", "1", "1", ""]


@pytest.mark.parametrize("name", ["runs.csv", "history.csv"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe"])
def test_damaged_tables_of_a_finished_run_are_one_line(small, finished, folders, name, content):
    path = folders["output_dir"] / finished.name / name
    path.unlink() if content is None else path.write_bytes(content)
    trials = results.read(folders["output_dir"], "trials")
    with pytest.raises(Unavailable, match=f"{name} is damaged.*remove the folder"):
        runs.draw([finished], small, CONDITIONS, trials, **folders)


def test_a_damaged_savedmodel_is_not_tested(small, finished, folders):
    folder = folders["saved_models_dir"] / finished.name / "1"
    own = folders["output_dir"] / finished.name
    for name in ("saved_model.pb", "variables/variables.data-00000-of-00001"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(Unavailable, match=f"{name} is damaged; remove the folder {own} to"):
            carry_out(finished, small, folders)
        (folder / name).write_bytes(content)
