"""Video -> how far two landmarks are from each other, frame by frame, as CSV.

python examples/measure_distance.py clip.mp4 p0 p3 --model cats > distance.csv
"""

from __future__ import annotations

import argparse
import csv
import sys

import numpy as np

import lmk


def index_of(name: str, names: tuple[str, ...]) -> int:
    """The number of a landmark; raises UserError for a name that the model does not have."""
    if name not in names:
        raise lmk.UserError(f"landmark: got '{name}', expected one of {', '.join(names)}")
    return names.index(name)


def main(arguments: list[str] | None = None) -> None:
    """Write time in seconds and distance in pixels; empty where a landmark is not to be seen."""
    parser = argparse.ArgumentParser(description="Measure between two landmarks.")
    parser.add_argument("source")
    parser.add_argument("first", help="name of a landmark")
    parser.add_argument("second")
    parser.add_argument("--model", required=True, help="a category or an exported model")
    parser.add_argument("--roi", default="full", help="where the object is, as of lmk detect")
    given = parser.parse_args(arguments)
    with lmk.load(given.model) as landmarker:
        pair = [index_of(name, landmarker.names) for name in (given.first, given.second)]
        table = csv.writer(sys.stdout, lineterminator="\n")
        table.writerow(["time_s", "distance_px"])
        for found in landmarker.stream(given.source, given.roi):
            for detection in found.detections:
                x, y = np.subtract(*detection.points[pair])
                distance = "" if detection.low[pair].any() else f"{np.hypot(x, y):.2f}"
                table.writerow([f"{found.frame.time_s:.3f}", distance])


if __name__ == "__main__":
    try:
        main()
    except (lmk.UserError, OSError) as error:
        raise SystemExit(str(error)) from None
