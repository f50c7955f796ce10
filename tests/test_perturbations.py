import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import KINDS, Perturbation, example_seeds, perturb, stuck
from robust_tf.seeds import stream_seed

# Blurs wider than 1.1 are computed in another way.
CASES = [("stuck", 5), ("dead", 5), ("hot", 5), ("noise", 0.1), ("blur", 1.0), ("blur", 1.3)]
CASES += [("warm", 5), ("row", 5), ("column", 5), ("cluster", 5), ("motion", 5.0)]
CASES += [("shot", 0.1), ("exposure", 0.3), ("contrast", 0.5), ("jpeg", 50)]
SHAPES = [(28, 28, 1), (32, 32, 3), (7, 11, 3)]


def images(count: int, shape=(28, 28, 1), seed: int = 0) -> np.ndarray:
    # Away from 0 and 1, so that dead and hot pixels can be told from natural ones.
    values = np.random.default_rng(seed).uniform(0.1, 0.9, (count, *shape))
    return values.astype(np.float32)


def seeds(count: int, stream: str = "test") -> tf.Tensor:
    return example_seeds(stream_seed(0, stream), tf.range(count))


def test_every_kind_has_a_case():
    assert {kind for kind, _ in CASES} == set(KINDS)


@pytest.mark.parametrize(
    ("kind", "level", "shape"),
    [
        (*case, shape)
        for case in CASES
        for shape in (SHAPES if KINDS[case[0]].in_all else SHAPES[-1:])
    ],
)
class TestEveryKind:
    def test_shape_dtype_and_range(self, kind, level, shape):
        natural = images(9, shape)
        perturbed = perturb(natural, kind, level)
        assert perturbed.shape == (9, *shape)
        assert perturbed.dtype == tf.float32
        assert tf.reduce_min(perturbed) >= 0 and tf.reduce_max(perturbed) <= 1
        assert (perturbed.numpy() != natural).any(axis=(1, 2, 3)).all()

    def test_same_bits_whatever_the_batch(self, kind, level, shape):
        natural = images(20, shape)
        dataset = tf.data.Dataset.from_tensor_slices(natural)
        expected = perturb(natural, kind, level, seed=3).numpy()
        for batch_size in (7, 1500):
            batches = perturb(dataset.batch(batch_size), kind, level, seed=3)
            np.testing.assert_array_equal(np.concatenate(list(batches)), expected)
        single = list(perturb(dataset, kind, level, seed=3))
        np.testing.assert_array_equal(np.stack(single), expected)
        one = perturb(natural[11], kind, level, seed=3, index=11)
        np.testing.assert_array_equal(one, expected[11])

    def test_same_bits_whatever_order_parallelism_and_mode(self, kind, level, shape):
        natural = images(30, shape)
        perturbation = Perturbation(kind, level)
        base = stream_seed(5, "test")

        def apply(index):
            return index, perturbation(tf.gather(natural, index), example_seeds(base, index))

        expected = apply(tf.range(30))[1].numpy()  # eager
        np.testing.assert_array_equal(tf.function(apply)(tf.range(30))[1], expected)
        order = tf.data.Dataset.range(30).shuffle(30, seed=1)
        for calls in (1, 5):
            mapped = order.batch(4).map(apply, num_parallel_calls=calls, deterministic=False)
            for index, perturbed in mapped:
                np.testing.assert_array_equal(perturbed, expected[index.numpy()])

    def test_randomness_depends_on_seed_index_and_epoch(self, kind, level, shape):
        if not KINDS[kind].random:
            pytest.skip("deterministic")
        natural = images(1, shape)

        def draw(**kwargs):
            return perturb(natural[0], kind, level, **kwargs).numpy()

        np.testing.assert_array_equal(draw(seed=1, index=2), draw(seed=1, index=2))
        fixed = draw()
        for other in (draw(seed=1), draw(index=1), draw(epoch=0), draw(epoch=1)):
            assert (other != fixed).any()
        assert (draw(epoch=0) != draw(epoch=1)).any()

    def test_one_trace_serves_all_levels(self, kind, level, shape):
        @tf.function
        def apply(any_level):
            return Perturbation(kind, any_level)(natural, seeds(6))

        natural = tf.constant(images(6, shape))
        for one_level in (level / 5, level):
            expected = Perturbation(kind, one_level)(natural, seeds(6))
            found = apply(tf.constant(one_level, tf.float64))
            np.testing.assert_allclose(found, expected, atol=1e-6)
        assert apply.experimental_get_tracing_count() == 1


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(["stuck", "dead", "hot"]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.integers(1, 4),
    data=st.data(),
)
def test_exactly_the_asked_number_of_distinct_pixels_changes(kind, height, width, channels, data):
    pixels = data.draw(st.integers(1, height * width))
    natural = images(8, (height, width, channels))
    perturbed = perturb(natural, kind, pixels).numpy()
    changed = (perturbed != natural).any(axis=-1)
    np.testing.assert_array_equal(changed.sum(axis=(1, 2)), pixels)
    values = perturbed[changed]  # [8 * pixels, channels]
    if kind == "dead":
        assert (values == 0).all()
    elif kind == "hot":
        assert (values == 1).all()
    else:
        assert (values >= 0).all() and (values < 1).all()


