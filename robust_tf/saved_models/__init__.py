"""SavedModels, the one artefact that is handed on: written, read back and served.

A third-party classifier is a function from images to scores here, too. LiteRT and ONNX files are
made and run.
"""

from typing import TYPE_CHECKING

from robust_tf.faces import on_use

if TYPE_CHECKING:
    from robust_tf.saved_models import classifiers, conversion
    from robust_tf.saved_models.classifiers import Classifier, answering
    from robust_tf.saved_models.corrected import export_corrected
    from robust_tf.saved_models.exports import (
        EXAMPLE,
        EXTRA,
        ROBUSTNESS,
        add_robustness,
        check,
        export,
        find,
        fingerprint,
        full_name,
        load,
        metadata,
        remove_marked,
        versions,
    )
    from robust_tf.saved_models.matching import matched
else:
    __getattr__, __dir__ = on_use(
        __name__,
        {
            "classifiers": "Classifier answering",
            "corrected": "export_corrected",
            "exports": "EXAMPLE EXTRA ROBUSTNESS add_robustness check export find fingerprint "
            "full_name load metadata remove_marked versions",
            "matching": "matched",
        },
    )

__all__ = [
    "Classifier",
    "EXAMPLE",
    "EXTRA",
    "ROBUSTNESS",
    "add_robustness",
    "answering",
    "check",
    "classifiers",
    "conversion",
    "export",
    "export_corrected",
    "find",
    "fingerprint",
    "full_name",
    "load",
    "matched",
    "metadata",
    "remove_marked",
    "versions",
]
