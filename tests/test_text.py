"""The user's text and paths as they are, in figures, pages, tables, flags and any encoding."""

import ast
import html.parser
import io
import itertools
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import markdown_it
import matplotlib
import numpy as np
import pandas as pd
import pytest

from pipelines import app, compare, flags
from pipelines.shared_flags import Model, Outputs, some
from robust_tf import results, saved_models
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import examples
from robust_tf.files import file_name
from robust_tf.progress import Bar
from robust_tf.results import figures
from robust_tf.results.pages import Section, markdown, page
from robust_tf.runs.sources import Sources
from robust_tf.saved_models import classifiers
from robust_tf.studies import comparison, confusions, sensor_map
from tests.helpers import ROOT, fake_data
from tests.test_figures import png
from tests.test_results import trials

# What some program takes for more than it is.
TEXTS = [
    "$5 bill", "a_$b^c", r"$\frac$", "$$", "_under_", r"back\slash", r"\$x\$", "<b>&amp;", "`code`",
    "*star*", "a|b", "[link](u)", "~~gone~~", "#1", "%d {0}", "été 'n' \"x\"", "- 1. x", "a\nb",
]  # fmt: skip


def as_svg(figure, monkeypatch) -> str:
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")  # text stays text
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    return html.unescape(buffer.getvalue())


def all_figures(names: list[str]) -> dict:
    image = png(np.zeros((8, 8, 1), np.uint8))
    shown = pd.DataFrame(
        [(i, "none", np.nan, name, "natural", name, image) for i, name in enumerate(names)],
        columns=examples.COLUMNS,
    )
    tests = pd.DataFrame(
        [
            dict.fromkeys(comparison.TESTS_COLUMNS, 0.5)
            | {"model": name, "training": "natural", "test_perturb": "hot", "test_level": 1}
            for name in names
        ]
    )
    changes = pd.DataFrame(
        [("hot", 1, a, b, 1.0, 0.5) for a, b in itertools.product(names, names)],
        columns=confusions.CHANGES_COLUMNS,
    )
    flips = pd.DataFrame(
        [("hot", 1, i, name, name, name, "right to wrong", image) for i, name in enumerate(names)],
        columns=[*confusions.FLIPS_COLUMNS, "image"],
    )
    summary = pd.DataFrame(
        [dict.fromkeys(sensor_map.SUMMARY_COLUMNS, 0.5) | {"model": name} for name in names]
    )
    positions = pd.DataFrame(
        [{"model": name, "row": 0, "column": 0, "accuracy": 0.5} for name in names]
    )
    runs = {str(i): name for i, name in enumerate(names)}
    history = pd.concat(
        [pd.DataFrame(dict.fromkeys(results.HISTORY_COLUMNS, [1, 2])).assign(run=i) for i in runs]
    )
    accuracies = pd.concat([trials(str(i), shift=0) for i in runs]).assign(
        strategy=lambda table: table["run"].map(runs)
    )
    return {
        "examples": figures.examples(shown),
        "comparison": comparison.figure(tests),
        "changes": confusions.changes_figure(changes, names, names[0]),
        "flips": confusions.flips_figure(flips, names[0]),
        "sensor map": sensor_map.figure(positions, summary),
        "training": figures.training(history, runs),
        "accuracy": figures.accuracy(accuracies),
    }


def test_figures_show_each_text_as_it_is(tmp_path, monkeypatch):
    names = [text for text in TEXTS if "$" in text]
    drawn = all_figures(names)
    (tmp_path / "run").mkdir()
    figures.save({"a": drawn["examples"]}, tmp_path / "run" / "figures", ("png", "pdf"))
    for kind, figure in drawn.items():
        text = as_svg(figure, monkeypatch)
        missing = [name for name in names if name not in text]
        assert not missing, (kind, missing)


def test_a_font_that_lacks_characters_is_said_once(tmp_path):
    figure = figures.blank(3, 3)
    figure.suptitle("模型 模 형")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (tmp_path / "run").mkdir()
        figures.save({"a": figure}, tmp_path / "run" / "figures", ("png", "pdf"))
    (said,) = caught
    assert "模型형" in str(said.message)


def test_long_names_leave_room_for_the_figure(tmp_path):
    names = [letter * 200 for letter in "ab"]
    (tmp_path / "run").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, figure in all_figures(names).items():
            if name not in ("training", "accuracy"):  # whose names are of our own making
                figures.save({name: figure}, tmp_path / "run" / "figures")


def sections() -> list[Section]:
    table = pd.DataFrame({text: [text, "x"] for text in TEXTS})
    return [Section(text, (text,), table, None, text) for text in TEXTS]


def flat(text: str) -> str:
    return " ".join(text.split())


class Text(html.parser.HTMLParser):
    """The text of each element of a page, and the elements."""

    def __init__(self, page: str):
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.texts.append("")

    def handle_data(self, data):
        if self.texts:
            self.texts[-1] += data


