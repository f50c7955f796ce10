import numpy as np
import pandas as pd
import pytest

from robust_tf import results
from robust_tf.errors import InvalidArgument
from robust_tf.runs.experiments import Selection
from robust_tf.studies import experiments, standardization

# Natural accuracy, then under hot 2 and noise 0.05, by training and standardisation.
ACCURACIES = {
    ("natural", "none", "pixel"): (0.97, 0.77, 0.27),
    ("natural", "none", "global"): (0.98, 0.96, 0.97),
    ("natural", "none", "none"): (0.96, 0.93, 0.97),
    ("constant", "hot", "pixel"): (0.97, 0.965, 0.30),
    ("constant", "hot", "global"): (0.975, 0.97, 0.96),
    ("constant", "hot", "none"): (0.955, 0.95, 0.94),
}
TESTS = (("none", np.nan), ("hot", 2), ("noise", 0.05))


@pytest.fixture
def tables(tmp_path):
    """The tables of a study, of two seeds with the same means."""
    folder = tmp_path / "standardization" / "tables"
    folder.mkdir(parents=True)
    trials, runs = [], []
    for (strategy, perturb, mode), accuracies in ACCURACIES.items():
        for seed in (0, 1):
            run = f"{strategy}-{mode}-{seed}"
            runs.append({"run": run, "standardize": mode})
            trials += [
                {
                    "run": run, "dataset": "mnist", "data_source": "tfds", "model": "mnist_cnn",
                    "strategy": strategy, "train_perturb": perturb,
                    "train_level": 6 if perturb == "hot" else np.nan, "seed": seed,
                    "test_perturb": kind, "test_level": level, "trial": 0,
                    "accuracy": accuracy + (0.01 if seed else -0.01), "n_examples": 100,
                    "changed": np.nan,
                    "test_digest": "sha256:d819f34d", "saved_model": f"{run}/1",
                }
                for (kind, level), accuracy in zip(TESTS, accuracies)
            ]  # fmt: skip
    results.write(pd.DataFrame(trials), folder / "trials.csv", results.TRIAL_COLUMNS)
    pd.DataFrame(runs).to_csv(folder / "runs.csv", index=False)
    return tmp_path


def measured(output_dir):
    read = (
        results.read_experiment(output_dir, "standardization", name) for name in ("trials", "runs")
    )
    return standardization.measure(*read)


def test_falls(tables):
    falls = measured(tables).falls.set_index("test")
    assert falls.index.tolist() == ["hot 2", "noise 0.05"]
    assert falls["pixel"].tolist() == pytest.approx([0.20, 0.70])
    assert falls["global"].tolist() == pytest.approx([0.02, 0.01])
    assert falls["none"].tolist() == pytest.approx([0.03, -0.01])
    assert falls["share_of_pixel"].tolist() == pytest.approx([0.9, 69 / 70])


def test_profiles(tables):
    profiles = measured(tables).profiles.set_index(["training", "standardize"])
    assert len(profiles) == 6
    row = profiles.loc[("constant hot 6", "pixel")]
    assert (row["natural"], row["own"], row["worst"]) == pytest.approx((0.97, 0.965, 0.30))
    assert row["at"] == "noise 0.05"
    assert profiles.loc[("natural", "pixel"), "own"] == pytest.approx(0.27)


def test_the_report(tables):
    page, text = standardization.write(tables)
    words = text.read_text()
    assert "loses 90.0 points in all when standardised per pixel, 3.0 with" in words
    assert "97 % of its fall" in words
    assert "| hot 2 | 20.00 | 2.00 | 3.00 | 90 % |" in words
    assert "constant hot 6 | 97.00 | 97.50 | 95.50" in words
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_there_is_a_report_of_nothing(tmp_path):
    (tmp_path / "standardization").mkdir()
    _, text = standardization.write(tmp_path)
    assert text.read_text().startswith("# How much")


def test_the_experiment():
    cells = experiments.standardization(Selection())
    assert len(cells) == 3 * 16
    assert {cell.settings["standardize"] for cell in cells} == {"pixel", "global", "none"}
    assert all(len(cell.test_levels) == 5 for cell in cells)
    fewer = experiments.standardization(Selection(strategies=("constant",), perturbs=("hot",)))
    assert [cell.settings.get("strategy", "natural") for cell in fewer] == [
        "natural",
        "constant",
    ] * 3
    with pytest.raises(InvalidArgument, match="perturbs=rain"):
        experiments.standardization(Selection(perturbs=("rain",)))


SMALL = (
    "--data_source=sample",
    "--train_examples=300",
    "--test_examples=200",
    "--epochs=2",
    "--trials=1",
)


def test_the_pipeline(command, tmp_path):
    flags = (*SMALL, "--strategies=constant", "--perturbs=hot")
    done = command(*flags, pipeline="pipelines.standardization")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "standardization"
    runs = pd.read_csv(folder / "tables" / "runs.csv")
    assert sorted(runs["standardize"]) == ["global"] * 2 + ["none"] * 2 + ["pixel"] * 2
    assert len(measured(tmp_path / "results").falls) == 9
    assert (folder / "figures" / "falls.png").exists()
    assert "What training brings" in (folder / "report.md").read_text()


def test_the_grid_can_be_tested_with_all_kinds(command, tmp_path):
    flags = (*SMALL, "--datasets=mnist", "--strategies=constant", "--perturbs=hot")
    before = command(*flags, "--levels=2", pipeline="pipelines.grid")
    assert before.returncode == 0, before.stderr
    done = command(*flags, "--levels=1", "--eval=all", pipeline="pipelines.grid")
    assert done.returncode == 0, done.stderr
    assert "best in the worst case" in done.stdout and "constant hot 1" in done.stdout
    assert "constant hot 2" not in done.stdout  # which does not have all tests
    trials = pd.read_csv(tmp_path / "results" / "grid" / "tables" / "trials.csv")
    added = trials[trials["train_level"] == 1]
    assert set(added["test_perturb"]) == {"none", "stuck", "dead", "hot", "noise", "blur"}


def test_a_report_says_nothing_of_what_is_missing(tables):
    path = tables / "standardization" / "tables" / "trials.csv"
    trials = pd.read_csv(path)
    lost = (trials["strategy"] == "natural") & trials["run"].str.contains("-none-")
    results.write(trials[~lost], path, results.TRIAL_COLUMNS)
    words = standardization.write(tables)[1].read_text()
    assert "points in all" not in words and "| hot 2 | 20.00 | 2.00 |  | 90 % |" in words
