"""Results are known by what data contain, and by which SavedModel was measured."""

import dataclasses
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from pipelines import app
from pipelines.shared_flags import ModelOutputs, Outputs
from robust_tf import data as data_lib
from robust_tf import machine, results, runs, saved_models, settings
from robust_tf.data import Split
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Evaluator, Natural, Recorded
from robust_tf.perturbations import Perturbation
from robust_tf.runs.sources import Sources
from robust_tf.runs.tasks import Task
from robust_tf.saved_models import classifiers
from robust_tf.studies import comparison, confusions, robustness, sensor_map
from tests.helpers import CONDITIONS, CONTENT, carry_out


@pytest.mark.parametrize(
    "dataset",
    [
        ("mnist", "sample"),
        pytest.param(("mnist", "tfds"), marks=pytest.mark.full_data),
        pytest.param(("cifar10", "tfds"), marks=pytest.mark.full_data),
    ],
    ids="/".join,
)
def test_the_content_that_names_of_shipped_runs_stand_for(dataset):
    name, source = dataset
    data = data_lib.load(name, data_source=source)
    assert ((data.train.digest, data.test.digest), data.label_names) == CONTENT[dataset]
    assert (data.train_digest, data.test.digest) == data_lib.DIGESTS[dataset]


_IMAGES = np.random.default_rng(0).integers(0, 256, (6, 3, 2, 3), np.uint8)
_LABELS = np.array([0, 1, 2, 0, 1, 2])


@given(st.integers(0, _IMAGES.size - 1), st.integers(1, 255))
def test_one_other_byte_is_other_content(place, change):
    images = _IMAGES.copy()
    images.reshape(-1)[place] ^= np.uint8(change)
    assert Split.of_arrays(images, _LABELS).digest != Split.of_arrays(_IMAGES, _LABELS).digest


def test_what_is_other_content_and_what_is_not():
    splits = [
        Split.of_arrays(_IMAGES, _LABELS),
        Split.of_arrays(_IMAGES, _LABELS[::-1]),
        Split.of_arrays(_IMAGES[::-1], _LABELS),
        Split.of_arrays(_IMAGES.reshape(6, 2, 3, 3), _LABELS),
        Split.of_arrays(_IMAGES[:5], _LABELS[:5]),
    ]
    assert len({split.digest for split in splits}) == len(splits)
    whole = splits[0]
    assert whole.first(5).digest == whole.first(5).first(2).digest == whole.digest
    assert dataclasses.replace(whole, divisor=256).digest == whole.digest
    for split in splits:  # no reader of tables takes it for a number
        assert isinstance(pd.Series([split.digest]).infer_objects()[0], str)
        with pytest.raises(ValueError, match="could not convert"):
            float(split.digest)


def changed(split: Split) -> Split:
    """As many images of the same shape, each with the label of the next class."""
    return Split(split.images, (split.labels + 1) % 10)


@pytest.mark.parametrize("given", [{}, {"perturb": "hot"}, {"strategy": "transfer"}])
def test_a_run_of_other_training_data_has_another_name(small, given):
    given = {"perturb": "hot"} | given if given else given
    pixel = tf.tensor_scatter_nd_add(
        small.train.images, [[199, 0, 0, 0]], tf.constant([1], "uint8")
    )
    others = [
        dataclasses.replace(small, train=changed(small.train)),
        dataclasses.replace(small, train=Split(pixel, small.train.labels)),
        dataclasses.replace(small, label_names=tuple("abcdefghij")),
    ]
    made = [runs.resolve(data, **given) for data in (small, *others)]
    assert len({run.name for run in made}) == len(made)
    assert len({run.columns()["train_digest"] for run in made}) == len(made)
    if given:
        assert len({run.natural.name for run in made}) == len(made)
    with pytest.raises(InvalidArgument, match="data=sha256:.*: expected the data that the run was"):
        runs.train(made[0], others[0], output_dir="nowhere", saved_models_dir="nowhere")


def test_trials_of_other_test_images_are_not_taken_for_these(small, finished, folders):
    before = results.read(folders["output_dir"], "trials")
    other = dataclasses.replace(small, test=changed(small.test))
    assert runs.resolve(other, epochs=2, batch_size=50).name == finished.name
    trials = carry_out(finished, other, folders)
    model = runs.load_model(finished, **folders)
    for row in trials.itertuples():
        condition = Natural() if row.test_perturb == "none" else Perturbation("hot", row.test_level)
        assert row.accuracy == Evaluator(model, other.test, 0).accuracy(condition, row.trial)
    assert set(trials["test_digest"]) == {other.test.digest}
    stored = results.read(folders["output_dir"], "trials")
    pd.testing.assert_frame_equal(stored.iloc[: len(before)], before)
    pd.testing.assert_frame_equal(carry_out(finished, small, folders), before)
    robustness_csv = saved_models.ROBUSTNESS
    (path,) = folders["saved_models_dir"].glob(f"*/1/{robustness_csv}")
    pd.testing.assert_frame_equal(pd.read_csv(path), results.summarize(before))