@pytest.mark.parametrize("write", [page, markdown])
def test_pages_show_each_text_as_it_is(write):
    written = write(TEXTS[0], sections())
    if write is markdown:
        written = markdown_it.MarkdownIt("commonmark").enable("table").render(written)
        assert "$" not in markdown("", sections()).replace(r"\$", "")  # a formula on GitHub
    found = Text(written)
    shown = [flat(text) for text in found.texts]
    for text in TEXTS:
        # Title, note, a heading of each table, and a cell of each.
        assert shown.count(flat(text)) >= 2 + 2 * len(TEXTS), text
    assert not {"b", "strong", "em", "code", "li", "blockquote", "a", "s"} & found.tags


@pytest.mark.parametrize("length", [199, 200, 201, 1000])
def test_a_long_name_is_one_that_a_file_may_have(tmp_path, length):
    names = {file_name("n" * length + end) for end in ("", "a", "b")}
    assert len(names) == 3 and all(len(name) <= 200 for name in names)
    for name in names:
        (tmp_path / f".{os.getpid()}-{name}.partial").mkdir()


GROUPS = {"all": [*some(Outputs), *some(Sources), *some(Model), *some(compare.Baseline)]}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("~", "HOME"), ("~/x", "HOME/x"), ("~/a b/~", "HOME/a b/~"), ("./~", "./~"), ("a~b", "a~b"),
        ("s3://bucket/~/x", "s3://bucket/~/x"), ("[~]", "[~]"), ("~/[v2]\\x", "HOME/[v2]\\x"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("flag", ["output_dir", "data_dir", "model", "baseline"])
def test_the_home_in_a_path(monkeypatch, tmp_path, flag, given, expected):
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = expected.replace("HOME", str(tmp_path))
    if flag == "model" and "://" in given:  # models are read from this machine
        with pytest.raises(InvalidArgument, match="on this machine"):
            flags.parse(["program", f"--{flag}={given}"], GROUPS)
        return
    values = flags.parse(["program", f"--{flag}={given}", given], GROUPS)
    assert getattr(values, flag) == expected
    assert values.others == [expected]


def test_a_name_in_no_encoding_is_one_line(in_process):
    for flag in ("--output_dir=\udce9", "--dataset=a\udcff"):
        done = in_process(flag, "--dry_run")
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert "expected text in" in done.stderr


@pytest.mark.parametrize("name", ["a[b]", "[1-9]*", "what?", "back\\slash", "{a,b}", "模 型$", "~"])
def test_models_load_from_any_directory(exported, trained, small, tmp_path, name):
    folder = tmp_path / name / "1"
    shutil.copytree(exported, folder)
    images = small.test.images_at([0, 1, 2])
    logits = trained(images, training=False)
    np.testing.assert_array_equal(saved_models.load(folder)(images, training=False), logits)
    loaded = classifiers.load(folder.parent)
    np.testing.assert_allclose(loaded(images), keras.ops.softmax(logits), atol=1e-6)
    assert loaded.path == folder and loaded.name == f"{name}/1"


def test_models_are_exported_to_any_directory(trained, small, tmp_path):
    folder = saved_models.export(
        trained, tmp_path / "[a]*\\" / "é?", label_names=TEXTS[:10], training={"dataset": "$"}
    )
    images = small.test.images_at([0, 1, 2])
    np.testing.assert_array_equal(saved_models.load(folder)(images), trained(images))
    assert classifiers.load(folder).metadata["label_names"] == TEXTS[:10]
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", r"a +- b -> x \xe9 \u6a21 \udce9"),
        ("latin-1", r"a ± b -> x é \u6a21 \udce9"),
        ("cp1252", r"a ± b -> x é \u6a21 \udce9"),
        ("koi8-r", r"a +- b -> x \xe9 \u6a21 \udce9"),
        ("utf-8", "a ± b → × é 模 \\udce9"),
    ],
)
def test_what_an_encoding_lacks_is_replaced(monkeypatch, encoding, expected):
    outputs = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("out", "err")}
    if encoding in ("latin-1", "cp1252"):
        expected = expected.replace(" x ", " × ")
    for name, stream in outputs.items():
        monkeypatch.setattr(sys, f"std{name}", stream)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def main(_):
        for stream in (sys.stdout, sys.stderr):
            print("a ± b → × é 模 \udce9", file=stream)
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        app.launch(main, {"none": [flags.Declared("epochs", flags_epochs(), None)]}, ["program"])
    assert end.value.code == 130
    said = {name: stream.buffer.getvalue().decode(encoding) for name, stream in flushed(outputs)}
    assert said["out"] == f"{expected}\n"
    stopped = "stopped; the same command goes on after the last whole epoch\n"
    assert said["err"] == f"{expected}\n{stopped}"


