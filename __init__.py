"""Landmarks on any object, without labels."""

# onnxruntime itself is imported by the first load(): these lines cost numpy and Pillow.
from lmk.runtime.errors import UserError as UserError
from lmk.runtime.feed import Found as Found
from lmk.runtime.landmarker import Detection as Detection
from lmk.runtime.landmarker import Landmarker as Landmarker
from lmk.runtime.landmarker import load as load
from lmk.runtime.sources import Frame as Frame

__version__ = "0.1.0"
