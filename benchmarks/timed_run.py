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
from robust_tf import machine, runs, saved_models, training
from robust_tf.runs.sources import Sources
from robust_tf.training import Strategy

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
    machine.load_tensorflow = _timed("imports", machine.load_tensorflow)
    Sources.load = _timed("data", Sources.load)
    Strategy.prepare = _timed("set-up", Strategy.prepare)
    training.fit = _timed("training", training.fit)
    saved_models.export = _timed("export", saved_models.export)
    runs.test = _timed("tests", runs.test)
    runs.draw = _timed("figures", runs.draw)
    pipelines.run.cli()
    Path(os.environ["ROBUST_TF_SECONDS"]).write_text(json.dumps(_seconds), encoding="utf-8")


if __name__ == "__main__":
    main()
