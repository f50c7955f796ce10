"""Keras layers, and networks as functions of image shape and number of classes."""

from robust_tf.models.networks import (
    ACTIVATIONS,
    CNN,
    MODELS,
    PRECISIONS,
    STANDARDIZATIONS,
    BatchNormalization,
    Convolution,
    MeanOfMirrored,
    Standardization,
    WithMirrored,
    build,
    build_cnn,
    check,
    features,
    precision_of,
    with_new_head,
)

__all__ = [
    "ACTIVATIONS",
    "CNN",
    "MODELS",
    "PRECISIONS",
    "STANDARDIZATIONS",
    "BatchNormalization",
    "Convolution",
    "MeanOfMirrored",
    "Standardization",
    "WithMirrored",
    "build",
    "build_cnn",
    "check",
    "features",
    "precision_of",
    "with_new_head",
]
