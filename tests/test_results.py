import re

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.stats

from pipelines import app
from robust_tf import results
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import Evaluator, Natural, measures
from robust_tf.files import new_folder, prepare_directory, replacing, writing_to
from robust_tf.perturbations import Perturbation
from tests.conftest import ROOT


def trials(run="a", strategy="natural", perturb="none", level=np.nan, shift=0.0) -> pd.DataFrame:
    rows = [
        {
            "run": run,
            "dataset": "mnist",
            "data_source": "sample",
            "model": "mnist_cnn",
            "strategy": strategy,
            "train_perturb": perturb,
            "train_level": level,
            "seed": 0,
            "test_perturb": test_perturb,
            "test_level": test_level,
            "trial": trial,
            "accuracy": accuracy + shift,
            "n_examples": 1000,
            "changed": 0.1 if trial else np.nan,
            "test_digest": "sha256:3746ed34",
            "saved_model": f"{run}/1",
        }
        for test_perturb, test_level, accuracies in [
            ("none", np.nan, [0.95]),
            ("hot", 2, [0.75, 0.77, 0.79]),
            ("noise", 0.0255, [0.5, 0.5, 0.53]),
        ]
        for trial, accuracy in enumerate(accuracies)
    ]
    return pd.DataFrame(rows)


def write_run(directory, run, **kwargs):
    folder = directory / run
    folder.mkdir()
    results.write(trials(run, **kwargs), folder / "trials.csv", results.TRIAL_COLUMNS)


def test_read_gathers_all_finished_runs(tmp_path):
    write_run(tmp_path, "b", strategy="constant", perturb="hot", level=6)
    write_run(tmp_path, "a")
    write_run(tmp_path, "c.partial")
    table = results.read(tmp_path, "trials")
    assert table.columns.tolist() == results.TRIAL_COLUMNS
    assert table["run"].unique().tolist() == ["a", "b"]
    natural = table[table["test_perturb"] == "none"]
    assert len(natural) == 2 and natural["test_level"].isna().all()
    assert (table[table["run"] == "a"]["train_perturb"] == "none").all()
    with pytest.raises(Unavailable, match="no run in it has a runs.csv"):
        results.read(tmp_path, "runs")


def test_read_takes_the_gathered_table_of_an_experiment(tmp_path):
    write_run(tmp_path, "a")
    own = tmp_path / "a" / "trials.csv"
    own.rename(tmp_path / "trials.csv")
    assert results.read(tmp_path, "trials")["run"].unique().tolist() == ["a"]


def test_cells_stay_as_they_are_where_runs_have_different_settings(tmp_path):
    """No False becomes 0.0 and no 6 becomes 6.0 beside a run that has no such setting."""
    for run, settings in {"a": {}, "b": {"fresh": False, "depth": 6, "ramp_end": 1.0}}.items():
        (tmp_path / run).mkdir()
        columns = {"run": run, "dataset": "mnist", "data_source": "sample", "test_digest": "x"}
        columns |= {"fresh": None, "depth": None, "ramp_end": None}
        table = pd.DataFrame([columns | settings])
        table.to_csv(tmp_path / run / "runs.csv", index=False)
    table = results.read(tmp_path, "runs")
    assert table["fresh"].tolist()[1] is False
    assert table["depth"].dtype == table["ramp_end"].dtype == float
    models = table[["run", "dataset", "data_source", "test_digest"]]
    models = models.assign(tests="natural", trials=1, test_examples=2)
    (tmp_path / "sweep").mkdir()
    models.to_csv(tmp_path / "sweep" / "models.csv", index=False)
    results.gather(tmp_path, "sweep")
    lines = (tmp_path / "sweep" / "tables" / "runs.csv").read_text().splitlines()
    assert [line.split("x,")[-1] for line in lines[1:]] == [",,", "False,6,1.0"]


def test_a_profile_needs_natural_and_perturbed_tests():
    table = trials("a")
    for own in (table[table["test_perturb"] == "none"], table[table["test_perturb"] != "none"]):
        with pytest.raises(InvalidArgument, match="^trials: expected tests of natural and of"):
            results.profile(own)


