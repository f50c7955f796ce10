"""What all conditions of a test have in common, whatever they do."""

import math
import pickle

import numpy as np
import pytest
import tensorflow as tf

from robust_tf.data import Split
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import InBits, Natural, Recorded, condition_key, condition_label
from robust_tf.perturbations import Mixture, Perturbation, example_seeds
from robust_tf.seeds import stream_seed
from robust_tf.sensors import DefectMap, Device

RNG = np.random.default_rng(0)


def split_of(count: int) -> Split:
    images = RNG.integers(0, 256, (count, 8, 9, 3))
    return Split(tf.constant(images, tf.uint8), tf.zeros([count], tf.int64), divisor=256)


TEST, OTHER = split_of(20), split_of(7)
DEVICE = Device(DefectMap([1, 7], [3, 0], values=[1.0, 0.5]), "my camera", (8, 9, 3))
# By condition: whether random, its key and what it is called.
CONDITIONS = {
    Natural(): (False, ("none", 0.0), "natural"),
    Recorded("fog", math.nan, OTHER): (False, ("fog", 0.0), "fog"),
    Recorded("fog", 3.0, OTHER): (False, ("fog", 3.0), "fog 3"),
    Perturbation("hot", 2): (True, ("hot", 2.0), "hot 2"),
    Perturbation("noise", 0.1 + 0.2): (True, ("noise", 0.3), "noise 0.3"),
    Perturbation("blur", 0.75): (False, ("blur", 0.75), "blur 0.75"),
    Perturbation("blur", 0): (False, ("blur", 0.0), "blur 0"),
    Perturbation("blur", 0.75, True): (False, ("blur", 0.75), "blur 0.75"),
    Mixture((("hot", 1, 10), ("noise", 0.005, 0.05))): (
        True, ("hot,noise", 0.0), "hot=1:10,noise=0.005:0.05",
    ),
    InBits(Perturbation("noise", 0.05)): (True, ("8-bit noise", 0.05), "8-bit noise 0.05"),
    InBits(Perturbation("blur", 0.75), 3): (False, ("3-bit blur", 0.75), "3-bit blur 0.75"),
    InBits(Mixture((("hot", 1, 10), ("dead", 1, 10))), 8): (
        True, ("8-bit hot,dead", 0.0), "8-bit hot=1:10,dead=1:10",
    ),
    DEVICE: (False, (DEVICE.kind, 0.0), f"defects/my-camera-{DEVICE.defects.digest[:8]}"),
    InBits(DEVICE, 2): (False, (f"2-bit {DEVICE.kind}", 0.0), f"2-bit {DEVICE.kind}"),
}  # fmt: skip


def rounding(condition) -> float:
    """By how much a graph may differ: TensorFlow divides by a constant there in another way."""
    return 2.0**-23 if isinstance(condition, InBits) else 0.0


every = pytest.mark.parametrize("condition", CONDITIONS, ids=str)


@every
def test_a_condition_says_what_it_is(condition):
    random, key, text = CONDITIONS[condition]
    assert (condition.random, condition.key, str(condition)) == (random, key, text)
    assert condition_key(condition.key[0], condition.level) == key  # as of a row of trials
    assert condition.channel_blur == (condition == Perturbation("blur", 0.75, True))
    condition.check((8, 9, 3))
    assert hash(condition) == hash(condition)


