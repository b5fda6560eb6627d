"""Claims such as `ort-cpu.p50@32 <= 0.8*eager.p50@32` -> whether the figures bear them out."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from lmk.runtime.errors import UserError

# RUNNER.METRIC with @BATCH or without; the runner's hyphens would be minus signs to Python.
_NAME = re.compile(r"(?<![\w.])[A-Za-z_][\w-]*\.[A-Za-z_]\w*(?:@\d+)?")
_ARITHMETIC: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARISONS: dict[type, tuple[str, Callable[[float, float], bool]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
}
_LONGEST = 200
_LANGUAGE = "names (RUNNER.METRIC or RUNNER.METRIC@BATCH), numbers, + - * / ( ) and one comparison"


@dataclass(frozen=True)
class Judgement:
    """What came of a claim."""

    claim: str
    holds: bool
    left: float
    right: float
    sign: str

    def __str__(self) -> str:
        state = "holds" if self.holds else "does not hold"
        return f"{self.claim}: {state}: {self.left:.6g} {self.sign} {self.right:.6g}"


class Claim:
    """A claim that is understood; raises UserError for one that is not in the language."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._hidden: dict[str, str] = {}  # word in its place -> name
        if len(text) > _LONGEST:
            raise UserError(
                f"assert: got {len(text)} characters, expected at most {_LONGEST}; make it two"
            )
        try:
            tree = ast.parse(_NAME.sub(self._hide, text).strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._error("is no expression") from error
        if not isinstance(tree, ast.Compare) or len(tree.ops) != 1:
            raise self._error("is not one comparison")
        if type(tree.ops[0]) not in _COMPARISONS:
            raise self._error("has another comparison")
        self._sign, self._compare = _COMPARISONS[type(tree.ops[0])]
        self._sides = tree.left, tree.comparators[0]
        for side in self._sides:
            self._check(side)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of figures in it."""
        return tuple(dict.fromkeys(self._hidden.values()))

    def judge(
        self, figures: Mapping[str, float], reasons: Mapping[str, str] | None = None
    ) -> Judgement:
        """Compare the sides.

        reasons: why there is no figure of a name, or none of what stands before its point. Raises
        UserError for a name that `figures` lacks, and for x / 0.
        """
        for name in self.names:
            if name not in figures:
                raise self._lacks(name, figures, reasons or {})
        try:
            left, right = (self._value(side, figures) for side in self._sides)
        except ArithmeticError as error:  # x / 0, and numbers that are too large
            raise self._error(f"cannot be computed ({error})") from None
        return Judgement(self.text, self._compare(left, right), left, right, self._sign)

    def _lacks(
        self, name: str, figures: Mapping[str, float], reasons: Mapping[str, str]
    ) -> UserError:
        subject = name.partition(".")[0]
        if reason := reasons.get(name) or reasons.get(subject):
            return UserError(f"assert '{self.text}': got no figure of '{name}': {reason}")
        alike = [each for each in figures if each.startswith(f"{subject}.")] or list(figures)
        return UserError(
            f"assert '{self.text}': got '{name}', expected one of: "
            f"{', '.join(sorted(alike)) or 'none'}"
        )

    def _hide(self, match: re.Match[str]) -> str:
        """Put a word in the place of a name; one that no name can be, for it has no point."""
        word = f"__{len(self._hidden)}__"
        self._hidden[word] = match[0]
        return f" {word} "

    def _check(self, node: ast.expr) -> None:
        """Raise UserError unless `node` and all below it are of the language."""
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            self._check(node.left)
            self._check(node.right)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            self._check(node.operand)
        elif isinstance(node, ast.Name):
            if node.id not in self._hidden:
                raise self._error(f"holds '{node.id}'")
        elif not (isinstance(node, ast.Constant) and type(node.value) in (int, float)):
            raise self._error("holds something else")

    def _value(self, node: ast.expr, figures: Mapping[str, float]) -> float:
        """The value of a node that has been checked."""
        if isinstance(node, ast.BinOp):
            sides = self._value(node.left, figures), self._value(node.right, figures)
            return _ARITHMETIC[type(node.op)](*sides)
        if isinstance(node, ast.UnaryOp):
            return -self._value(node.operand, figures)
        if isinstance(node, ast.Name):
            return figures[self._hidden[node.id]]
        assert isinstance(node, ast.Constant) and isinstance(node.value, int | float)
        return float(node.value)

    def _error(self, what: str) -> UserError:
        return UserError(f"assert '{self.text}': {what}, expected {_LANGUAGE}")


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
