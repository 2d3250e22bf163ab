"""What an evaluation costs: memory as the images go by, and where the time goes.

    python benchmarks/evaluation.py [--images 5000] [--classes 27] [--backbone mobilenetv2_100] [--device cpu]

Needs the extra `bench`. Evaluates K clusters of an untrained network (`kmeans`) on N generated images of 640 x 480 with
27 classes, one after the other, by `contextseg.evaluate` itself; a few images are there under many names. The memory of
the process is read after 500 images and after all. "other" is what is left: progress and the loop.
"""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import psutil
import torch
import typer
from PIL import Image
from rich.console import Console

from contextseg import verbs
from contextseg.data.labelled import LabelledImages
from contextseg.data.scenes import write_scenes
from contextseg.evaluation.boundaries import BoundaryCounts
from contextseg.evaluation.counts import ConfusionCounts
from contextseg.predictor import Predictor
from contextseg.settings import make_settings

N_CLASSES = 27
SIZE = (480, 640)
_DIFFERENT = 32  # at least as many as clusters, which are learnt from them
_MARK = 500
console = Console(width=120)


def main(
    images: Annotated[int, typer.Option(help="How many are evaluated.")] = 5000,
    classes: Annotated[int, typer.Option(help="K.")] = N_CLASSES,
    backbone: str = "mobilenetv2_100",
    device: str = "cpu",
) -> None:
    spent: Counter[str] = Counter()
    memory: dict[int, float] = {}
    measure(Predictor, "score", "network", spent)
    measure(verbs, "best_ids", "scores to the size of the image, best cluster", spent)
    measure(LabelledImages, "read", "reading images and labels", spent)
    measure(ConfusionCounts, "update", "counting pixels", spent)
    measure(BoundaryCounts, "update", "counting boundaries", spent)
    note_memory(BoundaryCounts, "update", memory)
    with TemporaryDirectory() as folder:
        write_images(Path(folder) / "data", images)
        values = {"n_classes": classes, "method": "kmeans", "backbone": {"name": backbone}}
        run = verbs.fit(Path(folder) / "some", Path(folder) / "run", make_settings(values))
        spent.clear()
        began = time.perf_counter()
        verbs.evaluate(run.path, Path(folder) / "data", device=device, console=console)
        spent["other"] = time.perf_counter() - began - spent.total()
    mark = _MARK if images > _MARK else images // 2
    console.print(
        f"N = {images}, 640 x 480, K = {classes}, C = {N_CLASSES}, {backbone}, {device}, "
        f"{torch.get_num_threads()} threads"
    )
    console.print(f"memory: {memory[mark]:.0f} MiB after {mark} images, {memory[images]:.0f} MiB after {images}")
    console.print("| | ms per image | share % |")
    console.print("|---|---|---|")
    for name, seconds in spent.most_common():
        console.print(f"| {name} | {1000 * seconds / images:.1f} | {100 * seconds / spent.total():.1f} |")


def measure(owner: Any, name: str, title: str, spent: Counter[str]) -> None:
    """Let a function add the time it takes."""
    function: Callable[..., Any] = getattr(owner, name)

    def measured(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            spent[title] += time.perf_counter() - began

    setattr(owner, name, measured)


def note_memory(owner: Any, name: str, memory: dict[int, float]) -> None:
    """Let a function, called once for each image, note the memory of this process after each."""
    function, process = getattr(owner, name), psutil.Process()

    def noted(*arguments: Any) -> None:
        function(*arguments)
        memory[len(memory) + 1] = process.memory_info().rss / 2**20

    setattr(owner, name, noted)


def write_images(root: Path, n: int) -> None:
    """Write a labelled set of n names for a few scenes, with 27 classes, and the scenes themselves beside it."""
    write_scenes(root.parent / "scenes", _DIFFERENT, seed=0, size=SIZE)
    (root.parent / "some").mkdir()
    for index in range(_DIFFERENT):
        path = root.parent / "scenes" / "labels" / f"{index:04d}.png"
        with Image.open(path) as label:
            six = np.asarray(label)
        # Parts of a class in different parts of the image get names of their own: as many classes as COCO-Stuff's.
        rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
        parts = six + 6 * (rows * 2 // SIZE[0]) + 12 * (columns * 2 // SIZE[1])
        Image.fromarray((parts % N_CLASSES).astype(np.uint8)).save(path)
        source = root.parent / "scenes" / "images" / f"{index:04d}.png"
        with Image.open(source) as image:
            image.save(root.parent / "some" / f"{index:04d}.jpg", quality=90)
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for number in range(n):
        some = f"{number % _DIFFERENT:04d}"
        (root / "images" / f"{number:06d}.jpg").symlink_to(root.parent / "some" / f"{some}.jpg")
        (root / "labels" / f"{number:06d}.png").symlink_to(root.parent / "scenes" / "labels" / f"{some}.png")


if __name__ == "__main__":
    typer.run(main)
