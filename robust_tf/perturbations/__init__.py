"""What a sensor does to images: ops, the registry of their kinds, and mixtures of them."""

from robust_tf.perturbations.kinds import (
    KINDS,
    Kind,
    Perturbation,
    blur,
    dead,
    example_seeds,
    hot,
    noise,
    perturb,
    stuck,
)
from robust_tf.perturbations.mixtures import Mixture

__all__ = [
    "KINDS",
    "Kind",
    "Mixture",
    "Perturbation",
    "blur",
    "dead",
    "example_seeds",
    "hot",
    "noise",
    "perturb",
    "stuck",
]
