"""Drawn and real clips -> exactly their cuts."""

import json

import numpy as np
from PIL import Image

from lmk.runtime.sources.cuts import CutDetector
from lmk.runtime.sources.open import open_source


def scene(seed: int, height: int = 120, width: int = 400) -> np.ndarray:
    """A picture of soft coloured patches."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 20, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def cuts(clip) -> list[int]:
    detector = CutDetector()
    return [index for index, image in enumerate(clip) if detector(image)]


A, B = scene(1)[:, :160], scene(2)[:, :160]


def test_a_cut_is_its_first_frame():
    assert cuts([A] * 5 + [B] * 5 + [A] * 3) == [5, 10]
    assert cuts([A]) == []


def test_motion_is_no_cut():
    wide = scene(1)
    assert cuts([wide[:, 8 * step : 8 * step + 160] for step in range(28)]) == []


def test_fades_and_flashes_are_no_cuts():
    shares = np.linspace(0, 1, 12)
    assert cuts([np.uint8(A * (1 - share) + B * share) for share in shares]) == []
    assert cuts([np.uint8(A * (1 - 0.9 * share)) for share in shares]) == []
    flash = np.uint8(np.clip(A * 0.5 + 120.0, 0, 255))
    assert cuts([A, A, flash, A, A]) == []
    assert cuts([A, A, np.full_like(A, 255), A, A]) == []


def test_a_new_scene_out_of_black_is_a_cut():
    assert cuts([A, np.zeros_like(A), np.zeros_like(A), B, B]) == [3]


def test_noise_is_no_cut():
    rng = np.random.default_rng(0)
    noisy = [np.clip(A * 0.3 + rng.normal(0, 20, A.shape), 0, 255) for _ in range(10)]
    assert cuts([image.astype(np.uint8) for image in noisy]) == []


def test_pictures_of_any_size():
    assert cuts([np.zeros((1, 1, 3), np.uint8), A[:3, :5], B[:70, :1]]) in ([], [2])


def test_goes_on_where_it_was():
    clip = [A, A, np.zeros_like(A), B, B, A]
    for stop in range(len(clip)):
        before, after = CutDetector(), CutDetector()
        found = [before(image) for image in clip[:stop]]
        after.restore(json.loads(json.dumps(before.state())))
        assert found + [after(image) for image in clip[stop:]] == [0, 0, 0, 1, 0, 1]


def test_real_videos(data_root):
    clips = []
    for name in ("cat_sofa", "face_carphone", "person_juggle"):
        with open_source(data_root / "videos" / f"{name}.mp4") as frames:
            clips.append([frame.image for frame, _ in zip(frames, range(60), strict=False)])
    for clip in clips:
        assert cuts(clip) == []
    for first, second in [(0, 1), (1, 2), (2, 0)]:
        assert cuts(clips[first] + clips[second]) == [60]
