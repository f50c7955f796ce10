import collections
import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from robust_tf.data import Data, Split
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Evaluator, Natural
from robust_tf.perturbations import Perturbation
from robust_tf.studies import confusions
from tests.helpers import check_one_line

CONDITIONS = [Perturbation("noise", 0.2), Perturbation("hot", 3), Perturbation("hot", 1)]


@pytest.fixture(scope="module")
def found(trained, small):
    return confusions.measure(trained, small, CONDITIONS, trials=2, seed=1)


def test_changes_are_those_of_a_plain_count(found, trained, small):
    evaluator = Evaluator(trained, small.test, 1)
    natural = evaluator.predictions(Natural())
    for condition in CONDITIONS:
        counts: collections.Counter = collections.Counter()
        for trial in range(2):
            counts.update(zip(natural.tolist(), evaluator.predictions(condition, trial).tolist()))
        own = found.changes[
            (found.changes["test_perturb"] == condition.kind)
            & (found.changes["test_level"] == condition.level)
        ]
        assert len(own) == 100
        for row in own.itertuples():
            pair = int(row.natural), int(row.perturbed)
            assert row.images == counts[pair] / 2
            having = int((natural == pair[0]).sum())
            assert np.isnan(row.share) if not having else row.share == row.images / having


def test_an_image_flips_at_the_lowest_level_that_does_it(found, trained, small):
    evaluator = Evaluator(trained, small.test, 1)
    natural, labels = evaluator.predictions(Natural()), small.test.labels.numpy()
    for kind, levels in (("hot", (1, 3)), ("noise", (0.2,))):
        expected = {}
        for level in levels:
            predicted = evaluator.predictions(Perturbation(kind, level))
            for i in np.flatnonzero(predicted != natural):
                expected.setdefault(int(i), (level, str(natural[i]), str(predicted[i])))
        own = found.flips[found.flips["test_perturb"] == kind]
        rows = {
            row.example: (row.test_level, row.natural, row.perturbed) for row in own.itertuples()
        }
        assert rows == expected
        assert list(dict.fromkeys(own["flip"])) == sorted(own["flip"].unique())
        by_flip = own.groupby("flip")["test_level"]
        assert by_flip.apply(lambda levels: levels.is_monotonic_increasing).all()
        for row in own.itertuples():
            before, after = row.natural == row.label, row.perturbed == row.label
            words = ("right" if one else "wrong" for one in (before, after))
            assert row.flip == " to ".join(words)
        assert [str(labels[i]) for i in own["example"]] == own["label"].tolist()


def planted(labels: list[int]) -> tuple[Data, Callable]:
    """Black images, and a model that says 0, or 1 where there is a white pixel."""
    split = Split(tf.zeros([len(labels), 4, 4, 1], tf.uint8), tf.constant(labels, tf.int64))

    def model(images):
        return tf.one_hot(tf.cast(tf.reduce_max(images, axis=[1, 2, 3]) > 0.9, tf.int32), 3)

    return Data("black", "tfds", split, split, ("dark", "light", "never")), model


@pytest.mark.parametrize(
    ("labels", "expected", "drawn"),
    [
        ([0] * 8, {"right to wrong": 8}, 6),
        ([1] * 3, {"wrong to right": 3}, 3),
        ([2] * 5, {"wrong to wrong": 5}, 0),
        ([2, 1, 0, 1, 0, 0], {"right to wrong": 3, "wrong to right": 2, "wrong to wrong": 1}, 5),
    ],
)
def test_images_that_were_wrong_before_are_apart(labels, expected, drawn):
    data, model = planted(labels)
    conditions = [Perturbation("hot", 2), Perturbation("hot", 1), Perturbation("dead", 1)]
    found = confusions.measure(model, data, conditions, trials=1, seed=0)
    flips = found.flips["flip"]
    assert flips.value_counts().to_dict() == expected
    assert list(dict.fromkeys(flips)) == list(expected)
    for row in found.flips.itertuples():
        assert labels[row.example] == {"right to wrong": 0, "wrong to right": 1}.get(row.flip, 2)
    shown = confusions.first_to_flip(found, data, conditions, seed=0)
    assert len(shown) == drawn
    assert shown["flip"].is_monotonic_increasing and "wrong to wrong" not in set(shown["flip"])
    if drawn:
        titles = [axes.get_title() for axes in confusions.flips_figure(shown, "a model").axes]
        marks = [
            "✓ → light ✗" if one == "right to wrong" else "✗ → light ✓" for one in shown["flip"]
        ]
        assert all(mark in title for mark, title in zip(marks, filter(None, titles), strict=True))


