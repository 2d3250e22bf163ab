"""Draws docs/method.png from generated scenes: python docs/method_figure.py. No download is needed.

From left to right: the image, its places by their holistic label, the cluster that each pixel joins under guidance,
and what is predicted, for a short run from random weights.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from safetensors.torch import load_file

from contextseg import verbs
from contextseg.colours import palette
from contextseg.data.images import read_image
from contextseg.data.labelled import open_labelled
from contextseg.data.scenes import CLASSES, write_scenes
from contextseg.demo import SCHEDULE, VIEWS
from contextseg.export.contact_sheet import contact_sheet
from contextseg.export.indexed_png import colourise
from contextseg.predictor import Predictor
from contextseg.settings import make_settings
from contextseg.views.geometry import whole_coordinates

N_SHOWN = 4


def main() -> None:
    """Train, look into the checkpoint, and draw."""
    with TemporaryDirectory() as folder:
        scenes, run = Path(folder) / "scenes", Path(folder) / "run"
        write_scenes(scenes, 120, seed=0)
        values = {"n_classes": len(CLASSES), "data": {"image_px": 128}, "views": VIEWS, **SCHEDULE}
        settings = make_settings(values)
        verbs.fit(scenes, run, settings)
        predictor = Predictor.load(verbs.RunFolder.open(run))
        state = load_file(run / "checkpoint.safetensors")
        holistic_ngg, certainty_ngg, centers_KD = (
            next(value for key, value in state.items() if key.endswith(name))
            for name in ("holistic_ngg", "certainty_ngg", "centers_KD")
        )
        colours = palette(len(CLASSES))
        rows = []
        for index, item in enumerate(open_labelled(scenes).items[:N_SHOWN]):
            image = read_image(item.image)
            pixels = torch.from_numpy(image).movedim(-1, 0)[None].float() / 255
            coordinates = whole_coordinates(image.shape[0] // 4, image.shape[1] // 4)[None]
            with torch.inference_mode():
                cosines_hwK = predictor.embedding(pixels, coordinates)[0].movedim(0, -1) @ centers_KD.T
            labels, certainty = (
                enlarged(places_ngg[index].numpy(), cosines_hwK.shape[:2])
                for places_ngg in (holistic_ngg, certainty_ngg)
            )
            say_hwK = settings.context.guidance.strength * certainty[..., None] * np.eye(len(centers_KD))[labels]
            joined = cosines_hwK.numpy() / settings.context.temperature + say_hwK
            maps = (colourise(enlarged(cells, image.shape[:2]), colours) for cells in (labels, joined.argmax(-1)))
            rows.append([image, *maps, colourise(predictor.predict(image).clusters, colours)])
    headings = ["image", "holistic labels of its places", "class that a pixel joins", "predicted"]
    contact_sheet(rows, headings, Path(__file__).with_name("method.png"))


def enlarged(cells: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return the map at another size, each place the value of the cell that it lies in."""
    rows, columns = (np.arange(new) * old // new for old, new in zip(cells.shape, size, strict=True))
    return cells[rows][:, columns]


if __name__ == "__main__":
    main()
