"""What the command lines share: flags, errors of one line, exit codes."""

import contextlib
import functools
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import tensorflow as tf
from absl import app, flags, logging

from robust_tf import data, models, results, training
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import OtherImages
from robust_tf.executors import urls
from robust_tf.files import prepare_directory
from robust_tf.paper import experiments
from robust_tf.perturbations import KINDS
from robust_tf.saved_models import classifiers
from robust_tf.training import devices

# The flags that are defined here belong to the pipeline that asks for them.
flags.disclaim_key_flags()


def define_model_flags() -> None:
    """Defines the flags that choose a saved model; see `load_classifier`."""
    flags.DEFINE_string(
        "model",
        None,
        "A SavedModel's directory, with or without its version, or a .keras file; it takes "
        "images and returns a score a class.",
    )
    flags.DEFINE_string(
        "signature",
        None,
        "The signature to call. By default serving_default, or the only one that takes images.",
    )
    flags.DEFINE_string(
        "output",
        None,
        "The signature's output that has the scores. By default probabilities, or the only "
        "one with a score a class.",
    )
    flags.DEFINE_list(
        "input_range", ["0", "1"], "The values that black and white have in the model's input."
    )


def load_classifier(flag: str = "model") -> classifiers.Classifier:
    """Loads the model that the flags of `define_model_flags` choose.

    Args:
        flag: the one that has its path.
    """
    values = flags.FLAGS
    if not values[flag].value:
        raise InvalidArgument(flag, None, "the directory of a SavedModel")
    try:
        low, high = map(float, values.input_range)
    except ValueError:
        given = ",".join(values.input_range)
        raise InvalidArgument("input_range", given, "two numbers, such as 0,255") from None
    return classifiers.load(
        values[flag].value,
        signature=values.signature,
        output=values.output,
        input_range=(low, high),
        argument=flag,
    )


def define_data_flags(
    dataset: str | None = None, test_examples: int | None = None, default: str = ""
) -> None:
    """Defines the flags that choose a dataset; see `load_data` and `load_data_of`.

    Args:
        dataset: the default; None for that of a model.
        test_examples: the default; None for all.
        default: what the default is, in words.
    """
    note = f" By default {default or 'that of the model, or mnist'}." if dataset is None else ""
    flags.DEFINE_string(
        "dataset",
        dataset,
        "A TFDS dataset with images of one size and class labels, e.g. mnist, cifar10." + note,
    )
    define_source_flags(test_examples)


def define_source_flags(test_examples: int | None = None) -> None:
    """Defines the flags that say where data come from and how many test images are used."""
    flags.DEFINE_string(
        "data_dir",
        None,
        "TFDS's data directory. By default TFDS_DATA_DIR, or else ~/tensorflow_datasets.",
    )
    flags.DEFINE_enum(
        "data_source",
        "auto",
        data.DATA_SOURCES,
        "Where the data come from: tfds, sample (5,000 MNIST images, needs no network), or "
        "auto: tfds where it can be had.",
    )
    flags.DEFINE_integer(
        "test_examples",
        test_examples,
        "Use this many test images, the first." + (" By default all." if not test_examples else ""),
    )


def load_data(
    dataset: str | None = None, train_examples: int | None = None, preset: str = "text"
) -> data.Data:
    """Loads the dataset that the flags of `define_data_flags` choose.

    Args:
        dataset: its name where the flag has none.
        train_examples: use this many training images; None for all.
        preset: how the training images are presented.
    """
    values = flags.FLAGS
    dataset = values.dataset or dataset
    return data.load(
        dataset,
        data_dir=values.data_dir,
        data_source=values.data_source,
        train_examples=train_examples,
        test_examples=values.test_examples,
        **experiments.PRESETS[preset].data_options(dataset),
    )


def load_data_of(classifier: classifiers.Classifier) -> data.Data:
    """Loads the dataset that the flags choose, by default the one that a model was trained on."""
    return load_data(classifier.metadata.get("training", {}).get("dataset", "mnist"))


def define_preset_flag() -> None:
    """Defines the flag that chooses among `experiments.PRESETS`."""
    flags.DEFINE_enum(
        "preset",
        "text",
        list(experiments.PRESETS),
        "Where the paper's text and its figures differ: as the text says, or as the published "
        "figures were made (order, number and range of MNIST's training images included).",
    )


