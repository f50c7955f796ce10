import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from robust_tf import results, runs
from robust_tf.errors import Unavailable
from robust_tf.evaluation import Natural, suites
from robust_tf.paper import experiments, numbers, report
from robust_tf.runs.experiments import Selection

CHROMIUM = shutil.which("chromium")


def write_tables(output_dir, name, cells, trials) -> None:
    """An experiment as if it had been run, with the published numbers for results."""
    published = numbers.published_points()
    plan, rows = [], []
    for number, cell in enumerate(cells):
        trained = cell.settings.get("perturbation", Natural())
        columns = {
            "run": f"run-{number}", "dataset": cell.dataset, "data_source": "tfds",
            "model": f"{cell.dataset}_cnn", "strategy": cell.settings.get("strategy", "natural"),
            "train_perturb": trained.kind, "train_level": trained.level, "seed": 0,
        }  # fmt: skip
        tests = suites.conditions_at(cell.test_levels)
        labels = [str(test) for test in tests]
        plan.append(
            dict.fromkeys([*runs.RUN_COLUMNS, "tests", "trials"])
            | columns
            | {"epochs": 50, "train_examples": 60_000, "test_examples": 10_000}
            | {"tests": ";".join(labels), "trials": trials}
        )
        for test in tests:
            mine = published[
                (published["dataset"] == cell.dataset)
                & (published["strategy"] == columns["strategy"])
                & (published["train_perturb"] == columns["train_perturb"])
                & (published["test_perturb"] == test.kind)
            ]
            for column, level in (("train_level", trained.level), ("test_level", test.level)):
                if not np.isnan(level):
                    mine = mine[(mine[column] - level).abs() < 1e-9]
            if len(mine):
                test_columns = {"test_perturb": test.kind, "test_level": test.level}
                test_columns |= {"trial": 0, "n_examples": 10_000, "saved_model": "m/1"}
                accuracy = mine["mean"].iloc[0] + 0.001
                rows.append({**columns, **test_columns, "accuracy": accuracy})
    results.add_to_plan(output_dir, name, pd.DataFrame(plan))
    folder = output_dir / name / "tables"
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(folder / "trials.csv", index=False)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The directory of a report on all of MNIST's and CIFAR-10's figures."""
    folder = tmp_path_factory.mktemp("report")
    write_tables(folder, "impact", experiments.impact(Selection()), 25)
    write_tables(folder, "grid", experiments.grid(Selection()), 25)
    report.write(folder)
    return folder


FIGURES = ["4", "6", "8", *(f"{letter}.{number}" for letter in "ABC" for number in "123")]


def test_every_published_number_is_there_with_its_difference(written):
    text = (written / "report.md").read_text()
    assert "1016 of 1,016 published numbers have one of ours beside them" in text
    assert "they differ by 0.10 points on average" in text
    rows = [line.split(" | ") for line in text.splitlines() if line.endswith("| +0.10 |")]
    numbers = [row for row in rows if len(row) == 5]
    # CIFAR-10's natural model has 86.54 in one published figure, 86.88 in two.
    assert len(numbers) >= 1016 - 2
    assert "| transfer blur 1 | blur 0.75 |" in text
    for figure in FIGURES:
        assert f"### Figure {figure}, mnist: every number" in text
        assert f"### Figure {figure}, cifar10: every number" in text
    assert "Not a full reproduction" not in text.split("## Agreement")[0].split("grid, mnist")[-1]


def test_several_seeds_say_what_lies_inside(tmp_path):
    write_tables(tmp_path, "impact", experiments.impact(Selection(datasets=("mnist",))), 25)
    path = tmp_path / "impact" / "tables" / "trials.csv"
    trials = pd.read_csv(path)
    far = trials["test_perturb"] == "noise"
    shifts = {0: 0.0, 1: 0.004, 2: -0.002}
    tables = [
        trials.assign(run=f"run-{seed}", seed=seed, accuracy=trials["accuracy"] + shift - 0.1 * far)
        for seed, shift in shifts.items()
    ]
    plan = pd.read_csv(tmp_path / "impact" / "models.csv")
    (tmp_path / "impact" / "models.csv").unlink()
    (tmp_path / "impact" / "checksums.json").unlink()
    plans = [plan.assign(run=f"run-{seed}", seed=seed) for seed in shifts]
    results.add_to_plan(tmp_path, "impact", pd.concat(plans, ignore_index=True))
    pd.concat(tables).to_csv(path, index=False)
    _, markdown = report.write(tmp_path)
    text = markdown.read_text()
    n = 28  # of MNIST in figures 4, 6 and 8; noise has 5 that are far
    assert (
        f"Of {n} published numbers with several of our seeds beside them, {n - 5} (82.1%)" in text
    )
    assert "| 6 | mnist | 6 of 6 |" in text and "| 1 of 6 |" in text
    outside = text.split("## Published numbers outside the spread of ours")[1].split("## ")[0]
    assert outside.count("| natural | noise ") == 5 and outside.count("| no |") == 5
    assert " 3 of 3 |" in text.split("## What the paper says")[1] and "Inside: " in text


def test_agreement_extremes_and_sentences(written):
    text = (written / "report.md").read_text()
    agreement = text.split("## Agreement by figure")[1].split("## ")[0]
    assert agreement.count("| 1.00 |") >= 22
    assert "| mnist | constant | hot | 97.32 (6) | 97.42 (6) | 96.84 (1) | 96.94 (1) |" in text
    sentences = text.split("## What the paper says")[1].split("## ")[0]
    assert sentences.count("| holds | holds |") >= 18
    assert "cannot be told" not in sentences
    assert "nside" not in text and "seeds |" not in text  # of one seed there is no spread


def test_the_page_needs_nothing_but_itself(written):
    page = (written / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert len(sources) == len(FIGURES)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert f"<title>{report._TITLE}</title>" in page and f"<h1>{report._TITLE}</h1>" in page
    assert "http://" not in page and "https://" not in page and "@import" not in page


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_shows_every_figure_and_table(written, tmp_path):
    page = (written / "report.html").read_text()
    script = """
    <script>addEventListener("load", () => {
      for (const details of document.querySelectorAll("details")) details.open = true;
      const shown = element => element.getBoundingClientRect().height > 20;
      const found = {
        images: [...document.images].map(image => [image.alt, image.naturalWidth, shown(image)]),
        tables: [...document.querySelectorAll("table")].map(t => [t.rows.length, shown(t)]),
        titles: [...document.querySelectorAll("h2, summary")].map(title => title.textContent),
        wide: document.documentElement.scrollWidth > innerWidth,
      };
      document.body.innerHTML = "<pre id=found></pre>";
      document.getElementById("found").textContent = JSON.stringify(found);
    });</script></body>"""
    (tmp_path / "page.html").write_text(page.replace("</body>", script))
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,900",
            "--virtual-time-budget=20000", "--dump-dom", (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    text = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL).group(1)
    found = json.loads(text.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
    for figure in FIGURES:
        (image,) = (i for i in found["images"] if i[0].startswith(f"Figure {figure}."))
        assert image[1] > 300 and image[2], figure
    assert len(found["images"]) == len(FIGURES)
    # Agreement, extremes, sentences, and a table a figure and dataset.
    assert len(found["tables"]) == 3 + 2 * len(FIGURES)
    assert all(rows > 2 and shown for rows, shown in found["tables"])
    assert "Figures" in found["titles"] and "What the paper says" in found["titles"]
    assert not found["wide"]


def test_a_partial_sweep_gets_a_report_that_says_so(tmp_path):
    selection = Selection(("mnist",), ("constant",), ("noise",))
    cells = experiments.grid(selection)
    write_tables(tmp_path, "grid", cells, 5)
    path = tmp_path / "grid" / "tables" / "trials.csv"
    trials = pd.read_csv(path)
    trials[trials["train_level"] != 0.05].to_csv(path, index=False)
    _, markdown = report.write(tmp_path, reference=False)
    text = markdown.read_text()
    assert "grid: 5 of 6 models (mnist) are trained and tested." in text
    assert "grid, not done yet: mnist constant noise 0.05." in text
    assert "grid, mnist: 5 trials instead of 25. Not a full reproduction." in text
    assert "| A.2 | mnist | 16 of 20 | 0.10 |" in text
    assert "| V.A | Dead pixels hardly touch MNIST. | holds | cannot be told |  |" in text


def test_a_reduced_experiment_says_what_it_lacks():
    row = {
        "data_source": "sample", "train_examples": 4000, "test_examples": 1000, "trials": 25,
        "strategy": "natural", "model": "mnist_cnn", "epochs": 3,
    }  # fmt: skip
    assert report._reduced("mnist", pd.DataFrame([row])) == [
        "a sample of the dataset",
        "4,000 training images of 50,000",
        "1,000 test images of 10,000",
        "3 epochs of training instead of 50",
    ]


def test_no_experiment_is_one_clear_line(tmp_path):
    with pytest.raises(Unavailable, match="output_dir=.*: expected results of pipelines.impact"):
        report.write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_pipeline(command, written, tmp_path):
    done = command(f"--output_dir={written}", pipeline="pipelines.report")
    assert done.returncode == 0, done.stderr
    assert f"report  {written}/report.html" in done.stdout
    missing = command(pipeline="pipelines.report")
    assert missing.returncode == 1
    (line,) = missing.stderr.strip().splitlines()
    assert line.startswith(f"error: --output_dir={tmp_path}/results: expected results of")
