"""Claims -> refused before minutes of measuring, if they name what will not be measured."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from lmk.benchmarks.bench_claims import Claim
from lmk.benchmarks.bench_options import Options
from lmk.benchmarks.bench_tables import SPEED, WHOLE
from lmk.benchmarks.bench_turns import ENOUGH
from lmk.runtime.errors import UserError

STEPS = ("switch", "detect", "export", "engine", "refit-trt", "refit-rtx")  # of `making`


def check_claims(claims: Iterable[Claim], options: Options, runners: Collection[str]) -> None:
    """Raise UserError for a name that `bench` will have no figure of.

    runners: those that will be tried. What a step of STEPS has is known only afterwards.
    """
    metrics = {runner: (*SPEED, *WHOLE) for runner in runners}
    for claim in claims:
        for name in claim.names:
            if name.partition(".")[0] in STEPS:
                continue
            metric = check_name(claim, name, metrics, options.batches, "batch", SPEED)
            if metric == "p99" and options.repeats < ENOUGH:
                raise UserError(
                    f"assert '{claim.text}': got --repeats {options.repeats}, expected {ENOUGH} "
                    f"or more for '{name}': give more, or claim p90 or max"
                )


def check_name(
    claim: Claim,
    name: str,
    metrics: Mapping[str, Sequence[str]],
    numbers: Collection[int],
    noun: str,
    numbered: Collection[str],
) -> str:
    """The metric of `SUBJECT.METRIC` or `SUBJECT.METRIC@NUMBER`; raises UserError.

    metrics: of each subject; numbers: what may stand behind @, a `noun`, and of which metrics.
    """
    subject, _, rest = name.partition(".")
    metric, _, number = rest.partition("@")
    said = f"assert '{claim.text}':"
    if subject not in metrics:
        raise UserError(f"{said} got '{subject}', expected one of: {', '.join(metrics)}")
    if metric not in metrics[subject]:
        known = ", ".join(metrics[subject])
        raise UserError(f"{said} got '{metric}' of {subject}, expected one of: {known}")
    if number and metric not in numbered:
        raise UserError(f"{said} got '{name}', expected {subject}.{metric}: it has no {noun}")
    if number and int(number) not in numbers:
        known = ", ".join(map(str, sorted(numbers)))
        raise UserError(f"{said} got {noun} {number}, expected one of: {known}")
    return metric
