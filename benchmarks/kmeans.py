"""Our spherical k-means beside faiss's and scikit-learn's mini-batches, on the same features: inertia and seconds.

    python benchmarks/kmeans.py IMAGES [--weights FILE] [--points 100000] [--clusters 27] [--seeds 3] [--sklearn]

Needs the extra `bench`. Features of real images; where they have fewer cells than points are asked for, the rest are
those again with noise. Inertia is computed here, by one function, from the centres of each; a lower one is better.
Both have as many starts and iterations; faiss starts from random points, ours by k-means++.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import faiss
import numpy as np
import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from sklearn.cluster import MiniBatchKMeans

from contextseg.clustering.kmeans import KMeans, scores
from contextseg.clustering.sampling import points_per_image, sample_cells
from contextseg.data.cache import ImageCache
from contextseg.data.image_files import list_images
from contextseg.models.backbone import Backbone
from contextseg.models.embedding import BackboneFeatures
from contextseg.settings import BackboneSettings
from contextseg.training.images import whole_images

_NOISE = 0.5  # length of what is added to a unit vector that comes again


def main(
    images: Path,
    weights: Annotated[Path | None, typer.Option(help="Checkpoint of the backbone; random without.")] = None,
    backbone: str = "mobilenetv2_100",
    points: int = 100_000,
    clusters: int = 27,
    restarts: int = 3,
    iterations: int = 50,
    seeds: int = 3,
    sklearn: bool = False,
) -> None:
    features = embed(images, BackboneSettings(name=backbone, weights=weights), points)
    threads = torch.get_num_threads()
    faiss.omp_set_num_threads(threads)
    rows = {
        "contextseg": lambda seed: ours(features, clusters, seed, restarts, iterations),
        "faiss": lambda seed: theirs(features, clusters, seed, restarts, iterations),
    }
    if sklearn:
        rows["scikit-learn, mini-batches"] = lambda seed: mini_batches(features, clusters, seed, restarts)
    console = Console(width=100)
    n, dim = features.shape
    console.print(
        f"N = {n}, D = {dim}, K = {clusters}, {restarts} starts, <= {iterations} iterations, {threads} threads"
    )
    console.print(f"| | inertia, mean of {seeds} seeds | spread | seconds, median | points/s |")
    console.print("|---|---|---|---|---|")
    for name, cluster in rows.items():
        inertias, seconds = zip(*(measure(cluster, features, seed) for seed in range(seeds)), strict=True)
        spread, median_s = statistics.stdev(inertias) if seeds > 1 else 0.0, statistics.median(seconds)
        console.print(
            f"| {name} | {statistics.mean(inertias):.1f} | {spread:.1f} | {median_s:.1f} | {n / median_s:.0f} |"
        )


def measure(cluster: Callable[[int], torch.Tensor], features: torch.Tensor, seed: int) -> tuple[float, float]:
    began = time.perf_counter()
    centers = cluster(seed)
    seconds = time.perf_counter() - began
    best = torch.cat([scores(chunk, centers).max(1).values for chunk in features.split(65_536)])
    return float((features.square().sum(1) - 2 * best).double().sum()), seconds


def ours(features: torch.Tensor, clusters: int, seed: int, restarts: int, iterations: int) -> torch.Tensor:
    kmeans = KMeans(clusters, seed=seed, max_points=len(features), n_restarts=restarts, max_iter=iterations)
    return kmeans.fit([features]).centers_


def theirs(features: torch.Tensor, clusters: int, seed: int, restarts: int, iterations: int) -> torch.Tensor:
    kmeans = faiss.Kmeans(
        features.shape[1],
        clusters,
        niter=iterations,
        nredo=restarts,
        spherical=True,
        seed=seed + 1,
        max_points_per_centroid=len(features),
    )
    kmeans.train(features.numpy())
    return torch.from_numpy(np.asarray(kmeans.centroids))


def mini_batches(features: torch.Tensor, clusters: int, seed: int, restarts: int) -> torch.Tensor:
    kmeans = MiniBatchKMeans(clusters, n_init=restarts, random_state=seed, batch_size=16_384)
    kmeans.fit(features.numpy())
    return F.normalize(torch.from_numpy(kmeans.cluster_centers_).float(), dim=1)


@torch.inference_mode()
def embed(images: Path, settings: BackboneSettings, points: int) -> torch.Tensor:
    """Return `points` features of the images, reduced to 128 dimensions by a random projection, of unit length."""
    torch.manual_seed(0)
    embedding = BackboneFeatures(Backbone(settings), (16, 32)).eval()
    with TemporaryDirectory() as folder:
        cache = ImageCache.build(list_images(images), images, Path(folder), shorter_px=160)
        per_image = points_per_image(points, len(cache))
        sampled = [
            sample_cells(embedding(batch, coordinates), indices, (0, "benchmark", 0), per_image)
            for indices, batch, coordinates in whole_images(cache, torch.device("cpu"))
        ]
    features = torch.cat(sampled)
    features = F.normalize(features @ torch.randn(features.shape[1], 128), dim=1)
    again = features[torch.randint(len(features), (max(0, points - len(features)),))]
    noise = _NOISE * F.normalize(torch.randn_like(again), dim=1)
    return torch.cat([features, F.normalize(again + noise, dim=1)])


if __name__ == "__main__":
    typer.run(main)
