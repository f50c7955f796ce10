"""The study of standardisation: how much of a fall is the perturbation's own doing.

The paper divides each pixel position by its deviation over the training images. Where that is
tiny, at the border of MNIST's digits, a small change of the sensor enters the network as a
huge number. The same networks with one mean and deviation for all positions, or with none,
are without that effect; what they lose is the perturbation's own.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd
import seaborn as sns

from robust_tf import models, results
from robust_tf.files import replacing, writing_to
from robust_tf.perturbations import KINDS
from robust_tf.results import figures
from robust_tf.results.pages import Section, markdown, page
from robust_tf.studies.experiments import STANDARDIZATION

FALL_COLUMNS = ["dataset", "test", *models.STANDARDIZATIONS, "share_of_pixel"]
PROFILE_COLUMNS = ["dataset", "training", "standardize", "natural", "own", "worst", "at"]
# What runs of one training may differ in; what transfer starts from differs with the others.
_VARIED = ("dataset", "standardize", "seed", "pretrained")
_TITLE = "How much of the fall is standardisation?"


@dataclass(frozen=True, eq=False)
class Standardization:
    """What standardisation does to a fall; fractions, means over the seeds.

    Attributes:
        falls: `FALL_COLUMNS`, one row per dataset and test: what natural models lose, natural
            less perturbed accuracy, by standardisation; and the share of the fall with "pixel"
            that is not there with "global", missing where nothing falls.
        profiles: `PROFILE_COLUMNS`, one row per dataset, training and standardisation: natural
            accuracy; own, the lowest on tests of the trained family; worst and at, the lowest
            over all tests and where.
    """

    falls: pd.DataFrame
    profiles: pd.DataFrame


def measure(trials: pd.DataFrame, runs: pd.DataFrame) -> Standardization:
    """Compares models that differ in their standardisation.

    Args:
        trials: of the models, columns as in `results.TRIAL_COLUMNS`; may be empty.
        runs: the table of their runs.
    """
    if not len(trials):
        empty = (pd.DataFrame(columns=columns) for columns in (FALL_COLUMNS, PROFILE_COLUMNS))
        return Standardization(*empty)
    summary = results.summarize(trials).merge(runs[["run", "standardize"]], on="run")
    # Runs that differ in more than standardisation and seed are trainings of their own.
    summary = results.with_labels(summary, runs, but=_VARIED)
    keys = ["dataset", "standardize", "training", "strategy", "train_perturb"]
    keys += ["test", *results.TEST_COLUMNS]
    means = summary.groupby(keys, sort=False, dropna=False)["mean"].mean().reset_index()
    return Standardization(_falls(means[means["strategy"] == "natural"]), _profiles(means))


def _falls(means: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (dataset, _), group in means.groupby(["dataset", "training"], sort=False):
        wide = group.pivot_table(index="test", columns="standardize", values="mean", sort=False)
        fall = (wide.loc["natural"] - wide).drop(index="natural")
        fall = fall.reindex(columns=list(models.STANDARDIZATIONS))
        share = 1 - fall["global"] / fall["pixel"].where(fall["pixel"] > 0)
        rows.append(fall.assign(share_of_pixel=share, dataset=dataset).reset_index())
    return pd.concat(rows, ignore_index=True)[FALL_COLUMNS]


def _profiles(means: pd.DataFrame) -> pd.DataFrame:
    rows = []
    keys = ["dataset", "training", "standardize"]
    for values, group in means.groupby(keys, sort=False):
        natural = group.loc[group["test"] == "natural", "mean"].iloc[0]
        tests = group[group["test"] != "natural"]
        perturb = group["train_perturb"].iloc[0]
        family = KINDS[perturb].family if perturb in KINDS else None
        mine = [family in (None, KINDS[kind].family) for kind in tests["test_perturb"]]
        worst = tests.loc[tests["mean"].idxmin()]
        rows.append(
            {
                **dict(zip(keys, values)),
                "natural": natural,
                "own": tests.loc[mine, "mean"].min(),
                "worst": worst["mean"],
                "at": worst["test"],
            }
        )
    return pd.DataFrame(rows, columns=PROFILE_COLUMNS)


def figure(table: pd.DataFrame) -> matplotlib.figure.Figure:
    """What natural models lose under each test, one bar per standardisation.

    Args:
        table: columns as in `FALL_COLUMNS`.

    Returns:
        The figure, one panel per dataset.
    """
    datasets = list(dict.fromkeys(table["dataset"]))
    drawn = figures.blank(8.6, 3.8 * len(datasets))
    for dataset, axes in zip(datasets, drawn.subplots(len(datasets), 1, squeeze=False)[:, 0]):
        own = table[table["dataset"] == dataset].set_index("test")
        modes = [name for name in ("pixel", "global", "none") if own[name].notna().any()]
        for i, mode in enumerate(modes):
            bars = axes.bar(
                np.arange(len(own)) + (i - (len(modes) - 1) / 2) * 0.8 / len(modes),
                100 * own[mode],
                width=0.8 / len(modes),
                color=sns.color_palette(figures.PALETTE)[i],
                hatch=figures.HATCHES[i],
                edgecolor="white",
                label=mode,
            )
            axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
        axes.set(ylabel=f"points lost on {dataset}", xlabel="test images")
        axes.set_xticks(range(len(own)), [test.replace(" ", "\n") for test in own.index])
        axes.legend(title="standardize", fontsize=8)
    sns.despine(drawn)
    return drawn


def write(output_dir: str | os.PathLike) -> tuple[Path, Path]:
    """Draws the study's figure and writes its report.

    Args:
        output_dir: where the folder of the experiment is, with its tables.

    Returns:
        `report.html` and `report.md` in the folder of the experiment, beside `figures/`.

    Raises:
        Unavailable: if the folder cannot be written.
    """
    experiment = STANDARDIZATION.name
    folder = Path(output_dir) / experiment
    tables = (results.read_experiment(output_dir, experiment, name) for name in ("trials", "runs"))
    found = measure(*tables)
    png = None
    if len(found.falls):
        figures.save({"falls": figure(found.falls)}, folder / "figures", ("pdf", "png"))
        png = folder / "figures" / "falls.png"
    sections = _sections(found, png)
    texts = {"html": page(_TITLE, sections), "md": markdown(_TITLE, sections)}
    with writing_to("output_dir", output_dir):
        for ending, text in texts.items():
            with replacing(folder / f"report.{ending}") as temporary:
                temporary.write_text(text, encoding="utf-8")
    return folder / "report.html", folder / "report.md"


def _sections(study: Standardization, png: Path | None) -> list[Section]:
    lost, found = study.falls, study.profiles
    notes = []
    for dataset, group in lost.groupby("dataset", sort=False):
        total = group[list(models.STANDARDIZATIONS)].sum(skipna=False)
        if total.notna().all() and total["pixel"] > 0:
            notes.append(
                f"{dataset}: over {results.counted(len(group), 'test')} the natural model loses "
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
            png,
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
