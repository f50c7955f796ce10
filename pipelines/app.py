"""What all command lines share: errors of one line, exit codes, places of outputs, tables.

Whoever mistypes a flag learns of it at once: like all modules of this package, this one imports
TensorFlow, pandas and the like when `main` runs, not before.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import logging

from pipelines import flags
from pipelines.shared_flags import Outputs
from robust_tf import data, machine, results, settings
from robust_tf.errors import InvalidArgument, Unavailable, one_line
from robust_tf.executors import uploads
from robust_tf.files import prepare_directory
from robust_tf.perturbations import KINDS
from robust_tf.runs.sources import Sources

if TYPE_CHECKING:
    import pandas as pd

    from robust_tf.saved_models import Classifier

# What brackets hold, below the line that says what a table has.
IN_BRACKETS = "[95 % interval of the mean, for other draws and other test images]"


def launch(
    main: Callable[[flags.Values], None],
    groups: flags.Groups,
    argv: Sequence[str] | None = None,
    *,
    arguments: str | None = None,
    words: Mapping[str, str] | None = None,
    check: Callable[[flags.Values], None] | None = None,
) -> None:
    """Parses the flags, imports TensorFlow, calls `main` and exits.

    The exit code is 0, 2 for flags that are not allowed, `NOT_ACCEPTED` where `main` exits with
    it, 130 after Ctrl-C, and 1 for all other failures. What a user can mend is reported in one
    line on standard error.

    Args:
        main: does the work.
        groups: the flags by the title of their group.
        argv: the program's name and arguments; by default those of this process.
        arguments: what arguments that are no flags are called; None to refuse them.
        words: defaults in words for the help, by flag.
        check: checks what needs no TensorFlow, which is imported afterwards.
    """
    argv = sys.argv if argv is None else argv
    known = {one.name for group in groups.values() for one in group}
    _write_whatever_the_encoding()
    logging.set_verbosity(logging.ERROR)
    warnings.showwarning = _show_warning
    try:
        os.getcwd()
    except FileNotFoundError:
        _fail(1, "the working directory was removed; change to one that is there")
    begun = False
    try:
        values = flags.parse(argv, groups)
        if values.others and arguments is None:
            raise flags.FlagError(f"{values.others[0]}: expected flags only, as in --name=value")
        if check is not None:
            check(values)
        _load_tensorflow(
            # Costs nothing measurable on CPUs; XLA cannot compile all of it.
            deterministic=values.defaults.get("jit_compile") is None or values.jit_compile != "on"
        )
        begun = True
        main(values)
    except flags.HelpAsked:
        doc = sys.modules[main.__module__].__doc__ or ""
        print(flags.usage(doc, groups, words or {}))
    except flags.FlagError as error:
        _fail(2, str(error))
    except (InvalidArgument, Unavailable) as error:
        line = f"--{error}" if error.argument in known else str(error)
        _fail(2 if isinstance(error, InvalidArgument) else 1, line)
    except OSError as error:  # of a disk that fails, a name that is too long, …
        _fail(1, f"{error.filename}: {error.strerror}" if error.filename else one_line(error))
    except KeyboardInterrupt:
        goes_on = begun and "epochs" in known
        on = "; the same command goes on after the last whole epoch" if goes_on else ""
        print(f"stopped{on}", file=sys.stderr)
        sys.exit(130)


def _load_tensorflow(*, deterministic: bool) -> None:
    try:
        machine.load_tensorflow()
    except (ValueError, TypeError, AttributeError) as error:  # of keras.json: a value, a list
        _fail(1, f"Keras cannot be imported: {one_line(error)}")
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    if deterministic:
        tf.config.experimental.enable_op_determinism()


# The exit code of a command that was asked for a verdict, where that is no.
NOT_ACCEPTED = 3
# The longest line of a table.
_COLUMNS = 100
# What our lines have besides ASCII, where the terminal or the file has no more.
_IN_ASCII = {"±": "+-", "×": "x", "→": "->", "…": "...", "σ": "sigma", "✓": "+", "✗": "-"}


def _write_whatever_the_encoding() -> None:
    """Has standard output and error replace what their encoding lacks, instead of failing."""
    codecs.register_error("robust_tf.in_ascii", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="robust_tf.in_ascii")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Replaces one character, as a handler of `codecs`; others become escapes."""
    assert isinstance(error, UnicodeEncodeError)
    character = error.object[error.start]
    escape = character.encode("ascii", "backslashreplace").decode()
    return _IN_ASCII.get(character, escape), error.start + 1