@every
def test_a_condition_knows_its_images(condition):
    own = OTHER if isinstance(condition, Recorded) else TEST
    assert condition.split(TEST) is own
    assert condition.examples(len(TEST)) == len(own)
    index = tf.constant([5, 0, 3])
    images = condition.images(TEST, index, seed=4, trial=2)
    assert images.shape == (3, 8, 9, 3) and images.dtype == tf.float32
    natural = own.images.numpy()[[5, 0, 3]].astype(np.float32) / 256
    seeds = example_seeds(stream_seed(4, "evaluation/2"), index)
    np.testing.assert_array_equal(images, condition(tf.constant(natural), seeds))
    changes = not isinstance(condition, Natural | Recorded) and condition.level != 0
    assert (images.numpy() != natural).any() == changes
    # The same in a graph, whatever the batch, and in other trials where nothing is random.
    in_graph = tf.function(lambda i: condition.images(TEST, i, 4, 2), autograph=False)
    np.testing.assert_allclose(in_graph(index), images, rtol=rounding(condition))
    np.testing.assert_array_equal(condition.images(TEST, index[1:2], 4, 2), images[1:2])
    again = condition.images(TEST, index, seed=4, trial=3)
    assert (again.numpy() == images.numpy()).all() == (not condition.random)


@every
def test_a_condition_is_an_argument_of_a_traced_function(condition):
    traces = []

    @tf.function(autograph=False)
    def apply(condition, images, seeds):
        traces.append(condition)
        return condition(images, seeds)

    index = tf.range(4)
    seeds = example_seeds(np.array([1, 2], np.int32), index)
    for _ in range(2):
        images = condition.split(TEST).images_at(index)
        found, eager = apply(condition, images, seeds), condition(images, seeds)
        np.testing.assert_allclose(found, eager, rtol=rounding(condition))
    assert len(traces) == 1


@pytest.mark.parametrize("condition", [one for one in CONDITIONS if not isinstance(one, Recorded)])
def test_conditions_go_to_other_processes(condition):
    copy = pickle.loads(pickle.dumps(condition))
    assert copy == condition and hash(copy) == hash(condition) and copy.key == condition.key


def test_what_does_not_fit_is_refused():
    for condition in (Perturbation("dead", 65), Mixture((("hot", 1, 65),))):
        with pytest.raises(InvalidArgument, match="level=(1:)?65: expected .* from 1 to 64"):
            condition.check((8, 8, 1))
    with pytest.raises(InvalidArgument, match="eval=fog"):
        Recorded("fog", 1.0, OTHER).check((8, 8, 3))
    with pytest.raises(InvalidArgument, match="seed=-1"):
        Natural().images(TEST, tf.range(2), seed=-1)


@pytest.mark.parametrize(
    ("level", "expected"),
    [(None, 0.0), (math.nan, 0.0), (2, 2.0), (0.03775, 0.03775), (0.1 + 0.2, 0.3), (1e-10, 0.0)],
)
def test_levels_are_compared_in_one_way(level, expected):
    assert condition_key("noise", level) == ("noise", expected)


def test_different_levels_have_different_labels():
    levels = [0.05, 0.0500001, 0.123456789, 1, 1.5, 784, 1_000_000, 1_000_001]
    assert len({condition_label("noise", level) for level in levels}) == len(levels)
    assert condition_label("hot", 2.0) == "hot 2" and condition_label("all", math.nan) == "all"


@pytest.mark.parametrize("bits", [1, 4, 8, 10, 16])
@pytest.mark.parametrize(
    "condition", [Perturbation("noise", 0.1), Perturbation("stuck", 9), Perturbation("blur", 1)]
)
def test_images_are_rounded_to_bits(condition, bits):
    seeds = example_seeds(np.array([3, 4], np.int32), tf.range(20))
    natural = TEST.images_at(tf.range(20))
    rounded = InBits(condition, bits)(natural, seeds).numpy()
    steps = 2**bits - 1
    exact = condition(natural, seeds).numpy().astype(np.float64)
    assert np.abs(rounded - exact).max() <= 0.5 / steps + 1e-6
    np.testing.assert_allclose(rounded * steps, np.round(rounded * steps), atol=0.01)
    assert len(np.unique(rounded)) <= 2**bits


@pytest.mark.parametrize("bits", [0, 17, 2.5, True])
def test_bits_are_a_whole_number(bits):
    with pytest.raises(InvalidArgument, match=f"bits={bits}: expected a whole number from 1 to 16"):
        InBits(Perturbation("hot", 2), bits)
