"""How well points are named from a few annotated images, and how often it is refused.

    python -m lmk.benchmarks.studies.naming PACK --data NAME --images 5 --images 10 > naming.json

For each number of images so many random draws of them from the training images of NAME; each names
its points by the landmarks that the pack finds, and is measured on all its test images: mean ± sd
over the draws, beside the mean shape of the same images, and beside the ridge regression from all
coordinates to all coordinates, with its strength chosen for the test images, which flatters it.
What `lmk name` says of left-out images stands beside the error on 500 more of the training images,
which it foretells; test images may be of another kind. The JSON goes to standard output.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from lmk.benchmarks.machine import machine
from lmk.runtime.errors import UserError
from lmk.runtime.model import workspace
from lmk.runtime.terminal import FILE_PATH
from lmk.train.config import EvaluateConfig
from lmk.train.datasets import DecodedSet, PointArray, load_decoded
from lmk.train.judge import (
    RIDGES,
    LinearRegressor,
    NamedCrops,
    check_informative,
    errors_percent,
    find_landmarks,
    fit,
    judge,
    leave_one_out,
    prepared,
)
from lmk.train.network import load_pack
from lmk.train.split import Indices, split_indices

ROWS = ("named", "mean_shape", "full_ridge", "left_out", "alike", "alike_mean_shape")
_ALIKE = 500


@click.command()
@click.argument("pack", type=FILE_PATH)
@click.option("--data", required=True, help="Annotated images, the object as in detection.")
@click.option("--images", type=int, multiple=True, default=(5, 10, 20, 50), show_default=True)
@click.option("--draws", type=int, default=20, show_default=True)
@click.option("--core", type=FILE_PATH, help="The pack's core, if it is not in runs/.")
def main(pack: Path, data: str, images: tuple[int, ...], draws: int, core: Path | None) -> None:
    """Print what `measure` finds as JSON."""
    pack = workspace.pick(pack, "pack")
    model, header = load_pack(pack, core or workspace.core_of(pack))
    decoded = load_decoded(data, None, model.config.input_size)
    if decoded.scheme.normaliser.pair in (None, "sample"):
        raise UserError(
            f"{data}: got no names with a length to divide by, expected l_eye and r_eye, or "
            "l_shoulder and r_hip; name another set"
        )
    # Of images whose points are all there.
    whole = np.asarray(np.isfinite(decoded.points).all(axis=(1, 2)))
    train, test = (part[whole[part]] for part in split_indices(decoded.splits, 0))
    choices = {  # the same for every pack
        count: [
            np.random.default_rng((count, draw)).choice(train, count, replace=False)
            for draw in range(draws)
        ]
        for count in images
    }
    used = np.unique(np.concatenate([np.concatenate(each) for each in choices.values()]))
    alike = np.random.default_rng(0).permutation(np.setdiff1d(train, used))[:_ALIKE]
    ready = prepared(model, EvaluateConfig())
    found = {
        int(index): point
        for part in (used, test, alike)
        for index, point in zip(part, find_landmarks(ready, decoded, part), strict=True)
    }
    size = model.config.input_size
    measured = [_Measured(decoded, found, part, size) for part in (test, alike)]
    result = {
        "machine": machine(),
        "pack": pack.name,
        "pack_sha256": header["sha256"],
        "data": data,
        "test_images": len(test),
        "alike_images": len(alike),
        "normaliser": decoded.scheme.normaliser.label,
        "draws": draws,
        "images": {
            str(count): measure(decoded, found, each, *measured) for count, each in choices.items()
        },
    }
    click.echo(json.dumps(result, indent=1))


class _Measured:
    """Images to measure on: what is found in them, and what is true."""

    def __init__(
        self, data: DecodedSet, found: Mapping[int, PointArray], indices: Indices, size: int
    ) -> None:
        self.truth, self.size = data.crop_points(indices, size), size
        self.lengths = data.scheme.normaliser.lengths(self.truth, data.lengths[indices])
        self.found = np.stack([found[int(index)] for index in indices])

    def percent(self, points: NDArray[Any]) -> float:
        """Mean error in % of the normaliser, of points (N,M,2), or (1,M,2) for all images."""
        return float(errors_percent(points, self.truth, self.lengths).mean())


def measure(
    data: DecodedSet,
    found: Mapping[int, PointArray],
    draws: Sequence[Indices],
    test: _Measured,
    alike: _Measured,
) -> dict[str, Any]:
    """Errors in % of the normaliser: mean and sd over `draws`, of each of ROWS.

    `left_out` is what `lmk name` says itself; `refused` counts the draws that it would not name.
    """
    errors: dict[str, list[float]] = {row: [] for row in ROWS}
    refused, margin = 0, (data.images.shape[1] - test.size) // 2
    middle = slice(margin, margin + test.size)
    for chosen in draws:
        x = np.stack([found[int(index)] for index in chosen])
        y = data.crop_points(chosen, test.size)
        crops = data.images[chosen, middle, middle]
        report = judge(leave_one_out(x, y), NamedCrops(data.scheme, crops, y))
        try:
            check_informative(report, "")
        except UserError:
            refused += 1
        fitted, flat = fit(x, y), y.mean(axis=0, keepdims=True)
        full = [test.percent(LinearRegressor(x, y, ridge)(test.found)) for ridge in RIDGES]
        found_errors = (
            test.percent(fitted(test.found)),
            test.percent(flat),
            min(full),
            report["error_percent"],
            alike.percent(fitted(alike.found)),
            alike.percent(flat),
        )
        for row, value in zip(ROWS, found_errors, strict=True):
            errors[row].append(value)
    rows = {
        f"{row}_percent": {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}
        for row, values in errors.items()
    }
    return {**rows, "worst_named_percent": max(errors["named"]), "refused": refused}


if __name__ == "__main__":
    main()
