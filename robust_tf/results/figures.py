"""The figures of runs, from results alone; each function returns a Matplotlib figure.

Colours are safe for colour-blind readers, and no figure needs colour to be read. Studies and the
paper draw their own, with what is here.
"""

import base64
import contextlib
import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.figure
import matplotlib.image
import matplotlib.text
import matplotlib.ticker
import numpy as np
import pandas as pd
import seaborn as sns

from robust_tf.evaluation import condition_label
from robust_tf.files import replacing, writing_to
from robust_tf.results.labelling import with_labels

PALETTE = "colorblind"
HATCHES = ("", "//", "..", "xx")
# Characters below a bar; longer names are turned.
_LONGEST_TICK = 12


class _Figure(matplotlib.figure.Figure):
    """A figure whose text is shown as it is: no formula between two `$`."""

    def draw(self, renderer: Any) -> None:
        for text in self.findobj(matplotlib.text.Text):
            text.set_parse_math(False)
        with matplotlib.rc_context({"text.parse_math": False}):  # ticks are made while drawing
            super().draw(renderer)


def blank(width: float, height: float) -> matplotlib.figure.Figure:
    """A figure that no window system and no global state knows of."""
    return _Figure(figsize=(width, height), layout="constrained")


def short(text: object, longest: int = 40) -> str:
    """A name of the user's, cut where a figure has no room for so many characters."""
    name = str(text)
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def title(figure: matplotlib.figure.Figure, text: str) -> None:
    """Gives a figure a title, in as many lines as its width needs."""
    characters = int(figure.get_figwidth() / 0.085)
    figure.suptitle(textwrap.fill(text, max(20, characters)), fontsize=10)


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
    with writing_to("output_dir", folder.parent.parent), _one_warning_for_missing_glyphs():
        folder.mkdir(exist_ok=True)
        for name, figure in figures.items():
            figure.draw_without_rendering()  # the layout settles with the second drawing
            for ending in formats:
                with replacing(folder / f"{name}.{ending}") as path:
                    # The same figure makes the same file: no date in it.
                    metadata = {"CreationDate": None} if ending == "pdf" else None
                    figure.savefig(path, dpi=110, metadata=metadata)


