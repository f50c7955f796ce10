"""The paper's network for CIFAR-10 on a few of its images: all that is done with MNIST's."""

import re

import pytest

from robust_tf import data, results, runs
from robust_tf.evaluation.suites import standard_tests
from robust_tf.paper.experiments import ABLATION
from robust_tf.perturbations import all_kinds
from robust_tf.runs.experiments import Selection
from robust_tf.runs.tasks import plan
from robust_tf.training import STRATEGIES
from tests.helpers import carry_out

pytestmark = pytest.mark.full_data


@pytest.fixture(scope="module")
def few():
    """The first images of CIFAR-10."""
    return data.load("cifar10", train_examples=100, test_examples=50)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Where its runs go, so that the natural one is trained once."""
    place = tmp_path_factory.mktemp("cifar10")
    return {"output_dir": place / "results", "saved_models_dir": place / "saved_models"}


# A kind of each family, with one strategy each; a model takes ten seconds.
@pytest.mark.parametrize(
    ("strategy", "kind"),
    zip(STRATEGIES, (None, "hot", "noise", "blur"), strict=True),
)
def test_the_papers_cifar10_network_with_each_strategy(few, folders, strategy, kind):
    given = {"perturb": kind} if kind else {}
    run = runs.resolve(few, strategy=strategy, epochs=1, batch_size=50, **given)
    assert run.columns()["model"] == "cifar10_cnn"
    conditions = standard_tests((kind,) if kind else all_kinds())
    trials = carry_out(run, few, folders, conditions, trials=1)
    assert len(trials) == len(conditions)
    assert trials["accuracy"].between(0, 1).all()
    table = results.read(folders["output_dir"], "runs")
    trained = table[table["strategy"] == strategy]["train_perturb"]
    assert list(trained) == [kind or "none"]


def test_table_1_on_cifar10(few, folders):
    cells = ABLATION.cells(Selection())
    given = {"epochs": 1, "batch_size": 50}
    tasks = plan(cells, given, {"cifar10": few})
    assert len({task.run.name for task in tasks}) == len(tasks) == 6
    for task in (tasks[0], tasks[-1]):  # with all and with nothing
        trials = carry_out(task.run, few, folders, task.conditions, trials=1)
        assert trials["accuracy"].between(0, 1).all() and len(trials) == 1  # natural images
    layers = set()
    for cell, task in zip(cells, tasks):
        model = task.run.build_model(few)
        kinds = {type(layer).__name__ for layer in model.layers}
        assert ("BatchNormalization" in kinds) == cell.settings["batch_norm"]
        rates = {layer.rate for layer in model.layers if type(layer).__name__ == "Dropout"}
        assert rates == ({cell.settings["dropout"]} - {0.0})
        activations = {
            layer.activation.__name__
            for layer in model.layers
            if re.match(r"activation_\d", layer.name)
        }
        assert activations == {cell.settings["activation"]}
        layers.add(tuple(layer.name for layer in model.layers))
    assert len(layers) == 4  # tanh and relu have the same
