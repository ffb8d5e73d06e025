import importlib.metadata

import robust_attacks

PUBLIC = ["APGD", "DDN", "FAB", "FGSM", "FMN", "L1", "L2", "MIFGSM", "NFGSM", "PGD"]
PUBLIC += ["AdversarialPatch", "CarliniWagner", "Closest", "DeepFool", "Discrete", "ImageRandom", "Linf", "Masked"]
PUBLIC += ["NoisyPatches", "OccludedPatches", "PatchFool", "PatchPGD", "Pyramid", "Report", "Square", "Threat"]
PUBLIC += ["TransferAttack", "Universal", "UniversalPatch", "WorstCase", "auto_attack", "cross_entropy", "dlr"]
PUBLIC += ["exact_arithmetic", "margin", "patch_sensitivity", "succeeded", "targeted", "targeted_dlr", "transfer"]


def test_the_public_names_are_these():
    """A change here is a change for the users: write it into the changelog."""
    assert robust_attacks.__all__ == PUBLIC
    assert all(hasattr(robust_attacks, name) for name in PUBLIC)


def test_the_version_is_that_of_the_distribution():
    assert robust_attacks.__version__ == importlib.metadata.version("robust-attacks")
