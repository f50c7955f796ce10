"""The paper's results beside ours as a page and as Markdown, from the tables alone."""

import dataclasses
import os
from pathlib import Path

import pandas as pd

from robust_tf import results
from robust_tf.errors import Unavailable
from robust_tf.evaluation.suites import TRIALS
from robust_tf.files import replacing, writing_to
from robust_tf.paper import claims, figures, numbers
from robust_tf.results.pages import Section, markdown, page
from robust_tf.training.recipes import RECIPES, TRANSFER

_OF_PAPER = ("impact", "ablation", "grid")
_TITLE = "Strategies for Robust Image Classification: the published results and ours"
_SOURCE = (
    "Published: T. E. Cavey, A. A. Dolan and J. D. Stock, Strategies for Robust Image "
    "Classification, 2020, arXiv 2004.03452."
)
# What the published experiments used, to say where ours used less.
_FULL = {"mnist": 50_000, "cifar10": 50_000}
_FULL_TEST = 10_000


def write(output_dir: str | os.PathLike, reference: bool = True) -> tuple[Path, Path]:
    """Gathers the experiments' tables, draws their figures and writes the report.

    Args:
        output_dir: where the folders of the experiments are, finished or not.
        reference: draw the published numbers in the figures too.

    Returns:
        `report.html` and `report.md` in `output_dir`.

    Raises:
        Unavailable: if there is no experiment, or the directory cannot be written.
    """
    output_dir = Path(output_dir)
    names = [name for name in _OF_PAPER if (output_dir / name).is_dir()]
    names = [name for name in names if (output_dir / name / "models.csv").is_file()]
    if not names:
        expected = "expected results of pipelines.impact, pipelines.grid or pipelines.ablation"
        raise Unavailable("output_dir", output_dir, expected)
    drawn: dict[str, dict[str, Path]] = {}
    with writing_to("output_dir", output_dir):
        for name in names:
            results.gather(output_dir, name)
            drawn[name] = figures.draw(name, output_dir, reference)
    sections = _sections(output_dir, drawn)
    texts = {"html": page(_TITLE, sections), "md": markdown(_TITLE, sections)}
    paths = {ending: output_dir / f"report.{ending}" for ending in texts}
    with writing_to("output_dir", output_dir):
        for ending, path in paths.items():
            with replacing(path) as temporary:
                temporary.write_text(texts[ending], encoding="utf-8")
    return paths["html"], paths["md"]


def _sections(output_dir: Path, drawn: dict[str, dict[str, Path]]) -> list[Section]:
    points = numbers.points(output_dir)
    published = numbers.published_points()
    compared = numbers.compare(points, published, numbers.POINT_COLUMNS)
    agreement = numbers.agreement(compared)
    agreement = agreement[agreement["n_ours"] > 0]
    models = {name: results.read_experiment(output_dir, name, "models") for name in drawn}
    runs = {name: results.read_experiment(output_dir, name, "runs") for name in drawn}
    both = claims.check(claims.Accuracies(points)).assign(
        published=claims.check(claims.Accuracies(published))["verdict"]
    )
    by_seed = [claims.Accuracies(one) for one in numbers.points_by_seed(output_dir).values()]
    several = len(by_seed) > 1
    if several:
        both["seeds"] = claims.agreeing(both["verdict"], by_seed)
    sections = [
        Section(notes=(_SOURCE, *_summary(models, output_dir, agreement, len(published), both))),
        *_missing(models, output_dir),
        Section(
            "Agreement by figure",
            (
                "Absolute differences of accuracies, in points; rank correlation "
                "(Spearman's) of a figure's conditions: 1 where ours are in the same order.",
                *[
                    "Inside: published numbers that lie in the 95 % prediction interval of one "
                    "more seed, of those with several of our seeds."
                ]
                * several,
            ),
            _agreement_table(agreement, several),
        ),
        *_outside(compared),
    ]
    sections += _figures(drawn, agreement)
    if "ablation" in drawn:
        sections.append(_ablation(output_dir, drawn["ablation"].get("table-I")))
    sections += [
        Section(
            "Best and worst of each strategy and kind",
            (
                "Highest and lowest accuracy on perturbed test images, in percent, with the "
                "level of training in brackets; natural: range over the levels (section VII).",
            ),
            _extremes(points, published),
        ),
        Section(
            "What the paper says",
            (
                "Its sentences in our words, checked in its own published figures and in "
                "our results; the numbers are ours.",
                *["Means over the seeds; seeds: how many of those that can tell say the same."]
                * several,
            ),
            both.rename(columns={"text": "sentence", "verdict": "ours", "evidence": "our numbers"})[
                ["section", "sentence", "published", "ours", *["seeds"] * several, "our numbers"]
            ],
        ),
        Section("Configuration", (_cost(runs),), _configuration(runs)),
        *_numbers(compared),
    ]
    return sections


