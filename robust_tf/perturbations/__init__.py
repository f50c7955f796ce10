"""What a sensor does to images: ops, the registry of their kinds, and mixtures of them."""

from robust_tf.perturbations.apply import perturb
from robust_tf.perturbations.gaussian_blur import blur
from robust_tf.perturbations.gaussian_noise import noise
from robust_tf.perturbations.kinds import KINDS, Kind, Perturbation, example_seeds
from robust_tf.perturbations.mixtures import Mixture
from robust_tf.perturbations.pixels import dead, hot, stuck

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