def flags_epochs():
    return some(Sources, ["test_examples"])[0].setting


def flushed(outputs):
    for name, stream in outputs.items():
        stream.flush()
        yield name, stream


def test_files_of_text_have_their_encoding_named():
    """Else it is that of the user's locale."""
    unnamed = []
    for path in (p for top in ("robust_tf", "pipelines") for p in (ROOT / top).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name == "open" and not isinstance(node.func, ast.Name):
                others = ("os.open", "Image.open")
                name = "open of something else" if ast.unparse(node.func) in others else name
            modes = [a.value for a in node.args if isinstance(a, ast.Constant)]
            binary = any("b" in mode for mode in modes if isinstance(mode, str) and len(mode) < 4)
            named = any(keyword.arg == "encoding" for keyword in node.keywords)
            if name in ("open", "read_text", "write_text") and not (binary or named):
                unnamed.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    assert not unnamed, "\n".join(unnamed)


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def steps(file, **options) -> str:
    with Bar(desc="training", total=412, unit="batch", file=file, mininterval=0, **options) as bar:
        for _ in range(412):
            bar.update()
            bar.set_postfix_str("epoch 1/1")
    return file.getvalue()


def test_progress_in_a_file_is_a_line():
    (line,) = steps(io.StringIO()).splitlines()
    assert line.startswith("training: 100%") and "412/412 [" in line
    assert "\r" not in steps(io.StringIO())
    assert steps(io.StringIO(), disable=True) == ""
    lines = steps(io.StringIO(), each=True).splitlines()
    assert len(lines) == 412 and " 7/412 [" in lines[6]
    written = io.StringIO()
    assert list(Bar(range(3), file=written)) == [0, 1, 2]
    assert written.getvalue().count("\n") == 1
    stopped = io.StringIO()
    with pytest.raises(KeyboardInterrupt), Bar(total=4, file=stopped) as bar:
        bar.update()
        raise KeyboardInterrupt
    assert " 25%" in stopped.getvalue() and stopped.getvalue().count("\n") == 1


def test_progress_on_a_terminal_is_a_bar():
    shown = steps(Terminal())
    assert shown.count("\r") > 100 and shown.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 models"), (1, "1 model"), (2, "2 models"), (1200, "1,200 models")]
)
def test_one_is_no_plural(number, text):
    assert results.counted(number, "model") == text
    assert results.counted(np.int64(number), "model") == text


@pytest.mark.parametrize("count", [2, 3, 8, 30])
def test_a_comparison_has_lines_of_100_columns(capsys, count):
    names = [f"mnist-incremental-{i}-{'x' * 25 * (i % 9)}-1a2b3c4d/1" for i in range(count)]
    tests = [("none", np.nan), ("hot", 10), ("noise", 0.03775), ("cifar10_corrupted/jpeg", 1)]
    found = comparison.Comparison(
        pd.DataFrame(
            [
                {"model": name, "test_perturb": kind, "test_level": level}
                | {"accuracy": 0.9812, "low": 1.0, "high": 1.0}
                for name in names
                for kind, level in tests
            ]
        ),
        pd.DataFrame(
            [
                dict.fromkeys(comparison.SUMMARY_COLUMNS, 0.5)
                | {"model": name, "training": "incremental stuck,dead,hot", "baseline": names[1]}
                for name in names
            ]
        ),
        pd.DataFrame(),
        pd.DataFrame(
            [
                {"first": a, "second": b, "test_perturb": kind, "test_level": level}
                | {"only_first": 10_000, "only_second": 9_999, "p_value": 1e-300}
                for a, b in itertools.combinations(names, 2)
                for kind, level in tests
            ]
        ),
    )
    compare._print(found, fake_data(1, 1))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    assert "mCE to B\n" in text and "A : B" in text and "1 test image of d (tfds)" in text
    letters = list(compare._letters(count))
    assert len(set(letters)) == count and letters[:2] == ["A", "B"]
    key = "".join(text.split("\nAccuracy")[0].split())
    assert all(f"{letter}incremental" in key for letter in letters)
    assert all(name in key for name in names)
    assert list(compare._letters(28))[25:] == ["Z", "AA", "AB"]


@pytest.mark.parametrize("backend", ["jax", "torch", "numpy", "nothing"])
def test_another_backend_of_keras_is_one_line(backend):
    environment = {**os.environ, "KERAS_BACKEND": backend}
    for arguments in (["-m", "pipelines.run", "--dry_run"], ["-m", "pipelines", "evaluate"]):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: KERAS_BACKEND={backend}: ")


def test_settings_that_keras_refuses_are_one_line(tmp_path):
    Path(tmp_path, "keras.json").write_text('{"floatx": "int8"}')
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.run", "--dry_run"],
        env={**os.environ, "KERAS_HOME": str(tmp_path)},
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: Keras cannot be imported: Invalid `floatx`")
