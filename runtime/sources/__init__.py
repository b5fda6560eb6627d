"""Whatever can be read -> frames, with their true numbers and times."""

from lmk.runtime.sources.cuts import CutDetector
from lmk.runtime.sources.image_files import ImageSource
from lmk.runtime.sources.medium import find_medium
from lmk.runtime.sources.open import (
    expand,
    fixed_part,
    is_pattern,
    look_into,
    open_source,
    tell_unread,
)
from lmk.runtime.sources.pictures import colours_of, matrix_and_range
from lmk.runtime.sources.sample_frames import choose, choose_frames, sample, small
from lmk.runtime.sources.source import VIDEO_SUFFIXES, Source
