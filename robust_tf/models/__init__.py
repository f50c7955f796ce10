"""Keras layers, and networks as functions of image shape and number of classes."""

from typing import TYPE_CHECKING

from robust_tf.faces import on_use

if TYPE_CHECKING:
    from robust_tf.models.adapted import wrapped
    from robust_tf.models.correction import (
        CORRECTIONS,
        ListCorrection,
        MedianFilter,
        OutlierCorrection,
        corrected,
    )
    from robust_tf.models.descriptions import digest_of
    from robust_tf.models.heads import features, leaves, plain, precision_of, with_new_head
    from robust_tf.models.keras_settings import keras_defaults
    from robust_tf.models.layers import (
        BatchNormalization,
        MeanOfMirrored,
        Standardization,
        WithMirrored,
    )
    from robust_tf.models.names import (
        CORRECTION_KINDS,
        OWN_FORMS,
        PRECISIONS,
        STANDARDIZATIONS,
        VALUE_RANGE,
        is_application,
        is_file,
        is_own,
    )
    from robust_tf.models.networks import ACTIVATIONS, MODELS, build, check
    from robust_tf.models.own import Architecture, load, read
else:
    __getattr__, __dir__ = on_use(
        __name__,
        {
            "adapted": "wrapped",
            "correction": "CORRECTIONS ListCorrection MedianFilter OutlierCorrection corrected",
            "descriptions": "digest_of",
            "heads": "features leaves plain precision_of with_new_head",
            "keras_settings": "keras_defaults",
            "layers": "BatchNormalization MeanOfMirrored Standardization WithMirrored",
            "names": "CORRECTION_KINDS OWN_FORMS PRECISIONS STANDARDIZATIONS VALUE_RANGE "
            "is_application is_file is_own",
            "networks": "ACTIVATIONS MODELS build check",
            "own": "Architecture load read",
        },
    )

__all__ = [
    "ACTIVATIONS",
    "CORRECTIONS",
    "CORRECTION_KINDS",
    "MODELS",
    "OWN_FORMS",
    "PRECISIONS",
    "STANDARDIZATIONS",
    "VALUE_RANGE",
    "Architecture",
    "BatchNormalization",
    "ListCorrection",
    "MeanOfMirrored",
    "MedianFilter",
    "OutlierCorrection",
    "Standardization",
    "WithMirrored",
    "build",
    "check",
    "corrected",
    "digest_of",
    "features",
    "is_application",
    "is_file",
    "is_own",
    "keras_defaults",
    "leaves",
    "load",
    "plain",
    "precision_of",
    "read",
    "with_new_head",
    "wrapped",
]
