"""dlib's weights: its own 128 numbers from the published file, every tensor in its place, and files that are not it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from polyface.errors import PolyfaceError
from polyface.networks.parts.residual import ResidualPart
from polyface.networks.pretrained import dlib as weights_module
from polyface.networks.pretrained.dlib import FILE, PACKAGE, dlib_tensors, read_dlib
from polyface.networks.shapes import Shape
from polyface.networks.trunks.face_resnet import FaceResNet

published = pytest.mark.skipif(find_spec(PACKAGE) is None, reason=f"the package {PACKAGE} is not installed")

# What dlib 20.0.1's `face_recognition_model_v1.compute_face_descriptor(picture())` says.
# fmt: off
DESCRIPTOR = [
    -0.0501, 0.0899, 0.0410, -0.0056, -0.0858, -0.0568, -0.0650, 0.0272, 0.1055, 0.0013, 0.2173, -0.0110, -0.2494,
    -0.0059, -0.0184, 0.0730, -0.1271, -0.0256, -0.1633, -0.1141, 0.0389, 0.0126, 0.0012, -0.0071, -0.1150, -0.2766,
    -0.0953, -0.1125, 0.0678, -0.1663, 0.0291, 0.0101, -0.1470, -0.0648, -0.0056, 0.0189, -0.0101, -0.0702, 0.1602,
    -0.0237, -0.1500, -0.0086, 0.0204, 0.2435, 0.2051, 0.0566, 0.0032, -0.0523, 0.0592, -0.2816, 0.0313, 0.1631,
    0.0610, 0.1102, 0.0791, -0.1329, 0.0333, 0.1083, -0.1207, 0.0156, 0.0322, -0.1079, -0.0443, -0.1214, 0.1751,
    0.0610, -0.0731, -0.1205, 0.1233, -0.1640, -0.0272, 0.1054, -0.0932, -0.1673, -0.2588, 0.1078, 0.3901, 0.2044,
    -0.1447, 0.0385, -0.1153, -0.0411, 0.0091, -0.0072, -0.0829, -0.0245, -0.0911, 0.0890, 0.1899, -0.1033, 0.0455,
    0.1545, -0.0242, 0.0415, -0.0051, 0.0009, -0.1110, 0.0093, -0.0569, 0.0196, 0.1413, -0.1270, 0.0344, 0.0767,
    -0.1527, 0.1015, -0.0085, -0.0702, 0.0347, 0.0133, -0.0558, -0.0384, 0.2349, -0.2165, 0.2406, 0.2138, 0.0122,
    0.1172, 0.0549, 0.1387, -0.0648, -0.0225, -0.1412, -0.0546, 0.0137, -0.0023, -0.0219, -0.0114,
]
# fmt: on


def picture() -> np.ndarray:
    """A coloured pattern of stripes and a grid, [150, 150, 3] RGB, by integers alone."""
    rows, columns = np.mgrid[:150, :150]
    planes = [
        128 + 90 * ((rows * a + columns * b) % 97 > 48) + (rows * columns // c) % 37
        for a, b, c in ((1, 2, 50), (3, 1, 90), (2, -1, 70))
    ]
    return np.stack(planes, -1).astype(np.uint8)


def whole(weights: tuple[dict[str, Tensor], dict[str, Tensor]]) -> torch.nn.Sequential:
    trunk, branch = FaceResNet(), ResidualPart([Shape(256, 32)], bottleneck=128)
    trunk.start_from(weights[0])
    branch.start_from(weights[1])
    return torch.nn.Sequential(trunk, branch).eval()


@torch.no_grad()
def descriptor(network: torch.nn.Sequential, image: np.ndarray) -> np.ndarray:
    trunk, branch = network
    found = branch([trunk(torch.from_numpy(image).permute(2, 0, 1)[None].float())["shared"]])
    return np.asarray(found[0].numpy())


def written(path: Path) -> Path:
    """A file in dlib's format, with the published one's tensors of random numbers."""
    random = np.random.default_rng(0)
    parts = [b"\x01\x05settings that are of no account"]
    for samples, channels in SHAPES:
        head = b"".join(map(_integer, (2, samples, channels, 1, 1)))  # the version, and four sizes
        parts += [head, random.standard_normal(samples * channels, np.float32).tobytes(), b"\x01\x00\x01\x00"]
    path.write_bytes(b"".join(parts))
    return path


def _integer(value: int) -> bytes:
    """How many bytes, then the number in these."""
    data = value.to_bytes(4, "little").rstrip(b"\0")
    return bytes([len(data)]) + data


def _shapes() -> list[tuple[int, int]]:
    """Samples and channels of the file's tensors, from the input on: of a unit its filters with their biases, then
    scales with shifts; King 2017."""
    units = [(3, 32, 7)]
    width = 32
    for wider, blocks in ((32, 3), (64, 4), (128, 3), (256, 3), (256, 1)):
        for _ in range(blocks):
            units += [(width, wider, 3), (wider, wider, 3)]
            width = wider
    tensors = [size for a, b, k in units for size in ((a * b * k * k + b, 1), (2 * b, 1))]
    return [*tensors, (256, 128)]


SHAPES = _shapes()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("dlib") / FILE)


@pytest.fixture(scope="module")
def network() -> torch.nn.Sequential:
    return whole(dlib_tensors())


# ------------------------------------------------------------------------------------------------ dlib's numbers


@published
def test_the_descriptor_is_the_one_that_dlib_gave(network) -> None:
    found = descriptor(network, picture())
    np.testing.assert_allclose(found, DESCRIPTOR, atol=6e-5)
    mirrored = descriptor(network, picture()[:, ::-1].copy())
    assert float(np.abs(mirrored - DESCRIPTOR).max()) > 0.05  # another picture is told apart by far more


@published
def test_descriptors_are_dlibs(network) -> None:
    dlib = pytest.importorskip("dlib")
    spec = find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    model = dlib.face_recognition_model_v1(str(Path(spec.origin).parent / "models" / FILE))
    random = np.random.default_rng(1)
    noise = random.integers(0, 256, (150, 150, 3), np.uint8)
    for image in (picture(), noise, np.zeros_like(noise), picture() // 2 + noise // 4):
        expected = np.array(model.compute_face_descriptor(image))
        np.testing.assert_allclose(descriptor(network, image), expected, atol=1e-5)


@published
def test_published_tensors_are_plausible() -> None:
    """No tensor was read across a border: finite numbers of a moderate size, filters around 0."""
    for weights in dlib_tensors():
        for name, value in weights.items():
            assert bool(value.isfinite().all()), name
            assert float(value.float().abs().max()) < 100, name
            if name.endswith("conv.weight"):
                assert abs(float(value.mean())) < float(value.std()), name


# ------------------------------------------------------------------------------------------------ the file's format


def test_every_tensor_is_in_its_place(file) -> None:
    """Filters, biases, scales, shifts, one after the other; the last layer is kept by its inputs."""
    random = np.random.default_rng(0)
    numbers = [torch.from_numpy(random.standard_normal(a * b, np.float32)) for a, b in SHAPES]
    trunk, branch = read_dlib(file)
    units = [name.removesuffix(".conv.weight") for name in trunk if name.endswith("conv.weight")]
    assert units[:4] == ["stem", "levels.0.0.first", "levels.0.0.second", "levels.0.1.first"]
    assert len(units) == 1 + 2 * 13
    for weights, names, given in (
        (trunk, units, numbers[: 2 * len(units)]),
        (branch, ["blocks.0.first", "blocks.0.second"], numbers[2 * len(units) : -1]),
    ):
        for place, name in enumerate(names):
            conv, norm = given[2 * place], given[2 * place + 1]
            width = len(norm) // 2
            assert torch.equal(weights[f"{name}.conv.weight"].flatten(), conv[:-width])
            assert torch.equal(weights[f"{name}.conv.bias"], conv[-width:])
            assert torch.equal(weights[f"{name}.norm.weight"], norm[:width])
            assert torch.equal(weights[f"{name}.norm.bias"], norm[width:])
    assert torch.equal(branch["bottleneck.weight"], numbers[-1].view(256, 128).T)


def test_names_and_shapes_are_the_networks(file) -> None:
    trunk, branch = read_dlib(file)
    for weights, module in ((trunk, FaceResNet()), (branch, ResidualPart([Shape(256, 32)], bottleneck=128))):
        own = module.state_dict()
        assert {k: tuple(v.shape) for k, v in weights.items()} == {k: tuple(v.shape) for k, v in own.items()}


def test_batch_norms_scale_and_shift_alone(file) -> None:
    """Their statistics leave the answer of a layer as it is: x · scale + shift."""
    trunk, _ = read_dlib(file)
    network = FaceResNet().eval()
    network.load_state_dict(trunk)
    norm = network.levels[1][0].first.norm  # type: ignore[index, union-attr]
    x = torch.randn(2, 64, 5, 5)
    expected = x * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
    torch.testing.assert_close(norm(x), expected, rtol=1e-6, atol=1e-6)


# ------------------------------------------------------------------------------------------------ faults


def refused(path: Path, message: str) -> None:
    with pytest.raises(PolyfaceError, match=message) as caught:
        read_dlib(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).endswith(f"install {PACKAGE} again")


@pytest.mark.parametrize("kept", [0, 1, 60, 40_000, 0.5, -131_100, -5])
def test_a_file_cut_short(file, tmp_path, kept: float) -> None:
    """Anywhere: within a head, within numbers, and before the last of them."""
    data = file.read_bytes()
    (tmp_path / "cut.dat").write_bytes(data[: round(kept * len(data)) if isinstance(kept, float) else kept])
    refused(tmp_path / "cut.dat", "not dlib's face recognition network")


def test_other_files(tmp_path) -> None:
    (tmp_path / "noise.dat").write_bytes(np.random.default_rng(0).bytes(200_000))
    refused(tmp_path / "noise.dat", "not dlib's face recognition network")
    (tmp_path / "text.dat").write_text("version https://git-lfs.github.com/spec/v1\n")
    refused(tmp_path / "text.dat", "not dlib's face recognition network")
    refused(tmp_path / "gone.dat", "cannot be read")
    refused(tmp_path, "cannot be read")


def test_without_the_package_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(weights_module, "find_spec", lambda name: None)
    with pytest.raises(PolyfaceError, match="init.source: dlib: .*pip install") as caught:
        dlib_tensors()
    assert "\n" not in str(caught.value)
    assert "face-recognition-models" in str(caught.value)


def test_branches_of_another_length_say_so(file) -> None:
    weights = read_dlib(file)[1]
    with pytest.raises(PolyfaceError, match="bottleneck of 128, not 64"):
        ResidualPart([Shape(256, 32)], bottleneck=64).start_from(weights)
    plain = ResidualPart([Shape(256, 32)])  # the residual block alone
    plain.start_from(weights)
    assert torch.equal(plain.state_dict()["blocks.0.first.conv.weight"], weights["blocks.0.first.conv.weight"])
