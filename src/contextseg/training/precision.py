"""The number format of training, by what the hardware computes in."""

import torch


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return Fabric's name of the precision.

    "auto" takes half precision only where the hardware multiplies in it: a processor that merely emulates bfloat16
    is several times slower with it than without.

    Args:
        wanted: the setting ``training.precision``.
        device: what the network will run on.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if device.type == "cpu" and cpu_computes_bf16():
        return "bf16-mixed"
    return "32-true"


def cpu_computes_bf16() -> bool:
    """Return whether this processor has instructions for bfloat16 products."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
