"""The same two mice as DeepLabCut, SLEAP, COCO, YOLO, Label Studio and CVAT write them down."""

import csv
import json
import os
from xml.sax.saxutils import quoteattr

import av
import numpy as np
import pytest
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.train.datasets.decoded import decode
from lmk.train.datasets.find import locate, open_dataset

NAMES = ("snout", "l_ear", "tail base")
WIDTH, HEIGHT = 80, 60
POINTS = {  # ours: (0, 0) is the centre of the top-left pixel
    "img0003.png": [[10.5, 20.0], [12.0, 22.5], [30.0, 40.0]],
    "img0007.png": [[50.0, 20.0], [np.nan, np.nan], [33.0, 44.0]],
}


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "project" / "labeled-data" / "mouse"
    place.mkdir(parents=True)
    for name in POINTS:
        number = int(name[3:7])
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 10 * number, np.uint8)).save(place / name)
    return place


def _dlc(folder, depth=1, individuals=False):
    head = [["scorer"], ["individuals"], ["bodyparts"], ["coords"]]
    pairs = [(name, axis) for name in NAMES for axis in "xy"]
    for line, cells in zip(
        head, (["me"] * 6, ["one"] * 6, [n for n, _ in pairs], [a for _, a in pairs]), strict=True
    ):
        line += [""] * (depth - 1) + cells
    if not individuals:
        del head[1]
    with open(folder / "CollectedData_me.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows(head)
        for name, points in POINTS.items():
            parts = ["labeled-data", "mouse", name]
            cells = ["" if np.isnan(v) else v for v in np.ravel(points)]
            writer.writerow([*(parts if depth == 3 else ["/".join(parts)]), *cells])
    return folder


def _dlc_h5(folder):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("tables")
    columns = pandas.MultiIndex.from_tuples(
        [("me", name, axis) for name in NAMES for axis in "xy"],
        names=["scorer", "bodyparts", "coords"],
    )
    index = pandas.MultiIndex.from_tuples([("labeled-data", "mouse", name) for name in POINTS])
    frame = pandas.DataFrame(np.reshape(list(POINTS.values()), (2, 6)), index, columns)
    frame.to_hdf(folder / "CollectedData_me.h5", key="df_with_missing")
    return folder


def _slp(folder):
    sleap_io = pytest.importorskip("sleap_io")
    skeleton = sleap_io.Skeleton(list(NAMES))
    files = [f"C:/lab/mouse/{name}" for name in POINTS]
    metadata = {"type": "ImageVideo", "shape": [2, HEIGHT, WIDTH, 3], "filename": files[0]}
    metadata |= {"filenames": files, "grayscale": False, "bgr": True, "dataset": ""}
    video = sleap_io.Video(files, None, metadata, open_backend=False)
    frames = [
        sleap_io.LabeledFrame(
            video=video,
            frame_idx=n,
            instances=[sleap_io.Instance.from_numpy(np.array(points), skeleton=skeleton)],
        )
        for n, points in enumerate(POINTS.values())
    ]
    labels = sleap_io.Labels(frames, videos=[video], skeletons=[skeleton])
    sleap_io.save_slp(labels, str(folder / "a.slp"), embed=False, verbose=False)
    return folder / "a.slp"


def _coco(folder):
    """Two categories, which share a landmark."""
    rows = []
    for number, points in enumerate(POINTS.values()):
        values = [[0, 0, 0] if np.isnan(x) else [x, y, 2] for x, y in points]
        rows += [(number, 1, values[:2]), (number, 2, values[2:])]
    categories = [
        {"id": 1, "name": "head", "keypoints": NAMES[:2]},
        {"id": 2, "name": "rear", "keypoints": NAMES[2:]},
    ]
    content = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(POINTS)],
        "annotations": [
            {"id": n, "image_id": image, "category_id": kind, "keypoints": sum(values, [])}
            for n, (image, kind, values) in enumerate(rows)
        ],
        "categories": categories,
    }
    (folder / "a.json").write_text(json.dumps(content))
    return folder / "a.json"


def _yolo(folder):
    for part in ("images", "labels"):
        (folder / part / "train").mkdir(parents=True)
    for name, points in POINTS.items():
        (folder / name).rename(folder / "images" / "train" / name)
        values = [
            v for x, y in points for v in ([0, 0, 0] if np.isnan(x) else [x / WIDTH, y / HEIGHT, 2])
        ]
        line = " ".join(map(str, [0, 0.5, 0.5, 0.25, 0.5, *values]))
        (folder / "labels" / "train" / name).with_suffix(".txt").write_text(line + "\n")
    settings = (
        f"path: /home/me/mice\ntrain: images/train\nkpt_shape: [3, 3]\nkpt_names: {list(NAMES)}"
    )
    (folder / "data.yaml").write_text(settings)
    return folder


