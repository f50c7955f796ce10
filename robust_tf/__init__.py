"""Measure how far image classifiers fall under sensor changes, and train robust ones.

An implementation of Cavey, Dolan and Stock, *Strategies for Robust Image
Classification* (2020, arXiv 2004.03452), in Keras 3 and TensorFlow.

`import robust_tf as rt` offers what a notebook needs: a few names, and the packages that an
image meets on its way, each imported when it is first used.

Examples:
    >>> import robust_tf as rt
    >>> digits = rt.data.load("mnist", data_source="sample")
    >>> rt.perturb(digits.test.images_at([0, 1]), "hot", 2).shape
    TensorShape([2, 28, 28, 1])
"""

import os as _os
import sys as _sys
from typing import TYPE_CHECKING

from robust_tf.errors import Unavailable as _Unavailable
from robust_tf.faces import on_use as _on_use

if TYPE_CHECKING:
    from robust_tf import data, layers, models, results, runs, saved_models, studies, training
    from robust_tf.evaluation import Evaluator, evaluate
    from robust_tf.notebook import benchmark, fit, load_model
    from robust_tf.perturbations import Mixture, Perturbation, perturb

__all__ = [
    "Evaluator",
    "Mixture",
    "Perturbation",
    "benchmark",
    "data",
    "evaluate",
    "fit",
    "layers",
    "load_model",
    "models",
    "perturb",
    "results",
    "runs",
    "saved_models",
    "studies",
    "training",
]
__version__ = "0.1.0"


def _set_environment() -> None:
    """Sets what must be set before TensorFlow and Keras are imported."""
    # Off by default on CPUs without AVX-512, where it trains 1.6 times faster.
    _os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    backend = _os.environ.get("KERAS_BACKEND") or "tensorflow"
    if "keras" in _sys.modules:
        backend = _sys.modules["keras"].config.backend()
    if backend != "tensorflow":
        problem = "robust_tf is for tensorflow alone, which must be set before Keras is imported"
        raise _Unavailable("KERAS_BACKEND", backend, problem)
    _os.environ["KERAS_BACKEND"] = backend  # takes precedence over keras.json


_set_environment()

__getattr__, __dir__ = _on_use(
    __name__,
    {
        "evaluation": "Evaluator evaluate",
        "notebook": "benchmark fit load_model",
        "perturbations": "Mixture Perturbation perturb",
    },
)