def _done(models: pd.DataFrame, trials: pd.DataFrame) -> pd.Series:
    """Which models of an experiment have a trial of each of their tests."""
    if not len(trials):
        return pd.Series(False, index=models.index)
    tests = trials.groupby("run")[["test_perturb", "test_level"]].apply(
        lambda rows: len(rows.drop_duplicates())
    )
    asked = models["tests"].str.split(";").str.len()
    return models["run"].map(tests).fillna(0) >= asked


def _summary(
    models: dict[str, pd.DataFrame],
    output_dir: Path,
    agreement: pd.DataFrame,
    published: int,
    both: pd.DataFrame,
) -> list[str]:
    lines = []
    for name, table in models.items():
        done = _done(table, results.read_experiment(output_dir, name, "trials")).sum()
        datasets = ", ".join(table["dataset"].unique())
        of_all = f"{done} of {results.counted(len(table), 'model')} ({datasets})"
        lines.append(f"{name}: {of_all} {'is' if len(table) == 1 else 'are'} trained and tested.")
    if len(agreement):
        weights = agreement["n_ours"]
        mean = (agreement["mean_difference"] * weights).sum() / weights.sum()
        lines.append(
            f"{weights.sum()} of {published:,} published numbers "
            f"{'has' if weights.sum() == 1 else 'have'} one of ours beside them; "
            f"they differ by {100 * mean:.2f} points on average."
        )
        several, inside = agreement["n_several"].sum(), agreement["n_inside"].sum()
        if several:
            lines.append(
                f"Of {several:,} published numbers with several of our seeds beside them, "
                f"{inside:,} ({inside / several:.1%}) lie inside the 95 % prediction interval of "
                "one more seed."
            )
    told = both[both["verdict"] != "cannot be told"]
    holding = (told["verdict"] == "holds").sum()
    theirs = (told["published"] == "holds").sum()
    lines.append(
        f"Of the {results.counted(len(told), 'sentence')} of the paper that our results can tell, "
        f"{holding} hold; in the published figures {theirs} of them do."
    )
    return lines


def _missing(models: dict[str, pd.DataFrame], output_dir: Path) -> list[Section]:
    """What makes ours less than the published experiments; nothing if nothing does."""
    notes = []
    for name, table in models.items():
        undone = table[~_done(table, results.read_experiment(output_dir, name, "trials"))]
        if len(undone):
            labels = [
                f"{row.dataset} "
                f"{results.training_label(row.strategy, row.train_perturb, row.train_level)}"
                for row in undone.head(10).itertuples()
            ]
            more = f" and {len(undone) - 10} more" if len(undone) > 10 else ""
            notes.append(f"{name}, not done yet: {', '.join(labels)}{more}.")
        for dataset, group in table.groupby("dataset", sort=False):
            reduced = _reduced(str(dataset), group)
            if reduced:
                notes.append(f"{name}, {dataset}: {'; '.join(reduced)}. Not a full reproduction.")
    return [Section("What is less than in the paper", tuple(notes), warning=True)] if notes else []


def _reduced(dataset: str, models: pd.DataFrame) -> list[str]:
    found = []
    if (models["data_source"] == "sample").any():
        found.append("a sample of the dataset")
    fewest = models["train_examples"].min()
    if fewest < _FULL.get(dataset, 0):
        found.append(f"{results.counted(fewest, 'training image')} of {_FULL[dataset]:,}")
    if dataset in _FULL and models["test_examples"].min() < _FULL_TEST:
        fewest = results.counted(models["test_examples"].min(), "test image")
        found.append(f"{fewest} of {_FULL_TEST:,}")
    if (models["model"] == "compact").any():
        found.append("the network compact, which is not the paper's")
    for transfer, group in models.groupby(models["strategy"] == "transfer"):
        table = TRANSFER if transfer else RECIPES
        full = [table[model]["epochs"] if model in table else 0 for model in group["model"]]
        if (group["epochs"] < full).any():
            what = "transfer" if transfer else "training"
            fewest = results.counted(group["epochs"].min(), "epoch")
            found.append(f"{fewest} of {what} instead of {max(full)}")
    if models["trials"].min() < TRIALS:
        fewest = results.counted(models["trials"].min(), "trial")
        found.append(f"{fewest} instead of {TRIALS}")
    return found


