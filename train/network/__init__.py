"""The networks: hourglass with W, bottleneck, generator, what compares images."""

from lmk.train.network import checkpoint, perceptual
from lmk.train.network.bottleneck import (
    BETA,
    NamingLayer,
    expectation,
    find,
    find_given,
    gaussian_maps,
    local_argmax,
    probabilities,
    soft_argmax,
)
from lmk.train.network.category import (
    halve_pack,
    load_pack,
    new_category,
    prune_pack,
    save_pack,
    train_mode,
    with_maps,
)
from lmk.train.network.checkpoint import load_core, versions
from lmk.train.network.generator import Generator
from lmk.train.network.hourglass import WIDTHS, HourglassConfig, LandmarkNetwork
from lmk.train.network.projection import HYPER_PARAMETERS, ProjectedConv2d, plain_state