def test_positions_are_uniform_over_all_subsets():
    # 2 of 2 x 3 pixels: 15 subsets, which 30,000 images must hit alike.
    perturbed = perturb(tf.zeros([30_000, 2, 3, 1]), "hot", 2).numpy()
    subsets = perturbed.reshape(-1, 6) @ 2 ** np.arange(6)
    _, counts = np.unique(subsets, return_counts=True)
    assert len(counts) == 15
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_stuck_values_are_uniform_in_each_channel_and_independent():
    # Twos, which can be told from what was drawn; the op itself does not mind.
    perturbed = stuck(np.full((20_000, 2, 2, 3), 2.0, np.float32), seeds(20_000), 1).numpy()
    values = perturbed[perturbed[..., 0] != 2.0]  # [20000, 3]
    for channel in range(3):
        assert scipy.stats.kstest(values[:, channel], "uniform").pvalue > 1e-3
    correlations = np.corrcoef(values.T)[np.triu_indices(3, k=1)]
    assert (abs(correlations) < 4.5 / np.sqrt(len(values))).all()


def test_pixel_kinds_hit_the_same_positions():
    natural = images(50)
    changed = [
        (perturb(natural, kind, 4).numpy() != natural).any(axis=-1)
        for kind in ("stuck", "dead", "hot")
    ]
    np.testing.assert_array_equal(changed[0], changed[1])
    np.testing.assert_array_equal(changed[0], changed[2])


@pytest.mark.parametrize("stddev", [0.001, 0.05, 0.1])
def test_noise_has_the_asked_standard_deviation(stddev):
    natural = np.full((200, 28, 28, 1), 0.5, np.float32)
    added = (perturb(natural, "noise", stddev).numpy() - natural) / stddev
    assert added.std() == pytest.approx(1, rel=0.02)
    assert added.mean() == pytest.approx(0, abs=0.02)
    # 1e-4: values near 0.5 are multiples of 6e-8, a grid that small deviations feel.
    assert scipy.stats.kstest(added.ravel(), "norm").statistic < 0.005


def test_noise_is_clipped():
    black = perturb(tf.zeros([50, 28, 28, 1]), "noise", 0.2).numpy()
    white = perturb(tf.ones([50, 28, 28, 1]), "noise", 0.2).numpy()
    for clipped, bound in ((black, 0), (white, 1)):
        assert np.mean(clipped == bound) == pytest.approx(0.5, abs=0.01)


