"""Robust weights that timm itself publishes, as entries of the zoo."""

import re
from functools import cache

import timm
from timm.models import get_pretrained_cfg

from robust_models.entry import Checkpoint, Entry, Preprocess

# What the tags of timm mean: the method and where it is published.
_METHODS = {
    "ap_in1k": ("AdvProp", "https://arxiv.org/abs/1911.09665"),
    "tf_adv_in1k": ("adversarial training", "https://arxiv.org/abs/1611.01236"),
    "tf_ens_adv_in1k": ("ensemble adversarial training", "https://arxiv.org/abs/1705.07204"),
    "am_in1k": ("AugMix", "https://arxiv.org/abs/1912.02781"),
    "ram_in1k": ("AugMix with RandAugment", "https://arxiv.org/abs/1912.02781"),
}


@cache
def timm_entries() -> dict[str, Entry]:
    """Every entry by its name, `timm/architecture.tag`; made from timm's registry, without the network."""
    names = [name for tag in _METHODS for name in timm.list_models(f"*.{tag}", pretrained=True)]
    return {entry.name: entry for entry in map(_entry, sorted(names))}


def _entry(name: str) -> Entry:
    architecture, _, tag = name.partition(".")
    config = get_pretrained_cfg(name)
    assert config is not None
    method, paper = _METHODS[tag]
    hub = f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors"
    url = config.url if isinstance(config.url, str) and config.url else hub
    digits = re.search(r"-([0-9a-f]{8})\.\w+$", url)
    return Entry(
        name=f"timm/{name}",
        arch=architecture,
        family="timm",
        num_classes=config.num_classes,
        method=method,
        paper=paper,
        urls=(url,),
        hf_repo=config.hf_hub_id,
        preprocess=Preprocess(
            mean=tuple(config.mean),
            std=tuple(config.std),
            input_size=config.input_size[-1],
            crop_pct=config.crop_pct,
            interpolation=config.interpolation,
            confirmed=True,
        ),
        checkpoint=Checkpoint(format="safetensors" if url == hub else "torch-zip-or-legacy-pickle"),
        license=config.license,
        sha256_prefix=digits[1] if digits else None,
        note="published by timm, which prints its accuracy in its results tables",
    )
