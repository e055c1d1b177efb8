"""What every fusion, encoder, network and objective must do."""

import json
import re

import open_clip
import pytest
import torch
import torchvision
from torch import nn

from models.base import AnomalyModel, Output
from models.baselines.base import ClipBaseline
from models.classifiers import CLASSIFIERS
from models.encoders import IMAGE_ENCODERS
from models.encoders.clip_text import ClipTextEncoder
from models.encoders.tower import ImageEncoder, dry_run
from models.fusion import FUSIONS
from models.fusion.base import Fusion
from models.methods import METHODS
from models.objectives import OBJECTIVES
from models.objectives.base import Learner, LiveTeacher, Objective
from tests.fixtures import TINY_CLIP, random_batch, student_options, teacher_options
from utils.batch import Batch
from utils.errors import UserError
from utils.registry import Component

SIZE = (64, 96)
SIZES = {"winclip": (64, 128)}  # two square tiles
SMALL = {
    "baf": {"dim": 32, "out_dim": 24, "chunks": 4, "rank": 2},
    "block": {"dim": 32, "out_dim": 24, "chunks": 4, "rank": 2},
    "concat": {"out_dim": 24},
    "cross_attention": {"dim": 32, "out_dim": 24, "heads": 4},
    "mlb": {"dim": 32, "out_dim": 24},
    "mutan": {"dim": 32, "out_dim": 24, "rank": 2},
    "saf": {"dim": 32, "out_dim": 24, "heads": 4},
    "saf_released": {"dim": 32, "heads": 4},
    "sum": {"dim": 32, "out_dim": 24},
}
BLIND = ("saf_released",)  # the released defect, kept on purpose
BUILDERS = {
    "teacher": lambda: METHODS["teacher"](SIZE, True, **teacher_options()),
    "teacher_concat": lambda: METHODS["teacher"](SIZE, True, **teacher_options("concat")),
    "teacher_vit": lambda: METHODS["teacher"](
        SIZE,
        True,
        **{**teacher_options(), "img_enc": Component("clip", {**TINY_CLIP, "arch": "tiny-ViT"})},
    ),
    "student": lambda: METHODS["student"](SIZE, True, **student_options()),
    "student_mobilenet": lambda: METHODS["student"](
        SIZE, True, **student_options(arch="mobilenet_v2")
    ),
    "student_timm_convnet": lambda: METHODS["student"](
        SIZE, True, **student_options("timm", "test_efficientnet")
    ),
    "student_timm_vit": lambda: METHODS["student"](
        SIZE, True, **student_options("timm", "test_vit")
    ),
    "student_patches": lambda: METHODS["student"](
        SIZE, True, **{**student_options("clip", "tiny-ViT"), "classif": Component("patches", {})}
    ),
    "student_clip": lambda: METHODS["student"](SIZE, True, **student_options("clip", "tiny-RN")),
    "student_vit": lambda: METHODS["student"](SIZE, True, **student_options("clip", "tiny-ViT")),
    "textonly": lambda: METHODS["textonly"](
        SIZE,
        True,
        text_enc=Component("clip", TINY_CLIP),
        classif=Component("mlp", {"hidden": 16}),
    ),
    "patchcore": lambda: patchcore("timm", "test_vit"),
    "patchcore_torchvision": lambda: patchcore("torchvision", "resnet18"),
    "clip": lambda: baseline("clip"),
    "winclip": lambda: baseline("winclip"),
    "vand": lambda: baseline("vand", levels=(2, 4)),
    "anomalyclip": lambda: baseline("anomalyclip", levels=(4,), depth=2, dual_blocks=3),
}


def baseline(name, **options):
    """A published method; its CLIP is frozen."""
    return METHODS[name](
        SIZES.get(name, SIZE), True, arch="tiny-ViT", pre_trained="random", **options
    )


def patchcore(name, arch):
    """A memory bank of six normal images."""
    encoder = Component(name, {"arch": arch, "pre_trained": "false", "train": "none"})
    model = METHODS["patchcore"](SIZE, True, img_enc=encoder)
    model.fit([random_batch(6, *SIZE, seed=1)], num_images=6, seed=0)
    return model


