"""What all pages share: their looks at both widths, names that are text, lines that are cut."""

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


def test_a_line_that_was_cut_comes_back_by_itself(page, studio, folder):
    def network(offline):
        speeds = {"latency": 1, "downloadThroughput": 1e9, "uploadThroughput": 1e9}
        command = "Network.emulateNetworkConditions"
        page.driver.execute_cdp_cmd(command, {"offline": offline, **speeds})

    running = studio(folder[0], "faces")
    page.driver.execute_cdp_cmd("Network.enable", {})
    network(offline=False)
    page.enter(running, "/find")
    page.until("return document.documentElement.dataset.connected === 'yes'")
    network(offline=True)  # as of a laptop that was closed
    page.until("return document.documentElement.dataset.connected === 'no'")
    network(offline=False)
    page.until("return document.documentElement.dataset.connected === 'yes'")
    page.errors()  # of the time without a line