@pytest.mark.parametrize("shares", [(0.8, 0.1), (0.002, 0.001), (0.3, np.nan)])
def test_heat_maps_have_one_colour_scale(shares):
    rows = [
        (kind, 1.0, natural, perturbed, 1.0, share if natural != perturbed else 0.99)
        for kind, share in zip(("dead", "hot"), shares)
        for natural in "ab"
        for perturbed in "ab"
    ]
    table = pd.DataFrame(rows, columns=confusions.CHANGES_COLUMNS)
    figure = confusions.changes_figure(table, ("a", "b"), "a model")
    *panels, bar = figure.axes
    assert len(panels) == 2 and bar.get_label() == "<colorbar>"
    for axes in panels:
        assert axes.images[0].get_clim() == pytest.approx((0, max(1.0, 100 * shares[0])))


def test_a_flow_that_is_known():
    data, model = planted([0] * 40)
    conditions = [Perturbation("hot", 1), Perturbation("dead", 1)]
    found = confusions.measure(model, data, conditions, trials=3, seed=0)
    (flow,) = confusions.largest(found.changes, 5).itertuples()
    assert (flow.test_perturb, flow.natural, flow.perturbed) == ("hot", "dark", "light")
    assert (flow.images, flow.share) == (40, 1)
    assert len(found.flips) == 40
    shown = confusions.first_to_flip(found, data, conditions, seed=0)
    assert len(shown) == 6
    assert len(confusions.flips_figure(shown, "a model").axes) == 6
    matrix = confusions.changes_figure(found.changes, data.label_names, "a model").axes[1].images[0]
    values = matrix.get_array().filled(np.nan)
    assert values[0, 1] == 100 and values[0, 2] == 0 and np.isnan(values[0, 0])


def test_the_pipeline(command, exported, tmp_path):
    flags = [f"--model={exported}", "--data_source=sample", "--test_examples=200", "--trials=1"]
    done = command(*flags, "--eval=hot,blur", pipeline="pipelines.confusions")
    assert done.returncode == 0, done.stderr
    assert "The largest flows between classes" in done.stdout
    flips = done.stdout.partition("first time at a level (trial 0)\n\n")[2].splitlines()
    assert re.split("  +", flips[0].strip())[2:] == list(confusions.FLIPS)
    (folder,) = (tmp_path / "results").iterdir()
    found = pd.read_csv(folder / "flips.csv")
    counts = [line.split() for line in flips[1 : flips.index("")]]
    assert sum(int(count) for row in counts for count in row[2:]) == len(found)
    assert sum(int(row[2]) for row in counts) == (found["flip"] == "right to wrong").sum() > 0
    changes = pd.read_csv(folder / "changes.csv")
    assert len(changes) == 10 * 100
    assert changes.groupby(["test_perturb", "test_level"])["images"].sum().eq(200).all()
    assert {path.name for path in (folder / "figures").iterdir()} == {"changes.png", "flips.png"}
    for asked in ("corrupted", "hot,tfds:kmnist"):
        done = command(f"--eval={asked}", pipeline="pipelines.confusions")
        check_one_line(done, 2, f"--eval={asked}: expected perturbations of the test images")


def test_trials(trained, small):
    with pytest.raises(InvalidArgument, match="trials=0"):
        confusions.measure(trained, small, CONDITIONS, trials=0, seed=1)
