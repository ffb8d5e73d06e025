"""Build any timm model, or one of ours, with the normalisation inside."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import timm
from timm.models import is_model
from torch import nn

from robust_models import architectures as architectures  # registers them with timm
from robust_models.normalize import NormalizedModel, find_normalize
from robust_models.registry import Entry, list_models
from robust_models.timm_cache import offline_overlay

_RATES = ("drop_rate", "drop_path_rate")


def create_model(
    name: str,
    *,
    pretrained: bool = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
    model_args: Mapping[str, Any] | None = None,
    normalize: bool = True,
) -> nn.Module:
    """Build the timm model `name` so that it takes images in [0, 1].

    Mean and std are those of the model's pre-trained configuration. Where `in_chans` differs from it, they follow what
    timm does to the pre-trained first convolution: one channel gets the mean of the values, more channels repeat them
    in order.

    Args:
        name: a name of `timm.list_models()`, with or without a tag (`"resnet50.a1_in1k"`), or one of ours
            (`"rvt_small_plus"`, `"wrn_28_10"`, ...).
        pretrained: load timm's weights, the only case in which the network is touched; with `ROBUST_MODELS_OFFLINE=1`
            they have to be in timm's cache.
        num_classes: number of logits; None means the model's own, 0 pooled features.
        in_chans: channels of the images; None means the model's own, 3 for nearly all.
        img_size: height and width in pixels for models that are tied to one (most transformers); None means the model's
            own.
        drop_rate: dropout before the classifier, in [0, 1); None means the model's own, mostly 0.
        drop_path_rate: stochastic depth, in [0, 1); None means the model's own, mostly 0.
        model_args: further arguments of the model's constructor.
        normalize: False gives timm's bare model, which takes normalised images.

    Raises:
        ValueError: for an unknown name, a name that would need the network, weights that do not exist, or an argument
            that the model does not take; rates of 0 go with every model.
        FileNotFoundError: if the network is forbidden and the weights are not in timm's cache.

    Examples:
        >>> model = create_model("resnet18", num_classes=10)
        >>> model.num_classes, model.normalize
        (10, Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]))
    """
    _check_name(name, pretrained)
    options: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_chans, "img_size": img_size}
    options |= {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    options = {key: value for key, value in options.items() if value is not None}
    for rate in _RATES:
        if not 0 <= options.get(rate, 0) < 1:
            raise ValueError(f"{rate} must lie in [0, 1), got {options[rate]}")
    if repeated := sorted(options.keys() & (model_args or {}).keys()):
        raise ValueError(f"{', '.join(repeated)} given both as an argument and in model_args: give it once")
    if pretrained and (overlay := offline_overlay(name)):
        options["pretrained_cfg_overlay"] = overlay
    model = _built(name, pretrained, {**options, **(model_args or {})})
    if not normalize or find_normalize(model) is not None:
        return model
    config: Mapping[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    channels = in_chans if in_chans is not None else config["input_size"][0]
    return NormalizedModel(
        model, mean=_per_channel(config["mean"], channels), std=_per_channel(config["std"], channels)
    )


def _built(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """Timm's model, with errors that say what to do."""
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        refused = str(error).rpartition("'")[0].rpartition("'")[2]
        if refused in _RATES and options.get(refused) == 0:  # what it does not have is 0 already
            return _built(name, pretrained, {key: value for key, value in options.items() if key != refused})
        raise ValueError(f"{name} does not take {refused}: leave it out, or None ({error})") from error
    except RuntimeError as error:
        if "No pretrained weights exist" not in str(error):
            raise
        found = [f'pretrained("{entry.name}")' for entry in list_models(loadable=True) if _is_of(entry, name)]
        known = ", ".join(found[:4]) + (f" or one of {len(found) - 4} more" if len(found) > 4 else "")
        advice = f"but in the zoo: use {known}" if found else "or in the zoo: load_weights takes a file of your own"
        raise ValueError(f"no pre-trained weights exist for {name} in timm, {advice}") from error


def _is_of(entry: Entry, name: str) -> bool:
    """Whether the entry is of the architecture `name`; wrn_28_10 is wrn with depth 28 and width 10."""
    given = [str(value) for value in entry.arch_kwargs.values() if not isinstance(value, bool)]
    words = [re.findall(r"[a-z]+|\d+", text) for text in (name.partition(".")[0], "_".join((entry.arch, *given)))]
    return sorted(words[0]) == sorted(words[1])


def _check_name(name: str, pretrained: bool) -> None:
    if ":" in name:  # timm's hf-hub: and local-dir: sources
        if not pretrained:
            raise ValueError(
                f"{name} is described by files elsewhere, which timm would fetch: use pretrained=True, or a name of "
                "timm.list_models()"
            )
        return
    architecture, _, tag = name.partition(".")
    if not is_model(architecture):
        known = timm.list_models()
        near = difflib.get_close_matches(architecture, known, n=4, cutoff=0.6)
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() lists what there is"
        raise ValueError(f"no model is called {architecture!r}: {hint}")
    tags = [known.partition(".")[2] for known in timm.list_models(f"{architecture}.*", include_tags=True)]
    if tag and tag not in tags:
        raise ValueError(f"{architecture} has no tag {tag!r}: it has {', '.join(filter(None, tags)) or 'none'}")


def _per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """One value per channel, as timm's `adapt_input_conv` spreads the pre-trained weights over channels."""
    if len(values) == channels:
        return tuple(values)
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[index % len(values)] for index in range(channels))