def test_history_gets_the_run(tmp_path):
    (tmp_path / "a").mkdir()
    pd.DataFrame({"epoch": [1, 2]}).to_csv(tmp_path / "a" / "history.csv", index=False)
    assert results.read(tmp_path, "history")["run"].tolist() == ["a", "a"]


def test_summary_is_numpys_and_scipys():
    summary = results.summarize(trials()).set_index("test_perturb")
    hot = np.array([0.75, 0.77, 0.79])
    assert summary.loc["hot", "mean"] == pytest.approx(hot.mean())
    assert summary.loc["hot", "std"] == pytest.approx(np.std(hot))
    low, high = scipy.stats.t.interval(0.95, 2, loc=hot.mean(), scale=scipy.stats.sem(hot))
    assert summary.loc["hot", "ci95"] == pytest.approx((high - low) / 2)
    assert summary.loc["hot", "n_trials"] == 3 and summary.loc["hot", "n_examples"] == 1000
    ends = summary.loc["hot", ["low", "high"]].astype(float)
    np.testing.assert_allclose(ends, measures.interval(0.77, 1000, 3, 0.1))
    assert summary.loc["none", "std"] == 0
    assert np.isnan(summary.loc["none", "ci95"])
    assert summary.index.tolist() == ["none", "hot", "noise"]


def wilson(right: int, examples: int) -> tuple[float, float]:
    found = scipy.stats.binomtest(right, examples).proportion_ci(0.95, "wilson")
    return found.low, found.high


def test_one_pass_has_the_interval_of_its_images():
    natural = results.summarize(trials()).iloc[0]
    assert (natural["low"], natural["high"]) == pytest.approx(wilson(950, 1000))


@pytest.mark.parametrize("column", ["absent", "empty", "object"])
def test_trials_of_before_have_the_interval_of_one_pass(column):
    table = trials()
    table["changed"] = np.nan if column == "empty" else table["changed"].astype(object)
    if column == "absent":
        table = table.drop(columns="changed")
    row = results.summarize(table).iloc[1]
    wide = wilson(770, 1000)
    if column == "object":
        assert wide[0] < row["low"] < row["mean"] < row["high"] < wide[1]
    else:
        assert (row["low"], row["high"]) == pytest.approx(wide)


@pytest.mark.parametrize(
    ("right", "examples", "expected"),
    [
        (10, 12, "83.33 ± 0.00 [55.20, 95.30]"),
        (3, 3, "100.00 ± 0.00 [43.85, 100.00]"),
        (0, 20, "0.00 ± 0.00 [0.00, 16.11]"),
        (50, 100, "50.00 ± 0.00 [40.38, 59.62]"),
    ],
)
def test_small_samples_do_not_look_exact(right, examples, expected):
    table = trials().assign(accuracy=right / examples, n_examples=examples, changed=0.0)
    row = results.comparison(table).loc["natural"]
    assert row["hot 2"] == row["noise 0.0255"] == expected
    assert row["natural"] == expected.replace(" ± 0.00", "")
    profile = results.profile(table).loc["natural"]
    for name in ("natural", "mean", "worst"):
        ends = profile[f"{name}_low"], profile[f"{name}_high"]
        assert ends == pytest.approx(wilson(right, examples), abs=1e-12)
    seeds = pd.concat([table.assign(run=run, seed=seed) for seed, run in enumerate("ab")])
    assert results.over_seeds(seeds).loc["natural", "hot 2"] == expected


def test_a_table_is_printed_with_each_interval_below_its_number(capsys):
    both = pd.concat([trials(), trials("b", "constant", "hot", 6, shift=0.01)], ignore_index=True)
    app.print_accuracies(both)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["natural", "hot", "2", "noise", "0.0255"]
    assert re.split("  +", lines[1]) == ["natural", "95.00", "77.00 ± 1.63", "51.00 ± 1.41"]
    assert lines[3].startswith("constant hot 6  ")
    texts = results.comparison(both).to_numpy()
    for line, row in zip((lines[2], lines[4]), texts):
        assert re.findall(r"\[.*?\]", line) == [text[text.index("[") :] for text in row]


