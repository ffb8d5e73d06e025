"""CLIP as an image classifier: from texts, from published files, and between the two."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional

from robust_models.cache import is_set
from robust_models.normalize import NormalizedModel

TEMPLATES = ("a photo of a {}.",)


class ClipClassifier(nn.Module):
    """Logits that grow with the cosine between the embedding of an image and one vector per class.

    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
    arXiv:2103.00020, section 3.1.2. The temperature is part of the vectors. Fine-tuned classifiers of Wortsman et al.
    (see `interpolate_weights`) have a bias too.

    Args:
        visual: normalised images (N, 3, H, W) -> embeddings (N, D).
        embed_dim: D.
        num_classes: number of logits.
    """

    def __init__(self, visual: nn.Module, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.visual = visual
        self.num_features = self.head_hidden_size = embed_dim
        self.num_classes = num_classes
        self.classification_head = nn.Linear(embed_dim, num_classes)
        nn.init.zeros_(self.classification_head.bias)
        config = getattr(visual, "pretrained_cfg", None) or {}
        changes = {"architecture": "", "num_classes": num_classes, "classifier": "classification_head"}
        self.pretrained_cfg = {**config, **changes}

    def forward(self, images: Tensor) -> Tensor:
        """Classify normalised `images` (N, 3, H, W); logits (N, num_classes) come back."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the embeddings (N, D)."""
        return self.visual(images)  # type: ignore[no-any-return]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Turn embeddings into logits, or with `pre_logits` into unit vectors."""
        directions = functional.normalize(features, dim=-1)
        return directions if pre_logits else self.classification_head(directions)

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.classification_head


def timm_clip_classifier(arch: str, num_classes: int, model_args: Mapping[str, Any] | None = None) -> ClipClassifier:
    """Build an empty classifier around timm's image tower of OpenAI's CLIP.

    OpenAI trained with QuickGELU, so the tower of that kind is taken where timm has two.

    Args:
        arch: name of the tower, e.g. "vit_base_patch16_clip_224".
        num_classes: number of logits.
        model_args: further arguments of the tower, where `num_classes` is the size of the embedding.
    """
    quick = arch.replace("_clip_2", "_clip_quickgelu_2")
    tower: Any = timm.create_model(quick if timm.is_model(quick) else arch, **(model_args or {}))
    return ClipClassifier(tower, tower.num_classes, num_classes)


def zero_shot_weights(
    model: nn.Module,
    tokenizer: Callable[[list[str]], Tensor],
    classes: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
) -> Tensor:
    """Return one vector (D) per class, times the temperature of `model`, from the texts that describe it.

    The embeddings of the templates have length 1 each, and so has their mean before the temperature.

    Args:
        model: of open_clip, or anything with `encode_text` and `logit_scale`.
        tokenizer: turns texts into what `encode_text` takes.
        classes: names of the classes.
        templates: sentences with `{}` where the name goes.

    Raises:
        ValueError: if there are no classes or templates, or a template has no `{}`.
    """
    if not classes or not templates or any("{}" not in template for template in templates):
        raise ValueError(
            f"zero-shot weights need classes and templates with {{}} for the name, got {len(classes)} classes and "
            f"{list(templates)}"
        )
    device = next(model.parameters()).device
    scale: Tensor = model.logit_scale.detach().exp()  # type: ignore[operator]
    vectors = []
    with torch.no_grad():
        for name in classes:
            tokens = tokenizer([template.format(name) for template in templates]).to(device)
            texts = functional.normalize(model.encode_text(tokens), dim=-1)  # type: ignore[operator]
            vectors.append(functional.normalize(texts.mean(dim=0), dim=-1))
    return torch.stack(vectors) * scale


