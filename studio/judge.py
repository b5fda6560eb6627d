"""The room Judge: a pack and pictures -> each landmark with its worst pictures; fewer landmarks."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from lmk.runtime.errors import UserError
from lmk.runtime.files import cache_folder
from lmk.runtime.model import read_header, workspace
from lmk.studio.gate import owner_only
from lmk.studio.jobs import Jobs
from lmk.studio.pictures import jpeg
from lmk.studio.project import NotThere, Project

IMAGES, VIEWS = 100, 2  # as at the end of `lmk adapt`
_PATIENCE = 60.0  # seconds without a question, after which what takes all cores ends
_LOOKS = 1 + VIEWS + 3 + 1  # as it is and moved, at three quarters, and for the scores
_GALLERY = 60  # pictures of a landmark, the worst first


@dataclass
class Judged:
    """What is known of a pack on a source, as soon as it is."""

    state: str = "running"
    error: str | None = None
    told: dict[str, Any] = field(default_factory=dict)
    crops: NDArray[np.uint8] | None = None  # (N,S,S,3)
    read: tuple[int, int] = (0, 0)  # pictures, of so many
    seen: tuple[int, int] = (0, 0)  # views by the network, of so many
    asked: float = field(default_factory=time.monotonic)  # when a page last wanted to know

    def tell(self, done: int, total: int) -> None:
        """How many pictures are read; raises _Unwanted when no page waits any more."""
        self.read = done, total
        if time.monotonic() - self.asked > _PATIENCE:
            raise _Unwanted

    def look(self, views: int) -> None:
        """The network is about to see some; raises _Unwanted as `tell` does."""
        self.seen = self.seen[0] + views, self.seen[1]
        self.tell(*self.read)


class _Unwanted(Exception):
    """Whoever asked has gone elsewhere."""


class JudgeRoom:
    """What the page asks for and sends."""

    def __init__(self, project: Project, jobs: Jobs) -> None:
        self.project, self.jobs = project, jobs
        self._known: dict[tuple[str, str, str], Judged] = {}
        self._lock = threading.Lock()
        self._one = threading.Lock()  # at a time: it takes all cores

    def routes(self) -> list[BaseRoute]:
        """All below /api/judge."""
        return [
            Route("/api/judge/{pack}/prune", self.prune, methods=["POST"]),
            Route("/api/judge/{pack}/{source}", self.judged),
            Route("/api/judge/{pack}/{source}/{number:int}", self.crop),
        ]

    def judged(self, request: Request) -> Response:
        """Verdicts and pictures, or that they are on their way."""
        found = self._judgement(request)
        told = {name: getattr(found, name) for name in ("state", "error", "read", "seen")}
        return JSONResponse(told | found.told)

    def crop(self, request: Request) -> Response:
        """A picture as the network saw it."""
        crops, number = self._judgement(request).crops, request.path_params["number"]
        if crops is None or number >= len(crops):
            raise NotThere(f"picture: got {number}, expected one that was looked at")
        data = jpeg(crops[number])
        return Response(data, media_type="image/jpeg", headers={"cache-control": "max-age=600"})

    async def prune(self, request: Request) -> Response:
        """`lmk prune`: a pack, and its ONNX file behind the gate, without some landmarks."""
        owner_only(request)
        sent, pack = await request.json(), request.path_params["pack"]
        path = self.project.pack_file(pack)
        names = read_header(path)["landmark_names"]
        drop = [str(name) for name in sent["drop"]]
        merge = [[str(name) for name in pair] for pair in sent["merge"]]
        if unknown := {*drop, *(name for pair in merge for name in pair)} - set(names):
            raise UserError(f"landmarks: got '{min(unknown)}', expected those of {pack}")
        output = workspace.made_of(path, "-pruned.safetensors")
        command = ["prune", str(path), "--output", str(output), "--force"]
        command += [word for name in drop for word in ("--drop", name)]
        command += [word for pair in merge for word in ("--merge", ",".join(pair))]
        self.jobs.start(f"{pack} with fewer landmarks", [command])
        return JSONResponse({"output": output.stem})

    def _judgement(self, request: Request) -> Judged:
        pack, source = request.path_params["pack"], request.path_params["source"]
        self.project.source(source)
        sha256 = read_header(self.project.pack_file(pack))["sha256"]
        with self._lock:
            key = pack, source, sha256
            if key not in self._known:
                found = self._known[key] = Judged()
                threading.Thread(target=self._judge, args=(found, key), daemon=True).start()
            self._known[key].asked = time.monotonic()
            return self._known[key]

    def _judge(self, found: Judged, key: tuple[str, str, str]) -> None:
        # PyTorch is loaded when somebody wants to know.
        pack, source, _ = key
        try:
            with self._one:
                from lmk.train.config import EvaluateConfig
                from lmk.train.datasets import decode, open_dataset
                from lmk.train.judge import (
                    Steadiness,
                    Views,
                    choose_images,
                    spread_over,
                    write_report,
                )
                from lmk.train.network import load_pack

                def keep(seen: Views, judged: Steadiness, names: list[str]) -> None:
                    found.crops = seen.images[0]
                    found.told = _told(seen, judged, names)

                path = self.project.pack_file(pack)
                model, header = load_pack(path, workspace.core_of(path))
                dataset = open_dataset(str(self.project.source(source).path))
                if dataset.name != header["data"] and len(dataset.samples) > IMAGES:
                    # As the report chooses them; of ten thousand the others need no decoding.
                    chosen = spread_over(np.arange(len(dataset.samples)), IMAGES)
                    dataset = replace(
                        dataset,
                        samples=tuple(dataset.samples[number] for number in chosen),
                        fingerprint=f"{dataset.fingerprint} {IMAGES}",
                    )
                size = model.config.input_size
                data = decode(dataset, size, "image", cache_folder(), found.tell)
                page = workspace.RUNS / f"{pack}-on-{source}.html"
                config = EvaluateConfig(images=IMAGES)
                found.seen = 0, _LOOKS * len(choose_images(data, header, IMAGES)[0])
                # A function, which copies of the model share; a method would be copied, too.
                model.register_forward_pre_hook(lambda _, given: found.look(len(given[0])))
                write_report(page, model, header, data, config, VIEWS, keep)
            found.state = "done"
        except _Unwanted:
            with self._lock:
                del self._known[key]
        except Exception as error:  # of a thread: told where somebody looks
            found.state, found.error = "failed", str(error)


def _told(seen: Any, judged: Any, names: list[str]) -> dict[str, Any]:
    """Ready for pages: lengths in pixels of the crop."""
    errors, each = seen.errors[1:], []
    for mark in judged.landmarks:
        with np.errstate(all="ignore"):
            off = np.array(
                [np.nanmean(column) if np.isfinite(column).any() else np.inf
                 for column in errors[:, :, mark.index].T]
            )  # fmt: skip
        order = np.argsort(-off, kind="stable")[:_GALLERY]
        each.append(
            {
                "name": mark.name,
                "verdict": mark.verdict,
                "useless": mark.useless,
                "median": _finite(mark.median_px),
                "p90": _finite(mark.p90_px),
                "follows": _finite(mark.follows),
                "score": _finite(mark.score),
                "turns": bool(mark.turns),
                "same_as": mark.same_as,
                "gallery": [
                    {
                        "number": int(image),
                        "name": names[image],
                        "off": _finite(off[image]),
                        "at": seen.found[0, image, mark.index].round(2).tolist(),
                    }
                    for image in order
                ],
            }
        )
    return {
        "summary": judged.summary,
        "size": judged.size,
        "images": judged.images,
        "landmarks": each,
    }


def _finite(value: float) -> float | None:
    return round(float(value), 3) if math.isfinite(value) else None
