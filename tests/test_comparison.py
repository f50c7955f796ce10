import os

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.stats

from robust_tf import saved_models
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import Evaluator, Natural, measures
from robust_tf.perturbations import Perturbation
from robust_tf.saved_models import classifiers
from robust_tf.studies import comparison
from tests.helpers import command_line, outcome

CONDITIONS = (
    Natural(),
    Perturbation("hot", 2),
    Perturbation("noise", 0.05),
    Perturbation("blur", 1),
)


@pytest.fixture(scope="module")
def found(exported, other, sample):
    loaded = {"good": classifiers.load(exported), "poor": classifiers.load(other)}
    return comparison.measure(
        loaded, sample, CONDITIONS, baseline="good", trials=3, seed=1, progress=False
    )


def test_a_row_a_model_and_test(found, trained, sample):
    tests = found.tests
    assert len(tests) == 2 * len(CONDITIONS)
    assert tests["trials"].tolist() == [1, 3, 3, 1] * 2
    # The Keras model itself, not by way of its SavedModel.
    evaluator, labels = Evaluator(trained, sample.test, 1), sample.test.labels.numpy()
    for condition, row in zip(CONDITIONS, tests[tests["model"] == "good"].itertuples()):
        accuracies, calibration, brier = [], [], []
        for trial in range(row.trials):
            logits = evaluator.scores(condition, trial)
            probabilities = keras.ops.softmax(logits).numpy()
            accuracies.append(evaluator.accuracy(condition, trial))
            calibration.append(measures.calibration_error(probabilities, labels))
            brier.append(np.mean(np.sum((probabilities - np.eye(10)[labels]) ** 2, axis=1)))
        assert row.accuracy == pytest.approx(np.mean(accuracies))
        assert row.std == pytest.approx(np.std(accuracies))
        assert row.calibration_error == pytest.approx(np.mean(calibration), abs=2e-3)
        assert row.brier_score == pytest.approx(np.mean(brier), abs=1e-4)
        assert row.low < row.accuracy < row.high


def test_the_summary(found):
    good, poor = found.summary.set_index("model").loc[["good", "poor"]].itertuples()
    assert (good.mce, good.relative_mce) == pytest.approx((1, 1))
    errors = 1 - found.tests.set_index(["model", "test_perturb"])["accuracy"]
    ratios = [errors["poor", kind] / errors["good", kind] for kind in ("hot", "noise", "blur")]
    assert poor.mce == pytest.approx(np.mean(ratios))
    assert good.natural == 1 - errors["good", "none"]
    assert good.worst == pytest.approx(1 - max(errors["good"]))
    assert good.drop == pytest.approx(good.natural - good.worst)
    assert poor.training == "constant hot"


def test_pairs_are_compared_on_the_same_images(found, trained, other, sample):
    labels = sample.test.labels.numpy()
    both = trained, saved_models.load(other)
    for condition, row in zip(CONDITIONS, found.pairs.itertuples()):
        right = [
            Evaluator(model, sample.test, 1).predictions(condition) == labels for model in both
        ]
        only = [int((a & ~b).sum()) for a, b in (right, right[::-1])]
        assert [row.only_first, row.only_second] == only
        assert row.p_value == pytest.approx(scipy.stats.binomtest(only[0], sum(only)).pvalue)


def test_the_figure(found):
    figure = comparison.figure(found.tests)
    above, below = figure.axes
    assert [tick.get_text() for tick in below.get_xticklabels()][:2] == ["natural", "hot\n2"]
    assert len(above.containers) == 2


@pytest.fixture(scope="module")
def folder(forks, tmp_path_factory):
    """Two runs with their results."""
    folder = tmp_path_factory.mktemp("runs")
    flags = ["--perturb=hot", "--data_source=sample", "--epochs=1", "--trials=1"]
    line = command_line(folder, *flags)[2:]
    done = forks.run(line, tmp_path_factory.mktemp("output"), os.environ, 300)
    assert done.returncode == 0, outcome(done)
    return folder


def test_the_pipeline_compares_runs_and_saved_models(command, folder):
    natural, constant = sorted((folder / "results").glob("mnist-*"), reverse=True)
    done = command(
        str(constant), natural.name, "--data_source=sample", "--eval=hot", "--trials=2",
        f"--output_dir={folder / 'results'}", pipeline="pipelines.compare",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "McNemar" in done.stdout
    (results,) = (folder / "results").glob("comparison-*")
    assert (results / "figures" / "comparison.png").stat().st_size > 10_000
    summary = pd.read_csv(results / "summary.csv")
    assert summary["baseline"].tolist() == [f"{natural.name}/1"] * 2
    assert summary["training"].tolist() == ["constant hot 6", "natural"]
    recorded = pd.read_csv(constant / "trials.csv").iloc[0]
    assert summary["natural"].iloc[0] == pytest.approx(recorded["accuracy"])
    saved = folder / "saved_models" / natural.name
    assert comparison.find(natural.name, folder / "results") == saved / "1"
    assert comparison.find(str(saved), "elsewhere") == saved / "1"


@pytest.mark.parametrize(
    ("runs", "code", "message"),
    [
        (["a"], 2, "error: RUN=a: expected two runs or more"),
        (["a", "b"], 1, "error: RUN=a: there is no such folder; expected the dir"),
    ],
)
def test_what_cannot_be_compared(command, runs, code, message):
    done = command(*runs, pipeline="pipelines.compare")
    assert done.returncode == code
    assert done.stderr.splitlines()[-1].startswith(message)


def test_the_baseline(exported, other):
    both = [classifiers.load(other), classifiers.load(exported)]
    assert comparison.baseline(both) == 1
    assert comparison.baseline(both[:1] * 2) == 0
    assert comparison.baseline(both, both[0].path) == 0
    with pytest.raises(Unavailable, match="expected the directory of a SavedModel"):
        comparison.find("nothing", "nowhere")
    assert comparison.find("model.keras", "nowhere").name == "model.keras"
    with pytest.raises(Unavailable, match=r"RUN=none.keras: expected a .keras file"):
        classifiers.load("none.keras", argument="RUN")


def test_a_table_of_several_runs_is_none(tmp_path):
    for rows in ({"saved_model": ["a", "b"]}, {"saved_model": []}, {"run": ["a"]}):
        pd.DataFrame(rows).to_csv(tmp_path / "runs.csv", index=False)
        with pytest.raises(Unavailable, match="RUN=.*: expected one run with its SavedModel in"):
            comparison.find(str(tmp_path), "nowhere")
    (tmp_path / "runs.csv").write_text("")
    with pytest.raises(Unavailable, match="expected one run"):
        comparison.find(str(tmp_path), "nowhere")


def test_comparisons_of_different_things_have_folders_of_their_own(
    exported, other, small, tmp_path
):
    models = [classifiers.load(path) for path in (exported, other)]

    def write(channel_blur: bool, seed: int = 0):
        conditions = [Natural(), Perturbation("blur", 1, channel_blur)]
        asked = {"baseline": 0, "trials": 1, "seed": seed, "progress": False}
        return comparison.write(models, small, conditions, **asked, output_dir=tmp_path)[0]

    assert write(False) == write(False) != write(True)
    before = set(tmp_path.iterdir())
    with pytest.raises(InvalidArgument, match="seed=-1"):
        write(False, seed=-1)
    assert set(tmp_path.iterdir()) == before
