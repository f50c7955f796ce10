"""Sweeps with a limit of time: what is begun, in which order, and what is left."""

import dataclasses
import time
from types import SimpleNamespace

import pandas as pd
import pytest

from robust_tf import results
from robust_tf.errors import InvalidArgument
from robust_tf.runs import budget as budget_lib
from robust_tf.runs import stages, sweeps
from robust_tf.runs.budget import Budget, seconds_of
from robust_tf.runs.pool import Outcome


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3h", 10800), ("1h30m", 5400), ("90s", 90), ("0.5h", 1800), ("1h1m1s", 3661), (7.5, 7.5)],
)
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "3", "h", "3d", "3h 2m", "30m1h", "1h2h", "-3h", "0s", "3H"])
def test_what_is_no_duration(text):
    with pytest.raises(InvalidArgument, match=f"^budget={text}: expected a duration such as 3h"):
        seconds_of(text)


@dataclasses.dataclass
class Run:
    name: str
    start: "Run | None" = None
    recipe: SimpleNamespace = dataclasses.field(default_factory=lambda: SimpleNamespace(epochs=10))

    @property
    def starts_from(self):
        return self.start


class Task:
    """A model that takes some time."""

    def __init__(self, name, start=None):
        self.run = Run(name, start and start.run)

    def is_done(self, output_dir):
        return (output_dir / self.run.name).exists()

    def is_taken(self, output_dir):
        return False

    def columns(self):
        return {"run": self.run.name}


class Clocked:
    """A pool of one that takes the time that it is told, on a clock of its own."""

    def __init__(self, clock, takes, output_dir):
        self.clock, self.takes, self.output_dir = clock, takes, output_dir
        self.begun, self.now = [], []

    @property
    def busy(self):
        return len(self.now)

    @property
    def free(self):
        return 1 - self.busy

    def submit(self, task):
        self.begun.append(task.run.name)
        self.now.append(task)

    def wait(self, seconds):
        task = self.now.pop()
        self.clock[0] += self.takes[task.run.name]
        (self.output_dir / task.run.name).mkdir()
        return [Outcome(task)]


@pytest.fixture
def sweep(monkeypatch, tmp_path):
    """Carries out tasks within a budget: what was begun."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(results, "add_to_plan", lambda *_: None)
    monkeypatch.setattr(results, "gather", lambda *_: None)
    monkeypatch.setattr(stages, "is_finished", lambda run, place: (place / run.name).exists())
    done = {}
    monkeypatch.setattr(stages, "completed_epochs", lambda run, _: done.get(run.name, 0))

    def carry_out(tasks, seconds, estimates, takes=None, epochs=()):
        done.update(epochs)
        pool = Clocked(clock, takes or estimates, tmp_path)
        limit = Budget(seconds, estimates)
        failed = sweeps.carry_out(
            "grid", tasks, pool, output_dir=tmp_path, budget=limit, progress=False
        )
        assert failed == []
        return pool.begun

    return carry_out


def test_no_model_is_begun_that_would_not_end(sweep):
    tasks = [Task(name) for name in "abcd"]
    assert sweep(tasks, 310, dict.fromkeys("abcd", 100)) == ["a", "b"]  # with a reserve of a fifth


def test_a_shorter_model_may_still_fit_and_the_order_stays(sweep):
    tasks = [Task(name) for name in "abcd"]
    assert sweep(tasks, 200, {"a": 100, "b": 100, "c": 30, "d": 30}) == ["a", "c", "d"]


def test_estimates_that_were_too_low_are_learned_from(sweep):
    tasks = [Task(name) for name in "abcd"]
    estimates = dict.fromkeys("abcd", 100)
    assert sweep(tasks, 600, estimates, takes=dict.fromkeys("abcd", 200)) == ["a", "b"]


def test_what_starts_from_a_model_that_does_not_fit_is_left_too(sweep):
    natural = Task("natural")
    tasks = [natural, Task("transfer", natural), Task("small")]
    assert sweep(tasks, 200, {"natural": 300, "transfer": 10, "small": 10}) == ["small"]


def test_epochs_that_are_done_are_not_counted(sweep):
    assert sweep([Task("a")], 100, {"a": 400}) == []
    assert sweep([Task("a")], 100, {"a": 400}, epochs={"a": 8}) == ["a"]


def test_the_command_leaves_what_would_not_end(in_process, tmp_path):
    """A second is not enough for a model of a hundred epochs, and nothing is half-written."""
    line = ("--datasets=mnist", "--strategies=constant", "--perturbs=hot", "--levels=1")
    sizes = ("--data_source=sample", "--train_examples=2000", "--epochs=100000", "--trials=1")
    done = in_process(
        *line, *sizes, "--budget=1s", f"--output_dir={tmp_path}", pipeline="pipelines.grid"
    )
    assert done.returncode == 0, done.stderr
    assert "0 of 2 models are done" in done.stdout
    assert "the same command goes on with them" in done.stdout
    assert [path.name for path in tmp_path.glob("mnist*")] == []
    assert len(pd.read_csv(tmp_path / "grid" / "models.csv")) == 2
    assert budget_lib._RESERVE > 1
