"""Commands that train and judge: train-core, adapt, evaluate, report; `lmk.adapt` of Python."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, get_args

import click

from lmk.runtime.errors import UserError
from lmk.runtime.files import check_output, write_bytes
from lmk.runtime.model import check_kind, read_header, workspace
from lmk.runtime.owner import Owned
from lmk.runtime.terminal import FILE_PATH, console
from lmk.train.config import (
    EVALUATE_PRESETS,
    PRESETS,
    AdaptConfig,
    CoreConfig,
    DistillConfig,
    EvaluateConfig,
    RunConfig,
)
from lmk.train.datasets import (
    CROP_MARGIN,
    LAYOUTS,
    USUAL_FILMS,
    CropMode,
    DecodedSet,
    FilmOptions,
    Specs,
    category_name,
    film_options,
    first_pose_set,
    load_decoded,
    normalised_by,
)
from lmk.train.options import (
    Command,
    Sectioned,
    config_options,
    make_config,
    read_options,
    sized_as_core,
)

_Options = ParamSpec("_Options")
CROP = click.Choice(get_args(CropMode))


def _data_options(crop: str) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        command = click.option(
            "--crop",
            type=CROP,
            default=crop,
            show_default=True,
            help="What the crops are fitted to.",
        )(command)
        return click.option(
            "--layout",
            type=click.Choice(list(LAYOUTS)),
            help="Of the data; recognised by its files unless given. Films are `video`.",
        )(command)

    return add


@click.command("train-core")
@click.option(
    "--data",
    multiple=True,
    help="A folder, a name (see `lmk data list`) or builtin:puppet; several are joined.",
)
@_data_options("annotation")
@click.option("--force", is_flag=True, help="Overwrite the output.")
@config_options(CoreConfig)
def train_core_command(
    data: tuple[str, ...], layout: str, crop: CropMode, force: bool, **o: Any
) -> None:
    """Train a core on labelled images of one category."""
    from lmk.train.core import train_core

    config = make_config(CoreConfig, o)
    if not config.resume:
        check_output(config.output, force)
    if not data:
        data = (first_pose_set(),)
        click.echo(f"data: {data[0]}", err=True)
    _print(_run(train_core, config, data, layout, crop, force=force))


_LONGEST_NAME = 100  # of a category: more does not fit into a header or a file system
_SECTIONS = {  # of `lmk adapt --help`: what matters first
    "First of all": ("data", "landmarks", "minutes", "output", "resume"),
    "Data": ("join", "layout", "crop", "frames", "boxes", "images"),
    "Budget": ("preset", "steps", "batch", "lr", "schedule", "weight_decay", "clip", "average"),
    "Network": (
        *("core", "method", "width", "input_size", "scope", "train_plain_convs"),
        *("whiten", "projection_rate", "generator_width", "sigma"),
    ),
    "Loss": (
        *("perceptual", "vgg", "vgg_normalise", "norm", "relative"),
        *("equivariance", "separation", "spacing", "ramp", "off_object", "identity"),
    ),
    "Views": ("rotation", "scale", "shift", "bend", "turn_ramp", "apart_s", "jitter", "border"),
    "Output": ("force", "report", "preview_every"),
    "Machine": ("device", "dtype", "compile", "threads", "jobs", "seed"),
}


@click.command("adapt", cls=Sectioned, sections=_SECTIONS)
@click.option(
    "--data",
    required=True,
    multiple=True,
    help="A folder, film, pattern, name, or builtin:butterfly; several give a pack each, by Ray.",
)
@click.option("--join", is_flag=True, help="Learn one pack of several --data, of one category.")
@_data_options("image")
@film_options
@click.option("--preset", type=click.Choice(list(PRESETS)), default="default", show_default=True)
@click.option("--force", is_flag=True, help="Overwrite the output.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="With several --data: at once  [default: one a GPU, else one for every four CPUs]",
)
@config_options(AdaptConfig)
def adapt_command(
    data: tuple[str, ...],
    join: bool,
    layout: str,
    crop: CropMode,
    films: FilmOptions,
    preset: str,
    force: bool,
    jobs: int | None,
    **o: Any,
) -> None:
    """Discover landmarks on a new category from unlabelled images, or on several."""
    is_one = join or len(data) == 1
    if not is_one and o["output"]:
        raise UserError(
            f"--output: got {o['output']} for several --data, expected none; each writes "
            f"{workspace.RUNS}/NAME.safetensors, or with --join all are one category"
        )
    if is_one and jobs:
        raise UserError(f"--jobs: got {jobs} for one pack, expected several; leave it out")
    configs = _adapt_configs([data] if is_one else [(each,) for each in data], o, preset, force)
    if is_one:
        _print(_adapt(configs[0], data, layout, crop, films, force))
    else:
        _run_many(data, configs, layout, crop, films, jobs)


def _adapt(
    config: AdaptConfig,
    data: tuple[str, ...],
    layout: str | None,
    crop: CropMode,
    films: FilmOptions,
    force: bool,
) -> Path:
    from lmk.train.adapting import adapt

    return _run(adapt, config, data, layout, crop, films, force)


@dataclass(frozen=True, kw_only=True)
class AdaptOptions(AdaptConfig):
    """The options of `lmk adapt`, for those who call it from Python."""

    layout: str | None = None
    crop: CropMode = "image"
    frames: int = FilmOptions.frames
    boxes: Path | None = None
    preset: str = "default"
    force: bool = False


_Data = Path | str | Sequence[Path | str]


def _with_options_of(
    options: Callable[_Options, AdaptOptions],
) -> Callable[[Callable[..., Path]], Callable[Concatenate[_Data, _Options], Path]]:
    """Let a function of one argument take the fields of a dataclass as keywords, and no others."""

    def add(function: Callable[..., Path]) -> Callable[Concatenate[_Data, _Options], Path]:
        fields = signature(options).parameters.values()
        keywords = [field.replace(kind=Parameter.KEYWORD_ONLY) for field in fields]
        first = signature(function).parameters["data"]
        vars(function)["__signature__"] = Signature([first, *keywords], return_annotation="Path")
        return function

    return add


@_with_options_of(AdaptOptions)
def adapt(data: _Data, **options: Any) -> Path:
    """Discover landmarks on a category from unlabelled images, as `lmk adapt`; the pack.

    data: a folder, film, pattern, name, or builtin:butterfly; several are joined. The options are
    those of the command; what is not given is filled in as there. Progress goes to standard error.
    Raises TypeError for an option that is none, UserError, and KeyboardInterrupt, with everything
    saved.
    """
    specs = [data] if isinstance(data, (str, os.PathLike)) else list(data)
    if not specs:
        raise UserError("data: got an empty list, expected images to learn from; name some")
    given = {"data": [str(each) for each in specs], **options}
    o = read_options(adapt_command, given, without=("join", "jobs"))
    films = FilmOptions(o["frames"], o["boxes"])
    (config,) = _adapt_configs([o["data"]], o, o["preset"], o["force"])
    return _adapt(config, o["data"], o["layout"], o["crop"], films, o["force"])


def _adapt_configs(
    data: Sequence[tuple[str, ...]], o: dict[str, Any], preset: str, force: bool
) -> list[AdaptConfig]:
    """The configuration of each run, of data that are joined, whose output can be written."""
    scratch = o["method"] == "scratch"
    if o["core"] is None and not (scratch and o["perceptual"] not in (None, "core")):
        o["core"] = workspace.pick(None, "core")
    for name in ("width", "input_size"):
        if o[name] is not None and o["core"] is not None:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag}: got {o[name]}, but the core's {name} is taken; leave it out")
    return [_adapt_config(specs, o, PRESETS[preset], force) for specs in data]


def _adapt_config(
    data: tuple[str, ...], o: dict[str, Any], preset: dict[str, Any], force: bool
) -> AdaptConfig:
    name = "+".join(map(category_name, data))
    config = make_config(
        AdaptConfig, o, **{"output": workspace.RUNS / f"{name}.safetensors", **preset}
    )
    if len(config.output.stem) > _LONGEST_NAME:
        raise UserError(
            f"--output: got a name of {len(config.output.stem)} letters, {config.output.name}, "
            f"expected at most {_LONGEST_NAME}; give a shorter one"
        )
    if not config.resume:
        check_output(config.output, force)
    _check_apart(config.output, data)
    return sized_as_core(config)


def _run_many(
    data: tuple[str, ...],
    configs: Sequence[AdaptConfig],
    layout: str | None,
    crop: CropMode,
    films: FilmOptions,
    jobs: int | None,
) -> None:
    """Adapt to all, print the packs; exit code 1 when one has failed."""
    from lmk.train.adapting import Request, adapt_many, print_ends

    pairs = zip(data, configs, strict=True)
    requests = [Request(spec, config, layout, crop, films) for spec, config in pairs]
    ends = adapt_many(requests, jobs)
    print_ends(ends)
    for end in ends:
        if end.pack:
            click.echo(end.pack)
    if any(end.state in ("stopped", "not begun") for end in ends):
        raise KeyboardInterrupt
    if any(end.state == "failed" for end in ends):
        click.get_current_context().exit(1)


def _run(
    train: Callable[[Any, DecodedSet], Path],
    config: RunConfig,
    data: Specs,
    layout: str | None,
    crop: CropMode,
    films: FilmOptions = USUAL_FILMS,
    force: bool = False,
) -> Path:
    """Decode the images and train, alone or as one of torchrun's processes; what it wrote."""
    from lmk.train.device import pick_device
    from lmk.train.distributed import joined, leader_first
    from lmk.train.loop import training_set

    _check_apart(config.output, data)
    with joined(pick_device(config.device)):
        with leader_first():
            images = training_set(data, layout, crop, config, films)
            if not config.resume:  # another run may have ended in the meantime
                check_output(config.output, force)
        return train(config, images)


