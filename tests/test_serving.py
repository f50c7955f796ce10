"""What a user types to serve a model, and the check of a server, against servers of our own.

They answer as TensorFlow Serving's REST and gRPC interfaces are documented to.
"""

import base64
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import tensorflow as tf

from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.saved_models import classifiers, serving


@pytest.fixture(scope="module")
def classifier(exported):
    return classifiers.load(exported)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A third-party model with one output, under a name that needs quotes."""
    inputs = tf.keras.Input((2, 2, 1))
    model = tf.keras.Model(inputs, tf.keras.layers.Reshape((4,))(inputs))
    path = tmp_path_factory.mktemp("foreign") / "it's mine"
    model.export(path, verbose=False)
    return classifiers.load(path)


class Server:
    """TensorFlow Serving's REST `predict` for one model, which may be made to misbehave."""

    def __init__(self, folder, name: str, version: int):
        self.signatures = tf.saved_model.load(str(folder)).signatures
        self.path = f"/v1/models/{name}/versions/{version}:predict"
        self.change = lambda answer: answer
        self.requests: list[dict] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = outer.answer(self.path, body)
                content = outer.change(json.dumps(answer)).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever)
        self.thread.start()

    def answer(self, path: str, body: bytes) -> tuple[int, dict]:
        if path != self.path:
            return 404, {"error": f"Malformed request: POST {path}"}
        request = json.loads(body)
        self.requests.append(request)
        signature = self.signatures[request.get("signature_name", "serving_default")]
        ((name, spec),) = signature.structured_input_signature[1].items()
        values = request["instances"]
        if spec.dtype == tf.string:
            values = [base64.b64decode(value["b64"]) for value in values]
        try:
            out = signature(**{name: tf.constant(values, spec.dtype)})
        except tf.errors.InvalidArgumentError as error:
            return 400, {"error": error.message}
        columns = {key: value.numpy().tolist() for key, value in out.items()}
        if len(columns) == 1:
            return 200, {"predictions": next(iter(columns.values()))}
        rows = [dict(zip(columns, row)) for row in zip(*columns.values())]
        return 200, {"predictions": rows}

    def close(self):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server(exported):
    server = Server(exported, "digits", 1)
    yield server
    server.close()


def test_a_server_of_the_same_model_agrees(classifier, server, small):
    difference, same = serving.check(classifier, server.url, small.test)
    assert serving.agrees(difference) and same == 100
    received = np.concatenate([request["instances"] for request in server.requests])
    np.testing.assert_allclose(received, small.test.images.numpy() / 255, atol=1e-7)
    assert len(server.requests) > 1
    again = serving.check(classifier, f"{server.url}{server.path}", small.test)
    assert again == (difference, same)


def test_a_third_party_model_agrees(foreign, small):
    server = Server(foreign.path, "it's%20mine".replace("'", "%27"), 1)
    try:
        split = small.test
        tiny = type(split)(split.images[:, 12:14, 12:14], split.labels)
        difference, same = serving.check(foreign, server.url, tiny)
    finally:
        server.close()
    assert serving.agrees(difference) and same == 100


def test_a_server_of_another_model_does_not_agree(classifier, server, small):
    def shift(answer):
        rows = json.loads(answer)["predictions"]
        for row in rows:
            row["probabilities"] = row["probabilities"][1:] + row["probabilities"][:1]
        return json.dumps({"predictions": rows})

    server.change = shift
    difference, same = serving.check(classifier, server.url, small.test)
    assert not serving.agrees(difference) and same < 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda answer: "<html>", "expected the answer of TensorFlow Serving, received '<html>'"),
        (lambda answer: '{"outputs": 1}', "expected the answer of TensorFlow Serving, received"),
        (lambda answer: "[]", "expected the answer of TensorFlow Serving, received"),
        (
            lambda answer: answer.replace("probabilities", "scores"),
            "expected the answer of TensorFlow Serving, received",
        ),
        (
            lambda answer: re.sub(r'("probabilities": \[)[^,]*, ', r"\1", answer),
            r"answered scores of shape \(100, 9\), expected \(100, 10\)",
        ),
    ],
)
def test_answers_that_are_none(classifier, server, small, change, message):
    server.change = change
    with pytest.raises(Unavailable, match=f"^check={server.url}: .*{message}"):
        serving.check(classifier, server.url, small.test)


def test_what_a_server_complains_of_is_reported(exported, classifier, small, tmp_path):
    shutil.copytree(exported, tmp_path / "other" / "1")
    server = Server(exported, "digits", 1)
    try:
        other = classifiers.load(tmp_path / "other")
        with pytest.raises(Unavailable, match="the server answered 404: Malformed request"):
            serving.check(other, server.url, small.test)
    finally:
        server.close()
    with pytest.raises(Unavailable) as caught:
        serving.check(classifier, server.url, small.test)
    assert "expected a running server, such as http://localhost:8501 (" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8501", "nonsense", "http://"])