@settings(max_examples=40, deadline=None)
@given(
    sigma=st.floats(0.0, 5.0),
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 4)),
    channel_blur=st.booleans(),
)
def test_blur_is_scipys(sigma, shape, channel_blur):
    sigma = min(sigma, max(shape[:2]))
    natural = images(2, shape)
    blurred = perturb(natural, "blur", sigma, channel_blur=channel_blur)
    axes = (sigma, sigma, sigma if channel_blur else 0)
    expected = [
        scipy.ndimage.gaussian_filter(image.astype(float), axes, mode="reflect", truncate=4.0)
        for image in natural
    ]
    np.testing.assert_allclose(blurred, expected, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.04, 0.28, 0.4, 0.5, 0.52, 0.55, 0.7, 0.75, 0.76, 0.85, 1.0])
def test_blur_is_scipys_at_the_papers_levels(sigma):
    natural = images(3, (32, 32, 3))
    expected = scipy.ndimage.gaussian_filter(
        natural, (0, sigma, sigma, 0), mode="reflect", truncate=4.0
    )
    np.testing.assert_allclose(perturb(natural, "blur", sigma), expected, atol=1e-5)


@pytest.mark.parametrize("channel_blur", [False, True])
def test_blurred_white_is_not_whiter(channel_blur):
    white = tf.ones([1, 32, 32, 3])
    for sigma in np.linspace(0.1, 5, 60):
        blurred = perturb(white, "blur", float(sigma), channel_blur=channel_blur).numpy()
        assert blurred.max() <= 1
        np.testing.assert_allclose(blurred, 1, atol=1e-6)


def test_identities():
    natural = images(4, (32, 32, 3))
    np.testing.assert_array_equal(perturb(natural, "noise", 0), natural)
    for sigma in (0, 0.04):  # the paper's lowest: a kernel of one tap
        np.testing.assert_array_equal(perturb(natural, "blur", sigma), natural)


@pytest.mark.parametrize(
    ("kind", "level", "expected"),
    [
        ("hot", 0, "a whole number from 1 to 784"),
        ("dead", 785, "a whole number from 1 to 784"),
        ("stuck", 2.5, "a whole number from 1 to 784"),
        ("noise", -0.1, "a number from 0 to 1 "),
        ("noise", float("nan"), "a number from 0 to 1 "),
        ("noise", float("inf"), "a number from 0 to 1 "),
        ("blur", -1, "a number from 0 to 28 "),
        ("blur", 29, "a number from 0 to 28 "),
        ("blur", "wide", "a number from 0 "),
    ],
)
def test_level_out_of_range(kind, level, expected):
    with pytest.raises(InvalidArgument) as caught:
        Perturbation(kind, level).check((28, 28, 1))
    message = str(caught.value)
    level = f"{level:g}" if isinstance(level, float | int) else level
    assert message.startswith(f"level={level}: expected ")
    # Without an image the upper end may still be open.
    assert expected in message or " on (" in message
    assert "\n" not in message


def test_unknown_kind():
    with pytest.raises(InvalidArgument, match="perturb=rain: expected one of stuck, dead, hot"):
        Perturbation("rain", 1)


@pytest.mark.parametrize(
    "bad",
    [np.zeros((28, 28, 1), np.int32), np.zeros((28, 28), np.float32), np.zeros((4, 28, 28, 1))],
)
def test_images_of_another_form_are_refused(bad):
    with pytest.raises(InvalidArgument, match="images=.*: expected float32"):
        perturb(bad, "hot", 1)


def test_a_perturbation_is_a_value():
    assert Perturbation("hot", 2) == Perturbation("hot", 2.0)
    assert len({Perturbation("hot", 2), Perturbation("hot", 2.0), Perturbation("hot", 3)}) == 2
    assert str(Perturbation("noise", 0.0255)) == "noise 0.0255"


def test_a_dataset_keeps_its_structure():
    natural, labels = images(10), np.arange(10)
    expected = perturb(natural, "stuck", 3).numpy()
    pairs = tf.data.Dataset.from_tensor_slices((natural, labels)).batch(4)
    found = [(x.numpy(), y.numpy()) for x, y in perturb(pairs, "stuck", 3)]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in found]), expected)
    np.testing.assert_array_equal(np.concatenate([y for _, y in found]), labels)
    examples = tf.data.Dataset.from_tensor_slices({"image": natural, "label": labels})
    for i, example in enumerate(perturb(examples, "stuck", 3)):
        np.testing.assert_array_equal(example["image"], expected[i])
        assert example["label"] == i


