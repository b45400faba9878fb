"""Every family of timm as a trunk: maps as declared, gradients where timm has them, an export that answers alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from polyface import networks, tasks
from polyface.data.crops import CropSpec
from polyface.errors import PolyfaceError
from polyface.export.onnx import TOLERANCE, export_onnx
from polyface.models.bundle import Bundle
from polyface.networks.trunks.timm_trunk import TimmTrunk

timm = pytest.importorskip("timm")

# A small model of each, of which some are made for one size alone.
QUICK: dict[str, tuple[str, int]] = {
    "byobnet": ("test_byobnet", 64),
    "convnext": ("test_convnext", 64),
    "efficientnet": ("test_efficientnet", 64),
    "ghostnet": ("ghostnet_050", 64),
    "mambaout": ("test_mambaout", 64),  # channels last
    "maxxvit": ("test_coatnet", 64),  # told the size
    "mobilenetv3": ("mobilenetv3_small_050", 64),
    "nfnet": ("test_nfnet", 64),
    "resnet": ("test_resnet", 64),
    "swin_transformer": ("swin_tiny_patch4_window7_224", 64),  # both
    "vision_transformer": ("test_vit", 64),
    "vision_transformer_relpos": ("test_vit_relpos", 64),
    "vovnet": ("ese_vovnet19b_slim_dw", 64),
}
SLOW: dict[str, tuple[str, int]] = {
    "beit": ("beit_base_patch16_224", 64),
    "byoanet": ("eca_halonext26ts", 256),
    "cait": ("cait_xxs24_224", 64),
    "coat": ("coat_tiny", 64),
    "convit": ("convit_tiny", 64),
    "convmixer": ("convmixer_768_32", 64),
    "cpubone": ("cpubone_nano", 64),
    "crossvit": ("crossvit_tiny_240", 240),
    "csatv2": ("csatv2", 64),
    "cspnet": ("cs3darknet_focus_s", 64),
    "cspnext": ("cspnext_tiny", 64),
    "davit": ("davit_tiny", 64),
    "deit": ("deit_tiny_patch16_224", 64),
    "densenet": ("densenet121", 64),
    "dla": ("dla34", 64),
    "dpn": ("dpn68", 64),
    "edgenext": ("edgenext_xx_small", 64),
    "efficientformer": ("efficientformer_l1", 224),
    "efficientformer_v2": ("efficientformerv2_s0", 64),
    "efficientvim": ("efficientvim_m1", 64),
    "efficientvit_mit": ("efficientvit_b0", 64),
    "efficientvit_msra": ("efficientvit_m0", 64),
    "eva": ("vit_tiny_patch16_dinov3_qkvb", 64),
    "fasternet": ("fasternet_t0", 64),
    "fastvit": ("fastvit_s12", 64),
    "focalnet": ("focalnet_tiny_srf", 64),
    "gcvit": ("gcvit_xxtiny", 64),
    "hardcorenas": ("hardcorenas_b", 64),
    "hgnet": ("hgnetv2_b0", 64),
    "hiera": ("hiera_tiny_224", 64),
    "hieradet_sam2": ("sam2_hiera_tiny", 64),
    "hrnet": ("hrnet_w18_small", 64),
    "iformer": ("iformer_t", 64),
    "inception_next": ("inception_next_atto", 64),
    "inception_resnet_v2": ("inception_resnet_v2", 299),
    "inception_v3": ("inception_v3", 299),
    "inception_v4": ("inception_v4", 299),
    "lcnetv2": ("lcnetv2_small", 64),
    "levit": ("levit_384_s8", 64),
    "lowformer": ("lowformer_b0", 64),
    "metaformer": ("caformer_s18", 64),
    "mlp_mixer": ("gmlp_ti16_224", 64),
    "mobilenetv5": ("mobilenetv5_base", 64),
    "mobilevit": ("mobilevit_xxs", 64),
    "mvitv2": ("mvitv2_tiny", 64),
    "naflexvit": ("naflexvit_base_patch16_siglip", 64),
    "nasnet": ("nasnetalarge", 64),
    "nest": ("nest_tiny", 64),
    "nextvit": ("nextvit_small", 64),
    "pit": ("pit_xs_224", 64),
    "pnasnet": ("pnasnet5large", 64),
    "pvt_v2": ("pvt_v2_b0", 64),
    "qwen3_vit": ("qwen3_vit_88m", 64),
    "rdnet": ("rdnet_tiny", 64),
    "regnet": ("regnetx_004_tv", 64),
    "repghost": ("repghostnet_050", 64),
    "repvit": ("repvit_m1", 64),
    "res2net": ("res2net50_26w_4s", 64),
    "resnest": ("resnest26d", 64),
    "resnetv2": ("resnetv2_18", 64),
    "rexnet": ("rexnet_100", 64),
    "selecsls": ("selecsls42", 64),
    "senet": ("legacy_seresnet18", 64),
    "sequencer": ("sequencer2d_s", 64),
    "shvit": ("shvit_s1", 64),
    "sknet": ("skresnet18", 64),
    "starnet": ("starnet_s1", 64),
    "swiftformer": ("swiftformer_xs", 64),
    "swin_transformer_v2": ("swinv2_tiny_window8_256", 64),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_224", 64),
    "tiny_vit": ("tiny_vit_5m_224", 64),
    "tnt": ("tnt_s_legacy_patch16_224", 64),
    "tresnet": ("tresnet_m", 64),
    "twins": ("twins_svt_small", 64),
    "vgg": ("vgg11", 64),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224", 64),
    "vision_transformer_sam": ("samvit_base_patch16_224", 64),
    "visformer": ("visformer_tiny", 64),
    "vitamin": ("vitamin_small_224", 64),
    "volo": ("volo_d1_224", 64),
    "xception": ("legacy_xception", 64),
    "xception_aligned": ("xception41p", 64),
    "xcit": ("xcit_nano_12_p8_224", 64),
}
TOO_LARGE = {"deepseek_vit", "gemma4_vit"}
"""Families whose smallest model has more than 100 million parameters."""

ALL = [pytest.param(*QUICK[family], id=family) for family in QUICK]
ALL += [pytest.param(*SLOW[family], id=family, marks=pytest.mark.nightly) for family in SLOW]
AT_ONCE = {"mambaout", "vision_transformer"}
"""Whose export is quick enough for every run."""
EXPORTED = [
    pytest.param(*QUICK[family], id=family, marks=[] if family in AT_ONCE else pytest.mark.slow) for family in QUICK
]
EXPORTED += ALL[len(QUICK) :]


def build(model: str, size: int, **options: Any) -> networks.FaceNetwork:
    torch.manual_seed(0)
    trunk = {"name": "timm", "model": model, "size": size, "pool": "avg", "shared": 8} | options
    return networks.build({"trunk": trunk, "heads": {"smile": 2}})


def woken(network: nn.Module) -> nn.Module:
    """timm starts the last scale of many blocks at 0, through which no gradient passes at first."""
    for parameter in network.parameters():
        if parameter.ndim <= 1 and not parameter.any():
            nn.init.uniform_(parameter, 0.2, 0.4)
    return network


@pytest.mark.parametrize("model, size", ALL)
def test_maps_and_gradients(model: str, size: int) -> None:
    """The maps have the channels that timm tells, and the last one's average reaches every parameter it depends on."""
    network = woken(build(model, size))
    trunk, images = network.trunk, torch.rand(2, 3, size, size) * 255
    maps = network.features(images)
    last = list(maps)[-2]
    channels = trunk.body.feature_info.channels()
    assert [maps[f"stage{i + 1}"].shape[1] for i in range(len(channels))] == channels
    assert [trunk.maps[f"stage{i + 1}"].channels for i in range(len(channels))] == channels
    sides = [maps[f"stage{i + 1}"].shape[2] for i in range(len(channels))]
    assert sides == sorted(sides, reverse=True)
    assert trunk.fc[1].in_features == channels[-1]
    network(images).outputs["smile"].square().sum().backward()
    learns = {name for name, parameter in trunk.body.named_parameters() if parameter.grad is not None}
    network.zero_grad(set_to_none=True)
    network.features(images)[last].square().sum().backward()
    depends = {name for name, parameter in trunk.body.named_parameters() if parameter.grad is not None}
    assert learns == depends
    assert len(depends) > 0.7 * len(dict(trunk.body.named_parameters()))


