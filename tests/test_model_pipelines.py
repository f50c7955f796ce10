"""`pipelines.evaluate` and `pipelines.serve` as a user meets them, on third-party models too."""

import keras
import pytest

from robust_tf import results
from tests.helpers import check_one_line, files, outcome

SAMPLE = ("--data_source=sample", "--test_examples=100")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A small Keras model, exported by Keras."""
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.AveragePooling2D(4),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    folder = tmp_path_factory.mktemp("foreign")
    model.export(folder / "small", verbose=False)
    model.save(folder / "small.keras")
    return folder


@pytest.mark.parametrize("name", ["small", "small.keras"])
def test_a_third_party_model_is_measured(command, tmp_path, foreign, name):
    done = command(
        f"--model={foreign}/{name}", *SAMPLE, "--trials=2", pipeline="pipelines.evaluate"
    )
    assert done.returncode == 0, outcome(done)
    blocks = done.stdout.split("Over all")[0].split("\n\n")[1:-1]  # the table is wide
    headers, rows, intervals = zip(*(block.splitlines() for block in blocks))
    assert headers[0].split()[:3] == ["natural", "stuck", "2"]
    assert headers[-1].split()[-2:] == ["blur", "1"]
    assert all(row.split()[0] == "external" for row in rows)
    assert "".join(rows).count("±") == 6 and "".join(intervals).count("[") == 10
    lines = [line for line in done.stdout.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 120
    trials = results.read(tmp_path / "results", "trials")
    assert len(trials) == 1 + 3 * 2 + 3 * 2 + 3
    assert set(trials["model"]) == {name}
    again = command(
        f"--model={foreign}/{name}", *SAMPLE, "--trials=2", pipeline="pipelines.evaluate"
    )
    assert again.stdout == done.stdout and "testing" not in again.stderr


def test_what_to_type_is_printed(in_process, exported, tmp_path):
    done = in_process(f"--model={exported.parent}", pipeline="pipelines.serve")
    assert done.returncode == 0, outcome(done)
    titles = [line for line in done.stdout.splitlines() if line.startswith("## ")]
    assert len(titles) == 5
    assert f"source={exported.parent},target=/models/digits" in done.stdout
    assert "warm-up" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_check_of_a_server(in_process, exported):
    from tests.test_serving import Server

    server = Server(exported, "digits", 1)
    flags = (f"--model={exported}", "--data_source=sample", "--test_examples=30")
    try:
        done = in_process(*flags, f"--check={server.url}", pipeline="pipelines.serve")
        server.change = lambda answer: answer.replace("0.", "0.1")
        other = in_process(*flags, f"--check={server.url}", pipeline="pipelines.serve")
    finally:
        server.close()
    assert done.returncode == 0, outcome(done)
    assert done.stdout.startswith("30 of 30 test images of mnist get the class that they get here")
    check_one_line(other, 1, f"--check={server.url}: ")
    assert "scores differ by at most" in other.stderr
    away = in_process(*flags, f"--check={server.url}", pipeline="pipelines.serve")
    check_one_line(away, 1, f"--check={server.url}: expected a running server")


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ("", 2, "--model: expected the directory of a SavedModel"),
        ("--model={tmp_path}", 1, "--model={tmp_path}: expected the directory of a SavedModel"),
        ("--model={exported} --signature=s", 2, "--signature=s: expected one of features, serv"),
        ("--model={exported} --input_range=0", 2, "--input_range=0: expected two numbers"),
        ("--model={exported} --input_range=0,inf", 2, "--input_range=0,inf: expected two num"),
        ("--model={exported} --input_range=a,b", 2, "--input_range=a,b: expected two numbers"),
        ("--model={exported} --input_range=1,0", 2, "--input_range=1,0: expected two numbers"),
        ("--model={foreign}/small --output=o", 2, "--output=o: expected one of output_0"),
    ],
)
def test_bad_flags(in_process, tmp_path, exported, foreign, flags, code, message):
    places = {"tmp_path": tmp_path, "exported": exported, "foreign": foreign}
    done = in_process(
        *(flag.format(**places) for flag in flags.split()), pipeline="pipelines.evaluate"
    )
    check_one_line(done, code, message.format(**places))
    assert files(tmp_path) == []


def test_more_bad_flags(in_process, foreign):
    def serve(*flags):
        return in_process(*flags, pipeline="pipelines.serve")

    check_one_line(serve(f"--model={foreign}/small.keras"), 2, "expected a SavedModel's directory")
    check_one_line(
        serve(f"--model={foreign}/small", "--check=http://localhost:1"),
        2,
        "--dataset: expected a dataset to check with",
    )
    done = in_process(
        f"--model={foreign}/small", *SAMPLE, "--eval=rain", pipeline="pipelines.evaluate"
    )
    check_one_line(done, 2, "--eval=rain: expected auto, all, corrupted, tfds:NAME, npy:FOLDER")