def _check_apart(output: Path, data: Specs) -> None:
    """Raise UserError if a run of `output` puts files, pictures too, among those of the data."""
    folder = output.with_suffix("").resolve()
    for each in map(Path, [data] if isinstance(data, str) else data):
        if each.is_dir() and each.resolve() in (folder, *folder.parents):
            raise UserError(
                f"{output}: its run, {output.with_suffix('')}, lies inside the data {each}; give "
                "another --output"
            )


def _print(written: Path) -> None:
    """Once, of however many processes of torchrun's."""
    if os.environ.get("RANK", "0") == "0":
        click.echo(written)


@click.command("distill")
@click.argument("pack", type=FILE_PATH, required=False)
@click.option(
    "--data",
    required=True,
    multiple=True,
    help="A folder, film, pattern or name, without labels; several are joined.",
)
@_data_options("image")
@film_options
@click.option("--core", type=FILE_PATH, help="The pack's core, if it is not in runs/.")
@click.option("--force", is_flag=True, help="Overwrite the output.")
@config_options(DistillConfig)
def distill_command(
    pack: Path | None,
    data: tuple[str, ...],
    layout: str,
    crop: CropMode,
    films: FilmOptions,
    core: Path | None,
    force: bool,
    **o: Any,
) -> None:
    """Teach a narrower, quicker network to find what a pack finds, from images alone."""
    from lmk.train.distill import distill

    pack = workspace.pick(pack, "pack")
    output = workspace.made_of(pack, "-fast.safetensors")
    header = read_header(pack)
    check_kind(pack, header, "pack")
    workspace.warn_unfinished(pack, header)
    size = header["network"]["input_size"]
    if o["input_size"] not in (None, size):
        raise UserError(
            f"--input-size: got {o['input_size']}, but the pack's {size} is taken; leave it out"
        )
    config = make_config(DistillConfig, o | {"input_size": size}, output=output)
    if not config.resume:
        check_output(config.output, force)
    core = core or workspace.core_of(pack)

    def learn(config: DistillConfig, images: DecodedSet) -> Path:
        return distill(config, pack, core, images)

    _print(_run(learn, config, data, layout, crop, films, force))


