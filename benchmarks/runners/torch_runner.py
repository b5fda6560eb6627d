"""Pack -> a runner of PyTorch: what the exported model has to beat."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lmk.benchmarks.runners.roofline import arithmetic
from lmk.export.graph import DetectorGraph, fold
from lmk.runtime.errors import UserError
from lmk.runtime.model import contract_of
from lmk.runtime.runners import Reading, Runner, check_crops, host_array
from lmk.train.device import pick_device
from lmk.train.network import LandmarkNetwork, load_pack

_DTYPES = {"fp32": torch.float32, "tf32": torch.float32}
_DTYPES |= {"fp16": torch.float16, "bf16": torch.bfloat16}
_REASON = 200  # characters of what PyTorch says, which may be pages
_SHAPES = 64  # batch sizes that may be compiled; PyTorch would stop at 8


class TorchRunner(Runner):
    """The folded network of a pack in PyTorch.

    Folded, for W·theta in every call would be no fair baseline. precision: "fp32" and "tf32" as it
    is, "fp16" and "bf16" with the network cast once and its tensors channels-last. compiled: by
    torch.compile, once for each batch size; on CUDA with CUDA graphs. threads: of the whole
    process. Raises UserError for a pack or a device that is not there.
    """

    def __init__(
        self,
        pack: Path,
        core: Path | None,
        device: str,
        precision: str,
        threads: int,
        compiled: bool = False,
    ) -> None:
        torch.set_num_threads(threads)
        self._device = pick_device(device)
        self._precision = precision
        network, header = load_pack(pack, core)
        folded = fold(network)
        if _DTYPES[precision] is not torch.float32:
            _cast(folded, _DTYPES[precision])
        graph: Any = DetectorGraph(folded).to(self._device)
        if compiled:
            torch._dynamo.config.recompile_limit = _SHAPES
            mode = "reduce-overhead" if self._device.type == "cuda" else None
            graph = torch.compile(graph, fullgraph=True, dynamic=False, mode=mode)
        self._graph = graph
        self._compiled = compiled
        self.contract = contract_of(header, "fp32", {})
        how = "compiled" if compiled else "eager"
        self.name = f"PyTorch {how} {torch.__version__} {self._device} {precision}"

    def __call__(self, crops: Any) -> Reading:
        """See `Runner.__call__`; crops in host memory."""
        array = host_array(crops)
        check_crops(array, self.contract)
        images = torch.from_numpy(np.ascontiguousarray(array))
        with arithmetic(self._precision), torch.inference_mode():
            landmarks, scores = self._run(images.to(self._device))
            return landmarks.cpu().numpy(), scores.cpu().numpy()

    def close(self) -> None:
        """Free the network."""
        self._graph = None

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if not self._compiled:
            found: tuple[Tensor, Tensor] = self._graph(images)
            return found
        try:
            found = self._graph(images)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = " ".join(str(error).split())[:_REASON]
            raise UserError(
                f"{self.name}: cannot compile ({reason}); leave compile out, or see what "
                "torch.compile needs here"
            ) from error
        return found


def _cast(network: LandmarkNetwork, kind: torch.dtype) -> None:
    """Let `network` compute in `kind`, channels-last; float32 (B,3,S,S) in, heat-maps out."""
    for name, child in network.named_children():
        if name != "naming":  # it follows the heat-maps, which are float32 again
            child.to(kind).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def narrow(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (given[0].to(kind, memory_format=torch.channels_last),)

    def widen(module: nn.Module, given: tuple[Tensor, ...], maps: Tensor) -> Tensor:
        return maps.float()

    network.register_forward_pre_hook(narrow)
    network.register_forward_hook(widen)


def compile_into(folder: Path) -> None:
    """Let this process and those it starts keep compiled kernels in `folder`: cold at first."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
