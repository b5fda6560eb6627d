"""Claims about figures: what they may say, and what comes of them."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.benchmarks.claims import Claim
from lmk.runtime.errors import UserError

FIGURES = {"ort-cpu.p50": 4.0, "ort-cpu.p50@32": 64.0, "eager.p50": 10.0, "eager.p50@32": 128.0}


@pytest.mark.parametrize(
    ("text", "holds", "sides"),
    [
        ("ort-cpu.p50 <= 0.8*eager.p50", True, (4, 8)),
        ("ort-cpu.p50@32 <= 0.4*eager.p50@32", False, (64, 51.2)),
        ("eager.p50-ort-cpu.p50 == 6", True, (6, 6)),
        ("eager.p50 - ort-cpu.p50 > 6", False, (6, 6)),
        ("-(1 + 2) * eager.p50 / 2 < 1e1", True, (-15, 10)),
        ("1e-3*eager.p50 != 0.01", False, (0.01, 0.01)),
        ("eager.p50 >= ort-cpu.p50 * 2", True, (10, 8)),
    ],
)
def test_claim_is_computed_and_both_sides_are_said(text, holds, sides):
    verdict = Claim(text).judge(FIGURES)
    assert verdict.holds == holds
    assert (verdict.left, verdict.right) == pytest.approx(sides)
    state = "holds" if holds else "does not hold"
    assert str(verdict).startswith(f"{text}: {state}: {verdict.left:g} ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("eager.p50 <", "is no expression"),
        ("", "is no expression"),
        ("eager.p50", "is not one comparison"),
        ("1 < eager.p50 < 2", "is not one comparison"),
        ("eager.p50 is 1", "has another comparison"),
        ("eager.p50 < p50", "holds 'p50'"),
        ("__7__ < 1", "holds '__7__'"),
        ("eager.p50 ** 9 > 1", "holds something else"),
        ("'a' < eager.p50", "holds something else"),
        ("True < eager.p50", "holds something else"),
        ("print(1) < 1", "holds something else"),
        ("eager.p50[0] < 1", "holds something else"),
        ("(lambda: 1)() < 2", "holds something else"),
        ("1 < 2 if 1 else 3", "is not one comparison"),
        ("1 <" * 70 + " 2", "got 212 characters"),
    ],
)
def test_what_is_not_of_the_language_is_refused(text, words):
    with pytest.raises(UserError, match="^assert") as error:
        Claim(text)
    assert words in str(error.value)


def test_name_without_a_figure_is_refused_with_those_that_have_one():
    with pytest.raises(UserError) as error:
        Claim("trt.p50 < eager.p50").judge(FIGURES)
    assert str(error.value) == (
        "assert 'trt.p50 < eager.p50': got 'trt.p50', expected one of: eager.p50, eager.p50@32, "
        "ort-cpu.p50, ort-cpu.p50@32"
    )
    with pytest.raises(UserError, match="got 'eager.p51', expected one of: eager.p50, eager.p50@3"):
        Claim("eager.p51 < 1").judge(FIGURES)


@pytest.mark.parametrize("name", ["trt", "trt.p99"])
def test_why_there_is_no_figure_is_said(name):
    with pytest.raises(UserError, match="got no figure of 'trt.p99': no GPU$"):
        Claim("trt.p99 < 1").judge(FIGURES, {name: "no GPU"})


def test_names_of_a_claim():
    assert Claim("ort-cpu.p50@32 < 2*eager.p50 + eager.p50").names == (
        "ort-cpu.p50@32",
        "eager.p50",
    )


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(UserError, match="cannot be computed"):
        Claim("1 / (eager.p50 - 10) > 1").judge(FIGURES)
    with pytest.raises(UserError, match="cannot be computed"):
        Claim("0 / 0 < 1").judge(FIGURES)


_NUMBERS = st.floats(0.001, 1000).map(lambda value: f"{value:.4f}")
_EXPRESSIONS = st.recursive(
    _NUMBERS,
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({''.join(t)})"),
    max_leaves=6,
)


@given(_EXPRESSIONS, st.sampled_from(["<", "<=", ">", ">="]), _EXPRESSIONS)
def test_arithmetic_is_that_of_python(left, sign, right):
    verdict = Claim(f"{left} {sign} {right}").judge({})
    constant = compile(ast.parse(f"{left} {sign} {right}", mode="eval"), "claim", "eval")
    assert verdict.holds == eval(constant, {"__builtins__": {}})
