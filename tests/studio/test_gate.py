"""What may be asked of the studio, by whom: the attacks that it must stand."""

import json
from concurrent.futures import Future

import pytest
from starlette.testclient import TestClient

from lmk.studio import gate as gates
from lmk.studio.gate import Gate
from lmk.studio.project import Project
from lmk.studio.rooms import Studio
from lmk.studio.server import pages

PORT = 8765
HERE = f"http://127.0.0.1:{PORT}"
OWNER, ANNOTATOR = "o" * 32, "a" * 32


@pytest.fixture
def place(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "secret.png").write_bytes((folder[0] / "00.png").read_bytes())
    return folder[0]


@pytest.fixture
def client(place):
    """Return a function that makes a client with a token, or without."""
    rooms = Future()
    rooms.set_result(Studio(Project([str(place)])).app())
    app = pages(lambda: rooms)

    def make(token=OWNER, open=False):
        tokens = {OWNER: "", ANNOTATOR: "ann"}
        client = TestClient(Gate(app, tokens, PORT, open), base_url=HERE)
        client.headers["origin"] = HERE
        client.headers["content-type"] = "application/json"
        if token:
            client.cookies.set(f"lmk-{PORT}", token)
        return client

    return make


NAMES = {"names": [{"name": "nose", "was": None}], "before": []}


def test_the_token_in_the_address_becomes_a_cookie_and_goes_from_the_address(client):
    visitor = client(None)
    assert visitor.get("/").status_code == 403
    assert visitor.get("/?token=wrong").status_code == 403
    welcome = visitor.get(f"/name?token={OWNER}&source=people")
    assert OWNER not in welcome.text and 'url=/name?source=people"' in welcome.text
    cookie = welcome.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert visitor.get("/name").status_code == 200
    assert "url=/evil.org" in client(None).get(f"{HERE}//evil.org?token={OWNER}").text


@pytest.mark.parametrize("path", ["/", "/api/project", "/static/studio.js", "/picture/people/0"])
def test_without_a_token_nothing_is_told(client, path):
    answer = client(None).get(path)
    assert answer.status_code == 403 and "token" in answer.text


@pytest.mark.parametrize("host", ["evil.org", "evil.org:8765", "127.0.0.1:9", "", "localhost.evil"])
def test_another_host_is_refused(client, host):
    assert client().get("/", headers={"host": host}).status_code == 403
    assert (
        client()
        .get(
            "/",
            headers={"host": f"localhost:{PORT}"},
        )
        .status_code
        == 403
    )  # its Origin
    here = {"host": f"localhost:{PORT}", "origin": f"http://localhost:{PORT}"}
    assert client().get("/", headers=here).status_code == 200


def test_other_machines_come_by_address_when_they_are_let_in(client):
    here = {"host": f"192.0.2.7:{PORT}", "origin": f"http://192.0.2.7:{PORT}"}
    assert client(open=True).get("/", headers=here).status_code == 200
    assert client(open=False).get("/", headers=here).status_code == 403
    there = {"host": f"evil.org:{PORT}", "origin": f"http://evil.org:{PORT}"}
    assert client(open=True).get("/", headers=there).status_code == 403


def test_another_origin_can_neither_send_nor_read(client):
    evil = {"origin": "http://evil.org"}
    assert client().put("/api/name/faces/names", json=NAMES, headers=evil).status_code == 403
    assert client().get("/api/project", headers=evil).status_code == 403
    site = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert client().get("/picture/people/0", headers=site).status_code == 403
    none = client()
    del none.headers["origin"]
    assert none.put("/api/name/faces/names", json=NAMES).status_code == 403
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert none.get("/name", headers=link).status_code == 200
    form = {"content-type": "text/plain"}
    sent = client().put("/api/name/faces/names", content=json.dumps(NAMES), headers=form)
    assert sent.status_code == 415


@pytest.mark.parametrize("up", ["..", "%2e%2e", "..%2f..", "%2e%2e%2f%2e%2e", "....//", "..\\.."])
@pytest.mark.parametrize(
    "path",
    [
        "/static/{}/server.py",
        "/static/{}/{}/{}/secret.png",
        "/picture/{}/0",
        "/picture/{}%2fsecret.png/0",
        "/thumbnail/{}/0",
        "/api/name/{}/people/0",
        "/api/name/faces/{}/0",
        "/api/name/{}/labels/people",
        "/api/name/{}/coco.json",
        "/api/watch/{}/data",
        "/api/learn/{}/preview",
        "/api/find/{}/0",
        "/{}/secret.png",
    ],
)
def test_no_path_leaves_what_was_opened(client, path, up):
    answer = client().get(path.replace("{}", up))
    assert answer.status_code in (400, 404), answer.text
    assert "PNG" not in answer.text and "import" not in answer.text


@pytest.mark.parametrize("pack", ["..", "%2e%2e%2fx", "nobody"])
def test_no_table_is_made_for_a_pack_that_is_none(client, tmp_path, pack):
    assert client().put(f"/api/name/{pack}/names", json=NAMES).status_code in (400, 404)
    assert not list(tmp_path.rglob("annotations.csv"))


def test_a_body_of_a_hundred_megabytes_is_not_read(client):
    told = {"content-length": str(100 << 20)}
    assert client().put("/api/name/faces/names", headers=told, content=b"{}").status_code == 413
    read = 0

    def endless():
        nonlocal read
        for _ in range(100):
            read += 1 << 20
            yield b" " * (1 << 20)

    assert client().put("/api/name/faces/names", content=endless()).status_code == 413
    assert gates.BODY_BYTES <= 1 << 20


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"7", b'{"names": 3}', b'{"names": [{}], "before": []}', b"[" * 100_000],
)
def test_nonsense_is_refused_in_a_line(client, body, tmp_path):
    answer = client().put("/api/name/faces/names", content=body)
    assert answer.status_code == 400 and "error" in answer.json()
    assert not (tmp_path / "runs" / "faces-points" / "annotations.csv").exists()


def test_annotators_name_points_and_start_nothing(client):
    ann = client(ANNOTATOR)
    assert ann.put("/api/name/faces/names", json=NAMES).status_code == 200
    for path in (
        "/api/name/faces/run",
        "/api/find/people/run",
        "/api/find/people/learn",
        "/api/learn/x/stop",
        "/api/jobs/1/stop",
    ):
        answer = ann.post(path, json={"source": "people", "landmarks": 5, "minutes": 1})
        assert answer.status_code == 403, path


def test_every_answer_forbids_what_pages_do_not_need(client):
    for path in (
        "/",
        "/name",
        "/nowhere",
        "/api/project",
        "/static/studio.css",
        "/picture/people/0",
    ):
        policy = client().get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
    page = client().get("/name").text
    assert "<style" not in page and " style=" not in page and " onclick=" not in page
    assert page.count("<script") == page.count('<script type="module" src=')


def test_names_of_files_are_text(client, place, tmp_path):
    name = "<img src=x onerror=alert(1)>.png"
    (place / name).write_bytes((place / "00.png").read_bytes())
    (tmp_path / "runs" / "<b>x").mkdir(parents=True)
    told = client().get("/api/name/faces/people/14")
    assert told.headers["content-type"] == "application/json" and told.json()["name"] == name
    assert client().get("/<script>alert(1)</script>").text.count("<script>") == 0
