"""What a command imports before its flags are known to be allowed: nothing that takes seconds."""

import os
import subprocess
import sys

import pytest

from pipelines.__main__ import COMMANDS
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