def define_device_flags() -> None:
    """Defines the flags that say what trains a model, and how it computes."""
    flags.DEFINE_enum(
        "distribute",
        "none",
        devices.DISTRIBUTIONS,
        "none: train a model on one device; mirrored: share each batch between all GPUs.",
    )
    flags.DEFINE_enum(
        "precision",
        None,
        models.PRECISIONS,
        "What layers compute in. By default float32, or as in a pretrained model.",
    )
    flags.DEFINE_enum(
        "jit_compile",
        "auto",
        training.JIT_COMPILE,
        "Whether XLA compiles the training step. auto: no, since it cannot where the same "
        "command must give the same numbers on a GPU too; with on it need not.",
    )


def define_test_flags(kinds: str = "auto") -> None:
    """Defines the flags that choose the tests; see `kinds_to_test`.

    Args:
        kinds: the kinds by default.
    """
    flags.DEFINE_list(
        "eval",
        kinds,
        "What to test: a list of kinds; all of them; or auto: those of the trained family (stuck, "
        "dead and hot together), all for natural training. In a list besides: corrupted, what is "
        "prepared of TFDS's mnist_corrupted or cifar10_corrupted; and tfds:NAME, the test images "
        "of another TFDS dataset of the same form.",
    )
    flags.DEFINE_integer(
        "trials",
        experiments.TRIALS,
        "Passes over the test images for each random perturbation.",
    )
    flags.DEFINE_bool(
        "channel_blur", None, "Blur over the colour axis too, as in the paper's figures."
    )
    flags.DEFINE_integer("seed", 0, "Decides everything that is random.")
    flags.DEFINE_string(
        "output_dir", "results", "Where the run's folder with tables and figures is made."
    )


def kinds_to_test(perturb: str | None) -> tuple[str, ...]:
    """The kinds that `--eval` asks for.

    Args:
        perturb: what the model was trained with: a kind, several, or "all".

    Raises:
        InvalidArgument: if one is unknown, or `--trials` is below 1.
    """
    asked = [name for name in flags.FLAGS.eval if not _is_other(name)]
    if flags.FLAGS.trials < 1:
        raise InvalidArgument("trials", flags.FLAGS.trials, "a whole number from 1 on")
    for name in asked:
        if name not in ("auto", "all", *KINDS):
            expected = f"auto, all, corrupted, tfds:NAME, or some of {', '.join(KINDS)}"
            raise InvalidArgument("eval", name, expected)
    if "all" in asked or ("auto" in asked and perturb in (None, "all")):
        return tuple(KINDS)
    kinds = [kind for kind in asked if kind != "auto"]
    if "auto" in asked:
        families = {KINDS[kind].family for kind in str(perturb).split(",")}
        kinds += [kind for kind in KINDS if KINDS[kind].family in families]
    return tuple(dict.fromkeys(kinds))


def asks_for_other_images() -> bool:
    """Whether `--eval` asks for more than kinds of perturbation."""
    return any(map(_is_other, flags.FLAGS.eval))


def _is_other(name: str) -> bool:
    return name == "corrupted" or name.startswith("tfds:")


def other_images(like: data.Data) -> tuple[OtherImages, ...]:
    """The tests that `--eval` asks for besides kinds of perturbation.

    Args:
        like: the dataset that the tested models are for.

    Raises:
        InvalidArgument: if a dataset is unknown or of another form.
        Unavailable: if it is not there.
    """
    values = flags.FLAGS
    names = []
    for asked in filter(_is_other, values.eval):
        corrupted = asked == "corrupted"
        names += (
            data.prepared_corruptions(like, values.data_dir)
            if corrupted
            else [asked.removeprefix("tfds:")]
        )
    return tuple(
        OtherImages(
            *_kind_and_severity(name),
            data.load_test(
                name, like, data_dir=values.data_dir, test_examples=values.test_examples
            ),
        )
        for name in dict.fromkeys(names)
    )


def _kind_and_severity(name: str) -> tuple[str, float]:
    """Those of a dataset: TFDS's "cifar10_corrupted/fog_3" is severity 3 of 5."""
    kind, _, severity = name.rpartition("_")
    if name.startswith("cifar10_corrupted/") and severity.isdecimal():
        return kind, float(severity)
    return name, math.nan