def test_no_line_of_a_table_is_longer_than_100(capsys):
    row = trials().iloc[:1].assign(test_perturb="hot")
    app.print_accuracies(
        pd.concat([trials(), *(row.assign(test_level=level) for level in range(3, 12))])
    )
    table, _, profile = capsys.readouterr().out.partition("Over all perturbed tests")
    assert table.count("[") == 3 + 9 and profile.count("[") == 3
    assert max(map(len, (table + profile).splitlines())) <= 100


def test_later_trials_are_those_of_one_go(tmp_path, small):
    """Also what a trial has in common with the one before, whichever of them was there."""
    inputs = keras.Input((28, 28, 1))
    model = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(inputs)))
    conditions = [Natural(), Perturbation("noise", 0.3)]
    columns = dict.fromkeys([*results.TRAINING_COLUMNS, "saved_model"], "x")

    def complete(name, trials):
        path = tmp_path / name / "trials.csv"
        args = (path, model, small.test, conditions, columns)
        return results.trials.complete(*args, trials=trials, seed=3)

    expected = complete("once", 5)
    for trials_ in (1, 2, 4, 5):
        found = complete("often", trials_)
    order = ["test_perturb", "trial"]
    pd.testing.assert_frame_equal(
        found.sort_values(order, ignore_index=True), expected.sort_values(order, ignore_index=True)
    )
    path = tmp_path / "once" / "trials.csv"
    table = pd.read_csv(path)
    table[table["trial"] != 2].to_csv(path, index=False)
    again = complete("once", 5).sort_values(order, ignore_index=True)
    pd.testing.assert_frame_equal(again, expected.sort_values(order, ignore_index=True))
    # One from before the column gets rows that have it.
    table[table["trial"] < 3].drop(columns="changed").to_csv(path, index=False)
    path.with_name("checksums.json").unlink()
    older = complete("once", 5)
    assert older["changed"].notna().tolist() == (older["trial"] >= 3).tolist()
    evaluator = Evaluator(model, small.test, 3)
    for row in expected.itertuples():
        (condition,) = (one for one in conditions if one.kind == row.test_perturb)
        right = evaluator.predictions(condition, row.trial) == small.test.labels.numpy()
        assert row.accuracy == right.mean()
        if row.trial:
            other = evaluator.predictions(condition, row.trial - 1) == small.test.labels.numpy()
            assert row.changed == np.mean(right != other) > 0
        else:
            assert np.isnan(row.changed)


def test_comparison_is_in_percent():
    table = results.comparison(
        pd.concat([trials(), trials("b", "constant", "hot", 6, shift=0.01)], ignore_index=True)
    )
    assert table.index.tolist() == ["natural", "constant hot 6"]
    assert table.columns.tolist() == ["natural", "hot 2", "noise 0.0255"]
    assert table.loc["natural", "natural"] == "95.00 [93.47, 96.19]"
    assert table.loc["constant hot 6", "hot 2"].startswith("78.00 ± 1.63 [7")


def test_a_table_is_complete_or_as_before(tmp_path):
    path = tmp_path / "trials.csv"
    results.write(trials(), path, results.TRIAL_COLUMNS)
    before = path.read_bytes()
    with pytest.raises(KeyError):
        results.write(trials().drop(columns="seed"), path, results.TRIAL_COLUMNS)
    with pytest.raises(OSError, match="full"), replacing(path) as temporary:
        temporary.write_text("half a ta")
        raise OSError("disk full")
    assert path.read_bytes() == before
    assert {entry.name for entry in tmp_path.iterdir()} == {"trials.csv", "checksums.json"}


def test_a_folder_is_complete_or_absent(tmp_path):
    with pytest.raises(OSError, match="full"), new_folder(tmp_path / "1") as temporary:
        (temporary / "half").write_text("")
        raise OSError("disk full")
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "1") as temporary:
        (temporary / "whole").write_text("")
    assert [entry.name for entry in (tmp_path / "1").iterdir()] == ["whole"]
    with pytest.raises(OSError), new_folder(tmp_path / "1"):
        pass
    assert [entry.name for entry in (tmp_path / "1").iterdir()] == ["whole"]


