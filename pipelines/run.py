"""Trains one classifier, measures how it holds up under sensor changes, and saves it.

Example:
  python -m pipelines.run --strategy=constant --perturb=hot
"""

import pandas as pd
from absl import flags

from pipelines import app
from robust_tf import models, runs, training
from robust_tf.errors import InvalidArgument
from robust_tf.paper import experiments
from robust_tf.perturbations import KINDS
from robust_tf.runs.declaration import Options
from robust_tf.training import augmentations
from robust_tf.training.callbacks import RAMPS, Ramp
from robust_tf.training.strategies import STRATEGIES

_LEVELS = ", ".join(f"{name} {kind.train_level:g}" for name, kind in KINDS.items())
_RANGES = ", ".join(
    f"{name}={kind.train_range[0]:g}:{kind.train_range[1]:g}" for name, kind in KINDS.items()
)
_HEADS = "; ".join(
    f"{','.join(map(str, units))} ({model})" for model, units in experiments.HEAD_UNITS.items()
)


_PRESETS = experiments.PRESETS


def _by_preset(name: str) -> str:
    """The defaults of a preset's setting, in words."""
    values = ((key, getattr(preset, name)) for key, preset in _PRESETS.items())
    return "By default " + ", ".join(
        f"{str(value).lower() if isinstance(value, bool) else f'{value:g}'} ({key})"
        for key, value in values
    )


def _by_model(name: str) -> str:
    """The defaults of a hyperparameter, in words."""
    usual, transfer = (
        ", ".join(f"{getattr(values, name)} ({model})" for model, values in table.items())
        for table in (experiments.HYPERPARAMETERS, experiments.TRANSFER_HYPERPARAMETERS)
    )
    return f"By default {usual}" + (f"; transfer: {transfer}" * (usual != transfer))


