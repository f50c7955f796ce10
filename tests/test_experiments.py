import collections

import numpy as np
import pytest
import tensorflow as tf

from robust_tf import runs
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation.suites import standard_tests
from robust_tf.paper import experiments
from robust_tf.paper.experiments import ABLATION, GRID, IMPACT
from robust_tf.perturbations import KINDS, Kind
from robust_tf.runs.experiments import Selection, with_all_tests
from robust_tf.saved_models import classifiers
from robust_tf.studies import confusions
from robust_tf.studies import experiments as of_studies
from tests.helpers import carry_out, short


def robust(cells):
    return [cell for cell in cells if "strategy" in cell.settings]


def trained_with(cell) -> tuple:
    """Strategy, kind and level of a cell."""
    perturbation = cell.settings.get("perturbation")
    level = (perturbation.kind, perturbation.level) if perturbation else (None, None)
    return cell.settings.get("strategy", "natural"), *level


def test_the_grid_has_the_papers_240_models_and_a_natural_one_a_dataset():
    cells = experiments.grid(Selection())
    assert len(robust(cells)) == 240 and len(cells) == 242
    assert len({(cell.dataset, trained_with(cell)) for cell in cells}) == len(cells)
    counts = collections.Counter((cell.dataset, *trained_with(cell)[:2]) for cell in robust(cells))
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
    by_kind = {trained_with(cell)[1]: dict(cell.test_levels) for cell in cells}
    assert by_kind["dead"] == {"stuck": (2,), "dead": (2,), "hot": (2,)}
    assert by_kind["noise"] == {"noise": (0.0255, 0.03775, 0.05)}
    assert by_kind["blur"] == {"blur": (0.5, 0.75, 1.0)}
    assert set(by_kind[None]) == {"stuck", "dead", "hot", "noise", "blur"}


def test_impact_and_ablation():
    (mnist, cifar10) = experiments.impact(Selection())
    assert (mnist.dataset, cifar10.dataset) == ("mnist", "cifar10")
    assert trained_with(mnist) == ("natural", None, None)
    assert sum(len(levels) for _, levels in mnist.test_levels) == 3 * 5 + 5 + 5
    rows = experiments.ablation(Selection())
    assert [tuple(row.settings.values()) for row in rows] == [
        (True, 0.2, "relu"), (True, 0.0, "relu"), (False, 0.2, "relu"),
        (True, 0.2, "tanh"), (False, 0.0, "relu"), (False, 0.0, "tanh"),
    ]  # fmt: skip
    assert {tuple(row.settings) for row in rows} == {("batch_norm", "dropout", "activation")}
    assert {(row.dataset, row.test_levels) for row in rows} == {("cifar10", ())}


def test_a_selection_takes_a_part():
    asked = Selection(("kmnist",), ("constant", "transfer"), ("hot", "noise"), (1, 5, 0.0255))
    cells = robust(experiments.grid(asked))
    assert [trained_with(cell) for cell in cells] == [
        (strategy, kind, level)
        for strategy in ("constant", "transfer")
        for kind, level in (("hot", 1), ("hot", 5), ("noise", 0.0255))
    ]
    (cell,) = experiments.impact(Selection(("mnist",), perturbs=("hot",), levels=(2,)))
    assert cell.test_levels == (("hot", (2,)),)


@pytest.mark.parametrize(
    ("experiment", "selection", "message"),
    [
        (
            GRID,
            {"strategies": ("natural",)},
            "strategies=natural: expected some of constant, ",
        ),
        (
            GRID,
            {"perturbs": ("rain",)},
            "perturbs=rain: expected some of stuck, dead, hot, ",
        ),
        (
            GRID,
            {"perturbs": ("hot",), "levels": (11.0,)},
            "levels=11: expected some of 1, 2, ",
        ),
        (IMPACT, {"levels": (6.0,)}, "levels=6: expected some of 0.001, "),
        (
            ABLATION,
            {"perturbs": ("hot",)},
            "perturbs=hot: expected no value with the ablation",
        ),
        (GRID, {"datasets": ()}, "datasets=: expected at least one"),
    ],
)
def test_what_is_not_there_is_refused(experiment, selection, message):
    with pytest.raises(InvalidArgument) as caught:
        experiment.cells(Selection(**selection))
    assert str(caught.value).startswith(message)


def test_figures_by_training():
    assert experiments.figure("constant", "dead") == "A.1"
    assert experiments.figure("incremental", "noise") == "B.2"
    assert experiments.figure("transfer", "blur") == "C.3"


def test_a_new_kind_is_one_entry(monkeypatch, small, exported, folders, tmp_path):
    """All that uses kinds takes one from the registry alone."""
    dim = Kind(
        family="light",
        unit="factor",
        random=False,
        whole=False,
        bounds=lambda height, width: (0, 1),
        op=lambda images, seeds, level, _: images * tf.cast(level, tf.float32),
        train_level=0.5,
        train_range=(0.4, 0.9),
        test_levels=(0.3, 0.6),
    )
    monkeypatch.setitem(KINDS, "dim", dim)
    conditions = standard_tests(("dim",))
    assert [str(condition) for condition in conditions] == ["natural", "dim 0.3", "dim 0.6"]
    for perturb, strategy in (("dim", "incremental"), ("all", "constant")):
        run = short(small, strategy=strategy, perturb=perturb, epochs=1)
        trials = carry_out(run, small, folders, conditions, trials=2)
        assert trials["test_level"].tolist()[1:] == [0.3, 0.6]
        assert (tmp_path / "saved_models" / run.name / "1" / "saved_model.pb").exists()
        runs.draw([run], small, conditions, trials, **folders)
    assert str(run.perturbation).endswith(",dim=0.4:0.9")
    cells = with_all_tests(experiments.grid(Selection(datasets=("mnist",))))
    assert dict(cells[0].test_levels)["dim"] == (0.3, 0.6)
    chosen = of_studies.standardization(Selection(perturbs=("dim",), strategies=("constant",)))
    assert [trained_with(cell)[2] for cell in chosen] == [None, 0.5] * 3
    found = confusions.measure(classifiers.load(exported), small, conditions[1:], trials=1, seed=0)
    assert set(found.changes["test_perturb"]) == {"dim"}