def test_failures_to_write_name_the_argument(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match=r"^output_dir=\S+/file/a: writing failed \(Not a dir"):
        prepare_directory("output_dir", tmp_path / "file" / "a")
    with (
        pytest.raises(Unavailable, match=r"^output_dir=x: writing failed \(No space left"),
        writing_to("output_dir", "x"),
    ):
        raise OSError(28, "No space left on device")
    assert prepare_directory("output_dir", tmp_path / "new").is_dir()
    assert list((tmp_path / "new").iterdir()) == []


def test_the_profile_of_a_model_over_its_tests():
    rows = [
        ("none", np.nan, 0, 0.9),
        ("hot", 2.0, 0, 0.6),
        ("hot", 2.0, 1, 0.8),
        ("blur", 1.0, 0, 0.5),
    ]
    columns = ["test_perturb", "test_level", "trial", "accuracy"]
    trials = pd.DataFrame(rows, columns=columns).assign(
        run="a", dataset="mnist", data_source="tfds", model="mnist_cnn", strategy="constant",
        train_perturb="all", train_level=np.nan, seed=0, n_examples=10,
    )  # fmt: skip
    profile = results.profile(trials).loc["constant all"]
    assert profile["at"] == "blur 1"
    assert profile[["natural", "mean", "worst", "drop"]].tolist() == pytest.approx(
        [0.9, 0.6, 0.5, 0.4]
    )


def test_several_seeds_are_several_runs():
    rows = [
        (0, "none", np.nan, 0.9),
        (0, "hot", 2.0, 0.6),
        (0, "blur", 1.0, 0.8),
        (1, "none", np.nan, 0.7),
        (1, "hot", 2.0, 0.6),
        (1, "blur", 1.0, 0.2),
    ]
    trials = pd.DataFrame(rows, columns=["seed", *results.TEST_COLUMNS, "accuracy"]).assign(
        run=lambda table: table["seed"].map("run {}".format), dataset="mnist",
        data_source="tfds", model="mnist_cnn", strategy="natural", train_perturb="none",
        train_level=np.nan, trial=0, n_examples=10,
    )  # fmt: skip
    profile = results.profile(trials)
    assert profile.index.tolist() == ["natural, seed 0", "natural, seed 1"]
    assert profile["at"].tolist() == ["hot 2", "blur 1"]
    assert profile["natural"].tolist() == pytest.approx([0.9, 0.7])
    assert profile["mean"].tolist() == pytest.approx([0.7, 0.4])
    assert profile["worst"].tolist() == pytest.approx([0.6, 0.2])
    assert profile["drop"].tolist() == pytest.approx([0.3, 0.5])
    assert results.over_seeds(trials).loc["natural"].to_dict() == {
        "natural": "80.00 ± 10.00 [49.02, 94.33]", "hot 2": "60.00 ± 0.00 [31.27, 83.18]",
        "blur 1": "50.00 ± 30.00 [23.66, 76.34]",
    }  # fmt: skip
    other = pd.DataFrame({"run": ["run 0", "run 1"], "epochs": [1, 2]})
    assert results.over_seeds(trials, other).index.tolist() == [
        "natural, epochs 1",
        "natural, epochs 2",
    ]


TWINS = pd.concat([trials("mnist-hot-aa", shift=0.01), trials("mnist-hot-bb")], ignore_index=True)


def settings(**columns) -> pd.DataFrame:
    """A table of the two runs."""
    return pd.DataFrame({"run": ["mnist-hot-aa", "mnist-hot-bb"], "epochs": 50, **columns})


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (None, ["natural, aa", "natural, bb"]),
        (settings(seconds=[1.0, 2.0]), ["natural, aa", "natural, bb"]),
        (
            settings(dropout=[0.2, 0.0], standardize=["pixel", "global"]),
            ["natural, standardize pixel", "natural, standardize global"],
        ),
        (
            settings(train_range=["hot=1:2,blur=0.1:1", "hot=1:2,blur=0.5:1"]),
            ["natural, blur=0.1:1", "natural, blur=0.5:1"],
        ),
        (
            settings(weight_decay=[np.nan, 0.1], fresh=[False, True]),  # one of an earlier version
            ["natural, fresh False", "natural, fresh True"],
        ),
    ],
)
def test_two_runs_of_one_training_are_two_rows_whose_labels_say_what_differs(runs, expected):
    labels = results.labels(TWINS, runs)
    assert labels.index.tolist() == ["mnist-hot-aa", "mnist-hot-bb"]
    assert labels.tolist() == expected
    table = results.comparison(TWINS, runs)
    assert table.index.tolist() == expected and table["natural"].str[:5].tolist() == [
        "96.00",
        "95.00",
    ]
    profile = results.profile(TWINS, runs)
    assert profile.index.tolist() == expected
    assert profile["natural"].tolist() == pytest.approx([0.96, 0.95])