def _agreement_table(agreement: pd.DataFrame, several: bool) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "figure": agreement["figure"],
            "dataset": agreement["dataset"],
            "numbers": [
                f"{a} of {b}" for a, b in zip(agreement["n_ours"], agreement["n_published"])
            ],
            "mean difference": agreement["mean_difference"].map(_percent),
            "largest difference": agreement["largest_difference"].map(_signed),
            "rank correlation": agreement["rank_correlation"].map(_number),
        }
    )
    if several:
        table["inside"] = [
            f"{inside} of {count}" if count else ""
            for inside, count in zip(agreement["n_inside"], agreement["n_several"])
        ]
    return table


def _outside(compared: pd.DataFrame) -> list[Section]:
    """The published numbers outside the prediction intervals; nothing if there are none."""
    outside = compared[compared["inside"] == False]  # noqa: E712
    if not len(outside):
        return []
    beyond = (outside["mean_published"] - outside["mean"]).abs()
    return [
        Section(
            "Published numbers outside the spread of ours",
            (
                "Mean and standard deviation over our seeds, and the 95 % prediction interval of "
                "one more, in percent.",
            ),
            _table_of(outside.loc[beyond.sort_values(ascending=False).index]),
            folded=True,
        )
    ]


def _table_of(compared: pd.DataFrame) -> pd.DataFrame:
    """Published numbers beside ours, to read."""
    tests = zip(compared["test_perturb"], compared["test_level"])
    trainings = zip(compared["strategy"], compared["train_perturb"], compared["train_level"])
    table = pd.DataFrame(
        {
            "training": [results.training_label(*row) for row in trainings],
            "test": [results.condition_label(*row) for row in tests],
            "published": _with_deviation(compared["mean_published"], compared["std_published"]),
            "ours": _with_deviation(compared["mean"], compared["std"]),
            "difference": (compared["mean"] - compared["mean_published"]).map(_signed).to_numpy(),
        }
    )
    if len(compared[["figure", "dataset"]].drop_duplicates()) > 1:
        table.insert(0, "figure", compared["figure"].to_numpy())
        table.insert(1, "dataset", compared["dataset"].to_numpy())
    if (compared["n_seeds"] > 1).any():
        ends = zip(compared["n_seeds"], compared["low"], compared["high"])
        table["seeds"] = compared["n_seeds"].map("{:g}".format).to_numpy()
        table["one more seed"] = [
            f"{_percent(low)} to {_percent(high)}" if n > 1 else "" for n, low, high in ends
        ]
        table["inside"] = compared["inside"].map({True: "yes", False: "no"}).fillna("").to_numpy()
    return table


def _figures(drawn: dict[str, dict[str, Path]], agreement: pd.DataFrame) -> list[Section]:
    sections = []
    for name in drawn:
        if name == "ablation":
            continue
        for key, figure in drawn[name].items():
            number = key.removeprefix("figure-")
            lines = [
                f"{row.dataset}: mean difference {_percent(row.mean_difference)}, largest "
                f"{_signed(row.largest_difference)}, rank correlation "
                f"{_number(row.rank_correlation)}"
                for row in agreement[agreement["figure"] == number].itertuples()
            ]
            caption = ". ".join([f"Figure {number.replace('-', ', ')}", "; ".join(lines)])
            caption = caption.rstrip(". ") + "."
            sections.append(Section(figure=figure, caption=caption))
    if sections:
        sections[0] = dataclasses.replace(sections[0], title="Figures")
    return sections


def _ablation(output_dir: Path, figure: Path | None) -> Section:
    ours, published = numbers.ablation(output_dir), numbers.published_ablation()
    keys = numbers.ABLATION_COLUMNS
    table = ours.merge(published, on=keys, how="left", suffixes=("", "_published"))
    shown = pd.DataFrame(
        {
            "dataset": table["dataset"],
            "batch norm": table["batch_norm"].map({True: "yes", False: "no"}),
            "dropout": table["dropout"].map("{:g}".format),
            "activation": table["activation"],
        }
    )
    for column in ("train_accuracy", "test_accuracy"):
        what = column.replace("_", " ")
        shown[f"{what}, published"] = table[f"{column}_published"].map(_percent)
        shown[f"{what}, ours"] = table[column].map(_percent)
        shown[f"{what}, difference"] = (table[column] - table[f"{column}_published"]).map(_signed)
    note = "Training accuracy is that of the last epoch, while it was trained."
    return Section("Table I", (note,), shown, figure, "Table I.")


