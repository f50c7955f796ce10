"""Searches all pairs of defective pixels for one that makes an image another class.

Example:
  python -m pipelines.pairs --model=saved_models/<run> --defect=hot --test_examples=100
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Annotated

from pipelines import app, flags
from pipelines.shared_flags import TEST_DATA, Dataset, Model, Outputs, some
from robust_tf import evaluation, results, settings
from robust_tf.runs.sources import Sources
from robust_tf.sensors import defect_value
from robust_tf.settings import Setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Defect:
    """What is searched for."""

    defect: Annotated[
        str, Setting("What both pixels show: hot (1), dead (0), or a value from 0 to 1.")
    ] = "hot"


def check(values: flags.Values) -> None:
    """Checks the defect."""
    defect_value(values.defect)
    settings.make(Model, values.given).check()


def main(values: flags.Values) -> None:
    """Searches the pairs and writes what is found."""
    from robust_tf.studies import pairs

    classifier = settings.make(Model, values.given).load()
    dataset = app.load_data(values, classifier)
    begin = time.monotonic()
    with app.local(settings.make(Outputs, values.given)) as folders:
        folder, table, summary = pairs.write(classifier, dataset, values.defect, **folders)
    seconds = (time.monotonic() - begin) / len(table)
    found = summary.iloc[0]
    print(app.heading(f"Pairs of {values.defect} pixels, {app.images_of(dataset)}, in percent"))
    print("[95 % interval for other test images]\n")
    count = results.counted(found["n_examples"], "image")
    lines = {
        f"some pixel makes {count} another class": ("flipped_by_one", len(table)),
        "some pair the others": ("flipped_by_two", found["searched"]),
        "one of both": ("flipped_by_one_or_two", len(table)),
    }
    for what, (column, examples) in lines.items():
        share = found[column]
        text = "none to search"
        if examples:
            text = results.in_percent(share, *evaluation.measures.interval(share, examples))
        print(f"{what:45} {text}")
    if found["searched"]:
        some_pairs = f"{found['classified']:,.0f} of {table['pairs'].max():,} pairs"
        print(
            f"\n{some_pairs} per searched image went through the model, {seconds:.2f} s per image"
        )
    print(f"\nimages  {values.output_dir}/{folder.name}/images.csv")


def cli(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    groups = {
        "What is searched": [*some(Model), *some(Defect)],
        "Data": [*some(Dataset), *some(Sources, TEST_DATA)],
        "Outputs": some(Outputs),
    }
    app.launch(main, groups, argv, check=check)


if __name__ == "__main__":
    cli()
