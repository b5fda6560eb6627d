"""Streams, cameras and pipes: opened, told apart, and never waited for without end."""

import http.server
import os
import socket
import sys
import threading
from contextlib import ExitStack

import numpy as np
import pytest

from lmk.runtime.errors import UserError
from lmk.runtime.sources import medium
from lmk.runtime.sources.medium import Medium, candidates, find_medium
from lmk.runtime.sources.open import open_source
from lmk.runtime.sources.video import VideoSource


@pytest.fixture(scope="module")
def clips(tmp_path_factory, write_video):
    """A folder with v.mp4, v.mkv and v.ts of 30 frames of 48x64."""
    folder = tmp_path_factory.mktemp("clips")
    pictures = list(np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), np.uint8))
    for name in ("v.mp4", "v.mkv", "v.ts"):
        write_video(folder / name, pictures, options={"movflags": "faststart"})
    return folder


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(medium, "STALL_S", 0.5)


@pytest.fixture
def server(clips):
    """Address of an HTTP server of the clips."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=clips)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def silent():
    """Return a function that starts a server which sends some bytes, then nothing; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        held = []

        def start(data=b""):
            def answer():
                connection, _ = listening.accept()
                held.append(connection)
                connection.recv(4096)
                connection.sendall(data)

            threading.Thread(target=answer, daemon=True).start()
            return listening.getsockname()[1]

        yield start
        for connection in held:
            connection.close()


@pytest.fixture
def piped(monkeypatch):
    """Return a function that puts bytes into standard input; without `ends` it stays open."""

    def pipe(data, ends=True):
        reading, writing = os.pipe()

        def write():
            with open(writing, "wb", closefd=ends) as file:
                file.write(data)

        threading.Thread(target=write, daemon=True).start()
        monkeypatch.setattr(sys, "stdin", opened.enter_context(os.fdopen(reading)))
        if not ends:
            opened.enter_context(os.fdopen(writing, "wb"))

    with ExitStack() as opened:
        yield pipe


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts"])
def test_video_over_http(server, name):
    with open_source(f"{server}/{name}?token=secret") as source:
        assert not source.is_live and source.name == f"http-127.0.0.1-{server[17:]}-{name}"
        assert source.num_frames in (30, None)
        frames = list(source)
        assert len(frames) == 30 and frames[0].source == source.name
    with open_source(f"{server}/{name}") as source:
        source.resume_after(20)
        rest = list(source)
    assert [frame.index for frame in rest] == list(range(21, 30))
    np.testing.assert_array_equal(rest[0].image, frames[21].image)


def test_missing_on_the_server(server):
    with pytest.raises(UserError, match=r"gone.mp4: cannot be opened as a video \(.*404"):
        open_source(f"{server}/gone.mp4")


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_nobody_listens(scheme):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}/live"
        with pytest.raises(UserError, match=f"{scheme}://{address}: cannot be.*refused") as caught:
            open_source(f"{scheme}://me:secret@{address}?key=secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_silent_server_ends_in_an_error(silent, impatient, scheme):
    with pytest.raises(UserError, match="cannot be opened as a video.*check the address"):
        open_source(f"{scheme}://127.0.0.1:{silent()}/live")


def test_stream_that_stalls_gives_what_came(clips, silent, impatient):
    port = silent(b"HTTP/1.1 200 OK\r\n\r\n" + (clips / "v.ts").read_bytes())
    with open_source(f"http://127.0.0.1:{port}/live.ts") as source:
        assert source.is_live and source.num_frames is None
        with pytest.raises(UserError, match="a stream that is over once it was read"):
            source.resume_after(3)
        assert len(list(source)) >= 28
        assert "nothing came for 0.5 s" in source.skipped[0]


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("rtsp://cam.local:554/live/1?x=2", "rtsp-cam.local-554-live-1"),
        ("https://me:pw@example.org/a%20b.mp4", "https-example.org-a-20b.mp4"),
    ],
)
def test_names_of_addresses(spec, name):
    found = find_medium(spec)
    assert found.name == name and found.location == spec and found.can_reopen


def test_address_without_a_host():
    with pytest.raises(UserError, match="rtsp:///live: got no host"):
        find_medium("rtsp:///live")


@pytest.mark.parametrize("name", ["v.mkv", "v.ts", "v.mp4"])
def test_container_on_standard_input(clips, piped, name):
    piped((clips / name).read_bytes())
    with open_source("-") as source:
        assert source.name == "stdin" and not source.is_live
        with pytest.raises(UserError, match="stdin: got a stream that is over"):
            source.resume_after(0)
        assert [frame.index for frame in source] == list(range(30))


def test_raw_pictures_on_standard_input(piped):
    pictures = np.random.default_rng(0).integers(0, 256, (5, 12, 10, 3), np.uint8)
    piped(pictures.tobytes())
    with open_source("stdin:10x12@50") as source:
        assert source.size == (12, 10) and source.frame_rate == 50
        frames = list(source)
    np.testing.assert_array_equal([frame.image for frame in frames], pictures)
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.02, 0.04, 0.06, 0.08])


@pytest.mark.parametrize("data", [b"", b"no video" * 999])
def test_standard_input_that_is_no_video(piped, data):
    piped(data)
    with pytest.raises(UserError, match="stdin: cannot be opened.*Matroska"):
        open_source("-")