def test_trials_of_a_replaced_savedmodel_are_measured_again(small, finished, folders, other):
    """The mean of two models is that of neither."""
    first = results.read(folders["output_dir"], "trials")
    version = folders["saved_models_dir"] / finished.name / "1"
    shutil.rmtree(version)
    shutil.copytree(other, version)
    with pytest.warns(
        UserWarning, match=f"trials of another model than {finished.name}, {finished.name}/1"
    ):
        trials = carry_out(finished, small, folders, trials=4)
    assert len(trials) == len(first) + 1 and set(trials["saved_model"]).isdisjoint(
        first["saved_model"]
    )
    evaluator = Evaluator(runs.load_model(finished, **folders), small.test)
    assert trials["accuracy"][0] == evaluator.accuracy(Natural()) != first["accuracy"][0]
    assert len(results.read(folders["output_dir"], "trials")) == len(trials)


def test_data_that_change_while_a_process_lives_are_seen(monkeypatch, small):
    loaded = iter([small, dataclasses.replace(small, test=changed(small.test))])
    monkeypatch.setattr(data_lib, "load", lambda *_, **__: next(loaded))
    sources = Sources(data_source=data_lib.Sample())
    first, second = sources.load("mnist"), sources.load("mnist")
    assert first.test.digest != second.test.digest


def test_the_divisor_is_part_of_what_was_tested(small, exported, tmp_path):
    darker = dataclasses.replace(small, test=dataclasses.replace(small.test, divisor=1000))
    own = {"trials": 1, "seed": 0, "output_dir": tmp_path, "progress": False}
    model = classifiers.load(exported)
    folders = {robustness.write(model, data, [Natural()], **own)[0] for data in (small, darker)}
    assert len(folders) == 2 and len({data.test.identity for data in (small, darker)}) == 2


def test_a_sweep_tests_again_with_other_test_images(small, finished, folders):
    other = runs.resolve(
        dataclasses.replace(small, test=changed(small.test)), epochs=2, batch_size=50
    )
    mine, theirs = (Task(run, CONDITIONS, 3) for run in (finished, other))
    assert mine.is_done(folders["output_dir"]) and not theirs.is_done(folders["output_dir"])
    for task, count in ((mine, 4), (theirs, 0)):
        name = f"sweep-{count}"
        results.add_to_plan(folders["output_dir"], name, pd.DataFrame([task.columns()]))
        results.gather(folders["output_dir"], name)
        gathered = results.read_experiment(folders["output_dir"], name, "trials")
        assert len(gathered) == count


def test_other_recorded_images_of_the_same_name_are_tested(small, finished, folders):
    def accuracy(split):
        conditions = (Natural(), Recorded("fog", 1.0, split))
        trials = carry_out(finished, small, folders, conditions, trials=1)
        return trials["accuracy"].iloc[1]

    model = runs.load_model(finished, **folders)
    for split in (small.test, changed(small.test)):
        assert accuracy(split) == Evaluator(model, split).accuracy(Natural())


def test_tables_from_before_there_were_digests(small, finished, folders, monkeypatch):
    """Rows of the sample are of its known content; those of other data are measured again."""
    path = folders["output_dir"] / finished.name / "trials.csv"
    first = pd.read_csv(path)
    old = first.drop(columns=["test_digest", "saved_model"])
    old.to_csv(path, index=False)
    monkeypatch.setattr(Evaluator, "accuracy", lambda *_: pytest.fail("measured again"))
    again = carry_out(finished, small, folders)
    pd.testing.assert_frame_equal(again[list(old)], old)
    assert again["test_digest"].tolist() == first["test_digest"].tolist()
    old.assign(dataset="photos").to_csv(path, index=False)
    assert not Task(finished, CONDITIONS, 3).is_done(folders["output_dir"])


class _Reached(BaseException):
    """What a study stops with where it would measure."""


