"""Layout `slp`: labels of SLEAP (.slp), read by sleap-io; frames come from their films."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lmk.runtime.errors import UserError
from lmk.train.datasets.layouts.marked import Marked, dataset_of
from lmk.train.datasets.sample import Dataset, Layout


def open_slp(root: Path) -> Dataset:
    """Every instance of the user's own in the file, or in those of the folder.

    Of frames without any, the predicted ones. Films and images are looked for by name near the
    file, where they are not at the place that it says. Raises UserError for a file that is none,
    without sleap-io, and as `dataset_of`.
    """
    files = _files(root)
    labels = {path: _load(path) for path in files}
    names = _names(list(labels.values()))
    rows = []
    for each in labels.values():
        for frame in each.labeled_frames:
            video, instances = frame.video, frame.user_instances or frame.predicted_instances
            name = (video.source_video or video).filename  # of frames that were embedded
            number: int | None = int(frame.frame_idx)
            if isinstance(name, list):  # pictures
                name, number = name[int(frame.frame_idx)], None
            for instance in instances:
                points = np.full((len(names), 2), np.nan, np.float32)
                own = [names.index(node.name) for node in instance.skeleton.nodes]
                points[own] = instance.numpy()[:, :2]
                rows.append(Marked(str(name), points, number))
    return dataset_of("slp", root if root.is_dir() else root.parent, files, names, rows)


def landmark_names(root: Path) -> tuple[str, ...]:
    """Names of the nodes of all skeletons."""
    return tuple(_names([_load(path) for path in _files(root)]))


def _names(labels: list[Any]) -> list[str]:
    nodes = [n.name for each in labels for skeleton in each.skeletons for n in skeleton.nodes]
    return list(dict.fromkeys(nodes))


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if root.suffix == ".slp" else []
    return sorted(path for path in root.glob("*.slp") if path.is_file())


def _load(path: Path) -> Any:
    try:
        import sleap_io

        return sleap_io.load_slp(str(path), open_videos=False)
    except ImportError as error:
        raise UserError(f"{path}: needs sleap-io; pip install 'lmk-toolkit[slp]'") from error
    except Exception as error:  # h5py and sleap-io raise almost anything on other bytes
        raise UserError(f"{path}: cannot be read as labels of SLEAP ({error})") from error


LAYOUT = Layout(
    "slp", "*.slp, labels of SLEAP", lambda root: bool(_files(root)), open_slp, landmark_names
)
