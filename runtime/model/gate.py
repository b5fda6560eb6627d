"""What a file says of itself -> values of the types, ranges and sizes that all the rest relies on.

The headers of packs, cores, templates, exported models and engines pass here, and nowhere else. A
header also carries its own sha256, so that a changed byte is found; files of before 0.2 carry none,
and only what can be seen in their values is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lmk.runtime.errors import UserError

_SHOWN = 60  # characters of a wrong value
_TEXT = 200  # characters of a name
MOST = 10_000  # landmarks, and entries of other lists


@dataclass(frozen=True)
class Rule:
    """What a value must be."""

    words: str  # after "expected"
    holds: Callable[[Any], bool]
    optional: bool = False


def one_of(*values: str) -> Rule:
    """One of these words."""
    return Rule(f"one of {', '.join(values)}", lambda value: value in values)


def whole(low: int, high: int) -> Rule:
    """An integer from `low` to `high`."""
    return Rule(
        f"a whole number from {low} to {high}",
        lambda value: type(value) is int and low <= value <= high,
    )


def number(low: float, high: float) -> Rule:
    """A finite number over `low`, up to `high`."""
    return Rule(
        f"a number over {low:g}, at most {high:g}",
        lambda value: type(value) in (int, float) and low < value <= high,
    )


def multiple(of: int, high: int) -> Rule:
    """A multiple of `of`, up to `high`."""
    return Rule(
        f"a multiple of {of}, at most {high}",
        lambda value: type(value) is int and 0 < value <= high and value % of == 0,
    )


def rows_of(rule: Rule, words: str, least: int = 0) -> Rule:
    """A list of different values that keep to `rule`."""

    def holds(value: Any) -> bool:
        return (
            isinstance(value, list | tuple)
            and least <= len(value) <= MOST
            and all(rule.holds(each) for each in value)
            and len({json.dumps(each) for each in value}) == len(value)
        )

    return Rule(words, holds)


def table_of(words: str, **rules: Rule) -> Rule:
    """A table with some of these entries and no other."""

    def holds(value: Any) -> bool:
        return isinstance(value, dict) and all(
            name in rules and rules[name].holds(each) for name, each in value.items()
        )

    return Rule(words, holds)


def nullable(rule: Rule) -> Rule:
    """The same, or nothing."""
    return Rule(f"{rule.words}, or null", lambda value: value is None or rule.holds(value))


def optional(rule: Rule) -> Rule:
    """The same for a value that may be missing."""
    return Rule(rule.words, rule.holds, optional=True)


def _is_text(value: Any) -> bool:
    """Printable: a control character would act on the terminal or break a line of a table."""
    return isinstance(value, str) and len(value) <= _TEXT and value.isprintable()


TEXT = Rule(f"at most {_TEXT} characters that can be printed", _is_text)
TRUTH = Rule("true or false", lambda value: isinstance(value, bool))
TABLE = Rule("a table", lambda value: isinstance(value, dict))
ROWS = Rule("a list", lambda value: isinstance(value, list))
NAMES = rows_of(
    Rule(TEXT.words, lambda value: _is_text(value) and value != ""),
    "names that differ, each of 1 to 200 characters that can be printed",
    least=1,
)
SIZE = whole(1, 4096)  # pixels, and channels
COUNT = whole(1, MOST)  # landmarks
CROP_SCALE = number(0, 100)
# Of `regions.Finding`.
FINDING = table_of(
    "how objects were found, of this version or an older one",
    way=one_of("full", "motion", "box", "detector"),
    objects=nullable(whole(1, MOST)),
    margin=number(0, 100),
    detector=TEXT,
)
# Of `regions.Acceptance`.
ACCEPTANCE = table_of(
    "what an object is told by, of this version or an older one",
    score=number(0, 1),
    error=number(0, 10),
    radius=nullable(number(0, 100)),
    weights=Rule(
        "weights", lambda value: is_finite_array(value, None) and min(value, default=1) > 0
    ),
)
CAPABILITY = Rule(
    "such as 8.6", lambda value: isinstance(value, str) and bool(re.fullmatch(r"\d+\.\d", value))
)


def is_finite_array(value: Any, *shape: int | None) -> bool:
    """Whether nested lists are an array of finite numbers of `shape`, where None is any length."""
    if not shape:
        return type(value) in (int, float) and math.isfinite(value)
    return (
        isinstance(value, list)
        and len(value) <= MOST
        and shape[0] in (None, len(value))
        and all(is_finite_array(each, *shape[1:]) for each in value)
    )


def parse(text: str | bytes, source: str, cure: str) -> Any:
    """The value of JSON; raises UserError for what is none, or nested too deeply to be ours."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source} is not JSON ({error}); {cure}") from None


def check(values: Any, rules: Mapping[str, Rule], source: str, cure: str) -> None:
    """Raise UserError, about `source` and with `cure`, unless `values` is a table by these rules.

    Values without a rule may be anything.
    """
    if not isinstance(values, dict):
        raise UserError(f"{source}: got {short(values)}, expected a table; {cure}")
    for name, rule in rules.items():
        if name not in values:
            if rule.optional:
                continue
            raise UserError(f"{source}: '{name}' is missing, expected {rule.words}; {cure}")
        if not rule.holds(values[name]):
            raise UserError(
                f"{source}: '{name}': got {short(values[name])}, expected {rule.words}; {cure}"
            )


def digest_of(header: Mapping[str, Any]) -> str:
    """sha256 over a header, but for its own `header_sha256`."""
    kept = {name: value for name, value in header.items() if name != "header_sha256"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def short(value: Any) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
