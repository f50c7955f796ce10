"""The study of standardisation: how much of a fall is the perturbation's own doing.

The paper divides each pixel position by its deviation over the training images. Where that is
tiny, at the border of MNIST's digits, a small change of the sensor enters the network as a
huge number. The same networks with one mean and deviation for all positions, or with none,
are without that effect; what they lose is the perturbation's own.
"""

import os
from pathlib import Path

import pandas as pd

from robust_tf import models, results
from robust_tf.files import replacing, writing_to
from robust_tf.paper import numbers
from robust_tf.perturbations import KINDS, Perturbation
from robust_tf.results.pages import Section, markdown, page
from robust_tf.runs.experiments import Cell, Experiment, Selection, with_all_tests
from robust_tf.training import STRATEGIES

FALL_COLUMNS = ["dataset", "test", *models.STANDARDIZATIONS, "share_of_pixel"]
_EXPERIMENT = "standardization"
_TITLE = "How much of the fall is standardisation?"


def _summary(output_dir: str | os.PathLike) -> pd.DataFrame:
    """Means by run and test, in words too, with the standardisation of the run."""
    trials = numbers.table(output_dir, _EXPERIMENT, "trials")
    if not len(trials):
        return pd.DataFrame()
    runs = numbers.table(output_dir, _EXPERIMENT, "runs")[["run", "standardize"]]
    summary = results.with_labels(results.summarize(trials)).merge(runs, on="run")
    means = summary.groupby(
        ["dataset", "standardize", "training", "strategy", "train_perturb"]
        + ["test", "test_perturb", "test_level"],
        sort=False,
        dropna=False,
    )["mean"].mean()  # over the seeds
    return means.reset_index()


def falls(output_dir: str | os.PathLike) -> pd.DataFrame:
    """What natural models lose under each test, by their standardisation.

    Args:
        output_dir: where the folder of the experiment is.

    Returns:
        `FALL_COLUMNS`: natural less perturbed accuracy, fractions; and the share of the fall
        with "pixel" that is not there with "global", missing where nothing falls.
    """
    summary = _summary(output_dir)
    if not len(summary):
        return pd.DataFrame(columns=FALL_COLUMNS)
    rows = []
    own = summary[summary["strategy"] == "natural"]
    for dataset, group in own.groupby("dataset", sort=False):
        wide = group.pivot_table(index="test", columns="standardize", values="mean", sort=False)
        fall = (wide.loc["natural"] - wide).drop(index="natural")
        fall = fall.reindex(columns=list(models.STANDARDIZATIONS))
        share = 1 - fall["global"] / fall["pixel"].where(fall["pixel"] > 0)
        rows.append(fall.assign(share_of_pixel=share, dataset=dataset).reset_index())
    return pd.concat(rows, ignore_index=True)[FALL_COLUMNS]


def profiles(output_dir: str | os.PathLike) -> pd.DataFrame:
    """Each training's accuracy by standardisation, a row a training and standardisation.

    Args:
        output_dir: where the folder of the experiment is.

    Returns:
        dataset, training, standardize; natural; own, the lowest accuracy on tests of the
        trained family; worst and at, the lowest over all tests and where. Fractions.
    """
    rows = []
    summary = _summary(output_dir)
    keys = ["dataset", "training", "standardize"]
    for values, group in summary.groupby(keys, sort=False) if len(summary) else ():
        natural = group.loc[group["test"] == "natural", "mean"].iloc[0]
        tests = group[group["test"] != "natural"]
        perturb = group["train_perturb"].iloc[0]
        family = KINDS[perturb].family if perturb in KINDS else None
        mine = [family in (None, KINDS[kind].family) for kind in tests["test_perturb"]]
        found = results.profile_of(natural, tests, "mean")
        rows.append(
            {
                **dict(zip(keys, values)),
                "natural": natural,
                "own": tests.loc[mine, "mean"].min(),
                "worst": found["worst"],
                "at": found["at"],
            }
        )
    return pd.DataFrame(rows, columns=[*keys, "natural", "own", "worst", "at"])


def write(output_dir: str | os.PathLike, figure: Path | None) -> tuple[Path, Path]:
    """Writes the study's report.

    Args:
        output_dir: where the folder of the experiment is.
        figure: its figure.

    Returns:
        `report.html` and `report.md` in the folder of the experiment.

    Raises:
        Unavailable: if the folder cannot be written.
    """
    folder = Path(output_dir) / _EXPERIMENT
    sections = _sections(output_dir, figure)
    texts = {"html": page(_TITLE, sections), "md": markdown(_TITLE, sections)}
    with writing_to("output_dir", output_dir):
        for ending, text in texts.items():
            with replacing(folder / f"report.{ending}") as temporary:
                temporary.write_text(text, encoding="utf-8")
    return folder / "report.html", folder / "report.md"


