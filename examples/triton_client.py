"""Image file -> landmarks in its pixels, found by a Triton Inference Server.

    lmk export shoes --engine triton --output models
    tritonserver --model-repository=$PWD/models
    python examples/triton_client.py photo.jpg --model shoes --roi 40,60,300,200

The client needs `pip install . 'tritonclient[grpc]'` and no PyTorch. Everything it must know of the
model is in the repository's config.pbtxt, which the server sends.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from lmk.runtime import images
from lmk.runtime.errors import UserError


@dataclass(frozen=True)
class Model:
    """What the server says of a model."""

    name: str
    input_size: int  # side of the square crop in pixels
    crop_scale: float  # object box -> crop: this many times its longer side
    landmark_names: tuple[str, ...]


def describe(client: triton.InferenceServerClient, name: str) -> Model:
    """Ask the server for the model `name`; raises InferenceServerException if it has none."""
    config = client.get_model_config(name).config
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    return Model(
        name,
        input_size=config.input[0].dims[0],
        crop_scale=float(parameters["lmk.crop_scale"]),
        landmark_names=tuple(json.loads(parameters["lmk.landmark_names"])),
    )


def find_landmarks(
    client: triton.InferenceServerClient,
    model: Model,
    image: NDArray[np.uint8],
    box: images.Box | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Find the landmarks of the object in the box (x, y, w, h) of an HWC uint8 RGB image.

    box: None is the whole image. Returns landmarks (K,2), (x, y) in pixels of the image, the centre
    of the top-left one (0, 0), and scores (K,) in [0, 1]. Raises InferenceServerException.
    """
    square = images.square_around(box or images.whole(image), model.crop_scale)
    crop = images.crop(image, square, model.input_size)
    tensor = triton.InferInput("image", [1, *crop.shape], "UINT8")
    tensor.set_data_from_numpy(crop[None])
    outputs = [triton.InferRequestedOutput(name) for name in ("landmarks", "scores")]
    answer = client.infer(model.name, [tensor], outputs=outputs)
    landmarks, scores = answer.as_numpy("landmarks")[0], answer.as_numpy("scores")[0]
    return images.to_frame(landmarks, square, model.input_size), scores


def main(arguments: list[str] | None = None) -> int:
    """Print a line a landmark: name, x, y, score."""
    parser = argparse.ArgumentParser(description="Find landmarks with a Triton server.")
    parser.add_argument("image", type=Path)
    parser.add_argument("--model", required=True, help="its name in the model repository")
    parser.add_argument("--url", default="localhost:8001", help="the server's gRPC address")
    parser.add_argument("--roi", type=_box, help="box of the object: x,y,w,h; default: all of it")
    given = parser.parse_args(arguments)
    try:
        image = images.read_image(given.image)
        with triton.InferenceServerClient(given.url) as client:
            model = describe(client, given.model)
            landmarks, scores = find_landmarks(client, model, image, given.roi)
    except (UserError, InferenceServerException) as error:
        print(f"triton_client: {error}", file=sys.stderr)
        return 2
    for name, (x, y), score in zip(model.landmark_names, landmarks, scores, strict=True):
        print(f"{name} {x:.1f} {y:.1f} {score:.2f}")
    return 0


def _box(text: str) -> images.Box:
    x, y, width, height = map(float, text.split(","))
    if not (width > 0 and height > 0):
        raise argparse.ArgumentTypeError(f"got {text}, expected a positive width and height")
    return x, y, width, height


if __name__ == "__main__":
    sys.exit(main())
