"""Whatever lies on the disk -> images and points, decoded once."""

from lmk.train.datasets.commands import film_options
from lmk.train.datasets.decoded import CONTEXT, CROP_MARGIN, CropMode, DecodedSet, decode
from lmk.train.datasets.find import (
    BUILTIN,
    category_name,
    first_pose_set,
    homes,
    locate,
    open_dataset,
)
from lmk.train.datasets.layouts import LAYOUTS, USUAL_FILMS, FilmOptions
from lmk.train.datasets.load import Specs, join, load_decoded
from lmk.train.datasets.sample import Dataset, PointArray, Sample, Scheme, normalised_by, scheme_of
