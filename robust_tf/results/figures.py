"""Every figure, from results alone; each function returns a Matplotlib figure.

Colours are safe for colour-blind readers, and no figure needs
colour to be read.
"""

import base64
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.figure
import matplotlib.image
import matplotlib.ticker
import numpy as np
import pandas as pd
import seaborn as sns

from robust_tf.files import replacing, writing_to
from robust_tf.results.tables import condition_label, with_labels

_PALETTE = "colorblind"
_HATCHES = ("", "//", "..", "xx")


def _figure(width: float, height: float) -> matplotlib.figure.Figure:
    """A figure that no window system and no global state knows of."""
    return matplotlib.figure.Figure(figsize=(width, height), layout="constrained")


def save(
    figures: Mapping[str, matplotlib.figure.Figure],
    folder: Path,
    formats: Sequence[str] = ("png",),
) -> None:
    """Writes figures to files of their names, each complete or not at all.

    Args:
        figures: by name.
        folder: a folder `figures` in the folder of a run; made if absent.
        formats: endings, of "png" and "pdf".

    Raises:
        Unavailable: if it cannot be written.
    """
    with writing_to("output_dir", folder.parent.parent):
        folder.mkdir(exist_ok=True)
        for name, figure in figures.items():
            figure.draw_without_rendering()  # the layout settles with the second drawing
            for ending in formats:
                with replacing(folder / f"{name}.{ending}") as path:
                    # The same figure makes the same file: no date in it.
                    metadata = {"CreationDate": None} if ending == "pdf" else None
                    figure.savefig(path, dpi=110, metadata=metadata)


def accuracy(trials: pd.DataFrame) -> matplotlib.figure.Figure:
    """Accuracy by test condition, a bar a training; error bars are standard deviations.

    Args:
        trials: columns as in `results.TRIAL_COLUMNS`, of one or more runs.

    Returns:
        The figure.
    """
    table = with_labels(trials)
    table["percent"] = 100 * table["accuracy"]
    table["test"] = table["test"].str.replace(" ", "\n")  # narrow enough for narrow bars
    trainings, tests = table["training"].unique(), table["test"].unique()
    figure = _figure(2.5 + 0.55 * len(trainings) * len(tests), 4.2)
    axes = figure.subplots()
    sns.barplot(
        table,
        x="test",
        y="percent",
        hue="training",
        errorbar=_deviation,
        palette=_PALETTE,
        err_kws={"linewidth": 1.2},
        legend="full",
        ax=axes,
    )
    bars: Any = axes.containers
    for i, container in enumerate(bars):
        for bar in container:
            bar.set_hatch(_HATCHES[i % len(_HATCHES)])
            bar.set_edgecolor("white")
        axes.bar_label(container, fmt="%.1f", fontsize=7, padding=2)
    axes.set(xlabel="test images", ylabel="accuracy [%]", ylim=(0, 108))
    axes.yaxis.set_major_locator(matplotlib.ticker.MultipleLocator(20))
    sns.move_legend(axes, "upper center", bbox_to_anchor=(0.5, 1.13), ncol=4, title=None)
    sns.despine(figure)
    return figure


def _deviation(values: pd.Series) -> tuple[float, float]:
    """Ends of an error bar: mean ± population standard deviation, as in the tables."""
    return values.mean() - values.std(ddof=0), values.mean() + values.std(ddof=0)


def training_curves(histories: Mapping[str, pd.DataFrame]) -> matplotlib.figure.Figure:
    """Accuracy, loss and perturbed fraction of the training images by epoch.

    Args:
        histories: columns as in `results.HISTORY_COLUMNS`, by training in words.

    Returns:
        The figure.
    """
    table = pd.concat(
        [history.assign(training=label) for label, history in histories.items()],
        ignore_index=True,
    )
    table["accuracy"] *= 100
    table["perturbed_fraction"] *= 100
    panels = {
        "accuracy": "training accuracy [%]",
        "loss": "training loss (cross-entropy)",
        "perturbed_fraction": "perturbed training images [%]",
    }
    figure = _figure(11, 3.4)
    for axes, (column, label) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        sns.lineplot(
            table,
            x="epoch",
            y=column,
            hue="training",
            style="training",
            palette=_PALETTE,
            legend=column == "accuracy",
            ax=axes,
        )
        axes.set(ylabel=label)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    figure.axes[0].legend(title=None)
    figure.axes[2].set_ylim(-3, 103)
    sns.despine(figure)
    return figure


