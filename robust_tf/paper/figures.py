"""The paper's figures: its curves and Table I, by name from the tables of an experiment alone."""

import itertools
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib.axes
import matplotlib.figure
import matplotlib.ticker
import pandas as pd
import seaborn as sns

from robust_tf import results
from robust_tf.evaluation import condition_label
from robust_tf.paper import experiments, numbers
from robust_tf.results import figures

Figures = dict[str, matplotlib.figure.Figure]
# As in print, and as in a report.
FORMATS = ("pdf", "png")
_COMPONENTS = [column for column in numbers.ABLATION_COLUMNS if column != "dataset"]


def curves(
    points: pd.DataFrame,
    published: pd.DataFrame | None = None,
    baseline: Mapping[str, float] | None = None,
) -> matplotlib.figure.Figure:
    """Accuracy by level: the paper's figures 4, 6, 8 and A.1 to C.3.

    One panel per dataset and training; in it one line per test. The axis is the level of the
    tests where all models are natural, or else that of training.

    Args:
        points: columns as of `numbers.points`, of one figure.
        published: likewise; drawn lightly behind, in panels that have points.
        baseline: by dataset, the accuracy of the natural model on natural images.

    Returns:
        The figure; error bars are the standard deviations; where there are several seeds, a
        band is the 95 % prediction interval of one more.
    """
    natural = (points["strategy"] == "natural").all()
    datasets = list(dict.fromkeys(points["dataset"]))
    trainings = list(dict.fromkeys(points["train_perturb"]))
    panels = list(itertools.product(datasets, trainings))
    rows = len(datasets) if len(trainings) > 1 else 1
    columns = len(panels) // rows
    figure = figures.blank(4.2 * columns + 0.4, 3.2 * rows + 0.6)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (dataset, training) in zip(grid.flat, panels, strict=True):
        mine, theirs = (
            None
            if table is None
            else table[(table["dataset"] == dataset) & (table["train_perturb"] == training)]
            for table in (points, published)
        )
        if mine is None or not len(mine):
            axes.set_visible(False)
            continue
        _panel(axes, mine, theirs, natural, None if natural else (baseline or {}).get(dataset))
        axes.set_title(dataset if natural else f"{dataset}, trained with {training}", fontsize=10)
        kind = training if not natural else _kinds(mine)[0]
        axes.set_xlabel(_axis(kind, "test" if natural else "training"))
        axes.set_ylabel("test accuracy [%]")
        axes.margins(y=0.08)
        if kind not in ("noise", "blur"):
            axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    entries = {}
    for axes in figure.axes:
        entries.update(dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True)))
    figure.legend(
        entries.values(),
        entries.keys(),
        title="tested with",
        loc="outside upper center",
        ncols=min(len(entries), 3 * columns),
        fontsize=8,
        title_fontsize=8,
        frameon=False,
    )
    sns.despine(figure)
    return figure


def _kinds(points: pd.DataFrame) -> list[str]:
    return [kind for kind in dict.fromkeys(points["test_perturb"]) if kind != "none"]


def _axis(kind: str, images: str) -> str:
    units = {
        "noise": "standard deviation of the noise",
        "blur": "standard deviation of the blur [pixels]",
    }
    return f"{units.get(kind, 'number of changed pixels')} in {images} images"


def _panel(
    axes: matplotlib.axes.Axes,
    mine: pd.DataFrame,
    theirs: pd.DataFrame | None,
    natural: bool,
    baseline: float | None,
) -> None:
    """A panel of `curves`."""
    lines = _lines(mine, natural)
    reference = _lines(theirs, natural) if theirs is not None else {}
    colours = sns.color_palette(figures.PALETTE)
    for number, (name, line) in enumerate(lines.items()):
        colour, marker = colours[number], "osD^v"[number % 5]
        dashes = (None, (4, 2), (1, 1), (4, 1, 1, 1), (6, 2))[number % 5]
        if name in reference:
            other = reference[name]
            if natural and name == "natural":
                axes.axhline(other["percent"].mean(), color=colour, alpha=0.4, linewidth=3)
            else:
                axes.plot(
                    other["level"],
                    other["percent"],
                    color=colour,
                    alpha=0.4,
                    linewidth=3,
                    marker=marker,
                    markersize=7,
                    markerfacecolor="none",
                )
        low, high = (100 * line.get(end, line["percent"] * math.nan) for end in ("low", "high"))
        if natural and name == "natural":
            axes.axhline(line["percent"].mean(), color=colour, dashes=dashes or (1, 0), label=name)
            if low.notna().all():
                axes.axhspan(low.mean(), high.mean(), color=colour, alpha=0.12, linewidth=0)
            continue
        axes.fill_between(line["level"], low, high, color=colour, alpha=0.12, linewidth=0)
        axes.errorbar(
            line["level"],
            line["percent"],
            yerr=100 * line["std"].fillna(0),
            color=colour,
            marker=marker,
            markersize=4.5,
            linewidth=1.3,
            capsize=2.5,
            dashes=dashes or (1, 0),
            label=name,
        )
    if baseline is not None:
        axes.axhline(100 * baseline, color="0.35", linewidth=0.9, dashes=(8, 4))
        axes.plot([], [], color="0.35", linewidth=0.9, dashes=(8, 4), label="natural model")
    if reference:
        axes.plot([], [], color="0.5", alpha=0.5, linewidth=3, label="published")
    if "low" in mine and mine["low"].notna().any():
        axes.fill_between([], [], [], color="0.5", alpha=0.25, label="one more seed, 95 %")


