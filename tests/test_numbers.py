import csv
import shutil

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from robust_tf import results, runs
from robust_tf.paper import numbers
from tests.test_results import trials

POINTS = numbers.POINT_COLUMNS


def published(**where) -> pd.DataFrame:
    table = numbers.published_points()
    for column, value in where.items():
        table = table[table[column] == value]
    return table


def test_the_published_numbers_are_all_there():
    table = numbers.published_points()
    sizes = table.groupby("figure").size()
    assert sizes.loc[["A.1", "B.1", "C.1"]].tolist() == [240] * 3
    assert sizes.loc[["A.2", "A.3", "B.2", "B.3", "C.2", "C.3"]].tolist() == [40] * 6
    assert sizes.loc[["4", "6", "8"]].tolist() == [32, 12, 12]
    assert table["mean"].between(0, 1).all() and not table.duplicated(POINTS).any()
    # Numbers that the paper's text names.
    natural = published(figure="4", dataset="mnist", test_perturb="none")["mean"]
    assert natural.tolist() == pytest.approx([0.9742])
    hot = published(figure="4", dataset="mnist", test_perturb="hot", test_level=2)
    assert hot["mean"].item() == pytest.approx(0.767284)
    assert hot["std"].item() == pytest.approx(0.003689)
    table_1 = numbers.published_ablation()
    assert table_1["test_accuracy"].tolist() == pytest.approx(
        [0.8692, 0.8452, 0.8208, 0.8157, 0.8001, 0.7706]
    )


def test_extremes_of_the_published_figures():
    table = numbers.extremes(numbers.published_points())
    rows = table.set_index(["dataset", "strategy", "train_perturb"])
    assert len(rows) == 30
    row = rows.loc["mnist", "constant", "hot"]
    assert (row["best_level"], row["worst_level"]) == (6, 1)
    assert row["best"] == pytest.approx(0.9732, abs=5e-5)
    assert row["worst"] == pytest.approx(0.9684, abs=5e-5)
    assert row["natural_low"] == pytest.approx(0.9693, abs=5e-5)
    row = rows.loc["cifar10", "transfer", "stuck"]
    assert (row["best_level"], row["worst_level"]) == (8, 6)
    assert row["worst"] == pytest.approx(0.8539, abs=5e-5)


def test_points_are_means_over_trials_and_seeds(tmp_path):
    folder = tmp_path / "grid" / "tables"
    folder.mkdir(parents=True)
    tables = [
        trials("a", "constant", "hot", 6).assign(seed=0),
        trials("b", "constant", "hot", 6, shift=0.02).assign(seed=1),
        trials("c"),
    ]
    pd.concat(tables).to_csv(folder / "trials.csv", index=False)
    points = numbers.points(tmp_path)
    assert points["figure"].unique().tolist() == ["A.1", "natural"]
    hot = points[(points["figure"] == "A.1") & (points["test_perturb"] == "hot")].iloc[0]
    assert hot["mean"] == pytest.approx(0.78)  # of 0.77 and 0.79
    assert (hot["std"], hot["n_seeds"]) == (pytest.approx(0.01), 2)  # over the seeds
    alone = points[(points["figure"] == "natural") & (points["test_perturb"] == "hot")].iloc[0]
    assert alone["std"] == pytest.approx(np.std([0.75, 0.77, 0.79]))  # over the trials


def test_impact_points_belong_to_the_figures_of_their_families(tmp_path):
    folder = tmp_path / "impact" / "tables"
    folder.mkdir(parents=True)
    trials().to_csv(folder / "trials.csv", index=False)
    points = numbers.points(tmp_path)
    shown = points.groupby("figure")["test_perturb"].agg(set)
    assert shown.to_dict() == {"4": {"none", "hot"}, "6": {"none", "noise"}, "8": {"none"}}


def test_no_results_are_no_points(tmp_path):
    assert numbers.points(tmp_path).empty
    assert numbers.ablation(tmp_path).empty


