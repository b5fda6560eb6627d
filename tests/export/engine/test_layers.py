"""engine_layers: what a network computes in is counted, and another precision is refused."""

import json

import pytest

from lmk.export.engine.layers import check_layers, count_kernels, count_layers, shares
from lmk.runtime.errors import UserError
from lmk.runtime.model.contract import PRECISIONS
from lmk.runtime.runners import make_log

trt = pytest.importorskip("tensorrt_rtx")


@pytest.fixture(scope="module")
def counted(typed_models):
    """Layers and convolutions of each precision's graph, counted by TensorRT's parser."""

    def count(model):
        log = make_log(trt)
        builder = trt.Builder(log)
        flag = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        network = builder.create_network(1 << int(flag))
        parser = trt.OnnxParser(network, log)
        assert parser.parse(model.SerializeToString()), log.lines
        return count_layers(trt, network)

    return {name: count(model) for name, model in typed_models.items()}


@pytest.mark.parametrize("name", ["fp32", "fp16", "bf16"])
def test_the_network_is_of_its_precision_and_the_rest_fp32(counted, name):
    layers, convolutions = counted[name]
    assert convolutions == {name: 56} and layers.keys() == {name, "fp32"}
    assert name == "fp32" or layers[name] > 4 * layers["fp32"]


@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_quantised_convolutions_count_as_what_they_compute_in(counted, name):
    layers, convolutions = counted[name]
    assert convolutions.keys() == {name, "fp16"} and sum(convolutions.values()) == 56
    assert convolutions[name] > 50 and layers[name] == convolutions[name]


@pytest.mark.parametrize("asked", PRECISIONS)
@pytest.mark.parametrize("built", PRECISIONS)
def test_another_precision_than_asked_is_refused(counted, asked, built):
    if asked == built:
        check_layers(asked, *counted[built])
    else:
        with pytest.raises(UserError, match=f"engine: got convolutions of .* in {asked}; export"):
            check_layers(asked, *counted[built])


def test_one_convolution_in_fp32_is_no_fp16():
    with pytest.raises(UserError, match=r"got convolutions of 55 fp16 \(98 %\), 1 fp32 \(2 %\)"):
        check_layers("fp16", {"fp16": 200, "fp32": 41}, {"fp16": 55, "fp32": 1})


def test_shares():
    assert shares({"fp32": 1, "fp16": 3}) == "3 fp16 (75 %), 1 fp32 (25 %)"
    assert shares({}) == "none"


def test_kernels_of_both_dialects_of_the_inspector():
    """TensorRT 10 has one value for format and type, 11 two; names may hold any word."""
    old = {"Name": "FP32 in name", "Format/Datatype": "Channel major FP16 format"}
    new = {"Name": "y", "Format": "Row major linear", "DataType": "Int8"}
    single = {"Name": "z", "Format": "Row major linear", "DataType": "Float"}
    layers = [{"Name": str(i), "Outputs": [out]} for i, out in enumerate((old, new, new, single))]
    layers += [{"Name": "sync", "Outputs": []}, "only a name"]
    found = count_kernels(json.dumps({"Layers": layers, "Bindings": []}))
    assert found == {"fp16": 1, "int8": 2, "fp32": 1, "other": 2}
