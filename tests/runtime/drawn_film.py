"""Frames of ellipses that move over a textured floor, whose places are known."""

import numpy as np

HEIGHT, WIDTH = 180, 240


def floor(seed=0):
    """(H,W,3) uint8: smooth blotches of middling brightness."""
    coarse = np.random.default_rng(seed).uniform(90, 170, (10, 13, 3))
    rows, columns = np.arange(HEIGHT) / HEIGHT * 9, np.arange(WIDTH) / WIDTH * 12
    r, c = rows.astype(int)[:, None], columns.astype(int)
    down, right = (rows % 1)[:, None, None], (columns % 1)[None, :, None]
    top = coarse[r, c] * (1 - right) + coarse[r, c + 1] * right
    bottom = coarse[r + 1, c] * (1 - right) + coarse[r + 1, c + 1] * right
    return (top * (1 - down) + bottom * down).astype(np.uint8)


def frame(background, ellipses, noise=2.0, seed=0):
    """`background` with dark ellipses (x, y, angle, length, width) on it, and some noise."""
    image = background.astype(np.float32)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    for left, top, angle, length, width in ellipses:
        along = (x - left) * np.cos(angle) + (y - top) * np.sin(angle)
        across = (y - top) * np.cos(angle) - (x - left) * np.sin(angle)
        inside = (2 * along / length) ** 2 + (2 * across / width) ** 2 <= 1
        image[inside] = (30, 25, 20)
    image += np.random.default_rng(seed).normal(0, noise, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def wander(step):
    """Where something that goes round in the picture is at a step: x, y and its direction."""
    turn = step * 0.07
    x, y = WIDTH / 2 + 80 * np.cos(turn), HEIGHT / 2 + 55 * np.sin(turn)
    return x, y, np.arctan2(55 * np.cos(turn), -80 * np.sin(turn))


def one(count, size=(36, 16)):
    """Frames of one that wanders, and its places."""
    places = [wander(step) for step in range(count)]
    return [frame(floor(), [(*place, *size)], seed=n) for n, place in enumerate(places)], places
