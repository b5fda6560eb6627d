"""What a user names, a file, folder, pattern, stream or camera -> a source of frames."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from lmk.runtime.errors import UserError
from lmk.runtime.images import IMAGE_SUFFIXES
from lmk.runtime.sources.source import VIDEO_SUFFIXES, Source


def open_source(spec: Path | str, hwaccel: str | None = None) -> Source:
    """Open whatever `spec` names.

    An image, a folder of images (recursive, sorted by path), a pattern of images (`shots/*.png`,
    also `**`), a video, a camera (`0`, `camera:0`, `/dev/video0`), an `rtsp://`, `http://` or
    `https://` address, or standard input: `-` for a container piped in (Matroska, MPEG-TS or
    fragmented MP4), `stdin:640x480@25` for raw rgb24 pictures of width x height at that rate.
    hwaccel: decode videos on this kind of device (`cuda`, `vaapi`, …), by `auto` on one that can.
    Raises UserError when it is missing, of an unknown kind, empty, a video of which no frame can
    be decoded, or when the device asked for cannot decode it.
    """
    from lmk.runtime.sources.image_files import ImageSource, find_images

    path = Path(spec)
    if path.is_dir():
        return ImageSource(find_images(path), path)
    if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
        return ImageSource([path], path)
    if _is_pattern(str(spec)):
        root = fixed_part(str(spec))
        images = [path for path in _matches(str(spec)) if _is_image(path)]
        if not images:
            raise UserError(f"{spec}: got a pattern that no image matches; check the path")
        return ImageSource(images, root)

    from lmk.runtime.sources.medium import find_medium
    from lmk.runtime.sources.video import VideoSource

    return VideoSource(find_medium(spec), hwaccel)


def expand(specs: Sequence[str]) -> list[str]:
    """The specs for `open_source` that `specs` stand for, in their order, each once.

    The images that a pattern matches stay one spec, the pattern; its videos and folders are one
    each. A folder that holds videos stands for them too, and for itself only if it has images.
    Raises UserError for a pattern without a match.
    """
    expanded: dict[str, None] = {}  # a set that keeps the order
    for spec in specs:
        found = _expand_pattern(spec) if _is_pattern(spec) else [spec]
        for one in found:
            expanded.update(dict.fromkeys(_expand_folder(one)))
    return list(expanded)


def fixed_part(pattern: str) -> Path:
    """The folder of a pattern before its first wildcard."""
    parts = Path(pattern).parts
    fixed = next(n for n, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:fixed])


def _expand_pattern(pattern: str) -> list[str]:
    matches = _matches(pattern)
    images = [pattern] if any(_is_image(path) for path in matches) else []
    whole_folders = "**" not in pattern  # it has matched what is in them already
    others = [str(p) for p in matches if _is_video(p) or (whole_folders and p.is_dir())]
    if not images + others:
        raise UserError(
            f"{pattern}: got a pattern that no image, video or folder matches; check the path"
        )
    return images + others


def _expand_folder(spec: str) -> list[str]:
    folder = Path(spec)
    if not folder.is_dir():
        return [spec]
    found = sorted(path for path in folder.rglob("*") if not path.name.startswith("."))
    videos = [str(path) for path in found if _is_video(path)]
    # Without either it stays, to be refused when it is opened.
    has_images = not videos or any(_is_image(path) for path in found)
    return ([spec] if has_images else []) + videos


def _is_pattern(spec: str) -> bool:
    """Whether to expand it; a file that is called `a[1].jpg` is no pattern, nor is an address."""
    return glob.has_magic(spec) and "://" not in spec and not Path(spec).exists()


def _matches(pattern: str) -> list[Path]:
    return sorted(Path(match) for match in set(glob.glob(pattern, recursive=True)))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
