"""Where the data of runs come from, and how much of them is used."""

import dataclasses
import functools
from typing import Annotated

from robust_tf import data as data_lib
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.runs.declaration import Run
from robust_tf.runs.presets import DATA
from robust_tf.settings import OneOf, whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """Where datasets come from and how much of them is used; as in `data.load`.

    Attributes:
        data_source: one of `data.SOURCES`.
        train_examples: number of training images, the first; None for all.
        test_examples: likewise of test images.
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
            **DATA[self.preset].get(dataset, {}),
        )

    def of(self, run: Run) -> data_lib.Data:
        """Loads the dataset of a run, from where the run has it; the last few stay in memory."""
        try:
            kind = data_lib.SOURCES[run.data_source]
            own = {} if kind is data_lib.Sample else {"data_dir": self.data_dir}
            return _kept(dataclasses.replace(self, data_source=kind(**own)), run.dataset)
        except (InvalidArgument, Unavailable) as error:
            raise (error.of("datasets") if error.argument == "dataset" else error) from error


@functools.lru_cache(maxsize=4)
def _kept(sources: Sources, dataset: str) -> data_lib.Data:
    return sources.load(dataset)