def examples(table: pd.DataFrame) -> matplotlib.figure.Figure:
    """Original and perturbed images with the classes that models see (figures 3, 5, 7).

    Args:
        table: columns as in `examples.COLUMNS`.

    Returns:
        The figure, a row an example, a column a condition. A wrong class is marked by ✗,
        a right one by ✓.
    """
    tests = zip(table["test_perturb"], table["test_level"])
    table = table.assign(test=[condition_label(*test) for test in tests])
    rows, columns = table["example"].unique(), table["test"].unique()
    trainings = table["training"].unique()
    height = (1.5 + 0.18 * len(trainings)) * len(rows) + 0.4
    figure = _figure(1.75 * len(columns) + 0.6, height)
    grid: Any = figure.subplots(len(rows), len(columns), squeeze=False)
    good, bad = sns.color_palette(_PALETTE)[2], sns.color_palette(_PALETTE)[3]
    for (example, test), group in table.groupby(["example", "test"], sort=False):
        i, j = list(rows).index(example), list(columns).index(test)
        axes, first = grid[i, j], group.iloc[0]
        axes.imshow(_decoded(first["image"]), cmap="gray", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
        if i == 0:
            axes.set_title(test, fontsize=10)
        if j == 0:
            axes.set_ylabel(f"true: {first['label']}", fontsize=10)
        for line, (training, predicted) in enumerate(zip(group["training"], group["predicted"])):
            # As text: a CSV may have made numbers of digits' names.
            right = str(predicted) == str(first["label"])
            axes.text(
                0.5,
                -0.06 - 0.13 * line,
                f"{training}: {predicted} {'✓' if right else '✗'}",
                color=good if right else bad,
                fontsize=8,
                ha="center",
                va="top",
                transform=axes.transAxes,
            )
    return figure


def _decoded(png: str) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(png)), format="png")


def curves(
    points: pd.DataFrame,
    published: pd.DataFrame | None = None,
    baseline: Mapping[str, float] | None = None,
) -> matplotlib.figure.Figure:
    """Accuracy by level: the paper's figures 4, 6, 8 and A.1 to C.3.

    A panel a dataset and training; in it a line a test. The axis is the level of the
    tests where all models are natural, or else that of training.

    Args:
        points: columns as of `comparisons.points`, of one figure.
        published: likewise; drawn lightly behind, in panels that have points.
        baseline: by dataset, the accuracy of the natural model on natural images.

    Returns:
        The figure; error bars are the standard deviations.
    """
    natural = (points["strategy"] == "natural").all()
    datasets = list(dict.fromkeys(points["dataset"]))
    trainings = list(dict.fromkeys(points["train_perturb"]))
    panels = list(itertools.product(datasets, trainings))
    rows = len(datasets) if len(trainings) > 1 else 1
    columns = len(panels) // rows
    figure = _figure(4.2 * columns + 0.4, 3.2 * rows + 0.6)
    grid: Any = figure.subplots(rows, columns, squeeze=False)
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
    axes: Any,
    mine: pd.DataFrame,
    theirs: pd.DataFrame | None,
    natural: bool,
    baseline: float | None,
) -> None:
    """A panel of `curves`."""
    lines = _lines(mine, natural)
    reference = _lines(theirs, natural) if theirs is not None else {}
    colours = sns.color_palette(_PALETTE)
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
        if natural and name == "natural":
            axes.axhline(line["percent"].mean(), color=colour, dashes=dashes or (1, 0), label=name)
            continue
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


