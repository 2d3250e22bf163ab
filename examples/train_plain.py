"""A method in one file, with the package's own parts: python examples/train_plain.py IMAGES N_CLASSES.

PiCIE as `contextseg fit --method picie` trains it, without run folder, resume, precision and progress.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F

from contextseg.clustering.kmeans import KMeans, scores
from contextseg.clustering.sampling import sample_cells
from contextseg.data.cache import ImageCache
from contextseg.data.image_files import list_images
from contextseg.models.backbone import Backbone
from contextseg.models.embedding import PixelEmbedding
from contextseg.settings import BackboneSettings, ViewSettings
from contextseg.views.geometry import whole_coordinates
from contextseg.views.siamese import siamese_batch

root, n_classes = Path(sys.argv[1]), int(sys.argv[2])
n_epochs, batch_size, temperature, seed = 2, 8, 0.1, 0
torch.manual_seed(seed)
views = ViewSettings(frame_px=64)

with TemporaryDirectory() as folder:
    # images
    cache = ImageCache.build(list_images(root), root, Path(folder), shorter_px=64)
    images = [torch.from_numpy(cache[i]).movedim(-1, 0) for i in range(len(cache))]

    # embeddings
    embedding = PixelEmbedding(Backbone(BackboneSettings(name="test_resnet")), dim=64)
    optimizer = torch.optim.Adam(embedding.parameters(), lr=1e-3)

    def embedded_batches(epoch: int):
        """Yield the pixel embeddings of both views, position by position the same points of the scene."""
        order = np.random.default_rng([seed, epoch]).permutation(len(images))
        for indices in order[: len(order) // batch_size * batch_size].reshape(-1, batch_size).tolist():
            batch = siamese_batch([images[i] for i in indices], indices, seed=seed, epoch=epoch, settings=views)
            yield batch.embed(embedding), indices

    for epoch in range(n_epochs):
        # clusters: k-means of each view; the centres stay for the epoch
        with torch.no_grad():
            samples = [
                [sample_cells(view, indices, (seed, "cells", epoch), 200) for view in both]
                for both, indices in embedded_batches(epoch)
            ]
        centers = [KMeans(n_classes, seed=epoch).fit(view).centers_ for view in zip(*samples, strict=True)]

        # each view is to be classified as its own nearest centre says, and as that of the other view
        for both, _ in embedded_batches(epoch):
            points = [view.movedim(1, -1).flatten(0, -2) for view in both]
            labels = [(own @ center.T).argmax(1) for own, center in zip(points, centers, strict=True)]
            loss = sum(
                F.cross_entropy(own @ centers[target].T / temperature, labels[target]) / 4
                for own in points
                for target in range(2)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

    # classes: the whole images, clustered afresh; a mask for the first
    embedding.eval()
    with torch.inference_mode():
        embedded = [
            embedding(image[None].float() / 255, whole_coordinates(image.shape[1] // 4, image.shape[2] // 4)[None])
            for image in images
        ]
        kmeans = KMeans(n_classes, seed=seed).fit(e.flatten(2)[0].T for e in embedded)
        mask = scores(embedded[0].flatten(2)[0].T, kmeans.centers_).argmax(1).reshape(embedded[0].shape[-2:])
    print(f"mask of {cache.names[0]}: {tuple(mask.shape)} cells, classes {sorted(set(mask.flatten().tolist()))}")
