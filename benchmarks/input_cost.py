"""What a perturbation costs in training and in evaluation, as ratios within one run.

Variants are timed in turn, round by round, so that a slow moment of a shared machine
hits all of them; each figure is the median of the rounds.
"""

import statistics
import time
from collections.abc import Callable

import pandas as pd
import tensorflow as tf
from absl import flags

from pipelines import app
from robust_tf import data, experiments, models
from robust_tf.callbacks import Ramp, Throughput
from robust_tf.evaluation import Evaluator
from robust_tf.perturbations import KINDS, Perturbation
from robust_tf.strategies import STRATEGIES, Settings
from robust_tf.training import compile_model

# Epochs of a timed fit; the first, in which Keras and tf.data start, is not counted.
_EPOCHS = 4

_DATASET = flags.DEFINE_string("dataset", "mnist", "A TFDS dataset.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "TFDS's data directory.")
_DATA_SOURCE = flags.DEFINE_enum("data_source", "auto", data.DATA_SOURCES, "As in pipelines.run.")
_TRAIN_EXAMPLES = flags.DEFINE_integer("train_examples", None, "Training images; all by default.")
_TEST_EXAMPLES = flags.DEFINE_integer("test_examples", None, "Test images; all by default.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed rounds.")
_OUTPUT = flags.DEFINE_string("output", None, "CSV to write the figures to.")


def main() -> None:
    """Times everything and prints the tables."""
    dataset = data.load(
        _DATASET.value,
        data_dir=_DATA_DIR.value,
        data_source=_DATA_SOURCE.value,
        train_examples=_TRAIN_EXAMPLES.value,
        test_examples=_TEST_EXAMPLES.value,
    )
    print(f"{dataset.name} ({dataset.source}): {len(dataset.train)} + {len(dataset.test)} images")
    print(f"TensorFlow {tf.__version__}, median of {_ROUNDS.value} rounds")
    tables = {"training": training_costs(dataset), "evaluation": evaluation_costs(dataset)}
    for name, table in tables.items():
        print(f"\n{name}\n{table.to_string(index=False, float_format='{:.3f}'.format)}")
    if _OUTPUT.value:
        pd.concat(tables, names=["what"]).reset_index("what").to_csv(_OUTPUT.value, index=False)


def training_costs(dataset: data.Data) -> pd.DataFrame:
    """Seconds of set-up and of an epoch, and whole trainings relative to natural."""
    name = experiments.default_model(dataset.image_shape)
    paper, preset = experiments.HYPERPARAMETERS[name], experiments.PRESETS["text"]
    variants = {"natural": ("natural", None, False)}
    for kind, level in experiments.TRAIN_LEVELS.items():
        perturbation = Perturbation(kind, level)
        variants[f"constant {kind}"] = ("constant", perturbation, False)
        variants[f"constant {kind}, fresh"] = ("constant", perturbation, True)
        variants[f"incremental {kind}"] = ("incremental", perturbation, False)
        variants[f"incremental {kind}, fresh"] = ("incremental", perturbation, True)
    setup, epochs = {}, {}
    for label, (strategy, perturbation, fresh) in variants.items():
        settings = Settings(
            epochs=_EPOCHS,
            batch_size=experiments.default_hyperparameters(
                name, "constant", len(dataset.train)
            ).batch_size,
            perturbation=perturbation,
            ramp=Ramp(0.5, 0.5),  # the mean of the ramp, in every epoch
            fresh=fresh,
        )
        start = time.perf_counter()
        training = STRATEGIES[strategy](
            dataset.train,
            lambda: models.build(name, dataset.image_shape, len(dataset.label_names)),
            settings,
        )
        setup[label] = time.perf_counter() - start
        compile_model(training.model, learning_rate=paper.learning_rate, beta_1=preset.beta_1)

        def epoch(training=training) -> float:
            history = training.model.fit(
                training.batches,
                epochs=_EPOCHS,
                steps_per_epoch=training.steps_per_epoch,
                callbacks=[Throughput(training.examples)],
                shuffle=False,
                verbose=0,
            ).history
            return statistics.mean(history["seconds"][1:])

        epochs[label] = epoch
    seconds = medians(epochs)
    table = pd.DataFrame({"training": list(variants)})
    table["setup_s"] = table["training"].map(setup)
    table["epoch_s"] = table["training"].map(seconds)
    table["images_per_s"] = len(dataset.train) / table["epoch_s"]
    table["epoch_ratio"] = table["epoch_s"] / seconds["natural"]
    whole = table["setup_s"] + paper.epochs * table["epoch_s"]
    table["model_ratio"] = whole / whole[0]
    return table


def evaluation_costs(dataset: data.Data) -> pd.DataFrame:
    """Seconds of 25 trials a kind, relative to 25 bare forward passes."""
    name = experiments.default_model(dataset.image_shape)
    model = models.build(name, dataset.image_shape, len(dataset.label_names))
    evaluator = Evaluator(model, dataset.test)
    conditions = {"natural": None}
    conditions |= {kind: Perturbation(kind, experiments.TEST_LEVELS[kind][-1]) for kind in KINDS}

    def trials(condition: Perturbation | None) -> float:
        start = time.perf_counter()
        for trial in range(experiments.TRIALS):
            evaluator.accuracy(condition, trial)
        return time.perf_counter() - start

    seconds = medians(
        {
            label: lambda condition=condition: trials(condition)
            for label, condition in conditions.items()
        }
    )
    table = pd.DataFrame({"test": list(conditions)})
    table["trials_s"] = table["test"].map(seconds)
    table["images_per_s"] = experiments.TRIALS * len(dataset.test) / table["trials_s"]
    table["ratio"] = table["trials_s"] / seconds["natural"]
    return table


def medians(variants: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Median of what each variant returns over the rounds, after a round of warm-up."""
    seconds: dict[str, list[float]] = {label: [] for label in variants}
    for round_ in range(_ROUNDS.value + 1):
        for label, run in variants.items():
            measured = run()
            if round_:
                seconds[label].append(measured)
    return {label: statistics.median(values) for label, values in seconds.items()}


if __name__ == "__main__":
    app.launch(main)
