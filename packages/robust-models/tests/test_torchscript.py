"""The architectures that `torch.jit.script` takes, as the README names them: compiled, stored and read again."""

import pytest
import torch
from robust_models import create_model

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning"
)  # it is deprecated, timm's users still have it

SMALL = {
    "rvt_tiny": ({"img_size": 64}, {"depths": (2, 1), "drop_path_rate": 0.1}),
    "rvt_small_plus": ({"img_size": 32}, {"depths": (2,), "paas_blocks": 1}),
    "rvt_base": ({"img_size": 32}, {"depths": (1,), "num_heads": (2,)}),
    "fan_tiny_12_p16_224": ({"img_size": 64}, {"depth": 2}),
    "fan_tiny_8_p4_hybrid": ({"img_size": 64}, {"depth": 1}),
    "xcit_medium_12_p16_224": ({"img_size": 64}, {"depth": 1, "embed_dim": 64}),
    "xcit_small_12_p4_32": ({}, {"depth": 1, "embed_dim": 64}),
    "mae_vit_base_patch16": ({"img_size": 64}, {"depth": 1, "embed_dim": 48}),
    "convnext_tiny_cvst": ({}, {"depths": (1, 1, 1, 1), "dims": (16, 16, 16, 16)}),
    "convnext_iso_cvst": ({}, {"depth": 1, "dim": 32}),
    "vit_small_cvst": ({"img_size": 64}, {"depth": 1}),
    "resnet50_gelu": ({}, {"layers": (1, 1, 1, 1)}),
    "resnet50_32": ({}, {"layers": (1, 1, 1, 1)}),
    "small_cnn_8": ({}, {}),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_compiled_model_answers_as_the_other(name, tmp_path):
    options, architecture = SMALL[name]
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, model_args=architecture, **options).eval()
    channels, side, _ = model.pretrained_cfg["input_size"]
    side = options.get("img_size", min(side, 64))
    images = torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(1))
    torch.jit.script(model).save(str(tmp_path / "model.pt"))
    compiled = torch.jit.load(str(tmp_path / "model.pt"))
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), model(images))
    if name.startswith(("rvt", "fan")):  # whose sides are multiples of 16
        with pytest.raises(torch.jit.Error, match=rf"multiples of 16.*got {side} x 24|got {side} x 24"):
            compiled(images[..., :24])
