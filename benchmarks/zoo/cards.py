"""zoo.json and the files beside it -> README.md: a card for each, made of nothing else.

python -m lmk.benchmarks.zoo.cards zoo
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from lmk.benchmarks.plots import markdown_table
from lmk.runtime.errors import UserError
from lmk.runtime.files import write_bytes
from lmk.runtime.model import read_header
from lmk.train.datasets import BUILTIN

_AS_GOOD = 0.95  # of the mean shape's error: nothing that a user could do with such landmarks
_NONE_STATED = "none stated with the copy that was used"
SOURCES = {  # what a data set is and whose, and on what terms it is given out
    "pose_lspet": (
        "Leeds Sports Pose Extended, images with at least 11 visible joints, cropped to 1.5 × the "
        "box of the joints: Johnson & Everingham, *Learning effective human pose estimation from "
        "inaccurate annotation*, CVPR 2011",
        "citation asked",
    ),
    "face_mtfl80": (
        "MTFL at 80×80 pixels, training images of LFW and the web, test images of AFLW: Sun, Wang "
        "& Tang, CVPR 2013; Zhang, Luo, Loy & Tang, ECCV 2014",
        "research use",
    ),
    "face_ytf68": (
        "frames of YouTube Faces with 68 points each, probably found by a machine, split by person",
        _NONE_STATED,
    ),
    "face_celeba_small": (
        "CelebA, aligned images 000001 to 010000 at half size: Liu, Luo, Wang & Tang, *Deep "
        "learning face attributes in the wild*, ICCV 2015",
        "non-commercial research",
    ),
    "cat_heads": (
        "heads of the CAT data set, levelled by the eyes and cropped: Zhang, Sun & Tang, *Cat head "
        "detection*, ECCV 2008",
        _NONE_STATED,
    ),
    "shoes_zappos": (
        "photographs of UT-Zappos50K: Yu & Grauman, *Fine-grained visual comparisons with local "
        "learning*, CVPR 2014",
        "academic, non-commercial",
    ),
    "videos/mouse_openfield.mp4": (
        "a film of a black mouse in a white box, seen from above, without labels, of DeepLabCut's "
        "example: Mathis et al., *DeepLabCut: markerless pose estimation of user-defined body "
        "parts with deep learning*, Nature Neuroscience 2018",
        "the repository is under LGPL-3.0",
    ),
}
_DRAWN = "drawn by the package itself", "none"
_UNKNOWN = "not known to this card", "not known: look them up before the file is given on"

_INTRODUCTION = """# What ships

Cores and packs trained by this project, matrices in half precision. `lmk adapt` uses `core` when
`runs/` holds none and `--core` names none; `lmk detect --model NAME` uses a pack. The weights were
learnt from images that have terms of their own: see each card.

