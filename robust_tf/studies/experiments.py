"""The experiments whose models studies compare, as data; those of the paper are in `paper`."""

from robust_tf import models
from robust_tf.perturbations import KINDS, Perturbation, all_kinds
from robust_tf.runs.experiments import Cell, Experiment, Selection, with_all_tests
from robust_tf.training import STRATEGIES


def standardization(selection: Selection) -> list[Cell]:
    """Natural models and those of each strategy and kind, standardised in three ways.

    Each kind is trained at its own level (`Kind.train_level`); all are tested with all of the
    paper's tests. Goes beyond the paper.

    Args:
        selection: of datasets, strategies and kinds.

    Returns:
        Sixteen cells per dataset and standardisation.

    Raises:
        InvalidArgument: if a field of the selection has what is not there.
    """
    perturbing = [name for name in STRATEGIES if name != "natural"]
    selection.check("strategies", perturbing)
    selection.check("perturbs", KINDS)
    found = []
    for dataset in selection.datasets or STANDARDIZATION.datasets:
        for standardize in models.STANDARDIZATIONS:
            found.append(Cell(dataset, {"standardize": standardize}))
            found += [
                Cell(
                    dataset,
                    {
                        "standardize": standardize,
                        "strategy": strategy,
                        "perturbation": Perturbation(kind, KINDS[kind].train_level),
                    },
                )
                for strategy in perturbing
                if strategy in (selection.strategies or perturbing)
                for kind in KINDS
                if kind in (selection.perturbs or all_kinds())
            ]
    return with_all_tests(found)


STANDARDIZATION = Experiment(
    "standardization",
    standardization,
    ("mnist",),
    ("strategies", "perturbs"),
    frozenset({"strategy", "perturb", "level", "standardize"}),
)