app.define_data_flags("mnist")
_TRAIN_EXAMPLES = flags.DEFINE_integer(
    "train_examples", None, "Train on this many images, the first. By default on all."
)
_STRATEGY = flags.DEFINE_enum(
    "strategy",
    None,
    list(STRATEGIES),
    "natural: no perturbation; constant: every training image is perturbed; incremental: "
    "a fraction of each batch that grows with the epochs; transfer: a natural model gets a "
    "new head and is trained on perturbed images. By default constant with --perturb, or "
    "else natural.",
)
_PERTURB = flags.DEFINE_string(
    "perturb",
    None,
    f"The kind of perturbation in training, one of {', '.join(KINDS)}; or several, separated by "
    "commas, or all: each image then has one of them, at one of the levels of --level. None for "
    "natural.",
)
_LEVEL = flags.DEFINE_string(
    "level",
    None,
    "Level of the training perturbation: number of pixels (stuck, dead, hot), standard "
    f"deviation in units of the value range (noise), sigma in pixels (blur). By default "
    f"{_LEVELS}. Or a range, 1:10, of which each image has a level; for several kinds such as "
    f"hot=1:5,noise=0.01:0.05, by default {_RANGES}.",
)
app.define_preset_flag()
_EXTRA_PIXELS = flags.DEFINE_integer(
    "extra_pixels",
    None,
    "Pixels that are perturbed in training beyond --level (stuck, dead, hot). "
    f"{_by_preset('extra_pixels')}.",
)
_FRESH = flags.DEFINE_bool(
    "fresh", False, "Draw a training image's perturbation anew in each epoch."
)
_RAMP = flags.DEFINE_enum(
    "ramp", Ramp.shape, list(RAMPS), "How the perturbed fraction grows (incremental)."
)
_RAMP_START = flags.DEFINE_float(
    "ramp_start",
    None,
    f"Perturbed fraction in the first epoch, 0 to 1 (incremental). {_by_preset('ramp_start')}.",
)
_RAMP_END = flags.DEFINE_float(
    "ramp_end",
    None,
    "Perturbed fraction in the last epoch, 0 to 1 (incremental). "
    f"By default {_PRESETS['text'].ramp_end:g} (text), 1 - 1/epochs (published).",
)
_PRETRAINED = flags.DEFINE_string(
    "pretrained",
    None,
    "Directory of the SavedModel to start from, with or without its version (transfer). By "
    "default the natural model that the same flags with --strategy=natural give, trained "
    "first where it is not there.",
)
_HEAD_UNITS = flags.DEFINE_list(
    "head_units",
    None,
    "Units of the ReLU layers of the new head, separated by commas; empty for none "
    f"(transfer). By default the paper's: {_HEADS}.",
)
_FREEZE_BASE = flags.DEFINE_bool("freeze_base", False, "Train nothing but the new head (transfer).")
_KEEP_STANDARDIZATION = flags.DEFINE_bool(
    "keep_standardization",
    False,
    "Keep mean and deviation of the input as they were for the natural images, instead of "
    "taking those of the perturbed ones; so it is with --freeze_base anyway (transfer).",
)
_MODEL = flags.DEFINE_enum(
    "model",
    None,
    list(models.MODELS),
    "The network: the paper's two, or compact, which learns CIFAR-10 in minutes. By default "
    "mnist_cnn for images of one channel, or else cifar10_cnn.",
)
_BATCH_NORM = flags.DEFINE_bool(
    "batch_norm", None, "Batch norm after each convolution. By default as in the network."
)
_DROPOUT = flags.DEFINE_float(
    "dropout", None, "Rate of the dropout after each pooling. By default the network's, 0.2."
)
_ACTIVATION = flags.DEFINE_enum(
    "activation",
    None,
    models.ACTIVATIONS,
    "Activation after each convolution. By default the network's, relu.",
)
_STANDARDIZE = flags.DEFINE_enum(
    "standardize",
    None,
    models.STANDARDIZATIONS,
    "Mean and deviation of the input at each pixel position (as in the paper), over all "
    f"values, or none. {_by_model('standardize')}; with --pretrained as there.",
)
_EPOCHS = flags.DEFINE_integer(
    "epochs",
    None,
    f"Passes over the training images. {_by_model('epochs')}.",
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    f"Images a batch. {_by_model('batch_size')}. Less where that makes fewer than "
    f"{experiments.LEAST_STEPS_PER_EPOCH} batches an epoch.",
)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate",
    None,
    f"The optimizer's step size, or its highest. {_by_model('learning_rate')}; with an "
    "--optimizer that this is not for, Keras's default.",
)
_OPTIMIZER = flags.DEFINE_enum(
    "optimizer",
    None,
    training.OPTIMIZERS,
    f"sgd has Nesterov's momentum of 0.9. {_by_model('optimizer')}.",
)
_SCHEDULE = flags.DEFINE_enum(
    "schedule",
    None,
    training.SCHEDULES,
    "constant: the learning rate stays; one_cycle: it rises from a tenth in the first fifth of "
    f"all steps, then falls to 0. {_by_model('schedule')}.",
)
_WEIGHT_DECAY = flags.DEFINE_float(
    "weight_decay",
    None,
    "Share of a weight that a step takes off it, for each unit of the learning rate (adamw, "
    f"sgd). {_by_model('weight_decay')}.",
)
_LABEL_SMOOTHING = flags.DEFINE_float(
    "label_smoothing",
    None,
    f"Share of a label that is spread over all classes, from 0 to below 1. "
    f"{_by_model('label_smoothing')}.",
)
_WEIGHT_AVERAGE = flags.DEFINE_float(
    "weight_average",
    None,
    "Decay of a moving average of the weights, which the trained model has; 0 for none. "
    f"{_by_model('weight_average')}.",
)
_AUGMENT = flags.DEFINE_string(
    "augment",
    None,
    f"none, or some of {', '.join(augmentations.AUGMENTATIONS)}, separated by commas: changes "
    "of the training images before they are perturbed, anew in each epoch. flip: left and right "
    "change places, and the trained network averages over an image and its mirror image; shift: "
    f"by up to an eighth of a side. {_by_model('augment')}; no flip for images of one channel.",
)
_BETA_1 = flags.DEFINE_float(
    "beta_1", None, f"Decay of Adam's mean of gradients. {_by_preset('beta_1')}."
)
_SHUFFLE = flags.DEFINE_bool(
    "shuffle",
    None,
    f"Shuffle the training images in each epoch. {_by_preset('shuffle')}.",
)
_DROP_REMAINDER = flags.DEFINE_bool(
    "drop_remainder",
    None,
    "Leave out the training images of an epoch that do not fill a batch. "
    f"{_by_preset('drop_remainder')}.",
)
app.define_device_flags()
app.define_test_flags()
_COMPARE_NATURAL = flags.DEFINE_bool(
    "compare_natural",
    None,
    "Also train the same network on natural images, or take it from an earlier run with "
    "the same settings, to compare with. By default yes, except with --pretrained.",
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
    values = flags.FLAGS
    options = Options(
        strategy=_STRATEGY.value or ("constant" if _PERTURB.value else "natural"),
        perturb=_PERTURB.value,
        level=_LEVEL.value,
        preset=values.preset,
        extra_pixels=_EXTRA_PIXELS.value,
        channel_blur=values.channel_blur,
        fresh=_FRESH.value,
        ramp=_RAMP.value,
        ramp_start=_RAMP_START.value,
        ramp_end=_RAMP_END.value,
        pretrained=_PRETRAINED.value,
        head_units=_head_units(),
        freeze_base=_FREEZE_BASE.value,
        keep_standardization=_KEEP_STANDARDIZATION.value,
        model=_MODEL.value,
        batch_norm=_BATCH_NORM.value,
        dropout=_DROPOUT.value,
        activation=_ACTIVATION.value,
        epochs=_EPOCHS.value,
        batch_size=_BATCH_SIZE.value,
        learning_rate=_LEARNING_RATE.value,
        optimizer=_OPTIMIZER.value,
        schedule=_SCHEDULE.value,
        weight_decay=_WEIGHT_DECAY.value,
        label_smoothing=_LABEL_SMOOTHING.value,
        weight_average=_WEIGHT_AVERAGE.value,
        augment=_AUGMENT.value,
        beta_1=_BETA_1.value,
        shuffle=_SHUFFLE.value,
        drop_remainder=_DROP_REMAINDER.value,
        standardize=_STANDARDIZE.value,
        precision=values.precision,
        jit_compile=values.jit_compile,
        distribute=values.distribute,
        seed=values.seed,
    )
    conditions = experiments.test_conditions(
        app.kinds_to_test(options.perturb), bool(options.channel_blur)
    )
    if not _DRY_RUN.value:
        app.check_outputs()
    dataset = app.load_data(train_examples=_TRAIN_EXAMPLES.value, preset=values.preset)
    run = options.resolve(dataset)
    conditions = (*conditions, *app.other_images(dataset))
    if _DRY_RUN.value:
        for name, value in run.columns().items():
            print(f"{name} = {'' if value is None else value}")
        print(f"tests = {', '.join(str(condition or 'natural') for condition in conditions)}")
        print(f"trials = {values.trials}")
        return
    compare_natural = _COMPARE_NATURAL.value
    if compare_natural is None:
        compare_natural = _PRETRAINED.value is None
    both = [run.natural_run, run] if run.natural_run and compare_natural else [run]
    trials = []
    with app.outputs() as folders:
        for each in both:
            if runs.is_finished(each, folders["output_dir"]):
                print(f"{each.label} is trained already: {values.output_dir}/{each.name}")
            runs.train(
                each,
                dataset,
                saved_models_url=_SAVED_MODELS_DIR.value,
                tensorboard=_TENSORBOARD.value,
                **folders,
            )
            trials.append(runs.test(each, dataset, conditions, trials=values.trials, **folders))
        table = pd.concat(trials, ignore_index=True)
        figures = runs.draw(both, dataset, conditions, table, **folders)
        finished = pd.read_csv(figures.parent / "runs.csv").iloc[0]
    print(
        f"\nAccuracy in percent, mean ± standard deviation over {values.trials} trials on "
        f"{len(dataset.test):,} test images of {dataset.name} ({dataset.source})\n"
    )
    app.print_accuracies(table)
    print(f"\nresults     {values.output_dir}/{run.name}")
    print(f"figures     {values.output_dir}/{run.name}/figures")
    print(f"SavedModel  {finished['saved_model']}")


def _head_units() -> tuple[int, ...] | None:
    if _HEAD_UNITS.value is None:
        return None
    try:
        return tuple(int(units) for units in _HEAD_UNITS.value if units)
    except ValueError:
        expected = "whole numbers from 1 on, separated by commas"
        raise InvalidArgument("head_units", ",".join(_HEAD_UNITS.value), expected) from None


if __name__ == "__main__":
    app.launch(main)
