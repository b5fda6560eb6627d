"""The page for people without labels: what it says, and that a browser can show it."""

import html
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lmk.cli import main
from lmk.train.config import EvaluateConfig
from lmk.train.datasets.decoded import DecodedSet
from lmk.train.datasets.sample import NO_SCHEME
from lmk.train.judge import steadiness
from lmk.train.judge.report import write_report
from lmk.train.network.bottleneck import BETA
from lmk.train.network.category import save_pack
from lmk.train.network.checkpoint import load
from lmk.train.network.hourglass import HourglassConfig, LandmarkNetwork

SOURCE, SIZE, COUNT = 80, 64, 60
EVIL = "<script>alert('1')</script> & \"co\".png"


class Detector(nn.Module):
    """Finds the red, green and blue spots, red again, and a place that is always the same."""

    def __init__(self):
        super().__init__()
        self.config = HourglassConfig(5, 16, SIZE)
        self.naming = None
        self.device_of = nn.Parameter(torch.zeros(1))
        self.fixed = torch.full((1, 1, 16, 16), -10.0)
        self.fixed[..., 12, 3] = 10.0

    def forward(self, images):
        spots = torch.log(nn.functional.avg_pool2d(images, 4) + 1e-12) / BETA
        return torch.cat((spots, spots[:, :1], self.fixed.expand(len(images), 1, 16, 16)), dim=1)