@contextlib.contextmanager
def _one_warning_for_missing_glyphs() -> Iterator[None]:
    """Says once what no font has; Matplotlib does for each character."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    missing: dict[str, None] = {}
    for one in caught:
        glyph = re.match(r"Glyph (\d+) .* missing from", str(one.message))
        if glyph:
            missing[chr(int(glyph[1]))] = None
        else:
            warnings.warn(one.message, one.category, stacklevel=4)
    if missing:
        lacks = f"no font of Matplotlib has {''.join(missing)}; figures show boxes instead"
        warnings.warn(lacks, stacklevel=4)


def accuracy(trials: pd.DataFrame, runs: pd.DataFrame | None = None) -> matplotlib.figure.Figure:
    """Accuracy by test condition, one bar per run; error bars are standard deviations.

    Args:
        trials: columns as in `results.TRIAL_COLUMNS`, of one or more runs.
        runs: the table of runs, to tell apart those of one training; see `results.labels`.

    Returns:
        The figure.
    """
    table = with_labels(trials, runs)
    table["percent"] = 100 * table["accuracy"]
    table["test"] = table["test"].str.replace(" ", "\n")  # narrow enough for narrow bars
    trainings, tests = table["training"].unique(), table["test"].unique()
    figure = blank(2.5 + 0.55 * len(trainings) * len(tests), 4.2)
    axes = figure.subplots()
    sns.barplot(
        table,
        x="test",
        y="percent",
        hue="training",
        errorbar=_deviation,
        palette=PALETTE,
        err_kws={"linewidth": 1.2},
        legend="full",
        ax=axes,
    )
    bars: Any = axes.containers
    for i, container in enumerate(bars):
        for bar in container:
            bar.set_hatch(HATCHES[i % len(HATCHES)])
            bar.set_edgecolor("white")
        axes.bar_label(container, fmt="%.1f", fontsize=7, padding=2)
    axes.set(xlabel="test images", ylabel="accuracy [%]", ylim=(0, 108))
    if max(len(line) for test in tests for line in test.split("\n")) > _LONGEST_TICK:
        axes.tick_params(axis="x", rotation=90)
    axes.yaxis.set_major_locator(matplotlib.ticker.MultipleLocator(20))
    sns.move_legend(axes, "upper center", bbox_to_anchor=(0.5, 1.13), ncol=4, title=None)
    sns.despine(figure)
    return figure


def _deviation(values: pd.Series) -> tuple[float, float]:
    """Ends of an error bar: mean ± population standard deviation, as in the tables."""
    return values.mean() - values.std(ddof=0), values.mean() + values.std(ddof=0)


def training(
    history: pd.DataFrame, labels: Mapping[str, str] | None = None
) -> matplotlib.figure.Figure:
    """Accuracy and loss by epoch, and the perturbed fraction of the training images if it changes.

    Those of images that are held out are dotted lines.

    Args:
        history: columns as in `results.HISTORY_COLUMNS`, and run.
        labels: what to call the runs, as of `results.labels`; by default their names.

    Returns:
        The figure, one line per run.
    """
    table = history.assign(
        training=history["run"] if labels is None else history["run"].map(labels)
    )
    table["accuracy"] *= 100
    validated = "val_loss" in table
    if validated:
        table["val_accuracy"] *= 100
    table["perturbed_fraction"] *= 100
    panels = {
        "accuracy": "training accuracy [%]",
        "loss": "training loss (cross-entropy)",
    }
    if len(table[["run", "perturbed_fraction"]].drop_duplicates()) > table["run"].nunique():
        panels["perturbed_fraction"] = "perturbed training images [%]"
    figure = blank(3.5 * len(panels) + 0.5, 3.4)
    for axes, (column, label) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        sns.lineplot(
            table,
            x="epoch",
            y=column,
            hue="training",
            style="training",
            palette=PALETTE,
            legend=column == "accuracy",
            ax=axes,
        )
        if validated and f"val_{column}" in table:
            sns.lineplot(
                table,
                x="epoch",
                y=f"val_{column}",
                hue="training",
                hue_order=table["training"].unique(),  # also if the first has none
                palette=PALETTE,
                linestyle=":",
                legend=False,
                ax=axes,
            )
            axes.set_title("dotted: held-out images", fontsize=9)
        axes.set(ylabel=label)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        if column == "perturbed_fraction":
            axes.set_ylim(-3, 103)
    figure.axes[0].legend(title=None)
    sns.despine(figure)
    return figure


def examples(table: pd.DataFrame) -> matplotlib.figure.Figure:
    """Original and perturbed images with the classes that models see.

    Args:
        table: columns as in `evaluation.examples.COLUMNS`.

    Returns:
        The figure, one row per example, one column per condition. A wrong class is marked by ✗,
        a right one by ✓.
    """
    tests = zip(table["test_perturb"], table["test_level"])
    table = table.assign(test=[condition_label(*test) for test in tests])
    rows, columns = table["example"].unique(), table["test"].unique()
    trainings = table["training"].unique()
    height = (1.5 + 0.18 * len(trainings)) * len(rows) + 0.4
    figure = blank(1.75 * len(columns) + 0.6, height)
    grid: Any = figure.subplots(len(rows), len(columns), squeeze=False)
    good, bad = sns.color_palette(PALETTE)[2], sns.color_palette(PALETTE)[3]
    for (example, test), group in table.groupby(["example", "test"], sort=False):
        i, j = list(rows).index(example), list(columns).index(test)
        axes, first = grid[i, j], group.iloc[0]
        axes.imshow(decoded(first["image"]), cmap="gray", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
        if i == 0:
            axes.set_title(test, fontsize=10)
        if j == 0:
            axes.set_ylabel(f"true: {short(first['label'], 20)}", fontsize=10)
        for line, (training, predicted) in enumerate(zip(group["training"], group["predicted"])):
            # As text: a CSV may have made numbers of digits' names.
            right = str(predicted) == str(first["label"])
            axes.text(
                0.5,
                -0.06 - 0.13 * line,
                f"{short(training, 24)}: {short(predicted, 20)} {'✓' if right else '✗'}",
                color=good if right else bad,
                fontsize=8,
                ha="center",
                va="top",
                transform=axes.transAxes,
            )
    return figure


def decoded(png: str) -> np.ndarray:
    """The pixels of a PNG file in base64, float32 [H, W, 4] or [H, W], values in [0, 1]."""
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(png)), format="png")