def test_urls_that_are_none(classifier, small, url):
    with pytest.raises(Unavailable, match=f"^check={url}: expected a running server"):
        serving.check(classifier, url, small.test)


def test_the_curl_line_asks_with_the_example(classifier, server):
    command = serving.instructions(classifier)["curl"]
    assert f"http://localhost:8501{server.path}" in command
    command = command.replace("http://localhost:8501", server.url)
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    (row,) = json.loads(done.stdout)["predictions"]
    (request,) = server.requests
    assert request["signature_name"] == "encoded"
    expected = server.signatures["encoded"](
        images=tf.constant([base64.b64decode(request["instances"][0]["b64"])])
    )
    assert row["label"] == expected["label"].numpy()[0]
    np.testing.assert_allclose(row["probabilities"], expected["probabilities"][0], atol=1e-6)


def test_the_curl_line_of_a_model_without_an_example(foreign):
    server = Server(foreign.path, "it%27s%20mine", 1)
    try:
        command = serving.instructions(foreign)["curl"]
        command = command.replace("http://localhost:8501", server.url)
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    finally:
        server.close()
    assert json.loads(done.stdout) == {"predictions": [[0.5] * 4]}


@pytest.mark.parametrize("which", ["classifier", "foreign"])
def test_the_docker_lines_show_the_server_the_model(which, request):
    classifier = request.getfixturevalue(which)
    instructions = serving.instructions(classifier)
    for name in ("docker", "docker models.config"):
        words = shlex.split(instructions[name])
        assert words[:3] == ["docker", "run", "--rm"]
        assert {"8500:8500", "8501:8501", "tensorflow/serving"} <= set(words)
        mount = words[words.index("--mount") + 1]
        fields = dict(part.split("=") for part in mount.split(",") if "=" in part)
        # What the server finds under /models/<name>/<version>.
        name_on_server, _, version = fields["target"].removeprefix("/models/").partition("/")
        source = fields["source"] if version else f"{fields['source']}/1"
        assert (classifiers.Path(source) / "saved_model.pb").is_file()
    assert f"MODEL_NAME={name_on_server}" in shlex.split(instructions["docker"])
    assert name_on_server == {"classifier": "digits", "foreign": "it's mine"}[which]


@pytest.mark.parametrize("which", ["classifier", "foreign"])
def test_models_config_is_a_model_server_config(which, request):
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    classifier = request.getfixturevalue(which)
    instructions = serving.instructions(classifier)
    config = text_format.Parse(
        instructions["models.config"], model_server_config_pb2.ModelServerConfig()
    )
    (model,) = config.model_config_list.config
    assert model.model_platform == "tensorflow"
    assert list(model.model_version_policy.specific.versions) == [1]
    words = " ".join(shlex.split(instructions["docker models.config"]))
    assert f"target={model.base_path}" in words
    assert model.base_path == f"/models/{model.name}"


@pytest.mark.parametrize("which", ["classifier", "foreign"])
def test_the_grpc_client_gets_the_models_answer(which, request, small):
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    classifier = request.getfixturevalue(which)
    signatures = tf.saved_model.load(str(classifier.path)).signatures
    received = []

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, asked, context):
            received.append(asked)
            inputs = {
                name: tf.constant(tf.make_ndarray(value)) for name, value in asked.inputs.items()
            }
            response = predict_pb2.PredictResponse()
            for name, value in signatures[asked.model_spec.signature_name](**inputs).items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return response

    server = grpc.server(futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    script = serving.instructions(classifier)["client.py"]
    assert "localhost:8500" in script
    script = script.replace("localhost:8500", f"127.0.0.1:{port}")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    server.stop(None)
    assert done.returncode == 0, done.stderr
    (asked,) = received
    assert asked.model_spec.version.value == 1
    label, score = done.stdout.split()
    if which == "classifier":
        scores = classifier(small.test.images_at([0]))
        assert asked.model_spec.name == "digits"
        assert label == str(int(tf.argmax(scores, axis=1)[0]))
        assert float(score) == pytest.approx(float(tf.reduce_max(scores)), abs=1e-5)
    else:
        assert (label, float(score)) == ("0", 0.5)


def test_a_keras_file_cannot_be_served(tmp_path):
    path = tmp_path / "m.keras"
    tf.keras.Sequential([tf.keras.Input((4, 4, 1)), tf.keras.layers.Flatten()]).save(path)
    with pytest.raises(InvalidArgument, match="^model=.*m.keras: expected a SavedModel's dir"):
        serving.instructions(classifiers.load(path))
