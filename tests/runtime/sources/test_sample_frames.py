"""Frames spread over time and appearance, the same each time, none twice."""

import numpy as np

from lmk.runtime.sources import choose, choose_frames, open_source, sample


def _film(count, height=48, width=64):
    """A bright square that wanders from left to right and back."""
    frames = []
    for index in range(count):
        frame = np.full((height, width, 3), 40, np.uint8)
        left = round((width - 16) * (1 - abs(1 - 2 * index / max(count - 1, 1))))
        frame[16:32, left : left + 16] = 220
        frames.append(frame)
    return frames


def test_a_sample_is_even_and_bounded(tmp_path, write_video):
    path = write_video(tmp_path / "v.mp4", _film(50))
    for count, every in ((60, 1), (26, 1), (25, 2), (10, 4), (4, 8)):
        with open_source(path) as source:
            numbers = sample(source, count, lambda frame: frame.index)
        assert numbers == list(range(0, 50, every))


def test_chosen_frames_are_spread_over_time_and_the_same_each_time(tmp_path, write_video):
    path = write_video(tmp_path / "v.mp4", _film(120))
    chosen = []
    for _ in range(2):
        with open_source(path) as source:
            chosen.append(choose_frames(source, 24))
    assert chosen[0] == chosen[1] == sorted(set(chosen[0]))
    assert len(chosen[0]) <= 24
    # The way back shows what was seen on the way there: few of it are taken again.
    there = [number for number in chosen[0] if number < 60]
    assert len(there) >= 10 and len(chosen[0]) - len(there) < len(there)


def test_rare_looks_are_taken_and_repeated_ones_once():
    common = np.full((100, 768), 50, np.uint8)
    common[40:44, :100] = 200  # for a moment
    common[70:72, 300:500] = 120
    chosen = choose(common, 16)
    assert sorted({40 <= place < 44 for place in chosen}) == [False, True]
    assert len(chosen) == 3 and sum(70 <= place < 72 for place in chosen) == 1


def test_a_budget_above_what_there_is():
    different = (np.arange(5)[:, None] * 40 + np.zeros(768)).astype(np.uint8)
    assert choose(different, 2000) == [0, 1, 2, 3, 4]
    assert choose(different[:1], 3) == [0]
