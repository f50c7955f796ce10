import collections

import numpy as np
import pytest

from robust_tf import experiments
from robust_tf.errors import InvalidArgument
from robust_tf.experiments import Selection


def robust(cells):
    return [cell for cell in cells if cell.strategy != "natural"]


def test_the_grid_has_the_papers_240_models_and_a_natural_one_a_dataset():
    cells = experiments.grid(Selection())
    assert len(robust(cells)) == 240 and len(cells) == 242
    assert len(set(cells)) == len(cells)
    counts = collections.Counter(
        (cell.dataset, cell.strategy, cell.perturb) for cell in robust(cells)
    )
    assert len(counts) == 2 * 3 * 5
    for (_, _, kind), count in counts.items():
        assert count == (10 if kind in ("stuck", "dead", "hot") else 5)


def test_levels_are_those_of_the_text():
    np.testing.assert_allclose(experiments.GRID_LEVELS["noise"], np.linspace(0.001, 0.05, 5))
    np.testing.assert_allclose(experiments.GRID_LEVELS["blur"], np.linspace(0.04, 1, 5))
    np.testing.assert_allclose(experiments.IMPACT_LEVELS["noise"], np.linspace(0.001, 0.05, 5))
    np.testing.assert_allclose(experiments.IMPACT_LEVELS["blur"], np.linspace(0.4, 1, 5))
    assert experiments.IMPACT_LEVELS["dead"] == (1, 2, 3, 4, 5)


def test_each_model_is_tested_with_its_family():
    cells = experiments.grid(Selection(datasets=("mnist",)))
    by_kind = {cell.perturb: dict(cell.test_levels) for cell in cells}
    assert by_kind["dead"] == {"stuck": (2,), "dead": (2,), "hot": (2,)}
    assert by_kind["noise"] == {"noise": (0.0255, 0.03775, 0.05)}
    assert by_kind["blur"] == {"blur": (0.5, 0.75, 1.0)}
    assert set(by_kind[None]) == {"stuck", "dead", "hot", "noise", "blur"}


def test_impact_and_ablation():
    (mnist, cifar10) = experiments.impact(Selection())
    assert (mnist.dataset, cifar10.dataset, mnist.strategy) == ("mnist", "cifar10", "natural")
    assert sum(len(levels) for _, levels in mnist.test_levels) == 3 * 5 + 5 + 5
    rows = experiments.ablation(Selection())
    assert [(row.batch_norm, row.dropout, row.activation) for row in rows] == [
        (True, 0.2, "relu"), (True, 0.0, "relu"), (False, 0.2, "relu"),
        (True, 0.2, "tanh"), (False, 0.0, "relu"), (False, 0.0, "tanh"),
    ]  # fmt: skip


def test_a_selection_takes_a_part():
    asked = Selection(("kmnist",), ("constant", "transfer"), ("hot", "noise"), (1, 5, 0.0255))
    cells = robust(experiments.grid(asked))
    assert [(cell.strategy, cell.perturb, cell.level) for cell in cells] == [
        (strategy, kind, level)
        for strategy in ("constant", "transfer")
        for kind, level in (("hot", 1), ("hot", 5), ("noise", 0.0255))
    ]
    (cell,) = experiments.impact(Selection(("mnist",), perturbs=("hot",), levels=(2,)))
    assert cell.test_levels == (("hot", (2,)),)


@pytest.mark.parametrize(
    ("experiment", "selection", "message"),
    [
        ("grid", {"strategies": ("natural",)}, "strategies=natural: expected some of constant, "),
        ("grid", {"perturbs": ("rain",)}, "perturbs=rain: expected some of stuck, dead, hot, "),
        ("grid", {"perturbs": ("hot",), "levels": (11.0,)}, "levels=11: expected some of 1, 2, "),
        ("impact", {"levels": (6.0,)}, "levels=6: expected some of 0.001, "),
        ("ablation", {"perturbs": ("hot",)}, "perturbs=hot: expected no value with the ablation"),
        ("grid", {"datasets": ()}, "datasets=: expected at least one"),
    ],
)
def test_what_is_not_there_is_refused(experiment, selection, message):
    with pytest.raises(InvalidArgument) as caught:
        experiments.EXPERIMENTS[experiment](Selection(**selection))
    assert str(caught.value).startswith(message)


def test_figures_by_training():
    assert experiments.figure("constant", "dead") == "A.1"
    assert experiments.figure("incremental", "noise") == "B.2"
    assert experiments.figure("transfer", "blur") == "C.3"
