"""`split`: one cluster of a run becomes several, in a new run; nothing is trained."""

from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import load_file, save
from torch import Tensor

from contextseg.classes import Classes
from contextseg.clustering.kmeans import KMeans, scores
from contextseg.errors import ClassesError
from contextseg.files import write_atomically
from contextseg.fresh_clusters import cell_points
from contextseg.methods.method import Method
from contextseg.predictor import Predictor
from contextseg.run_folder import RunFolder, check_empty


def split(
    run: str | Path,
    images: str | Path,
    cluster: int,
    out: str | Path,
    *,
    into: int = 2,
    device: str = "cpu",
    console: Console | None = None,
) -> RunFolder:
    """Write a run in which k-means has divided one cluster by the embeddings of its cells; no label is read.

    The first part keeps the id, name and colour, the others are new classes after the last. The other clusters
    stay as they are, but pixels at their borders with it may change sides, since the parts have centres of their own.
    The given run is left alone, so a split that does not please is undone by deleting the new one.

    Args:
        run: a finished run.
        images: a folder of images that show the cluster, such as those of the training.
        cluster: its id.
        out: a new or empty folder.
        into: how many parts.
        device: where the network runs.
        console: where progress is shown; nowhere by default.

    Raises:
        RunError: the run is not finished, or `out` holds something.
        ClassesError: there is no such cluster.
        DataError: there are no images.
        TrainingError: they show fewer cells of the cluster than there are parts.
    """
    run, images, out = Path(run), Path(images), Path(out)
    folder = RunFolder.open(run)
    predictor = Predictor.load(folder, device=device)
    settings, centers_KD = predictor.settings, predictor.centers.cpu()
    if not 0 <= cluster < len(centers_KD):
        raise ClassesError(f"there is no cluster {cluster}; ids go from 0 to {len(centers_KD) - 1}")
    classes = Classes.read(folder.classes, settings.n_classes)
    check_empty(out)
    points = cell_points(predictor, images, console or Console(quiet=True))
    own = (points_ND[_clusters(predictor.method, points_ND, centers_KD) == cluster] for points_ND in points)
    kmeans = KMeans(into, seed=settings.seed, spherical=predictor.spherical, **settings.clustering.model_dump())
    parts_PD = kmeans.fit(own).centers_
    centers_KD = torch.cat([centers_KD[:cluster], parts_PD[:1], centers_KD[cluster + 1 :], parts_PD[1:]])
    made = RunFolder.create(out, settings.model_copy(update={"n_classes": len(centers_KD)}))
    classes.extended(len(centers_KD)).write(made.classes)
    made.write_json("meta.json", folder.meta() | {"split": {"run": str(run), "cluster": cluster, "into": into}})
    network = load_file(folder.weights) | {"centers": centers_KD.cpu().contiguous()}
    write_atomically(made.weights, save(network, {"epochs": str(settings.training.epochs)}))
    return made


def _clusters(method: Method, points_ND: Tensor, centers_KD: Tensor) -> Tensor:
    """Return the cluster of some points of an image, (N,) int64, as it is predicted."""
    return scores(points_ND, method.centers_within(points_ND[None], centers_KD)[0]).argmax(1)
