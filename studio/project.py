"""What was named -> sources of pictures, packs, tables and results: all that pages may reach.

A page names things by the keys that it was given; no path ever comes from it.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from lmk.runtime.detection import Frame
from lmk.runtime.errors import UserError
from lmk.runtime.files import printable
from lmk.runtime.images import IMAGE_SUFFIXES
from lmk.runtime.landmarker import Landmarker, load
from lmk.runtime.model import compose_file, model_file, read_header, workspace
from lmk.runtime.outputs import colour
from lmk.runtime.regions import Target, parse_roi
from lmk.runtime.sources import expand, look_into
from lmk.studio.annotations import Annotations, Content
from lmk.studio.pictures import Film, Images, Pictures

LMK = (sys.executable, "-m", "lmk.cli")


class NotThere(UserError):
    """A page asks for something that this project does not have."""


_FRAME = re.compile(r"(.+)_(\d{6,})\.png")  # see `Opened.copied`


class Opened:
    """A film or a folder of images that was opened."""

    def __init__(self, key: str, path: Path, images: Sequence[Path]) -> None:
        self.key, self.path, self._images = key, path, images
        self.is_film = not images

    @property
    def title(self) -> str:
        """What people call it."""
        return printable(self.path.resolve().name)

    @property
    def stem(self) -> str:
        """What commands call its results after."""
        return self.path.resolve().stem if self.is_film else self.path.resolve().name

    @cached_property
    def pictures(self) -> Pictures:
        """Opened when first asked for; raises UserError."""
        if self.is_film:
            return Film(self.path)
        return Images(self.path, self._images)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Of a folder: each picture's title -> its number."""
        if self.is_film:
            return {}
        return {self.pictures.title(number): number for number in range(len(self.pictures))}

    def copied(self, title: str) -> str:
        """What the copy of a picture beside a table is called; of a film's frame too: FILM#12."""
        film, _, frame = title.rpartition("#")
        if self.is_film or (film and frame.isdigit()):
            stem = self.key if self.is_film else re.sub(r"[^\w.-]+", "_", Path(film).stem)
            return f"{stem}_{int(frame):06d}.png"
        return f"{self.key}/" + re.sub(r"[^\w./-]+", "_", title) + ".png"

    @property
    def boxes_file(self) -> Path:
        """Where `lmk find` puts the boxes of its objects."""
        return workspace.RUNS / f"{self.stem}-boxes.csv"

    def targets(self, number: int) -> list[Target]:
        """The objects in a picture; see `targets_in`."""
        return self.targets_in(self.pictures.frame(number))

    def targets_in(self, frame: Frame) -> list[Target]:
        """The objects in a frame: by the boxes in runs/, else the whole picture."""
        roi = str(self.boxes_file) if self.boxes_file.is_file() else "full"
        return list(self._region(roi, _changed(self.boxes_file)).targets(frame))

    def _region(self, roi: str, changed: int) -> Any:
        known = getattr(self, "_known", None)
        if known is None or known[:2] != (roi, changed):
            known = self._known = (roi, changed, parse_roi(roi))
        return known[2]