def _label_studio(folder):
    tasks = []
    for name, points in POINTS.items():
        size = {"original_width": WIDTH, "original_height": HEIGHT}
        result = [
            size
            | {"id": f"{n}", "type": "keypointlabels"}
            | {
                "value": {
                    "x": 100 * (x + 0.5) / WIDTH,
                    "y": 100 * (y + 0.5) / HEIGHT,
                    "keypointlabels": [label],
                }
            }
            for n, (label, (x, y)) in enumerate(zip(NAMES, points, strict=True))
            if not np.isnan(x)
        ]
        image = f"/data/local-files/?d=lab/mouse/{name}"
        tasks.append({"data": {"img": image}, "annotations": [{"result": result}]})
    (folder / "tasks.json").write_text(json.dumps(tasks))
    return folder


def _cvat(folder, skeletons=True):
    lines = ["<annotations><version>1.1</version>"]
    for name, points in POINTS.items():
        marks = [
            f'<points label={quoteattr(label)} points="{x + 0.5},{y + 0.5}" outside="0"/>'
            for label, (x, y) in zip(NAMES, points, strict=True)
            if not np.isnan(x)
        ]
        body = "".join(marks)
        body = f'<skeleton label="mouse">{body}</skeleton>' if skeletons else body
        lines.append(f'<image name="{name}" width="{WIDTH}" height="{HEIGHT}">{body}</image>')
    (folder / "annotations.xml").write_text("\n".join([*lines, "</annotations>"]))
    return folder


@pytest.mark.parametrize(
    ("layout", "write", "options"),
    [
        ("dlc", _dlc, {}),
        ("dlc", _dlc, {"depth": 3, "individuals": True}),
        ("dlc", _dlc_h5, {}),
        ("slp", _slp, {}),
        ("yolo-pose", _yolo, {}),
        ("label-studio", _label_studio, {}),
        ("cvat", _cvat, {}),
        ("cvat", _cvat, {"skeletons": False}),
    ],
)
def test_tools_agree(folder, layout, write, options):
    place = write(folder, **options)
    assert locate(str(place), None)[1].name == layout
    data = open_dataset(str(place))
    assert not data.problems and data.landmark_names == NAMES
    assert len(data.samples) == 2
    for sample, (name, points) in zip(data.samples, POINTS.items(), strict=True):
        assert sample.name.endswith(name)
        np.testing.assert_allclose(sample.points, points, atol=1e-3)
        assert (sample.read() == 10 * int(name[3:7])).all()
    if write is _yolo:
        assert data.samples[0].box == (30.0, 15.0, 20.0, 30.0) and data.samples[0].split == "train"


def test_nothing_in_a_table_is_run(folder, tmp_path):
    tables, ran = pytest.importorskip("tables"), tmp_path / "ran"
    _dlc_h5(folder)
    with tables.open_file(folder / "CollectedData_me.h5", "a") as file:
        group = file.root.df_with_missing
        file.remove_node(group.axis1_level0)
        file.create_vlarray(group, "axis1_level0", tables.ObjectAtom()).append(_Program(ran))
        group.axis1_level0._v_attrs.kind = "object"
        group._v_attrs.encoding = _Program(ran)
    with pytest.raises(UserError, match="CollectedData_me.h5: cannot be read as a table"):
        open_dataset(str(folder))
    assert not ran.exists()


