"""Commands that pages start, each a process of its own with its log, and what becomes of them."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lmk.runtime.files import printable
from lmk.runtime.model import workspace
from lmk.studio.project import LMK

_TAIL = 4000  # bytes of the log that are shown
_INTERRUPTED = 130  # the exit code of `lmk` when it was stopped in order, as Learn does


@dataclass
class Job:
    """Commands, one after the other, until one fails."""

    key: str
    title: str
    commands: Sequence[Sequence[str]]
    log: Path
    state: Literal["running", "done", "failed", "stopped"] = "running"
    code: int | None = None
    began: float = field(default_factory=time.time)
    ended: float | None = None
    at: int = 0  # which of the commands
    process: subprocess.Popen[bytes] | None = None
    stopping: bool = False

    def told(self) -> dict[str, Any]:
        """For pages: the end of its log, too, and what to do if it says nothing itself."""
        tail = b""
        with contextlib.suppress(OSError), open(self.log, "rb") as file:
            file.seek(max(0, self.log.stat().st_size - _TAIL))
            tail = file.read()
        lines = of_last_command(tail.decode("utf-8", "replace").splitlines())
        if self.code is not None and self.code < 0 and self.state == "failed":
            name = signal.Signals(-self.code).name
            lines.append(
                f"ended from outside by {name}, as where memory runs out; start it again, or, if "
                "it learns, go on in Learn"
            )
        return {
            "key": self.key,
            "title": self.title,
            "commands": [shlex.join(["lmk", *command]) for command in self.commands],
            "at": self.at,
            "state": self.state,
            "code": self.code,
            "began": self.began,
            "ended": self.ended,
            "lines": lines[-12:],
        }


def of_last_command(lines: list[str]) -> list[str]:
    """The end of a log, from where its last command begins, if that is in it."""
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    return lines[max(starts, default=0) :]


class Jobs:
    """What was started from the pages; it goes on when the studio ends, and says so in its log."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def start(
        self,
        title: str,
        commands: Sequence[Sequence[str]],
        log: Path | None = None,
        then: Callable[[], None] = lambda: None,
    ) -> Job:
        """Run `lmk` with each of the commands; `then` is called when all have succeeded."""
        with self._lock:
            key = f"{len(self._jobs) + 1}"
            log = log or workspace.RUNS / ".studio" / f"{os.getpid()}-{key}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            job = self._jobs[key] = Job(key, title, commands, log)
        threading.Thread(target=self._run, args=(job, then), daemon=True).start()
        return job

    def _run(self, job: Job, then: Callable[[], None]) -> None:
        with open(job.log, "ab") as log:
            for number, command in enumerate(job.commands):
                if job.stopping:
                    break
                job.at = number
                log.write(f"$ {printable(shlex.join(['lmk', *command]))}\n".encode())
                log.flush()
                # Of its own session, so that Ctrl-C in the studio's terminal is not for it.
                job.process = subprocess.Popen(
                    [*LMK, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                job.code = job.process.wait()
                if job.code not in (0, 3):  # 3: all but what could not be read
                    break
        if job.stopping or job.code == _INTERRUPTED:
            job.state = "stopped"
        else:
            job.state = "done" if job.code in (0, 3) else "failed"
        job.ended = time.time()
        if job.state == "done":
            then()

    def stop(self, key: str) -> bool:
        """End a job in order, as Ctrl-C does; whether there was one to end."""
        job = self._jobs.get(key)
        if job is None or job.state != "running" or job.process is None:
            return False
        job.stopping = True
        with contextlib.suppress(ProcessLookupError):
            job.process.send_signal(signal.SIGINT)
        return True

    def writes(self, log: Path) -> bool:
        """Whether one that runs writes this log."""
        return any(job.log == log and job.state == "running" for job in [*self._jobs.values()])

    def told(self) -> list[dict[str, Any]]:
        """All of them, the latest first."""
        return [job.told() for job in reversed(self._jobs.values())]
