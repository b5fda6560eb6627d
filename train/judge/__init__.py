"""Pack -> what its landmarks are worth: measures, reports, named points."""

from lmk.train.judge.acceptance import measure_acceptance
from lmk.train.judge.consistency import Views, find_landmarks, prepared, righted, views
from lmk.train.judge.evaluation import (
    COLLAPSED_SPREAD,
    REFERENCE,
    evaluate,
    may_have_learnt,
    spread_over,
)
from lmk.train.judge.naming import NamedCrops, check_informative, judge, name_pack
from lmk.train.judge.point_fit import RIDGES, fit, leave_one_out
from lmk.train.judge.point_maps import Learning
from lmk.train.judge.regression import LinearRegressor, errors_percent, pck
from lmk.train.judge.report import choose_images, write_report
from lmk.train.judge.steadiness import STEADY_SCORE, Steadiness
from lmk.train.judge.table import print_evaluation, print_naming
