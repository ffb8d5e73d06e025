"""Layers that make networks robust, and conversions that put them into any model."""

from robust_models.layers.activations import convert_activation as convert_activation
from robust_models.layers.blur import convert_blurpool as convert_blurpool
from robust_models.layers.cnsn import CNSN as CNSN
from robust_models.layers.cnsn import convert_cnsn as convert_cnsn
from robust_models.layers.cnsn import revert_cnsn as revert_cnsn
from robust_models.layers.conversion import Conversion as Conversion
from robust_models.layers.conversion import conversions as conversions
from robust_models.layers.cross_norm import CrossNorm as CrossNorm
from robust_models.layers.cross_norm import crossnorm_active as crossnorm_active
from robust_models.layers.dual_batch_norm import SwitchableBatchNorm as SwitchableBatchNorm
from robust_models.layers.dual_batch_norm import bn_status as bn_status
from robust_models.layers.dual_batch_norm import convert_switchable_bn as convert_switchable_bn
from robust_models.layers.dual_batch_norm import drop_aux_bn as drop_aux_bn
from robust_models.layers.dual_batch_norm import set_bn_status as set_bn_status
from robust_models.layers.fold_batch_norm import fold_batch_norm as fold_batch_norm
from robust_models.layers.lp_relu import LPReLU as LPReLU
from robust_models.layers.paas import PAASAttention as PAASAttention
from robust_models.layers.paas import convert_paas as convert_paas
from robust_models.layers.permuted_adain import PermutedAdaIN as PermutedAdaIN
from robust_models.layers.permuted_adain import convert_permuted_adain as convert_permuted_adain
from robust_models.layers.permuted_adain import revert_permuted_adain as revert_permuted_adain
from robust_models.layers.self_norm import SelfNorm as SelfNorm
from robust_models.layers.wavelet import DWT as DWT
from robust_models.layers.wavelet import IDWT as IDWT
from robust_models.layers.wavelet import LowPass as LowPass

__all__ = [
    "CNSN",
    "DWT",
    "IDWT",
    "Conversion",
    "CrossNorm",
    "LPReLU",
    "LowPass",
    "PAASAttention",
    "PermutedAdaIN",
    "SelfNorm",
    "SwitchableBatchNorm",
    "bn_status",
    "conversions",
    "convert_activation",
    "convert_blurpool",
    "convert_cnsn",
    "convert_paas",
    "convert_permuted_adain",
    "convert_switchable_bn",
    "crossnorm_active",
    "drop_aux_bn",
    "fold_batch_norm",
    "revert_cnsn",
    "revert_permuted_adain",
    "set_bn_status",
]
