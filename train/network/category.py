"""Pack <-> network: what a category adds to its core, and the network that the two make."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lmk.runtime.errors import UserError
from lmk.runtime.model import check_core, probe_crops, read_header, record
from lmk.train.config import Method, Scope
from lmk.train.network import checkpoint
from lmk.train.network.bottleneck import NamingLayer, find
from lmk.train.network.hourglass import HourglassConfig, LandmarkNetwork
from lmk.train.network.projection import category_state, load_category_state, project, with_head

LAST_LAYERS = ("top", "conv_last", "bn_last", "head")  # what follows the hourglass


def new_category(
    method: Method,
    core: LandmarkNetwork,
    num_landmarks: int,
    scope: Scope = "all",
    train_plain_convs: bool = False,
) -> LandmarkNetwork:
    """The network to adapt, its trainable parts marked by `requires_grad`.

    projection: frozen core and W; finetune: everything starts from the core and is trained;
    finetune-last: as finetune, but all up to the hourglass stays as it is; scratch: everything is
    trained from PyTorch's initial values, only the architecture is shared; projection+finetune:
    as finetune, from where a projection has got to (the caller's business).
    """
    if method == "projection":
        return project(core, num_landmarks, scope, train_plain_convs)
    if method in ("finetune", "projection+finetune"):
        return with_head(core, num_landmarks)
    if method == "finetune-last":
        model = with_head(core, num_landmarks)
        for name, part in model.named_children():
            part.requires_grad_(name in LAST_LAYERS)
        return model
    return LandmarkNetwork(replace(core.config, num_landmarks=num_landmarks))


def train_mode(model: LandmarkNetwork) -> None:
    """Train mode, but for batch-norms that are frozen: those keep their statistics too."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()


def save_pack(path: Path, model: LandmarkNetwork, header: Mapping[str, Any]) -> None:
    """Write what the category adds to its core.

    `header` holds at least category, method, scope, train_plain_convs, core_sha256, crop_scale
    and landmark_names; the network's configuration is added. So is, unless `header` says that the
    run is unfinished, what the network finds in the probe crops, by which whoever composes a
    model of the pack without PyTorch checks it.
    """
    header = {**header, "network": model.config.recorded()}
    if header.get("finished", True):
        header["probe"] = probe(model)
    checkpoint.save(path, "pack", category_state(model), header)


def halve_pack(path: Path, core_path: Path | None, output: Path) -> None:
    """Write a pack with its matrices in half precision, and with the probe of those: what ships.

    `core_path` and what is raised: see `load_pack`.
    """
    tensors, header = checkpoint.load(path, "pack")
    model, _ = _rebuild(path, checkpoint.halved(tensors), header, core_path)
    header["probe"] = probe(model)
    checkpoint.save(output, "pack", checkpoint.halved(tensors), header)


def probe(model: LandmarkNetwork) -> dict[str, Any]:
    """What `model` finds in the probe crops, in float32 on the CPU; see `record`."""
    network = copy.deepcopy(model).to("cpu", torch.float32).eval()
    crops = probe_crops(network.config.input_size)
    with torch.inference_mode():
        points, scores = find(network, torch.from_numpy(crops).permute(0, 3, 1, 2) / 255)
    return record(points.numpy(), scores.numpy())


def prune_pack(
    path: Path,
    core_path: Path | None,
    output: Path,
    drop: Sequence[str] = (),
    merge: Sequence[tuple[str, ...]] = (),
) -> tuple[str, ...]:
    """Write a pack without the landmarks `drop`, and with one in place of each group of `merge`.

    Merged are the heat-maps: the mean of the last layer's weights, by the first name of the group.
    Returns the names that stay. Raises UserError for names that are none, twice, or all.
    `core_path` and what else is raised: see `load_pack`.
    """
    model, header = load_pack(path, core_path)
    names, following = header["landmark_names"], header.get("following", 0)
    given = names[: len(names) - following]  # those kept for following stay
    asked = [*drop, *(name for group in merge for name in group)]
    for name in asked:
        if name not in given or asked.count(name) > 1:
            what = "twice" if name in given else "no landmark"
            raise UserError(
                f"{path}: got '{name}', {what}, expected of {', '.join(given)} each once"
            )
    groups = {group[0]: group for group in merge}
    gone = {*drop, *(name for group in merge for name in group[1:])}
    kept = tuple(name for name in names if name not in gone)
    if len(kept) == following:
        raise UserError(f"{path}: got all landmarks to drop, expected some to stay; drop fewer")
    rows = [[names.index(each) for each in groups.get(name, (name,))] for name in kept]
    if isinstance(layer := model.naming, NamingLayer):
        made_of = _means(layer.weight, rows), _means(layer.offset, rows)
        model.naming = NamingLayer(*made_of, following)
    else:
        model = with_maps(model, rows)
        if (told := header.get("acceptance")) and told[
            "weights"
        ]:  # of fewer landmarks the radius is another
            weights = [sum(told["weights"][n] for n in row) / len(row) for row in rows]
            header = {**header, "acceptance": {**told, "weights": weights, "radius": None}}
    made_anew = ("sha256", "versions", "probe", "network")
    header = {name: value for name, value in header.items() if name not in made_anew}
    pruned = {"from_sha256": read_header(path)["sha256"], "drop": list(drop)}
    pruned["merge"] = [list(group) for group in merge]
    save_pack(output, model, {**header, "landmark_names": kept, "pruned": pruned})
    return kept[: len(kept) - following]


def with_maps(model: LandmarkNetwork, groups: Sequence[Sequence[int]]) -> LandmarkNetwork:
    """A copy of `model` whose heat-maps are means of its own, of the numbers in `groups`."""
    network, old = copy.deepcopy(model), model.head
    network.config = replace(model.config, num_landmarks=len(groups))
    network.head = nn.Conv2d(old.in_channels, len(groups), 1)
    with torch.no_grad():
        network.head.weight.copy_(_means(old.weight, groups))
        assert network.head.bias is not None and old.bias is not None
        network.head.bias.copy_(_means(old.bias, groups))
    return network


def _means(values: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
    """The mean of each group of rows."""
    return torch.stack([values.detach()[list(group)].mean(dim=0) for group in rows])


def load_pack(path: Path, core_path: Path | None) -> tuple[LandmarkNetwork, dict[str, Any]]:
    """Rebuild the unfolded network of a pack in eval mode on the CPU, and the pack's header.

    `core_path` may be None for the method `scratch`, which needs no core. Raises UserError for a
    pack that was made for another core (both sha256 named), or that is damaged.
    """
    return _rebuild(path, *checkpoint.load(path, "pack"), core_path)


def _rebuild(
    path: Path, state: dict[str, Tensor], header: dict[str, Any], core_path: Path | None
) -> tuple[LandmarkNetwork, dict[str, Any]]:
    """`load_pack` of what stands in the file `path`."""
    network = HourglassConfig(**header["network"])
    if core_path is None or header["method"] == "scratch":
        check_core(path, header, None, None)
        core = LandmarkNetwork(network)
    else:
        core, core_header = checkpoint.load_core(core_path)
        check_core(path, header, core_path, core_header["sha256"])
    model = new_category(
        header["method"],
        core,
        network.num_landmarks,
        header["scope"],
        header["train_plain_convs"],
    )
    if "naming" in header:
        points, landmarks = len(header["landmark_names"]), network.num_landmarks
        empty = torch.empty(points, landmarks), torch.empty(points, 2)
        model.naming = NamingLayer(*empty, header.get("following", 0))
    try:
        load_category_state(model, {n: v.to(torch.float32) for n, v in state.items()})
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0]}; make the pack again") from None
    return model.eval(), header
