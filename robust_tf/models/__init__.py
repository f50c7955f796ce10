"""Keras layers, and networks as functions of image shape and number of classes."""

from robust_tf.models.adapted import wrapped
from robust_tf.models.blocks import PRECISIONS, STANDARDIZATIONS
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
from robust_tf.models.networks import ACTIVATIONS, MODELS, build, check
from robust_tf.models.own import FORMS as OWN_FORMS
from robust_tf.models.own import (
    VALUE_RANGE,
    Architecture,
    is_application,
    is_file,
    is_own,
    load,
    read,
)

__all__ = [
    "ACTIVATIONS",
    "CORRECTIONS",
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
