"""Compile and fit: one way to train whatever a strategy hands over."""

import contextlib
import dataclasses
import os
from collections.abc import Callable

import keras
import pandas as pd
import tensorflow as tf

from robust_tf import models
from robust_tf.errors import InvalidArgument
from robust_tf.training import callbacks as callbacks_lib
from robust_tf.training.strategies import Training

JIT_COMPILE = ("auto", "on", "off")

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "one_cycle")
# Keras's own, where an optimizer is not the one that a network's rate is for.
LEARNING_RATES = {"adam": 0.001, "adamw": 0.001, "sgd": 0.01}

# One cycle: the rate starts at a fraction of its peak, which it reaches after a part of the
# steps; then it falls to 0.
_START_RATE = 0.1
_RISE = 0.2
_MOMENTUM = 0.9

# A step of a model with fewer parameters takes about as long as Keras takes to start one;
# so many steps, at most, are started at once.
_SMALL_MODEL = 100_000
_STEPS_AT_ONCE = 20


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How weights follow the gradients; by default as in the paper (section IV).

    Attributes:
        optimizer: "adam", "adamw", or "sgd" with Nesterov's momentum of 0.9.
        schedule: of the learning rate: "constant", or "one_cycle": it rises linearly from a
            tenth in the first fifth of all steps and falls to 0 as a cosine
            (https://arxiv.org/abs/1708.07120).
        weight_decay: share of a weight that is taken off it in a step, for each unit of the
            learning rate, from 0 on (adamw, sgd).
        label_smoothing: share of the label that is spread over all classes, in [0, 1).
        weight_average: decay of a moving average of the weights, a step, in [0, 1); the
            trained model has the average. 0 for the weights of the last step.
    """

    optimizer: str = "adam"
    schedule: str = "constant"
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    weight_average: float = 0.0

    def make_optimizer(
        self, learning_rate: float, beta_1: float, steps: int
    ) -> keras.optimizers.Optimizer:
        """The optimizer of a training of so many steps."""
        rate: float | keras.optimizers.schedules.LearningRateSchedule = learning_rate
        if self.schedule == "one_cycle":
            rise = max(1, round(_RISE * steps))
            rate = keras.optimizers.schedules.CosineDecay(
                _START_RATE * learning_rate,
                max(1, steps - rise),
                warmup_target=learning_rate,
                warmup_steps=rise,
            )
        average = {"use_ema": self.weight_average > 0, "ema_momentum": self.weight_average}
        if self.optimizer == "sgd":
            return keras.optimizers.SGD(
                rate,
                momentum=_MOMENTUM,
                nesterov=True,
                weight_decay=self.weight_decay or None,
                **average,
            )
        betas = {"beta_1": beta_1, "beta_2": 0.999}
        if self.optimizer == "adamw":
            return keras.optimizers.AdamW(rate, self.weight_decay, **betas, **average)
        return keras.optimizers.Adam(rate, **betas, **average)

    def loss(self) -> keras.losses.Loss | Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """The cross-entropy of logits and labels."""
        if not self.label_smoothing:
            return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

        def smoothed(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
            classes = logits.shape[-1]
            targets = tf.one_hot(tf.cast(tf.reshape(labels, [-1]), tf.int32), classes)
            return keras.losses.categorical_crossentropy(
                targets, logits, from_logits=True, label_smoothing=self.label_smoothing
            )

        return smoothed


def compile_model(
    model: keras.Model,
    *,
    learning_rate: float,
    beta_1: float,
    steps_per_epoch: int = 1,
    epochs: int = 1,
    recipe: Recipe = Recipe(),
    jit_compile: str = "auto",
) -> None:
    """Compiles a classifier that returns logits.

    Args:
        model: the model.
        learning_rate: the optimizer's step size, or its highest, above 0.
        beta_1: decay of Adam's mean of gradients, in [0, 1).
        steps_per_epoch: how many steps an epoch will have.
        epochs: how many epochs there will be.
        recipe: how weights follow the gradients.
        jit_compile: whether XLA compiles the training step: "on", "off", or "auto": on one
            GPU, unless TensorFlow's ops must be deterministic; XLA has no such gradient of
            max-pooling. It trains these networks slower on CPUs, and cannot compile what
            devices have to say to each other.
    """
    if jit_compile not in JIT_COMPILE:
        raise InvalidArgument("jit_compile", jit_compile, f"one of {', '.join(JIT_COMPILE)}")
    one_device = tf.distribute.get_strategy().num_replicas_in_sync == 1
    one_gpu = one_device and bool(tf.config.list_physical_devices("GPU"))
    optimizer = recipe.make_optimizer(learning_rate, beta_1, epochs * steps_per_epoch)
    if models.precision_of(model) == "mixed_float16":  # small gradients would become 0
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    # On several devices TensorFlow fails to take several steps at once.
    most = _STEPS_AT_ONCE if one_device and model.count_params() < _SMALL_MODEL else 1
    model.compile(
        optimizer=optimizer,
        loss=recipe.loss(),
        metrics=["accuracy"],
        # A divisor, or an epoch would take steps of the next one.
        steps_per_execution=max(n for n in range(1, most + 1) if steps_per_epoch % n == 0),
        jit_compile={"on": True, "off": False, "auto": "auto" if one_gpu else False}[jit_compile],
    )


def fit(
    training: Training,
    *,
    learning_rate: float,
    beta_1: float,
    recipe: Recipe = Recipe(),
    jit_compile: str = "auto",
    backup: callbacks_lib.Backup | None = None,
    tensorboard_dir: str | os.PathLike | None = None,
    label: str | None = None,
) -> pd.DataFrame:
    """Trains a strategy's model in place.

    With a backup that holds a state, training goes on from there, and ends with the
    weights of a training that was not stopped; `training.settings.initial_epoch` must
    then be `backup.completed_epochs()`.

    Args:
        training: from a strategy.
        learning_rate: as in `compile_model`.
        beta_1: as in `compile_model`.
        recipe: as in `compile_model`.
        jit_compile: as in `compile_model`.
        backup: keeps the state after each epoch.
        tensorboard_dir: where to write TensorBoard logs.
        label: the progress bar's label; no bar without one.

    Returns:
        The history, a row an epoch: epoch (from 1), accuracy (a fraction, of the
        training images as they were presented), loss, perturbed_fraction, seconds,
        images_per_second.
    """
    settings = training.settings
    with settings.distribution.scope():
        compile_model(
            training.model,
            learning_rate=learning_rate,
            beta_1=beta_1,
            steps_per_epoch=training.steps_per_epoch,
            epochs=settings.epochs,
            recipe=recipe,
            jit_compile=jit_compile,
        )
    earlier = backup.restore(training.model) if backup else pd.DataFrame()
    callbacks = [*training.callbacks, callbacks_lib.Throughput(training.examples)]
    if tensorboard_dir:
        callbacks.append(keras.callbacks.TensorBoard(tensorboard_dir, write_graph=False))
    if backup:
        callbacks.append(backup)
    with contextlib.ExitStack() as stack:
        if label:
            progress = callbacks_lib.Progress(
                label, settings.epochs, settings.initial_epoch, training.steps_per_epoch
            )
            callbacks.append(stack.enter_context(contextlib.closing(progress)))
        if settings.distribution.num_replicas_in_sync > 1:
            history = _fit_on_devices(training, callbacks)
        else:
            history = training.model.fit(
                training.batches,
                epochs=settings.epochs,
                initial_epoch=settings.initial_epoch,
                steps_per_epoch=training.steps_per_epoch,
                callbacks=callbacks,
                shuffle=False,  # the batches are shuffled already
                verbose=0,
            )
    rows = pd.DataFrame(history.history)
    rows.insert(0, "epoch", [epoch + 1 for epoch in history.epoch])
    return pd.concat([earlier, rows], ignore_index=True)


def _fit_on_devices(
    training: Training, callbacks: list[keras.callbacks.Callback]
) -> keras.callbacks.History:
    """As `keras.Model.fit`, which fails where the devices are those of several workers."""
    model, distribution = training.model, training.settings.distribution
    with distribution.scope():  # variables that a traced step must find made
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        for metric in model.metrics:
            if not getattr(metric, "built", True):
                metric.build(keras.KerasTensor([None], "int64"), model.output)

    @tf.function(autograph=False)
    def step(iterator: tf.distribute.DistributedIterator) -> None:
        distribution.run(model.train_step, args=(next(iterator),))

    history = keras.callbacks.History()
    each = keras.callbacks.CallbackList([*callbacks, history], model=model)
    iterator = iter(training.batches)
    each.on_train_begin()
    for epoch in range(training.settings.initial_epoch, training.settings.epochs):
        model.reset_metrics()
        each.on_epoch_begin(epoch)
        for batch in range(training.steps_per_epoch):
            each.on_train_batch_begin(batch)
            step(iterator)
            each.on_train_batch_end(batch)
        each.on_epoch_end(epoch, model.get_metrics_result())
    with distribution.scope():
        model.optimizer.finalize_variable_values(model.trainable_variables)
    each.on_train_end()
    return history