def check_outputs() -> None:
    """Sees before the work that directories of this machine can be written.

    Raises:
        InvalidArgument: if two are one.
        Unavailable: if one cannot.
    """
    for name, directory in _outputs().items():
        if not urls.is_url(directory):
            prepare_directory(name, directory)


def outputs() -> contextlib.AbstractContextManager[dict[str, Path]]:
    """The directories that the flags choose for outputs; see `urls.local`."""
    return urls.local(_outputs())


def upload(name: str) -> None:
    """Uploads a run that is finished, where outputs are at URLs; see `urls.upload`."""
    urls.upload(_outputs(), name)


def _outputs() -> dict[str, str]:
    names = ("saved_models_dir", "output_dir")  # a run whose results are there has its SavedModel
    found = {name: flags.FLAGS[name].value for name in names if name in flags.FLAGS}
    places = {
        url.rstrip("/") if urls.is_url(url) else Path(url).resolve() for url in found.values()
    }
    if len(places) < len(found):  # a run has a folder of its name in both
        expected = "another directory than output_dir"
        raise InvalidArgument("saved_models_dir", found["saved_models_dir"], expected)
    return found


def _without_xla() -> bool:
    """Whether ops can be deterministic; XLA cannot compile all of them then."""
    return "jit_compile" not in flags.FLAGS or flags.FLAGS.jit_compile != "on"


def print_accuracies(trials: pd.DataFrame) -> None:
    """Prints the accuracies of models by test; over all, where there are several families."""
    print(results.comparison(trials).to_string())
    tested = set(trials["test_perturb"]) - {"none"}
    if len({KINDS[kind].family if kind in KINDS else kind for kind in tested}) > 1:
        print("\nOver all perturbed tests\n")
        print_profile(trials)


def print_profile(trials: pd.DataFrame, most: int | None = None) -> None:
    """Prints `results.profile` of models, in percent; the best in the worst case, if so many."""
    for dataset, own in trials.groupby("dataset", sort=False):
        profile = results.profile(own)
        if most is not None:
            profile = profile.nlargest(most, "worst").rename_axis(dataset)
        percent = ["natural", "mean", "worst", "drop"]
        profile[percent] = profile[percent].mul(100).round(2)
        print(profile.to_string())


def launch(
    main: Callable[..., None],
    deterministic: Callable[[], bool] = _without_xla,
    arguments: str | None = None,
) -> None:
    """Parses the flags, calls `main` and exits.

    The exit code is 0, 2 for flags that are not allowed, 130 after Ctrl-C, and 1 for
    all other failures. What a user can mend is told in one line on standard error.

    Args:
        main: does the work; takes nothing, or a list of the arguments that are no flags.
        deterministic: once the flags are known, whether the same ops must give the same
            numbers on GPUs too.
        arguments: what arguments that are no flags are called; None to refuse them.
    """

    def guarded(given: list[str]) -> None:
        logging.set_verbosity(logging.ERROR)
        warnings.showwarning = _show_warning
        if deterministic():  # costs nothing measurable on CPUs
            tf.config.experimental.enable_op_determinism()
        try:
            main(*([given[1:]] if arguments else []))
        except InvalidArgument as error:
            _fail(2, _told(error))
        except Unavailable as error:
            _fail(1, _told(error))
        except KeyboardInterrupt:
            resumes = "epochs" in flags.FLAGS
            on = "; the same command goes on after the last whole epoch" if resumes else ""
            _fail(130, f"stopped{on}")

    app.run(guarded, flags_parser=functools.partial(_parse, others=bool(arguments)))


def _parse(arguments: list[str], others: bool) -> list[str]:
    try:
        left = flags.FLAGS(arguments)
    except flags.Error as error:
        _fail(2, str(error))
    except SystemExit:  # after --help, where absl says 1
        sys.exit(0)
    if len(left) > 1 and not others:
        _fail(2, f"{left[1]}: expected flags only, as in --name=value")
    return left


def _told(error: InvalidArgument | Unavailable) -> str:
    """The error in a line, which begins with the flag."""
    return f"--{error}" if error.argument in flags.FLAGS else str(error)


def _show_warning(message: Warning | str, *_: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _fail(code: int, message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
