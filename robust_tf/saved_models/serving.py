"""From a SavedModel to TensorFlow Serving: what to type, and whether it answers the same.

Sources: TensorFlow Serving's guides "TensorFlow Serving with Docker", "RESTful API" and
"Tensorflow Serving Configuration".
"""

import json
import shlex
import string
import urllib.parse
from pathlib import Path

import numpy as np
import requests
import tensorflow as tf

from robust_tf.data import Split
from robust_tf.errors import InvalidArgument, Unavailable, one_line
from robust_tf.saved_models import exports
from robust_tf.saved_models.classifiers import Classifier

GRPC_PORT = 8500
REST_PORT = 8501

_BATCH_SIZE = 20
_SECONDS = 30.0
# Other processors add in another order; a wrong model or version differs by far more.
_TOLERANCE = 1e-4


def instructions(classifier: Classifier) -> dict[str, str]:
    """What to type to serve a SavedModel and to ask it.

    Args:
        classifier: from `classifiers.load`.

    Returns:
        By name: "docker", a shell command that starts a server of this model;
        "models.config", a file for a server of several models, which pins the version;
        "docker models.config", the command that takes that file from the working
        directory; "curl", a shell command that asks by REST; "client.py", a Python
        script that asks by gRPC.

    Raises:
        InvalidArgument: if it is a `.keras` file, which cannot be served.
    """
    name, version, mount = _mount(classifier)
    ports = {"grpc": GRPC_PORT, "rest": REST_PORT}
    quoted = {"name": json.dumps(name), "path": json.dumps(f"/models/{name}")}
    return {
        "docker": _fill("docker", mount=mount, name=shlex.quote(name), **ports),
        "models.config": _fill("models.config", version=version, **quoted),
        "docker models.config": _fill("docker-models.config", mount=mount, **ports),
        "curl": _curl(classifier),
        "client.py": _client(classifier),
    }


def _fill(template: str, **values: object) -> str:
    path = Path(__file__).parent / "templates" / f"{template}.txt"
    return string.Template(path.read_text(encoding="utf-8")).substitute(values).rstrip("\n")


def check(classifier: Classifier, url: str, split: Split) -> tuple[float, int]:
    """Sends images to a server's REST endpoint and compares with local predictions.

    Args:
        classifier: the model that the server should have.
        url: of the server, such as "http://localhost:8501", or of the model on it, such
            as "http://localhost:8501/v1/models/digits".
        split: the images to send.

    Returns:
        The largest difference of a score, and how many images get the same class.

    Raises:
        InvalidArgument: if it is a `.keras` file.
        Unavailable: if there is no answer, or one that is not in the API's form.
    """
    local, served = [], []
    for first in range(0, len(split), _BATCH_SIZE):
        images = split.images_at(tf.range(first, min(first + _BATCH_SIZE, len(split))))
        local.append(classifier(images).numpy())
        served.append(_ask(classifier, url, classifier.inputs(images).numpy()))
    expected, received = np.concatenate(local), np.concatenate(served)
    if received.shape != expected.shape:
        problem = f"answered scores of shape {received.shape}, expected {expected.shape}"
        raise Unavailable("check", url, problem)
    same = int((received.argmax(axis=1) == expected.argmax(axis=1)).sum())
    return float(np.abs(received - expected).max()), same


def agrees(largest_difference: float) -> bool:
    """Whether a difference of scores is one of rounding (`check`)."""
    return largest_difference <= _TOLERANCE


def endpoint(classifier: Classifier, url: str) -> str:
    """The URL of a model's REST `predict`; arguments as in `check`."""
    name, version, _ = _mount(classifier)
    url = url.rstrip("/")
    if "/v1/models/" not in url:
        url += f"/v1/models/{urllib.parse.quote(name)}/versions/{version}"
    return url if url.endswith(":predict") else f"{url}:predict"


def _ask(classifier: Classifier, url: str, images: np.ndarray) -> np.ndarray:
    body = {"signature_name": classifier.signature, "instances": images.tolist()}
    try:
        response = requests.post(endpoint(classifier, url), json=body, timeout=_SECONDS)
    except requests.RequestException as error:
        expected = f"a running server, such as http://localhost:{REST_PORT}"
        raise Unavailable("check", url, f"expected {expected} ({one_line(error)})") from error
    try:
        answer = response.json()
        if not response.ok:
            problem = f"the server answered {response.status_code}: {answer['error']}"
            raise Unavailable("check", url, " ".join(problem.split()))
        rows = answer["predictions"]
        if isinstance(rows[0], dict):  # of a signature with several outputs
            rows = [row[classifier.output] for row in rows]
        return np.array(rows, np.float32)
    except (ValueError, LookupError, TypeError) as error:
        problem = f"expected the answer of TensorFlow Serving, received {response.text[:100]!r}"
        raise Unavailable("check", url, problem) from error


def _mount(classifier: Classifier) -> tuple[str, int, str]:
    """The name and version of a model on a server, and Docker's option that mounts it there."""
    if classifier.signature is None:
        expected = "a SavedModel's directory; model.export(directory) of Keras makes one"
        raise InvalidArgument("model", classifier.path, expected)
    folder = classifier.path.resolve()
    if folder.name.isdecimal():
        name, version, source = folder.parent.name, int(folder.name), folder.parent
        target = f"/models/{name}"
    else:
        name, version, source = folder.name, 1, folder
        target = f"/models/{name}/{version}"
    # Docker reads the option as a line of CSV.
    fields = [f"source={source}", f"target={target}"]
    quoted = ('"' + one.replace('"', '""') + '"' if set(one) & set(',"') else one for one in fields)
    option = shlex.quote(",".join(["type=bind", *quoted, "readonly"]))
    return name, version, f"--mount {option}"


def _example(classifier: Classifier) -> Path | None:
    """The image that came with the model, for its signature `encoded`."""
    path = classifier.path.resolve() / exports.EXAMPLE
    return path if path.exists() and classifier.signature == "serving_default" else None


def _curl(classifier: Classifier) -> str:
    url = shlex.quote(endpoint(classifier, f"http://localhost:{REST_PORT}"))
    example = _example(classifier)
    if example:  # by way of a pipe: a photograph is too long for a command line
        return _fill("curl-example", example=shlex.quote(str(example)), url=url)
    sides = [side or 1 for side in classifier.image_shape]
    image = "[" * 3 + "0.5" + "".join(f"]*{side}" for side in reversed(sides))
    return _fill("curl", url=url, signature=classifier.signature, image=image)


def _client(classifier: Classifier) -> str:
    name, version, _ = _mount(classifier)
    example = _example(classifier)
    sides = tuple(side or 1 for side in classifier.image_shape)
    images = f"np.full({(1, *sides)}, 0.5, np.float32)"
    if example:
        images = f'np.array([open({str(example)!r}, "rb").read()], object)'
    show = "print(label, scores[0].max())"
    label_names = classifier.metadata.get("label_names")
    if label_names:
        show = f"label_names = {label_names!r}\nprint(label_names[label], scores[0].max())"
    return _fill(
        "client.py",
        name=repr(name),
        version=version,
        signature=repr("encoded" if example else classifier.signature),
        images=images,
        input=repr("images" if example else classifier.input),
        port=GRPC_PORT,
        output=repr(classifier.output),
        show=show,
    )
