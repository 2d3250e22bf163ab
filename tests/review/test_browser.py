"""The page in a real browser: a whole review by a person, and what is there after a new start."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from reviewed_run import write_case

from contextseg.classes import Classes
from contextseg.run_folder import RunFolder
from contextseg.settings import make_settings
from contextseg.training.fit import fit

CHROMIUM = shutil.which("chromium")
PATIENCE_MS = 120_000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


@pytest.fixture
def page() -> Iterator[Page]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
        browser.close()
    # What the server refuses, the browser logs as well; anything else, such as a broken policy, is a defect.
    assert [text for text in complaints if "422" not in text] == []


@contextmanager
def shown(page: Page, run: Path, images: Path) -> Iterator[None]:
    """Start the program as a user does, and go to the address that it prints; leave it before the program ends."""
    command = [sys.executable, "-m", "contextseg", "review", str(run), str(images), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            page.goto(next(found[0] for line in program.stdout if (found := re.search(r"http://127\S+", line))))
            yield
            page.goto("about:blank")
        finally:
            program.terminate()


def quarters(seed: int) -> np.ndarray:
    """A mask of 48 x 64 pixels: 0 and 1 above, 2 and 3 below, parted at a place of its own."""
    rows, columns = np.arange(48)[:, None] >= 16 + seed, np.arange(64) >= 24 + seed
    return (2 * rows + columns).astype(np.uint8)


def name(page: Page, id_: int, text: str) -> None:
    field = page.get_by_label(f"Name of class {id_}", exact=True)
    field.fill(text)
    field.press("Enter")
    expect(page.get_by_label(f"Images of {text}", exact=True)).to_be_visible()


def test_a_whole_review(page: Page, tmp_path: Path) -> None:
    masks = {f"photo-{seed}.png": (quarters(seed), 0.9 - 0.1 * seed) for seed in range(3)}
    run, images = write_case(tmp_path, masks)
    with shown(page, run, images):
        for id_, text in enumerate(["sky", "sea & <sand>", "road"]):
            name(page, id_, text)
        page.get_by_label("Merge class 3 into", exact=True).select_option(label="road")
        expect(page.get_by_role("button", name="Take class 3 out of the class")).to_be_visible()
        page.get_by_label("Merge sea & <sand> into", exact=True).select_option(label="sky")
        expect(page.get_by_role("heading", name="Classes (2)")).to_be_visible()
        page.keyboard.press("u")
        expect(page.get_by_role("heading", name="Classes (3)")).to_be_visible()

        name(page, 0, "air")
        field = page.get_by_label("Name of class 2", exact=True)
        field.fill("air")
        field.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("classes 0 and 2 would both be named 'air'")
        expect(field).to_have_value("road")

        page.get_by_label("Uncertain first").check()
        expect(page.locator(".file").first).to_have_text("photo-2.png")
        page.keyboard.press("g")
        page.keyboard.press("Enter")
        expect(page.locator("#viewer-title")).to_have_text("photo-2.png")
        expect(page.locator("#stage")).to_have_attribute("aria-busy", "false")
        page.keyboard.press("ArrowRight")  # the cross appears in the middle, (32, 24), and goes to (44, 24)
        page.keyboard.press("Enter")
        expect(page.locator("#region")).to_have_text("Region: road · 70 % confident")
        page.get_by_label("becomes").select_option(label="sea & <sand>")
        page.get_by_role("button", name="Correct the region").click()
        expect(page.get_by_role("status")).to_have_text("Corrected.")
        page.get_by_role("button", name="Close").click()
        expect(page.locator(".note").first).to_contain_text("1 corrected")

        page.keyboard.press("e")
        expect(page.get_by_role("status")).to_contain_text("Exported 3 masks to")
        page.reload()
        check_decisions(page)
    with Image.open(run / "review/export/masks/photo-2.png") as image:
        # Below, 2 and 3 are one region of "road", which has become 1.
        assert np.array_equal(np.asarray(image), np.array([0, 1, 1, 1])[quarters(2)])
    with Image.open(run / "review/export/masks/photo-0.png") as image:
        assert np.array_equal(np.asarray(image), np.array([0, 1, 2, 2])[quarters(0)])
    with shown(page, run, images):
        check_decisions(page)


def test_a_class_is_split_in_a_run_of_its_own(page: Page, scenes: Path, tmp_path: Path) -> None:
    small = {"data": {"image_px": 64}, "views": {"frame_px": 64}, "clustering": {"max_points": 4000}}
    run = fit(scenes, tmp_path / "run", make_settings({"n_classes": 3, "method": "lab", **small})).path
    with shown(page, run, scenes):
        name(page, 1, "ground")
        page.get_by_role("button", name="Split ground").click()
        made = tmp_path / "run-split"
        said = f"ground is two classes in a run of its own: contextseg review {made}"
        expect(page.get_by_role("status")).to_contain_text(said)
    classes = Classes.read(RunFolder.open(made).classes, 4)
    assert [entry.name for entry in classes.entries] == ["class 0", "ground", "class 2", "class 3"]


def check_decisions(page: Page) -> None:
    expect(page.get_by_role("heading", name="Classes (3)")).to_be_visible()
    for id_, text in enumerate(["air", "sea & <sand>", "road"]):
        expect(page.get_by_label(f"Name of class {id_}", exact=True)).to_have_value(text)
    expect(page.get_by_role("button", name="Take class 3 out of the class")).to_be_visible()
    expect(page.locator(".note").nth(2)).to_contain_text("1 corrected")
    expect(page.get_by_role("button", name="Undo")).to_be_enabled()
