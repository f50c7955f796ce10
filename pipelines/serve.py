"""Says how to serve a SavedModel by TensorFlow Serving, and checks a server that runs.

Example:
  python -m pipelines.serve --model=saved_models/mnist-natural-1a2b3c4d
  python -m pipelines.serve --model=saved_models/mnist-natural-1a2b3c4d --check=http://localhost:8501
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

from pipelines import app, flags
from pipelines.shared_flags import TEST_DATA, Dataset, Model, some
from robust_tf import results, settings
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.runs.sources import Sources
from robust_tf.settings import Setting

_TITLES = {
    "docker": "Serve it",
    "models.config": "Or serve it with others, the version pinned: save this as models.config",
    "docker models.config": "and add the other models' mounts to",
    "curl": "Ask by REST",
    "client.py": "Ask by gRPC, in Python: pip install tensorflow-serving-api",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """A server to check."""

    check: Annotated[
        str | None,
        Setting(
            "URL of a running server's REST endpoint, such as http://localhost:8501: sends it "
            "test images and compares its answers with local predictions."
        ),
    ] = None


def check(values: flags.Values) -> None:
    """Sees whether there is a model."""
    settings.make(Model, values.given).check()


def main(values: flags.Values) -> None:
    """Prints what to type, or checks a server."""
    from robust_tf.saved_models import EXTRA, serving
    from robust_tf.saved_models.warmup import FILE_NAME

    classifier = settings.make(Model, values.given).load()
    if values.check is None:
        for name, text in serving.instructions(classifier).items():
            print(f"## {_TITLES[name]}\n\n{text}\n")
        if not (classifier.path / EXTRA / FILE_NAME).exists():
            print(
                "The model has no warm-up file: its first request takes longer. Exports have "
                "one where the package tensorflow-serving-api is installed."
            )
        return
    trained_on = classifier.metadata.get("training", {}).get("dataset")
    if not (values.dataset or trained_on):
        raise InvalidArgument("dataset", None, "a dataset to check with")
    dataset = app.load_data(values, classifier)
    classifier.check(dataset)
    test = dataset.test.first(values.test_examples)
    difference, same = serving.check(classifier, values.check, test)
    found = (
        f"{same} of {results.counted(len(test), 'test image')} of {dataset.name} "
        f"{'gets' if same == 1 else 'get'} the class that they get here; "
        f"scores differ by at most {difference:.2g}"
    )
    if not serving.agrees(difference):
        raise Unavailable("check", values.check, found)
    print(found)


def cli(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    groups = {
        "Model": some(Model),
        "Server": some(Check),
        "Data": [*some(Dataset), *some(Sources, TEST_DATA, test_examples=100)],
    }
    app.launch(main, groups, argv, check=check)


if __name__ == "__main__":
    cli()
