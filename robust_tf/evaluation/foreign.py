"""Perturbations of other libraries as conditions: NRTK's, albumentations', imagecorruptions'.

They are NumPy code, which a graph calls for each image with a seed of the image's own. How each
library reads a configuration and is seeded is in `libraries`.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import itertools
import json
import math
import random
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from robust_tf.data import Data
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation.conditions import Condition, trial_seed
from robust_tf.evaluation.libraries import LIBRARIES, Perturb, words
from robust_tf.perturbations import example_seeds

# Draws of one image, by which perturbations that are not random are known.
_DRAWS = 32
_GENERATORS = threading.Lock()
_TOKENS = itertools.count()
# What a graph calls, by the token that it is given.
_IN_USE: "weakref.WeakValueDictionary[int, Foreign]" = weakref.WeakValueDictionary()


@dataclasses.dataclass(frozen=True)
class Foreign(Condition):
    """A perturbation of another library, made by `load`.

    An image depends on the experiment's seed, the trial and its index only: the library is
    seeded for each image with its number of `image_seeds`.

    Args:
        kind: the library and what it was asked for, "albumentations:rain.yaml".
        level: what the library calls its strength; NaN for none.
        content: tells the configuration and the library's version from others.
        image_shape: (H, W, C) of the images that it was tried with; grey ones are repeated to
            three channels, of which the first is taken back.
        varies: whether the seed matters.
        divisor: bytes are divided by it to give values in [0, 1], as in `Split`.
        perturb: does it.
    """

    kind: str
    level: float
    content: str
    image_shape: tuple[int, int, int]
    varies: bool
    divisor: int
    perturb: Perturb = dataclasses.field(compare=False, repr=False)
    token: int = dataclasses.field(init=False, compare=False, repr=False)
    errors: list[Exception] = dataclasses.field(
        init=False, compare=False, repr=False, default_factory=list
    )

    def __post_init__(self):
        """Makes it known to graphs."""
        object.__setattr__(self, "token", next(_TOKENS))
        _IN_USE[self.token] = self

    @property
    def random(self) -> bool:
        """Whether two trials differ."""
        return self.varies

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Raises `InvalidArgument` if images are not of the shape that it was loaded for."""
        if image_shape != self.image_shape:
            raise InvalidArgument("eval", self.kind, f"images of shape {self.image_shape}")

    def digest(self, test_digest: str) -> str:
        """That of the test set and of the configuration together."""
        return f"sha256:{_digest([test_digest, self.content])}"

    def __call__(self, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Perturbs a batch; arguments and result as of any condition."""
        return _Traced(tf.constant(self.token, tf.int64))(images, seeds)

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """While a graph runs: what the library raises there is raised here, in one line."""
        self.errors.clear()
        try:
            yield
        except tf.errors.OpError:
            if self.errors:
                raise self.errors[0] from None
            raise

    def of_arrays(self, images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Perturbs images outside a graph.

        Args:
            images: uint8, shape [B, H, W, C].
            seeds: whole numbers, shape [B].

        Returns:
            uint8 array of shape [B, H, W, C].

        Raises:
            InvalidArgument: if an image comes back in another form, or the library raises.
        """
        channels = images.shape[-1]
        perturbed = np.empty_like(images)
        with _own_generators():
            for place, (image, seed) in enumerate(zip(images, seeds)):
                image = np.repeat(image, 3, axis=-1) if channels == 1 else image.copy()
                random.seed(int(seed))
                np.random.seed(int(seed))  # noqa: NPY002  (the libraries' own generator)
                perturbed[place] = self._of_image(image, int(seed))[..., :channels]
        return perturbed

    def _of_image(self, image: np.ndarray, seed: int) -> np.ndarray:
        try:
            found = self.perturb(image, seed)
        except Exception as error:  # whatever another library raises
            expected = f"images that the library takes ({words(error)})"
            raise InvalidArgument("eval", self.kind, expected) from error
        form = f"{getattr(found, 'dtype', type(found).__name__)} {list(np.shape(found))}"
        if form != f"uint8 {[*image.shape]}":
            expected = f"a perturbation that returns uint8 images {[*image.shape]}, not {form}"
            raise InvalidArgument("eval", self.kind, expected)
        return found

    def __tf_flatten__(self) -> tuple[tuple, tuple[tf.Tensor]]:
        """One trace is for all of them: it takes the token."""
        return (), (tf.constant(self.token, tf.int64),)

    @classmethod
    def __tf_unflatten__(cls, metadata: tuple, components: tuple[tf.Tensor]) -> "_Traced":
        """What stands for it in a graph."""
        return _Traced(*components)


class _Traced(Condition):
    """A condition that a graph knows by its token alone."""

    kind, level = "another library's", math.nan

    def __init__(self, token: tf.Tensor):
        self.token = token

    def __call__(self, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        inputs = [self.token, images, seeds]
        return tf.ensure_shape(tf.numpy_function(_of_batch, inputs, tf.float32), images.shape)

    def __tf_flatten__(self) -> tuple[tuple, tuple[tf.Tensor]]:
        return (), (self.token,)

    @classmethod
    def __tf_unflatten__(cls, metadata: tuple, components: tuple[tf.Tensor]) -> "_Traced":
        return cls(*components)


def _of_batch(token: np.ndarray, images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    condition = _IN_USE[int(token)]
    bytes_ = np.rint(images * np.float32(condition.divisor)).astype(np.uint8)
    try:
        perturbed = condition.of_arrays(bytes_, _numbers(seeds))
    except InvalidArgument as error:
        condition.errors.append(error)
        raise
    return perturbed.astype(np.float32) / np.float32(condition.divisor)


def image_seeds(seed: int, trial: int, index: Any) -> np.ndarray:
    """The numbers that libraries are seeded with, one per image.

    Args:
        seed: the experiment's seed.
        trial: which random draw, a whole number from 0 on.
        index: of the test images, integers, shape [B].

    Returns:
        int64 array of shape [B], numbers in [0, 2**31).
    """
    return _numbers(example_seeds(trial_seed(seed, trial), tf.convert_to_tensor(index)).numpy())


def _numbers(seeds: np.ndarray) -> np.ndarray:
    return seeds[:, 0].astype(np.int64) & 0x7FFFFFFF


@contextlib.contextmanager
def _own_generators() -> Iterator[None]:
    """Leaves the global generators of Python and NumPy as they were.

    Graphs run batches at the same time: one after another has them to itself.
    """
    with _GENERATORS:
        python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def load(name: str, like: Data) -> tuple[Foreign, ...]:
    """The tests that a name asks for.

    Args:
        name: "nrtk:FILE.json", a perturber or a factory of them, as smqtk-core's `to_config_dict`
            writes it or NRTK's command line takes it; "albumentations:FILE.json" or `.yaml`, as
            `albumentations.save` writes it; "imagecorruptions:fog" for its five severities or
            "imagecorruptions:fog_3" for one of them.
        like: the dataset whose test images are perturbed.

    Returns:
        One condition per level.

    Raises:
        InvalidArgument: if there is no such perturbation, it is not one of such images, or it
            does not follow its seed.
        Unavailable: if the library is not installed, or a file cannot be read.
    """
    library, _, asked = name.partition(":")
    if library not in LIBRARIES:
        raise InvalidArgument("eval", name, f"a library of {', '.join(LIBRARIES)}")
    if like.image_shape[-1] not in (1, 3):
        expected = f"images of 1 or 3 channels, not {like.image_shape[-1]}"
        raise InvalidArgument("eval", name, expected)
    try:
        kind, content, levels = LIBRARIES[library](asked)
    except ImportError as error:
        problem = f"{words(error)}; `pip install robust_tf[{library}]` installs it"
        raise Unavailable("eval", name, problem) from error
    if not levels:
        raise InvalidArgument("eval", name, "a factory with a step at least; its stop is excluded")
    content = _digest([content, importlib.metadata.version(library)])
    found = []
    for level, perturb in levels.items():
        of = (f"{library}:{kind}", level, f"{content}/{level:g}", like.image_shape)
        fixed = Foreign(*of, False, like.test.divisor, perturb)
        try:
            found.append(dataclasses.replace(fixed, varies=_varies(fixed)))
        except InvalidArgument as error:
            raise error.with_value(name) from error
    return tuple(found)


def load_all(names: Iterable[str], like: Data) -> tuple[Foreign, ...]:
    """The tests that several names ask for, each once; arguments, result and errors as of `load`.

    Raises:
        InvalidArgument: also if two different files have one name.
    """
    found: dict[tuple[str, float], Foreign] = {}
    for name in names:
        for condition in load(name, like):
            if found.setdefault(condition.key, condition) != condition:
                raise InvalidArgument("eval", name, "files of different names")
    return tuple(found.values())


def _varies(condition: Foreign) -> bool:
    """Whether draws of one image differ; raises `InvalidArgument` if those of one seed do."""
    image = np.random.default_rng(0).integers(0, 256, (1, *condition.image_shape), np.uint8)

    def drawn(seed: int) -> np.ndarray:
        return condition.of_arrays(image, np.array([seed]))

    first = drawn(0)
    others = ((seed, drawn(seed)) for seed in range(1, _DRAWS))
    seed, other = next((pair for pair in others if (pair[1] != first).any()), (0, first))
    for repeated, before in ((0, first), (seed, other)):
        if (drawn(repeated) != before).any():
            raise InvalidArgument("eval", condition.kind, "a perturbation that follows its seed")
    return seed > 0


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
