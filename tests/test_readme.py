"""The README and the pages of docs/: their snippets run, their commands parse, links lead on."""

import contextlib
import functools
import importlib
import itertools
import os
import re
import shlex
import shutil

import numpy as np
import PIL.Image
import pytest

import robust_tf
from pipelines import app, flags
from pipelines import run as run_pipeline
from pipelines.__main__ import COMMANDS
from robust_tf import models, runs, settings
from robust_tf.runs import declaration
from tests.helpers import ROOT, command_line, fake_data, outcome
from tests.snippets import snippets

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
WITH_SNIPPETS = [page.stem for page in PAGES if snippets(page)]
# With commands and flags, but without snippets.
OTHERS = [ROOT / place / "README.md" for place in ("benchmarks", "results/paper", "results/beyond")]
# As a page writes it: in a block, where a line may go on after a backslash, or inline.
COMMAND = re.compile(r"(?:-m pipelines\.|robust-tf |`pipelines\.)([a-z][\w-]*)((?:\\\n|[^\n`])*)")


def path_of(page):
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, forks):
    """A folder with results and SavedModels, as after the README's main command, and photos."""
    folder = tmp_path_factory.mktemp("readme")
    for split, digit, i in itertools.product(("train", "test"), range(3), range(20)):
        photo = folder / "photos" / split / f"class {digit}" / f"{i}.png"
        photo.parent.mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(i).integers(0, 100, (40, 50, 3)) + 50 * digit
        PIL.Image.fromarray(image.astype(np.uint8)).save(photo)
    line = command_line(
        folder,
        "--strategy=constant",
        "--perturb=hot",
        "--data_source=sample",
        "--epochs=1",
        "--trials=2",
    )
    done = forks.run(line[2:], tmp_path_factory.mktemp("output"), os.environ, 300)
    assert done.returncode == 0, outcome(done)
    return folder


@pytest.fixture(scope="module")
def executed(folder, forks, tmp_path_factory):
    """Runs a page's snippets in a copy of the folder, once: the copy, and what they print."""

    @functools.cache
    def execute(name):
        (page,) = (page for page in PAGES if page.stem == name)
        copy = tmp_path_factory.mktemp(name) / "folder"
        shutil.copytree(folder, copy)
        arguments = ["tests.snippets", str(page), str(copy)]
        return copy, forks.run(arguments, tmp_path_factory.mktemp("output"), os.environ, 300)

    return execute


@pytest.fixture
def groups_of(monkeypatch):
    """The flags of a pipeline, and whether it takes arguments that are no flags."""

    def groups(name):
        asked = []
        monkeypatch.setattr(
            app,
            "launch",
            lambda main, groups, argv=None, *, arguments=None, **_: asked.append(
                (groups, arguments is not None)
            ),
        )
        importlib.import_module(f"pipelines.{name.replace('-', '_')}").cli([])
        (one,) = asked
        return one

    return groups


def test_pages_have_snippets():
    assert {"README", "own-images", "perturbations", "serving"} <= set(WITH_SNIPPETS)


@pytest.mark.parametrize("name", WITH_SNIPPETS)
def test_the_snippets_of_a_page_run(executed, name):
    _, done = executed(name)
    assert done.returncode == 0, outcome(done)
    assert done.stdout.strip()
    assert "Warning" not in done.stderr


def test_epochs_of_the_recipe_have_fresh_draws_that_repeat():
    """What the page on perturbations writes, counted by hand."""
    names = {}
    for block in snippets(ROOT / "docs" / "perturbations.md"):
        exec(block, names)
    epochs, scenes = names["EPOCHS"], names["images"].numpy()

    def places():
        """Where each epoch's images differ from the scenes, which the shuffle has mixed."""
        drawn = np.concatenate([batch.numpy() for batch, _ in names["training"]])
        drawn = drawn.reshape(epochs, *scenes.shape)
        found = np.zeros((epochs, *scenes.shape[:3]), bool)
        for epoch, batch in enumerate(drawn):
            for image in batch:
                differs = (image[None] != scenes).any(axis=-1)
                (example,) = np.flatnonzero(differs.sum(axis=(1, 2)) == 2)  # all but two pixels
                assert (image[differs[example]] == 1).all()
                found[epoch, example] = differs[example]
        return found.reshape(epochs, len(scenes), -1)

    found = places()
    assert (found.sum(axis=-1) == 2).all()  # each example once per epoch, with two hot pixels
    for one, other in itertools.combinations(found, 2):
        assert (one != other).any(axis=-1).mean() > 0.95  # but for chance
    np.testing.assert_array_equal(places(), found)