def test_the_training_columns_tell_runs_apart_without_a_table_of_runs():
    other = trials("b").assign(dataset="cifar10", seed=1)
    labels = results.labels(pd.concat([trials("a"), other, trials("c", "constant", "hot", 6)]))
    assert labels.tolist() == ["natural, mnist", "natural, cifar10", "constant hot 6"]


def test_labels_are_unique_whatever_the_names():
    names = ["x-1", "y-1", "x", "1"]
    labels = results.labels(pd.concat([trials(name) for name in names]))
    assert labels.index.tolist() == names and labels.is_unique


@pytest.mark.parametrize("folder", ["all", "standardization/tables", "grid"])
@pytest.mark.parametrize("known", [True, False], ids=["runs", "trials alone"])
def test_shipped_tables_show_every_run_with_its_own_numbers(folder, known):
    folder = ROOT / "results" / "beyond" / folder
    table, runs = (pd.read_csv(folder / f"{name}.csv") for name in ("trials", "runs"))
    given = runs if known else None
    labels = results.labels(table, given)
    assert labels.is_unique and set(labels.index) == set(runs["run"])
    comparison, profile = results.comparison(table, given), results.profile(table, given)
    assert comparison.index.tolist() == profile.index.tolist() == labels.tolist()
    natural = runs.set_index("run")["natural_accuracy"].loc[labels.index]
    np.testing.assert_allclose(profile["natural"], natural)
    np.testing.assert_allclose(
        comparison["natural"].str[:5].astype(float), 100 * natural, atol=0.005
    )


def test_labels_of_shipped_runs():
    folder = ROOT / "results" / "beyond"
    runs = pd.read_csv(folder / "all" / "runs.csv")
    assert results.labels(runs, runs).tolist() == [
        "constant all, standardize global",
        "constant all, standardize pixel",
        "natural, standardize pixel",
        "natural, standardize global",
        "transfer all, standardize global, blur=0.5:1.2",
        "transfer all, standardize global, blur=0.1:1",
        "transfer all, standardize pixel",
    ]
    # Where a training is that of one run, its label says nothing more.
    runs = pd.read_csv(folder / "grid" / "runs.csv")
    trainings = runs[["strategy", "train_perturb", "train_level"]].itertuples(index=False)
    expected = [results.training_label(*training) for training in trainings]
    assert results.labels(runs, runs).tolist() == expected


def test_test_sets_are_never_mixed():
    """A run that was tested on other images too has a row for each set, and the mean of neither."""
    first = trials()
    few = first.assign(accuracy=0.5, n_examples=50)
    other = first.assign(accuracy=0.25, test_digest="sha256:00000000")
    for more, count in (([few], 2), ([other], 2), ([few, other], 3)):
        mixed = pd.concat([first, *more], ignore_index=True)
        summary = results.summarize(mixed)
        alone = pd.concat(map(results.summarize, [first, *more]), ignore_index=True)
        pd.testing.assert_frame_equal(summary, alone)
        table = results.comparison(mixed)
        assert len(table) == len(results.profile(mixed)) == count
        assert table.iloc[0].tolist() == results.comparison(first).iloc[0].tolist()
        assert len(results.figures.accuracy(mixed).axes[0].get_legend().get_texts()) == count
    assert results.comparison(mixed).index[1] == "natural, 50 images sha256:3746ed34"
    assert results.comparison(first).index.tolist() == ["natural"]