def a_batch(name, size=4):
    return random_batch(size, *SIZES.get(name, SIZE))


def fusion(name, **options):
    torch.manual_seed(0)
    return FUSIONS[name](16, 16, **{**SMALL.get(name, {}), **options})


def tokens(name, size=3, seed=0):
    random = torch.Generator().manual_seed(seed)
    n, length = (1, 1) if FUSIONS[name].pooled else (6, 5)
    image = torch.randn(size, n, 16, generator=random, requires_grad=True)
    text = torch.randn(size, length, 16, generator=random, requires_grad=True)
    mask = torch.ones(size, length, dtype=torch.bool)
    if length > 1:
        mask[0, 3:] = False
    return image, text, mask


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", FUSIONS)
def test_fusion_shape(name, size):
    module = fusion(name).eval()
    fused = module(*tokens(name, size))
    assert fused.vector.shape == (size, module.out_dim)
    assert fused.vector.isfinite().all()
    assert torch.equal(fused.vector, module(*tokens(name, size)).vector)


@pytest.mark.parametrize("name", FUSIONS)
def test_both_inputs_of_a_fusion_matter(name):
    image, text, mask = tokens(name)
    fusion(name).eval()(image, text, mask).vector.square().sum().backward()
    assert text.grad.abs().sum() > 1e-3
    assert (image.grad.abs().sum() > 1e-3) == (name not in BLIND)


def test_the_released_fusion_does_not_see_the_image():
    module = fusion("saf_released").eval()
    (image, text, mask), (other, _, _) = tokens("saf_released"), tokens("saf_released", seed=1)
    assert torch.equal(module(image, text, mask).vector, module(other, text, mask).vector)


@pytest.mark.parametrize("name", FUSIONS)
def test_every_parameter_of_a_fusion_learns(name):
    module = fusion(name)
    module(*tokens(name)).vector.square().sum().backward()
    still = {n.split(".")[0] for n, p in module.named_parameters() if not learned(p)}
    assert still == ({"linear_q", "linear_k"} if name in BLIND else set())


def learned(parameter):
    return parameter.grad is not None and parameter.grad.abs().sum() > 1e-7


@pytest.mark.parametrize("name", [n for n in FUSIONS if not FUSIONS[n].pooled])
def test_padding_has_no_effect(name):
    module = fusion(name).eval()
    image, text, mask = tokens(name)
    changed = text.detach().clone()
    changed[0, 3:] = 99.0
    torch.testing.assert_close(
        module(image, text, mask).vector, module(image, changed, mask).vector, rtol=0, atol=0
    )
    cut = module(image[:1], text[:1, :3], mask[:1, :3]).vector
    torch.testing.assert_close(module(image, text, mask).vector[:1], cut)


@pytest.mark.parametrize("direction", ["image_to_text", "text_to_image", "both"])
def test_cross_attention_layers_have_their_own_weights_and_return_their_maps(direction):
    module = fusion("cross_attention", layers=3, direction=direction).eval()
    one = fusion("cross_attention", layers=1, direction=direction)
    count = sum(p.numel() for p in module.streams.parameters())
    assert count == 3 * sum(p.numel() for p in one.streams.parameters())
    image, text, mask = tokens("cross_attention")
    maps = module(image, text, mask).attention
    shapes = {"image_to_text": (3, 3, 4, 6, 5), "text_to_image": (3, 3, 4, 5, 6)}
    wanted = list(shapes) if direction == "both" else [direction]
    assert {name: tuple(m.shape) for name, m in maps.items()} == {n: shapes[n] for n in wanted}
    for name, weights in maps.items():
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)))
        if name == "image_to_text":
            assert weights[0, ..., 3:].abs().max() == 0  # nobody looks at padding


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cross_attention", {"heads": 5}, r"dim \(32\) must be a multiple of heads \(5\)"),
        ("cross_attention", {"layers": 0}, r"layers must be in \[1, 100\], got 0"),
        ("saf_released", {"heads": 5}, r"dim \(32\) must be a multiple of heads \(5\)"),
    ],
)
def test_fusion_options_are_checked(name, options, message):
    with pytest.raises(ValueError, match=message):
        fusion(name, **options)


