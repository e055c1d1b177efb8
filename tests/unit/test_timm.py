"""Networks of timm: their maps, their weights, and how much of them is trained."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from models.encoders.timm_image import TimmImageEncoder
from models.places import _places
from tests.fixtures import random_batch
from utils.errors import UserError

SIZE = (96, 160)
KINDS = {  # a ConvNet with side branches, one without, a vision transformer, a hierarchical one
    "test_resnet": (32, 0),
    "test_convnext2": (32, 15.5),
    "test_vit": (16, 7.5),
    "test_coatnet": (32, 15.5),
}


def encoder(arch, pooled=False, **options):
    torch.manual_seed(0)
    return TimmImageEncoder(SIZE, pooled, True, arch=arch, **{"pre_trained": "false", **options})


@pytest.mark.filterwarnings("ignore::UserWarning:timm.layers.interpolate")
@pytest.mark.parametrize("arch", KINDS)
def test_maps_are_those_of_timm_and_lie_where_they_should(arch):
    ours, (stride, first) = encoder(arch).eval(), KINDS[arch]
    image = random_batch(2, *SIZE).image
    with torch.no_grad():
        tokens = ours(image)
        whole = ours.network.forward_features(ours.normalize(image))
    grid = (SIZE[0] // stride, SIZE[1] // stride)
    assert tokens.shape == (2, grid[0] * grid[1], ours.feature_dim)
    assert _places(ours, SIZE, grid) == [(stride, first)] * 2
    if whole.ndim == 4:
        whole = whole.flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens, whole[:, -tokens.shape[1] :])  # without the class token


def test_levels_are_counted_from_one_and_what_follows_is_left_out():
    image = random_batch(2, *SIZE).image
    with torch.no_grad():
        second, fourth = (encoder("test_vit", levels=(n,)).eval()(image) for n in (2, 4))
        mean = encoder("test_vit", levels=(4, 2)).eval()(image)
        both = encoder("test_vit", levels=(2, 4), combine="concat").eval()
        torch.testing.assert_close(mean, (second + fourth) / 2)
        torch.testing.assert_close(both(image), torch.cat([second, fourth], dim=-1))
    assert both.feature_dim == 128
    assert len(both.network.blocks) == 4


def test_maps_of_several_sizes_are_enlarged_to_the_finest():
    ours = encoder("test_convnext2", levels=(2, 4), combine="concat")
    assert ours(random_batch(1, *SIZE).image).shape == (1, 12 * 20, 64 + 128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "no_such"}, "unknown arch 'no_such'"),
        ({"arch": "test_vit.no_such"}, "arch 'test_vit.no_such': Invalid pretrained tag"),
        ({"arch": "test_vit", "levels": (7,)}, "levels: test_vit has 6, got 7"),
        ({"arch": "test_convnext2", "levels": (2, 4)}, "64, 128 features, which have no mean; wri"),
        ({"arch": "test_vit", "pre_trained": "gone.pt"}, "'gone.pt' is not a file; write a file"),
        (
            {"arch": "vit_nano_patch16_224", "pre_trained": "true"},
            "timm has no weights of vit_n|unk",
        ),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        encoder(**options)


def test_an_image_size_that_would_lose_a_border():
    with pytest.raises(ValueError, match=r"image size \[96, 150\] does not fit test_vit: .* 16 x"):
        TimmImageEncoder((96, 150), True, True, arch="test_vit", pre_trained="false")


def test_weights_of_a_file_are_loaded_before_the_image_size_changes(tmp_path, capsys):
    torch.manual_seed(1)
    theirs = timm.create_model("test_vit")  # with its classifier, for 160 x 160
    save_file({k: v.half() for k, v in theirs.state_dict().items()}, tmp_path / "v.safetensors")
    theirs.load_state_dict({k: v.half().float() for k, v in theirs.state_dict().items()})
    theirs.set_input_size(SIZE)
    ours = encoder("test_vit", pre_trained=str(tmp_path / "v.safetensors")).eval()
    assert "test_vit: license of timm's weights: apache-2.0\n" in capsys.readouterr().out
    image = random_batch(1, *SIZE).image
    with torch.no_grad():
        wanted = theirs.eval().forward_features(ours.normalize(image))[:, 1:]
        torch.testing.assert_close(ours(image), wanted)
    with pytest.raises(UserError, match="SHA-256 is"):
        encoder("test_vit", pre_trained=str(tmp_path / "v.safetensors"), sha256="00")
    with pytest.raises(ValueError, match=r"not the weights of test_vit2: '.*' differs"):
        encoder("test_vit2", pre_trained=str(tmp_path / "v.safetensors"))


def test_timms_own_weights_fit_with_their_classifier_or_are_an_error(monkeypatch, capsys):
    theirs, asked = timm.create_model("test_vit"), []

    def create(arch, **options):
        asked.append(options)
        return theirs

    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setitem(theirs.pretrained_cfg, "license", "cc-by-nc-4.0")
    encoder("test_vit", pre_trained="true")
    assert asked == [{"pretrained": True}]  # num_classes=0 would make timm's loading lax
    assert "cc-by-nc-4.0; warning: it may forbid commercial" in capsys.readouterr().out

    def fail(arch, **options):
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(UserError, match=r"\(no network\); download timm/test_vit.* another way"):
        encoder("test_vit", pre_trained="true")


@pytest.mark.parametrize(
    ("arch", "folded", "options", "is_changed"),
    [
        ("test_resnet", True, {}, True),
        ("test_resnet", True, {"levels": (2, 3), "combine": "concat"}, True),
        ("test_resnet", True, {"train": 1}, True),
        ("test_resnet", True, {"train": "none"}, False),
        ("test_resnet", False, {}, False),
        ("test_efficientnet", True, {}, True),
    ],
)
def test_folded_weights_are_recognized(tmp_path, capsys, arch, folded, options, is_changed):
    torch.manual_seed(0)
    theirs = timm.create_model(arch)
    for norm in (m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d) and folded):
        nn.init.normal_(norm.bias)
    save_file(theirs.state_dict(), tmp_path / "r.safetensors")
    ours = encoder(arch, pre_trained=str(tmp_path / "r.safetensors"), **options).eval()
    image, said = random_batch(2, *SIZE).image, capsys.readouterr().out
    with torch.no_grad():
        before = ours(image)
        ours.adapt(iter([image]))
        torch.testing.assert_close(ours(image), before, rtol=1e-3, atol=1e-4)
    first = next(m for m in ours.modules() if isinstance(m, nn.BatchNorm2d))
    assert bool(first.running_mean.any()) == is_changed
    assert all(
        value.isfinite().all() for value in ours.state_dict().values()
    )  # of unused ones, too
    what = "r.safetensors: BatchNorm is folded into the convolutions: it is unfolded"
    assert (what in said) == is_changed


@pytest.mark.parametrize(
    ("arch", "first"), [("test_vit", "network.blocks.4"), ("test_resnet", "network.layer3")]
)
def test_the_last_blocks_are_trained(arch, first):
    ours = encoder(arch, train=2).train()
    names = [n for n, p in ours.named_parameters() if p.requires_grad]
    assert names[0].startswith(first)
    assert names == [n for n, _ in ours.named_parameters()][-len(names) :]
    ours(random_batch(2, *SIZE).image).sum().backward()
    assert all((p.grad is None) != p.requires_grad for p in ours.parameters())
    for name, module in ours.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training == any(n.startswith(name) for n in names)


def test_each_block_learns_more_slowly_than_the_next():
    ours = encoder("test_vit", lr_decay=0.5)
    factors = {id(p): factor for factor, group in ours.lr_factors() for p in group}
    assert len(factors) == len(list(ours.parameters()))
    rates = [factors[id(block.attn.qkv.weight)] for block in ours.network.blocks]
    assert rates == [0.5**n for n in (5, 4, 3, 2, 1, 0)]
    assert factors[id(ours.network.patch_embed.proj.weight)] == 0.5**6
    assert [factor for factor, _ in encoder("test_vit").lr_factors()] == [1]