def test_photos_are_a_dataset_like_any_other(folder, in_process):
    of_data = (f"--dataset=folder:{folder / 'photos'}", "--image_size=32,32")
    done = in_process(*of_data, "--model=compact", "--perturb=all", "--dry_run")
    assert done.returncode == 0, outcome(done)
    assert "train_examples = 60\n" in done.stdout and "dataset = folder:photos\n" in done.stdout


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=path_of)
def test_the_commands_of_a_page_parse(groups_of, page):
    for command in COMMAND.finditer(page.read_text()):
        name, rest = command.groups()
        groups, with_others = groups_of(name)
        rest = re.split(r" (?:&&|[|>]) ", rest.replace("\\\n", " ").replace("…", ""))[0]
        with contextlib.suppress(flags.HelpAsked):
            values = flags.parse([name, *shlex.split(rest, comments=True)], groups)
            assert with_others or not values.others, command[0]


def test_settings_of_the_run_commands_fit_each_other():
    groups = run_pipeline._groups()
    checked = 0
    for page in (*PAGES, *OTHERS):
        for name, rest in COMMAND.findall(page.read_text()):
            if name != "run" or "…" in rest or "my_camera" in rest:
                continue
            line = shlex.split(rest.replace("\\\n", " "), comments=True)
            values = flags.parse([name, *line], groups)
            given = values.of(settings.declared(declaration.Run))
            given.pop("pretrained", None)  # is not there
            given.pop("value_range", None)  # likewise what it is of
            if models.is_own(given.get("model", "")):
                del given["model"]
            of_digits = values.dataset == "mnist"
            data = fake_data(1 if of_digits else 3, 5000, name=values.dataset)
            run = runs.resolve(data, **given)
            usual = "constant" if "perturb" in given else "natural"
            assert run.columns()["strategy"] == given.get("strategy", usual)
            checked += 1
    assert checked > 8


def test_main_commands_are_found():
    found = [f"{name} {rest.strip()}" for name, rest in COMMAND.findall(README.read_text())]
    assert "run --strategy=constant --perturb=hot" in found
    assert any(one.startswith("grid --datasets=mnist --workers=2") for one in found)


def test_the_flags_of_the_pages_exist(groups_of):
    known = {"help"}
    for name in COMMANDS:
        groups, _ = groups_of(name)
        known |= {one.name for group in groups.values() for one in group}
    lines = [
        line
        for page in (*PAGES, *OTHERS)
        for line in page.read_text().splitlines()
        # Other programs have flags of their own.
        if not re.search(r"(^|`)ray |-m benchmarks|--only|docker |mkdocs ", line)
    ]
    named = set(re.findall(r"(?<![\w-])--([a-z_0-9]+)", "\n".join(lines)))
    assert named <= known


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=path_of)
def test_the_links_of_a_page_lead_to_files(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)#\s]+)", text)
    missing = [
        link
        for link in links
        if not re.match(r"https?://|mailto:", link) and not (page.parent / link).exists()
    ]
    assert not missing


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 150


def test_the_citation_is_of_this_version():
    assert f"\nversion: {robust_tf.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_reference_is_of_modules_that_exist():
    pages = (ROOT / "docs" / "api").glob("*.md")
    named = [name for page in pages for name in re.findall(r"^::: (\S+)", page.read_text(), re.M)]
    assert len(named) > 20
    for name in named:
        importlib.import_module(name)


def test_files_that_pages_name_exist():
    named = {
        name
        for page in (*PAGES, ROOT / "CONTRIBUTING.md")
        for name in re.findall(r"`((?:robust_tf|tests|pipelines)/[\w/]+\.\w+)`", page.read_text())
    }
    assert len(named) > 5
    assert not [name for name in named if not (ROOT / name).exists()]


def test_every_page_and_package_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert pages == set(re.findall(r": ([\w/-]+\.md)$", navigation, re.MULTILINE))
    packages = {path.parent.name for path in (ROOT / "robust_tf").glob("*/__init__.py")}
    assert packages == {path.stem for path in (ROOT / "docs" / "api").glob("*.md")}
