"""DeepAugment: distorted copies of a data set by image-to-image networks with edited weights and activations."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from robust_augs._files import check_outside
from robust_augs._images import as_float, check_images, check_share, like
from robust_augs._record import check_record, check_shard, digest_of_names, digest_of_numbers
from robust_augs.deepaugment.autoencoder import Autoencoder
from robust_augs.deepaugment.folders import find_images, read_image, write_image
from robust_augs.deepaugment.layers import check_body, find_body, find_head, submodule
from robust_augs.deepaugment.streams import edits_in_force, stream
from robust_augs.deepaugment.super_resolution import SuperResolution

RECORD = "deepaugment.json"


@dataclass(frozen=True, kw_only=True)
class DeepAugment:
    """Distort images by passing them through a network whose weights and activations are edited at random.

    Hendrycks et al., "The Many Faces of Robustness: A Critical Analysis of Out-of-Distribution Generalization",
    ICCV 2021, arXiv:2006.16241, section on DeepAugment. `DeepAugment.edsr` and `DeepAugment.cae` take a network of
    yours and edit copies of it; `write` makes a distorted copy of a data set, once, before training. The published
    training set is the clean images together with the copies by both networks. (`Noise2Net` is the part of the method
    that works during training.)

    Differs from the published code, which edits two given networks by the names of their layers: convolutions are
    found by type and structure. Its slips are corrected: skipping blocks of EDSR fed every block with the first one's
    input; swapping channels copied one over the other; a moved kernel was summed over all channels instead of staying
    in its own; the noise that scales weights and code was U(0, 2) where U(-1, 1) was meant (U(0, 4) for U(-1, 3) in the
    autoencoder); and reversing two layers of the autoencoder left the second as it was, since the name of its bias
    pointed to its weight. Filters, and the two layers of one edit, are drawn without replacement, so that as many are
    edited as the edit says.

    Args:
        editor: makes edited copies of the network: what `edsr` or `cae` sets up.
        side: to which the shorter side of an image file is resized before it goes into the network, in pixels.
        probability: of editing the weights anew at each image file; the activations are edited anew at every one.

    Raises:
        ValueError: if `side` is less than 1, or `probability` outside [0, 1].
    """

    editor: SuperResolution | Autoencoder
    side: int
    probability: float = 0.05

    def __post_init__(self) -> None:
        check_share("probability", self.probability)
        if self.side < 1:
            raise ValueError(f"side must be at least 1 pixel, got {self.side}")

    @classmethod
    def edsr(
        cls,
        network: nn.Module,
        *,
        head: str | None = None,
        body: str | None = None,
        side: int = 128,
        probability: float = 0.05,
    ) -> "DeepAugment":
        """Edit a super-resolution network like EDSR (published: 16 residual blocks of 64 features, four times larger).

        Three of 17 edits of weights, drawn with replacement, each of one block or of five: reverse, negate or zero
        filters; -GELU; products with two Laplacians; random scales; mirrored and negated kernels; kernels moved,
        convolved with noise or with Dirichlet kernels, or with noise added; turned kernels; random signs; a random
        mask; half of the filters negated; only the largest entry kept. And one edit of the activations before the body
        {swap channels, mask 5%, flip 2.5% of the signs, none}, one in it {negate, ReLU or GELU, flip, skip up to three
        blocks, none}.

        Args:
            network: from images (N, 3, H, W) with values 0..255 to larger ones. It stays as it is: copies are edited.
            head: name of the module whose output is edited before the body; None finds the last one with a convolution
                that is registered before the body.
            body: name of the module whose children are residual blocks, which keep the shape; None finds the
                nn.Sequential or nn.ModuleList with the most children that have two 3x3 convolutions.
            side: see the class.
            probability: see the class.

        Raises:
            ValueError: if there is no head or body to find, or the body has fewer than three layers, two of them
                residual blocks; or if the weights of a convolution are computed from others (weight norm).
        """
        body = find_body(network) if body is None else body
        check_body(network, body)
        head = find_head(network, body) if head is None else head
        submodule(network, head)
        return cls(editor=SuperResolution(network=network, head=head, body=body), side=side, probability=probability)

    @classmethod
    def cae(
        cls,
        network: nn.Module,
        *,
        encoder: str = "encoder",
        decoder: str = "decoder",
        binarise: bool = True,
        side: int = 512,
        probability: float = 0.05,
    ) -> "DeepAugment":
        """Edit a compressive autoencoder (Theis et al., ICLR 2017, arXiv:1703.00395; published: 32 code channels).

        One of eight edits of weights, in the layer that makes the code or the decoder's first: reverse the filters of
        two layers; negate twelve filters; zero 25; -GELU of 25; random scales of two layers; a random mask or random
        signs; turned kernels; a fifth of the filters negated. (To keep the largest entry of each kernel is written in
        the published code but never drawn.) And one of nine edits of the code: zero 20% or negate 10% of its positions;
        permute ten channels; flip five channels, or all; a convolution close to the identity; channels added to others;
        channels moved by a pixel; or, once it is binary, bits 0 and 1 multiplied by about three.

        Args:
            network: with a module from images (N, 3, H, W) in [0, 1] to a code (N, K, h, w) in [-1, 1], such as ends
                in tanh, and one from a code back to images, which are clipped to [0, 1]. Only these two are called;
                what lies between them (making the code binary) is done here. It stays as it is: copies are edited.
            encoder: name of the first module.
            decoder: name of the second. It gets -1 and 1 (except from the last edit of the code).
            binarise: make the code binary at random as published: 1 with probability (1 + code) / 2, else -1.
            side: see the class.
            probability: see the class.

        Raises:
            ValueError: if a module is missing, the encoder has no convolution or the decoder fewer than three; or if
                the weights of a convolution are computed from others (weight norm).
        """
        editor = Autoencoder(network=network, encoder=encoder, decoder=decoder, binarise=binarise)
        editor.layers(network)
        return cls(editor=editor, side=side, probability=probability)

    def distort(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Edit the weights anew and pass `images` (N, 3, H, W), floats in [0, 1] or uint8, through the network.

        Images of the network's output size come back, clipped to [0, 1], in the dtype and on the device of `images`.

        Args:
            images: the batch, not resized; it is not changed. Its images share all edits but the random masks.
            generator: where all draws come from; None takes torch's default generator of the CPU, wherever the
                network is.

        Raises:
            TypeError: if `images` is not a tensor of floats or uint8.
            ValueError: if `images` has another shape, or values that are not finite or outside [0, 1].
        """
        check_images(images)
        generator = torch.default_generator if generator is None else generator
        edited = self.editor.edit(generator)
        return like(images, self._pass(edited, as_float(images), generator).to(images.device))

    def write(
        self,
        source: str | Path,
        target: str | Path,
        *,
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Write a distorted copy of every JPEG and PNG file `<class>/<file>` of `source` to `target`, and count them.

        Files that are there already are skipped, so a run that was interrupted goes on where it stopped. What happens
        to an image depends on the seed and on its place in the order of file names alone: a resumed run, or several
        that share the work, write what one unbroken run would.

        Args:
            source: a folder of images; other files in it are left alone.
            target: the folder to write to, outside of `source`; it is made if need be. `deepaugment.json` in it keeps
                the settings and hashes of the file names and of the network's numbers, since only a run with the same
                may go on.
            seed: of all draws.
            shard: (index, count): write only this one of `count` parts, for several processes at a time.
            progress: called as `progress(done, total)` after every image, also after those that existed.

        Returns:
            How many files were written now.

        Raises:
            NotADirectoryError: if `source` is no folder.
            FileNotFoundError: if it holds no images.
            ValueError: if an image cannot be read; if `target` lies in `source` or was begun with other settings; or
                if `shard` is none.
        """
        source, target = Path(source), Path(target)
        part, parts = check_shard(shard)
        files = find_images(source)
        method = {SuperResolution: "edsr", Autoencoder: "cae"}[type(self.editor)]
        record = {
            "method": method,
            **{own.name: getattr(self.editor, own.name) for own in fields(self.editor) if own.name != "network"},
            "network": digest_of_numbers(self.editor.network),
            "seed": seed,
            "probability": self.probability,
            "side": self.side,
            "images": len(files),
            "names": digest_of_names(files),
        }
        check_outside(source, target)
        check_record(target / RECORD, record)
        in_force = edits_in_force(len(files), seed, self.probability)
        own = range(len(files) * part // parts, len(files) * (part + 1) // parts)
        edited, edit, written = self.editor.network, -1, 0
        for done, index in enumerate(own, start=1):
            file = files[index]
            if not (target / file).exists():
                if in_force[index] != edit:
                    edit = in_force[index]
                    edited = self.editor.edit(stream(seed, edit, "weights"))
                image = read_image(source / file, self.side)
                distorted = self._pass(edited, image, stream(seed, index, "activations"))[0]
                write_image((distorted * 255).round().to(torch.uint8), target / file)
                written += 1
            if progress is not None:
                progress(done, len(own))
        return written

    @torch.no_grad()
    def _pass(self, edited: nn.Module, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Through the edited copy, on its device and in its dtype; then clipped to [0, 1]."""
        parameter = next(edited.parameters())
        distorted = self.editor.distort(edited, images.to(parameter), generator)
        # An edited network in half precision may overflow.
        return as_float(distorted).nan_to_num(nan=0.0).clamp(0, 1)
