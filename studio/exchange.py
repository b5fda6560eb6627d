"""Points of other programs -> the table, and the table -> files that other programs read."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.runtime.files import as_cell, atomic_path
from lmk.runtime.images import open_image
from lmk.studio.annotations import Annotations, Content, Row
from lmk.studio.project import Opened

_MOST = 300  # objects that are brought in, spread over all: naming needs few
_AROUND = 10  # pixels around the points of one of several objects in a picture


def labels(source: Opened) -> dict[str, Any] | None:
    """What a folder's own labels are, if it has any: their layout and the points' names."""
    if source.is_film or not source.path.is_dir():
        return None
    from lmk.train.datasets import locate

    try:
        root, layout = locate(str(source.path.resolve()))
        names = layout.names(root)
    except UserError:  # told by the commands that learn from it
        return None
    return {"layout": layout.name, "names": names} if names else None


def bring_in(table: Annotations, source: Opened) -> Content:
    """Put a folder's labelled objects into an empty table, and their pictures beside it.

    Raises UserError for a table that has points, and as `open_dataset`.
    """
    from lmk.train.datasets import open_dataset

    content = table.read()
    if content.rows:
        raise UserError(f"{table.table}: has points already; bring labels into a new one")
    dataset = open_dataset(str(source.path.resolve()))
    step = -(-len(dataset.samples) // _MOST)
    samples = dataset.samples[::step]
    pictures = [sample.name for sample in samples]
    rows = []
    for sample in samples:
        file = source.copied(sample.name)
        if not (table.table.parent / file).exists():
            image = Image.fromarray(sample.read())
            with atomic_path(table.table.parent / file) as temporary:
                image.save(temporary, compress_level=3)
        pairs = zip(dataset.landmark_names, sample.points.tolist(), strict=True)
        seen = np.asarray(np.isfinite(sample.points).all(axis=1))
        points = {
            name: (round(x, 2), round(y, 2))
            for (name, (x, y)), is_seen in zip(pairs, seen, strict=True)
            if is_seen
        }
        box = sample.box
        if box is None and pictures.count(sample.name) > 1:  # else they could not be told apart
            (x, y), (right, bottom) = (f(sample.points[seen], axis=0) for f in (np.min, np.max))
            box = (x - _AROUND, y - _AROUND, right - x + 2 * _AROUND, bottom - y + 2 * _AROUND)
        if box is not None:
            x, y, w, h = (round(float(value), 2) for value in box)
            box = (x, y, w, h)
        rows.append(Row(file, box, {**points}))
    return table.begin(dataset.landmark_names, rows)


def coco(table: Annotations) -> bytes:
    """The table as COCO key points: a category, an image a picture, an annotation an object."""
    content = table.read()
    places = {name: place for place, name in enumerate(content.names, 1)}
    images: dict[str, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    for row in _annotated(content):
        if row.file not in images:
            with open_image(table.table.parent / row.file) as image:
                turned = image.getexif().get(0x0112, 1) >= 5
                width, height = image.size[::-1] if turned else image.size
            size = {"width": width, "height": height}
            images[row.file] = {"id": len(images) + 1, "file_name": row.file, **size}
        size = images[row.file]
        points = [row.points.get(name) for name in content.names]
        box = row.box or (0, 0, size["width"], size["height"])
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": size["id"],
                "category_id": 1,
                "iscrowd": 0,
                "bbox": box,
                "area": box[2] * box[3],
                "num_keypoints": sum(map(bool, points)),
                "keypoints": [value for p in points for value in ((*p, 2) if p else (0, 0, 0))],
            }
        )
    category = {
        "id": 1,
        "name": "object",
        "keypoints": content.names,
        "skeleton": [[places[a], places[b]] for a, b in table.skeleton()],
    }
    told = {"images": [*images.values()], "annotations": annotations, "categories": [category]}
    return json.dumps(told, ensure_ascii=False, indent=1).encode()


def dlc(table: Annotations) -> bytes:
    """The table as DeepLabCut's CollectedData_lmk.csv, for `labeled-data/` of a project of its own.

    With individuals where a picture has more than one object.
    """
    content = table.read()
    objects: dict[str, list[Row]] = {}
    for row in _annotated(content):
        objects.setdefault(row.file, []).append(row)
    most = max(map(len, objects.values()), default=1)
    columns = [(n, name, axis) for n in range(most) for name in content.names for axis in "xy"]
    levels = {
        "scorer": ["lmk"] * len(columns),
        "individuals": [f"individual{n + 1}" for n, _, _ in columns],
        "bodyparts": [name for _, name, _ in columns],
        "coords": [axis for _, _, axis in columns],
    }
    if most == 1:
        del levels["individuals"]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([level, "", "", *cells] for level, cells in levels.items())
    for file, rows in objects.items():
        folder = PurePosixPath(file).parent.name or table.table.resolve().parent.name
        cells: list[Any] = []
        for n, name, axis in columns:
            point = rows[n].points.get(name) if n < len(rows) else None
            cells.append(point["xy".index(axis)] if point else "")
        writer.writerow(["labeled-data", as_cell(folder), as_cell(Path(file).name), *cells])
    return text.getvalue().encode()


def _annotated(content: Content) -> list[Row]:
    return [row for row in content.rows if any(row.points.values())]