def test_standard_input_that_stays_silent(piped, impatient):
    piped(b"", ends=False)
    with pytest.raises(UserError, match=r"stdin: cannot be opened.*nothing came for 0.5 s"):
        open_source("-")


@pytest.mark.parametrize("size", ["", "640", "0x480", "640x480@", "axb"])
def test_raw_pictures_without_a_size(piped, size):
    piped(b"")
    with pytest.raises(UserError, match="got no size, expected stdin:WIDTHxHEIGHT@RATE"):
        open_source(f"stdin:{size}")


def test_terminal_is_not_read(monkeypatch):
    leader, terminal = os.openpty()
    with open(leader), open(terminal) as typed:
        monkeypatch.setattr(sys, "stdin", typed)
        with pytest.raises(UserError, match="stdin: got a terminal"):
            open_source("-")


@pytest.mark.parametrize("spec", ["3", "camera:3", "/dev/video3"])
def test_cameras(monkeypatch, spec):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(medium.av, "formats_available", {"video4linux2,v4l2"})
    found = find_medium(spec)
    assert (found.name, found.location, found.format) == ("camera-3", "/dev/video3", "v4l2")
    assert found.is_camera
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UserError, match="camera 3: got a PyAV without avfoundation; pipe"):
        find_medium(spec)


def test_camera_that_is_not_there(monkeypatch):
    found = Medium("camera 9", "camera-9", "/dev/video-none", "plug it in", is_camera=True)
    with pytest.raises(UserError, match="camera 9: cannot be opened as a video .*; plug it in"):
        VideoSource(found)


def test_camera_gives_frames_until_it_is_closed():
    """FFmpeg's test picture stands in for the camera."""
    found = Medium("camera 0", "camera-0", "testsrc=s=64x48", "", is_camera=True, format="lavfi")
    with VideoSource(found) as source:
        assert source.is_live and source.num_frames is None and source.size == (48, 64)
        frames = [frame for frame, _ in zip(source, range(5), strict=False)]
    assert [frame.index for frame in frames] == list(range(5))
    assert {frame.source for frame in frames} == {"camera-0"}


def test_named_pipe_is_not_opened_by_its_path(tmp_path):
    path = tmp_path / "v.mkv"
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"no regular file; pipe it in: lmk detect - < .*v.mkv"):
        open_source(path)


@pytest.fixture
def lossless(tmp_path, write_video):
    return write_video(tmp_path / "v.mkv", [np.zeros((32, 32, 3), np.uint8)] * 4, codec="ffv1")


def test_processor_unless_asked():
    assert candidates(None, True) == [None]


def test_auto_tries_every_kind_then_the_processor(monkeypatch):
    monkeypatch.setattr(medium, "device_kinds", lambda: ["cuda", "vaapi"])
    assert candidates("auto", True) == ["cuda", "vaapi", None]
    assert candidates("auto", False) == [None]  # a pipe can be opened once
    assert candidates("vaapi", False) == ["vaapi"]


def test_unknown_kind_names_the_known(monkeypatch, lossless):
    monkeypatch.setattr(medium, "device_kinds", lambda: ["cuda", "vaapi"])
    with pytest.raises(UserError, match=r"hwaccel: got 'gpu', expected auto .*\(cuda vaapi\)"):
        open_source(lossless, hwaccel="gpu")


def test_device_that_cannot_decode_it_is_refused(lossless):
    """No device decodes FFV1 in any FFmpeg."""
    for kind in medium.device_kinds():
        with pytest.raises(UserError, match=f"v.mkv: cannot be decoded on {kind} .*processor"):
            open_source(lossless, hwaccel=kind)


def test_auto_says_what_it_took(lossless):
    with open_source(lossless, hwaccel="auto") as source:
        assert source.decoder.startswith("ffv1 (software, ")
        assert len(list(source)) == 4


def test_damaged_file_is_not_blamed_on_the_device(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"x" * 999)
    for kind in medium.device_kinds():
        with pytest.raises(UserError, match="v.mp4: cannot be opened as a video"):
            open_source(tmp_path / "v.mp4", hwaccel=kind)


@pytest.mark.gpu
def test_frames_from_the_gpu_are_those_of_the_processor(tmp_path, write_video):
    """NVDEC is exact: H.264 leaves nothing open."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 160, 256, 3), np.uint8)
    path = write_video(tmp_path / "v.mp4", list(noise))
    try:
        on_gpu = open_source(path, hwaccel="cuda")
    except UserError as error:
        pytest.skip(str(error))
    with on_gpu, open_source(path) as on_processor:
        assert on_gpu.decoder == "h264 (cuda)"
        for frame, other in zip(on_gpu, on_processor, strict=True):
            assert (frame.index, frame.time_s) == (other.index, other.time_s)
            assert np.abs(frame.image.astype(int) - other.image).max() <= 2  # NV12, not YUV 4:2:0


def test_lists_of_other_files_are_no_films(tmp_path, clips):
    """Under whatever name, from a file or a pipe."""
    lists = {
        "concat.mp4": f"ffconcat version 1.0\nfile {clips / 'v.mkv'}\n",
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clips / 'v.ts'}\n",
        "sdp.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 9 RTP/AVP 96\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=f"{name}: cannot be opened as a video"):
            open_source(tmp_path / name)


def test_a_list_in_a_pipe_reads_nothing(piped, clips):
    piped(f"ffconcat version 1.0\nfile {clips / 'v.mkv'}\n".encode())
    with pytest.raises(UserError, match="stdin: cannot be opened"):
        open_source("-")
