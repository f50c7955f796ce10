"""Every figure, from results alone; each function returns a Matplotlib figure.

Colours are safe for colour-blind readers, and no figure needs
colour to be read.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.figure
import matplotlib.ticker
import numpy as np
import pandas as pd
import seaborn as sns

from robust_tf.files import replacing, writing_to
from robust_tf.results import with_labels

_PALETTE = "colorblind"
_HATCHES = ("", "//", "..", "xx")


def _figure(width: float, height: float) -> matplotlib.figure.Figure:
    """A figure that no window system and no global state knows of."""
    return matplotlib.figure.Figure(figsize=(width, height), layout="constrained")


def save(figures: Mapping[str, matplotlib.figure.Figure], folder: Path) -> None:
    """Writes figures as PNG files of their names, each complete or not at all.

    Args:
        figures: by name.
        folder: a folder `figures` in the folder of a run; made if absent.

    Raises:
        Unavailable: if it cannot be written.
    """
    with writing_to("output_dir", folder.parent.parent):
        folder.mkdir(exist_ok=True)
        for name, figure in figures.items():
            with replacing(folder / f"{name}.png") as path:
                figure.savefig(path, dpi=150)


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


def examples(
    images: np.ndarray,
    conditions: Sequence[str],
    labels: Sequence[str],
    predictions: Mapping[str, Sequence[Sequence[str]]],
) -> matplotlib.figure.Figure:
    """Original and perturbed images with the classes that models see (figure 3).

    Args:
        images: float32 values in [0, 1], shape [examples, conditions, H, W, C].
        conditions: the columns' titles.
        labels: the true class of each example.
        predictions: by training in words, the predicted classes, [examples][conditions].

    Returns:
        The figure. A wrong class is marked by ✗, a right one by ✓.
    """
    rows, columns = images.shape[:2]
    figure = _figure(1.75 * columns + 0.6, (1.5 + 0.18 * len(predictions)) * rows + 0.4)
    grid: Any = figure.subplots(rows, columns, squeeze=False)
    good, bad = sns.color_palette(_PALETTE)[2], sns.color_palette(_PALETTE)[3]
    for i, j in np.ndindex(rows, columns):
        axes = grid[i, j]
        axes.imshow(images[i, j].squeeze(), cmap="gray", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
        if i == 0:
            axes.set_title(conditions[j], fontsize=10)
        if j == 0:
            axes.set_ylabel(f"true: {labels[i]}", fontsize=10)
        for line, (training, classes) in enumerate(predictions.items()):
            right = classes[i][j] == labels[i]
            axes.text(
                0.5,
                -0.06 - 0.13 * line,
                f"{training}: {classes[i][j]} {'✓' if right else '✗'}",
                color=good if right else bad,
                fontsize=8,
                ha="center",
                va="top",
                transform=axes.transAxes,
            )
    return figure