@click.command("evaluate")
@click.argument("packs", type=FILE_PATH, nargs=-1, metavar="[PACK]...")
@click.option("--data", required=True, help="A folder or a name; annotated points are used if any.")
@click.option("--fit-data", help="Annotated alike: fit the regressors to its training images.")
@_data_options("image")
@click.option("--core", type=FILE_PATH, help="The packs' core, if it is not in runs/.")
@click.option(
    "--preset", type=click.Choice(list(EVALUATE_PRESETS)), default="default", show_default=True
)
@click.option(
    "--normaliser",
    help="Divide errors by the box, or by a distance, A,B, of two points; default: by their names.",
)
@click.option("--output", type=FILE_PATH, help="JSON to write besides the table.")
@click.option("--force", is_flag=True, help="Overwrite the output.")
@config_options(EvaluateConfig)
def evaluate_command(
    packs: tuple[Path, ...], core: Path | None, output: Path | None, force: bool, **o: Any
) -> None:
    """Measure packs on images that were held out.

    With --crop annotation they are measured on crops that do not know the annotation too: of the
    box that the data gives apart from it, else whole images. The JSON of one pack is its report,
    of several a list.
    """
    from lmk.train.device import pick_device
    from lmk.train.judge import evaluate, may_have_learnt, print_evaluation
    from lmk.train.network import load_pack

    config = make_config(EvaluateConfig, o, **EVALUATE_PRESETS[o["preset"]])
    if o["crop_margin"] is not None and o["crop"] != "annotation":
        raise UserError(
            f"--crop-margin: got {o['crop_margin']} with --crop {o['crop']}, expected --crop "
            "annotation; leave one out"
        )
    if o["fit_data"] == o["data"]:
        raise UserError(f"--fit-data: got the data itself, {o['data']}; leave it out")
    if output:
        click.get_current_context().with_resource(Owned(output))
        check_output(output, force)
    pick_device(config.device)  # told before images are decoded
    reports, load = [], functools.cache(load_decoded)  # once for all packs

    def measure(model: Any, header: Mapping[str, Any], crop: CropMode) -> dict[str, Any]:
        size, margin = model.config.input_size, config.crop_margin or CROP_MARGIN
        data = load(o["data"], o["layout"], size, crop, margin)
        fit_on = load(o["fit_data"], None, size, crop, margin) if o["fit_data"] else None
        data = replace(data, scheme=normalised_by(data.scheme, o["normaliser"]))
        if may_have_learnt(data, header):
            click.echo(
                f"{data.name}: other images are held out than when {pack} was adapted to a set of "
                "that name; if it is this one, images came or went or could not be read, and some "
                "that are judged here were learnt from: adapt again, or judge on others",
                err=True,
            )
        return evaluate(model, data, config, header["config"]["seed"], fit_on, crop)

    for pack in [workspace.pick(pack, "pack") for pack in packs or (None,)]:
        model, header = load_pack(pack, core or workspace.core_of(pack))
        workspace.warn_unfinished(pack, header)
        click.echo(f"measuring {pack}", err=True)
        report = measure(model, header, o["crop"])
        if not report["leak_free"]:
            report["leak_free_variant"] = measure(model, header, "object")
        reports.append({"pack": pack.name, "pack_sha256": header["sha256"], **report})
    if output:
        result = reports if len(packs) > 1 else reports[0]
        write_bytes(output, json.dumps(result, indent=1, allow_nan=False).encode())
    print_evaluation(reports)


