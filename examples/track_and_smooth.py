"""Video of moving objects -> each one followed, its points steadied: JSON lines, one a frame.

python examples/track_and_smooth.py street.mp4 --model faces --start 40,60,120,240
"""

from __future__ import annotations

import argparse
import json

import lmk


def main(arguments: list[str] | None = None) -> None:
    """Print {"time_s", "objects": {track: {"box": [x, y, w, h], "points": {name: [x, y]}}}}."""
    parser = argparse.ArgumentParser(description="Follow objects through a video.")
    parser.add_argument("source")
    parser.add_argument("--model", required=True, help="a category or an exported model")
    parser.add_argument("--start", help="box in the first frame, x,y,w,h; default: it is searched")
    parser.add_argument("--objects", type=int, default=1, help="at most so many")
    given = parser.parse_args(arguments)
    with lmk.load(given.model) as landmarker:
        names = landmarker.names
        stream = landmarker.stream(
            given.source, "track", start=given.start, objects=given.objects, smooth=True
        )
        for found in stream:
            objects = {
                each.track: {
                    "box": [round(edge, 1) for edge in each.box],
                    "points": dict(
                        zip(names, each.points.astype(float).round(2).tolist(), strict=True)
                    ),
                }
                for each in found.detections
            }
            print(json.dumps({"time_s": round(found.frame.time_s, 3), "objects": objects}))


if __name__ == "__main__":
    try:
        main()
    except (lmk.UserError, OSError) as error:
        raise SystemExit(str(error)) from None