def test_agreement_by_hand():
    theirs = published(figure="A.3", dataset="mnist")
    ours = theirs[theirs["train_level"] > 0.5].copy()
    ours["train_level"] += 1e-12  # as if a CSV had changed the last bit
    ours["mean"] += 0.01
    ours.loc[ours.index[0], "mean"] -= 0.05
    compared = numbers.compare(ours, theirs, POINTS)
    assert len(compared) == len(theirs) == 20
    (row,) = numbers.agreement(compared).to_dict("records")
    assert (row["n_published"], row["n_ours"]) == (20, 12)
    assert row["mean_difference"] == pytest.approx((11 * 0.01 + 0.04) / 12)
    assert row["largest_difference"] == pytest.approx(-0.04)
    ranks = [frame["mean"].rank() for frame in (ours, theirs[theirs["train_level"] > 0.5])]
    assert row["rank_correlation"] == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_nothing_to_compare_has_no_agreement():
    theirs = published(figure="B.2", dataset="cifar10")
    compared = numbers.compare(theirs.head(0), theirs, POINTS)
    (row,) = numbers.agreement(compared).to_dict("records")
    assert row["n_ours"] == 0 and np.isnan(row["mean_difference"])


def test_ablation_is_a_mean_over_seeds(tmp_path):
    folder = tmp_path / "ablation" / "tables"
    folder.mkdir(parents=True)
    rows = [("cifar10", True, 0.2, "relu", seed, 0.9 + seed / 10, 0.8) for seed in (0, 1)]
    columns = [*numbers.ABLATION_COLUMNS, "seed", "train_accuracy", "natural_accuracy"]
    table = pd.DataFrame(rows, columns=columns).assign(run=["a", "b"])
    table.to_csv(folder / "runs.csv", index=False)
    (row,) = numbers.ablation(tmp_path).to_dict("records")
    assert (row["train_accuracy"], row["test_accuracy"]) == (pytest.approx(0.95), 0.8)


def test_a_plan_grows_and_keeps_its_order(tmp_path):
    def row(run, level, tests, trials):
        columns = dict.fromkeys([*runs.RUN_COLUMNS, "tests", "trials"])
        columns |= {"run": run, "train_level": level, "tests": tests, "trials": trials}
        columns |= {"dataset": "mnist", "strategy": "natural", "train_perturb": "none"}
        return columns

    first = [row("a", None, "natural;hot 2", 2), row("b", 1, "natural", 2)]
    results.add_to_plan(tmp_path, "grid", pd.DataFrame(first))
    second = [row("c", 2, "natural", 5), row("a", None, "natural;dead 2", 1)]
    results.add_to_plan(tmp_path, "grid", pd.DataFrame(second))
    plan = pd.read_csv(tmp_path / "grid" / "models.csv")
    assert plan["run"].tolist() == ["a", "b", "c"]
    assert plan["tests"].tolist() == ["natural;hot 2;dead 2", "natural", "natural"]
    assert plan["trials"].tolist() == [2, 2, 5]


def test_cells_stay_as_they_are_beside_rows_of_before_a_column_was_there(tmp_path):
    """A whole number is no 3.0, in the plan and in the table of runs, however often they grow."""
    several = [("old", {}), ("a", {"patience": 3}), ("b", {"patience": 0})]
    for seed, (run, more) in enumerate(several):
        row = {"run": run, "dataset": "mnist", "strategy": "natural", "train_perturb": "none"}
        row |= {"seed": seed, "train_level": None, "trials": 2, **more}
        row = dict.fromkeys(runs.RUN_COLUMNS) | row | {"tests": "natural"}
        results.add_to_plan(tmp_path, "grid", pd.DataFrame([row]))
        own = tmp_path / run / "runs.csv"
        own.parent.mkdir()
        columns = [*results.TRAINING_COLUMNS, *more]
        results.write(pd.DataFrame([dict.fromkeys(columns) | row]), own, columns)
        results.gather(tmp_path, "grid")
        shutil.rmtree(own.parent)
    for path in (tmp_path / "grid" / "models.csv", tmp_path / "grid" / "tables" / "runs.csv"):
        with open(path, newline="") as file:
            assert [row["patience"] for row in csv.DictReader(file)] == ["", "3", "0"]