def test_the_released_fusion_needs_embeddings_of_one_size():
    with pytest.raises(ValueError, match="needs embeddings of one size, got 8 and 16"):
        FUSIONS["saf_released"](8, 16)


def test_cross_attention_refuses_a_single_token():
    image, text, mask = tokens("cross_attention")
    with pytest.raises(UserError, match="at least 2 image tokens and 2 text tokens, got 6 and 1;"):
        fusion("cross_attention")(image, text[:, :1], mask[:, :1])


@pytest.mark.parametrize("name", ["cross_attention", "baf"])
def test_attention_loads_checkpoints_of_earlier_versions(name):
    now, before = (nn.ModuleDict({"fusion": fusion(name)}) for _ in range(2))
    state = {
        key.replace(".query_norm.", ".ask.").replace(".memory_norm.", ".answer."): value + 1
        for key, value in before.state_dict().items()
    }
    assert sum(".ask." in key or ".answer." in key for key in state) == 2 * 2 * 2 * 2
    now.load_state_dict(state)
    for key, value in before.state_dict().items():
        assert torch.equal(now.state_dict()[key], value + 1)


def build(name):
    torch.manual_seed(0)
    model = BUILDERS[name]()
    for parameter in model.parameters():  # CLIP's ResNet starts with dead residual branches
        if parameter.abs().sum() == 0:
            nn.init.normal_(parameter, std=0.1)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = 1.0  # one look at the data: without it random networks fade to a constant
    with torch.no_grad():
        model.train()(a_batch(name, 6))
    return model


@pytest.mark.parametrize("name", BUILDERS)
def test_a_network_gives_logits_features_and_scores(name):
    model, batch = build(name).eval(), a_batch(name)
    with torch.no_grad():
        output, again = model(batch), model(batch)
        score = model.score(batch)
    assert output.logits.shape == (4, 2)
    assert output.features.shape == (4, model.feature_dim)
    assert torch.equal(output.logits, again.logits)
    torch.testing.assert_close(score, output.logits.softmax(-1)[:, 1])


def pick(batch, places):
    return Batch(
        image=batch.image[places],
        label=batch.label[places],
        object=[batch.object[i] for i in places],
        path=[batch.path[i] for i in places],
        caption=[batch.caption[i] for i in places],
    )


@pytest.mark.parametrize("name", BUILDERS)
def test_scores_do_not_depend_on_the_batch(name):
    model, batch = build(name).eval(), a_batch(name)
    with torch.no_grad():
        together = model.score(batch)
        alone = torch.cat([model.score(pick(batch, [i])) for i in range(4)])
        mixed = model.score(pick(batch, [3, 1, 0, 2]))
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed, together[[3, 1, 0, 2]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BUILDERS)
def test_every_parameter_of_a_network_learns(name):
    model, batch = build(name).train(), a_batch(name, 6)
    output = model(batch)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    frozen = {n.split(".")[0] for n, _ in model.named_parameters() if n not in trained}
    part = "img_enc" if model.normal_only else "clip"
    assert frozen == ({part} if model.normal_only or isinstance(model, ClipBaseline) else set())
    if model.normal_only or not model.needs_training({}):
        assert not trained
        return
    (output.logits.square().sum() + sum(m.square().sum() for m in output.maps)).backward()
    assert not any(learned(p) for n, p in model.named_parameters() if n not in trained)
    still = [n for n, p in trained.items() if not learned(p)]
    # A key bias shifts all scores of a query alike: it is there in every CLIP, without effect, but
    # shares one tensor with query and value biases. Nothing else may stand still.
    assert [n for n in still if not n.endswith("k_proj.bias")] == []


