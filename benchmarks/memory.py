"""Peak memory of `fit` against the number of images N and of classes K.

    python benchmarks/memory.py [--points 1000:27,10000:27,1000:10,1000:171,1000:500] [--method picie] [--px 96]

N names of 50 generated scenes: what a run holds follows from names, pixels and settings, not from what is seen. A run
is a fork of this process, which has the libraries loaded; their memory is in every figure. "Peak" is all that was
resident, "own" leaves out pages of mapped files, such as those of decoded images, which the system may take back at
any time; it is looked at every 20 ms. One epoch; Linux.
"""

import multiprocessing
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer
from rich.console import Console

from contextseg import verbs
from contextseg.data.scenes import write_scenes
from contextseg.settings import make_settings

N_SCENES = 50
console = Console(width=130)


def main(
    points: Annotated[str, typer.Option(help="N:K of each run.")] = "1000:27,10000:27,1000:10,1000:171,1000:500",
    method: str = "picie",
    backbone: str = "resnet18",
    px: Annotated[int, typer.Option(help="Shorter side of the images.")] = 96,
    frame_px: Annotated[int, typer.Option(help="Side of the square that is trained on.")] = 64,
    max_iter: Annotated[
        int, typer.Option(help="Iterations of the one start of k-means: it is not the time we ask.")
    ] = 5,
) -> None:
    torch.set_num_threads(1)
    console.print(
        f"{method}, {backbone}, {px} px, squares {frame_px} px, batch 16, before a run {status('VmRSS'):.0f} MiB"
    )
    console.print("| N | K | peak, MiB | own, MiB | s |\n|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        root = Path(folder)
        write_scenes(root / "scenes", N_SCENES, seed=0, size=(px, round(px * 4 / 3 / 32) * 32))
        scenes = sorted((root / "scenes" / "images").iterdir())
        for point in points.split(","):
            n_images, n_classes = map(int, point.split(":"))
            images = root / f"{n_images}"
            for i in () if images.exists() else range(n_images):
                images.mkdir(exist_ok=True)
                (images / f"{i:06}.png").symlink_to(scenes[i % N_SCENES])
            values = {
                "n_classes": n_classes,
                "method": method,
                "backbone": {"name": backbone},
                "data": {"image_px": px},
                "views": {"frame_px": frame_px},
                "clustering": {"n_restarts": 1, "max_iter": max_iter},
                "training": {"epochs": 1, "accelerator": "cpu"},
            }
            run = multiprocessing.get_context("fork").Process(target=measure, args=(images, root / point, values))
            run.start()
            run.join()


def measure(images: Path, out: Path, values: dict[str, object]) -> None:
    """Train, and print what memory it took."""
    own = [0.0]
    threading.Thread(target=watch, args=(own,), daemon=True).start()
    began = time.perf_counter()
    verbs.fit(images, out, make_settings(values))
    seconds = time.perf_counter() - began
    n_images, n_classes = out.name.split(":")
    console.print(f"| {n_images} | {n_classes} | {status('VmHWM'):.0f} | {own[0]:.0f} | {seconds:.0f} |")


def watch(own: list[float]) -> None:
    """Keep the most anonymous memory that this process has held."""
    while True:
        own[0] = max(own[0], status("RssAnon"))
        time.sleep(0.02)


def status(key: str) -> float:
    """Return a figure of this process in MiB, as Linux tells it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024


if __name__ == "__main__":
    typer.run(main)
