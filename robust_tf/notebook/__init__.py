"""Three calls for a notebook: make a model robust, see how robust one is, load one.

They take models and arrays as Keras does, and call what the pipelines call.
"""

from typing import TYPE_CHECKING

from robust_tf.faces import on_use

if TYPE_CHECKING:
    from robust_tf.notebook.benchmarks import benchmark
    from robust_tf.notebook.fitting import fit
    from robust_tf.notebook.loading import load_model
    from robust_tf.notebook.scorecard import Scorecard
else:
    __getattr__, __dir__ = on_use(
        __name__,
        {
            "benchmarks": "benchmark",
            "fitting": "fit",
            "loading": "load_model",
            "scorecard": "Scorecard",
        },
    )

__all__ = ["Scorecard", "benchmark", "fit", "load_model"]
