"""What runs and tests are called in tables and on figures.

A run is known by its name; a label is made for people from how it was trained, and says more
where several runs would have the same.
"""

from collections.abc import Sequence

import pandas as pd

from robust_tf.evaluation import condition_label
from robust_tf.saved_models import Classifier

# What labels are made of, and what they say first where more is needed; every table has these.
_LABEL = ["strategy", "train_perturb", "train_level"]
_FIRST = ["dataset", "data_source", "model", "seed"]
# What they say next, from a table of runs; and what speaks for itself in them.
_SECOND = ["standardize", "train_range", "preset"]
_SELF_EVIDENT = ("dataset", "model", "train_range")
# Columns of tables of runs that are no settings, but were found or are where it was done.
_NO_SETTINGS = {
    "run", "tests", "trials", "train_accuracy", "natural_accuracy", "seconds",
    "images_per_second", "threads", "devices", "machine", "saved_model",
    "tensorflow_version", "keras_version", "robust_tf_version",
}  # fmt: skip


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 model", "1,200 models"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def training_label(strategy: str, perturb: str, level: float) -> str:
    """A training in words: "natural" or, say, "constant hot 6"."""
    return strategy if perturb == "none" else f"{strategy} {condition_label(perturb, level)}"


def labels(
    table: pd.DataFrame, runs: pd.DataFrame | None = None, but: Sequence[str] = ()
) -> pd.Series:
    """What to call runs: their training, and whatever else tells them apart.

    Args:
        table: of runs or of trials; has `results.TRAINING_COLUMNS`.
        runs: the table of runs, for more settings than these; may be the same. Where one is
            missing, as in runs of earlier versions, it is no difference.
        but: settings that tell nothing apart here: with "seed", runs that differ in no other
            setting have one label.

    Returns:
        Unique texts by run, in order of `table`: "constant all"; of two such runs
        "constant all, standardize pixel" and "constant all, standardize global". Runs that
        differ in no setting known here get the end of their names, a digest of all settings.
    """
    settings = table.drop_duplicates("run").set_index("run")[_LABEL + _FIRST]
    columns = list(_FIRST)
    if runs is not None:
        more = [name for name in runs if name not in {*_LABEL, *_FIRST, *_NO_SETTINGS}]
        settings = settings.join(runs.drop_duplicates("run").set_index("run")[more])
        columns += [name for name in _SECOND if name in more]
        columns += [name for name in more if name not in _SECOND]
    trainings = settings[_LABEL].itertuples(index=False)
    label = pd.Series([training_label(*row) for row in trainings], settings.index, dtype=object)
    for column in (name for name in columns if name not in but):
        alike = label[label.duplicated(keep=False)]
        for _, group in alike.groupby(alike, sort=False):
            texts = settings.loc[group.index, column].map(_text)
            if len(set(texts) - {""}) > 1:
                label[group.index] = group + _differences(texts)
    others = settings[[name for name in but if name in settings]]
    for name in (lambda run: run.rpartition("-")[2], str):
        alike = label[others.assign(label=label).duplicated(keep=False)]
        label[alike.index] = alike + ", " + alike.index.map(name)
    return label


def _differences(texts: pd.Series) -> pd.Series:
    """What to add for the values of a setting, without the parts that all have."""
    parts = texts.str.split(",")
    common = set.intersection(*map(set, parts))
    name = "" if texts.name in _SELF_EVIDENT else f"{texts.name} "
    differing = parts.map(lambda own: ",".join(part for part in own if part not in common))
    return (", " + name + differing).where(differing != "", "")


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:g}"
    return "" if value is None else str(value)


def with_labels(
    table: pd.DataFrame, runs: pd.DataFrame | None = None, but: Sequence[str] = ()
) -> pd.DataFrame:
    """Adds the columns `training` and `test`, runs and test conditions in words.

    Args:
        table: has the columns of training and test.
        runs: as in `labels`.
        but: as in `labels`.

    Returns:
        The table with them. A run that had the same test on several sets of images, which
        `n_examples` and `test_digest` tell apart, has another label for each set.
    """
    tests = zip(table["test_perturb"], table["test_level"])
    table = table.assign(
        training=table["run"].map(labels(table, runs, but)),
        test=[condition_label(*test) for test in tests],
    )
    if "n_examples" in table:
        digests = table.get("test_digest", pd.Series("", table.index)).fillna("")
        sets = [f", {size:,} images {digest}" for size, digest in zip(table["n_examples"], digests)]
        of_test = pd.Series(sets, table.index).groupby([table["run"], table["test"]])
        several = table["run"].isin(table["run"][of_test.transform("nunique") > 1])
        table["training"] += pd.Series(sets, table.index).where(several, "")
    return table


def model_names(models: Sequence[Classifier]) -> list[str]:
    """The names of saved models, or their paths where two have one name."""
    short = [model.name for model in models]
    return short if len(set(short)) == len(short) else [str(model.path) for model in models]


def training_of(model: Classifier) -> str:
    """How a model was trained, in words: "constant hot 6"; "external" for a third-party model.

    With a correction of defective pixels inside: "constant hot 6 + median".
    """
    training = model.metadata.get("training", {})
    label = training_label(
        training.get("strategy", "external"),
        training.get("train_perturb", "none"),
        training.get("train_level"),
    )
    return f"{label} + {training['correction']}" if "correction" in training else label
