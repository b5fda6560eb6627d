"""Frame -> where its objects are."""

from lmk.runtime.regions.choose import RegionMaker, Where
from lmk.runtime.regions.fixed import Boxes, parse_roi
from lmk.runtime.regions.region import Region, Target, overlap
from lmk.runtime.regions.track import Tracker
