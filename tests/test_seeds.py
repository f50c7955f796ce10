import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_tf import seeds as seeds_lib
from robust_tf import xla
from robust_tf.errors import InvalidArgument

words = st.integers(-(2**31), 2**31 - 1)


@settings(max_examples=25, deadline=None)
@given(pair=st.tuples(words, words), count=st.integers(1, 23), draw=st.sampled_from([0, 1, 7]))
def test_bits_are_those_of_tensorflows_own_philox_kernel(pair, count, draw):
    seeds = tf.constant([[1, 2], pair], tf.int32)
    ours = seeds_lib.random_bits(seeds, count, draw)
    theirs = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[-(-count // 4) * 4],
        key=tf.bitcast(seeds[1], tf.uint64)[tf.newaxis],
        counter=tf.constant([draw << 32, 0], tf.uint64),
        alg=1,
        dtype=tf.uint32,
    )
    np.testing.assert_array_equal(ours[1], theirs[:count])


def test_known_answer_of_the_reference_implementation():
    # Random123's kat_vectors: philox4x32-10 with counter and key of zeros.
    expected = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert seeds_lib.random_bits([[0, 0]], 4).numpy()[0].tolist() == expected


def normals(seeds: tf.Tensor, draw: int = 0) -> np.ndarray:
    """100 numbers a seed."""
    return np.stack(seeds_lib.normals(seeds, tf.range(25), draw), axis=-1).reshape(-1, 100)


def test_normals_are_box_and_mullers_of_the_bits():
    seeds = many_seeds(50)
    bits = seeds_lib.random_bits(seeds, 100).numpy().astype(np.float64)
    radius = np.sqrt(-2.0 * np.log((bits[:, ::2] + 1.0) / 2.0**32))
    angle = 2.0 * np.pi * bits[:, 1::2] / 2.0**32
    found = normals(seeds)
    np.testing.assert_allclose(found[:, ::2], radius * np.cos(angle), atol=1e-5)
    np.testing.assert_allclose(found[:, 1::2], radius * np.sin(angle), atol=1e-5)


def many_seeds(count: int = 2000) -> tf.Tensor:
    return seeds_lib.fold_in(seeds_lib.stream_seed(0, "test"), tf.range(count))


def test_uniform_is_uniform_over_examples_and_elements():
    values = seeds_lib.uniform(many_seeds(), 101).numpy()
    assert values.dtype == np.float32
    assert values.min() >= 0.0 and values.max() < 1.0
    assert scipy.stats.kstest(values.ravel(), "uniform").pvalue > 1e-3
    assert scipy.stats.kstest(values[:, 50], "uniform").pvalue > 1e-3


def test_normal_is_standard_normal_over_examples_and_elements():
    values = normals(many_seeds())
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert scipy.stats.kstest(values.ravel(), "norm").pvalue > 1e-3
    assert scipy.stats.kstest(values[7], "norm").pvalue > 1e-3
    assert abs(scipy.stats.kurtosis(values.ravel())) < 0.05


def test_neighbouring_examples_elements_seeds_trials_and_draws_are_independent():
    base = seeds_lib.stream_seed(0, "evaluation/0")
    a = normals(seeds_lib.fold_in(base, tf.range(2000)))
    others = {
        "next example": np.roll(a, 1, axis=0),
        "next element": np.roll(a, 1, axis=1),
        "next trial": of_stream("evaluation/1", 0),
        "next seed": of_stream("evaluation/0", 1),
        "other draw": normals(seeds_lib.fold_in(base, tf.range(2000)), draw=1),
    }
    limit = 4.5 / np.sqrt(a.size)  # 4.5 standard errors of a correlation of 0
    for name, b in others.items():
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < limit, name
        assert abs(np.corrcoef(a.ravel() ** 2, b.ravel() ** 2)[0, 1]) < limit, name


def of_stream(stream: str, seed: int) -> np.ndarray:
    base = seeds_lib.stream_seed(seed, stream)
    return normals(seeds_lib.fold_in(base, tf.range(2000)))


def test_fold_in_gives_distinct_seeds_and_does_not_depend_on_the_batch():
    base = seeds_lib.stream_seed(3, "shuffle")
    together = seeds_lib.fold_in(base, tf.range(10_000)).numpy()
    assert len({tuple(pair) for pair in together}) == 10_000
    alone = seeds_lib.fold_in(base, 4321).numpy()
    np.testing.assert_array_equal(together[4321], alone)
    far = seeds_lib.fold_in(base, tf.constant([4321, 4321 + 2**32], tf.int64)).numpy()
    np.testing.assert_array_equal(far[0], alone)
    assert (far[1] != alone).any()


def test_streams_and_seeds_differ():
    pairs = [
        tuple(seeds_lib.stream_seed(seed, stream))
        for seed in (0, 1, 2**70)
        for stream in ("shuffle", "dropout/1", "evaluation/0", "evaluation/1")
    ]
    assert len(set(pairs)) == len(pairs)
    assert 0 <= seeds_lib.stream_int(0, "shuffle") < 2**31


@pytest.mark.parametrize("seed", [-1, 1.5, "0", True, None])
def test_seed_must_be_a_whole_number(seed):
    with pytest.raises(InvalidArgument, match=r"^seed\S*: expected a whole number from 0 on$"):
        seeds_lib.stream_seed(seed, "shuffle")


@pytest.mark.parametrize("data", [0.5, [1.0, 2.0], np.float64(3), [True, False]])
def test_data_to_fold_in_are_whole_numbers(data):
    with pytest.raises(InvalidArgument, match=r"^data=\w+: expected whole numbers from 0 on$"):
        seeds_lib.fold_in([1, 2], data)


def test_the_next_power_of_two():
    traced = tf.function(xla.power_of_two, autograph=False)
    for size in (0, 1, 2, 3, 4, 5, 255, 256, 257, 2**20 - 1, 2**20):
        expected = next(2**k for k in range(31) if 2**k >= size)
        assert xla.power_of_two(size) == int(traced(tf.constant(size))) == expected


def test_batches_are_padded_to_few_sizes():
    for step in (1, 4):
        sizes = range(1, 5000)
        padded = [xla.padded_size(size, step) for size in sizes]
        assert all(size <= p < max(size + step, size * 1.126) for size, p in zip(sizes, padded))
        assert len(set(padded)) < 16 + 8 * 10
        some = [1, 3, 4, 31, 64, 65, 100, 127, 1000, 1025, 4999]
        traced = tf.function(lambda size, step=step: xla.padded_size(size, step), autograph=False)
        in_graph = [int(traced(tf.constant(size))) for size in some]
        assert in_graph == [xla.padded_size(size, step) for size in some]
