"""A model file or a category's name -> the runner that runs it on the device asked for."""

from __future__ import annotations

import os
from pathlib import Path

from lmk.runtime.errors import UserError
from lmk.runtime.model import check_kind, composed, contract_of, model_file, pack_file, read_header
from lmk.runtime.runners.auto import choose
from lmk.runtime.runners.ort import OrtRunner, SideBySide
from lmk.runtime.runners.registry import RUNNERS, device_words
from lmk.runtime.runners.runner import Runner
from lmk.runtime.runners.trt import TrtRunner
from lmk.runtime.terminal import console

_OWN_SCALES = ("int8", "fp8")  # engines whose scales are those of one category


AUTO = "auto"
VARIABLE = "LMK_DEVICE"  # what `AUTO` stands for, where it is set


def settle(
    path: Path | str,
    device: str | None = None,
    threads: int | None = None,
    side_by_side: bool = False,
) -> tuple[Path, str | None]:
    """The file and the device, both as of `open_runner`, that `AUTO` or None stand for here.

    An engine and any other word of `device` stay as they are. Says on standard error what was
    chosen. Raises UserError as `open_runner` for the file.
    """
    if Path(path).suffix == ".safetensors":
        raise UserError(
            f"{path}: got a pack or a core, expected an exported model (.onnx); "
            "run `lmk export` on it first"
        )
    path = model_file(path)
    if device not in (None, AUTO) or path.suffix == ".engine":
        return path, None if device == AUTO else device
    if named := os.environ.get(VARIABLE):
        return path, named
    choice = choose(path, threads, side_by_side)
    console().print(f"device: {choice.device} ({choice.words})")
    return choice.model, choice.device


def open_runner(
    path: Path | str,
    device: str | None = None,
    threads: int | None = None,
    engine: Path | str | None = None,
    side_by_side: bool = False,
) -> Runner:
    """Open a model made by `lmk export`, or a category by its name.

    A category's model is `runs/NAME.onnx`, composed on first use from a pack in `runs/` or one that
    ships, see `model_file`. device: a word of `RUNNERS`, of which "openvino" is OpenVINO on the
    CPU; None or "auto" = cuda for an engine and what `choose` chooses else. threads: CPU threads of
    the model, None = one a core. engine: run the category, or its pack, with this engine file,
    which was built with --refit for another category of the same core: it gets the weights of the
    pack, see `swap`.
    side_by_side: on the CPU with ONNX Runtime, the crops of a batch run next to each other, best
    for throughput beside other work. Raises UserError when a file is missing or not such a model,
    the name is not known, or the device does not load.
    """
    if engine is not None:
        _check_device(Path(engine), device)
        return open_engine(Path(engine), path)
    path, device = settle(path, device, threads, side_by_side)
    if path.suffix == ".engine":
        _check_device(path, device)
        return TrtRunner(path)
    if side_by_side and device == "cpu":
        return SideBySide(OrtRunner(path, "cpu", threads=1), threads)
    for entry in RUNNERS:
        if entry.suffix == ".onnx" and device == entry.device:
            return entry.open(path, threads, ())
    raise UserError(f"device: got '{device}', expected one of {', '.join((AUTO, *device_words()))}")


def open_engine(engine: Path, category: Path | str) -> TrtRunner:
    """The runner of the file `engine`, with the weights of `category`.

    Raises UserError as `TrtRunner` and `swap` do.
    """
    pack = pack_file(category)  # before the seconds that an engine takes
    runner = TrtRunner(engine)
    try:
        swap(runner, pack)
    except BaseException:
        runner.close()
        raise
    return runner


def swap(runner: TrtRunner, category: Path | str) -> None:
    """Put the weights of `category`, a name or a pack, into the engine, unless they are its own.

    They are composed in the engine's precision and checked by the pack's probe; what was done is
    said on standard error. Raises UserError for a pack of another core or architecture, without a
    template, or damaged; and as `TrtRunner.refit`, which may close the runner.
    """
    pack, ours = pack_file(category), runner.contract
    header = read_header(pack)
    check_kind(pack, header, "pack")
    if header["sha256"] == ours.pack_sha256:
        return
    if ours.precision in _OWN_SCALES:
        raise UserError(
            f"{pack}: got an engine in {ours.precision}, whose scales are those of "
            f"'{ours.category}', expected one in fp32, fp16 or bf16; export that pack to an engine "
            "of its own"
        )
    runner.check_takes(contract_of(header, ours.precision, {}))
    made = composed(pack, ours.precision)
    drift = runner.refit(made.model, made.contract, made.probe)
    checked = "unchecked: it has no probe" if drift is None else f"its probe within {drift:.1e} px"
    console().print(f"engine: now with the weights of {pack} ({checked})")


def _check_device(engine: Path, device: str | None) -> None:
    if device not in (None, AUTO, "cuda"):
        raise UserError(
            f"{engine}: got device '{device}', expected cuda, where engines run; leave the device "
            "out, or name the ONNX file"
        )