def test_the_ops_stay_in_the_graph():
    for kind, level in CASES:
        graph = tf.function(lambda k=kind, v=level: Perturbation(k, v)(images(2), seeds(2)))
        definition = graph.get_concrete_function().graph.as_graph_def()
        nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
        assert len(nodes) > 10
        assert not any("PyFunc" in node.op for node in nodes)


@pytest.mark.parametrize(("shape", "channel_blur"), [((8, 9, 3), True), ((3, 5, 1), False)])
def test_no_blur_leaves_the_images_as_they_are(shape, channel_blur):
    natural = np.random.default_rng(0).integers(0, 256, (4, *shape)).astype(np.float32) / 255
    blurred = perturb(natural, "blur", 0.04, channel_blur=channel_blur)
    np.testing.assert_array_equal(blurred, natural)


@pytest.mark.parametrize(("kind", "level"), CASES)
def test_no_images(kind, level):
    assert perturb(np.zeros((0, 8, 8, 1), np.float32), kind, level).shape == (0, 8, 8, 1)


@pytest.mark.parametrize(("kind", "level"), [case for case in CASES if case[0] != "jpeg"])
def test_gradients_come_through_what_was_not_replaced(kind, level):
    natural = tf.constant(images(3))
    with tf.GradientTape() as tape:
        tape.watch(natural)
        perturbed = perturb(natural, kind, level)
        total = tf.reduce_sum(perturbed)
    gradient = tape.gradient(total, natural).numpy()
    if kind in ("blur", "motion", "contrast"):
        assert gradient.sum() == pytest.approx(natural.numpy().size, rel=1e-4)
    elif kind in ("noise", "warm", "shot", "exposure"):
        assert set(np.unique(gradient)) <= {0.0, 1.0}
        np.testing.assert_array_equal(gradient == 0, (perturbed == 0) | (perturbed == 1))
    else:
        np.testing.assert_array_equal(gradient, (perturbed == natural).numpy())


_WRONG_LEVELS = [
    *(("noise", level) for level in (float("nan"), 7.0, -0.1, float("inf"))),
    *(("blur", level) for level in (-1.0, float("nan"), float("inf"), 29.0)),
    *(("hot", level) for level in (-1, 0, 2.5, 5000, True)),
]


@pytest.mark.parametrize("form", [tf.constant, np.array, tf.Variable, lambda level: level])
def test_levels_whose_value_is_known_are_checked(form):
    for kind, level in _WRONG_LEVELS:
        with pytest.raises(InvalidArgument, match="^level=.*: expected a") as caught:
            perturb(images(4), kind, form(level))
        assert "\n" not in str(caught.value)
    for kind, level in CASES:
        expected = perturb(images(4), kind, level)
        np.testing.assert_array_equal(perturb(images(4), kind, form(level)), expected)


@pytest.mark.parametrize(
    "level",
    ["1_0", "２", b"3", "", "x", None, 1 + 0j, [3], [1, [2]], np.array([3]), tf.constant([1, 2])],
)
def test_what_is_no_number_is_no_level(level):
    with pytest.raises(InvalidArgument, match=r"^level.*: expected a .*hot") as caught:
        Perturbation("hot", level)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("level", [tf.constant([1, 2]), tf.constant("3"), tf.constant(True)])
def test_a_level_in_a_graph_is_one_number(level):
    with pytest.raises(InvalidArgument, match="^level=.*: expected one number"):
        tf.function(lambda level: Perturbation("hot", level).kind, autograph=False)(level)


@pytest.mark.parametrize("kind", [["hot"], {"hot"}, {}, 3, None, "Hot"])
def test_a_kind_is_one_of_those_known(kind):
    with pytest.raises(InvalidArgument, match="^perturb.*: expected one of stuck, dead, hot"):
        perturb(images(4), kind, 3)
