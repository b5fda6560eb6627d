"""Parts of a batch next to each other give what the whole gives."""

import os
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmk.runtime.errors import UserError
from lmk.runtime.landmarker import load
from lmk.runtime.runners.ort import OrtRunner, SideBySide


@pytest.fixture(scope="module")
def runners(model_path):
    with (
        OrtRunner(model_path, threads=2) as whole,
        SideBySide(OrtRunner(model_path, threads=1), 3) as parts,
    ):
        yield whole, parts


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 9))
def test_any_batch_gives_the_same_in_order(runners, count):
    whole, parts = runners
    side = whole.contract.input_size
    crops = np.random.default_rng(count).integers(0, 256, (count, side, side, 3), np.uint8)
    for ours, theirs in zip(parts(crops), whole(crops), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert parts.contract == whole.contract and parts.name == whole.name


def test_bad_crops_are_told_as_by_the_runner(runners):
    with pytest.raises(ValueError, match="crops"):
        runners[1](np.zeros((4, 3, 3, 3), np.uint8))


def test_threads_end_with_it(model_path, started):
    with load(model_path, threads=2, side_by_side=True) as landmarker:
        side = landmarker.contract.input_size
        landmarker.runner(np.zeros((4, side, side, 3), np.uint8))
        # The pool starts the second only if the first is still busy.
        assert started and all(thread.is_alive() for thread in started)
    assert not any(thread.is_alive() for thread in started)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(model_path):
    with SideBySide(OrtRunner(model_path, threads=1), 2) as runner:
        side = runner.contract.input_size
        crops = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), np.uint8)
        points, _ = runner(crops)
        child = os.fork()
        if child == 0:  # nothing of pytest's may run here
            signal.alarm(60)  # rather than wait for ever
            same = False
            try:
                same = bool((runner(crops)[0] == points).all())
                runner.close()
            finally:
                os._exit(0 if same else 1)
        assert os.waitpid(child, 0)[1] == 0
        np.testing.assert_array_equal(runner(crops)[0], points)


def test_no_threads(runners):
    with pytest.raises(UserError, match="threads: got 0"):
        SideBySide(runners[0], 0)
