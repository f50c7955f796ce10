"""What a command imports before its flags are known to be allowed: nothing that takes seconds."""

import os
import subprocess
import sys

import pytest

from pipelines.__main__ import COMMANDS
from robust_tf import models
from robust_tf.data import listings
from robust_tf.data.names import FORMS
from robust_tf.saved_models import conversion, runtimes
from robust_tf.saved_models.places import FILES
from robust_tf.saved_models.targets import SUFFIXES
from tests.helpers import ROOT

HEAVY = {
    "PIL", "fsspec", "keras", "matplotlib", "numpy", "pandas", "ray", "requests", "scipy",
    "seaborn", "tensorflow", "tensorflow_datasets",
}  # fmt: skip
# Runs a command in a fresh process; at its end, whatever that is, says what has been imported.
PROGRAM = f"""
import atexit, sys
atexit.register(lambda: print(*sorted({HEAVY} & sys.modules.keys()), file=sys.stderr))
from pipelines.__main__ import main
main()
"""


def started(*arguments: str) -> tuple[int, str, str, list[str]]:
    """The exit code, the output, the error, and which heavy libraries were imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    *error, imported = done.stderr.splitlines()
    return done.returncode, done.stdout, "\n".join(error), imported.split()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_a_bad_flag_import_nothing_heavy(command):
    code, out, error, imported = started(command, "--help")
    assert (code, error, imported) == (0, "", [])
    assert "Example:" in out or command == "serve"
    code, out, error, imported = started(command, "--no_such_flag=1")
    assert (code, out, imported) == (2, "", [])
    assert error.startswith("error: Unknown command line flag 'no_such_flag'")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("run --strategy=nonsense", "--strategy=nonsense: expected one of natural, constant, "),
        ("run --perturb=rain", "--perturb=rain: expected all, or some of stuck, "),
        ("run --perturb=hot --level=-3", "--level=-3: expected a whole number from 1 on "),
        ("run --eval=rain", "--eval=rain: expected auto, all, "),
        ("run --seed=1 --seeds=1,2", "--seeds=1,2: expected no value with --seed"),
        ("run --output_dir=/proc/none", "--output_dir=/proc/none: writing failed "),
        ("grid --levels=99", "--levels=99: expected some of "),
        ("impact --ray_address=auto", "--ray_address=auto: expected no value with "),
        ("evaluate", "--model: expected the directory of a SavedModel"),
        ("evaluate --model=/none", "--model=/none: there is no such folder; "),
        ("evaluate --model=/none.keras", "--model=/none.keras: there is no such file; "),
        ("export --io=int8", "--io=int8: expected float, "),
        ("compare one", "RUN=one: expected two runs or more"),
        ("corrupt --levels=many", "--levels=many: expected numbers such as "),
        ("sensor-map --defect=rain", "--defect=rain: expected hot, dead, or a value "),
        ("fleet --perturb=rain", "--perturb=rain: expected some of "),
        ("certify --perturb=hot", "--accept: expected the accuracy "),
    ],
)
def test_a_value_that_is_not_allowed_is_told_before_tensorflow_is_there(line, error):
    code, out, found, imported = started(*line.split())
    assert code in (1, 2) and out == ""
    assert found.startswith(f"error: {error}") and "\n" not in found
    assert not {"keras", "tensorflow"} & {*imported}


def test_names_that_flags_know_are_of_what_is_there():
    assert (*models.CORRECTIONS,) == models.CORRECTION_KINDS
    assert (".keras", *runtimes.RUNTIMES) == FILES
    assert conversion._MAKERS.keys() == SUFFIXES.keys()
    assert listings._FINDERS.keys() == {*FORMS}


AT_ONCE = """
import concurrent.futures
import robust_tf.data, robust_tf.evaluation, robust_tf.models, robust_tf.perturbations

asked = [
    lambda: robust_tf.evaluation.Evaluator,
    lambda: robust_tf.data.from_arrays,
    lambda: robust_tf.models.MedianFilter,
    lambda: robust_tf.perturbations.noise,
]
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    print(*(one.result().__name__ for one in [pool.submit(each) for each in asked]))
"""


def test_threads_may_ask_for_names_at_once():
    """TensorFlow and Keras do not survive it where two threads import them."""
    done = subprocess.run(
        [sys.executable, "-c", AT_ONCE], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["Evaluator", "from_arrays", "MedianFilter", "noise"], done.stderr


def test_our_loader_knows_our_layers_in_a_process_that_has_used_none(tmp_path):
    models.build("mnist_cnn", (28, 28, 1), 10).save(tmp_path / "a.keras")
    load = "import robust_tf, sys; print(robust_tf.load_model(sys.argv[1]).name)"
    line = [sys.executable, "-c", load, str(tmp_path / "a.keras")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "mnist_cnn", done.stderr


def test_a_closed_standard_error_is_no_reason_to_fail(tmp_path):
    line = f'exec "{sys.executable}" -m pipelines.run --data_source=sample --dry_run 2>&-'
    done = subprocess.run(
        ["sh", "-c", line], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=120
    )
    assert done.returncode == 0 and "strategy = natural" in done.stdout
