import pytest
import torch

from contextseg import precision
from contextseg.errors import SettingsError
from contextseg.precision import choose_precision, half_precision


@pytest.mark.parametrize(
    ("device", "has_bf16", "dtype", "name"),
    [
        ("cpu", True, torch.bfloat16, "bf16-mixed"),
        ("cpu", False, None, "32-true"),
        ("cuda", True, torch.bfloat16, "bf16-mixed"),
        ("cuda", False, torch.float16, "16-mixed"),  # GPUs that lack bfloat16 multiply in the other
        ("mps", True, None, "32-true"),
    ],
)
def test_half_precision_is_what_the_hardware_multiplies_in(monkeypatch, device, has_bf16, dtype, name):
    monkeypatch.setattr(precision, "cpu_computes_bf16", lambda: has_bf16)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16 or including_emulation)
    place = torch.device(device)
    assert choose_precision("auto", place) == name
    assert choose_precision("64-true", place) == "64-true"
    if dtype is None:
        with pytest.raises(SettingsError, match=f"{device} does not; leave it out"):
            half_precision(place)
    else:
        assert half_precision(place) == dtype
