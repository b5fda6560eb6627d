"""What a video is read from, a file, address, camera or pipe -> an open PyAV container."""

from __future__ import annotations

import os
import re
import select
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.error import ExitError, FFmpegError

from lmk.runtime.errors import UserError, without_passwords
from lmk.runtime.files import printable
from lmk.runtime.images import IMAGE_SUFFIXES
from lmk.runtime.sources.source import VIDEO_SUFFIXES

STALL_S = 20.0  # nothing came for so long: an error rather than a wait without end
_CAMERA = re.compile(r"(?:camera:)?(\d+)|/dev/video(\d+)")
_RAW = re.compile(r"stdin:(\d+)x(\d+)(?:@(\d+(?:\.\d+)?(?:/\d+)?))?")
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_SCHEMES = ("rtsp", "rtsps", "http", "https")
# All that FFmpeg is to take a file for. Left out are lists of other files (concat, HLS, DASH, SDP,
# image2 …), which would be read whatever they are, devices, and text.
CONTAINERS = (
    "3dostr,4xm,amv,anm,apng,asf,av1,avi,bethsoftvid,bfi,bink,c93,cavsvideo,cdxl,cine,dhav,dirac,"
    "dnxhd,dsicin,dv,dxa,ea,ea_cdata,evc,film_cpk,filmstrip,flic,flv,gdv,gif,gxf,h261,h263,h264,"
    "hevc,hnm,idcin,iff,ifv,ipmovie,ipu,ivf,jv,kux,live_flv,lmlm4,lvf,lxf,m4v,matroska,webm,mjpeg,"
    "mjpeg_2000,mlv,mm,moflex,mov,mp4,mpeg,mpegts,mpegvideo,mpjpeg,mtv,mv,mvi,mxf,mxg,nc,nsv,nut,"
    "nuv,obu,ogg,paf,psxstr,pva,r3d,rl2,rm,roq,rpl,ser,siff,smjpeg,smk,smush,thp,ty,usm,v210,vc1,"
    "vc1test,vivo,vividas,vmd,vvc,wc3movie,wsvqa,wtv,xmv,yop,yuv4mpegpipe"
)
_STREAMED = {
    "http": ("http,https,tls,tcp,crypto,data", f"{CONTAINERS},hls,dash"),
    "rtsp": ("rtp,srtp,udp,tcp,tls,http,https,rtsp,rtsps", f"{CONTAINERS},rtsp"),
}
_CAMERA_FORMATS = {"linux": "v4l2", "darwin": "avfoundation"}  # in terms of FFmpeg


@dataclass(frozen=True)
class Medium:
    """Where a video comes from."""

    title: str  # how messages call it, without the password of an address
    name: str  # good as a folder name
    location: str  # what FFmpeg opens; of standard input not used
    cure: str  # what to look at when it cannot be opened
    is_file: bool = False
    is_address: bool = False
    is_camera: bool = False
    format: str | None = None  # FFmpeg's name of it where it cannot find out
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def can_reopen(self) -> bool:
        """Whether `open` may be called again: standard input is over once it was read."""
        return not self.is_pipe

    @property
    def is_pipe(self) -> bool:
        """Standard input."""
        return not (self.is_file or self.is_address or self.is_camera)

    def open(self, device: str | None = None) -> av.container.InputContainer:
        """Open it, decoding on `device`. Raises UserError when it cannot be opened."""
        # Only local files are waited for: they come, and on a slow disk not at once.
        more: dict[str, Any] = {} if self.is_file or self.is_pipe else {"timeout": STALL_S}
        if device is not None:
            more["hwaccel"] = accelerator(device)
        file = _Pipe(sys.stdin.fileno()) if self.is_pipe else self.location
        try:
            return av.open(
                file, "r", self.format, dict(self.options), metadata_errors="replace", **more
            )
        except (FFmpegError, OSError, ValueError, RuntimeError) as error:  # RuntimeError: device
            raise UserError(
                f"{self.title}: cannot be opened as a video ({reason_of(error)}); {self.cure}"
            ) from error

    def is_live(self, container: av.container.InputContainer) -> bool:
        """Whether what was opened comes as time passes."""
        if not self.is_address:
            return self.is_camera
        is_whole = container.format.name != "hls" and container.size > 0  # not an endless answer
        return container.duration is None and not is_whole


