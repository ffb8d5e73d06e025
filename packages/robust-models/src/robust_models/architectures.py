"""All architectures of ours; importing them registers their names with timm."""

from robust_models import convstem as convstem
from robust_models import drvit as drvit
from robust_models import fan as fan
from robust_models import gfnet as gfnet
from robust_models import mae_vit as mae_vit
from robust_models import preact_resnet as preact_resnet
from robust_models import preact_resnet_dm as preact_resnet_dm
from robust_models import resnet_activations as resnet_activations
from robust_models import resnet_cifar as resnet_cifar
from robust_models import robnet as robnet
from robust_models import rvt as rvt
from robust_models import small_cnn as small_cnn
from robust_models import wavecnet as wavecnet
from robust_models import wide_resnet as wide_resnet
from robust_models import wide_resnet_dm as wide_resnet_dm
from robust_models import xcit_small_images as xcit_small_images
