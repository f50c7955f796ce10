"""Experiments: many models, each a dataset, settings and tests; and which part is asked for."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from robust_tf.errors import InvalidArgument
from robust_tf.evaluation.suites import kinds_of
from robust_tf.perturbations import KINDS, all_kinds

# Levels by kind.
Levels = tuple[tuple[str, tuple[float, ...]], ...]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One model of an experiment.

    Attributes:
        dataset: its name.
        settings: what sets it apart, as arguments of `resolve`.
        test_levels: what it is tested with besides natural images.
    """

    dataset: str
    settings: Mapping[str, Any]
    test_levels: Levels = ()


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which part of an experiment is asked for; None for all of a field.

    Attributes:
        datasets: names of datasets, which need not be the experiment's own.
        strategies: training strategies.
        perturbs: kinds of perturbation.
        levels: their levels.

    Raises:
        InvalidArgument: if a field is empty.
    """

    datasets: tuple[str, ...] | None = None
    strategies: tuple[str, ...] | None = None
    perturbs: tuple[str, ...] | None = None
    levels: tuple[float, ...] | None = None

    def __post_init__(self):
        """Refuses an empty field."""
        for field in dataclasses.fields(self):
            if getattr(self, field.name) == ():
                raise InvalidArgument(field.name, "", "at least one")

    def check(self, field: str, allowed: Iterable[Any]) -> None:
        """Raises `InvalidArgument` if a field has what is not allowed."""
        for value in getattr(self, field) or ():
            if value not in allowed:
                raise InvalidArgument(field, value, f"some of {', '.join(map(str, allowed))}")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Models that answer a question together.

    Attributes:
        name: of the experiment, and of its folder.
        cells: its models, those of a selection.
        datasets: its own datasets.
        selects: the fields of `Selection` that can be chosen.
        decides: the settings of a run that it decides itself.
    """

    name: str
    cells: Callable[[Selection], list[Cell]]
    datasets: tuple[str, ...]
    selects: tuple[str, ...] = ()
    decides: frozenset[str] = frozenset()


def with_all_tests(cells: Iterable[Cell]) -> list[Cell]:
    """The same models, tested with all kinds, not those of their own family alone."""
    return [dataclasses.replace(cell, test_levels=levels_of(all_kinds())) for cell in cells]


def levels_of(kinds: Collection[str]) -> Levels:
    """The paper's tests of some kinds."""
    return tuple((name, kind.test_levels) for name, kind in KINDS.items() if name in kinds)


def levels_of_family(kinds: Collection[str]) -> Levels:
    """The paper's tests of the families of some kinds."""
    return levels_of(kinds_of({KINDS[kind].family for kind in kinds}))