@pytest.mark.parametrize("name", BUILDERS)
def test_a_network_is_saved_and_loaded(name):
    model, other, batch = build(name).eval(), BUILDERS[name]().eval(), a_batch(name, 2)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(model.score(batch), other.score(batch))


@pytest.mark.parametrize("name", BUILDERS)
def test_only_networks_that_read_text_depend_on_it(name):
    model, batch = build(name).eval(), a_batch(name)
    silent = Batch(batch.image, batch.label, batch.object, batch.path)
    with torch.no_grad():
        if not model.reads_text:
            assert torch.equal(model.score(silent), model.score(batch))
            return
        other = Batch(batch.image, batch.label, batch.object, batch.path, ["burnt"] * 4)
        assert not torch.allclose(model.score(other), model.score(batch), atol=1e-6)
    with pytest.raises(ValueError, match="needs captions, and the batch has none"):
        model(silent)


@pytest.mark.parametrize("name", [n for n in BUILDERS if n != "textonly"])
def test_every_network_but_textonly_depends_on_the_image(name):
    model, batch = build(name).eval(), a_batch(name)
    other = Batch(255 - batch.image, batch.label, batch.object, batch.path, batch.caption)
    with torch.no_grad():
        assert not torch.allclose(model.score(other), model.score(batch), atol=1e-6)


def test_textonly_does_not_depend_on_the_image():
    model, batch = build("textonly").eval(), random_batch(4, *SIZE)
    other = Batch(255 - batch.image, batch.label, batch.object, batch.path, batch.caption)
    with torch.no_grad():
        assert torch.equal(model.score(other), model.score(batch))


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("size", [1, 3])
def test_classifiers(name, size):
    head = CLASSIFIERS[name](8)
    logits = head(torch.randn(size, 5, 8) if head.of_places else torch.randn(size, 8))
    assert logits.shape == (size, 2)
    logits.square().sum().backward()
    assert [n for n, p in head.named_parameters() if not learned(p)] == []


ENCODERS = [
    ("clip", {"arch": "tiny-RN", "pre_trained": "random"}, "visual.layer4"),
    ("clip", {"arch": "tiny-ViT", "pre_trained": "random"}, "visual.transformer.resblocks.3"),
    ("torchvision", {"arch": "resnet18", "pre_trained": "false"}, "trunk.7"),
    ("torchvision", {"arch": "mobilenet_v2", "pre_trained": "false"}, "trunk.18"),
    ("timm", {"arch": "test_vit", "pre_trained": "false"}, "network.blocks.5"),
    ("timm", {"arch": "test_efficientnet", "pre_trained": "false"}, "network.blocks.4"),
]


def test_every_image_encoder_is_tested():
    assert {name for name, _, _ in ENCODERS} == set(IMAGE_ENCODERS)


@pytest.mark.parametrize(
    ("arch", "problem"),
    [
        ("swin_t", "arch: swin_t has no feature maps (B, D, h, w)"),
        ("mnasnet0_5", "arch: MNASNet has neither features nor layer4"),
    ],
)
def test_a_network_of_torchvision_without_maps_is_refused(arch, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        IMAGE_ENCODERS["torchvision"]((64, 64), True, False, arch=arch)


@pytest.mark.parametrize("base", [AnomalyModel, Fusion, ImageEncoder, Objective])
def test_what_a_base_class_asks_for_must_be_there(base):
    with pytest.raises(TypeError, match="abstract"):
        base()


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (64, 96), (96, 64)])
@pytest.mark.parametrize(("name", "options", "last"), ENCODERS)
def test_image_encoders_take_any_size(name, options, last, size, pooled):
    encoder = IMAGE_ENCODERS[name](size, pooled, True, **options).eval()
    found = encoder(random_batch(2, *size).image)
    assert found.shape[0] == 2
    assert found.shape[2] == encoder.feature_dim
    assert (found.shape[1] == 1) == pooled


