"""Pack + 5 to 50 annotated images -> a model of your own points, used by their names.

    python examples/named_points.py faces annotations.csv photo.jpg --name mine

annotations.csv lies beside its images: file, NAME_x, NAME_y, … in pixels. The same on the command
line: `lmk name`, which has more options. Needs the extra [train].
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import lmk
from lmk.runtime.images import read_image
from lmk.runtime.model import workspace
from lmk.train.judge import name_pack


def main(arguments: list[str] | None = None) -> None:
    """Print a line a named point: name, x, y in pixels of the image, score."""
    parser = argparse.ArgumentParser(description="Find points of your own.")
    parser.add_argument("pack", type=Path, help="a category, or its pack")
    parser.add_argument("annotations", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--name", required=True, help="what the new category is called")
    given = parser.parse_args(arguments)
    pack = workspace.pick(given.pack, "pack")
    output = workspace.RUNS / f"{given.name}.safetensors"
    report, _ = name_pack(pack, workspace.core_of(pack), given.annotations, output)
    print(f"off by {report['error_px']:.1f} px of the crop in images left out", file=sys.stderr)
    with lmk.load(given.name) as landmarker:  # from now on a category like any other
        found = landmarker(read_image(given.image))
        points = dict(zip(landmarker.names, found.points, strict=True))
        scores = dict(zip(landmarker.names, found.scores, strict=True))
    for name, (x, y) in points.items():
        print(f"{name} {x:.1f} {y:.1f} {scores[name]:.2f}")


if __name__ == "__main__":
    try:
        main()
    except (lmk.UserError, OSError) as error:
        raise SystemExit(str(error)) from None
