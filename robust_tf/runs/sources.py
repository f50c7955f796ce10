"""Where the data of runs come from, and how much of them is used."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Annotated

from robust_tf import data as data_lib
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.runs.declaration import Run
from robust_tf.runs.presets import DATA
from robust_tf.settings import OneOf, number, whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """Where datasets come from and how much of them is used; as in `data.load`.

    Attributes:
        data_source: one of `data.SOURCES`.
        train_examples: number of training images, the first; None for all.
        test_examples: likewise of test images.
        pictures: how picture files become images.
        memory_budget: GiB that the images may take; None for a quarter of what is free.
        preset: how the training images are presented; a name of `presets.PRESETS`.
    """

    data_source: Annotated[
        data_lib.Source,
        OneOf(
            "Where the data come from: tfds, sample (5,000 MNIST images, needs no network), or "
            "auto: tfds where it can be had.",
            data_lib.SOURCES,
        ),
    ] = data_lib.Auto()
    train_examples: Annotated[
        int | None, whole("Train on this many images, the first.", default="all")
    ] = None
    test_examples: Annotated[
        int | None, whole("Use this many test images, the first.", default="all")
    ] = None
    pictures: data_lib.Pictures = data_lib.Pictures()
    memory_budget: Annotated[
        float | None,
        number(
            "Memory for images, in GiB. Those that do not fit are prepared on disk once and read "
            "from there; results are the same.",
            above=0.0,
            noun="a number of GiB",
            default="a quarter of what is free",
        ),
    ] = None
    preset: str = "text"

    @property
    def data_dir(self) -> str | None:
        """TFDS's directory; None for its default."""
        return getattr(self.data_source, "data_dir", None)

    def load(self, dataset: str) -> data_lib.Data:
        """Loads a dataset, as it is now.

        Raises:
            InvalidArgument: as `data.load`.
            Unavailable: likewise.
        """
        return data_lib.load(
            dataset,
            data_source=self.data_source,
            train_examples=self.train_examples,
            test_examples=self.test_examples,
            pictures=self.pictures,
            memory_budget=self.memory_budget,
            **DATA[self.preset].get(dataset, {}),
        )

    def of(self, run: Run, places: Mapping[str, str] | None = None) -> data_lib.Data:
        """Loads the dataset of a run, from where the run has it; the last few stay in memory.

        Args:
            run: the run.
            places: what `load` was given, by the names that runs have for it; names of picture
                files do not say where they are.
        """
        try:
            if run.data_source not in data_lib.SOURCES:
                if not (place := (places or {}).get(run.dataset)):
                    raise Unavailable("dataset", run.dataset, "where it is, is not known here")
                return _kept(self, place)
            kind = data_lib.SOURCES[run.data_source]
            own = {} if kind is data_lib.Sample else {"data_dir": self.data_dir}
            own_source = dataclasses.replace(self, data_source=kind(**own))
            return _kept(dataclasses.replace(own_source, pictures=data_lib.Pictures()), run.dataset)
        except (InvalidArgument, Unavailable) as error:
            raise (error.of("datasets") if error.argument == "dataset" else error) from error


@functools.lru_cache(maxsize=4)
def _kept(sources: Sources, dataset: str) -> data_lib.Data:
    return sources.load(dataset)
