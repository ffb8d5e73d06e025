"""Weights that timm has downloaded before, for when the network is forbidden."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import try_to_load_from_cache
from timm.models import get_pretrained_cfg
from timm.models._hub import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME, get_cache_dir, hf_split

from robust_models.cache import offline


def offline_overlay(name: str) -> dict[str, Any]:
    """Return what makes timm read the weights of `name` from its cache; nothing if it may use the network.

    timm itself knows nothing of `ROBUST_MODELS_OFFLINE`, and its downloads from other places than the Hugging Face hub
    do not heed `HF_HUB_OFFLINE` either.

    Args:
        name: of a model of timm, with or without a tag.

    Raises:
        FileNotFoundError: if the network is forbidden and the weights are not in the cache.
    """
    config = None if ":" in name else get_pretrained_cfg(name)  # "hf-hub:..." is described by files elsewhere
    if not offline() or name.startswith("local-dir:") or (config and not config.has_weights):
        return {}
    file = _cached(config) if config else None
    if file is None:
        raise FileNotFoundError(
            f"the network is forbidden (ROBUST_MODELS_OFFLINE or HF_HUB_OFFLINE) and the weights of {name} are not in "
            "timm's cache: fetch them once with the network, or use pretrained=False and load_weights"
        )
    return {"file": str(file)}


def _cached(config: Any) -> Path | None:
    """The file from the Hugging Face hub, else the one from another address."""
    if config.hf_hub_id:
        repository, revision = hf_split(config.hf_hub_id)
        wanted = (config.hf_hub_filename,) if config.hf_hub_filename else (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
        found = [try_to_load_from_cache(repository, each, revision=revision) for each in wanted]
        return next((Path(path) for path in found if isinstance(path, str)), None)
    file = Path(get_cache_dir(), urlsplit(config.url).path.rpartition("/")[2])
    return file if file.is_file() else None
