"""`pipelines.run` with a stopwatch: takes its flags, and writes the seconds of its parts.

The environment has the time at which the process was started in `ROBUST_TF_BEGIN`, and the
file to write in `ROBUST_TF_SECONDS`.
"""

import functools
import json
import os
import time
from pathlib import Path

import pipelines.run
from pipelines import app
from robust_tf import runs, saved_models, training
from robust_tf.training.strategies import STRATEGIES

_seconds = {"imports": time.time() - float(os.environ["ROBUST_TF_BEGIN"])}


def _timed(part: str, function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            _seconds[part] = _seconds.get(part, 0.0) + time.perf_counter() - start

    return call


def main() -> None:
    """Runs the pipeline and writes the seconds."""
    app.load_data = _timed("data", app.load_data)
    for name, strategy in list(STRATEGIES.items()):
        STRATEGIES[name] = _timed("set-up", strategy)
    training.fit = _timed("training", training.fit)
    saved_models.export = _timed("export", saved_models.export)
    runs.test = _timed("tests", runs.test)
    runs.draw = _timed("figures", runs.draw)
    pipelines.run.main()
    Path(os.environ["ROBUST_TF_SECONDS"]).write_text(json.dumps(_seconds))


if __name__ == "__main__":
    app.launch(main)
