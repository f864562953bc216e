"""NeuCodec and its distilled student: waveform <-> one code of 16 bits per 20 ms, read top to bottom.

Source: arXiv 2509.09550 and its published checkpoints. The two models are one class of two sizes; a configuration
without a semantic branch gives a small acoustic-only codec of the same family.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.overrides import TorchFunctionMode

from codec.config import BigCodecConfig, CodecConfig, SpectralConfig, W2VBertConfig
from codec.fsq import FSQ
from codec.nn.acoustic import BigCodecEncoder
from codec.nn.adapter import SemanticAdapter
from codec.nn.linear import Linear
from codec.nn.masking import zero_tail
from codec.nn.vocos import VocosDecoder
from codec.nn.w2v_bert import W2VBert
from codec.precision import DEFINITION, computing
from schemas.spec import CodecSpec


class NeuCodec(nn.Module):
    """Acoustic and semantic features of a clip, fused and quantized; and back to sound.

    A row of a batch is encoded as if it were alone: every part knows each row's own length. Where all rows fill the
    batch, knowing it costs nothing.
    """

    def __init__(self, config: CodecConfig, name: str = "neucodec") -> None:
        super().__init__()
        self.config = config
        self.name, self.revision, self.precision = name, "", DEFINITION
        self.acoustic = build_acoustic(config)
        self.semantic = build_semantic(config)
        acoustic_width = config.acoustic_width or config.acoustic.out_width
        semantic_width = config.semantic.out_width if config.semantic else 0
        self.acoustic_projection = (
            Linear(config.acoustic.out_width, acoustic_width) if config.acoustic_width else nn.Identity()
        )
        self.adapter = SemanticAdapter(semantic_width, config.adapter_width) if config.semantic else None
        self.fuse = Linear(semantic_width + acoustic_width, config.latent_width)
        self.quantizer = FSQ(config.latent_width, config.levels)
        self.decoder = VocosDecoder(config.latent_width, config.decoder)

    @property
    def device(self) -> torch.device:
        """Where the weights lie, and waveforms and codes should."""
        return self.fuse.weight.device

    @property
    def spec(self) -> CodecSpec:
        return CodecSpec(
            name=self.name,
            revision=self.revision,
            input_rate=self.config.input_rate,
            output_rate=self.config.output_rate,
            hop_length=self.config.hop_length,
            num_codebooks=1,
            codebook_size=self.quantizer.codebook_size,
            levels=self.config.levels,
            extra_frames=self.config.extra_frames,
            precision=self.precision,
        )

    def encode(self, waveforms: Tensor, num_samples: Tensor) -> Tensor:
        """Codes of a batch of clips of different lengths; a row's codes do not depend on its batch mates.

        Args: waveforms: float32 [B, 1, T] at spec.input_rate. num_samples: int64 [B], each row's own length; what lies
            past it is not read. It is looked at on the CPU: lying there, nothing waits for a GPU's queue.
        Returns: int32 [B, 1, F]; codes past a row's own spec.num_frames(num_samples) are 0.
        Raises: ValueError if not [B, 1, T], or if a row is shorter than one hop or longer than T.
        """
        num_samples = self._check_waveforms(waveforms, num_samples)
        with self._inference():
            features = self.features(waveforms, num_samples)
            with computing(DEFINITION):  # at a boundary between levels, rounding is all
                codes = self.quantizer.encode(features)
            num_frames = num_samples // self.config.hop_length + self.config.extra_frames
            return zero_tail(codes, _unless_equal(num_frames, codes.shape[1], codes.device), 1)[:, None]

    def decode(self, codes: Tensor, num_frames: Tensor | None = None) -> Tensor:
        """Sound of a batch of codes; samples past a row's own length are 0.

        Args: codes: int [B, 1, F]. num_frames: int64 [B], each row's own count; None: all of F.
        Returns: float32 [B, 1, T] at spec.output_rate, T = spec.num_output_samples(F). Not clipped.
        Raises: ValueError if not [B, 1, F], or for a code outside the codebook.
        """
        codes, num_frames = self._check_codes(codes, num_frames)
        with self._inference():
            num_frames = _unless_equal(num_frames, codes.shape[2], codes.device)
            with computing(DEFINITION):
                quantized = self.quantizer.decode(codes[:, 0])
            return self.decoder(quantized, num_frames)

    def features(self, waveforms: Tensor, num_samples: Tensor | None = None) -> Tensor:
        """Features of a batch before quantization, `h` in Eq. 2; differentiable.

        Args: waveforms: float32 [B, 1, T] at spec.input_rate. num_samples: int64 [B], each row's own length; None: T.
        Returns: [B, F, D], F that of the longest row; past a row's own frames lies anything.
        """
        hop, longest = self.config.hop_length, waveforms.shape[2]
        num_samples = torch.full((len(waveforms),), longest) if num_samples is None else num_samples.cpu()
        waveforms = zero_tail(waveforms, _unless_equal(num_samples, longest, waveforms.device), 2)
        # as published: zeros up to the next whole hop, and a whole hop of them where the length is one already
        num_hops = num_samples // hop + 1
        longest = int(num_hops.max())
        waveforms = pad(waveforms, (0, longest * hop - waveforms.shape[2]))
        num_hops = _unless_equal(num_hops, longest, waveforms.device)
        return self._fuse(waveforms, num_hops, longest - 1 + self.config.extra_frames)

    def _fuse(self, waveforms: Tensor, num_hops: Tensor | None, length: int) -> Tensor:
        branches = []
        if self.semantic is not None:
            num_frames = None if num_hops is None else num_hops - 1 + self.config.extra_frames
            branches.append(self.adapter(self.semantic(waveforms, num_hops)[:, :length], num_frames))
        branches.append(self.acoustic_projection(self.acoustic(waveforms, num_hops)[:, :length]))
        return self.fuse(torch.cat(branches, 2))

    def _check_waveforms(self, waveforms: Tensor, num_samples: Tensor) -> Tensor:
        if waveforms.dim() != 3 or waveforms.shape[1] != 1:
            raise ValueError(
                f"waveforms must be [B, 1, T] at {self.config.input_rate} Hz, got {list(waveforms.shape)}; "
                "a batch of mono clips has a channel axis of one"
            )
        if not len(waveforms):
            raise ValueError(f"waveforms must hold at least one row, got {list(waveforms.shape)}")
        if list(num_samples.shape) != [len(waveforms)]:
            raise ValueError(f"num_samples must be [{len(waveforms)}], one per row, got {list(num_samples.shape)}")
        for samples in num_samples.tolist():
            self.spec.num_frames(samples)
            if samples > waveforms.shape[2]:
                raise ValueError(f"a row of {samples} samples does not fit waveforms {list(waveforms.shape)}")
        return num_samples.cpu().long()

    def _check_codes(self, codes: Tensor, num_frames: Tensor | None) -> tuple[Tensor, Tensor]:
        if codes.dim() != 3 or codes.shape[1] != 1 or 0 in codes.shape:
            raise ValueError(f"codes must be [B, 1, F] with at least one frame, got {list(codes.shape)}")
        low, high = int(codes.min()), int(codes.max())
        if low < 0 or high >= self.quantizer.codebook_size:
            raise ValueError(f"codes must lie in [0, {self.quantizer.codebook_size}), got {low} to {high}")
        batch, length = len(codes), codes.shape[2]
        if num_frames is None:
            num_frames = torch.full((batch,), length)
        if list(num_frames.shape) != [batch] or int(num_frames.min()) < 1 or int(num_frames.max()) > length:
            raise ValueError(f"num_frames must be [{batch}], each from 1 to {length}, got {num_frames.tolist()}")
        return codes, num_frames.cpu().long()

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """No gradients, no dropout, and the precision asked for."""
        learning = [module for module in self.modules() if module.training]
        for module in learning:
            module.training = False
        try:
            with torch.inference_mode(), computing(self.precision):
                yield
        finally:
            for module in learning:
                module.training = True


def build_acoustic(config: CodecConfig) -> nn.Module:
    """The acoustic branch: (waveforms [B, 1, hops x hop length], num_hops [B] or None) -> [B, hops, C]."""
    match config.acoustic:
        case BigCodecConfig():
            return BigCodecEncoder(config.acoustic)
        case SpectralConfig():
            from codec.nn.spectral import SpectralEncoder

            return SpectralEncoder(config.acoustic, config.input_rate)
        case _:
            from codec.nn.l3ac import L3ACEncoder

            return L3ACEncoder(config.acoustic)


def build_semantic(config: CodecConfig) -> nn.Module | None:
    """The semantic branch: (waveforms [B, 1, hops x hop length], num_hops [B] or None) -> [B, frames, C]."""
    match config.semantic:
        case None:
            return None
        case W2VBertConfig():
            return W2VBert(config.semantic, config.hop_length)
        case _:
            from codec.nn.hubert import Hubert

            return Hubert(config.semantic, config.hop_length)


def _unless_equal(counts: Tensor, full: int, device: torch.device) -> Tensor | None:
    """`counts`, given on the CPU, on the device; or None where every row has the full count: no mask. Never waits."""
    if bool((counts == full).all()):
        return None
    if device.type == "cuda":  # out of other memory, the copy would wait until all work queued so far is done
        counts = counts.pin_memory()
    return counts.to(device, non_blocking=True)


def unset(config: CodecConfig, name: str) -> NeuCodec:
    """A codec whose parameters hold nothing yet, for a loader that sets them all: drawing them first takes long."""
    with _SkipInit():
        return NeuCodec(config, name).eval()


class _SkipInit(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))
