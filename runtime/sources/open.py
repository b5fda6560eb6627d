"""What a user names, a file, folder, pattern, stream or camera -> a source of frames."""

from __future__ import annotations

import functools
import glob
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from lmk.runtime.errors import UserError
from lmk.runtime.files import printable, walk
from lmk.runtime.images import IMAGE_SUFFIXES, num_pages
from lmk.runtime.model import workspace
from lmk.runtime.owner import PICTURES, RECORD, VIDEO, journal_of
from lmk.runtime.sources.source import VIDEO_SUFFIXES, Source

# What lies beside pictures and is none; all else is opened to see whether it is a film.
_TEXTS = ".csv .tsv .txt .md .rst .json .jsonl .ndjson .yaml .yml .toml .ini .xml .html .log .pdf"
_DATA = ".mat .npy .npz .h5 .hdf5 .pkl .parquet .slp .pts .cat .xls .xlsx .db .zip .tar .gz .py .sh"
_MORE = ".sha256 .t7 .sqlite"
_OTHERS = ".ipynb .safetensors .onnx .engine .pt .pth .srt .vtt .ass .doc .docx .lnk .url"
_DOCUMENTS = frozenset(f"{_TEXTS} {_DATA} {_OTHERS} {_MORE}".split())
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contents:
    """Files by what they are; each list is sorted."""

    images: list[Path] = field(default_factory=list)
    films: list[Path] = field(default_factory=list)  # stacks and animations are among them
    unread: list[Path] = field(default_factory=list)  # perhaps pictures, but of no kind we read
    documents: list[Path] = field(default_factory=list)
    results: list[Path] = field(default_factory=list)  # pictures and films that runs of ours wrote

    @property
    def told(self) -> list[str]:
        """A line about what is not read, if anything is."""
        return [f"not read: {_count(self.unread)}"] if self.unread else []

    @property
    def left_out(self) -> list[str]:
        """A line about results of earlier runs, if there are any: they are nobody's input."""
        found = self.results
        return [f"left out, results of earlier runs: {_count(found)}"] if found else []


def look_into(folder: Path) -> Contents:
    """What lies below `folder`: each real file once, hidden ones left out; see `walk`."""
    return _sorted_out(walk(folder), folder)


def tell_unread(folder: Path) -> list[str]:
    """A line about the files below `folder` that may be pictures and are of no kind we read."""
    known = IMAGE_SUFFIXES | VIDEO_SUFFIXES | _DOCUMENTS | {""}
    others = sorted(path for path in walk(folder) if path.suffix.lower() not in known)
    return Contents(unread=[path for path in others if not _is_film(path)]).told


def _sorted_out(paths: Iterable[Path], root: Path) -> Contents:
    """Files below the folder `root`, of which the user speaks, by what they are."""
    found = Contents()
    ours = _results_below(root)
    for path in sorted(paths, key=lambda path: path.parts):  # as paths, but thrice as quick
        suffix = path.suffix.lower()
        if ours(path):
            if suffix in IMAGE_SUFFIXES or suffix in VIDEO_SUFFIXES:
                found.results.append(path)
        elif _is_film(path):
            found.films.append(path)
        elif suffix in IMAGE_SUFFIXES:
            found.images.append(path)
        elif suffix in _DOCUMENTS or not suffix:
            found.documents.append(path)
        else:
            found.unread.append(path)
    return found


def _results_below(root: Path) -> Callable[[Path], bool]:
    """Tells whether a run of ours wrote a path below `root`; not of `root` itself, nor above.

    It did write all in the workspace's runs/, and the overlays in every folder of results.
    """
    runs = workspace.RUNS

    @functools.cache
    def is_result(path: Path) -> bool:
        if path == root:
            return False
        folder = path.parent
        if path.name in (VIDEO, PICTURES):
            known = (folder / RECORD).exists() or journal_of(folder).exists()
        else:
            known = path.name == runs.name and path.resolve() == runs.resolve()
        return known or is_result(folder)

    return is_result


