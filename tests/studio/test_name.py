"""Name: clicks in a browser -> the table of `lmk name`, whole, at once, nobody's work lost."""

import csv
import shutil
import time
import urllib.error

import numpy as np
import pytest

from lmk.runtime.model import workspace
from lmk.studio.annotations import Annotations, Row
from lmk.studio.exchange import coco, dlc
from lmk.studio.jobs import Jobs
from lmk.studio.name import LEARN, NameRoom
from lmk.studio.project import Project
from lmk.train.judge import name_pack

WHERE = """
const stage = document.querySelector('.stage canvas').getBoundingClientRect();
const side = arguments[2], scale = Math.min(stage.width, stage.height) / side;
return [stage.left + (stage.width - side * scale) / 2 + (arguments[0] + .5) * scale,
        stage.top + (stage.height - side * scale) / 2 + (arguments[1] + .5) * scale, scale];
"""
SAVED = "return document.getElementById('state').dataset.kind === 'good'"


def click(page, point, side):
    *place, scale = page.js(WHERE, float(point[0]), float(point[1]), side)
    page.drag(place)
    return scale


def comes(true):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def add_names(page, names):
    page.click("#add")
    page.press(", ".join(names), "\ue007")
    page.until("return document.querySelectorAll('.points li').length === arguments[0]", len(names))


def test_ten_pictures_clicked_give_the_pack_of_the_table(page, studio, folder, drawn, tmp_path):
    people, points = folder
    page.enter(studio(people, "faces"), "/name")
    add_names(page, drawn.NAMES)
    seen = []
    for count in range(1, 11):
        number = int(page.js("return document.documentElement.dataset.number"))
        seen.append(number)
        for point in points[number]:
            scale = click(page, point, drawn.SIDE)
        page.until(
            "return document.getElementById('count').textContent.startsWith(arguments[0])",
            f"{count} picture",
        )
        if count < 10:
            page.press("\ue007")  # Enter: the picture that is proposed next
            page.until(
                "return !['', arguments[0]].includes(document.documentElement.dataset.number)",
                str(number),
            )
    page.until(SAVED)
    assert len(set(seen)) == 10

    table = tmp_path / "runs" / "faces-points" / "annotations.csv"
    for row, number in zip(rows(table), seen, strict=True):
        clicked = [[float(row[f"{name}_{axis}"]) for axis in "xy"] for name in drawn.NAMES]
        assert (
            np.abs(np.array(clicked) - points[number]).max() <= 1 / scale
        )  # a pixel of the screen

    page.until("return document.documentElement.dataset.judged === '10'")
    shown = "return [...document.querySelectorAll('.points li')].map(e => e.textContent)"
    assert all("%" in line for line in page.js(shown))
    page.click("#run")
    page.until("return !!document.querySelector('[data-job=done]')", seconds=540)
    made = tmp_path / "runs" / "faces-named.safetensors"
    assert made.with_suffix(".onnx").exists()
    again = tmp_path / "again.safetensors"
    name_pack(workspace.ZOO / "faces.safetensors", workspace.ZOO / "core.safetensors", table, again)
    assert made.read_bytes() == again.read_bytes()