def ablation(rows: pd.DataFrame, published: pd.DataFrame | None = None) -> matplotlib.figure.Figure:
    """Table I as bars: training and test accuracy of a network without some components.

    Args:
        rows: columns as of `comparisons.ablation`.
        published: likewise; marks where a dataset is there too.

    Returns:
        The figure, a panel a dataset.
    """
    datasets = list(dict.fromkeys(rows["dataset"]))
    figure = _figure(6.4, 3.6 * len(datasets))
    grid: Any = figure.subplots(len(datasets), 1, squeeze=False)
    for dataset, axes in zip(datasets, grid[:, 0]):
        mine = rows[rows["dataset"] == dataset].reset_index(drop=True)
        theirs = None if published is None else published[published["dataset"] == dataset]
        names = [network_label(*row) for row in zip(*(mine[c] for c in _NETWORK))]
        for offset, column, hatch in ((0.2, "train_accuracy", "//"), (-0.2, "test_accuracy", "")):
            bars = axes.barh(
                mine.index + offset,
                100 * mine[column],
                height=0.38,
                color=sns.color_palette(_PALETTE)[int(offset < 0)],
                hatch=hatch,
                edgecolor="white",
                label=column.replace("_", " "),
            )
            axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
            if theirs is not None and len(theirs):
                matched = mine[_NETWORK].merge(theirs, on=_NETWORK, how="left")
                label = "published" if offset < 0 else None
                axes.plot(100 * matched[column], mine.index + offset, "k|", ms=11, label=label)
        axes.set(yticks=mine.index, yticklabels=names, xlim=(0, 112))
        axes.set_xlabel(f"accuracy on {dataset} [%]")
        axes.invert_yaxis()
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.13), ncols=3)
    sns.despine(figure)
    return figure


_NETWORK = ["batch_norm", "dropout", "activation"]


def network_label(batch_norm: bool, dropout: float, activation: str) -> str:
    """A network of the ablation in words: "batch norm, dropout, relu"."""
    parts = ["batch norm"] * bool(batch_norm) + ["dropout"] * bool(dropout)
    return ", ".join([*parts, activation])


def sensor_maps(positions: pd.DataFrame, summary: pd.DataFrame) -> matplotlib.figure.Figure:
    """Accuracy by the position of a defective pixel, in the shape of the sensor.

    Args:
        positions: of `sensor_maps.SensorMap.positions`, with the column `model`.
        summary: a row a model, as of `sensor_maps.write`.

    Returns:
        The figure, a panel a model, all in the same colours.
    """
    figure = _figure(4.2 * len(summary) + 0.9, 4.4)
    panels: Any = figure.subplots(1, len(summary), squeeze=False)[0]
    lowest = 100 * positions["accuracy"].min()
    highest = 100 * max(positions["accuracy"].max(), summary["natural_accuracy"].max())
    for axes, row in zip(panels, summary.itertuples()):
        own = positions[positions["model"] == row.model]
        sensor = 100 * own.pivot_table(index="row", columns="column", values="accuracy").to_numpy()
        image = axes.imshow(sensor, cmap="cividis", vmin=lowest, vmax=highest)
        axes.set(xlabel="column", ylabel="row")
        axes.set_title(
            f"{row.training} ({row.model})\nwithout a defect {100 * row.natural_accuracy:.2f} %, "
            f"worst position {100 * row.lowest_accuracy:.2f} %",
            fontsize=9,
        )
    figure.colorbar(image, ax=list(panels), label="accuracy [%]", shrink=0.85)
    return figure


def falls(table: pd.DataFrame) -> matplotlib.figure.Figure:
    """What natural models lose under each test, a bar a standardisation.

    Args:
        table: columns as in `standardization.FALL_COLUMNS`.

    Returns:
        The figure, a panel a dataset.
    """
    datasets = list(dict.fromkeys(table["dataset"]))
    figure = _figure(8.6, 3.8 * len(datasets))
    for dataset, axes in zip(datasets, figure.subplots(len(datasets), 1, squeeze=False)[:, 0]):
        own = table[table["dataset"] == dataset].set_index("test")
        modes = [name for name in ("pixel", "global", "none") if own[name].notna().any()]
        for i, mode in enumerate(modes):
            bars = axes.bar(
                np.arange(len(own)) + (i - (len(modes) - 1) / 2) * 0.8 / len(modes),
                100 * own[mode],
                width=0.8 / len(modes),
                color=sns.color_palette(_PALETTE)[i],
                hatch=_HATCHES[i],
                edgecolor="white",
                label=mode,
            )
            axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
        axes.set(ylabel=f"points lost on {dataset}", xlabel="test images")
        axes.set_xticks(range(len(own)), [test.replace(" ", "\n") for test in own.index])
        axes.legend(title="standardize", fontsize=8)
    sns.despine(figure)
    return figure


_MARKERS = "osD^vPX*"