def _extremes(points: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    keys = ["dataset", "strategy", "train_perturb"]
    ours, theirs = numbers.extremes(points), numbers.extremes(published)
    if not len(ours):
        return pd.DataFrame(columns=keys)
    table = ours.merge(theirs, on=keys, how="left", suffixes=("", "_published"))
    shown = table[keys].rename(columns={"train_perturb": "kind"})
    for what in ("best", "worst"):
        for suffix, whose in (("_published", "published"), ("", "ours")):
            pairs = zip(table[what + suffix], table[f"{what}_level{suffix}"])
            shown[f"{what}, {whose}"] = [
                f"{_percent(value)} ({level:g})" if value == value else "" for value, level in pairs
            ]
    for suffix, whose in (("_published", "published"), ("", "ours")):
        pairs = zip(table[f"natural_low{suffix}"], table[f"natural_high{suffix}"])
        shown[f"natural, {whose}"] = [
            f"{_percent(low)} to {_percent(high)}" if low == low else "" for low, high in pairs
        ]
    return shown


def _cost(runs: dict[str, pd.DataFrame]) -> str:
    tables = [table for table in runs.values() if len(table)]
    if not tables:
        return "No model is trained yet."
    table = pd.concat(tables, ignore_index=True).drop_duplicates("run")
    machines = ", ".join(table["machine"].astype(str).unique())
    versions = "; ".join(
        f"{name} {', '.join(table[f'{column}_version'].astype(str).unique())}"
        for name, column in (
            ("TensorFlow", "tensorflow"),
            ("Keras", "keras"),
            ("robust_tf", "robust_tf"),
        )
    )
    return (
        f"{results.counted(len(table), 'model')} {'was' if len(table) == 1 else 'were'} trained in "
        f"{table['seconds'].sum():,.0f} seconds of training, "
        f"on {machines}; {versions}."
    )


def _configuration(runs: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Settings by dataset and strategy, whatever differs within them joined."""
    tables = [table for table in runs.values() if len(table)]
    if not tables:
        return pd.DataFrame(columns=["dataset", "strategy"])
    table = pd.concat(tables, ignore_index=True).drop_duplicates("run")
    columns = [
        "preset", "data_source", "train_examples", "test_examples", "model", "epochs",
        "batch_size", "learning_rate", "beta_1", "standardize", "shuffle", "channel_blur",
        "ramp_start", "ramp_end", "seed", "threads",
    ]  # fmt: skip
    rows = []
    for (dataset, strategy), group in table.groupby(["dataset", "strategy"], sort=False):
        row = {"dataset": dataset, "strategy": strategy, "models": str(len(group))}
        for column in columns:
            row[column] = ", ".join(f"{v:g}" if isinstance(v, float) else str(v)
                                    for v in group[column].dropna().unique())  # fmt: skip
        row["seconds per model"] = f"{group['seconds'].mean():.1f}"
        rows.append(row)
    return pd.DataFrame(rows)


def _numbers(compared: pd.DataFrame) -> list[Section]:
    """Every published number that has one of ours beside it."""
    sections = []
    compared = compared.dropna(subset=["mean"])
    for (figure, dataset), group in compared.groupby(["figure", "dataset"], sort=False):
        title = f"Figure {figure}, {dataset}: every number"
        sections.append(Section(title, (), _table_of(group), folded=True))
    if sections:
        note = (
            "Accuracies in percent, ± standard deviation: the published ones over trials, ours "
            "over seeds where there are several; differences in points."
        )
        sections.insert(0, Section("All numbers", (note,)))
    return sections


def _with_deviation(means: pd.Series, deviations: pd.Series) -> list[str]:
    return [
        _percent(mean) + (f" ± {_percent(deviation)}" if deviation > 0 else "")
        for mean, deviation in zip(means, deviations)
    ]


def _percent(value: float) -> str:
    return "" if value != value else f"{100 * value:.2f}"


def _signed(value: float) -> str:
    return "" if value != value else f"{100 * value:+.2f}"


def _number(value: float) -> str:
    return "" if value != value else f"{value:.2f}"