class Project:
    """What was opened, and runs/ of this folder."""

    def __init__(self, what: Sequence[str] = ()) -> None:
        names = [name for name in what if _is_pack(name)]
        self.pack = Path(names[-1]).stem if names else None  # that the pages begin with
        self._packs_named = {Path(n).stem: Path(n) for n in names if Path(n).is_file()}
        self._what = [name for name in what if name not in names] or (["."] if not names else [])
        for name in self._what:
            if "://" in name or not (Path(name).exists() or any(c in name for c in "*?[")):
                raise UserError(
                    f"{name}: got no such film, folder or pack, expected one; check the path"
                )
        self._lock = threading.RLock()
        self._models: dict[str, tuple[tuple[Path, int], Landmarker]] = {}

    @cached_property
    def _sources(self) -> dict[str, Opened]:
        found: dict[str, Opened] = {}
        for path, images in self._places():
            stem = path.resolve().stem if path.is_file() else path.resolve().name
            slug = re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "source"
            key, number = slug, 2
            while key in found and found[key].path != path:
                key, number = f"{slug}-{number}", number + 1
            found.setdefault(key, Opened(key, path, images))
        return found

    def _places(self) -> Iterator[tuple[Path, Sequence[Path]]]:
        """Films, and folders with their images: into ten thousand files is looked once."""
        for spec in self._what:
            for path in [Path(spec)] if Path(spec).is_dir() else map(Path, expand([spec])):
                if not path.exists():
                    raise UserError(f"{path}: got a pattern of images, expected their folder")
                inside = look_into(path) if path.is_dir() else None
                if inside is None:
                    yield path, [path] if path.suffix.lower() in IMAGE_SUFFIXES else []
                    continue
                if inside.images:
                    yield path, inside.images
                yield from ((film, []) for film in inside.films)

    @property
    def sources(self) -> dict[str, Opened]:
        """Films and folders by their keys; looked for once."""
        with self._lock:
            return self._sources

    def source(self, key: str) -> Opened:
        """The source of that key; raises NotThere."""
        if key not in self.sources:
            raise NotThere(f"source: got '{key}', expected one that was opened")
        return self.sources[key]

    def packs(self) -> dict[str, Path]:
        """Packs by their names: that were named, of runs/, that ship."""
        found = dict(self._packs_named)
        for name in sorted(workspace.pack_names()):
            path = workspace.pack_named(name)
            if name not in found and path is not None:
                found[name] = path
        return found

    def pack_file(self, name: str) -> Path:
        """The pack of that name; raises NotThere."""
        if (path := self.packs().get(name)) is None:
            raise NotThere(f"pack: got '{name}', expected one in runs/, or one that ships")
        return path

    def model(self, name: str) -> Landmarker:
        """The model of a pack, made on first use and again when the pack has changed.

        Raises UserError, with the cure.
        """
        with self._lock:
            pack = self.pack_file(name)
            known = pack, _changed(pack)
            if name not in self._models or self._models[name][0] != known:
                self._models[name] = known, load(self._model_file(name, pack))
            return self._models[name][1]

    def _model_file(self, name: str, pack: Path) -> Path:
        if workspace.pack_named(name) == pack:
            return model_file(name)
        output = workspace.made_of(pack, ".onnx")
        if not output.exists():
            compose_file(pack, output)
        return output

    def annotations(self, pack: str) -> Annotations:
        """The table of points that belong to a pack.

        That of the folder which was opened, where it has one; else runs/PACK-points, and the
        pictures are copied there.
        """
        return Annotations(
            (self.annotated_folder or workspace.RUNS / f"{pack}-points") / "annotations.csv"
        )

    @property
    def annotated_folder(self) -> Path | None:
        """A folder that was opened and has a table of its own, if there is one."""
        folders = (s.path for s in self.sources.values() if s.path.is_dir())
        return next((path for path in folders if (path / "annotations.csv").is_file()), None)

    def places(self, content: Content) -> list[tuple[str, int] | None]:
        """Source and number of each annotated row's picture; None for one of nothing opened."""
        numbers = self._numbers(self.annotated_folder) if content.rows else {}
        places: list[tuple[str, int] | None] = []
        for row in content.rows:
            match = _FRAME.fullmatch(row.file)
            film = match and match[1] in self.sources
            places.append((match[1], int(match[2])) if match and film else numbers.get(row.file))
        return places

    @lru_cache(maxsize=2)  # noqa: B019 - as long as the project, and that as the process
    def _numbers(self, annotated: Path | None) -> dict[str, tuple[str, int]]:
        """What tables call the pictures of folders -> source and number."""
        return {
            title if source.path == annotated else source.copied(title): (key, number)
            for key, source in self.sources.items()
            for title, number in source.numbers.items()
        }

    def told(self) -> dict[str, Any]:
        """All of it, for pages."""
        packs = []
        for name, path in self.packs().items():
            header = read_header(path)
            names = header["landmark_names"]
            packs.append(
                {
                    "name": name,
                    "ships": path.parent == workspace.ZOO,
                    # behind points that were named are the landmarks, for following alone
                    "landmarks": names[: len(names) - header.get("following", 0)],
                    "named": "naming" in header,
                    "from": header.get("naming", {}).get("from_sha256"),
                    "sha256": header["sha256"],
                    "changed": path.stat().st_mtime,
                    "finished": header.get("finished", True),
                }
            )
        of = {pack["sha256"]: pack["name"] for pack in packs}
        for pack in packs:
            pack["base"] = of.get(pack.pop("from"))
        return {
            "colours": ["#{:02x}{:02x}{:02x}".format(*colour(k)) for k in range(48)],
            "folder": printable(str(Path.cwd())),
            "pack": self.pack,
            "packs": packs,
            "sources": [
                {
                    "key": source.key,
                    "title": source.title,
                    "film": source.is_film,
                    "boxes": source.boxes_file.is_file(),
                }
                for source in self.sources.values()
            ],
        }


def _is_pack(name: str) -> bool:
    path = Path(name)
    if path.suffix == ".safetensors":
        return True
    return len(path.parts) == 1 and not path.exists() and workspace.pack_named(name) is not None


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0