def comparison(tests: pd.DataFrame) -> matplotlib.figure.Figure:
    """Accuracy with its 95 % interval and calibration error of models, by test.

    Args:
        tests: columns as in `scorecards.TESTS_COLUMNS`.

    Returns:
        The figure, a panel a measure.
    """
    labels = [condition_label(*row) for row in zip(tests["test_perturb"], tests["test_level"])]
    tests = tests.assign(test=labels)
    names = list(dict.fromkeys(tests["model"]))
    shown = list(dict.fromkeys(tests["test"]))
    figure = _figure(2.5 + 0.75 * len(shown), 6.4 + 0.2 * len(names))
    above, below = figure.subplots(2, 1, sharex=True)
    for i, (name, colour) in enumerate(zip(names, sns.color_palette(_PALETTE, len(names)))):
        own = tests[tests["model"] == name].set_index("test").loc[shown]
        places = np.arange(len(shown)) + (i - (len(names) - 1) / 2) * 0.6 / len(names)
        style = {"color": colour, "marker": _MARKERS[i % len(_MARKERS)], "linestyle": "none"}
        reach = 100 * np.abs(own[["low", "high"]].sub(own["accuracy"], axis=0).to_numpy().T)
        label = f"{own['training'].iloc[0]} ({name})"
        above.errorbar(places, 100 * own["accuracy"], reach, label=label, capsize=2, **style)
        below.plot(places, 100 * own["calibration_error"], **style)
    above.set(ylabel="accuracy [%]")
    below.set(ylabel="calibration error [%]", xlabel="test images", ylim=(0, None))
    below.set_xticks(range(len(shown)), [test.replace(" ", "\n") for test in shown])
    for axes in (above, below):
        axes.grid(axis="y", linewidth=0.4)
    figure.legend(loc="outside upper center", fontsize=8)
    sns.despine(figure)
    return figure


def changes(
    table: pd.DataFrame, label_names: Sequence[str], title: str
) -> matplotlib.figure.Figure:
    """Which classes flow into which under the highest level of each kind.

    Args:
        table: columns as in `confusions.CHANGES_COLUMNS`.
        label_names: the names of the classes.
        title: what was tested, in words.

    Returns:
        The figure, a matrix a kind: rows are classes of natural images, columns those of
        perturbed ones; what stays in its class is left out.
    """
    highest = table.groupby("test_perturb")["test_level"].transform("max")
    table = table[table["test_level"] == highest]
    kinds = list(dict.fromkeys(table["test_perturb"]))
    names = list(label_names)
    side = max(2.6, 0.28 * len(names) + 0.9)
    figure = _figure(side * len(kinds) + 0.8, side + 1.0)
    panels: Any = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for axes, kind in zip(panels, kinds):
        own = table[table["test_perturb"] == kind]
        matrix = np.full((len(names), len(names)), np.nan)
        for row in own.itertuples():
            if str(row.natural) != str(row.perturbed):
                place = names.index(str(row.natural)), names.index(str(row.perturbed))
                matrix[place] = 100 * row.share
        image = axes.imshow(matrix, cmap="cividis", vmin=0, vmax=max(1.0, np.nanmax(matrix)))
        axes.set_title(condition_label(kind, own["test_level"].iloc[0]), fontsize=10)
        axes.set_xticks(range(len(names)), names, fontsize=7, rotation=90)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set_xlabel("perturbed image")
        figure.colorbar(image, ax=axes, shrink=0.7)
    panels[0].set_ylabel("natural image")
    figure.suptitle(f"{title}: share that goes to another class [%]", fontsize=10)
    return figure


def flips(table: pd.DataFrame, title: str) -> matplotlib.figure.Figure:
    """The images that become another class at the lowest levels.

    Args:
        table: columns as in `confusions.FLIPS_COLUMNS`, and image.
        title: what was tested, in words.

    Returns:
        The figure, a row a kind.
    """
    kinds = list(dict.fromkeys(table["test_perturb"]))
    most = table.groupby("test_perturb").size().max()
    figure = _figure(1.75 * most + 0.4, 2.0 * len(kinds) + 0.4)
    grid: Any = figure.subplots(len(kinds), most, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for line, (_, own) in zip(grid, table.groupby("test_perturb", sort=False)):
        for axes, row in zip(line, own.itertuples()):
            axes.imshow(_decoded(row.image), cmap="gray", vmin=0, vmax=1)
            level = condition_label(row.test_perturb, row.test_level)
            axes.set_title(
                f"{level}: {row.natural} → {row.perturbed}\nimage {row.example}, true: {row.label}",
                fontsize=7,
            )
    figure.suptitle(f"{title}: the first to become another class", fontsize=10)
    return figure
