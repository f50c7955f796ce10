"""Keras layers, and networks as functions of image shape and number of classes."""

from robust_tf.models.blocks import PRECISIONS, STANDARDIZATIONS
from robust_tf.models.heads import features, plain, precision_of, with_new_head
from robust_tf.models.keras_settings import keras_defaults
from robust_tf.models.layers import (
    BatchNormalization,
    MeanOfMirrored,
    Standardization,
    WithMirrored,
)
from robust_tf.models.networks import ACTIVATIONS, MODELS, build, check

__all__ = [
    "ACTIVATIONS",
    "MODELS",
    "PRECISIONS",
    "STANDARDIZATIONS",
    "BatchNormalization",
    "MeanOfMirrored",
    "Standardization",
    "WithMirrored",
    "build",
    "check",
    "features",
    "keras_defaults",
    "plain",
    "precision_of",
    "with_new_head",
]