@pytest.mark.parametrize("model, size", EXPORTED)
def test_exported_it_answers_alike(model: str, size: int, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    named = {"smile": tasks.build("smile", {"kind": "classification", "column": "smile"})}
    bundle = Bundle(build(model, size).eval(), named, CropSpec(size=size, channels=3), about={"name": model})
    assert export_onnx(bundle, tmp_path / "model.onnx") <= TOLERANCE


def test_every_family_is_here_or_told() -> None:
    """timm adds families: a new one is added above."""
    known = {*QUICK, *SLOW, *TOO_LARGE}
    assert not known - set(timm.list_modules())
    assert not {family for family in set(timm.list_modules()) - known if timm.list_models(module=family)}


# ------------------------------------------------------------------------------------------- maps and sizes


@pytest.mark.parametrize("pool, width", [("avg", 768), ("flatten", 768 * 4)])
def test_channels_that_are_last_are_channels(pool: str, width: int) -> None:
    trunk = TimmTrunk("swin_tiny_patch4_window7_224", size=64, pool=pool, shared=8)
    assert trunk.fc[1].in_features == width
    assert [shape.channels for shape in trunk.maps.values()] == [96, 192, 384, 768, 8]


@pytest.mark.parametrize(
    "model, size, takes",
    [
        ("inception_v3", 64, 299),
        ("efficientformer_l1", 112, 224),
        ("eca_halonext26ts", 112, 256),
    ],
)
def test_a_size_that_a_model_cannot_take(model: str, size: int, takes: int) -> None:
    with pytest.raises(PolyfaceError) as caught:
        build(model, size)
    said = str(caught.value)
    assert (
        f"{model} takes no pictures of {size} × {size}; it is made for {takes} × {takes}: set size to {takes}" in said
    )
    assert "\n" not in said


def test_a_model_of_one_size_is_made_for_it_and_built_again() -> None:
    network = build("test_vit_relpos", 96).eval()
    again = networks.build(network.config)
    again.load_state_dict(network.state_dict())
    images = torch.rand(1, 3, 96, 96) * 255
    torch.testing.assert_close(again.eval()(images).outputs["smile"], network(images).outputs["smile"])
    assert not network.any_size
    assert build("test_resnet", 96).any_size


def test_positions_on_a_model_without_a_fine_map() -> None:
    trunk = build("test_vit", 64, pool="points", points=4).trunk
    assert trunk.maps["shared"].channels == 8 + 2 * 4
