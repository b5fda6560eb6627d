"""Source -> crops -> model -> outputs, at the same time and to be resumed."""

from lmk.runtime.pipeline.feed import CHUNK, Feed, follow
from lmk.runtime.pipeline.journal import Journal, read_record
from lmk.runtime.pipeline.run import Task, detect, detect_all, detect_task
from lmk.runtime.pipeline.smooth import BETA, MIN_CUTOFF_HZ, Smoother
from lmk.runtime.pipeline.summary import Outcome, Summary, total
