"""Any `timm` model as a trunk."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polyface.errors import PolyfaceError, nearest
from polyface.networks.layers import PartlyFrozen, freeze
from polyface.networks.shapes import Shape


class SpatialPoints(nn.Module):
    """Where a map's channels respond: the expected position of each, a spatial softmax (Levine et al. 2016).

    A last map [B, C, h, w] and an earlier, finer one [B, c, H, W] are brought to `points` channels at H×W and added; a
    3×3 convolution makes them `points` score maps. Out: [B, 2·points], x and y in −1 … 1 across the map. A landmark is
    close to a linear function of such positions, which a linear head learns in a few epochs.
    """

    SHARPNESS = 8.0  # at 1 a new map's softmax is flat: all positions are the centre, and hardly any gradient passes

    def __init__(self, last: int, finer: int, points: int) -> None:
        super().__init__()
        self.last, self.finer = nn.Conv2d(last, points, 1), nn.Conv2d(finer, points, 1)
        self.score = nn.Sequential(nn.ReLU(), nn.Conv2d(points, points, 3, padding=1))

    def weights(self, last: Tensor, finer: Tensor) -> Tensor:
        """How much of each part's response is where, [B, points, H·W]."""
        coarse = nn.functional.interpolate(self.last(last), size=finer.shape[2:], mode="bilinear")
        scores = self.score(coarse + self.finer(finer))
        weights: Tensor = (self.SHARPNESS * scores.float()).flatten(2).softmax(-1)
        return weights

    def forward(self, last: Tensor, finer: Tensor) -> Tensor:
        weights = self.weights(last, finer)
        height, width = finer.shape[2:]
        with torch.autocast(weights.device.type, enabled=False):  # bfloat16 positions would be 0.4 % of the map apart
            x = torch.linspace(-1, 1, width, device=weights.device).repeat(height)
            y = torch.linspace(-1, 1, height, device=weights.device).repeat_interleave(width)
            return torch.cat([weights.float() @ x, weights.float() @ y], dim=1)