Each file was made by the recipe on its card and measured by `benchmarks/zoo/train_zoo.sh`, which
also makes such files anew with the options of its own plan; this page is made by `python -m
lmk.benchmarks.zoo.cards`, from [zoo.json](zoo.json). All measures are of the files as they ship, on
images that they were not trained on. *Consistency*: how far landmarks of a transformed image are
from the transformed landmarks, beside that of points that never move. *Covered*: share of the
annotated points that have a landmark within a quarter of the object's size. *Forward*, *backward*:
error of the best linear map from found to annotated points and back, beside the mean shape's.
Pictures: where each landmark lands on many such images, over the mean of their crops, turned alike
if the object turns.
"""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default="zoo")
def main(folder: Path) -> None:
    """Write FOLDER/README.md from FOLDER/zoo.json."""
    path = folder / "zoo.json"
    if not path.exists():
        raise click.ClickException(f"{path}: no such file; make it by train_zoo")
    try:
        files = sorted(folder.glob("*.safetensors"))
        headers = {file.stem: read_header(file) for file in files}
        page = render(json.loads(path.read_text()), headers)
    except UserError as error:
        raise click.ClickException(str(error)) from error
    write_bytes(folder / "README.md", page.encode())
    click.echo(folder / "README.md")


def render(zoo: Mapping[str, Any], headers: Mapping[str, Mapping[str, Any]]) -> str:
    """The page for the measured entries of zoo.json, given the header of each of their files.

    Raises UserError for a file that is missing, that is not the one that was measured, or whose
    core or teacher is not the one beside it.
    """
    entries = {name: e for name, e in zoo["entries"].items() if "sha256" in e}
    for name, entry in entries.items():
        teacher = entry.get("teacher") or {"name": None, "sha256": None}
        wanted_files = {name: entry["sha256"], entry["core"]: entry["core_sha256"]}
        for file, wanted in (wanted_files | {teacher["name"]: teacher["sha256"]}).items():
            got = headers.get(file, {}).get("sha256") if file else wanted
            if got != wanted:
                raise UserError(
                    f"{file}.safetensors: got weights {got or 'none'}, expected those that were "
                    f"measured for {name}, {wanted}; put them back or run train_zoo again"
                )
    return "\n".join([_INTRODUCTION, *(_card(name, e) for name, e in entries.items())])


def _card(name: str, entry: Mapping[str, Any]) -> str:
    parts = [
        f"## {name}",
        f"![Where the landmarks of {entry['map_images']} images land]({name}.png)",
        markdown_table(["", ""], list(_facts(entry)), left=2),
        _measures(entry["measures"]) if "measures" in entry else "",
        entry.get("remark") or "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    network = entry["network"]
    teacher = entry.get("teacher")
    if teacher:
        name, away, most = teacher["name"], teacher["mean_px"], teacher["p99_px"]
        yield (
            "what",
            f"pack of {entry['landmarks']} landmarks, a student of [{name}](#{name}): {away:.2f} "
            f"px of 128 from it on average, more than {most:.1f} in a hundredth of the places",
        )
    elif entry["core"]:
        yield (
            "what",
            f"pack of {entry['landmarks']} landmarks, for [{entry['core']}](#{entry['core']})",
        )
    else:
        yield "what", f"core, {entry['landmarks']} landmarks"
    own = "values of its own" if entry["core"] else "parameters"
    yield (
        "network",
        f"width {network['width']}, input of {network['input_size']} pixels, "
        f"{entry['parameters']:,} {own}",
    )
    for data in entry["data"]:
        what, terms = _DRAWN if data.startswith(BUILTIN) else SOURCES.get(data, _UNKNOWN)
        yield "data", f"`{data}`: {what}. Terms: {terms}"
    yield "recipe", ", then ".join(f"`{command}`" for command in entry["command"].split(" && "))
    here = entry["machine"]
    place = "a machine that was not recorded"
    if here is not None:
        place = here["gpu"] or f"{here['cores']} cores of {here['cpu']}"
    yield (
        "trained",
        f"{entry['images']:,} images, {entry['steps']:,} steps, {entry['seconds']:,.0f} s, "
        f"on {place}",
    )
    if "accuracy" in entry:
        found = entry["accuracy"]
        yield (
            "accuracy",
            f"PCK@0.2 of the {found['normaliser']} {found['pck']:.3f} on "
            f"{found['test_images']:,} images",
        )
    yield "file", f"{entry['bytes']:,} bytes, weights `{entry['sha256'][:12]}`"


def _measures(reports: list[Mapping[str, Any]]) -> str:
    """A line for each set that the pack was judged on."""
    labels = {report["normaliser"] for report in reports if "normaliser" in report}
    of = f", % of the {' or '.join(sorted(labels))}" if labels else ""
    columns = ["judged on", "images", "consistency, px of 128", "not moving", "spread"]
    if labels:
        columns += ["covered, %", f"forward{of}", "mean shape", f"backward{of}", "mean shape"]
    table = markdown_table(columns, [_line(report, bool(labels)) for report in reports])
    notes = [
        f"{r['data']}: collapsed, {r['collapsed_because']}." for r in reports if r["collapsed"]
    ]
    notes += [
        f"{r['data']}: as good as the mean shape, no better: the landmarks follow the object as a "
        "whole and not its parts."
        for r in reports
        if r.get("forward_percent", 0) > _AS_GOOD * r.get("forward_mean_shape_percent", math.inf)
    ]
    return "\n\n".join([table, *notes])


def _line(report: Mapping[str, Any], annotated: bool) -> list[str]:
    cells = [report["data"], f"{report['test_images']:,}"]
    names = ["consistency_px", "consistency_still_px", "spread_px"]
    if annotated:
        names += ["covered_percent", "forward_percent", "forward_mean_shape_percent"]
        names += ["backward_percent", "backward_mean_shape_percent"]
    values = (report.get(name) for name in names)
    return cells + ["" if value is None else f"{value:.2f}" for value in values]


if __name__ == "__main__":
    main()