def zero_shot_classifier(
    name: str,
    classes: Sequence[str],
    *,
    templates: Sequence[str] = TEMPLATES,
    pretrained: str | None = None,
) -> NormalizedModel:
    """Build a zero-shot classifier of images in [0, 1] from a model of open_clip, in eval mode.

    Args:
        name: of open_clip's architecture, e.g. "ViT-B-16-quickgelu".
        classes: names of the classes.
        templates: sentences with `{}` where the name goes.
        pretrained: open_clip's tag of weights, e.g. "openai", which it downloads, or the path of a file; None leaves it
            random.

    Raises:
        ImportError: if open_clip is not installed.
        ValueError: see `zero_shot_weights`.
        FileNotFoundError: if `ROBUST_MODELS_OFFLINE=1` forbids the network, and `pretrained` is a tag.
    """
    if pretrained and is_set("ROBUST_MODELS_OFFLINE") and not (is_set("HF_HUB_OFFLINE") or Path(pretrained).is_file()):
        raise FileNotFoundError(
            f"the network is forbidden (ROBUST_MODELS_OFFLINE), and open_clip may use it to get {pretrained!r}: give "
            "the path of a file, or set HF_HUB_OFFLINE=1 before Python starts, which lets it use its cache alone"
        )
    try:
        import open_clip  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ImportError("CLIP models of texts need open_clip: pip install 'robust-models[clip]'") from error
    model: Any = open_clip.create_model(name, pretrained=pretrained).eval()
    weights = zero_shot_weights(model, open_clip.get_tokenizer(name), classes, templates)
    classifier = ClipClassifier(model.visual, weights.shape[1], len(classes)).to(weights)
    with torch.no_grad():
        classifier.classification_head.weight.copy_(weights)
    return NormalizedModel(classifier, mean=model.visual.image_mean, std=model.visual.image_std).eval()


def interpolate_weights(
    zero_shot: Mapping[str, Tensor], fine_tuned: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """Return `(1 - alpha) * zero_shot + alpha * fine_tuned`, weight by weight, the classifier included.

    Wortsman et al., "Robust fine-tuning of zero-shot models" (WiSE-FT), CVPR 2022, arXiv:2109.01903, section 3.
    Whole numbers, such as counters, are those of `fine_tuned`.

    Args:
        zero_shot: a state dict.
        fine_tuned: another one with the same names and shapes.
        alpha: in [0, 1].

    Raises:
        ValueError: if names or shapes differ, or `alpha` is outside.
    """
    if not 0 <= alpha <= 1 or math.isnan(alpha):
        raise ValueError(f"alpha must lie in [0, 1], got {alpha}: 0 is the zero-shot model, 1 the fine-tuned one")
    if differing := sorted(zero_shot.keys() ^ fine_tuned.keys()):
        raise ValueError(f"the two models have different weights, {', '.join(differing[:4])} in one of them only")
    if reshaped := [name for name, value in zero_shot.items() if value.shape != fine_tuned[name].shape]:
        raise ValueError(
            f"{reshaped[0]} has the shape {list(zero_shot[reshaped[0]].shape)} in the zero-shot model and "
            f"{list(fine_tuned[reshaped[0]].shape)} in the fine-tuned one"
        )
    return {
        name: (1 - alpha) * zero_shot[name] + alpha * value if value.is_floating_point() else value.clone()
        for name, value in fine_tuned.items()
    }


def checkpoint_filter(state_dict: Mapping[str, Any], model: ClipClassifier) -> dict[str, Tensor]:
    """Fit an image classifier of the WiSE-FT authors to `model`; the text part of CLIP is left out.

    Args:
        state_dict: OpenAI's names behind `image_encoder.model.`, and `classification_head`.
        model: around timm's image tower; it stays as it is.
    """
    tower = {
        name[name.index("visual.") :]: value
        for name, value in state_dict.items()
        if name.startswith("image_encoder.") and "visual." in name
    }
    head = {name: value for name, value in state_dict.items() if name.startswith("classification_head.")}
    fitted = checkpoint_filter_fn(tower, model.visual)  # type: ignore[arg-type]
    return {**{f"visual.{name}": value for name, value in fitted.items()}, **head}
