"""Compile and fit: one way to train whatever a strategy hands over."""

import contextlib
import os

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from robust_tf import models
from robust_tf.errors import InvalidArgument
from robust_tf.training import callbacks as callbacks_lib
from robust_tf.training.backup import Backup
from robust_tf.training.batches import Training
from robust_tf.training.recipes import JIT_COMPILE, Recipe

# A step of a model with fewer parameters takes about as long as Keras takes to start one;
# so many steps, at most, are started at once.
_SMALL_MODEL = 100_000
_STEPS_AT_ONCE = 20


@models.keras_defaults()
def compile_model(
    model: keras.Model,
    recipe: Recipe,
    *,
    steps_per_epoch: int,
    jit_compile: str = "auto",
    class_weights: np.ndarray | None = None,
) -> None:
    """Compiles a classifier that returns logits.

    Args:
        model: the model.
        recipe: how weights follow the gradients.
        steps_per_epoch: how many steps an epoch will have.
        jit_compile: whether XLA compiles the training step: "on", "off", or "auto": on one
            GPU, unless TensorFlow's ops must be deterministic; XLA has no such gradient of
            max-pooling. It trains these networks slower on CPUs, and cannot compile what
            devices have to say to each other.
        class_weights: how much the images of each class count, [classes]; None for the same.
    """
    if jit_compile not in JIT_COMPILE:
        raise InvalidArgument("jit_compile", jit_compile, f"one of {', '.join(JIT_COMPILE)}")
    one_device = tf.distribute.get_strategy().num_replicas_in_sync == 1
    one_gpu = one_device and bool(tf.config.list_physical_devices("GPU"))
    optimizer = recipe.make_optimizer(recipe.epochs * steps_per_epoch)
    if models.precision_of(model) == "mixed_float16":  # small gradients would become 0
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    # On several devices TensorFlow fails to take several steps at once.
    most = _STEPS_AT_ONCE if one_device and model.count_params() < _SMALL_MODEL else 1
    model.compile(
        optimizer=optimizer,
        loss=recipe.loss(class_weights),
        metrics=["accuracy"],
        # A divisor, or an epoch would take steps of the next one.
        steps_per_execution=max(n for n in range(1, most + 1) if steps_per_epoch % n == 0),
        jit_compile={"on": True, "off": False, "auto": "auto" if one_gpu else False}[jit_compile],
    )


@models.keras_defaults()
def fit(
    training: Training,
    *,
    jit_compile: str = "auto",
    backup: Backup | None = None,
    tensorboard_dir: str | os.PathLike | None = None,
    label: str | None = None,
) -> pd.DataFrame:
    """Trains a strategy's model in place.

    With a backup that holds a state, training goes on from there, and ends with the
    weights of a training that was not stopped; `training.initial_epoch` must
    then be `backup.completed_epochs()`.

    Args:
        training: from a strategy.
        jit_compile: as in `compile_model`.
        backup: keeps the state after each epoch.
        tensorboard_dir: where to write TensorBoard logs.
        label: the progress bar's label; no bar without one.

    Returns:
        The history, one row per epoch: epoch (from 1), accuracy (a fraction, of the
        training images as they were presented), loss, perturbed_fraction, seconds,
        images_per_second; with held-out images also val_loss and val_accuracy.

    Raises:
        Unavailable: if the loss or a weight is not finite. The backup then has the state before
            that epoch.
    """
    epochs, distribution = training.recipe.epochs, training.distribution
    with distribution.scope():
        compile_model(
            training.model,
            training.recipe,
            steps_per_epoch=training.steps_per_epoch,
            jit_compile=jit_compile,
            class_weights=training.class_weights,
        )
        _make_variables(training.model)
    earlier = backup.restore(training.model) if backup else pd.DataFrame()
    callbacks = [
        *training.callbacks,
        callbacks_lib.Throughput(training.examples),
    ]
    if validation := training.validation:
        callbacks.append(validation)
        if backup and len(earlier):
            validation.resume(earlier["val_loss"], backup.best(training.model))
        if validation.ended:
            epochs = training.initial_epoch
    callbacks.append(callbacks_lib.Divergence(training.recipe.optimizer.learning_rate))
    if tensorboard_dir:
        callbacks.append(keras.callbacks.TensorBoard(tensorboard_dir, write_graph=False))
    if backup:
        callbacks.append(backup)
    with contextlib.ExitStack() as stack:
        if label:
            progress = callbacks_lib.Progress(
                label, training.recipe.epochs, training.initial_epoch, training.steps_per_epoch
            )
            callbacks.append(stack.enter_context(contextlib.closing(progress)))
        if distribution.num_replicas_in_sync > 1:
            history = _fit_on_devices(training, callbacks, epochs)
        else:
            history = training.model.fit(
                training.batches,
                epochs=epochs,
                initial_epoch=training.initial_epoch,
                steps_per_epoch=training.steps_per_epoch,
                callbacks=callbacks,
                shuffle=False,  # the batches are shuffled already
                verbose=0,
            )
    if not history.epoch:  # all was done before
        return earlier
    rows = pd.DataFrame(history.history)
    rows.insert(0, "epoch", [epoch + 1 for epoch in history.epoch])
    return pd.concat([earlier, rows], ignore_index=True)


def _make_variables(model: keras.Model) -> None:
    """Makes the optimiser's and the metrics' variables; a step that makes them is traced twice."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    for metric in model.metrics:
        if not getattr(metric, "built", True):
            metric.build(keras.KerasTensor([None], "int64"), model.output)


def _fit_on_devices(
    training: Training, callbacks: list[keras.callbacks.Callback], epochs: int
) -> keras.callbacks.History:
    """As `keras.Model.fit`, which fails where the devices are those of several workers."""
    model, distribution = training.model, training.distribution

    @tf.function(autograph=False)
    def step(iterator: tf.distribute.DistributedIterator) -> None:
        distribution.run(model.train_step, args=(next(iterator),))

    history = keras.callbacks.History()
    each = keras.callbacks.CallbackList([*callbacks, history], model=model)
    iterator = iter(training.batches)
    each.on_train_begin()
    model.stop_training = False
    for epoch in range(training.initial_epoch, epochs):
        model.reset_metrics()
        each.on_epoch_begin(epoch)
        for batch in range(training.steps_per_epoch):
            each.on_train_batch_begin(batch)
            step(iterator)
            each.on_train_batch_end(batch)
        each.on_epoch_end(epoch, model.get_metrics_result())
        if model.stop_training:
            break
    with distribution.scope():
        model.optimizer.finalize_variable_values(model.trainable_variables)
    each.on_train_end()
    return history
