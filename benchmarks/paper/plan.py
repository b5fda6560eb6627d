"""Tables and options -> the jobs that make them: cores, packs, evaluations, each named once.

Importing this needs no PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from lmk.benchmarks.paper.experiments import (
    KEPT_EPOCHS,
    METHODS,
    TABLES,
    DataSet,
    PaperCategory,
    PaperRow,
    PaperTable,
)
from lmk.runtime.errors import UserError
from lmk.train.config import PRESETS, AdaptConfig, CoreConfig, EvaluateConfig, Method, Width, option
from lmk.train.datasets import CropMode

ALL = "all"
_GIVEN = ("batch", "rotation", "scale", "shift")  # over what the preset says
# Where nothing is said: with a GPU the paper's, without one what some hours of it can do.
_BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {"steps": 1000, "core_epochs": 30, "width": "small"},
    "cuda": {"steps": 200_000, "core_epochs": 110, "width": "full"},
}


@dataclass(frozen=True)
class ReproduceOptions:
    """What may differ from the paper's experiment, and what it may cost."""

    folder: Path = option(Path("runs/reproduce"), "where everything is kept, and gone on from")
    data: tuple[str, ...] = option((), "adapt to this set in place of the paper's")
    test: tuple[str, ...] = option(
        (), "judge on this set, or on TEST only what was adapted to DATA: DATA=TEST  "
        "[default: the one adapted to]"
    )  # fmt: skip
    core_data: str | None = option(None, "train the core on this set in place of the paper's")
    core: Path | None = option(None, "use this core (its -epochN siblings are its early epochs)")
    methods: tuple[str, ...] = option((), f"compare these  [default: {', '.join(METHODS)}]")
    images: tuple[int, ...] = option((), "numbers of images of table5  [default: 10, 100, 1000]")
    steps: int | None = option(None, "of every adaptation  [default: 1000, with CUDA 200000]")
    core_epochs: int | None = option(None, "of the core  [default: 30, with CUDA 110]")
    time_budget: float | None = option(None, "minutes for everything; the next call goes on")
    preset: Literal["default", "paper", "released"] = option("default", "of the adaptation")
    width: Width | None = option(None, "of the core: 256, 128 or 64  [default: small, CUDA full]")
    input_size: int = option(128, "side of the core's input in pixels")
    landmarks: int = option(10, "number K of landmarks to discover")
    batch: int | None = option(None, "images a step of adaptation  [default: 16, with CUDA 48]")
    vgg: Path | None = option(None, "safetensors with VGG's convolutions, for --preset paper")
    crop: CropMode = option("image", "what crops of adaptation and evaluation are fitted to")
    rotation: float | None = option(None, "of the images of a pair: ± degrees")
    scale: float | None = option(None, "of the images of a pair: up to this much")
    shift: float | None = option(None, "of the images of a pair: ± this share of the crop")
    test_images: int | None = option(None, "at most this many test images")
    seed: int = option(0, "of everything random")
    device: str = option("auto", "auto, cpu, cuda, cuda:1, …")
    threads: int | None = option(None, "CPU threads; default: the cores that are free")

    def __post_init__(self) -> None:
        """Raise UserError for what no reproduction can have."""
        for method in self.methods:
            if method not in get_args(Method):
                known = ", ".join(get_args(Method))
                raise UserError(f"--methods: got '{method}', expected one of {known}; choose one")
        for pair in self.test:
            data, _, test = pair.rpartition("=")
            if (data and data not in self.data) or not test:
                given = ", ".join(self.data) or "none"
                raise UserError(
                    f"--test: got '{pair}', expected TEST or DATA=TEST with DATA of --data "
                    f"({given}); name one of those"
                )
        for name in ("steps", "core_epochs", "time_budget"):
            value, flag = getattr(self, name), "--" + name.replace("_", "-")
            if value is not None and not value > 0:
                raise UserError(f"{flag}: got {value}, expected more than 0; raise it")

    @property
    def common(self) -> dict[str, Any]:
        """What all jobs are made with."""
        return {"seed": self.seed, "device": self.device, "threads": self.threads}

    def for_device(self, device: str) -> ReproduceOptions:
        """Fill in what was left to the device type ("cpu" or "cuda")."""
        left = {n: v for n, v in _BUDGETS[device].items() if getattr(self, n) is None}
        return replace(self, **left)


@dataclass(frozen=True)
class CoreJob:
    """A core to train on `data`, or to take as it is if that is None."""

    data: DataSet | None
    config: CoreConfig

    @property
    def name(self) -> str:
        return f"core {self.config.output.stem}"

    def path(self, epoch: int | None = None) -> Path:
        """The finished core, or the one kept after `epoch`."""
        output = self.config.output
        return output if epoch is None else output.with_stem(f"{output.stem}-epoch{epoch}")


@dataclass(frozen=True)
class PackJob:
    """A pack to adapt from a core to `data`."""

    core: CoreJob
    row: PaperRow
    data: DataSet
    crop: CropMode
    config: AdaptConfig

    @property
    def name(self) -> str:
        return f"pack {self.config.output.stem}"


