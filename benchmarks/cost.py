"""What large data sets cost, computed: the table of docs/scale.md.

    python benchmarks/cost.py

Nothing here was measured on a GPU. What was measured (on a CPU) and what is assumed stands below, one a line.
"""

from dataclasses import dataclass

# Measured.
DECODE_MS = 1.7 * (640 * 480) / (480 * 360)  # a 480 x 360 JPEG takes 1.7 ms of one core; in proportion to the pixels
FLOOR = 0.67  # of an epoch of `context` is the bare step (RESULTS.md, "Speed")
NAME_BYTES = 940  # of the first process's memory for an image in a tar: path, place, name, shape; by tracemalloc
PLACES_BYTES = 3 * 28 * 28  # of holistic labels (uint8) and certainty (float16) for an image, on every GPU
PREDICT_THREADS_MS = 10  # best cluster of each pixel and writing the mask, 480 x 360, K = 11

# Assumed.
PX, LONGER_PX, FRAME_PX = 320, 416, 320
GFLOP_FORWARD = 2 * 4.1 * 1.5 / 224**2  # ResNet-50 is 4.1 G multiply-adds at 224 px; half as much for decoder and CAE
GPU_GFLOPS = 312_000 * 0.2  # a fifth of what an A100 does at most in bf16
PREDICT_SHARE = 0.05  # of that rate in `predict`, which looks at images of one size together
EPOCHS = {118_287: 5, 10_000_000: 1, 1_000_000_000: 1}
EFFICIENCY = {1: 1.0, 8: 0.95, 256: 0.85}  # of the GPUs together, for the exchange of gradients
DECODERS = 4  # threads of the first process, which alone decodes the cache (data/threads.py)
CORES_PER_GPU = 8


@dataclass(frozen=True)
class Cost:
    """Hours and bytes of one set on some GPUs."""

    read_h: float
    start_h: float
    train_h: float
    predict_h: float
    cache_bytes: float
    names_bytes: float
    places_bytes: float


def cost(n_images: int, n_gpus: int) -> Cost:
    """Compute the cost of reading, training and predicting a set."""
    rate = GPU_GFLOPS * n_gpus * EFFICIENCY[n_gpus]
    whole_px = PX * LONGER_PX
    step = 2 * 3 * GFLOP_FORWARD * FRAME_PX**2 / FLOOR  # two views; a backward pass is two forward ones
    start = GFLOP_FORWARD * whole_px * (1 + 4)  # the whole image at scales 1 and 2, once
    return Cost(
        read_h=n_images * DECODE_MS / 1000 / DECODERS / 3600,
        start_h=n_images * start / rate / 3600,
        train_h=EPOCHS[n_images] * n_images * step / rate / 3600,
        predict_h=n_images
        / n_gpus
        * max(
            GFLOP_FORWARD * whole_px / (GPU_GFLOPS * PREDICT_SHARE),
            (DECODE_MS + PREDICT_THREADS_MS) / 1000 / min(2 * DECODERS, CORES_PER_GPU),
        )
        / 3600,
        cache_bytes=3.0 * whole_px * n_images,
        names_bytes=1.0 * NAME_BYTES * n_images,
        places_bytes=1.0 * PLACES_BYTES * n_images,
    )


def size(n_bytes: float) -> str:
    """Return bytes in words."""
    unit, name = next((unit, name) for unit, name in ((1e12, "TB"), (1e9, "GB"), (0, "MB")) if n_bytes >= unit)
    return f"{n_bytes / (unit or 1e6):,.3g} {name}"


def main() -> None:
    times = "read, h | start, h | train, h | predict, h"
    print(f"| images | epochs | GPUs | {times} | cache | names, first process | places, each GPU |")
    print("|---" * 10 + "|")
    for n_images, epochs in EPOCHS.items():
        for n_gpus in EFFICIENCY:
            one = cost(n_images, n_gpus)
            hours = " | ".join(
                f"{h:,.2g}" if h < 10 else f"{h:,.0f}" for h in (one.read_h, one.start_h, one.train_h, one.predict_h)
            )
            sizes = " | ".join(map(size, (one.cache_bytes, one.names_bytes, one.places_bytes)))
            print(f"| {n_images:,} | {epochs} | {n_gpus} | {hours} | {sizes} |")


if __name__ == "__main__":
    main()