def _sections(output_dir: str | os.PathLike, figure: Path | None) -> list[Section]:
    lost, found = falls(output_dir), profiles(output_dir)
    notes = []
    for dataset, group in lost.groupby("dataset", sort=False):
        total = group[list(models.STANDARDIZATIONS)].sum(skipna=False)
        if total.notna().all() and total["pixel"] > 0:
            notes.append(
                f"{dataset}: over {len(group)} tests the natural model loses "
                f"{100 * total['pixel']:.1f} points in all when standardised per pixel, "
                f"{100 * total['global']:.1f} with one mean and deviation for all positions, and "
                f"{100 * total['none']:.1f} without standardisation. So "
                f"{100 * (1 - total['global'] / total['pixel']):.0f} % of its fall is not the "
                "perturbation's own doing, but comes from the division of each pixel by its own "
                "deviation."
            )
    table = lost.assign(
        **{name: lost[name].map(_points) for name in models.STANDARDIZATIONS},
        share_of_pixel=[
            "" if pd.isna(share) or row_pixel < 0.005 else f"{100 * share:.0f} %"
            for share, row_pixel in zip(lost["share_of_pixel"], lost["pixel"])
        ],
    ).rename(columns={"share_of_pixel": "not there with global"})
    texts = found.assign(
        **{name: (100 * found[name]).map("{:.2f}".format) for name in ("natural", "own", "worst")}
    )
    wide = texts.pivot_table(
        index=["dataset", "training"],
        columns="standardize",
        values=["natural", "own", "worst"],
        aggfunc="first",
    )
    order = list(dict.fromkeys(zip(texts["dataset"], texts["training"])))
    columns = [
        (measure, mode)
        for measure in ("natural", "own", "worst")
        for mode in models.STANDARDIZATIONS
    ]
    wide = wide.reindex(index=order, columns=pd.MultiIndex.from_tuples(columns)).fillna("")
    wide.columns = [f"{measure}, {mode}" for measure, mode in columns]
    return [
        Section(notes=tuple(notes)),
        Section(
            "What natural models lose",
            (
                "Natural less perturbed accuracy in points, by standardisation; and the share "
                "of the fall per pixel that is not there with one deviation for all positions "
                "(where it is half a point or more).",
            ),
            table,
            figure,
            "Accuracy of natural models by test and standardisation.",
        ),
        Section(
            "What training brings",
            (
                "Accuracy in percent: on natural images; own, the lowest on tests of the "
                "trained family; worst, the lowest over all tests.",
            ),
            wide.reset_index(),
        ),
    ]


def _points(fraction: float) -> str:
    return "" if pd.isna(fraction) else f"{100 * fraction:.2f}"


def cells(selection: Selection) -> list[Cell]:
    """Natural models and those of each strategy and kind, standardised in three ways.

    Each kind is trained at its own level (`Kind.train_level`); all are tested with all of the
    paper's tests. Goes beyond the paper.

    Args:
        selection: of datasets, strategies and kinds.

    Returns:
        Sixteen cells per dataset and standardisation.

    Raises:
        InvalidArgument: if a field of the selection has what is not there.
    """
    perturbing = [name for name in STRATEGIES if name != "natural"]
    selection.check("strategies", perturbing)
    selection.check("perturbs", KINDS)
    found = []
    for dataset in selection.datasets or EXPERIMENT.datasets:
        for standardize in models.STANDARDIZATIONS:
            found.append(Cell(dataset, {"standardize": standardize}))
            found += [
                Cell(
                    dataset,
                    {
                        "standardize": standardize,
                        "strategy": strategy,
                        "perturbation": Perturbation(kind, KINDS[kind].train_level),
                    },
                )
                for strategy in perturbing
                if strategy in (selection.strategies or perturbing)
                for kind in KINDS
                if kind in (selection.perturbs or KINDS)
            ]
    return with_all_tests(found)


EXPERIMENT = Experiment(
    "standardization",
    cells,
    ("mnist",),
    ("strategies", "perturbs"),
    frozenset({"strategy", "perturb", "level", "standardize"}),
)
