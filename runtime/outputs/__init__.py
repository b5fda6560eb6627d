"""Frames and what was found in them -> files."""

from lmk.runtime.outputs.drawing import colour, draw
from lmk.runtime.outputs.formats import FORMATS, output_files
from lmk.runtime.outputs.make import make_sinks
from lmk.runtime.outputs.painter import Style, read_skeleton
from lmk.runtime.outputs.parquet import ParquetSink, join_parquet
from lmk.runtime.outputs.sink import FileSink, Sink