@pytest.fixture(scope="module")
def spots():
    """Images of a red, a green and a blue spot, half of them held out."""
    rng = np.random.default_rng(0)
    points = np.array([[28, 28], [52, 30], [40, 50]]) + rng.uniform(-4, 4, (COUNT, 3, 2))
    steps = np.arange(SOURCE)
    across, down = (np.exp(-((steps - points[..., [a]]) ** 2) / 8) for a in (0, 1))
    images = np.einsum("nky,nkx->nyxk", down, across)
    return DecodedSet(
        name="spots & co",
        images=(images * 255).round().astype(np.uint8),
        points=np.empty((COUNT, 0, 2), np.float32),
        names=(EVIL,) * COUNT,
        splits=("train", "test") * (COUNT // 2),
        scheme=NO_SCHEME,
        lengths=np.full(COUNT, np.nan, np.float32),
        skipped=(),
        crop_scale=1.0,
    )


HEADER = {
    "category": "spots <b>",
    "method": "projection",
    "core_sha256": "c0" * 32,
    "sha256": "9a" * 32,
    "landmark_names": [f"p{k}" for k in range(5)],
    "data": "spots & co",
    "images": 1234,
    "step": 5000,
    "seconds": 61.2,
    "finished": True,
    "versions": {"lmk-toolkit": "0.1.0"},
    "config": {"seed": 0},
}


def write(path, data, images=None, header=HEADER):
    return write_report(path, Detector(), header, data, EvaluateConfig(images=images))


@pytest.fixture(scope="module")
def report(spots, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "spots.html"
    return write(path, spots), path.read_text()


def text_of(page):
    """What a reader sees, without the tags."""
    body = re.sub(r"<(style|title|svg).*?</\1>", " ", page.split("</head>")[1], flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))


def test_a_poor_pack_is_not_to_be_mended_by_dropping(report, spots, tmp_path, monkeypatch):
    monkeypatch.setattr(steadiness.Steadiness, "poor", True)
    write(tmp_path / "a.html", spots)
    text = text_of((tmp_path / "a.html").read_text())
    assert "do not use this pack. Adapt again, for longer" in text and "Drop p3" not in text


def test_the_verdict_and_what_to_drop(report):
    judged, page = report
    assert [landmark.verdict for landmark in judged.landmarks] == [*["steady"] * 4, "stuck"]
    assert judged.landmarks[3].same_as == "p0"
    text = text_of(page)
    assert judged.headline == "4 of 5 landmarks are steady, none wobbly, 1 stuck."
    assert judged.headline in text
    assert "Drop p3, p4 : they tell nothing, or nothing that the others do not" in text
    assert "keep = [0, 1, 2]" in text and "--landmarks 3" in text
    assert "Sits on p0, which is steadier" in text
    assert "it moves 0% as far as it should" in text


def test_nothing_flatters_above_wrong_pictures(report, spots, tmp_path, monkeypatch):
    judged, page = report
    assert judged.turns and judged.turning in text_of(page) and "--rotation 180" not in page
    assert "None needs to be dropped" not in text_of(page)  # p3 and p4 do
    monkeypatch.setattr(steadiness.Steadiness, "useless", [])
    monkeypatch.setattr(steadiness.Steadiness, "turns", False)
    found = replace(judged, wrong=3)
    monkeypatch.setattr(steadiness, "measure", lambda *given: found)
    write(tmp_path / "a.html", spots)
    text = text_of((tmp_path / "a.html").read_text())
    assert "None needs to be dropped" not in text and "--rotation 180" in text
    assert "In 3 of 30 images they are off by more than 4 % of the crop on average" in text


def test_figures_and_facts(report):
    judged, page = report
    text = text_of(page)
    for landmark in judged.landmarks:
        assert f"{landmark.p90_px:.1f} px ({landmark.p90_px / SIZE:.1%}".rstrip("%") in text
        assert f"± {landmark.spread_px:.1f} px" in text
    for fact in ("30 of spots & co", "1,234 images", "5,000 in 61 seconds", "c0" * 32, "9a" * 32):
        assert fact in text
    assert "at most 2 % of the crop, and in nine views of ten by at most 4 %" in text
    assert "few images" not in text


def test_only_held_out_images_of_the_pack_s_own_data(spots, tmp_path):
    assert write(tmp_path / "a.html", spots, images=7).images == 7
    assert "few images" in text_of((tmp_path / "a.html").read_text())
    other = replace(spots, name="others")
    assert write(tmp_path / "b.html", other).images == COUNT
    text = text_of((tmp_path / "b.html").read_text())
    assert "held out" not in text and "Adapted to spots & co" in text


def test_the_gallery_goes_from_worst_to_best(report):
    _, page = report
    gallery = text_of(page).split("From worst to best")[1].split("The rule")[0]
    shown = [float(px) for px in re.findall(r"\d+: ([\d.]+) px", gallery)]
    assert len(shown) == 24 and shown == sorted(shown, reverse=True)
    for title in ("Best", "Middling", "Worst"):
        assert title in gallery


def test_names_are_not_taken_for_html(report):
    _, page = report
    assert html.escape(EVIL, quote=False).split("'")[0] in page
    assert "<script" not in page and "spots <b>" not in page.split("</head>")[1]


def test_nothing_is_fetched_from_elsewhere(report):
    _, page = report
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    for address in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert address.startswith(("data:image/jpeg;base64,", "#"))
    assert not re.search(r"url\(|@import|https?://", page)
    for tag in ("script", "link", "iframe", "object"):
        assert f"<{tag}" not in page


def _luminance(colour):
    digits = colour if len(colour) == 6 else "".join(2 * digit for digit in colour)
    channels = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_words_stand_out_in_light_and_in_dark(report):
    """The contrast that the Web Content Accessibility Guidelines ask for: 4.5."""
    themes = re.findall(r":root \{(.*?)\}", report[1], flags=re.S)
    assert len(themes) == 2 and "prefers-color-scheme: dark" in report[1]
    for theme in themes:
        of = {name: _luminance(value) for name, value in re.findall(r"--([\w-]+): #(\w+)", theme)}
        pairs = [(word, f"{word}-back") for word in ("steady", "wobbly", "stuck")]
        pairs += [(ink, back) for ink in ("ink", "soft") for back in ("page", "card")]
        for pair in pairs:
            dark, light = sorted(of[name] for name in pair)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (pair, theme)


def test_a_collapsed_pack_is_told_first(spots, tmp_path):
    model = Detector()
    model.forward = lambda images: model.fixed.expand(len(images), 5, 16, 16)
    path = tmp_path / "bad.html"
    judged = write_report(path, model, HEADER, spots, EvaluateConfig(images=20))
    text = text_of(path.read_text())
    assert judged.collapsed and "Collapsed: all 5 landmarks sit on one blob." in text
    assert "Do not use this pack" in text and "How to drop" not in text


def test_a_lone_image(spots, tmp_path):
    alone = replace(spots, images=spots.images[:1], names=("a",), splits=("",))
    assert write(tmp_path / "a.html", alone).images == 1
    text = text_of((tmp_path / "a.html").read_text())
    assert "Judged on 1 image of spots & co that it was adapted to" in text
    assert "few images" in text and "All 1, from worst to best" in text


def test_a_browser_shows_it_on_a_desk_and_on_a_phone(report, browser):
    judged, page = report
    found, pixels = browser(page, 1280, 400)
    for one in found:
        assert one["content"] <= one["width"] and one["outside"] == []
        assert one["smallest"] >= 12  # CSS pixels
        assert len(one["images"]) == 1 + 5 + 3 * (judged.views + 3) + 24
        for natural, shown, alt in one["images"]:
            assert natural == SIZE and shown >= 60 and alt
    for part in (pixels[:, :1280], pixels[:, 1280:1680]):  # pictures: not one flat colour
        assert len(np.unique(part.reshape(-1, 3), axis=0)) > 1000


# On the command line.


@pytest.fixture
def pack(tmp_path):
    """An untrained pack that needs no core."""
    path = tmp_path / "runs" / "moths.safetensors"
    torch.manual_seed(0)
    model = LandmarkNetwork(HourglassConfig(4, 16, SIZE))
    more = {"method": "scratch", "scope": "all", "train_plain_convs": False, "core_sha256": ""}
    names = {"landmark_names": ["a", "b", "c", "d"]}
    save_pack(path, model, {**HEADER, **more, **names, "category": "moths", "crop_scale": 1.0})
    return path


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return (ended.value.code, *capsys.readouterr())


@pytest.fixture
def folder(tmp_path):
    """Ten unlabelled pictures."""
    path = tmp_path / "moths"
    path.mkdir()
    for index in range(10):
        Image.effect_noise((40, 40), 60).convert("RGB").save(path / f"{index}.png")
    return path


def test_the_newest_pack_s_page_lies_beside_it(pack, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))
    arguments = ("report", "--data", folder, "--images", 3, "--threads", 1)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (0, "runs/moths.html\n") and "landmarks" in err
    page = pack.with_suffix(".html").read_text()
    assert "Landmarks of moths" in text_of(page) and load(pack, "pack")[1]["sha256"] in page
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "runs/moths.html: got an output that exists already" in err
    assert run(capsys, *arguments, "--force")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--images", 0], "--images: got 0, expected 1 or more"),
        (["--threads", 0], "--threads: got 0, expected 1 or more"),
        (["--output", "page.pdf"], "--output: got page.pdf, expected a name ending in .html"),
        (["--core", "no.safetensors", "--data", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_bad_arguments(pack, folder, capsys, arguments, words):
    code, out, err = run(capsys, "report", pack, "--data", folder, *arguments)
    assert (code, out) == (2, "") and words in err
    assert not pack.with_suffix(".html").exists()
