"""Engine of one category + pack of another -> the runner of the other: its weights are swapped."""

from __future__ import annotations

from pathlib import Path

from lmk.runtime.errors import UserError
from lmk.runtime.named import composed, contract_of, pack_file
from lmk.runtime.report import console
from lmk.runtime.trt import TrtRunner
from lmk.runtime.weights import check_kind, read_header

_OWN_SCALES = ("int8", "fp8")


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
