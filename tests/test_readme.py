"""The README's Python snippets run as they stand, one after another, after its main command."""

import itertools
import re
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from tests.helpers import ROOT, command_line

SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with results and SavedModels, as after the README's main command, and photos."""
    folder = tmp_path_factory.mktemp("readme")
    for split, digit, i in itertools.product(("train", "test"), range(3), range(20)):
        photo = folder / "photos" / split / f"class {digit}" / f"{i}.png"
        photo.parent.mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(i).integers(0, 100, (40, 50, 3)) + 50 * digit
        PIL.Image.fromarray(image.astype(np.uint8)).save(photo)
    flags = [
        "--strategy=constant",
        "--perturb=hot",
        "--data_source=sample",
        "--epochs=1",
        "--trials=2",
    ]
    subprocess.run(command_line(folder, *flags), cwd=ROOT, check=True, timeout=300)
    return folder


def test_there_are_snippets():
    assert len(SNIPPETS) == 4


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_runs(folder, number):
    done = subprocess.run(
        [sys.executable, "-c", SNIPPETS[number]],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "Warning" not in done.stderr


def test_photos_are_a_dataset_like_any_other(folder, command):
    """After the snippet that makes it one."""
    flags = ("--dataset=my_camera", f"--data_dir={folder / 'datasets'}", "--dry_run")
    done = command(*flags, "--model=compact", "--perturb=all")
    assert done.returncode == 0, done.stderr
    assert "train_examples = 60\n" in done.stdout and "dataset = my_camera\n" in done.stdout


def test_the_flags_of_the_documents_exist(command):
    known = {"help"}
    for name in (
        "run", "evaluate", "serve", "grid", "impact", "ablation", "report", "sensor_map", "compare",
        "confusions",
        "standardization"
    ):  # fmt: skip
        printed = command("--helpfull", pipeline=f"pipelines.{name}").stdout
        known |= set(re.findall(r"^  --(?:\[no\])?([a-z_0-9]+):", printed, re.MULTILINE))
    lines = [
        line
        for page in (
            *("README.md", "benchmarks/README.md", "docs/scale.md", "docs/measures.md"),
            *("results/paper/README.md", "results/beyond/README.md"),
        )
        for line in (ROOT / page).read_text().splitlines()
        if not re.search(r"(^|`)ray |-m benchmarks|--only", line)  # which have flags of their own
    ]
    named = set(re.findall(r"--([a-z_0-9]+)", "\n".join(lines)))
    assert named <= known
