"""Frame -> where its objects are."""

from lmk.runtime.regions.acceptance import Acceptance, Seen, accept, see
from lmk.runtime.regions.background import Background
from lmk.runtime.regions.choose import RegionMaker, Where
from lmk.runtime.regions.detector import BoxDetector, DetectorRegion
from lmk.runtime.regions.finding import WAYS, Finding, Way, finding_of
from lmk.runtime.regions.fixed import Boxes, parse_roi, read_boxes
from lmk.runtime.regions.moving import Blob, MovingObjects
from lmk.runtime.regions.patch import PatchRegion
from lmk.runtime.regions.region import Region, Target, overlap
from lmk.runtime.regions.survey import Shown, Survey, survey_film
from lmk.runtime.regions.track import Tracker
