"""Pictures of drawn faces, which the pack `faces` finds, and where their eyes and mouths are."""

import av
import numpy as np
from PIL import Image, ImageDraw

SIDE = 192
NAMES = ("left eye", "right eye", "mouth")
_PLACES = np.array([(-0.19, -0.08), (0.19, -0.08), (0.0, 0.26)])  # in sizes of the face


def face(number, side=SIDE):
    """RGB (side, side, 3) uint8 of face `number`, and its points (3,2), pixel centres."""
    draw = np.random.default_rng(number)
    x, y = side / 2 + draw.uniform(-0.14, 0.14, 2) * side
    size, turn = draw.uniform(0.55, 0.75) * side, draw.uniform(-0.3, 0.3)
    big = 4
    picture = Image.new("RGB", (side * big, side * big), (96, 120, 140))
    pen = ImageDraw.Draw(picture)
    cos, sin = np.cos(turn), np.sin(turn)

    def at(dx, dy):
        return np.array([x + size * (dx * cos - dy * sin), y + size * (dx * sin + dy * cos)])

    def oval(dx, dy, width, height, colour):
        angles = np.linspace(0, 2 * np.pi, 48)
        rim = [at(dx + width / 2 * np.cos(a), dy + height / 2 * np.sin(a)) for a in angles]
        pen.polygon([tuple(big * point) for point in rim], fill=colour)

    oval(0, -0.06, 0.86, 1.12, (70, 45, 30))  # hair
    oval(0, 0.04, 0.74, 0.98, (224, 178, 146))
    for dx, dy in _PLACES[:2]:
        oval(dx, dy - 0.1, 0.2, 0.035, (80, 52, 36))  # a brow
        oval(dx, dy, 0.17, 0.085, (250, 250, 250))
        oval(dx, dy, 0.075, 0.08, (40, 28, 22))
    oval(0, 0.1, 0.1, 0.16, (204, 152, 122))  # nose
    oval(*_PLACES[2], 0.28, 0.075, (170, 60, 62))
    small = np.asarray(picture.resize((side, side), Image.Resampling.BOX))
    return small, np.stack([at(*place) for place in _PLACES]) - 0.5


def film(path, count, side=SIDE, seed=0):
    """Write a film of `count` faces, a frame each; returns their points (count,3,2)."""
    points = []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "12", "preset": "fast"})
        stream.width = stream.height = side
        for number in range(count):
            image, marks = face(seed + number, side)
            points.append(marks)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return np.stack(points)
