"""Unlabelled images of a category -> its pack."""

from lmk.train.adapting import objective
from lmk.train.adapting.adaptation import Adaptation, adapt
from lmk.train.adapting.cores import is_under_way
from lmk.train.adapting.many import Request, adapt_many, print_ends
from lmk.train.adapting.pairs import PairBatch
from lmk.train.adapting.phases import has_begun, is_finished
