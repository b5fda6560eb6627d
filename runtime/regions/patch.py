"""One box in one frame -> the box in those that follow, by what it shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.detection import Frame
from lmk.runtime.images import Box, crop
from lmk.runtime.regions.region import Region, Target

_WINDOW = 2.0  # sides of the window that is looked through, in those of the box
_CELLS = 32  # a side of the window
_CELL = 4  # pixels of the shrunk window a side of a cell
_DIRECTIONS = 8  # of edges that are told apart
_SCALES = (0.95, 1.0, 1.05)
_SCALE_COST = 0.99  # of an answer at another scale: the size is to change only for a reason
_SHARP = 0.08  # deviation of the wanted answer, in cells of the box
_LEARNING = 0.03  # weight of the newest frame
_RIDGE = 1e-2
_LOST = 0.12  # highest answer, of 1, below which the box stays and nothing is learnt


class PatchRegion(Region):
    """Follows the boxes that `start` gives in its first frame, whatever they hold.

    A correlation filter each, over brightness, colour and the directions of edges, that goes on
    learning how its object looks, and finds its size among three. The camera may move. Where
    nothing in reach looks like it any more the box stays. Before the first boxes there are none.
    """

    def __init__(self, start: Region) -> None:
        self._start = start
        self._filters: dict[int, _Filter] = {}

    def targets(self, frame: Frame) -> Sequence[Target]:
        """See `Region.targets`."""
        if not self._filters:
            self._filters = {
                target.track: _Filter(target.box, frame.image)
                for target in self._start.targets(frame)
            }
        else:
            for each in self._filters.values():
                each.follow(frame.image)
        return [Target(each.box, number) for number, each in self._filters.items()]

    def state(self) -> Any:
        """See `Region.state`."""
        return [[number, each.state()] for number, each in self._filters.items()]

    def restore(self, state: Any) -> None:
        """See `Region.restore`."""
        self._filters = {number: _Filter.restored(each) for number, each in state}


class _Filter:
    """Where one object is and what answers to it."""

    def __init__(self, box: Box, image: NDArray[np.uint8]) -> None:
        self.box = box
        self._above, self._below = self._learnt(image)

    def follow(self, image: NDArray[np.uint8]) -> None:
        """Find the object in the next frame, near where it was."""
        best, right, down, scale = 0.0, 0.0, 0.0, 1.0
        for each in _SCALES:
            spectrum = np.fft.fft2(_features(image, _scaled(self.box, each)))
            answer = np.fft.ifft2((self._above * spectrum).sum(axis=0) / self._below).real
            row, column = divmod(int(answer.argmax()), _CELLS)
            peak = float(answer[row, column]) * (1.0 if each == 1 else _SCALE_COST)
            if peak > best:
                best, scale = peak, each
                down, right = (
                    _wrapped(place + _vertex(line, place), _CELLS)
                    for place, line in ((row, answer[:, column]), (column, answer[row]))
                )
        if best < _LOST:
            return
        x, y, width, height = _scaled(self.box, scale)
        step = _WINDOW * max(width, height) / _CELLS
        self.box = (x + right * step, y + down * step, width, height)
        above, below = self._learnt(image)
        self._above += _LEARNING * (above - self._above)
        self._below += _LEARNING * (below - self._below)

    def _learnt(
        self, image: NDArray[np.uint8]
    ) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
        spectrum = np.fft.fft2(_features(image, self.box))
        power = (np.abs(spectrum) ** 2).sum(axis=0)
        return _WANTED * np.conj(spectrum), power + _RIDGE * power.mean()

    def state(self) -> Any:
        """As JSON values."""
        above = [self._above.real.tolist(), self._above.imag.tolist()]
        return {"box": list(self.box), "above": above, "below": self._below.tolist()}

    @classmethod
    def restored(cls, state: Any) -> _Filter:
        """The filter whose `state` that is."""
        found = cls.__new__(cls)
        real, imaginary = (np.array(each) for each in state["above"])
        found.box, found._above = tuple(state["box"]), real + 1j * imaginary
        found._below = np.array(state["below"])
        return found


def _features(image: NDArray[np.uint8], box: Box) -> NDArray[np.float64]:
    """(C,32,32) of the window about `box`: colours and edges of cells, fading out at its border."""
    x, y, width, height = box
    side = _WINDOW * max(width, height)
    window = (x + width / 2 - side / 2, y + height / 2 - side / 2, side, side)
    pixels = crop(image, window, _CELLS * _CELL).astype(np.float64) / 255
    grey = pixels.mean(axis=2)
    down, right = np.gradient(grey)
    strength = np.hypot(right, down)
    # Edges by direction, whichever side is the brighter.
    direction = np.arctan2(down, right) % math.pi * (_DIRECTIONS / math.pi)
    bins = np.arange(_DIRECTIONS)[:, None, None]
    apart = np.abs(direction - bins)
    edges = strength * np.clip(1 - np.minimum(apart, _DIRECTIONS - apart), 0, 1)
    planes = np.concatenate([pixels.transpose(2, 0, 1), edges])
    cells = planes.reshape(-1, _CELLS, _CELL, _CELLS, _CELL).mean(axis=(2, 4))
    contrast = np.sqrt((cells[3:] ** 2).sum(axis=0)) + 0.02
    cells[3:] /= contrast
    cells[:3] -= cells[:3].mean(axis=(1, 2), keepdims=True)
    return cells * _FADE


def _bell() -> NDArray[np.complex128]:
    away = np.minimum(np.arange(_CELLS), _CELLS - np.arange(_CELLS)) / (_SHARP * _CELLS / _WINDOW)
    line = np.exp(-(away**2) / 2)
    return np.fft.fft2(np.outer(line, line))


_FADE = np.outer(np.hanning(_CELLS), np.hanning(_CELLS))
_WANTED = _bell()


def _scaled(box: Box, scale: float) -> Box:
    x, y, width, height = box
    return (
        x + width * (1 - scale) / 2,
        y + height * (1 - scale) / 2,
        width * scale,
        height * scale,
    )


def _vertex(line: NDArray[np.float64], place: int) -> float:
    """How far the top of the parabola through a maximum and its neighbours is from it."""
    before, top, after = line[place - 1], line[place], line[(place + 1) % len(line)]
    bend = before - 2 * top + after
    return float(0.5 * (before - after) / bend) if bend < 0 else 0.0


def _wrapped(place: float, length: int) -> float:
    """A circular shift as one to either side."""
    return (place + length / 2) % length - length / 2