def _is_film(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return num_pages(path) > 1
    if suffix in VIDEO_SUFFIXES or suffix in _DOCUMENTS or not suffix:
        return suffix in VIDEO_SUFFIXES
    from lmk.runtime.sources.video import holds_video

    return holds_video(path)


def _count(paths: Sequence[Path]) -> str:
    """So many of each suffix, and the first."""
    kinds = Counter(path.suffix.lower() or "without a suffix" for path in paths)
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return printable(f"{listed}, first {paths[0]}")


def open_source(spec: Path | str, hwaccel: str | None = None) -> Source:
    """Open whatever `spec` names.

    An image, a folder of images (recursive, sorted by path), a pattern of images (`shots/*.png`,
    also `**`), a video, a file of several pictures (a TIFF stack, an animation), a camera (`0`,
    `camera:0`, `/dev/video0`), an `rtsp://`, `http://` or `https://` address, or standard input:
    `-` for a container piped in (Matroska, MPEG-TS or fragmented MP4), `stdin:640x480@25` for raw
    rgb24 pictures of width x height at that rate.
    hwaccel: decode videos on this kind of device (`cuda`, `vaapi`, …), by `auto` on one that can.
    Raises UserError when it is missing, of an unknown kind, empty, a video of which no frame can
    be decoded, or when the device asked for cannot decode it.
    """
    from lmk.runtime.sources.image_files import ImageSource, PagesSource

    path = Path(spec)
    if path.is_dir():
        found = look_into(path)
        if not found.images:
            films = [f"{len(found.films)} films, to be given one by one"] if found.films else []
            raise UserError(
                f"{path}: got a folder without images"
                + "".join(f" ({line})" for line in films + found.told + found.left_out)
                + f", expected files ending in {' '.join(sorted(IMAGE_SUFFIXES))}"
            )
        if found.documents:
            _logger.info("%s: left alone: %s", path, _count(found.documents))
        return ImageSource(found.images, path, found.told)
    if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
        return PagesSource(path) if num_pages(path) > 1 else ImageSource([path], path)
    if is_pattern(str(spec)):
        root = fixed_part(str(spec))
        found = _sorted_out((path for path in _matches(str(spec)) if path.is_file()), root)
        if not found.images:
            raise UserError(f"{spec}: got a pattern that no image matches; check the path")
        return ImageSource(found.images, root, found.told)

    from lmk.runtime.sources.medium import find_medium
    from lmk.runtime.sources.video import VideoSource

    return VideoSource(find_medium(spec), hwaccel)


def expand(specs: Sequence[str]) -> list[str]:
    """The specs for `open_source` that `specs` stand for, in their order, each once.

    The images that a pattern matches stay one spec, the pattern; its films and folders are one
    each. A folder that holds films stands for them too, and for itself only if it has images.
    Results of earlier runs in a folder or behind a wildcard are left out, and the log says so; who
    wants them names them. Raises UserError for a pattern without a match.
    """
    expanded: dict[str, None] = {}  # a set that keeps the order
    for spec in specs:
        found = _expand_pattern(spec) if is_pattern(spec) else [spec]
        for one in found:
            expanded.update(dict.fromkeys(_expand_folder(one)))
    return list(expanded)


def fixed_part(pattern: str) -> Path:
    """The folder of a pattern before its first wildcard."""
    parts = Path(pattern).parts
    fixed = next(n for n, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:fixed])


def _expand_pattern(pattern: str) -> list[str]:
    matches, root = _matches(pattern), fixed_part(pattern)
    found = _sorted_out((path for path in matches if path.is_file()), root)
    _tell(pattern, found.left_out)
    images = [pattern] if found.images else []
    ours = _results_below(root)
    folders = [path for path in matches if path.is_dir() and not ours(path)]
    others = sorted([*found.films, *folders])
    if not images + others:
        raise UserError(
            f"{pattern}: got a pattern that no image, video or folder matches"
            + "".join(f" ({line})" for line in found.left_out)
            + "; check the path"
        )
    return images + [str(path) for path in others]


def _expand_folder(spec: str) -> list[str]:
    if not Path(spec).is_dir():
        return [spec]
    found = look_into(Path(spec))
    films = [str(path) for path in found.films]
    if films or found.images:  # else it is refused, with this, when it is opened
        _tell(spec, found.left_out)
    if films and not found.images:
        _tell(spec, found.told)
        return films
    return [spec, *films]  # without either it stays, to be refused when it is opened


def _tell(spec: str, lines: Iterable[str]) -> None:
    for line in lines:
        _logger.warning("%s: %s", spec, line)


def is_pattern(spec: str) -> bool:
    """Whether to expand it; a file that is called `a[1].jpg` is no pattern, nor is an address."""
    return glob.has_magic(spec) and "://" not in spec and not Path(spec).exists()


def _matches(pattern: str) -> list[Path]:
    """The files that match, and, without `**`, which has matched what is in them, the folders."""
    root = fixed_part(pattern)
    rest = Path(pattern).parts[len(root.parts) :]
    if ".." in rest:  # names relative to `root` would lead out of it, and so would those of results
        raise UserError(f"{pattern}: got '..' behind a wildcard, expected it in front; change it")
    if "**" in rest:  # not by glob, which runs around loops of links
        return sorted(p for p in walk(root) if _fits(p.relative_to(root).parts, rest))
    return sorted(Path(match) for match in set(glob.glob(pattern)))


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path match those of a pattern; `**` is any number of them."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        rest = pattern[1:] or ("*",)
        return any(_fits(parts[n:], rest) for n in range(len(parts)))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])