@pytest.mark.parametrize(("side", "device"), [(128, "cpu"), (129, "meta")])
def test_large_images_are_not_looked_at_to_know_a_shape(side, device):
    found = dry_run(nn.Conv2d(3, 5, 1), torch.zeros(1, 3, side, 128))
    assert found.shape == (1, 5, side, 128)
    assert found.device.type == device


def test_what_cannot_be_known_without_numbers_is_computed():
    class Places(nn.Module):
        def forward(self, image):
            return image.nonzero()

    assert dry_run(Places(), torch.zeros(1, 3, 256, 256)).shape == (0, 4)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize(("name", "options", "last"), ENCODERS)
def test_how_much_of_an_encoder_is_trained(name, options, last, pooled):
    whole = IMAGE_ENCODERS[name]((64, 64), pooled, True, **options)
    assert all(p.requires_grad for p in whole.parameters())
    frozen = IMAGE_ENCODERS[name]((64, 64), pooled, True, **options, train="none").train()
    assert not any(p.requires_grad for p in frozen.parameters())
    assert not any(m.training for m in frozen.modules() if isinstance(m, nn.BatchNorm2d))
    part = IMAGE_ENCODERS[name]((64, 64), pooled, True, **options, train="last_stage").train()
    names = {n for n, p in part.named_parameters() if p.requires_grad}
    assert any(n.startswith(last) for n in names)
    assert len(names) < len(list(part.named_parameters()))
    for module_name, module in part.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training == module_name.startswith(last)


def test_fixed_norms_keep_their_statistics():
    options = {"arch": "resnet18", "pre_trained": "false", "batch_norm": "fixed"}
    encoder = IMAGE_ENCODERS["torchvision"]((64, 64), True, True, **options).train()
    before = {n: b.clone() for n, b in encoder.named_buffers()}
    encoder(random_batch(4, 64, 64).image).sum().backward()
    assert all(torch.equal(b, before[n]) for n, b in encoder.named_buffers())
    assert learned(encoder.trunk[1].weight)  # scale and shift still learn


@pytest.mark.parametrize(("batch_norm", "is_changed"), [("train", False), ("unfold", True)])
def test_an_encoder_looks_at_images_if_asked_to(batch_norm, is_changed):
    options = {"arch": "resnet18", "pre_trained": "false", "batch_norm": batch_norm}
    encoder = IMAGE_ENCODERS["torchvision"]((64, 64), True, True, **options).eval()
    image = random_batch(4, 64, 64).image
    before, mean = encoder(image), encoder.trunk[1].running_mean.clone()
    encoder.adapt(iter([image]))
    assert torch.equal(encoder.trunk[1].running_mean, mean) != is_changed
    torch.testing.assert_close(encoder(image), before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("variance", "options", "is_changed"),
    [
        (1, {}, True),
        (1 - 1e-5, {}, True),  # the root of variance and eps is 1
        (1, {"train": "last_stage"}, True),
        (1, {"train": "none"}, False),
        (1, {"batch_norm": "fixed"}, False),
        (None, {}, False),
    ],
)
def test_folded_weights_are_recognized(tmp_path, capsys, variance, options, is_changed):
    torch.manual_seed(0)
    network = torchvision.models.resnet18()
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and variance):
        nn.init.normal_(norm.bias)
        norm.running_var.fill_(variance)
    torch.save(network.state_dict(), tmp_path / "r.pt")
    options |= {"arch": "resnet18", "pre_trained": str(tmp_path / "r.pt")}
    encoder = IMAGE_ENCODERS["torchvision"]((64, 64), True, True, **options)
    said = capsys.readouterr().out
    encoder.adapt(iter([random_batch(4, 64, 64).image]))
    assert bool(encoder.trunk[1].running_mean.any()) == is_changed
    assert ("r.pt: BatchNorm is folded into the convolutions: it is unfolded" in said) == is_changed


def test_text_encoder_restricts_too():
    frozen = ClipTextEncoder(False, True, **TINY_CLIP, train="none")
    assert not any(p.requires_grad for p in frozen.parameters())
    part = ClipTextEncoder(True, True, **TINY_CLIP, train="last_stage")
    names = {n for n, p in part.named_parameters() if p.requires_grad}
    assert "text.text_projection" in names
    assert "text.token_embedding.weight" not in names