class TimmTrunk(PartlyFrozen):
    """A `timm` feature extractor, then the shared vector x.

    model: a timm name; options go to `timm.create_model`. size: input side in pixels; a model that is made for one size
    (a vision transformer) is made for this one, where timm can. pool: "flatten" is one fully
    connected layer of length `shared` on the whole last map, "avg" the same on its average, "points" the average's
    layer beside the positions of `points` learned parts (SpatialPoints on the last map and the one at stride 8), which
    is what landmarks want; "map" leaves the last map as it is, for branches to pool. frozen: names of the model's
    modules (conv_stem, blocks.0 …) that stay as they start, batch norm's statistics too: the first hold what any
    picture needs, and are half of a training step. Maps are named "stage1" … as timm orders them. Nothing is
    downloaded.
    """

    def __init__(
        self,
        model: str,
        size: int = 112,
        channels: int = 3,
        shared: int = 128,
        pool: str = "flatten",
        points: int = 64,
        dropout: float = 0.0,
        options: dict[str, Any] | None = None,
        frozen: Sequence[str] = (),
    ) -> None:
        super().__init__()
        import timm

        from polyface.networks.depthwise import DepthwiseConv2d

        if model not in timm.list_models():
            raise PolyfaceError(f"unknown model '{model}'; {nearest(model, timm.list_models())}")
        reads = [name for name in options or {} if name.startswith(("pretrained", "checkpoint")) or name == "cache_dir"]
        if reads:  # a bundle's options must not make timm read files or the network
            raise PolyfaceError(f"option '{reads[0]}' is not taken; start from a bundle with init instead")
        if pool not in ("flatten", "avg", "points", "map"):
            raise PolyfaceError(f"pool is '{pool}', expected flatten, avg, points or map")
        self.model, self.options = model, {"in_chans": channels} | (options or {})
        self.size, self.in_channels, self.pool = size, channels, pool
        maps = self._made(torch.zeros(1, channels, size, size))
        DepthwiseConv2d.replace(self.body)
        self.frozen = freeze(self.body, frozen)
        last = maps[-1].shape
        width = last[1] * (last[2] * last[3] if pool == "flatten" else 1)
        self.parts: SpatialPoints | None = None
        self.fc: nn.Sequential | None = None
        strides: list[int] = self.body.feature_info.reduction()  # type: ignore[operator, union-attr]
        self.maps = {f"stage{i + 1}": Shape(m.shape[1], strides[i]) for i, m in enumerate(maps)}
        self.any_size = pool != "flatten" and not timm.get_pretrained_cfg_value(model, "fixed_input_size")
        if pool == "map":
            self.maps["shared"] = Shape(last[1], strides[-1])
            return
        self.fc = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, shared), nn.BatchNorm1d(shared), nn.ReLU())
        self.maps["shared"] = Shape(shared + 2 * points * (pool == "points"))
        if pool == "points":
            self._finer = next((i for i, m in enumerate(maps) if m.shape[-1] * 8 <= size), len(maps) - 1)
            self.parts = SpatialPoints(last[1], maps[self._finer].shape[1], points)

    def _made(self, picture: Tensor) -> list[Tensor]:
        """Make the model, for pictures of this size where it must be told, and look at a picture."""
        import timm

        self.body = timm.create_model(self.model, features_only=True, pretrained=False, **self.options)
        try:
            return self._look(picture)
        except (AssertionError, RuntimeError, ValueError):  # what models say of a size that is not theirs
            fitted = self.options | {"img_size": self.size}
        try:
            self.body = timm.create_model(self.model, features_only=True, pretrained=False, **fitted)
            maps = self._look(picture)
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            side = (timm.get_pretrained_cfg_value(self.model, "input_size") or [224])[-1]
            raise PolyfaceError(
                f"{self.model} takes no pictures of {self.size} × {self.size}; it is made for {side} × {side}: set "
                f"size to {side} (and that of the crop), or take another model"
            ) from error
        self.options = fitted
        return maps

    @torch.no_grad()
    def _look(self, picture: Tensor) -> list[Tensor]:
        """The model's maps of a picture, of which batch norm's statistics take no notice."""
        self.body.eval()
        maps = self._maps(picture)
        self.body.train()
        return maps

    def _maps(self, images: Tensor) -> list[Tensor]:
        """The model's maps [B, C, h, w]; some models have their channels last."""
        last = getattr(self.body, "output_fmt", "") == "NHWC"
        return [maps.permute(0, 3, 1, 2) if last else maps for maps in self.body(images)]

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take a whole timm model's weights, by its names; timm fits them to other numbers of input channels."""
        import timm

        with torch.device("meta"):  # out_indices are which of its maps are taken
            whole = timm.create_model(self.model, **{k: v for k, v in self.options.items() if k != "out_indices"})
        head = f"{timm.get_pretrained_cfg_value(self.model, 'classifier')}."
        if lacking := [key for key in whole.state_dict() if key not in weights and not key.startswith(head)]:
            raise PolyfaceError(
                f"trunk timm: the weights are not {self.model}'s: {lacking[0]} and {len(lacking) - 1} more are missing"
            )
        log = logging.getLogger("timm.models._builder")  # warns of the head's weights, which a trunk has no use for
        level = log.level
        try:
            log.setLevel(logging.ERROR)
            body = timm.create_model(
                self.model,
                features_only=True,
                pretrained=True,
                pretrained_cfg_overlay={"state_dict": dict(weights)},
                **self.options,
            )
        except RuntimeError as error:
            raise PolyfaceError(
                f"trunk timm: the weights do not fit {self.model}: {str(error).splitlines()[-1].strip()}"
            ) from error
        finally:
            log.setLevel(level)
        self.body.load_state_dict(body.state_dict())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images [B, C, size, size] → {"stage1" …: maps, "shared": x [B, D]}; with
        pool "map", x is the last map."""
        stages = self._maps(images.to(memory_format=torch.channels_last))
        maps = {f"stage{i + 1}": stage for i, stage in enumerate(stages)}
        last = stages[-1]
        if self.fc is None:
            return maps | {"shared": last}
        shared = self.fc(last.flatten(1) if self.pool == "flatten" else last.mean((2, 3)))
        if self.parts is not None:
            shared = torch.cat([self.parts(last, stages[self._finer]), shared.float()], dim=1)
        maps["shared"] = shared
        return maps
