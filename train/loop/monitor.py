"""What a run is doing, for whoever watches: a bar or plain lines, and TensorBoard events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from lmk.train import distributed
from lmk.train.config import UNBOUNDED


class Monitor:
    """Open between `start` and `close`; `say` may be called at any time."""

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder, self.console = folder, console

    def start(self) -> None:
        """Show the bar and open the events file; raises OSError if that cannot be written."""
        self._events = (
            SummaryWriter(str(self.folder), flush_secs=10) if distributed.leads() else None
        )
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._bar.start()
        self._task = self._bar.add_task(self.folder.name, total=1.0, text="")

    def close(self) -> None:
        """Take the bar away and finish the events file."""
        self._bar.stop()
        if self._events:
            self._events.close()

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, markup=False)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars for TensorBoard."""
        if self._events:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    def show(
        self,
        step: int,
        steps: int,
        scalars: Mapping[str, float],
        rate: float,
        progress: float,
        times: tuple[float, float],
    ) -> None:
        """Where the run is: images a second, share of the budget, seconds past and to come."""
        of = "" if steps == UNBOUNDED else f"/{steps}"
        total = sum(scalars.values())
        short = f"step {step}{of}  loss {total:.3g}  {rate:.1f}/s"  # fits 80 columns
        self._bar.update(self._task, completed=progress, text=short)
        if not self.console.is_terminal:
            text = "  ".join(f"{name} {value:.4g}" for name, value in scalars.items())
            past, left = times
            line = f"step {step}{of}  {text}  {rate:.1f} images/s"
            self.say(f"{line}  {past:.0f} s, {left:.0f} s left")
