"""Correct or retrain: the study beside a loop by hand, its verdicts beside SciPy, the command."""

import numpy as np
import pandas as pd
import pytest
import scipy.ndimage
import scipy.stats
import tensorflow as tf

from robust_tf import saved_models
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Natural
from robust_tf.evaluation.conditions import InBits
from robust_tf.models.correction import ListCorrection, MedianFilter, OutlierCorrection
from robust_tf.perturbations import Perturbation
from robust_tf.results import figures
from robust_tf.sensors import DefectMap, Device
from robust_tf.studies import remedies
from tests.helpers import check_one_line, linear_classifier, outcome

DEFECTS = DefectMap([3, 14, 27], [4, 14, 0], values=1.0)
LIST = ListCorrection([[3, 4, -1], [14, 14, -1], [27, 0, -1]])


@pytest.fixture(scope="module")
def two(small):
    return linear_classifier(small, "one.keras", 200), linear_classifier(small, "other.keras", 100)


@pytest.fixture(scope="module")
def measured(two, small):
    """Two models and two corrections on natural images and a device."""
    conditions = (Natural(), Device(DEFECTS, "front", small.image_shape))
    asked = remedies.remedies(two[0], [MedianFilter(), LIST], two[1])
    return remedies.measure(asked, small, conditions, trials=2, seed=0, progress=False)


def test_remedies_are_what_a_loop_by_hand_finds(measured, two, small):
    table, pairs = measured
    models = dict(zip(("", "training"), two))
    images, labels = small.test.images_at(tf.range(100)).numpy(), small.test.labels.numpy()
    defective = images.copy()
    defective[:, [3, 14, 27], [4, 14, 0]] = 1.0
    listed = defective.copy()
    for row, column in ((3, 4), (14, 14), (27, 0)):  # the last in a corner, which is mirrored
        around = np.pad(defective, [(0, 0), (1, 1), (1, 1), (0, 0)], "symmetric")
        window = around[:, row : row + 3, column : column + 3, 0].reshape(100, 9)
        itself = np.pad(np.arange(784).reshape(28, 28), 1, "symmetric")
        places = itself[row : row + 3, column : column + 3].ravel()
        good = window[:, places != 28 * row + column]
        listed[:, row, column, 0] = np.median(good, axis=1)
    seen = {
        "none": {"": images, "median": median(images)},
        "defects": {"": defective, "median": median(defective), str(LIST): listed},
    }
    right = {}
    for kind, by_correction in seen.items():
        for correction, batch in by_correction.items():
            for training, model in models.items():
                name = " + ".join(filter(None, (training, correction))) or "neither"
                own = np.argmax(model(tf.constant(batch)), axis=1) == labels
                right[kind, name] = own
                row = table[(table["remedy"] == name) & table["test_perturb"].str.startswith(kind)]
                assert row["accuracy"].tolist() == [own.mean()], (kind, name)
                low, high = scipy.stats.binomtest(int(own.sum()), 100).proportion_ci(0.95, "wilson")
                np.testing.assert_allclose(row[["low", "high"]], [[low, high]], atol=1e-9)
    first, second = right["defects", "neither"], right["defects", "median"]
    mine = pairs[
        (pairs["first"] == "neither")
        & (pairs["second"] == "median")
        & pairs["test_perturb"].str.startswith("defects")
    ].iloc[0]
    only = (int((first & ~second).sum()), int((second & ~first).sum()))
    assert (mine["only_first"], mine["only_second"]) == only and sum(only) > 5
    assert mine["p_value"] == pytest.approx(scipy.stats.binomtest(only[0], sum(only)).pvalue)


def median(images: np.ndarray) -> np.ndarray:
    return scipy.ndimage.median_filter(images, (1, 3, 3, 1), mode="reflect")


def test_the_table_has_a_row_per_remedy_and_test(measured):
    table, pairs = measured
    assert list(table) == remedies.REMEDIES_COLUMNS
    assert len(table) == 6 * 2 and len(pairs) == 15 * 2
    assert table["remedy"].unique().tolist() == [
        *("neither", "median", "median list of 3"),
        *("training", "training + median", "training + median list of 3"),
    ]
    assert (table[["milliseconds", "batch_milliseconds"]] > 0).all(axis=None)
    assert table["batch_size"].tolist() == [100] * 12
    assert table["model"].iloc[::2].tolist() == [
        *("one.keras", "one.keras + median", "one.keras + median list of 3"),
        *("other.keras", "other.keras + median", "other.keras + median list of 3"),
    ]


def test_times_tell_a_slow_model_from_a_quick_one(small):
    def quick(images):
        return tf.reduce_mean(images, axis=(1, 2))

    def slow(images):
        for _ in range(60):
            images = tf.nn.conv2d(images, tf.ones([7, 7, 1, 1]), 1, "SAME") / 49
        return quick(images)

    found = remedies.times({"quick": quick, "slow": slow}, small.test).set_index("remedy")
    assert found.loc["slow", "batch_milliseconds"] > 5 * found.loc["quick", "batch_milliseconds"]


