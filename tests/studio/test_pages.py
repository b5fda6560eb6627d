"""What all pages share: their looks at both widths, names that are text, lines that are cut."""

import contextlib
import socket
import threading

import pytest

ROOMS = ("/", "/find", "/learn", "/name", "/watch", "/ship")
OUTSIDE = """
const wide = document.documentElement.clientWidth;
return [...document.querySelectorAll('main *')].filter(e => !e.closest('svg, .wide, .strip, canvas')
  && e.getBoundingClientRect().width && e.getBoundingClientRect().right > wide + 1)
  .map(e => e.outerHTML.slice(0, 90));
"""


@pytest.mark.parametrize("width", [1280, 400])
def test_every_room_fits_and_names_of_files_are_text(page, studio, folder, width):
    evil = "<img src=x onerror=document.title='gone'>"
    (folder[0] / f"{evil}.png").write_bytes((folder[0] / "00.png").read_bytes())
    running = studio(folder[0], "faces")
    page.enter(running, "/find?frame=14")
    for room in ROOMS:
        page.open(running.root + room, width)
        ready = "return !!document.querySelector('main#room > *')"
        page.until(ready)
        page.until("return getComputedStyle(document.querySelector('.bar')).display === 'flex'")
        assert page.js("return document.documentElement.scrollWidth") <= width, room
        assert not page.js(OUTSIDE), room
        assert not page.js("return document.querySelector(\"img[src='x']\")")
        assert "gone" not in page.driver.title
    page.open(f"{running.root}/name?source=people&number=14", width)
    page.until("return document.documentElement.dataset.ready === 'yes'")
    assert evil in page.js("return document.querySelector('.what').textContent")
    assert not page.js("return document.querySelector(\"img[src='x']\")")


class Line:
    """A way to the studio, by the other name of this machine, that can be cut."""

    def __init__(self, port):
        self.port, self.cut, self.open = port, False, []
        self.listening = socket.create_server(("::1", port), family=socket.AF_INET6)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listening.accept()
                if self.cut:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self.port))
                self.open += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one, other):
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        for end in (one, other):
            end.close()

    def set(self, cut):
        self.cut = cut
        for end in self.open if cut else ():
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_a_line_that_was_cut_comes_back_by_itself(page, studio, folder):
    running = studio(folder[0], "faces")
    line = Line(int(running.root.rsplit(":", 1)[1]))
    for part in ("address", "root"):
        setattr(running, part, getattr(running, part).replace("127.0.0.1", "[::1]"))
    page.enter(running, "/find")
    page.until("return document.documentElement.dataset.connected === 'yes'")
    line.set(cut=True)  # as of a laptop that was closed
    page.until("return document.documentElement.dataset.connected === 'no'")
    line.set(cut=False)
    page.until("return document.documentElement.dataset.connected === 'yes'")
    page.open("about:blank")
    line.listening.close()
    page.errors()  # of the time without a line