def _show_warning(message: Warning | str, *_: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _fail(code: int, message: str) -> None:
    # One line, whatever names of files have in them.
    line = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in message)
    print(f"error: {line}", file=sys.stderr)
    sys.exit(code)


def warn_of_threads(trained_with: Iterable[int]) -> None:
    """Says if models that are there were trained with other threads than this process has."""
    here = machine.threads()
    if others := [number for number in trained_with if number not in (0, here)]:
        there = ", ".join(map(str, sorted(set(others))))
        models = "1 model" if len(others) == 1 else f"{len(others)} models"
        warnings.warn(
            f"{models} trained earlier with {there} threads, not {here}, stay as they are; their "
            "accuracies may differ in the last digits",
            stacklevel=2,
        )


def check_outputs(outputs: Outputs) -> None:
    """Sees before the work that directories of this machine can be written.

    Raises:
        InvalidArgument: if two are one.
        Unavailable: if one cannot.
    """
    # The output directory first: that of SavedModels may be in it.
    for name, directory in reversed(_places(outputs).items()):
        if not uploads.is_url(directory):
            prepare_directory(name, directory)


def local(outputs: Outputs) -> contextlib.AbstractContextManager[dict[str, Path]]:
    """Directories of this machine for outputs anywhere; see `uploads.local`."""
    return uploads.local(_places(outputs))


def upload(outputs: Outputs, name: str) -> None:
    """Uploads a run that is finished, where outputs are at URLs; see `uploads.upload`."""
    uploads.upload(_places(outputs), name)


def _places(outputs: Outputs) -> dict[str, str]:
    names = ("saved_models_dir", "output_dir")  # a run whose results are there has its SavedModel
    found = {name: getattr(outputs, name) for name in names if hasattr(outputs, name)}
    places = {
        url.rstrip("/") if uploads.is_url(url) else os.path.realpath(url)  # whatever it links to
        for url in (directory.removeprefix("file://") for directory in found.values())
    }
    if len(places) < len(found):  # a run has a folder of its name in both
        expected = "another directory than output_dir"
        raise InvalidArgument("saved_models_dir", found["saved_models_dir"], expected)
    return found


def images_of(dataset: data.Data) -> str:
    """What is tested with, in words: "1,000 test images of mnist (sample)"."""
    images = results.counted(len(dataset.test), "test image")
    source = "" if dataset.name.startswith(f"{dataset.source}:") else f" ({dataset.source})"
    return f"{images} of {dataset.name}{source}"


def load_data(
    values: flags.Values, classifier: Classifier, others: Iterable[Classifier | None] = ()
) -> data.Data:
    """Loads the dataset that flags choose, by default the one that a model was trained on.

    Pictures become what the model takes, as those that it was trained on did. Where they are these,
    the same ones are for testing; a warning says if that cannot be, and if pictures of another
    name are among those that the model has learned.

    Args:
        values: of the flags of `options.Dataset` and of `Sources`.
        classifier: the model; the dataset is MNIST where it does not say.
        others: models that are tested, too.
    """
    training = classifier.metadata.get("training", {})
    trained_on = training.get("pictures") or training.get("dataset", "mnist")
    asked = values.dataset or trained_on
    if not data.are_named_by(asked):
        return sources(values).load(asked)
    *size, channels = classifier.image_shape
    known = {"image_size": None if None in size else size, "resize": training.get("resize", "crop")}
    drawn: dict[str, Any] = {}
    if channels in (1, 3):
        known["color"] = "gray" if channels == 1 else "rgb"
    if _is_same(asked, trained_on):
        names = {"test_fraction", "split_seed"} & training.keys() - values.given.keys()
        drawn = {name: training[name] for name in names}
    try:
        dataset = sources(values, known | drawn).load(asked)
    except InvalidArgument as error:
        if error.argument not in drawn:
            raise
        dataset = sources(values, known).load(asked)  # it has a test split by now
    for model in filter(None, (classifier, *others)):
        own = model.metadata.get("training", {})
        if dataset.train_digest == own.get("train_digest"):
            continue
        if _is_same(asked, own.get("pictures") or ""):
            warnings.warn(
                f"{asked} is not as it was when {model.name} was trained, or is split otherwise; "
                "some of its test images may be among those that the model has learned",
                stacklevel=2,
            )
        elif known := dataset.test.among({*str(own.get("sketch", "")).split()}):
            warnings.warn(
                f"{asked}: {known:,} or more of its {len(dataset.test):,} test images are among "
                f"those that {model.name} has learned",
                stacklevel=2,
            )
    return dataset