def _lines(points: pd.DataFrame, natural: bool) -> dict[str, pd.DataFrame]:
    """The lines of a panel by name, each with columns level, percent and std."""
    if natural:
        names = points["test_perturb"].replace("none", "natural")
        levels = points["test_level"]
    else:
        tests = zip(points["test_perturb"], points["test_level"])
        names = pd.Series([condition_label(*test) for test in tests], index=points.index)
        levels = points["train_level"]
    table = points.assign(name=names, level=levels, percent=100 * points["mean"])
    return {name: group.sort_values("level") for name, group in table.groupby("name", sort=False)}


def table_one(
    rows: pd.DataFrame, published: pd.DataFrame | None = None
) -> matplotlib.figure.Figure:
    """Table I as bars: training and test accuracy of a network without some components.

    Args:
        rows: columns as of `numbers.ablation`.
        published: likewise; marks where a dataset is there too.

    Returns:
        The figure, one panel per dataset.
    """
    datasets = list(dict.fromkeys(rows["dataset"]))
    figure = figures.blank(6.4, 3.6 * len(datasets))
    grid = figure.subplots(len(datasets), 1, squeeze=False)
    for dataset, axes in zip(datasets, grid[:, 0]):
        mine = rows[rows["dataset"] == dataset].reset_index(drop=True)
        theirs = None if published is None else published[published["dataset"] == dataset]
        names = [_network_label(*row) for row in zip(*(mine[c] for c in _COMPONENTS))]
        for offset, column, hatch in ((0.2, "train_accuracy", "//"), (-0.2, "test_accuracy", "")):
            bars = axes.barh(
                mine.index + offset,
                100 * mine[column],
                height=0.38,
                color=sns.color_palette(figures.PALETTE)[int(offset < 0)],
                hatch=hatch,
                edgecolor="white",
                label=column.replace("_", " "),
            )
            axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
            if theirs is not None and len(theirs):
                matched = mine[_COMPONENTS].merge(theirs, on=_COMPONENTS, how="left")
                label = "published" if offset < 0 else None
                axes.plot(100 * matched[column], mine.index + offset, "k|", ms=11, label=label)
        axes.set(yticks=mine.index, yticklabels=names, xlim=(0, 112))
        axes.set_xlabel(f"accuracy on {dataset} [%]")
        axes.invert_yaxis()
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.13), ncols=3)
    sns.despine(figure)
    return figure


def _network_label(batch_norm: bool, dropout: float, activation: str) -> str:
    """A network of the ablation in words: "batch norm, dropout, relu"."""
    parts = ["batch norm"] * bool(batch_norm) + ["dropout"] * bool(dropout)
    return ", ".join([*parts, activation])


def impact(output_dir: str | os.PathLike, reference: bool = True) -> Figures:
    """Figures 4, 6 and 8, and 3, 5 and 7 where there is a table of examples.

    Args:
        output_dir: where the experiment's folder is.
        reference: draw the published numbers too.

    Returns:
        Figures by name: "figure-4", and, one per dataset, "figure-3-mnist".
    """
    drawn = {}
    examples = results.read_experiment(output_dir, "impact", "examples")
    for keys, group in examples.groupby(["figure", "dataset"]) if len(examples) else ():
        drawn["figure-{}-{}".format(*keys)] = figures.examples(group)
    return drawn | _curves(output_dir, list(experiments.IMPACT_FIGURES.values()), reference)


def grid(output_dir: str | os.PathLike, reference: bool = True) -> Figures:
    """Figures A.1 to C.3; arguments and result as in `impact`."""
    names = [
        f"{letter}.{number}"
        for letter in experiments.FIGURE_LETTERS.values()
        for number in experiments.FIGURE_NUMBERS.values()
    ]
    return _curves(output_dir, names, reference)


def ablation(output_dir: str | os.PathLike, reference: bool = True) -> Figures:
    """Table I; arguments and result as in `impact`."""
    rows = numbers.ablation(output_dir)
    if not len(rows):
        return {}
    published = numbers.published_ablation() if reference else None
    return {"table-I": table_one(rows, published)}


def _curves(output_dir: str | os.PathLike, names: list[str], reference: bool) -> Figures:
    points = numbers.points(output_dir)
    published = numbers.published_points() if reference else None
    natural = points[(points["figure"] == "natural") & (points["test_perturb"] == "none")]
    baseline = dict(zip(natural["dataset"], natural["mean"]))
    drawn = {}
    for name in names:
        mine = points[points["figure"] == name]
        if _has_tests(mine):
            theirs = None if published is None else published[published["figure"] == name]
            drawn[f"figure-{name}"] = curves(mine, theirs, baseline)
    return drawn


def _has_tests(points: pd.DataFrame) -> bool:
    return bool((points["test_perturb"] != "none").any())


FIGURES: dict[str, Callable[[str | os.PathLike, bool], Figures]] = {
    "impact": impact,
    "grid": grid,
    "ablation": ablation,
}


def draw(experiment: str, output_dir: str | os.PathLike, reference: bool = True) -> dict[str, Path]:
    """Draws an experiment's figures to `<output_dir>/<experiment>/figures/`.

    Args:
        experiment: a name of `FIGURES`.
        output_dir: where the experiment's folder is.
        reference: draw the published numbers too.

    Returns:
        By name, the figures' PNG files; beside each lies a PDF.

    Raises:
        Unavailable: if it cannot be written.
    """
    folder = Path(output_dir) / experiment / "figures"
    drawn = FIGURES[experiment](output_dir, reference)
    figures.save(drawn, folder, FORMATS)
    return {name: folder / f"{name}.png" for name in drawn}
