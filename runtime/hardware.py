"""Name of a kind of device -> what PyAV needs to decode on it."""

from __future__ import annotations

from av.codec.hwaccel import HWAccel, hwdevices_available

from lmk.runtime.errors import UserError


def device_kinds() -> list[str]:
    """The kinds of device that this PyAV's FFmpeg was built for; whether one is there is open."""
    return list(hwdevices_available())


def candidates(hwaccel: str | None, can_reopen: bool) -> list[str | None]:
    """The kinds of device to try in turn for `hwaccel`; None stands for the processor.

    `auto` needs a video that can be opened again. Raises UserError for a kind that FFmpeg does not
    have.
    """
    if hwaccel is None:
        return [None]
    kinds = device_kinds()
    if hwaccel == "auto":
        return [*kinds, None] if can_reopen else [None]
    if hwaccel not in kinds:
        raise UserError(
            f"hwaccel: got '{hwaccel}', expected auto or one of those in this PyAV "
            f"({' '.join(kinds) or 'none'}); leave it out to decode on the processor"
        )
    return [hwaccel]


def accelerator(kind: str) -> HWAccel:
    """PyAV's HWAccel for a kind of device that never falls back on the processor."""
    return HWAccel(kind, allow_software_fallback=False)
