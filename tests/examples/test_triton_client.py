"""The client against a server of the same protocol, which runs the repository's own files."""

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image

import lmk
from lmk.export.triton import write_repository
from lmk.runtime.runners.ort import OrtRunner

grpc = pytest.importorskip("grpc", reason="tritonclient[grpc]")
service = pytest.importorskip("tritonclient.grpc.service_pb2", reason="tritonclient[grpc]")
from tritonclient.grpc import model_config_pb2, service_pb2_grpc  # noqa: E402

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "examples/triton_client.py"


def _load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look there for their annotations
    spec.loader.exec_module(module)
    return module


client = _load(CLIENT)
_models = _load(ROOT / "tests/runtime/conftest.py")
make_model, model_path, blob_image = _models.make_model, _models.model_path, _models.blob_image


class Server(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Serves the newest version of each model in a repository as its config.pbtxt says."""

    def __init__(self, repository: Path) -> None:
        self.configs, self.runners = {}, {}
        for path in repository.glob("*/config.pbtxt"):
            config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
            newest = max(path.parent.glob("[0-9]*"), key=lambda version: int(version.name))
            self.configs[config.name] = config
            self.runners[config.name] = OrtRunner(newest / config.default_model_filename)

    def ModelConfig(self, request, context):  # noqa: N802
        if request.name not in self.configs:
            message = f"Request for unknown model: '{request.name}' is not found"
            context.abort(grpc.StatusCode.NOT_FOUND, message)
        return service.ModelConfigResponse(config=self.configs[request.name])

    def ModelInfer(self, request, context):  # noqa: N802
        config = self.configs[request.model_name]
        (given,), (expected,) = request.inputs, config.input
        assert (given.name, f"TYPE_{given.datatype}") == (
            expected.name,
            model_config_pb2.DataType.Name(expected.data_type),
        )
        assert given.shape[0] <= config.max_batch_size
        assert list(given.shape[1:]) == list(expected.dims)
        crops = np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(given.shape)
        found = dict(zip(("landmarks", "scores"), self.runners[config.name](crops), strict=True))
        answer = service.ModelInferResponse(model_name=config.name)
        for wanted in request.outputs:
            array = found[wanted.name]
            answer.outputs.add(name=wanted.name, datatype="FP32", shape=array.shape)
            answer.raw_output_contents.append(array.tobytes())
        return answer


@pytest.fixture(scope="module")
def url(make_model, tmp_path_factory):
    repository = tmp_path_factory.mktemp("repository")
    write_repository(make_model(crop_scale=1.5), repository)
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Server(repository), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(grace=None)


@pytest.fixture(scope="module")
def connection(url):
    with client.triton.InferenceServerClient(url) as opened:
        yield opened


@pytest.mark.parametrize("box", [None, (30.0, 20.0, 50.0, 40.0)])
def test_landmarks_are_those_found_without_a_server(make_model, connection, blob_image, box):
    image = blob_image(90, 120, 55.25, 41.5)
    model = client.describe(connection, "blob")
    points, scores = client.find_landmarks(connection, model, image, box)
    with lmk.load(make_model(crop_scale=1.5)) as landmarker:
        local = landmarker(image, box)
    np.testing.assert_array_equal(points, local.points)
    np.testing.assert_array_equal(scores, local.scores)
    assert abs(points[0] - (55.25, 41.5)).max() < 0.5


def test_model_is_described_by_its_repository(connection):
    model = client.describe(connection, "blob")
    assert model == client.Model("blob", 64, 1.5, ("red", "green", "blue"))


def test_command_prints_a_line_a_landmark(url, blob_image, tmp_path):
    Image.fromarray(blob_image(90, 120, 55.0, 41.0)).save(tmp_path / "spot.png")
    command = [sys.executable, CLIENT, tmp_path / "spot.png", "--model", "blob", "--url", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    name, x, y, score = done.stdout.splitlines()[0].split()
    assert name == "red" and abs(float(x) - 55) < 0.5 and abs(float(y) - 41) < 0.5
    assert 0 <= float(score) <= 1 and len(done.stdout.splitlines()) == 3


def test_what_goes_wrong_is_one_line(url, tmp_path, capsys):
    Image.new("RGB", (32, 32)).save(tmp_path / "grey.png")
    picture = str(tmp_path / "grey.png")
    for arguments, words in (
        ([picture, "--model", "cups", "--url", url], "unknown model: 'cups'"),
        ([picture, "--model", "blob", "--url", "127.0.0.1:1"], "failed to connect"),
        ([str(tmp_path / "no.png"), "--model", "blob", "--url", url], "no.png: got no such file"),
    ):
        assert client.main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("triton_client: ") and words in error and error.count("\n") == 1


@pytest.mark.parametrize("box", ["1,2,3", "a,b,c,d", "0,0,0,5"])
def test_wrong_box(box, capsys):
    with pytest.raises(SystemExit):
        client.main(["a.png", "--model", "blob", "--roi", box])
    assert "--roi" in capsys.readouterr().err