def test_studies_of_other_content_have_folders_of_their_own(
    small, exported, other, tmp_path, monkeypatch
):
    few = dataclasses.replace(small, test=small.test.first(20))
    datasets = [
        few,
        dataclasses.replace(few, test=changed(few.test)),
        dataclasses.replace(few, test=Split(few.test.images[::-1], few.test.labels[::-1])),
    ]
    model, second = map(classifiers.load, (exported, other))
    hot = (Natural(), Perturbation("hot", 1))
    own = {"trials": 1, "seed": 0, "output_dir": tmp_path, "progress": False}
    assert len({robustness.write(model, data, hot, **own)[0] for data in datasets}) == 3
    seen = set()

    def stop(*_, **__):
        seen.update(path.name for path in tmp_path.iterdir())
        raise _Reached

    for study in (confusions, comparison, sensor_map):  # each makes its folder, then measures
        monkeypatch.setattr(study, "measure", stop)
    for data in datasets:
        for write in (
            lambda data: confusions.write(model, data, hot[1:], **own),
            lambda data: comparison.write([model, second], data, hot, baseline=0, **own),
            lambda data: sensor_map.write(model, data, "hot", output_dir=tmp_path, progress=False),
        ):
            with pytest.raises(_Reached):
                write(data)
    assert len(seen) == 4 * len(datasets)
    assert len(list(tmp_path.iterdir())) == len(datasets)  # empty ones are not left
    trials = results.read(tmp_path, "trials")
    natural = (
        trials[trials["test_perturb"] == "none"].groupby("run", sort=False)["accuracy"].first()
    )
    measured = sorted(Evaluator(model, data.test).accuracy(Natural()) for data in datasets)
    assert sorted(natural) == measured
    assert set(trials["saved_model"]) == {"digits/1"}


def test_savedmodels_live_with_their_results():
    places = {
        "results": "saved_models",
        "results/": "saved_models",
        "./results": "saved_models",
        "S3://bucket/x/": "s3://bucket/x/saved_models",
        "file://localhost/srv/y/": "file:///srv/y/saved_models",
        "elsewhere": "elsewhere/saved_models",
        "s3://bucket/x": "s3://bucket/x/saved_models",
        "/srv/y": "/srv/y/saved_models",
    }
    for output_dir, expected in places.items():
        given = settings.check(ModelOutputs, {"output_dir": output_dir})
        assert settings.make(ModelOutputs, given).saved_models_dir == expected
        own = settings.make(ModelOutputs, given | {"saved_models_dir": "models"})
        assert own.saved_models_dir == "models"
    assert Outputs().output_dir == "results"
    for place in (
        "",
        " ",
        "file:/srv/x",
        "file://srv/x",
        "file://",
        "file:///srv/a::b",
        "s3://a::b",
    ):
        with pytest.raises(InvalidArgument, match="expected a directory or a URL"):
            settings.check(ModelOutputs, {"output_dir": place})


def test_each_table_names_the_version_that_was_measured(small, finished, folders, tmp_path):
    folder = folders["saved_models_dir"] / finished.name
    saved_models.export(
        runs.load_model(finished, **folders), folder, label_names=small.label_names, training={}
    )
    again = carry_out(finished, small, folders, trials=4)  # the run's own, not the latest
    (name,) = set(again["saved_model"])
    assert re.fullmatch(rf"{finished.name}/1 [0-9a-f]{{8}}", name)
    latest = classifiers.load(folder)
    own = {"seed": 0, "output_dir": tmp_path, "trials": 1, "progress": False}
    _, table = robustness.write(latest, small, CONDITIONS, **own)
    assert set(table["saved_model"]) == {f"{finished.name}/2"}
    _, found = comparison.write(
        [classifiers.load(folder / "1"), latest], small, CONDITIONS, baseline=0, **own
    )
    assert found.tests["model"].unique().tolist() == [f"{finished.name}/{n}" for n in (1, 2)]
    few = dataclasses.replace(small, test=small.test.first(5))
    _, _, summary = sensor_map.write(latest, few, "hot", output_dir=tmp_path, progress=False)
    assert summary["model"].tolist() == [f"{finished.name}/2"]


def test_a_savedmodel_of_a_run_that_had_another_directory_is_found(small, finished, folders):
    first = results.read(folders["output_dir"], "trials")
    elsewhere = folders | {"saved_models_dir": folders["output_dir"] / "saved_models"}
    moved = carry_out(finished, small, elsewhere, trials=4)
    pd.testing.assert_frame_equal(moved.iloc[:4], first)


def test_models_of_other_threads_are_named(finished, folders, monkeypatch, recwarn):
    count = runs.trained_with(finished, folders["output_dir"])
    assert count == machine.threads()
    app.warn_of_threads([count, count])
    assert not recwarn
    monkeypatch.setattr(machine, "threads", lambda: count + 1)
    with pytest.warns(UserWarning, match=f"2 models trained earlier with {count} threads, not"):
        app.warn_of_threads([count, count])
