"""What is told never holds the password of an address."""

import pytest

from lmk.runtime.errors import UserError, without_passwords


@pytest.mark.parametrize("scheme", ["rtsp", "RTSP", "http", "rtmp", "srt+x"])
@pytest.mark.parametrize(
    "password", ["secret", "se/cret", "#secret", "secret?", "se@cret", "12/secret", ":se:cret"]
)
@pytest.mark.parametrize("path", ["/live/1", "", "/p@th"])
def test_passwords_are_hidden_wherever_they_stand(scheme, password, path):
    address = f"{scheme}://me:{password}@camera.local{path}"
    for text in (address, f"cannot open '{address}': 401", f"{address}: 401 (see {address})"):
        told = without_passwords(text)
        assert "secret" not in told and "cret" not in told and "me:" not in told
        assert scheme + "://" in told and str(UserError(text)) == told
    if "@" not in path:
        assert without_passwords(address) == f"{scheme}://camera.local{path}"


def test_spaces_in_a_password():
    address = "rtsp://me:my secret@camera/1"
    assert without_passwords(address, whole=True) == "rtsp://camera/1"
    assert without_passwords(f"Error: '{address}'") == "Error: 'rtsp://camera/1'"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("http://host/a@b.mp4", "http://host/a@b.mp4"),
        ("http://host:80/a.mp4?token=secret#part", "http://host:80/a.mp4"),
        ("rtmp:/me:secret@host/1", "rtmp:/host/1"),  # a Path of it
        ("a/b@c:/d.png: got no file", "a/b@c:/d.png: got no file"),
        ("C:/films/a.mp4", "C:/films/a.mp4"),
    ],
)
def test_the_rest_is_told(text, told):
    assert without_passwords(text) == told
