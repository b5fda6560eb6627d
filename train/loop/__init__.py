"""What every training run does: steps, schedule, state, ends."""

from lmk.train.loop.compilation import Choice, Compiled, compiled
from lmk.train.loop.descend import Descent, Losses, follow, step_decay, warmup_cosine
from lmk.train.loop.run import STATE_NAME, TrainingRun, training_set
from lmk.train.loop.state import Models, Optimizers
from lmk.train.loop.threads import FreeCores