def test_gather_needs_no_folders_that_are_gone(tmp_path):
    plan = pd.DataFrame([dict.fromkeys([*runs.RUN_COLUMNS, "tests", "trials"])]).assign(
        run="a", dataset="mnist", strategy="natural", train_perturb="none", seed=0,
        test_examples=1000, data_source="sample", tests="natural;hot 2", trials=2,
    )  # fmt: skip
    results.add_to_plan(tmp_path, "grid", plan)
    (tmp_path / "a").mkdir()
    results.write(trials(), tmp_path / "a" / "trials.csv", results.TRIAL_COLUMNS)
    path = tmp_path / "grid" / "tables" / "trials.csv"
    results.gather(tmp_path, "grid")
    kept = pd.read_csv(path)
    assert kept["test_perturb"].tolist() == ["none", "hot", "hot"]  # neither noise nor trial 2
    before = path.read_bytes()
    (tmp_path / "a" / "trials.csv").unlink()
    results.gather(tmp_path, "grid")
    assert path.read_bytes() == before


def seeds_of(tmp_path, accuracies) -> None:
    """Natural models of an impact, one per seed, each with one test of an accuracy."""
    folder = tmp_path / "impact" / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    tables = [
        trials(f"m{seed}").query("test_perturb == 'none'").assign(seed=seed, accuracy=accuracy)
        for seed, accuracy in enumerate(accuracies)
    ]
    pd.concat(tables).to_csv(folder / "trials.csv", index=False)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_prediction_interval_holds_one_more_seed(n):
    """In 95 % of cases, by simulation; and the interval of the mean is SciPy's."""
    cases = 2000
    draws = np.random.default_rng(n).normal(0.5, 0.01, (cases, n + 1))
    summary = pd.DataFrame({"mean": draws[:, :n].ravel(), "std": 0.0})
    summary["train_level"] = np.repeat(np.arange(cases), n)
    summary = summary.assign(**{name: "x" for name in POINTS if name not in summary})
    found = numbers._over_seeds(summary)
    assert found["train_level"].tolist() == [*range(cases)] and set(found["n_seeds"]) == {n}
    held = (found["low"] <= draws[:, n]) & (draws[:, n] <= found["high"])
    assert abs(held.mean() - 0.95) < 4 * np.sqrt(0.95 * 0.05 / cases)
    mean, error = draws[:, :n].mean(axis=1), scipy.stats.sem(draws[:, :n], axis=1)
    low, high = scipy.stats.t.interval(0.95, n - 1, mean, error)
    np.testing.assert_allclose(found["mean"] - found["ci95"], low)
    np.testing.assert_allclose(found["mean"] + found["ci95"], high)


def test_a_published_number_is_inside_or_not(tmp_path):
    theirs = published(figure="4", dataset="mnist")
    theirs = theirs[theirs["test_perturb"] == "none"]
    truth = theirs["mean"].item()
    for accuracies, inside in (
        ((truth + 0.001, truth - 0.001), True),
        ((truth + 0.02, truth + 0.021, truth + 0.0205), False),
        ((truth,), None),
    ):
        seeds_of(tmp_path, accuracies)
        compared = numbers.compare(numbers.points(tmp_path), theirs, POINTS)
        assert compared["inside"].tolist() == [inside]
        (row,) = numbers.agreement(compared).to_dict("records")
        assert (row["n_several"], row["n_inside"]) == (inside is not None, inside is True)
    assert list(numbers.points_by_seed(tmp_path)) == [0]


def test_points_by_seed_are_each_seeds_own(tmp_path):
    seeds_of(tmp_path, (0.9, 0.8, 0.7))
    found = numbers.points_by_seed(tmp_path)
    assert {seed: set(own["mean"]) for seed, own in found.items()} == {0: {0.9}, 1: {0.8}, 2: {0.7}}
