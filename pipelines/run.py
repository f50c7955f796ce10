"""Trains one classifier, measures how it holds up under sensor changes, and saves it.

Example:
  python -m pipelines.run --strategy=constant --perturb=hot
"""

import pandas as pd
from absl import flags

from pipelines import app
from robust_tf import data, experiments, models, results, runs
from robust_tf.callbacks import RAMPS, Ramp
from robust_tf.configuration import Options
from robust_tf.errors import InvalidArgument
from robust_tf.files import prepare_directory
from robust_tf.perturbations import KINDS
from robust_tf.strategies import STRATEGIES

_MNIST, _CIFAR10 = (experiments.HYPERPARAMETERS[name] for name in ("mnist_cnn", "cifar10_cnn"))
_LEVELS = ", ".join(f"{kind} {level:g}" for kind, level in experiments.TRAIN_LEVELS.items())
_BY_MODEL = "By default the paper's: {} (mnist_cnn), {} (cifar10_cnn)."

_DATASET = flags.DEFINE_string(
    "dataset",
    "mnist",
    "A TFDS dataset with images of one size and class labels, e.g. mnist, cifar10.",
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "TFDS's data directory. By default TFDS_DATA_DIR, or else ~/tensorflow_datasets.",
)
_DATA_SOURCE = flags.DEFINE_enum(
    "data_source",
    "auto",
    data.DATA_SOURCES,
    "Where the data come from: tfds, sample (5,000 MNIST images, needs no network), or "
    "auto: tfds where it can be had.",
)
_TRAIN_EXAMPLES = flags.DEFINE_integer(
    "train_examples", None, "Train on this many images, the first. By default on all."
)
_TEST_EXAMPLES = flags.DEFINE_integer(
    "test_examples", None, "Test on this many images, the first. By default on all."
)
_STRATEGY = flags.DEFINE_enum(
    "strategy",
    None,
    list(STRATEGIES),
    "natural: no perturbation; constant: every training image is perturbed; incremental: "
    "a fraction of each batch that grows with the epochs. By default constant with "
    "--perturb, or else natural.",
)
_PERTURB = flags.DEFINE_enum(
    "perturb", None, list(KINDS), "The kind of perturbation in training; none for natural."
)
_LEVEL = flags.DEFINE_float(
    "level",
    None,
    "Level of the training perturbation: number of pixels (stuck, dead, hot), standard "
    f"deviation in units of the value range (noise), sigma in pixels (blur). By default "
    f"{_LEVELS}.",
)
_CHANNEL_BLUR = flags.DEFINE_bool(
    "channel_blur", False, "Blur over the colour axis too, as in the paper's figures."
)
_FRESH = flags.DEFINE_bool(
    "fresh", False, "Draw a training image's perturbation anew in each epoch."
)
_RAMP = flags.DEFINE_enum(
    "ramp", Ramp.shape, list(RAMPS), "How the perturbed fraction grows (incremental)."
)
_RAMP_START = flags.DEFINE_float(
    "ramp_start", Ramp.start, "Perturbed fraction in the first epoch, 0 to 1 (incremental)."
)
_RAMP_END = flags.DEFINE_float(
    "ramp_end", Ramp.end, "Perturbed fraction in the last epoch, 0 to 1 (incremental)."
)
_MODEL = flags.DEFINE_enum(
    "model",
    None,
    list(models.MODELS),
    "The network. By default mnist_cnn for images of one channel, or else cifar10_cnn.",
)
_STANDARDIZE = flags.DEFINE_enum(
    "standardize",
    "pixel",
    models.STANDARDIZATIONS,
    "Mean and deviation of the input at each pixel position (as in the paper), over all "
    "values, or none.",
)
_EPOCHS = flags.DEFINE_integer(
    "epochs",
    None,
    "Passes over the training images. " + _BY_MODEL.format(_MNIST.epochs, _CIFAR10.epochs),
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    "Images a batch. "
    + _BY_MODEL.format(_MNIST.batch_size, _CIFAR10.batch_size)
    + f" Less where that makes fewer than {experiments.LEAST_STEPS_PER_EPOCH} batches an epoch.",
)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate",
    None,
    "Adam's step size. " + _BY_MODEL.format(_MNIST.learning_rate, _CIFAR10.learning_rate),
)
_BETA_1 = flags.DEFINE_float(
    "beta_1", None, f"Decay of Adam's mean of gradients. By default {_MNIST.beta_1}."
)
_SEED = flags.DEFINE_integer("seed", 0, "Decides everything that is random.")
_EVAL = flags.DEFINE_list(
    "eval",
    "auto",
    "Which kinds to test: a list of kinds; all; or auto: the kinds of the trained family "
    "(stuck, dead and hot together), all for natural training.",
)
_TRIALS = flags.DEFINE_integer(
    "trials", experiments.TRIALS, "Passes over the test images for each random perturbation."
)
_COMPARE_NATURAL = flags.DEFINE_bool(
    "compare_natural",
    True,
    "Also train the same network on natural images, or take it from an earlier run with "
    "the same settings, to compare with.",
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", "results", "Where the run's folder with tables and figures is made."
)
_SAVED_MODELS_DIR = flags.DEFINE_string(
    "saved_models_dir", "saved_models", "Where the run's SavedModel is exported."
)
_TENSORBOARD = flags.DEFINE_bool(
    "tensorboard", False, "Write TensorBoard logs to the run's folder."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the resolved configuration and stop.")


def main() -> None:
    """Runs what the flags say."""
    options = Options(
        strategy=_STRATEGY.value or ("constant" if _PERTURB.value else "natural"),
        perturb=_PERTURB.value,
        level=_LEVEL.value,
        channel_blur=_CHANNEL_BLUR.value,
        fresh=_FRESH.value,
        ramp=_RAMP.value,
        ramp_start=_RAMP_START.value,
        ramp_end=_RAMP_END.value,
        model=_MODEL.value,
        epochs=_EPOCHS.value,
        batch_size=_BATCH_SIZE.value,
        learning_rate=_LEARNING_RATE.value,
        beta_1=_BETA_1.value,
        standardize=_STANDARDIZE.value,
        seed=_SEED.value,
    )
    kinds = _kinds_to_test(options.perturb)
    conditions = experiments.test_conditions(kinds, options.channel_blur)
    if _TRIALS.value < 1:
        raise InvalidArgument("trials", _TRIALS.value, "a whole number from 1 on")
    if not _DRY_RUN.value:
        prepare_directory("output_dir", _OUTPUT_DIR.value)
        prepare_directory("saved_models_dir", _SAVED_MODELS_DIR.value)
    dataset = data.load(
        _DATASET.value,
        data_dir=_DATA_DIR.value,
        data_source=_DATA_SOURCE.value,
        train_examples=_TRAIN_EXAMPLES.value,
        test_examples=_TEST_EXAMPLES.value,
    )
    run = options.resolve(dataset)
    if _DRY_RUN.value:
        for name, value in run.columns().items():
            print(f"{name} = {'' if value is None else value}")
        print(f"tests = {', '.join(str(condition or 'natural') for condition in conditions)}")
        print(f"trials = {_TRIALS.value}")
        return
    both = [run]
    if _COMPARE_NATURAL.value and run.strategy != "natural":
        both.insert(0, run.natural())
    folders = {"output_dir": _OUTPUT_DIR.value, "saved_models_dir": _SAVED_MODELS_DIR.value}
    trials = []
    for each in both:
        if runs.is_finished(each, _OUTPUT_DIR.value):
            print(f"{each.label} is trained already: {_OUTPUT_DIR.value}/{each.name}")
        runs.train(each, dataset, tensorboard=_TENSORBOARD.value, **folders)
        trials.append(runs.test(each, dataset, conditions, trials=_TRIALS.value, **folders))
    table = pd.concat(trials, ignore_index=True)
    figures = runs.draw(both, dataset, conditions, table, **folders)
    finished = pd.read_csv(figures.parent / "runs.csv").iloc[0]
    print(
        f"\nAccuracy in percent, mean ± standard deviation over {_TRIALS.value} trials on "
        f"{len(dataset.test):,} test images of {dataset.name} ({dataset.source})\n"
    )
    print(results.comparison(table).to_string())
    print(f"\nresults     {figures.parent}")
    print(f"figures     {figures}")
    print(f"SavedModel  {finished['saved_model']}")


def _kinds_to_test(perturb: str | None) -> tuple[str, ...]:
    asked = _EVAL.value
    if asked == ["all"] or (asked == ["auto"] and perturb is None):
        return tuple(KINDS)
    if asked == ["auto"]:
        return tuple(kind for kind in KINDS if KINDS[kind].family == KINDS[perturb].family)
    for kind in asked:
        if kind not in KINDS:
            raise InvalidArgument("eval", kind, f"auto, all, or some of {', '.join(KINDS)}")
    return tuple(asked)


if __name__ == "__main__":
    app.launch(main)
