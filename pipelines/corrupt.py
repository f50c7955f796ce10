"""Writes the perturbed test images of a dataset to files, for other programs.

They are what a trial of the tests sees, as bytes. pipelines.evaluate and the others test models
with them by --eval=npy:FOLDER, --eval=png:FOLDER, or --eval=tfds:NAME with --data_dir.

Example:
  python -m pipelines.corrupt --dataset=mnist --kinds=hot,noise --output_dir=mnist-perturbed
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated

from pipelines import app, flags
from pipelines.shared_flags import TEST_DATA, Dataset, DryRun, some
from robust_tf import results, settings
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation.names import FORMATS
from robust_tf.perturbations import KINDS, Perturbation, all_kinds
from robust_tf.runs.declaration import Run
from robust_tf.runs.sources import Sources
from robust_tf.settings import Setting, choice, names, whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corruptions:
    """What is written, and where."""

    kinds: Annotated[
        tuple[str, ...], names("The kinds of perturbation.", ("all", *KINDS), default="all")
    ] = ("all",)
    levels: Annotated[
        str | None,
        Setting(
            "The levels: of all kinds, 1,2,5; or of each, hot=1,2,noise=0.05,0.1.",
            default="those of the paper's tests",
        ),
    ] = None
    trial: Annotated[int, whole("The random draw: that of this trial of the tests.", 0)] = 0
    format: Annotated[
        str,
        choice(
            "npy: a file per kind, and labels.npy, as CIFAR-10-C has them; png: folders "
            "kind/level/class; tfds: a dataset of TFDS with a configuration per kind and level.",
            FORMATS,
        ),
    ] = "npy"
    output_dir: Annotated[
        str | None,
        Setting(
            "The folder, which must be new; with --format=tfds a data directory of TFDS.",
            expected="a folder on this machine",
            allows=lambda value: bool(value.strip()) and "://" not in value,
        ),
    ] = None

    def conditions(self, channel_blur: bool) -> list[Perturbation]:
        """The perturbations, in order of their kinds.

        Raises:
            InvalidArgument: if a level is none.
        """
        asked = {*self.kinds, *(all_kinds() if "all" in self.kinds else ())}
        kinds = [kind for kind in KINDS if kind in asked]
        levels: dict[str, list[float]] = {kind: [] for kind in kinds}
        chosen = kinds
        for part in (self.levels or "").split(",") if self.levels is not None else ():
            name, mark, text = part.rpartition("=")
            if mark and name not in kinds:
                raise InvalidArgument("levels", self.levels, f"levels of {', '.join(kinds)}")
            chosen = [name] if mark else chosen
            try:
                level = float(text)
            except ValueError:
                level = math.nan
            if not math.isfinite(level):
                raise InvalidArgument("levels", self.levels, "numbers such as 1,2 or hot=1,2")
            for kind in chosen:
                levels[kind].append(level)
        try:
            return [
                Perturbation(kind, level, channel_blur and kind == "blur")
                for kind, own in levels.items()
                for level in dict.fromkeys(own or KINDS[kind].test_levels)
            ]
        except InvalidArgument as error:
            raise error.of("levels") from None


def check(values: flags.Values) -> None:
    """Checks the levels, and that there is a place."""
    asked = settings.make(Corruptions, values.given)
    asked.conditions(values.channel_blur)
    if asked.output_dir is None:
        raise InvalidArgument("output_dir", None, "a new folder")


def main(values: flags.Values) -> None:
    """Writes the images as the flags say."""
    import tensorflow_datasets as tfds

    from robust_tf.evaluation import recordings

    asked = settings.make(Corruptions, values.given)
    conditions = asked.conditions(values.channel_blur)
    dataset = app.sources(values).load(values.dataset)
    for condition in conditions:
        try:
            condition.check(dataset.image_shape)
        except InvalidArgument as error:
            raise error.of("levels") from None
    tfds.disable_progress_bar()  # beside ours
    place = recordings.place_of(dataset, asked.output_dir, asked.format)
    recordings.check_new(place)
    size = len(dataset.test) * math.prod(dataset.image_shape)
    if values.dry_run:
        for condition in conditions:
            print(f"{str(condition):12} {len(dataset.test):,} images, {size:,} bytes")
    else:
        written = {"form": asked.format, "seed": values.seed, "trial": asked.trial}
        recordings.write(dataset, conditions, asked.output_dir, **written)
    total = f"{size * len(conditions):,} bytes{' before compression' * (asked.format != 'npy')}"
    print(f"{results.counted(len(conditions), 'test')} of {app.images_of(dataset)}, {total}")
    print(f"{'would be written to' if values.dry_run else 'written to'} {place}")
    if asked.format != "tfds":
        print(f"--eval={asked.format}:{place} tests with them")
    else:
        name = f"{place.name}/{conditions[0].kind}_{conditions[0].level:.12g}"
        print(f"--data_dir={asked.output_dir} --eval=tfds:{name} tests with the first of them")


def cli(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    what = ["kinds", "levels", "trial"]
    groups = {
        "What is written": [*some(Corruptions, what), *some(Run, ["channel_blur", "seed"])],
        "Data": [
            *some(Dataset, dataset="mnist"),
            *some(Sources, TEST_DATA),
        ],
        "Outputs": [*some(Corruptions, ["format", "output_dir"]), *some(DryRun)],
    }
    app.launch(main, groups, argv, check=check)


if __name__ == "__main__":
    cli()
