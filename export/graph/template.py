"""Architecture -> template: its ONNX graph without weights, and the recipe of each weight.

    python -m lmk.export.graph.template --width 256 --output zoo

makes the template that ships for a width; see `runtime/model/template.py` for what it is good for.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import onnx
import torch
from filelock import FileLock
from torch import nn

from lmk.export.graph.half import halve
from lmk.export.graph.trace import to_onnx, trace
from lmk.runtime.errors import UserError
from lmk.runtime.files import cache_folder
from lmk.runtime.model import (
    HEAD,
    Precision,
    Template,
    Weight,
    compose,
    pack_tensors,
    read_template,
    template_name,
    wire,
    workspace,
)
from lmk.train.network import HourglassConfig, LandmarkNetwork, checkpoint

_FOLDED_NORMS = {"conv_first": "bn_first", "conv_last": "bn_last"}  # nothing stands between these
_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
_TRACED_LANDMARKS = 10  # as those that ship have
_PREFIX = "network."  # of the network's tensors in the graph
_DTYPES = {number: name for name, number in wire.DTYPES.items()}
_LIBRARIES = ("lmk-toolkit", "torch", "onnx", "onnxscript")


def template_of(network: HourglassConfig) -> Template:
    """The fp32 template of the architecture: of one that ships, or was made here before, or new.

    A new one is kept in the cache folder, for these versions of the libraries and of the sources
    that it is made by: one for any number of landmarks. Raises UserError where that cannot be
    written.
    """
    traced = replace(network, num_landmarks=_TRACED_LANDMARKS)
    return with_landmarks(_kept(traced), network.num_landmarks)


def _kept(network: HourglassConfig) -> Template:
    shipped = workspace.ZOO / template_name(network.recorded(), "fp32")
    if shipped.is_file():
        return read_template(shipped)
    made_by = hashlib.sha256(repr(checkpoint.versions(*_LIBRARIES)).encode())
    for file in (__file__, checkpoint.__file__):
        for path in sorted(Path(file).parent.glob("*.py")):
            made_by.update(path.read_bytes())
    folder = cache_folder() / "templates" / made_by.hexdigest()[:20]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / shipped.name
        with FileLock(kept.with_suffix(".lock")):  # of two exports at once one traces
            with suppress(UserError):  # a cache is disposable: damaged it is made again
                return read_template(kept)
            return read_template(write_template(make_template(network), folder))
    except (OSError, UserError) as error:
        raise UserError(f"template: {error}; LMK_CACHE names another folder") from error


def make_template(network: HourglassConfig, precision: Precision = "fp32") -> Template:
    """Trace the architecture once, seconds; the weights of any category can be filled in.

    The graph is that of `graph.py`, optimised on random weights: of equal ones, like those of
    fresh batch-norms, the optimiser would merge some, and the graph would fit no other category.
    Raises UserError for int8 and fp8: their scales come from each category's own images.
    """
    if precision not in _PRECISIONS:
        raise UserError(
            f"template: got precision {precision}, expected {' or '.join(_PRECISIONS)}: the scales "
            "of others come from each category's own images; export the pack itself"
        )
    plain = without_folded_norms(_random(LandmarkNetwork(network).eval()))
    model = to_onnx(trace(plain), plain)
    if precision != "fp32":
        model = halve(model, precision)
    weights = _recipe(model, plain)
    names = {weight.name for weight in weights}
    others = [tensor for tensor in model.graph.initializer if tensor.name not in names]
    graph, model_end, graph_end = onnx.GraphProto(), onnx.ModelProto(), onnx.GraphProto()
    graph.CopyFrom(model.graph)
    del graph.initializer[:]
    graph.initializer.extend(others)
    model.ClearField("graph")
    _move(model, model_end, ("opset_import",))
    _move(graph, graph_end, ("input", "output", "value_info"))
    return Template(
        network=network.recorded(),
        precision=precision,
        model=(model.SerializeToString(), model_end.SerializeToString()),
        graph=(graph.SerializeToString(), graph_end.SerializeToString()),
        weights=weights,
        versions=checkpoint.versions(*_LIBRARIES),
    )


def with_landmarks(template: Template, count: int) -> Template:
    """The template of the same architecture with `count` landmarks, as if it was traced for them.

    What follows the head's convolution, and nothing else, has their number in it: as the second
    side of its shapes, and of those that it is reshaped to.
    """
    graph, end = map(onnx.GraphProto.FromString, template.graph)
    weights = [
        replace(weight, shape=(count, *weight.shape[1:])) if weight.layer == HEAD else weight
        for weight in template.weights
    ]
    head = {weight.name for weight in weights if weight.layer == HEAD}
    later, shapes = set(head), set[str]()
    for node in graph.node:  # each stands behind those that it reads
        if later.intersection(node.input):
            later.update(node.output)
            shapes.update(node.input[1:] if node.op_type == "Reshape" else ())
    for value in (*end.output, *end.value_info):
        if value.name in later:
            sides = value.type.tensor_type.shape.dim
            sides[0 if value.name in head else 1].dim_value = count
    for tensor in graph.initializer:
        if tensor.name in shapes:
            sides = onnx.numpy_helper.to_array(tensor).copy()
            sides[1] = count
            tensor.CopyFrom(onnx.numpy_helper.from_array(sides, tensor.name))
    return replace(
        template,
        network={**template.network, "num_landmarks": count},
        graph=(graph.SerializeToString(), end.SerializeToString()),
        weights=tuple(weights),
    )


def fill(template: Template, model: LandmarkNetwork, header: Mapping[str, Any]) -> bytes:
    """The ONNX file of the adapted, unfolded `model`, whose pack has `header`; see `compose`."""
    own = pack_tensors(template, header)
    pack, core = {}, {}
    for name, value in model.state_dict().items():
        array = value.detach().cpu().float().numpy()
        if name in own:
            pack[name] = array
        else:  # a projected convolution names its part of the core
            name = name.replace(".theta_bias", ".bias").replace(".theta", ".weight")
            core[name] = array
    header = {**header, "network": model.config.recorded()}
    return compose(template, core, pack, header, "the network")


def write_template(template: Template, folder: Path) -> Path:
    """Write `template` into `folder`, under the name by which it is found."""
    path = folder / template_name(template.network, template.precision)
    tensors = {name: torch.from_numpy(value.copy()) for name, value in template.arrays().items()}
    checkpoint.save(path, "template", tensors, template.header())
    assert read_template(path) == template
    return path


def without_folded_norms(network: LandmarkNetwork) -> LandmarkNetwork:
    """A copy whose stem and `conv_last` stand for themselves and their batch-norms."""
    plain = copy.deepcopy(network)
    for norm in _FOLDED_NORMS.values():
        setattr(plain, norm, nn.Identity())
    return plain


def _move(
    message: onnx.ModelProto | onnx.GraphProto,
    end: onnx.ModelProto | onnx.GraphProto,
    fields: Sequence[str],
) -> None:
    """Move the repeated `fields` of `message` into `end`."""
    for name in fields:
        getattr(end, name).extend(getattr(message, name))
        message.ClearField(name)


def _recipe(model: onnx.ModelProto, plain: LandmarkNetwork) -> tuple[Weight, ...]:
    """How each weight of the graph is made.

    Raises RuntimeError unless every tensor of the network is in the graph, once and unchanged: the
    optimiser has then done something to weights that the recipe does not know of.
    """
    state = {n: v for n, v in plain.state_dict().items() if not n.endswith("batches_tracked")}
    found = {}
    for tensor in model.graph.initializer:
        name = tensor.name.removeprefix(_PREFIX)
        if name not in state:
            continue
        value = torch.from_numpy(onnx.numpy_helper.to_array(tensor).astype("float32"))
        dtype = _DTYPES.get(tensor.data_type)
        if not dtype or not value.equal(state[name].to(getattr(torch, dtype)).float()):
            raise RuntimeError(f"template: '{name}' is not in the graph as it is in the network")
        layer = name.rpartition(".")[0]
        is_norm = isinstance(plain.get_submodule(layer), nn.BatchNorm2d)
        norm = _FOLDED_NORMS.get(layer, "")
        epsilon = nn.BatchNorm2d(1).eps if norm else 0.0
        shape = tuple(tensor.dims)
        found[name] = Weight(tensor.name, name, shape, dtype, is_norm, norm, epsilon)
    if missing := state.keys() - found.keys():
        raise RuntimeError(f"template: '{min(missing)}' is not in the graph")
    return tuple(found.values())


def _random(network: LandmarkNetwork) -> LandmarkNetwork:
    """The network with weights of which no two tensors are alike, variances positive."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return network


@click.command()
@click.option("--width", type=int, default=256, show_default=True)
@click.option("--input-size", type=int, default=128, show_default=True)
@click.option("--landmarks", type=int, default=10, show_default=True)
@click.option("--precision", type=click.Choice(_PRECISIONS), default="fp32", show_default=True)
@click.option("--skips/--no-skips", default=True, help="Blocks on the skips of the hourglass.")
@click.option("--output", type=click.Path(path_type=Path), default="runs", show_default=True)
def main(
    width: int, input_size: int, landmarks: int, precision: Precision, skips: bool, output: Path
) -> None:
    """Write the template of an architecture into the folder --output."""
    network = HourglassConfig(landmarks, width, input_size, skips)
    click.echo(write_template(make_template(network, precision), output))


if __name__ == "__main__":
    main()
