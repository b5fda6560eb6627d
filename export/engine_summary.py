"""Built engine -> what the user reads of it."""

from __future__ import annotations

from lmk.export.engine_cache import Cached
from lmk.export.engine_layers import shares
from lmk.runtime.report import console

_MB = 1e6


def print_engine(found: Cached) -> None:
    """Where the engine comes from and what it computes in, on standard error."""
    screen, info, recipe = console(), found.info, found.info.recipe
    origin = f"built in {info.build_seconds:.1f} s ({found.reason})" if found.reason else "cached"
    size = f"{info.plan_bytes / _MB:.1f} MB"
    screen.print(f"engine: {recipe.precision}, {info.titled_library}, {size}, {origin}")
    screen.print(f"layers: {shares(info.layers)}; convolutions: {shares(info.convolutions)}")
    if info.kernels:
        screen.print(f"kernels: {shares(info.kernels)}")
    screen.print(f"batches: {', '.join(map(str, recipe.batches))}; for {recipe.place}")
    refit = "takes the weights of other packs" if recipe.refittable else "its weights are fixed"
    screen.print(f"refit: {refit}")
