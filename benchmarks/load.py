"""A folder of many photographs: memory of `predict`, and the review page under a person and under a crowd.

    python benchmarks/load.py PHOTOS [--images 10000] [--requests 200] [-o runs/load]

N names of the photographs, in folders of 1000, and a run of k-means on a small random network: what is looked at is
what the program holds and how soon it answers, not what is seen. Prints

- the memory of `contextseg predict` while it writes N masks: its peak, and its slope over the last four fifths;
- how soon the page shows its first images in Chromium, the frames while a person scrolls, and the memory of the server
  and of the page's scripts before and after a walk through many pages;
- the requests that are answered when very many come at once, and the memory of the server afterwards.

Linux; needs Chromium, and playwright, httpx and psutil.
"""

import asyncio
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import psutil
import typer
from playwright.sync_api import Page, expect, sync_playwright
from rich.console import Console

from contextseg import verbs
from contextseg.data.image_files import list_images
from contextseg.settings import make_settings

MIB = 2**20
FRAMES = """async () => {
  const spans = []; let last = performance.now();
  for (let y = 0; y < 120 * 40; y += 40) {
    window.scrollTo(0, y);
    await new Promise(requestAnimationFrame);
    const now = performance.now(); spans.push(now - last); last = now;
  }
  return spans;
}"""
console = Console(width=130)


def main(
    photos: Path,
    n_images: Annotated[int, typer.Option("--images")] = 10_000,
    n_requests: Annotated[int, typer.Option("--requests", help="That are under way at the same time.")] = 200,
    n_rounds: Annotated[int, typer.Option("--rounds", help="Of so many requests.")] = 10,
    out: Annotated[Path, typer.Option("-o", "--out")] = Path("runs/load"),
) -> None:
    run, images = out / "run", out / "photos"
    link(list_images(photos), images, n_images)
    if not (run / "weights.safetensors").exists():
        settings = {"n_classes": 21, "method": "kmeans", "backbone": {"name": "test_resnet"}, "data": {"image_px": 160}}
        verbs.fit(photos, run, make_settings(settings), console=console)
    predict(run, images, run / "review" / "masks", n_images)
    with served(run, images) as (address, server):
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            look(browser.new_page(viewport={"width": 1280, "height": 900}), address, server)
            browser.close()
        asyncio.run(crowd(address, n_images, n_requests, n_rounds))
        console.print(f"server after it {memory(server):.0f} MiB")


def link(photos: list[Path], folder: Path, n_images: int) -> None:
    """Give N names to the photographs."""
    for i in range(n_images):
        name = folder / f"{i // 1000:02}" / f"{i:06}{photos[i % len(photos)].suffix}"
        name.parent.mkdir(parents=True, exist_ok=True)
        if not name.is_symlink():
            name.symlink_to(photos[i % len(photos)].resolve())


def predict(run: Path, images: Path, masks: Path, n_images: int) -> None:
    """Write the masks in a process of its own, and print what memory it held."""
    began, held = time.perf_counter(), []
    command = [sys.executable, "-m", "contextseg", "predict", str(run), str(images), "-o", str(masks)]
    with subprocess.Popen([*command, "--raw", "--confidence"], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            written = sum(1 for _ in masks.glob("*/*.png"))
            held.append((written, memory(psutil.Process(process.pid))))
            time.sleep(1)
    written_N, held_N = np.array([row for row in held if row[0] > n_images / 5 and row[1]]).reshape(-1, 2).T
    if len(written_N) > 2:
        slope = np.polyfit(written_N / 1000, held_N, 1)[0]
        console.print(
            f"predict, {n_images} images in {time.perf_counter() - began:.0f} s: peak {held_N.max():.0f} MiB, slope "
            f"{slope:+.2f} MiB per 1000 images between {written_N[0]:.0f} and {written_N[-1]:.0f}"
        )


@contextmanager
def served(run: Path, images: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Start the page as a user does; give its address and its process."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "contextseg", "review", str(run), str(images), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"}) as program:
        try:
            assert program.stdout is not None
            address = next(found[0] for line in program.stdout if (found := re.search(r"http://127\S+", line)))
            server = psutil.Process(program.pid)
            console.print(f"review, address after {time.perf_counter() - began:.1f} s, server {memory(server):.0f} MiB")
            yield address, server
        finally:
            program.terminate()


def look(page: Page, address: str, server: psutil.Process) -> None:
    """Open the page, scroll, and turn pages, as a person does."""
    page.set_default_timeout(60_000)
    for visit in ("first", "second"):
        began = time.perf_counter()
        page.goto(address)
        expect(page.locator("#image-list .file").first).to_be_visible()
        seen = time.perf_counter() - began
        page.wait_for_function(
            "() => [...document.querySelectorAll('#image-list img')].slice(0, 8).every(i => i.naturalWidth)"
        )
        console.print(
            f"{visit} visit: names after {seen:.2f} s, the first 8 images after {time.perf_counter() - began:.2f} s"
        )
    console.print(f"server {memory(server):.0f} MiB, scripts {scripts(page):.1f} MiB")
    for n_turns in (1, 20, 60):
        for _ in range(n_turns):
            page.keyboard.press(".")
            page.wait_for_timeout(100)
        page.wait_for_load_state("networkidle")
        page.evaluate("window.scrollTo(0, 0)")
        spans = sorted(page.evaluate(FRAMES))
        console.print(
            f"{n_turns} pages on: frames of {statistics.median(spans):.0f} ms, 95 % under "
            f"{spans[len(spans) * 95 // 100]:.0f}, longest {spans[-1]:.0f}; "
            f"server {memory(server):.0f} MiB, scripts {scripts(page):.1f} MiB"
        )


async def crowd(address: str, n_images: int, n_requests: int, n_rounds: int) -> None:
    """Ask for pages, pictures and masks, very many at once, and print how it went."""
    rng = np.random.default_rng(0)
    limits = httpx.Limits(max_connections=n_requests, max_keepalive_connections=n_requests)
    async with httpx.AsyncClient(base_url=address.split("/?")[0], limits=limits, timeout=120) as client:
        await client.get(address, follow_redirects=True)  # gives the cookie
        kinds = ["/state", "/images?start={}", "/images?start={}&order=uncertain", "/images/{}/thumbnail.jpg"]
        kinds += ["/images/{}/thumbnail.planes", "/images/{}/view.jpg", "/images/{}/view.planes"]
        seconds: list[float] = []
        answers: Counter[int | str] = Counter()

        async def ask(path: str) -> None:
            began = time.perf_counter()
            try:
                answers[(await client.get(path)).status_code] += 1
            except httpx.HTTPError as error:
                answers[type(error).__name__] += 1
            seconds.append(time.perf_counter() - began)

        began = time.perf_counter()
        for _ in range(n_rounds):
            paths = [kinds[rng.integers(len(kinds))].format(rng.integers(n_images)) for _ in range(n_requests)]
            await asyncio.gather(*map(ask, paths))
        spent = time.perf_counter() - began
    console.print(
        f"{len(seconds)} requests, {n_requests} at once: {dict(answers)}, {len(seconds) / spent:.0f} a second; "
        f"median {statistics.median(seconds):.2f} s, slowest {max(seconds):.2f} s"
    )


def memory(process: psutil.Process) -> float:
    """Return what a process holds, in MiB; 0 when it has ended."""
    try:
        return float(process.memory_info().rss) / MIB
    except psutil.NoSuchProcess:
        return 0.0


def scripts(page: Page) -> float:
    return float(page.evaluate("performance.memory.usedJSHeapSize")) / MIB


if __name__ == "__main__":
    typer.run(main)
