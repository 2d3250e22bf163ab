"""Where the time of training and prediction goes, beside the arithmetic that they cannot do without, in one run.

    python benchmarks/speed.py [--backbone mobilenetv2_100] [--px 160] [--images 256] [--epochs 3] [--only picie]

Generated scenes, random weights. The **floor** of a training step is the forward pass of the bare backbone and decoder
on two views that lie on the device, the backward pass and the optimiser, measured before and after each row; that of
prediction, of scenes as PNG, as JPEG and enlarged to photographs, is the forward pass of what was trained on such
images. Times are medians over the epochs after the first; the start of `context`, which comes once, has a column of its
own. "own-schedule" is PiCIE's: it finds the centres in all cells of all views, and stores the labels of every view on
disk, in passes of their own.
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import typer
from lightning_fabric import Fabric
from PIL import Image
from rich.console import Console
from torch import Tensor

from contextseg import verbs
from contextseg.clustering.kmeans import KMeans
from contextseg.conventions import SIZE_MULTIPLE_PX, STRIDE_PX
from contextseg.data.image_files import list_images
from contextseg.data.images import read_image
from contextseg.data.scenes import write_scenes
from contextseg.memory import keep_freed_memory
from contextseg.methods import METHODS
from contextseg.methods.context import Context
from contextseg.methods.method import Method, TrainingImages
from contextseg.methods.picie import Picie
from contextseg.models.backbone import Backbone
from contextseg.models.context import ContextEmbedding
from contextseg.models.embedding import PixelEmbedding
from contextseg.precision import choose_precision, half_precision
from contextseg.predictor import Predictor
from contextseg.settings import Settings, make_settings
from contextseg.training import fit
from contextseg.training import images as images_of_a_run
from contextseg.views.siamese import SiameseBatch

BATCH, TURNS = 16, 5  # of the forward pass beside prediction
PHOTOGRAPH = 4000, 3000  # width and height of what a telephone takes
CLUSTERING, AFTERWARDS = "clustering", "afterwards"
TRAINING = ("views", "forward", "loss", "backward", "optimiser")
console = Console(width=130)


class Stopwatch:
    """Charges time to the innermost of the parts that are running; clustering keeps all that it calls.

    Attributes:
        epochs: seconds of each part, for each epoch.
    """

    def __init__(self) -> None:
        self.epochs: list[Counter[str]] = []
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Charge the time of a block to a part."""
        self._charge()
        whole = [part for part in (CLUSTERING, AFTERWARDS) if part in self._running]
        self._running.append(whole[0] if whole else name)
        try:
            yield
        finally:
            self._charge()
            self._running.pop()

    def _charge(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self.epochs:
            self.epochs[-1][self._running[-1] if self._running else "other"] += now - self._since
        self._since = now

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Let a function charge its time to a part; clustering begins an epoch, what comes afterwards ends the last."""
        function: Callable[..., Any] = getattr(owner, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            if part in (CLUSTERING, AFTERWARDS):
                self._charge()
                self.epochs.append(Counter())
            with self.part(part):
                return function(*arguments, **options)

        setattr(owner, name, watched)


class OwnSchedule(Picie):
    """PiCIE with its own passes: centres, then the labels of all views to disk, then training on what is read back.

    Its k-means takes all cells of its first 20 batches of 256 images, one start and 20 iterations, and moves the
    centres by the batches that follow.
    """

    folder: Path

    def begin_epoch(self, epoch: int, images: TrainingImages) -> None:
        """Find the centres, in a pass over all images, and write the labels of both views in another."""
        self.use_K.zero_()
        n_held = 20 * 256 * (self.settings.views.frame_px // STRIDE_PX) ** 2
        seed, n_classes = self.settings.seed + epoch, self.settings.n_classes
        kmeans = [KMeans(n_classes, seed=seed, max_points=n_held, n_restarts=1, max_iter=20) for _ in range(2)]
        for batch in images.batches(epoch):
            for clusters, embedded_BDhw in zip(kmeans, batch.embed(self.embedding), strict=True):
                clusters.observe(embedded_BDhw.movedim(1, -1).flatten(0, -2))
        self.centers_VKD.copy_(torch.stack([clusters.finish().centers_ for clusters in kmeans]))
        for batch in images.batches(epoch):
            for view, embedded_BDhw in enumerate(batch.embed(self.embedding)):
                labels_Bhw = torch.einsum("bdhw,kd->bkhw", embedded_BDhw, self.centers_VKD[view]).argmax(1)
                for index, labels_hw in zip(batch.indices, labels_Bhw.byte().cpu().numpy(), strict=True):
                    np.save(self.folder / f"{index}-{view}.npy", labels_hw)

    def forward(self, batch: SiameseBatch) -> dict[str, Tensor]:
        """Read the labels; those that the loss uses are as many, and from the same centres."""
        for view in range(2):
            for index in batch.indices:
                torch.from_numpy(np.load(self.folder / f"{index}-{view}.npy")).to(self.centers_VKD.device).long()
        return super().forward(batch)


ROWS: dict[str, type[Method]] = {"picie": Picie, "own-schedule": OwnSchedule, "context": Context}


def main(
    backbone: str = "mobilenetv2_100",
    px: Annotated[int, typer.Option(help="Shorter side of the images.")] = 160,
    frame_px: Annotated[int, typer.Option(help="Side of the square that is trained on.")] = 128,
    images: Annotated[int, typer.Option(help="How many scenes.")] = 256,
    epochs: Annotated[int, typer.Option(help="Epochs of each method; the first one is left out.")] = 3,
    classes: Annotated[int, typer.Option(help="K.")] = 27,
    device: str = "cpu",
    only: Annotated[str, typer.Option(help="Names of rows, with commas.")] = ",".join(ROWS),
) -> None:
    keep_freed_memory()  # as the command line does
    values = {
        "n_classes": classes,
        "backbone": {"name": backbone},
        "data": {"image_px": px},
        "views": {"frame_px": frame_px},
        "training": {"epochs": epochs, "accelerator": device},
        # as from a trained start, where places are grouped once
        "context": {"guidance": {"teacher": "start"}, "clusters_per_class": 4},
    }
    precision = choose_precision("auto", torch.device(device))
    console.print(f"{backbone}, {px} px, squares {frame_px} px, K = {classes}, {images} images, {device}, {precision}, "
                  f"{torch.get_num_threads()} threads")  # fmt: skip
    with TemporaryDirectory() as folder:
        root = Path(folder)
        write_scenes(
            root / "scenes", images, seed=0, size=(px, round(px * 4 / 3 / SIZE_MULTIPLE_PX) * SIZE_MULTIPLE_PX)
        )
        OwnSchedule.folder = root
        plain = {key: value for key, value in values.items() if key != "context"} | {"method": "picie"}
        bare_step = make_bare_step(make_settings(plain), device)
        console.print("| | s an epoch | bare step, ms | floor % | start, s | clustering | "
                      + " | ".join(TRAINING) + " | other |")  # fmt: skip
        console.print("|---" * (7 + len(TRAINING)) + "|---|")
        for name in only.split(","):
            own = make_settings(values if ROWS[name] is Context else plain)
            report_epochs(name, ROWS[name], own, root / "scenes" / "images", root / name, bare_step)
        if "context" in only.split(","):
            paths = list_images(root / "scenes" / "images")
            scenes = [Image.fromarray(read_image(path)) for path in paths]
            photographs = [scene.resize(PHOTOGRAPH, Image.Resampling.BICUBIC) for scene in scenes[:BATCH]]
            # scenes are noisy, and so hard to pack: photographs come as JPEG
            for name, pictures in {"a.png": scenes, "a.jpg": scenes, "12-megapixels.jpg": photographs}.items():
                report_prediction(root / "context", as_files(pictures, root / name), device)


def as_files(pictures: list[Image.Image], kind: Path) -> Path:
    """Return a new folder of pictures as files, named by the kind of file, such as ``a.png``."""
    kind.mkdir()
    for index, picture in enumerate(pictures):
        picture.save(kind / f"{index}{kind.suffix}", quality=90)
    return kind


def make_bare_step(settings: Settings, device: str) -> Callable[[], None]:
    """Return a step of the bare network."""
    fabric = Fabric(accelerator=device, devices=1, precision=choose_precision("auto", torch.device(device)))
    network = PixelEmbedding(Backbone(settings.backbone), settings.picie.dim).to(memory_format=torch.channels_last)
    wrapped, optimizer = fabric.setup(network, torch.optim.Adam(network.parameters(), lr=1e-4, fused=True))
    side = settings.views.frame_px
    view = torch.rand(settings.training.batch_size, 3, side, side).contiguous(memory_format=torch.channels_last)
    view, where = view.to(fabric.device), torch.zeros(len(view), 2, side // 4, side // 4, device=fabric.device)

    def step() -> None:
        fabric.backward(wrapped(view, where).mean() + wrapped(view, where).mean())
        optimizer.step()
        optimizer.zero_grad()

    return step


def report_epochs(
    name: str, method: type[Method], settings: Settings, images: Path, out: Path, bare_step: Callable[[], None]
) -> None:
    """Train, and print where the time of an epoch went."""
    watch, kept = Stopwatch(), METHODS[settings.method]
    watched = type(method.__name__, (method,), {})  # its own attributes, so that nothing is watched twice
    watch.watch(watched, "begin_epoch", CLUSTERING)
    watch.watch(watched, "forward", "loss")
    METHODS[settings.method] = watched
    changed: list[tuple[Any, str, str]] = [
        (PixelEmbedding, "forward", "forward"),
        (ContextEmbedding, "forward", "forward"),
        (images_of_a_run, "siamese_batch", "views"),
        (Fabric, "backward", "backward"),
        (torch.optim.Adam, "step", "optimiser"),
        (fit, "final_clusters", AFTERWARDS),
    ]
    before = [getattr(owner, function) for owner, function, _ in changed]
    for one in changed:
        watch.watch(*one)
    steps_s = seconds(bare_step, 10)
    try:
        verbs.fit(images, out, settings)
    finally:
        METHODS[settings.method] = kept
        for (owner, function, _), original in zip(changed, before, strict=True):
            setattr(owner, function, original)
    later = sorted(watch.epochs[1:-1], key=lambda epoch: epoch.total())
    epoch = later[(len(later) - 1) // 2]
    step_s = statistics.median(steps_s + seconds(bare_step, 10))
    n_steps = len(list_images(images)) // settings.training.batch_size
    share = {part: f"{100 * epoch[part] / epoch.total():.0f} %" for part in (CLUSTERING, *TRAINING, "other")}
    start_s = watch.epochs[0][CLUSTERING]
    floor_share = f"**{100 * n_steps * step_s / epoch.total():.0f}**"
    figures = [f"{epoch.total():.1f}", f"{1000 * step_s:.0f}", floor_share, f"{start_s:.1f}", *share.values()]
    console.print(f"| {name} | {' | '.join(figures)} |")


def report_prediction(run: Path, images: Path, device: str) -> None:
    """Predict a folder, files included, beside the forward pass of the network on as many images of that size.

    The pass is that of the network as it is trained, of any weights; that of the one which predicts, whose batch norms
    are folded, is given as well. They come in turn, each for seconds, since the rate of a machine drifts: a share is
    the median over the turns. In float32, and in half precision where the hardware multiplies in it.
    """
    folder = verbs.RunFolder.open(run)
    settings = folder.settings()
    trained = METHODS[settings.method](settings, load_start=False).to(device).eval().embedding
    trained = trained.to(memory_format=torch.channels_last)
    predictor, paths = Predictor.load(folder, device=device), list_images(images)
    folded = predictor.embedding
    height, width = predictor.resized(read_image(paths[0])).shape[1:]
    batch = torch.rand(BATCH, 3, height, width, device=device).contiguous(memory_format=torch.channels_last)
    where = torch.zeros(BATCH, 2, height // 4, width // 4, device=device)
    n_batches = max(1, len(paths) // BATCH)
    place = torch.device(device)
    dtypes = [None] if choose_precision("auto", place) == "32-true" else [None, half_precision(place)]
    for dtype in dtypes:
        half = dtype is not None
        bare_s, folded_s, predict_s = [], [], []
        for turn in range(TURNS):
            with torch.inference_mode(), torch.autocast(place.type, dtype, enabled=half):
                bare_s.append(statistics.mean(seconds(lambda: trained(batch, where), n_batches)) / BATCH)
                folded_s.append(statistics.mean(seconds(lambda: folded(batch, where), n_batches)) / BATCH)
            began = time.perf_counter()
            verbs.predict(run, images, run / f"masks-{images.name}-{turn}-{half}", half=half, device=device)
            predict_s.append((time.perf_counter() - began) / len(paths))
        rate, bare, fold = (1 / statistics.median(took) for took in (predict_s, bare_s, folded_s))
        of_bare, of_folded = (
            [100 * own / s for own, s in zip(took, predict_s, strict=True)] for took in (bare_s, folded_s)
        )
        console.print(
            f"predict, {images.name}{', half precision' if half else ''}: {rate:.1f} images/s; "
            f"the forward pass at batch {BATCH} {bare:.1f} ({statistics.median(of_bare):.0f} %, {min(of_bare):.0f} to "
            f"{max(of_bare):.0f}), with folded norms {fold:.1f} ({statistics.median(of_folded):.0f} %)"
        )


def seconds(function: Callable[[], object], times: int) -> list[float]:
    """Return the seconds of each of some calls, after one that is not counted."""
    found = []
    for _ in range(times + 1):
        began = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return found[1:]


if __name__ == "__main__":
    typer.run(main)
