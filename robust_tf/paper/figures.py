"""The paper's figures, by name, from the tables of an experiment alone."""

import os
from collections.abc import Callable
from pathlib import Path

import matplotlib.figure
import pandas as pd

from robust_tf.paper import experiments, numbers
from robust_tf.results import figures
from robust_tf.studies import standardization as standardization_lib

Figures = dict[str, matplotlib.figure.Figure]
# As in print, and as in a report.
FORMATS = ("pdf", "png")


def impact(output_dir: str | os.PathLike, reference: bool = True) -> Figures:
    """Figures 4, 6 and 8, and 3, 5 and 7 where there is a table of examples.

    Args:
        output_dir: where the experiment's folder is.
        reference: draw the published numbers too.

    Returns:
        Figures by name: "figure-4", and, a dataset each, "figure-3-mnist".
    """
    drawn = {}
    examples = numbers.table(output_dir, "impact", "examples")
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
    return {"table-I": figures.ablation(rows, published)}


def standardization(output_dir: str | os.PathLike, reference: bool = True) -> Figures:
    """What natural models lose, by standardisation; nothing of it is published."""
    falls = standardization_lib.falls(output_dir)
    return {"falls": figures.falls(falls)} if len(falls) else {}


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
            drawn[f"figure-{name}"] = figures.curves(mine, theirs, baseline)
    return drawn


def _has_tests(points: pd.DataFrame) -> bool:
    return bool((points["test_perturb"] != "none").any())


FIGURES: dict[str, Callable[[str | os.PathLike, bool], Figures]] = {
    "impact": impact,
    "grid": grid,
    "ablation": ablation,
    "standardization": standardization,
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
