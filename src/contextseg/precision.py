"""Where the network runs, and in which number format."""

import torch

from contextseg.errors import SettingsError

_FABRIC = {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed", None: "32-true"}


def usable_device(name: str | torch.device) -> torch.device:
    """Return a device that PyTorch can compute on here.

    Raises:
        SettingsError: there is none of that name.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # the latter from a PyTorch that was built without it
        reason = str(error).splitlines()[0]
        raise SettingsError(
            f"device: got '{name}', which cannot be used here ({reason}); cpu can, and cuda or cuda:1 with such a GPU"
        ) from error


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return Fabric's name of a precision; "auto" takes half precision where the hardware multiplies in it.

    Args:
        wanted: the setting ``training.precision``.
        device: what the network will run on.
    """
    return _FABRIC[_half(device)] if wanted == "auto" else wanted


def half_precision(device: torch.device) -> torch.dtype:
    """Return the half precision that a device multiplies in.

    Raises:
        SettingsError: it multiplies in none.
    """
    dtype = _half(device)
    if dtype is None:
        raise SettingsError(
            f"half precision takes hardware that multiplies in it, which {device} does not; leave it out"
        )
    return dtype


def _half(device: torch.device) -> torch.dtype | None:
    """Return None for hardware that merely emulates bfloat16: it is several times slower with it than without."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device.type == "cpu" and cpu_computes_bf16() else None


def cpu_computes_bf16() -> bool:
    """Return whether this processor has instructions for bfloat16 products."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