class _Program:
    """Its pickle makes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_folders_of_yolo_are_below_its_settings(folder, tmp_path):
    _yolo(folder)
    (tmp_path / "else").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "else" / "img0003.png")
    other = str(tmp_path / "else"), "C:\\images\\train"
    for path, train in (("../..", "../images/train"), other):
        settings = f"path: '{path}'\ntrain: '{train}'\nkpt_shape: [3, 3]"
        (folder / "data.yaml").write_text(settings)
        data = open_dataset(str(folder))
        assert [sample.read().shape for sample in data.samples] == 2 * [(HEIGHT, WIDTH, 3)]
        assert data.landmark_names == ("p0", "p1", "p2")


def test_points_of_yolo_are_those_of_upright_pictures(folder):
    _yolo(folder)
    name, turned = "img0003.png", Image.Exif()
    turned[274] = 6
    pixels = np.zeros((WIDTH, HEIGHT, 3), np.uint8)  # stored on its side
    Image.fromarray(pixels).save(folder / "images" / "train" / name, exif=turned)
    sample = next(each for each in open_dataset(str(folder)).samples if each.name.endswith(name))
    assert sample.read().shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_allclose(sample.points, POINTS[name], atol=1e-3)


def test_pipes_are_not_waited_for(folder):
    tables = [f"CollectedData_me.{kind}" for kind in ("csv", "h5")]
    for name in [*tables, "a.slp", "a.json", "a.xml", "a.yaml"]:
        os.mkfifo(folder / name)
    assert locate(str(folder), None)[1].name == "folder"
    os.mkfifo(folder / "annotations.csv")
    assert len(open_dataset(str(folder)).samples) == 2


def test_categories_of_several_sets(folder):
    data = open_dataset(str(_coco(folder)))
    assert data.landmark_names == NAMES
    head, rear = data.samples[:2]
    np.testing.assert_allclose(head.points, [*POINTS["img0003.png"][:2], [np.nan] * 2])
    np.testing.assert_allclose(rear.points, [*[[np.nan] * 2] * 2, POINTS["img0003.png"][2]])


def _film(path):
    """Nine frames, each of ten times its number."""
    path.parent.mkdir()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "bgr0"
        for n in range(9):
            picture = np.full((HEIGHT, WIDTH, 3), 10 * n, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def test_a_frame_is_read_from_its_film(folder):
    _film(folder.parents[1] / "videos" / "mouse.mkv")
    for name in POINTS:
        (folder / name).unlink()
    data = open_dataset(str(_dlc(folder).parents[1]))  # the project
    assert [sample.name for sample in data.samples] == ["videos/mouse.mkv#3", "videos/mouse.mkv#7"]
    assert [int(sample.read().mean()) for sample in data.samples] == [30, 70]
    video = '<annotations><meta><source>mouse.mkv</source></meta><track id="0" label="snout">'
    marks = (
        '<points frame="5" outside="0" points="3,4"/><points frame="6" outside="1" points="3,4"/>'
    )
    other = folder.parents[1] / "videos" / "a.xml"
    other.write_text(video + marks + "</track></annotations>")
    [sample] = open_dataset(str(other)).samples
    assert sample.points.tolist() == [[2.5, 3.5]] and int(sample.read().mean()) == 50


def test_a_frame_that_the_film_does_not_have_is_left_out(folder, tmp_path, caplog):
    film = folder.parents[1] / "videos" / "mouse.mkv"
    _film(film)
    marks = "".join(f'<points frame="{n}" points="3,4"/>' for n in (5, 50))
    text = f'<annotations><meta><source>{film.name}</source></meta><track label="snout">{marks}'
    film.with_name("a.xml").write_text(text + "</track></annotations>")
    data = open_dataset(str(film.with_name("a.xml")))
    decoded = decode(data, 64, "image", tmp_path / "cache")
    assert decoded.names == ("mouse.mkv#5",)
    assert "frame 50 cannot be read" in decoded.skipped[0]


def test_what_is_wrong_is_told(folder):
    (folder / "img0003.png").unlink()
    assert open_dataset(str(_dlc(folder))).problems == (
        "annotated images that are absent: labeled-data/mouse/img0003.png",
    )
    (folder / "img0007.png").unlink()
    with pytest.raises(UserError, match="CollectedData_me.csv: got nothing.*absent"):
        open_dataset(str(folder))
    table = folder / "CollectedData_me.csv"
    table.write_text(table.read_text().replace("10.5", "far"))
    with pytest.raises(
        UserError, match="got 'far' in the row of '.*img0003.png', expected numbers"
    ):
        open_dataset(str(folder))


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.xml", '<annotations><image name="a"/></annotations>', "another form than its tool"),
        ("a.xml", "<annotations><image", "cannot be read as XML"),
        ("a.json", '[{"data": 1, "x": "keypointlabels", "keypointlabels": 1}]', "another form"),
        ("a.yaml", "kpt_shape: 3", "got kpt_shape 3, expected"),
        ("a.yaml", "kpt_shape: [99999999, 3]", "got kpt_shape .99999999, 3., expected"),
        ("a.yaml", "kpt_shape: [1, 3]\ntrain: 5", "got train 5, expected a folder"),
        ("a.yaml", "kpt_shape: " + 2000 * "[", "cannot be read as YAML"),
        ("a.slp", "nothing", "cannot be read as labels of SLEAP|needs sleap-io"),
        ("a.csv", "scorer,me\ncoords,x\n", "got no lines of bodyparts and coords"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, text, complaint):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=f"{name}: .*({complaint})") as caught:
        open_dataset(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def _spoilt(value):
    """The same JSON with another thing in each of its places, one at a time."""
    yield from (None, [], {}, -1, 1e300, "a\0b", "../../a")
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            for other in _spoilt(value[key]):
                copy = value.copy()
                copy[key] = other
                yield copy
    if isinstance(value, dict):
        yield from ({k: v for k, v in value.items() if k != key} for key in value)


@pytest.mark.parametrize(("layout", "write"), [("coco", _coco), ("label-studio", _label_studio)])
def test_any_other_json_is_left_out_or_named(folder, layout, write):
    write(folder)
    [file] = folder.glob("*.json")
    read = refused = 0
    for content in _spoilt(json.loads(file.read_text())):
        file.write_text(json.dumps(content))
        try:
            samples = open_dataset(str(file), layout).samples
        except UserError as error:
            assert str(folder) in str(error)
            refused += 1
        else:
            assert all(sample.points.shape[1] == 2 for sample in samples)
            read += 1
    assert read > 20 and refused > 20


def test_a_name_that_no_file_can_have_is_absent(folder):
    name = "img0003.png"
    for write in (_coco, _label_studio, _dlc, _cvat):
        write(folder)
        for path in folder.iterdir():
            if path.suffix in (".json", ".csv") and name in path.read_text():
                text = path.read_text().replace(
                    name, "a\\u0000" if path.suffix == ".json" else "a\0"
                )
                path.write_text(text)
                data = open_dataset(str(path))
                assert len(data.samples) < 3 and data.problems
                path.unlink()