@click.command("report")
@click.argument("pack", type=FILE_PATH, required=False)
@click.option("--data", required=True, help="A folder, film, pattern or name, without labels.")
@_data_options("image")
@film_options
@click.option("--images", type=int, default=300, show_default=True, help="At most so many.")
@click.option("--core", type=FILE_PATH, help="The pack's core, if it is not in runs/.")
@click.option("--output", type=FILE_PATH, help="The page; default: the pack's name with .html.")
@click.option("--force", is_flag=True, help="Overwrite the output.")
@click.option("--threads", type=int, help="CPU threads; default: all cores.")
def report_command(
    pack: Path | None,
    data: str,
    layout: str,
    crop: CropMode,
    films: FilmOptions,
    images: int,
    core: Path | None,
    output: Path | None,
    force: bool,
    threads: int | None,
) -> None:
    """Write a page that says which landmarks to trust, without labels."""
    from lmk.train.judge import write_report
    from lmk.train.network import load_pack

    config = EvaluateConfig(images=images, threads=threads)
    pack = workspace.pick(pack, "pack")
    output = output or workspace.made_of(pack, ".html")
    if output.suffix != ".html":
        raise UserError(f"--output: got {output}, expected a name ending in .html; rename it")
    click.get_current_context().with_resource(Owned(output))
    check_output(output, force)
    model, header = load_pack(pack, core or workspace.core_of(pack))
    workspace.warn_unfinished(pack, header)
    decoded = load_decoded(data, layout, model.config.input_size, crop, films=films)
    console().print(write_report(output, model, header, decoded, config).summary)
    click.echo(output)