def reason_of(error: Exception) -> str:
    """Why FFmpeg gave up, in a few words."""
    if isinstance(error, ExitError | TimeoutError):  # ExitError: our time-out interrupted it
        return f"nothing came for {STALL_S:g} s"
    return str(getattr(error, "strerror", None) or error).replace("\n", " ")


def find_medium(spec: Path | str) -> Medium:
    """What `spec` names, see `open_source`. Raises UserError when it is nothing to read from."""
    text = str(spec)
    if text == "-" or text.startswith("stdin:"):
        return _standard_input(text)
    if _ADDRESS.match(text):
        return _address(text)
    camera = _CAMERA.fullmatch(text)
    if camera and not Path(text).is_file():
        return _camera(int(camera[1] or camera[2]))
    return file_medium(Path(spec))


def file_medium(path: Path) -> Medium:
    if not path.exists():
        raise UserError(f"{path}: got no such file or folder; check the path")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path}: got no regular file; pipe it in: lmk detect - < {path}")
    if status.st_size == 0:
        raise UserError(f"{path}: got an empty file, expected a video; copy it again")
    # As an absolute path, for FFmpeg takes 'a:b.mp4' for an address.
    cure = "it is damaged, not whole or not a video"
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        images = " ".join(sorted(IMAGE_SUFFIXES))
        cure = f"expected a video, an image ({images}) or a folder of them"
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    name = printable(path.stem)
    return Medium(str(path), name, str(path.absolute()), cure, is_file=True, options=options)


def _address(text: str) -> Medium:
    title = without_passwords(text, whole=True)
    scheme, _, rest = title.partition("://")
    if scheme.lower() not in _SCHEMES:
        raise UserError(
            f"{title}: got an address of {scheme}, expected one of {', '.join(_SCHEMES)}"
        )
    if not rest.partition("/")[0]:
        raise UserError(f"{title}: got no host, expected e.g. {scheme}://host/path")
    text = scheme.lower() + text[len(scheme) :]  # as FFmpeg has it
    name = re.sub(r"[^\w.]+", "-", title).strip("-.")
    # Over TCP, where the server can: UDP loses packets, and with them parts of pictures.
    protocols, formats = _STREAMED[scheme.lower().rstrip("s")]
    options = {"protocol_whitelist": protocols, "format_whitelist": formats}
    if scheme.lower().startswith("rtsp"):
        options["rtsp_flags"] = "prefer_tcp"
    cure = (
        "check the address, and that its server runs; a file whose index is at its end has to be "
        "downloaded first"
    )
    return Medium(title, name, text, cure, is_address=True, options=options)


def _camera(index: int) -> Medium:
    form = _CAMERA_FORMATS.get(sys.platform)
    if form is None or not any(form in known.split(",") for known in av.formats_available):
        raise UserError(
            f"camera {index}: got a PyAV without {form or 'cameras of this system'}; pipe the "
            f"camera in: ffmpeg -i CAMERA -f matroska - | lmk detect -"
        )
    location = f"/dev/video{index}" if form == "v4l2" else str(index)
    cure = "check that it is plugged in, may be read and is not in use"
    return Medium(f"camera {index}", f"camera-{index}", location, cure, is_camera=True, format=form)


def _standard_input(text: str) -> Medium:
    cure = "pipe in Matroska, MPEG-TS or fragmented MP4, or raw pictures as stdin:WIDTHxHEIGHT@RATE"
    if sys.stdin is None or sys.stdin.isatty():
        raise UserError("stdin: got a terminal, expected a video piped in: lmk detect - < v.ts")
    if text == "-":
        return Medium("stdin", "stdin", "", cure, options={"format_whitelist": CONTAINERS})
    raw = _RAW.fullmatch(text)
    if raw is None or not int(raw[1]) * int(raw[2]):
        raise UserError(
            f"{text}: got no size, expected stdin:WIDTHxHEIGHT@RATE, e.g. stdin:640x480@25"
        )
    options = {
        "video_size": f"{raw[1]}x{raw[2]}",
        "pixel_format": "rgb24",
        "framerate": raw[3] or "25",
    }
    return Medium("stdin", "stdin", "", cure, format="rawvideo", options=options)


class _Pipe:
    """A descriptor to read from that complains when nothing comes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, size: int) -> bytes:
        if not select.select([self._descriptor], [], [], STALL_S)[0]:
            raise TimeoutError
        return os.read(self._descriptor, size)


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
