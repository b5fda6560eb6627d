"""Folder of images -> one array of landmarks, many images in each run of the model.

python examples/batch_folder.py photos landmarks.npz --model shoes
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import numpy as np

import lmk
from lmk.runtime.images import whole
from lmk.runtime.sources import open_source


def main(arguments: list[str] | None = None) -> None:
    """Save `files` (N,), `points` (N,K,2) in pixels of each image, `scores` (N,K), `names` (K,)."""
    parser = argparse.ArgumentParser(description="Find landmarks in a folder of images.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", required=True, help="a category or an exported model")
    parser.add_argument("--batch", type=int, default=16)
    given = parser.parse_args(arguments)
    files: list[str] = []
    found: list[lmk.Detection] = []
    with lmk.load(given.model) as landmarker, open_source(given.folder) as source:
        frames_of = iter(source)
        while frames := list(islice(frames_of, given.batch)):
            images = [frame.image for frame in frames]
            files += [frame.source for frame in frames]
            found += landmarker.batch(images, [whole(image) for image in images])
        for reason in source.skipped:
            print(f"skipped: {reason}")
        points, scores = [one.points for one in found], [one.scores for one in found]
        names = np.array(landmarker.names)
    np.savez(given.output, files=np.array(files), points=points, scores=scores, names=names)


if __name__ == "__main__":
    try:
        main()
    except (lmk.UserError, OSError) as error:
        raise SystemExit(str(error)) from None
