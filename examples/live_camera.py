"""Camera -> where the object is now: always the newest frame, however slow the machine.

    python examples/live_camera.py 0 --model faces --roi center

A file in the camera's place is played at its own rate. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import contextlib

import lmk


def main(arguments: list[str] | None = None) -> None:
    """Print a line a frame: its number, how many were skipped before it, centre and mean score."""
    parser = argparse.ArgumentParser(description="Follow an object live.")
    parser.add_argument("source", help="camera number, rtsp:// or http:// address, or a file")
    parser.add_argument("--model", required=True, help="a category or an exported model")
    parser.add_argument("--roi", default="full", help="where the object is, as of lmk detect")
    given = parser.parse_args(arguments)
    last = -1
    # The stream is closed, and the camera free again, when the block ends, whatever ends it.
    with (
        contextlib.suppress(KeyboardInterrupt),
        lmk.load(given.model) as landmarker,
        contextlib.closing(landmarker.stream(given.source, given.roi, live=True)) as stream,
    ):
        for found in stream:
            skipped, last = found.frame.index - last - 1, found.frame.index
            for detection in found.detections:
                x, y = detection.points.mean(axis=0)
                score = detection.scores.mean()
                print(f"{last} +{skipped} {x:.1f} {y:.1f} {score:.2f}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except (lmk.UserError, OSError) as error:
        raise SystemExit(str(error)) from None