@dataclass(frozen=True)
class EvaluationJob:
    """A pack to judge on `category.test`."""

    pack: PackJob
    category: PaperCategory
    config: EvaluateConfig
    output: Path

    @property
    def name(self) -> str:
        return f"evaluation {self.output.stem}"


PaperJob = CoreJob | PackJob | EvaluationJob


@dataclass(frozen=True)
class JobPlan:
    """Jobs in the order to run them, and the evaluation behind each line of each table."""

    tables: tuple[PaperTable, ...]
    jobs: tuple[PaperJob, ...]
    lines: tuple[tuple[PaperTable, PaperCategory, PaperRow, EvaluationJob], ...]
    own_data: bool  # the user's sets in place of the paper's

    def of(self, table: PaperTable) -> list[tuple[PaperCategory, PaperRow, EvaluationJob]]:
        """The lines of one table."""
        return [line[1:] for line in self.lines if line[0].name == table.name]


def plan(name: str, options: ReproduceOptions) -> JobPlan:
    """All that `name`, a table or "all", needs. `options` have been through `for_device`.

    Raises UserError for a table that lacks data of its own.
    """
    named = [TABLES[name]] if name != ALL else list(TABLES.values())
    if name == ALL and (options.data or options.core or options.core_data):
        # The same sets cannot be both what a body core is adapted to and what a face core is.
        named = [table for table in named if table.name != "generalization"]
    tables = tuple(_adjusted(table, options) for table in named)
    jobs: dict[str, PaperJob] = {}
    lines: list[tuple[PaperTable, PaperCategory, PaperRow, EvaluationJob]] = []
    for table in tables:
        core = _core_job(table, options)
        jobs.setdefault(core.name, core)
        for category in table.categories:
            for row in table.rows:
                pack = _pack_job(core, category, row, options)
                evaluation = _evaluation_job(pack, category, options)
                for job in (pack, evaluation):
                    jobs.setdefault(job.name, job)
                lines.append((table, category, row, evaluation))
    return JobPlan(tables, tuple(jobs.values()), tuple(lines), bool(options.data))


def _adjusted(table: PaperTable, options: ReproduceOptions) -> PaperTable:
    """The table with the sets, methods and numbers of images that were asked for."""
    rows: Sequence[PaperRow] = table.rows
    if table.name == "table5" and options.images:
        rows = [PaperRow("projection", images=number) for number in sorted(set(options.images))]
        rows = [*rows, PaperRow("projection")]
    if options.core is None:  # one that is given may have had any number of epochs
        rows = [row for row in rows if (row.core_epoch or 0) < (options.core_epochs or 1)]
    by_method = all(row == PaperRow(row.method) for row in rows)
    if options.methods and by_method:
        rows = [PaperRow(method) for method in dict.fromkeys(options.methods)]
    core = DataSet(options.core_data) if options.core_data else table.core
    categories = list(table.categories) if not options.data else []
    for data in dict.fromkeys(options.data):  # each with every --test that is for it
        pairs = [pair.rpartition("=") for pair in options.test]  # of "TEST" or "DATA=TEST"
        tests = [test for only, _, test in pairs if only in ("", data)]
        categories += [PaperCategory(DataSet(data), DataSet(test)) for test in tests or [data]]
    return replace(table, rows=tuple(rows), core=core, categories=tuple(categories))


def _core_job(table: PaperTable, options: ReproduceOptions) -> CoreJob:
    data = None if options.core else table.core
    config = CoreConfig(
        output=options.core or options.folder / "cores" / f"{table.core.label}.safetensors",
        width=options.width,  # type: ignore[arg-type]  # filled in by `for_device`
        input_size=options.input_size,
        epochs=options.core_epochs,
        # Always the same, so that a core trained for one table serves every other.
        keep=tuple(epoch for epoch in KEPT_EPOCHS if epoch < (options.core_epochs or 0)),
        **options.common,
    )
    return CoreJob(data, config)


def _pack_job(
    core: CoreJob, category: PaperCategory, row: PaperRow, options: ReproduceOptions
) -> PackJob:
    parts = [core.config.output.stem, category.adapted.label, row.method]
    parts += [f"core{row.core_epoch}"] * (row.core_epoch is not None)
    parts += [f"{row.images}images"] * (row.images is not None)
    parts += [options.crop] * (options.crop != "image")
    given = {n: v for n in _GIVEN if (v := getattr(options, n)) is not None}
    config = AdaptConfig(
        **{**PRESETS[options.preset], **given},
        output=options.folder / "packs" / f"{'-'.join(parts)}.safetensors",
        core=core.path(row.core_epoch),
        method=row.method,  # type: ignore[arg-type]
        images=row.images,
        landmarks=options.landmarks,
        vgg=options.vgg,
        steps=options.steps,
        **options.common,
        report=False,  # the page of tables judges them all
    )
    return PackJob(core, row, category.adapted, options.crop, config)


def _evaluation_job(
    pack: PackJob, category: PaperCategory, options: ReproduceOptions
) -> EvaluationJob:
    name = f"{pack.config.output.stem}-on-{category.test.label}.json"
    config = EvaluateConfig(images=options.test_images, **options.common)
    return EvaluationJob(pack, category, config, options.folder / "evaluations" / name)