def test_verdicts_name_what_is_shown():
    def pair(first, second, kind, only_first, only_second):
        p_value = scipy.stats.binomtest(only_first, only_first + only_second).pvalue
        return [first, second, kind, 1.0, only_first, only_second, p_value]

    rows = [
        pair("median", "training", "hot", 20, 2),
        pair("median", "training", "noise", 3, 40),
        pair("median", "training", "dead", 12, 3),  # p 0.035: of three tests, nothing
        pair("neither", "median", "hot", 0, 90),
        pair("training", "training + median", "hot", 9, 0),
    ]
    lines = remedies.verdicts(pd.DataFrame(rows, columns=remedies.PAIRS_COLUMNS))
    assert lines == [
        "median against training: better: hot 1; worse: noise 1; no difference shown: dead 1"
    ]
    alone = pd.DataFrame([pair("neither", "median", "hot", 0, 90)], columns=remedies.PAIRS_COLUMNS)
    assert remedies.verdicts(alone) == ["median against neither: better: hot 1"]


def test_each_question_has_a_folder_of_its_own(two, small, tmp_path, monkeypatch, measured):
    """Whatever is the same in the names of conditions and corrections."""
    monkeypatch.setattr(remedies, "measure", lambda *_, **__: measured)
    monkeypatch.setattr(remedies, "figure", lambda table: figures.blank(1, 1))
    small_list, blur = DEFECTS.part(np.array([0, 1])), Perturbation("blur", 0.5)
    questions = (
        ([MedianFilter()], [Device(DEFECTS, "front")]),
        ([MedianFilter()], [Device(small_list, "front")]),
        ([OutlierCorrection(0.3)], [Device(DEFECTS, "front")]),
        ([LIST], [blur]),
        ([ListCorrection([[3, 4, -1], [14, 14, -1], [26, 0, -1]])], [blur]),
        ([LIST], [InBits(blur)]),
    )
    given = {"trials": 1, "seed": 0, "output_dir": tmp_path, "progress": False}
    found = {
        remedies.write(two[0], layers, small, asked, **given)[0] for layers, asked in questions
    }
    assert len(found) == len(questions)
    layers, asked = questions[0]
    assert remedies.write(two[0], [MedianFilter()], small, asked, **given)[0] in found


def test_the_command_compares_and_exports(in_process, exported, tmp_path):
    DEFECTS.write(tmp_path / "front.csv")
    done = in_process(
        f"--model={exported}",
        f"--defects={tmp_path / 'front.csv'}",
        *("--corrections=list", "--export=list", "--eval=hot", "--pixels=3"),
        *("--data_source=sample", "--test_examples=40", "--trials=1"),
        pipeline="pipelines.remedies",
    )
    assert done.returncode == 0, outcome(done)
    (results,) = (tmp_path / "results").iterdir()
    table = pd.read_csv(results / "remedies.csv")
    assert table["test_perturb"].str.replace(r"-\w+$", "", regex=True).unique().tolist() == [
        *("none", "hot", "defects/front"),
    ]
    for row in table.itertuples():
        assert f"[{100 * row.low:.2f}, {100 * row.high:.2f}]" in done.stdout
    assert "median list of 3 against neither: " in done.stdout
    assert "of each line, not of all lines together" in " ".join(done.stdout.split())
    assert (results / "figures" / "remedies.png").stat().st_size > 5_000
    name = f"digits-median-list-of-3-front-{DEFECTS.digest[:8]}"
    assert f"saved_models/{name}/1" in done.stdout
    folder = tmp_path / "saved_models" / name / "1"
    assert saved_models.metadata(folder)["training"]["correction"] == "median list of 3"


def test_what_cannot_be_compared(in_process, exported, two, small, tmp_path):
    def run(*flags):
        return in_process(
            f"--model={exported}", "--data_source=sample", *flags, pipeline="pipelines.remedies"
        )

    expected = "--defects: expected one file, with the defects that list corrects"
    check_one_line(run("--corrections=list"), 2, expected)
    check_one_line(run("--export=list"), 2, expected)
    check_one_line(run("--threshold=2"), 2, "--threshold=2.0: expected a number from 0 to 1")
    check_one_line(run("--corrections=mean"), 2, "expected some of median, outlier, list")
    check_one_line(run("--pixels=0"), 2, "--pixels=0: expected whole numbers from 1 on")
    (tmp_path / "far.csv").write_text("row,column,kind\n28,0,hot\n")
    done = run(f"--defects={tmp_path / 'far.csv'}")
    assert done.returncode == 2 and "expected a position on the sensor" in done.stderr
    model, _ = two
    given = {"trials": 1, "seed": 0, "output_dir": tmp_path / "none"}
    for layers, robust in (([], None), ([MedianFilter()], model)):
        with pytest.raises(InvalidArgument, match="corrections: |robust=.*: expected another"):
            remedies.write(model, layers, small, [Perturbation("hot", 1)], robust=robust, **given)
    with pytest.raises(InvalidArgument, match="eval=: expected at least one test"):
        remedies.write(model, [MedianFilter()], small, [Natural()], **given)
    assert not (tmp_path / "none").exists()
