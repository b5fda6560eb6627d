"""From file to file: `lmk detect` beside a plain loop."""

from lmk.benchmarks.video.compare import bench_video
from lmk.benchmarks.video.tables import check_claims, figures, print_videos, reasons
