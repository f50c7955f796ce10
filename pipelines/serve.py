"""Says how to serve a SavedModel by TensorFlow Serving, and checks a server that runs.

Example:
  python -m pipelines.serve --model=saved_models/mnist-natural-1a2b3c4d
  python -m pipelines.serve --model=saved_models/mnist-natural-1a2b3c4d --check=http://localhost:8501
"""

from absl import flags

from pipelines import app
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.saved_models import EXTRA, serving
from robust_tf.saved_models.warmup import FILE_NAME

app.define_model_flags()
app.define_data_flags(test_examples=100, default="that of the model")
_CHECK = flags.DEFINE_string(
    "check",
    None,
    "URL of a running server's REST endpoint, such as http://localhost:8501: sends it test "
    "images and compares its answers with local predictions.",
)

_TITLES = {
    "docker": "Serve it",
    "models.config": "Or serve it with others, the version pinned: save this as models.config",
    "docker models.config": "and add the other models' mounts to",
    "curl": "Ask by REST",
    "client.py": "Ask by gRPC, in Python: pip install tensorflow-serving-api",
}


def main() -> None:
    """Runs what the flags say."""
    classifier = app.load_classifier()
    if _CHECK.value is None:
        for name, text in serving.instructions(classifier).items():
            print(f"## {_TITLES[name]}\n\n{text}\n")
        if not (classifier.path / EXTRA / FILE_NAME).exists():
            print(
                "The model has no warm-up file: its first request takes longer. Exports have "
                "one where the package tensorflow-serving-api is installed."
            )
        return
    trained_on = classifier.metadata.get("training", {}).get("dataset")
    if not (flags.FLAGS.dataset or trained_on):
        raise InvalidArgument("dataset", None, "the name of a TFDS dataset to check with")
    dataset = app.load_data(trained_on)
    classifier.check(dataset)
    difference, same = serving.check(classifier, _CHECK.value, dataset.test)
    found = (
        f"{same} of {len(dataset.test)} test images of {dataset.name} get the class that they "
        f"get here; scores differ by at most {difference:.2g}"
    )
    if not serving.agrees(difference):
        raise Unavailable("check", _CHECK.value, found)
    print(found)


if __name__ == "__main__":
    app.launch(main)
