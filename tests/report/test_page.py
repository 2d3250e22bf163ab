"""The page: everything inside it, everything escaped, the numbers of the files."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from contextseg.classes import Classes
from contextseg.errors import DataError
from contextseg.evaluation.scores import Scores, score
from contextseg.report.page import Example, Sample, render_page
from contextseg.report.survey import Survey
from contextseg.run_folder import RunFolder
from contextseg.settings import make_settings

NASTY = "<script>alert(1)</script>"
# 4 clusters, 3 classes: 0 -> sky, 2 -> road, 1 -> the nasty one, 3 is surplus
MATRIX = np.array([[70, 0, 5], [0, 10, 20], [10, 60, 0], [20, 5, 0]])


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """The files of a run of 4 clusters, as `fit` writes them."""
    folder = RunFolder.create(
        tmp_path / "<b>run", make_settings({"n_classes": 4, "seed": 7, "training": {"epochs": 2}})
    )
    Classes.numbered(4).rename({1: NASTY, 2: "road & path"}).merge(2, [3]).write(folder.classes)
    left_out = [{"file": "<i>.jpg", "reason": "is empty (0 bytes)"}]
    versions = {"python": "3.12", "torch": "2.9"}
    folder.write_json(
        "meta.json",
        {
            "contextseg": "0.1.0",
            "versions": versions,
            "method": "context",
            "seed": 7,
            "start": "MoCo v2",
            "data": {"n_images": 321},
            "left_out": left_out,
            "finished": "2026-01-02T03:04+00:00",
        },
    )
    save_file({"centers": np.eye(4, 5, dtype=np.float32)}, folder.weights)
    return folder


def with_metrics(run: RunFolder) -> RunFolder:
    for epoch in range(2):
        for step in range(3):
            run.log(epoch=epoch, step=step, loss=3 - epoch, within=2.0, cross=1.0)
        run.log(epoch=epoch, loss=3 - epoch, cluster_use=0.5 + epoch / 4, learning_rate=1e-4, images_per_s=12.5)
    return run


def with_scores(run: RunFolder) -> Scores:
    scores = score(MATRIX, ["sky", "road", NASTY], n_images=2, context={"data": NASTY, "split": None, "flip": True})
    scores.write(run.path / "scores.json")
    return scores


def sample() -> Sample:
    """One image of which cluster 0 has the left half, 1 a quarter and 2 a quarter; 3 has nothing."""
    clusters = np.zeros((16, 24), np.uint8)
    clusters[:8, 12:], clusters[8:, 12:] = 1, 2
    image, confidence = np.full((16, 24, 3), 90, np.uint8), np.full((16, 24), 0.6, np.float32)
    survey = Survey(4)
    survey.add(image, clusters, confidence)
    return Sample(
        survey, [Example(f"{NASTY}.png", image, clusters, confidence)], 9, [("bad.png", "is empty (0 bytes)")]
    )


class Page(HTMLParser):
    """What a browser would find in a page: its tags with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def rendered(run: RunFolder, **values: Sample) -> Page:
    return Page(render_page(run, metric="cosine", **values))


def test_nothing_is_fetched(run: RunFolder) -> None:
    with_scores(with_metrics(run))
    html = render_page(run, metric="cosine", sample=sample())
    page = Page(html)
    links = [
        value for _, attributes in page.tags for key, value in attributes.items() if key in {"src", "href", "srcset"}
    ]
    assert len(links) >= 6
    assert all(link is not None and link.startswith("data:") for link in links)
    assert not re.search(r"https?:|url\(|@import|<script|<iframe", html)


def test_names_are_escaped(run: RunFolder) -> None:
    with_scores(run)
    page = rendered(run, sample=sample())
    assert not {"script", "b"} & {tag for tag, _ in page.tags}
    assert page.text.count(NASTY) >= 4  # the cluster, the class, the image, the set
    assert "<b>run" in page.text
    assert "<i>.jpg: is empty (0 bytes)" in page.text
    assert "road & path" in page.text


