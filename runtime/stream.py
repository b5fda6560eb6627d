"""A source -> what is found in its frames, one by one, for whoever iterates in Python."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from lmk.runtime.feed import Feed, Found, run_ready
from lmk.runtime.landmarker import Landmarker
from lmk.runtime.region import Region
from lmk.runtime.sources import Source, open_source

if TYPE_CHECKING:
    from lmk.runtime.smooth import Smoother


def stream(
    landmarker: Landmarker,
    source: Source | Path | str,
    region: Region,
    smoother: Smoother | None = None,
    batch_size: int = 4,
    live: bool | None = None,
) -> Generator[Found, None, None]:
    """Yield every frame of `source` with what was found in it, in order; see `Landmarker.stream`.

    Decoding and cropping go on in a thread of their own; the model runs in the caller's. A source
    that is given open stays open; everything else is closed when the generator is.
    """
    opened = open_source(source) if isinstance(source, Path | str) else None
    frames = opened or source
    assert not isinstance(frames, Path | str)
    changed = threading.Condition()
    live = frames.is_live if live is None else live
    feed = Feed(frames, region, landmarker, batch_size, smoother, live, changed)
    try:
        feed.start()
        while not feed.ended:
            with changed:
                changed.wait_for(lambda: feed.ready)
            [(_, found)] = run_ready([feed], landmarker, batch_size)
            yield from found
        if feed.error is not None:
            raise feed.error
    finally:
        feed.stop()
        if opened is not None:
            opened.close()
