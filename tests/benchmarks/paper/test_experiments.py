"""The paper's tables as data, and the jobs that they and the options make."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from lmk.benchmarks.paper.experiments import METHODS, TABLES, PaperRow
from lmk.benchmarks.paper.plan import CoreJob, EvaluationJob, PackJob, ReproduceOptions, plan
from lmk.train.config import PRESETS, AdaptConfig, Method
from lmk.train.datasets.find import LAYOUTS


def planned(name, **more):
    return plan(name, ReproduceOptions(**more).for_device("cpu"))


def names(jobs, kind):
    return [job.name.split(" ")[1] for job in jobs if isinstance(job, kind)]


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_figures_of_the_paper_belong_to_rows_of_their_table(table):
    papers = {category.paper for category in table.categories}
    for paper, row, measure in table.paper:
        assert paper in papers and row in table.rows
        assert measure in ("forward", "backward", "consistency")
    assert {paper for _, paper in table.others} <= papers
    assert set(table.core_quality) <= {row.core_epoch for row in table.rows}


def test_layouts_and_methods_exist():
    for table in TABLES.values():
        for category in table.categories:
            for data in (category.adapted, category.test, category.fit or category.test):
                assert data.layout in LAYOUTS
        assert table.core.layout in LAYOUTS
        assert {row.method for row in table.rows} <= set(get_args(Method))


def test_every_figure_of_the_comparison_is_that_of_the_detailed_table():
    for key, figure in TABLES["table1"].paper.items():
        assert TABLES["table2"].paper[key] == figure
    for name in ("table4", "table5"):
        for key, figure in TABLES[name].paper.items():
            if key[1] == PaperRow("projection"):
                both = {**TABLES["table2"].paper, **TABLES["table3"].paper}
                assert both[key] == figure


def test_the_paper_itself():
    jobs = planned("all").jobs
    assert names(jobs, CoreJob) == ["mpii", "300w-lp"]
    packs = names(jobs, PackJob)
    assert (
        len(packs) == len(set(packs)) == 4 * 3 + 3 + 3 + 3
    )  # data × methods, epochs, images, inverse
    # MAFL and AFLW are judged by the same packs, those of CelebA.
    assert "mpii-celeba-projection" in packs and "mpii-mafl-projection" not in packs
    evaluations = names(jobs, EvaluationJob)
    assert {"mpii-celeba-projection-on-mafl", "mpii-celeba-projection-on-aflw"} <= set(evaluations)
    (ls3d,) = [job for job in jobs if job.name == "evaluation mpii-300w-lp-finetune-on-ls3d"]
    assert ls3d.category.fit.layout == "300w-lp"


def test_every_job_comes_after_what_it_needs():
    seen = set()
    for job in planned("all").jobs:
        if isinstance(job, PackJob):
            assert job.core.name in seen
        if isinstance(job, EvaluationJob):
            assert job.pack.name in seen
        seen.add(job.name)


def test_own_data():
    own = planned("table1", data=("cats", "a/faces"), test=("other", "a/faces=points"))
    assert own.own_data
    assert [(c.adapted.label, c.test.label) for c in own.tables[0].categories] == [
        ("cats", "other"),
        ("faces", "other"),
        ("faces", "points"),
    ]
    assert planned("table1", data=("cats",)).tables[0].categories[0].test.label == "cats"


def test_the_inverse_is_left_out_of_all_with_own_data():
    assert "generalization" not in [t.name for t in planned("all", data=("cats",)).tables]
    inverse = planned("generalization", data=("bodies",), core_data="faces")
    assert names(inverse.jobs, CoreJob) == ["faces"]
    assert names(inverse.jobs, PackJob) == [f"faces-bodies-{method}" for method in METHODS]


def test_methods_and_images():
    methods = ("finetune-last", "projection+finetune")
    chosen = planned("table3", data=("cats",), methods=methods)
    assert names(chosen.jobs, PackJob) == [f"mpii-cats-{method}" for method in methods]
    few = planned("table5", data=("cats",), images=(50, 5, 5), methods=methods)
    assert names(few.jobs, PackJob) == [
        "mpii-cats-projection-5images",
        "mpii-cats-projection-50images",
        "mpii-cats-projection",
    ]


def test_early_epochs_are_those_before_the_last():
    table = planned("table4", core_epochs=10).tables[0]
    assert [row.core_epoch for row in table.rows] == [1, 5, None]
    (core,) = (job for job in planned("table1", core_epochs=10).jobs if isinstance(job, CoreJob))
    assert core.config.keep == (1, 5)  # the same core, whatever the table
    given = planned("table4", core=Path("my.safetensors"))
    packs = [job.config.core.name for job in given.jobs if isinstance(job, PackJob)]
    assert packs[0] == "my-epoch1.safetensors" and packs[-1] == "my.safetensors"


def test_all_methods_get_the_same_budget_and_preset():
    jobs = planned("table1", steps=7, preset="released", batch=4, crop="annotation").jobs
    packs = [job for job in jobs if isinstance(job, PackJob)]
    configs = {
        replace(job.config, method="projection", output=AdaptConfig().output) for job in packs
    }
    (config,) = configs
    assert (config.steps, config.minutes, config.batch, config.norm) == (7, None, 4, "mse")
    assert (
        packs[0].config.output.stem == "mpii-celeba-scratch-annotation"
    )  # another crop, another pack


def test_budgets_by_device_and_presets():
    cpu, cuda = (ReproduceOptions().for_device(device) for device in ("cpu", "cuda"))
    assert (cuda.steps, cuda.core_epochs, cuda.width) == (200_000, 110, "full")  # the paper's
    assert cpu.steps < 10_000 and cpu.width == "small"
    assert ReproduceOptions(steps=5).for_device("cuda").steps == 5
    for preset in PRESETS:
        assert planned("table1", preset=preset)


def test_planning_needs_no_torch():
    program = "import sys, lmk.benchmarks.commands; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
