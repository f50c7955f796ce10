"""What a sensor does to images: ops, the registry of their kinds, and mixtures of them."""

from typing import TYPE_CHECKING

from robust_tf.faces import on_use

if TYPE_CHECKING:
    from robust_tf.perturbations.apply import perturb
    from robust_tf.perturbations.clusters import cluster
    from robust_tf.perturbations.gaussian_blur import blur
    from robust_tf.perturbations.gaussian_noise import noise
    from robust_tf.perturbations.jpeg_files import jpeg
    from robust_tf.perturbations.kinds import KINDS, Kind, Perturbation, all_kinds, example_seeds
    from robust_tf.perturbations.lines import column, row
    from robust_tf.perturbations.mixtures import Mixture
    from robust_tf.perturbations.motion_blur import motion
    from robust_tf.perturbations.photometric import contrast, exposure
    from robust_tf.perturbations.pixels import dead, hot, stuck, warm
    from robust_tf.perturbations.shot_noise import shot
else:
    __getattr__, __dir__ = on_use(
        __name__,
        {
            "apply": "perturb",
            "clusters": "cluster",
            "gaussian_blur": "blur",
            "gaussian_noise": "noise",
            "jpeg_files": "jpeg",
            "kinds": "KINDS Kind Perturbation all_kinds example_seeds",
            "lines": "column row",
            "mixtures": "Mixture",
            "motion_blur": "motion",
            "photometric": "contrast exposure",
            "pixels": "dead hot stuck warm",
            "shot_noise": "shot",
        },
    )

__all__ = [
    "KINDS",
    "Kind",
    "Mixture",
    "Perturbation",
    "all_kinds",
    "blur",
    "cluster",
    "column",
    "contrast",
    "dead",
    "example_seeds",
    "exposure",
    "hot",
    "jpeg",
    "motion",
    "noise",
    "perturb",
    "row",
    "shot",
    "stuck",
    "warm",
]
