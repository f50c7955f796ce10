"""Optimizers, each with its settings."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from robust_tf.settings import number

if TYPE_CHECKING:
    import keras

_MOMENTUM = 0.9

Rate: TypeAlias = "float | keras.optimizers.schedules.LearningRateSchedule"
LearningRate = Annotated[float, number("The optimizer's step size, or its highest.", above=0)]
Beta1 = Annotated[float, number("Decay of Adam's mean of gradients (adam, adamw).", 0, below=1)]
WeightDecay = Annotated[
    float,
    number(
        "Share of a weight that a step takes off it, per unit of the learning rate (adamw, sgd).",
        0,
    ),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam, with the paper's text's β₁ and β₂ = 0.999.

    Attributes:
        learning_rate: step size, or its highest, above 0.
        beta_1: decay of the mean of gradients, in [0, 1).
    """

    learning_rate: LearningRate = 0.001
    beta_1: Beta1 = 0.5

    def make(self, rate: Rate, **average: Any) -> keras.optimizers.Optimizer:
        """Keras's optimizer with a rate or schedule of rates."""
        import keras

        return keras.optimizers.Adam(rate, beta_1=self.beta_1, beta_2=0.999, **average)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay.

    Attributes:
        learning_rate: as in `Adam`.
        beta_1: as in `Adam`.
        weight_decay: share of a weight that a step takes off it, per unit of the learning
            rate, from 0 on.
    """

    learning_rate: LearningRate = 0.001
    beta_1: Beta1 = 0.5
    weight_decay: WeightDecay = 0.0

    def make(self, rate: Rate, **average: Any) -> keras.optimizers.Optimizer:
        """As `Adam.make`."""
        import keras

        return keras.optimizers.AdamW(
            rate, self.weight_decay, beta_1=self.beta_1, beta_2=0.999, **average
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent with Nesterov's momentum of 0.9.

    Attributes:
        learning_rate: as in `Adam`.
        weight_decay: as in `AdamW`.
    """

    learning_rate: LearningRate = 0.01
    weight_decay: WeightDecay = 0.0

    def make(self, rate: Rate, **average: Any) -> keras.optimizers.Optimizer:
        """As `Adam.make`."""
        import keras

        return keras.optimizers.SGD(
            rate,
            momentum=_MOMENTUM,
            nesterov=True,
            weight_decay=self.weight_decay or None,
            **average,
        )


OPTIMIZERS: dict[str, type] = {"adam": Adam, "adamw": AdamW, "sgd": SGD}