def distiller(**options):
    torch.manual_seed(0)
    teacher = build("teacher")
    student = build("student")
    targets = LiveTeacher(teacher)
    objective = OBJECTIVES["distillation"](student.feature_dim, targets, **options)
    return teacher, Learner(student, objective)


def guided(batch):
    return Batch(batch.image, batch.label, batch.object, batch.path, guide=batch)


@pytest.mark.parametrize("name", [n for n, kind in OBJECTIVES.items() if not kind.needs_masks({})])
def test_an_objective_gives_a_finite_loss_that_reaches_the_network(name):
    student = build("student")
    targets = LiveTeacher(build("teacher"))
    learner = Learner(student, OBJECTIVES[name](student.feature_dim, targets)).train()
    terms = learner(guided(random_batch(4, *SIZE)))
    assert terms["loss"].ndim == 0
    assert terms["loss"].isfinite()
    terms["loss"].backward()
    assert [n for n, p in learner.named_parameters() if not learned(p)] == []


@pytest.mark.parametrize("feature_loss", ["mse", "cosine"])
def test_the_loss_is_the_weighted_sum_of_its_terms(feature_loss):
    weights = {"ce_weight": 0.1, "kl_weight": 0.5, "feature_weight": 0.8}
    _, learner = distiller(**weights, feature_loss=feature_loss)
    terms = learner.eval()(guided(random_batch(4, *SIZE)))
    total = 0.1 * terms["ce"] + 0.5 * terms["kl"] + 0.8 * terms["feature"]
    torch.testing.assert_close(terms["loss"], total)
    terms["loss"].backward()
    assert learned(learner.objective.project.weight)


def test_the_teacher_is_frozen_and_not_part_of_what_is_trained_or_saved():
    teacher, learner = distiller(feature_weight=1.0)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    for _ in range(2):
        learner.train()
        loss = learner(guided(random_batch(4, *SIZE)))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    inside = {name.split(".")[0] for name in learner.state_dict()}
    assert inside == {"model", "objective"}
    assert {n for n in learner.state_dict() if n.startswith("objective")} == {
        "objective.project.weight",
        "objective.project.bias",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ce_weight": -1.0}, "ce_weight must be at least 0, got -1.0"),
        ({"ce_weight": 0.0, "kl_weight": 0.0}, "ce_weight or kl_weight must be more than 0"),
        ({"temperature": 0.0}, r"temperature must be in \(0, 1000\], got 0.0"),
        ({"anomaly_weight": 0.0}, "anomaly_weight must be more than 0, got 0.0"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
    ],
)
def test_objective_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        distiller(**options)


def test_distillation_without_a_teacher():
    with pytest.raises(ValueError, match="needs a teacher"):
        OBJECTIVES["distillation"](8, None)


def test_the_anomaly_weight_is_a_share_of_the_mean():
    objective = OBJECTIVES["cross_entropy"](8, None, anomaly_weight=3.0)
    logits = torch.tensor([[2.0, 0.0], [1.0, 0.0]])
    batch = Batch(torch.zeros(2), torch.tensor([0, 1]), ["a"] * 2, ["b"] * 2)
    each = nn.functional.cross_entropy(logits, batch.label, reduction="none")
    expected = (each[0] + 3 * each[1]) / 4
    torch.testing.assert_close(objective(Output(logits, logits), batch)["loss"], expected)


def test_every_parameter_of_a_tower_of_timm_learns(tmp_path):
    """Its head serves the image embedding only; DistributedDataParallel stops at unused ones."""
    tower = {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear"}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 16, "vision_cfg": {**tower, "image_size": 64}, "text_cfg": text}
    (tmp_path / "test-timm.json").write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(tmp_path)
    encoder = IMAGE_ENCODERS["clip"](SIZE, False, True, arch="test-timm", pre_trained="random")
    encoder(random_batch(2, *SIZE).image).sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []
