"""ONNX file -> TensorRT engine, kept in a cache."""

from lmk.export.engine.build import PERCENT, build_engine, export_engine, make_recipe
from lmk.export.engine.cache import Cached
from lmk.export.engine.layers import shares
from lmk.export.engine.options import LIBRARIES, EngineOptions, engine_options, make_options
from lmk.export.engine.place import find_place
