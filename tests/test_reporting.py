"""The verb `report`: the page of a run that was trained, with pictures of images that it predicts itself."""

import re
import shutil
from pathlib import Path

import pytest

from contextseg import verbs
from contextseg.data.scenes import CLASSES
from contextseg.errors import RunError
from contextseg.reporting import report
from contextseg.run_folder import RunFolder
from contextseg.settings import make_settings


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = make_settings(
        {
            "n_classes": len(CLASSES),
            "data": {"image_px": 64},
            "views": {"frame_px": 64},
            "backbone": {"name": "test_resnet"},
            "training": {"epochs": 2, "batch_size": 4},
        }
    )
    return verbs.fit(scenes, tmp_path_factory.mktemp("report") / "run", settings).path


def test_the_page_holds_what_the_run_and_the_images_give(run: Path, scenes: Path, tmp_path: Path) -> None:
    shutil.copytree(scenes / "images", tmp_path / "images")
    (tmp_path / "images" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    scores = verbs.evaluate(run, scenes)
    page = report(run, tmp_path / "images")
    assert page == run / "report.html"
    html = page.read_text(encoding="utf-8")
    n_images = len(list((scenes / "images").iterdir()))
    assert f"Over {n_images} of {n_images + 1} images" in html
    assert "broken.jpg" in html
    assert f"<strong>{100 * scores.miou:.1f} %</strong>mean IoU" in html
    assert set(re.findall(r'<section id="(\w+)">', html)) == {"scores", "training", "clusters", "merging", "examples"}
    assert html.count('src="data:image/') >= 3 * min(8, n_images) + len(CLASSES)


def test_the_sample_is_drawn_by_the_seed(run: Path, scenes: Path) -> None:
    first, again, other = (report(run, scenes / "images", n_images=n).read_text() for n in (2, 2, 3))
    assert "Over 2 of" in first
    assert first == again != other


def test_without_images_there_are_no_pictures(run: Path) -> None:
    html = report(run).read_text()
    assert "Made without images" in html
    assert "data:image/" not in html


def test_a_run_that_is_not_finished(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", make_settings({"n_classes": 2}))
    with pytest.raises(RunError, match="its training has not ended"):
        report(tmp_path / "run")
