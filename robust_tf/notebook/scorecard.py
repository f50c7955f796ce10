"""What a benchmark has found: a table, a figure, and both as a notebook shows them."""

import html
from dataclasses import dataclass

import matplotlib.figure
import pandas as pd

from robust_tf import results
from robust_tf.errors import InvalidArgument
from robust_tf.results import figures

_IN_BRACKETS = "95 % interval of the mean, for other draws and other test images"


@dataclass(frozen=True, eq=False, repr=False)
class Scorecard:
    """How robust a model is.

    Attributes:
        name: the model's.
        trials: one row per trial, columns as in `results.TRIAL_COLUMNS`.
    """

    name: str
    trials: pd.DataFrame

    @property
    def table(self) -> pd.DataFrame:
        """One row per test: mean accuracy, its deviation and interval, as of `results.summarize`.

        Accuracies are fractions.
        """
        return results.summarize(self.trials)

    @property
    def profile(self) -> pd.Series:
        """Over all perturbed tests: natural, mean, worst, at, drop and intervals.

        As of `results.profile`; fractions.

        Raises:
            InvalidArgument: if natural images alone were tested.
        """
        if (self.trials["test_perturb"] == "none").all():
            raise InvalidArgument("tests", None, "perturbed images too, for a profile")
        return results.profile(self.trials).iloc[0]

    def figure(self) -> matplotlib.figure.Figure:
        """Accuracy by test as bars; error bars are standard deviations over trials."""
        return figures.accuracy(self.trials)

    def _parts(self) -> tuple[str, pd.DataFrame, pd.DataFrame]:
        """A title, the accuracies of all tests in words, and those over all perturbed tests."""
        table = self.table
        trials, images = table["n_trials"].max(), table["n_examples"].iloc[0]
        deviations = table["std"].where(table["n_trials"] > 1)
        tests = map(results.condition_label, table["test_perturb"], table["test_level"])
        accuracies = pd.DataFrame(
            {
                "test images": list(tests),
                "accuracy [%]": list(
                    map(results.in_percent, table["mean"], table["low"], table["high"], deviations)
                ),
            }
        )
        title = (
            f"{self.name}: mean ± standard deviation over {results.counted(trials, 'trial')} on "
            f"{results.counted(images, 'test image')} [{_IN_BRACKETS}]"
        )
        if len(table) == 1:
            return title, accuracies, pd.DataFrame()
        profile = self.profile
        over_all = {
            name: results.in_percent(profile[name], profile[f"{name}_low"], profile[f"{name}_high"])
            for name in ("natural", "mean", "worst")
        }
        over_all["worst at"] = profile["at"]
        over_all["drop"] = results.in_percent(profile["drop"])
        rows = list(over_all.items())
        return title, accuracies, pd.DataFrame(rows, columns=["over all tests", "accuracy [%]"])

    def __str__(self) -> str:
        """The tables in text."""
        title, *tables = self._parts()
        texts = [_aligned(table) for table in tables if len(table)]
        return "\n\n".join([title, *texts])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The tables as a notebook shows them."""
        title, *tables = self._parts()
        shown = [table.to_html(index=False, border=0) for table in tables if len(table)]
        return "\n".join([f"<p>{html.escape(title)}</p>", *shown])


def _aligned(table: pd.DataFrame) -> str:
    """Columns of text, each to the left."""
    widths = [max(map(len, [name, *table[name]])) for name in table]
    lines = [list(table), *table.to_numpy().tolist()]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines
    )
