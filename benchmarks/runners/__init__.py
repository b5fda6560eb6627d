"""One model through every runner of this machine, on the same crops: one table."""

from lmk.benchmarks.runners import tables
from lmk.benchmarks.runners.measured import bench, plan
from lmk.benchmarks.runners.options import Options, check_file
from lmk.benchmarks.runners.tables import figures, print_result, reasons
