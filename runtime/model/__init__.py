"""The files of a model: packs, ONNX files and engines, and what each promises."""

from lmk.runtime.model import gate, weights, wire, workspace
from lmk.runtime.model.composition import (
    compose_file,
    composed,
    contract_of,
    is_composed,
    model_file,
    pack_file,
)
from lmk.runtime.model.contract import (
    CELL_OFFSET,
    INPUT,
    LANDMARKS,
    PRECISIONS,
    SCORES,
    STRIDE,
    Contract,
    Precision,
    Reading,
    default_names,
    read_model,
)
from lmk.runtime.model.engine_file import (
    ENGINE_NAMES,
    LIBRARY_TITLES,
    SINCE,
    VERSION,
    EngineInfo,
    Library,
    Recipe,
    read_engine,
    read_info,
    sha256,
    write_engine,
)
from lmk.runtime.model.probe import (
    LIMITS_PX,
    compare,
    probe_crops,
    record,
    run_onnx,
    shaken,
)
from lmk.runtime.model.template import (
    HEAD,
    Template,
    Weight,
    compose,
    pack_tensors,
    read_template,
    stamp,
    template_name,
)
from lmk.runtime.model.weights import HEADER, check_core, check_kind, read_header
from lmk.runtime.model.workspace import pack_of, pick