def test_points_that_no_landmark_is_near_can_be_learnt(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    room = NameRoom(Project([str(folder[0])]), Jobs())
    (plain,), (learning,) = (room.commands("faces", None, learn) for learn in (False, True))
    assert learning == [*plain, "--learn", LEARN] and "--learn" not in plain


def test_the_picture_stands_still_under_the_clicks(page, studio, folder, drawn):
    people, points = folder
    page.enter(studio(people, "faces"), "/name?source=people&number=0")
    where = "return JSON.stringify(document.querySelector('.stage').getBoundingClientRect())"
    before = page.js(where)
    add_names(page, drawn.NAMES)
    click(page, points[0][0], drawn.SIDE)
    page.until("return document.querySelectorAll('.strip img').length === 1")
    assert page.js(where) == before


def test_points_are_moved_hidden_taken_back_and_joined(page, studio, folder, drawn, tmp_path):
    people, points = folder
    running = studio(people, "faces")
    page.enter(running, "/name?source=people&number=3")
    add_names(page, ("left eye", "right eye"))
    table = tmp_path / "runs" / "faces-points" / "annotations.csv"

    def saved(**cells):
        def same():
            row = rows(table)[0] if table.exists() and rows(table) else {}
            return all(value == (row.get(name, "") != "") for name, value in cells.items())

        comes(same)

    click(page, points[3][0], drawn.SIDE)
    page.press("x")  # the other is not to be seen
    saved(**{"left eye_x": True, "right eye_x": False, "right eye_v": True})
    page.press("u")
    click(page, points[3][1], drawn.SIDE)
    saved(**{"left eye_x": True, "right eye_x": True, "right eye_v": False})
    page.until(SAVED)

    *start, _ = page.js(WHERE, *map(float, points[3][0]), drawn.SIDE)
    page.drag(start, (start[0] + 40, start[1] + 20))
    page.until(SAVED)
    page.until("return document.getElementById('state').textContent === 'Saved'")
    moved = float(rows(table)[0]["left eye_x"])
    assert moved > points[3][0][0] + 5

    page.press("k")  # skeleton
    left, right = (
        page.js(
            WHERE,
            float(rows(table)[0][f"{name}_x"]),
            float(rows(table)[0][f"{name}_y"]),
            drawn.SIDE,
        )[:2]
        for name in ("left eye", "right eye")
    )
    page.drag(left, right)
    lines = table.with_name("skeleton.csv")
    comes(lines.exists)
    assert lines.read_text() == "left eye,right eye\n"

    page.driver.refresh()  # all of it is still there
    page.until("return document.documentElement.dataset.ready === 'yes'")
    assert page.js("return document.querySelectorAll('.points .set').length") == 2
    assert page.js(
        "return [...document.querySelectorAll('.points .set')].every(e => e.textContent === '●')"
    )


def test_two_windows_do_not_lose_each_others_work(page, studio, folder, drawn, tmp_path):
    people, points = folder
    running = studio(people, "faces")
    page.enter(running, "/name?source=people&number=2")
    add_names(page, ("nose",))
    page.until("return document.getElementById('state').textContent === 'Saved'")
    other = running.ask(
        "/api/name/faces/people/2",
        "PUT",
        {"track": 0, "points": {"nose": [10, 11]}, "before": None},
    )
    assert other == {"points": {"nose": [10, 11]}}
    click(page, points[2][2], drawn.SIDE)
    dialog = page.until("return document.querySelector('dialog')?.innerText")
    assert "10.0, 11.0" in dialog and "Somebody else" in dialog
    page.driver.find_elements("css selector", "dialog button")[0].click()  # theirs
    page.until("return !document.querySelector('dialog')")
    table = tmp_path / "runs" / "faces-points" / "annotations.csv"
    assert rows(table)[0]["nose_x"] == "10"
    click(page, points[2][2], drawn.SIDE)  # all points are set: a click changes nothing
    page.press("u")
    page.until("return document.getElementById('state').textContent === 'Saved'")
    page.js("document.documentElement.dataset.seen = 'yes'")
    page.errors()  # a refused request is one


def test_what_was_answered_is_on_the_disk_after_a_kill(studio, folder, tmp_path):
    running = studio(folder[0], "faces")
    running.ask(
        "/api/name/faces/names", "PUT", {"names": [{"name": "nose", "was": None}], "before": []}
    )
    for number in range(5):
        body = {"track": 0, "points": {"nose": [number + 0.25, 7]}, "before": None}
        running.ask(f"/api/name/faces/people/{number}", "PUT", body)
    running.kill()
    found = rows(tmp_path / "runs" / "faces-points" / "annotations.csv")
    assert [row["nose_x"] for row in found] == ["0.25", "1.25", "2.25", "3.25", "4.25"]
    again = studio(folder[0], "faces").ask("/api/name/faces/people/3")
    assert again["objects"][0]["points"] == {"nose": [3.25, 7]}


def test_a_point_that_is_in_few_pictures_is_judged_too(studio, folder):
    running = studio(folder[0], "faces")
    names = [{"name": name, "was": None} for name in ("nose", "tail")]
    running.ask("/api/name/faces/names", "PUT", {"names": names, "before": []})
    for number, ((x, y), *_) in enumerate(folder[1][:10]):
        points = {"nose": [x, y]} | ({"tail": [x, y + 9]} if number % 2 == 0 else {})
        body = {"track": 0, "points": points, "before": None}
        running.ask(f"/api/name/faces/people/{number}", "PUT", body)
    told = running.ask("/api/name/faces/errors")  # of half the pictures it could not be
    assert told["ready"] and "gain" not in told
    assert [point["images"] for point in told["points"].values()] == [10, 5]


def test_a_table_of_the_folders_own_is_edited_in_place(studio, folder, tmp_path):
    people = folder[0]
    head = "file,split,nose_x,nose_y\n"
    (people / "annotations.csv").write_text(head + "03.png,test,12.3456,7\n")
    running = studio(people, "faces")
    assert running.ask("/api/name/faces/people/3")["objects"][0]["points"] == {"nose": [12.3456, 7]}
    body = {"track": 0, "points": {"nose": [5, 6]}, "before": None}
    running.ask("/api/name/faces/people/4", "PUT", body)
    assert (people / "annotations.csv").read_text() == (
        head + "03.png,test,12.3456,7\n04.png,,5,6\n"
    )
    assert not (tmp_path / "runs" / "faces-points").exists()


@pytest.mark.parametrize("layout", ["coco.json", "CollectedData_lmk.csv"])
def test_labels_of_other_programs_come_in_and_go_out(page, studio, folder, tmp_path, layout):
    """Out of a studio, as another program has them, and into a new one: the same points."""
    people, points = folder
    before = [
        Row("people/03.png.png", None, {"left eye": (60.5, 70.25), "mouth": None}),
        Row("people/05.png.png", (9.0, 8, 90, 80), {"left eye": (30.0, 40), "mouth": (50, 61.5)}),
        Row("people/05.png.png", (100.0, 8, 90, 80), {"mouth": (150.0, 60)}),
    ]
    table = Annotations(tmp_path / "runs" / "faces-points" / "annotations.csv")
    table.begin(["left eye", "mouth"], before)
    table.join([("left eye", "mouth")], [])
    for name in ("03", "05"):
        copied = table.table.parent / "people" / f"{name}.png.png"
        copied.parent.mkdir(exist_ok=True)
        copied.write_bytes((people / f"{name}.png").read_bytes())
    data = {"coco.json": coco, "CollectedData_lmk.csv": dlc}[layout](table)

    other = tmp_path / "theirs"
    shutil.copytree(table.table.parent / "people", other / "people")
    (other / layout).write_bytes(data)
    shutil.rmtree(tmp_path / "runs")
    running = studio(other, "faces")
    page.enter(running, "/name")
    assert "left eye, mouth" in page.text(".note")
    page.click("#bring")
    page.until("return document.getElementById('state').textContent.startsWith('3 objects')")
    page.until("return document.querySelectorAll('.strip img').length === 3")
    now = table.read()
    assert now.names == ["left eye", "mouth"]
    seen = [{n: p for n, p in row.points.items() if p} for row in now.rows]
    assert seen == [{n: p for n, p in row.points.items() if p} for row in before]
    found = running.ask("/api/name/faces/theirs/1")["objects"]
    assert [each["points"] for each in found] == [
        {name: list(point) for name, point in each.items()} for each in seen[1:]
    ]
    with pytest.raises(urllib.error.HTTPError) as refused:
        running.ask("/api/name/faces/labels/theirs", "POST", {})
    assert refused.value.code == 400
    links = page.js("return [...document.querySelectorAll('a[download]')].map(a => a.href)")
    assert len(links) == 3 and any(link.endswith(layout) for link in links)


@pytest.mark.parametrize("name", ["=cmd()", "", "a" * 65, "a,b", "<b>", "box"])
def test_names_that_no_table_takes_are_refused(studio, folder, name):
    running = studio(folder[0], "faces")
    with pytest.raises(urllib.error.HTTPError) as refused:
        body = {"names": [{"name": name, "was": None}], "before": []}
        running.ask("/api/name/faces/names", "PUT", body)
    assert refused.value.code == 400
