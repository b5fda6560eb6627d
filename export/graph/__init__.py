"""Pack -> W·θ folded -> one verified ONNX file."""

from lmk.export.graph.pack import export_pack
from lmk.export.graph.trace import DetectorGraph, fold