def test_the_head_tells_what_the_run_was(run: RunFolder) -> None:
    text = rendered(run).text
    for fact in ("context", "MoCo v2", "resnet18", "321", "2026-01-02 03:04 UTC", "torch 2.9", "not trained"):
        assert fact in text


@pytest.mark.parametrize("with_sample", [False, True])
def test_every_cluster_appears(run: RunFolder, with_sample: bool) -> None:
    page = rendered(run, **({"sample": sample()} if with_sample else {}))
    ids = [attributes["id"] for attributes in page.of("article")]
    assert sorted(ids) == [f"cluster-{i}" for i in range(4)]
    assert "cluster 3, part of 2" in page.text
    assert len(page.of("path")) == 3  # merges of 4 leaves
    assert ("No pixel of the sample" in page.text) == with_sample
    assert ("report <b>run IMAGES" in page.text) != with_sample


def test_regions_and_examples_are_shown(run: RunFolder) -> None:
    page = rendered(run, sample=sample())
    assert len(page.of("img")) == 3 + 3  # a region of each of three clusters; image, mask and confidence
    assert page.of("article")[0]["id"] == "cluster-0"  # the largest first
    assert "Over 1 of 9 images" in page.text
    assert "bad.png: is empty (0 bytes)" in page.text
    shares = re.findall(r"pixels\s*([\d.]+) %", page.text)
    assert shares == ["50.0", "25.0", "25.0", "0.0"]
    assert page.text.count("60.0 %") == 3


def test_the_numbers_are_those_of_the_scores(run: RunFolder) -> None:
    scores = with_scores(run)
    page = rendered(run)
    # hits 70 + 60 + 20 of 200 labelled pixels
    assert f"{100 * scores.accuracy:.1f} %" == "75.0 %"
    assert "75.0 %accuracy" in page.text
    assert "matched to classes one-to-one" in page.text
    assert "Options: flip." in page.text
    assert f"{100 * scores.miou:.1f} %mean IoU" in page.text
    rows = re.findall(r"(sky|road)\s+(\d)\s+([\d.]+)\s+([\d.]+)([\d.]+ )?", page.text)
    assert [(name, cluster) for name, cluster, *_ in rows] == [("sky", "0"), ("road", "2")]
    assert rows[0][2] == f"{100 * scores.per_class['sky']['iou']:.1f}"
    # rows of the confusion: clusters in the order of their classes, 0 2 1 3; 70 10 0 20 of 100 and 0 60 10 5 of 75
    cells = [float(str(tag["style"]).removeprefix("--v:")) for tag in page.of("td") if "--v" in str(tag.get("style"))]
    assert cells[:8] == [0.7, 0.1, 0, 0.2, 0, 0.8, 0.13, 0.07]
    framed = [
        place
        for place, tag in enumerate(t for t in page.of("td") if "--v" in str(t.get("style")))
        if "match" in str(tag["class"])
    ]
    assert framed == [0, 5, 10]


def test_scores_that_were_tampered_with_are_refused(run: RunFolder) -> None:
    with_scores(run)
    path = run.path / "scores.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"miou": 0.99}))
    with pytest.raises(DataError, match="`miou` does not follow"):
        rendered(run)


def test_curves_of_a_trained_run(run: RunFolder) -> None:
    page = rendered(with_metrics(run))
    assert len(page.of("polyline")) == 5  # loss, within, cross; cluster use; images/s
    assert "losscrosswithin" in page.text  # the legend; the loss is drawn last, over its parts
    assert [str(line["points"]).count(",") for line in page.of("polyline")] == [6, 6, 6, 2, 2]


def test_a_run_whose_number_of_classes_was_chosen_shows_the_curve(run: RunFolder) -> None:
    choosing = {
        "chosen": 3,
        "rule": "the rule in words",
        "n_classes": [2, 3, 4],
        "stability": [0.5, 0.9, 0.7],
    }
    run.write_json("choosing.json", choosing)
    page = rendered(run)
    assert "the rule in words" in page.text
    assert "4, chosen from the images" in page.text
    assert len(page.of("polyline")) == 1


def test_the_page_needs_no_torch() -> None:
    code = "import sys, contextseg.report.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
