"""A run as one ONNX file: RGB pixels of any size in, class and confidence of each pixel out, nothing else needed.

The file holds what `predict` does: the resize to the run's size, the network, the scores, their way back to the
image's own size, and what a person has merged and hidden. Two things differ. It does not tile, so an image longer than
a tile after the resize (over 4.5 to 1 by default) is embedded whole; and the resize is ONNX's, which rounds some pixels
to the neighbouring grey level, and weighs all pixels where `resize` takes means of some first, in an image of four
times the size or more: about one pixel in five hundred gets another class there.

The first and the last part are written in ONNX's own text form; the network is exported by torch and merged between
them.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contextseg.classes import Classes
from contextseg.clustering.kmeans import scores
from contextseg.conventions import SIZE_MULTIPLE_PX, STRIDE_PX, ignore_value
from contextseg.extras import import_extra
from contextseg.files import write_atomically
from contextseg.methods.method import Method
from contextseg.pixel_clusters import CONFIDENCE_TEMPERATURE
from contextseg.predictor import LONGEST_STRIP, Predictor
from contextseg.views.geometry import whole_coordinates

OPSET = 20
_IR_VERSION = 10
_HEADER = f'<ir_version: {_IR_VERSION}, opset_import: ["" : {OPSET}]>'
_RESIZE = (
    'mode="cubic", cubic_coeff_a=-0.5, antialias=1, exclude_outside=1, coordinate_transformation_mode="half_pixel"'
)

# As `training_size` and `Predictor._working_size`; width before height, with whole grey levels between, as Pillow does.
# ONNX Runtime up to 1.23 at least must be told that a size has four numbers.
_FROM_PIXELS = """{header}
before (uint8[H, W, 3] pixels) => (float[1, 3, h, w] image, int64[2] size)
<int64[1] px = {{{px}}}, int64[1] multiple = {{{multiple}}}, int64[1] two = {{2}}, int64[1] one = {{1}},
 int64[1] strip = {{{strip}}}, int64[2] head = {{1, 3}}, int64[1] batch = {{0}},
 int64[1] four = {{4}}, float low = {{0}}, float high = {{255}}>
{{
    size = Shape <start = 0, end = 2> (pixels)
    H1, W1 = Split <num_outputs = 2> (size)
    shorter = Min (H1, W1)
    longer = Max (H1, W1)
    scaled = Mul (longer, px)
    doubled = Mul (scaled, two)
    half_step = Mul (shorter, multiple)
    numerator = Add (doubled, half_step)
    denominator = Mul (half_step, two)
    steps = Div (numerator, denominator)
    longer_px = Mul (steps, multiple)
    less_one = Sub (multiple, one)
    padded = Add (longer, less_one)
    covering = Div (padded, multiple)
    own_px = Mul (covering, multiple)
    longest = Max (strip, own_px)
    longer_kept = Min (longer_px, longest)
    shorter_kept = Min (px, longest)
    wide = LessOrEqual (H1, W1)
    h1 = Where (wide, shorter_kept, longer_kept)
    w1 = Where (wide, longer_kept, shorter_kept)
    numbers = Cast <to = 1> (pixels)
    planes = Transpose <perm = [2, 0, 1]> (numbers)
    whole = Unsqueeze (planes, batch)
    narrow_sides = Concat <axis = 0> (head, H1, w1)
    narrow_size = Reshape (narrow_sides, four)
    narrow = Resize <{resize}> (whole, , , narrow_size)
    narrow_levels = Round (narrow)
    narrow_clipped = Clip (narrow_levels, low, high)
    small_sides = Concat <axis = 0> (head, h1, w1)
    small_size = Reshape (small_sides, four)
    small = Resize <{resize}> (narrow_clipped, , , small_size)
    small_levels = Round (small)
    small_clipped = Clip (small_levels, low, high)
    image = Div (small_clipped, high)
}}"""
_TO_CLUSTERS = """{header}
after (float[1, K, hs, ws] scores, int64[2] size) => ({kind}[H, W] classes, float[H, W] confidence)
<int64[2] one_map = {{1, {n_clusters}}}, int64[1] of_clusters = {{1}}, int64[1] one_image = {{0}},
 {kind}[{n_clusters}] class_of_cluster = {{{class_of_cluster}}}, float temperature = {{{temperature}}}>
{{
    full_size = Concat <axis = 0> (one_map, size)
    full = Resize <mode="linear", coordinate_transformation_mode="half_pixel"> (scores, , , full_size)
    ids = ArgMax <axis = 1, keepdims = 0> (full)
    clusters = Squeeze (ids, one_image)
    classes = Gather (class_of_cluster, clusters)
    best = ReduceMax <keepdims = 1> (full, of_clusters)
    behind = Sub (full, best)
    logits = Div (behind, temperature)
    odds = Exp (logits)
    total = ReduceSum <keepdims = 0> (odds, of_clusters)
    probability = Reciprocal (total)
    confidence = Squeeze (probability, one_image)
}}"""


class _Scorer(nn.Module):
    """Image to scores: what torch exports."""

    def __init__(self, method: Method, centers_KD: Tensor) -> None:
        super().__init__()
        self.method = method
        self.register_buffer("centers_KD", centers_KD)

    def forward(self, image: Tensor) -> Tensor:
        height, width = (side // STRIDE_PX for side in image.shape[-2:])
        points_1ND = self.method.embedding(image, whole_coordinates(height, width)[None]).flatten(2).mT
        centers_KD = self.method.centers_within(points_1ND, self.get_buffer("centers_KD"))[0]
        scores_Khw: Tensor = scores(points_1ND[0], centers_KD).T.unflatten(1, (height, width))
        return scores_Khw[None]


def write_onnx(predictor: Predictor, path: Path, classes: Classes) -> None:
    """Write a predictor as one ONNX file.

    Input ``pixels``: uint8 (H, W, 3) RGB of any size. Outputs ``classes``: (H, W), what a mask of `predict` holds: ids
    of classes, merges followed, 255 for hidden ones (uint16 and 65535 above 255 classes); ``confidence``: float32
    (H, W), as `Prediction` has it. The file's metadata hold ``classes``, the content of classes.json.

    Args:
        predictor: of a finished run, on the CPU.
        path: the file to write.
        classes: names, colours, merges and hidden classes.

    Raises:
        LibraryError: ONNX, or what torch's exporter needs of it, is not installed.
    """
    onnx = import_extra("onnx", "onnx")
    import_extra("onnxscript", "onnx")
    values_K = classes.values(background=ignore_value(len(classes.entries)))
    before = _FROM_PIXELS.format(
        header=_HEADER,
        px=predictor.settings.data.image_px,
        multiple=SIZE_MULTIPLE_PX,
        strip=LONGEST_STRIP * predictor.settings.data.image_px,
        resize=_RESIZE,
    )
    after = _TO_CLUSTERS.format(
        header=_HEADER,
        n_clusters=len(values_K),
        class_of_cluster=", ".join(map(str, values_K)),
        temperature=CONFIDENCE_TEMPERATURE,
        kind=values_K.dtype.name,
    )
    network = onnx.compose.add_prefix(_exported(predictor), "network/", rename_inputs=False, rename_outputs=False)
    model = onnx.compose.merge_models(
        onnx.parser.parse_model(before), network, io_map=[("image", "image")], outputs=["scores", "size"]
    )
    model = onnx.compose.merge_models(
        model, onnx.parser.parse_model(after), io_map=[("scores", "scores"), ("size", "size")]
    )
    model.producer_name = "contextseg"
    onnx.helper.set_model_props(model, {"classes": classes.to_json()})
    onnx.checker.check_model(model, full_check=True)
    write_atomically(path, model.SerializeToString())


def _exported(predictor: Predictor) -> Any:
    """Return the network as an ONNX model from ``image`` (1, 3, h, w) to ``scores`` (1, K, h / 4, w / 4)."""
    scorer = _Scorer(predictor.method, predictor.centers).eval()
    height, width = (torch.export.Dim(side, min=2, max=1024) for side in ("high", "wide"))
    example = torch.rand(1, 3, 3 * SIZE_MULTIPLE_PX, 5 * SIZE_MULTIPLE_PX)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(
        scorer,
        (example,),
        dynamo=True,
        dynamic_shapes={"image": {2: SIZE_MULTIPLE_PX * height, 3: SIZE_MULTIPLE_PX * width}},
        input_names=["image"],
        output_names=["scores"],
        opset_version=OPSET,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    model.ir_version = _IR_VERSION
    return model
