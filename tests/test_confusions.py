import collections

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
        assert own["test_level"].is_monotonic_increasing
        assert [str(labels[i]) for i in own["example"]] == own["label"].tolist()


def test_a_flow_that_is_known():
    """A model that sees nothing but whether there is a white pixel, and black images."""
    split = Split(tf.zeros([40, 4, 4, 1], tf.uint8), tf.zeros([40], tf.int64))
    data = Data("black", "tfds", split, split, ("dark", "light", "never"))

    def model(images):
        light = tf.reduce_max(images, axis=[1, 2, 3])
        return tf.stack([0.5 - light, light - 0.5, tf.fill(tf.shape(light), -9.0)], axis=1)

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
    (folder,) = (tmp_path / "results").iterdir()
    changes = pd.read_csv(folder / "changes.csv")
    assert len(changes) == 10 * 100
    assert changes.groupby(["test_perturb", "test_level"])["images"].sum().eq(200).all()
    assert {path.name for path in (folder / "figures").iterdir()} == {"changes.png", "flips.png"}
    for asked in ("corrupted", "hot,tfds:kmnist"):
        done = command(f"--eval={asked}", pipeline="pipelines.confusions")
        check_one_line(done, 2, f"--eval={asked}: expected kinds of perturbation")


def test_trials(trained, small):
    with pytest.raises(InvalidArgument, match="trials=0"):
        confusions.measure(trained, small, CONDITIONS, trials=0, seed=1)
