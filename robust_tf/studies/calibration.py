"""Which training images show a quantised file what values there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import KINDS, Mixture, all_kinds, example_seeds

if TYPE_CHECKING:
    import numpy as np

    from robust_tf.data import Split


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The training images that show which values int8 has to stand for.

    Args:
        calibrate: "natural"; "perturbed", where each image has one of all kinds; or kinds, of
            which each has one.
        examples: how many images, drawn from the seed.

    Raises:
        InvalidArgument: if a name is none of these.
    """

    calibrate: tuple[str, ...] = ("natural",)
    examples: int = 500

    def __post_init__(self):
        """Checks the names."""
        one = self.calibrate in (("natural",), ("perturbed",))
        if not one and not (self.calibrate and set(self.calibrate) <= set(KINDS)):
            expected = f"natural, perturbed, or some of {', '.join(KINDS)}"
            raise InvalidArgument("calibrate", self.calibrate, expected)

    def images(self, train: Split, seed: int) -> np.ndarray:
        """The images of a training split, float32 [N, H, W, C] in [0, 1]."""
        import numpy as np
        import tensorflow as tf

        from robust_tf.seeds import stream_seed

        draws = np.random.default_rng(stream_seed(seed, "calibration").view(np.uint32))
        count = min(self.examples, len(train))
        index = np.sort(draws.choice(len(train), count, replace=False))
        images = train.images_at(index)
        if self.calibrate == ("natural",):
            return images.numpy()
        every = self.calibrate == ("perturbed",)
        kinds = [kind for kind in KINDS if kind in (all_kinds() if every else self.calibrate)]
        mixture = Mixture(tuple((kind, *KINDS[kind].train_range) for kind in kinds))
        mixture.check(train.image_shape)
        perturbed = tf.function(mixture.__call__, autograph=False)  # eagerly it would take long
        return perturbed(images, example_seeds(stream_seed(seed, "calibration"), index)).numpy()
