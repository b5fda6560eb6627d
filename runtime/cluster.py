"""Ray, joined or started: what each of its tasks gets of the machines, and where it works."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmk.runtime.errors import UserError

_THREADS = 4  # of a task, where nobody says otherwise: more bring ever less
# Nobody is told of the use; a task is as urgent as a run without Ray (Ray would nice it by 15).
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
_SECONDS = 10.0  # for a cluster to answer


@dataclass(frozen=True)
class Share:
    """How many tasks run at once, and what each of them gets."""

    jobs: int
    cpus: int
    gpus: float = 0.0


@dataclass(frozen=True)
class Place:
    """Where the user is: tasks may run in another folder or on another machine."""

    folder: str
    variables: Mapping[str, str]


@contextlib.contextmanager
def joined_ray(
    asked_by: str = "several --data", instead: str = "adapt to one at a time"
) -> Iterator[Any]:
    """The module `ray`, connected for the time of the block.

    To the cluster that RAY_ADDRESS names or that runs on this machine, else to one that is started
    here and stopped again; a connection that is there already is used and kept. asked_by, instead:
    what wants Ray, and what does without. Raises UserError if Ray is not installed, does not start
    or no cluster answers at its address.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ModuleNotFoundError:
        raise UserError(
            f"{asked_by}: ray is not installed, expected it to run the tasks; "
            f"pip install ray, or {instead}"
        ) from None
    if ray.is_initialized():
        yield ray
        return
    address = os.environ.get("RAY_ADDRESS", "")
    try:
        _knock(address)
        with sigterm_kept():
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except OSError as error:  # of which ConnectionError, Ray's own, is one
        raise UserError(
            f"RAY_ADDRESS: got {address or 'none'}, expected a cluster that answers ({error}); "
            "start one by `ray start --head`, set RAY_AUTH_MODE=token if it wants one, or unset "
            "RAY_ADDRESS to use this machine alone"
        ) from error
    except (
        Exception
    ) as error:  # that of a Ray that does not start in time is of no class of its own
        raise UserError(
            f"ray: did not start ({str(error).splitlines()[0]}); try again when the machine is "
            f"less busy, or {instead}"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def sigterm_kept() -> Iterator[None]:
    """Leave SIGTERM as it was: `ray.init` takes it for good, and ends the program at once."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _knock(address: str) -> None:
    """Raise OSError if nobody listens at HOST:PORT; Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "://" not in address:
        socket.create_connection((host, int(port)), _SECONDS).close()


def machines(ray: Any) -> list[dict[str, float]]:
    """How many CPU and GPU each machine of the cluster has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def share_out(
    nodes: Sequence[Mapping[str, float]],
    tasks: int,
    jobs: int | None = None,
    threads: int | None = None,
    use_gpus: bool = True,
) -> Share:
    """What each of `tasks` gets of machines with so many CPU and GPU each, `jobs` at once.

    A GPU each where there are any; more jobs than GPUs share them. Without, the CPUs are shared:
    `threads` or four each, or all of them among `jobs`.
    """
    with_gpu = [node for node in nodes if node.get("GPU")] if use_gpus else []
    chosen = with_gpu or nodes
    cpus = sum(int(node.get("CPU", 0)) for node in chosen)
    gpus = sum(int(node["GPU"]) for node in with_gpu)
    jobs = min(tasks, jobs or gpus or max(1, cpus // (threads or _THREADS)))
    each = threads or max(1, cpus // jobs)
    largest = max(int(node.get("CPU", 0)) for node in chosen)  # a task runs on one machine
    part = math.floor(1e4 / math.ceil(jobs / gpus)) / 1e4 if gpus else 0.0  # Ray has four digits
    return Share(jobs, min(each, largest), part)


def here() -> Place:
    """The current folder, with the variables that are ours."""
    return Place(os.getcwd(), {k: v for k, v in os.environ.items() if k.startswith("LMK_")})


@contextlib.contextmanager
def at(place: Place) -> Iterator[None]:
    """In the user's folder, with the user's variables. Raises UserError where it does not exist."""
    before = dict(os.environ), os.getcwd()
    try:
        os.chdir(place.folder)
    except OSError as error:
        raise UserError(
            f"{place.folder}: not on the machine of the task, expected a folder that all machines "
            "share; start in one"
        ) from error
    os.environ.update(place.variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before[0])
        os.chdir(before[1])
