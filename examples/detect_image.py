"""Image -> its landmarks on standard output, and drawn into a copy of it.

python examples/detect_image.py photo.jpg drawn.png --model shoes
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

import lmk
from lmk.runtime.images import read_image
from lmk.runtime.outputs import draw


def main(arguments: list[str] | None = None) -> None:
    """Print a line a landmark: name, x, y in pixels, score."""
    parser = argparse.ArgumentParser(description="Find landmarks in an image.")
    parser.add_argument("image", type=Path)
    parser.add_argument("drawn", type=Path)
    parser.add_argument("--model", required=True, help="a category or an exported model")
    given = parser.parse_args(arguments)
    image = read_image(given.image)
    with lmk.load(given.model) as landmarker:
        found = landmarker(image)  # of one object in it: landmarker(image, roi=(x, y, w, h))
        for name, (x, y), score in zip(landmarker.names, found.points, found.scores, strict=True):
            print(f"{name} {x:.1f} {y:.1f} {score:.2f}")
    Image.fromarray(draw(image, found)).save(given.drawn)


if __name__ == "__main__":
    try:
        main()
    except (lmk.UserError, OSError) as error:
        raise SystemExit(str(error)) from None