def _is_same(dataset: str, other: str) -> bool:
    """Whether two names of picture files are of the same."""
    (kind, _, place), (other_kind, _, other_place) = dataset.partition(":"), other.partition(":")
    places = {os.path.realpath(os.path.expanduser(one)) for one in (place, other_place)}
    return kind == other_kind and len(places) == 1


def sources(values: flags.Values, known: Mapping[str, Any] | None = None) -> Sources:
    """Where the data come from, as flags say.

    Args:
        values: what the flags say.
        known: settings by name, where the flags do not say.
    """
    asked = values.of(settings.declared(Sources))
    preset = values.preset if "preset" in values.defaults else Sources.preset
    return settings.make(Sources, {**(known or {}), **asked}, preset=preset)


def heading(text: str) -> str:
    """A line of text above a table, as several where it is longer than these."""
    return "\n" + textwrap.fill(text, _COLUMNS, break_on_hyphens=False)


def print_accuracies(trials: pd.DataFrame, runs: pd.DataFrame | None = None) -> None:
    """Prints the accuracies of models by test; over all, where there are several families."""
    print_table(results.comparison(trials, runs))
    tested = set(trials["test_perturb"]) - {"none"}
    if len({KINDS[kind].family if kind in KINDS else kind for kind in tested}) > 1:
        print("\nOver all perturbed tests\n")
        print_profile(trials, runs)


def print_profile(
    trials: pd.DataFrame, runs: pd.DataFrame | None = None, most: int | None = None
) -> None:
    """Prints `results.profile` of models, in percent; the best in the worst case, if so many."""
    for dataset, own in trials.groupby("dataset", sort=False):
        profile = results.profile(own, runs)
        if most is not None:
            profile = profile.nlargest(most, "worst").rename_axis(dataset)
        shown = profile[["natural", "mean", "worst", "at", "drop"]].copy()
        for name in ("natural", "mean", "worst"):
            columns = (profile[name], profile[f"{name}_low"], profile[f"{name}_high"])
            shown[name] = list(map(results.in_percent, *columns))
        shown["drop"] = list(map(results.in_percent, profile["drop"]))
        print_table(shown)


def print_table(table: pd.DataFrame) -> None:
    """Prints accuracies as of `results.in_percent`, each with its interval on the next line.

    Columns that do not fit beside the others follow below.
    """
    import pandas as pd

    cells = [[str(cell).partition(" [") for cell in row] for row in table.to_numpy()]
    lines = [
        line
        for row in cells
        for line in ([cell[0] for cell in row], ["".join(cell[1:]).strip() for cell in row])
    ]
    index = pd.Index([text for label in table.index for text in (label, "")], name=table.index.name)
    frame = pd.DataFrame(lines, index, table.columns)
    room = _COLUMNS - max(map(len, index))
    blocks: list[list[str]] = [[]]
    for name in frame:
        width = sum(2 + max(map(len, [one, *frame[one]])) for one in [*blocks[-1], name])
        if blocks[-1] and width > room:
            blocks.append([])
        blocks[-1].append(name)
    print("\n\n".join(frame[block].to_string() for block in blocks))
