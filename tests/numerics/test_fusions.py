"""Fusions against formulas, whole tensors and loops that share nothing with ours."""

import math

import pytest
import torch

from models.fusion import FUSIONS
from models.fusion.block import power_normalize

FUNCTIONS = {
    "none": lambda x: x,
    "relu": lambda x: (x + x.abs()) / 2,
    "tanh": lambda x: (1 - torch.exp(-2 * x)) / (1 + torch.exp(-2 * x)),
}


def make(name, **options):
    """A fusion of 5 image and 7 text features in double precision, none of its weights 0."""
    torch.manual_seed(0)
    module = FUSIONS[name](5, 7, **options).double().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module, module.state_dict()


def pooled(module):
    image, text = torch.randn(3, 1, 5).double(), torch.randn(3, 1, 7).double()
    mask = torch.ones(3, 1, dtype=torch.bool)
    return image[:, 0], text[:, 0], module(image, text, mask).vector


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0)


@pytest.mark.parametrize(
    ("activation", "output_activation"), [("relu", "relu"), ("tanh", "none"), ("none", "tanh")]
)
@pytest.mark.parametrize(("name", "join"), [("sum", torch.add), ("mlb", torch.mul)])
def test_sum_and_mlb_are_their_formulas(name, join, activation, output_activation):
    chosen = {"activation": activation, "output_activation": output_activation}
    module, weights = make(name, dim=8, out_dim=6, **chosen)
    image, text, found = pooled(module)
    inner, outer = FUNCTIONS[activation], FUNCTIONS[output_activation]
    left, right = (
        inner(linear(x, weights, side)) for x, side in ((image, "from_image"), (text, "from_text"))
    )
    torch.testing.assert_close(found, outer(linear(join(left, right), weights, "project")))


def test_mlb_is_a_bilinear_map_of_low_rank():
    """Without activations: f_o = x^T W_o y in homogeneous coordinates, W_o of rank 3."""
    plain = {"activation": "none", "output_activation": "none"}
    module, weights = make("mlb", dim=3, out_dim=4, **plain)
    image, text, found = pooled(module)
    u, v = affine(weights, "from_image")[:-1], affine(weights, "from_text")[:-1]
    tensor = torch.einsum("ok,kp,kq->opq", weights["project.weight"], u, v)
    assert [int(torch.linalg.matrix_rank(matrix)) for matrix in tensor] == [3] * 4
    expected = torch.einsum("opq,bp,bq->bo", tensor, with_one(image), with_one(text))
    torch.testing.assert_close(found, expected + weights["project.bias"])


def with_one(x):
    """Homogeneous coordinates: affine maps become linear ones."""
    return torch.cat([x, torch.ones_like(x[:, :1])], dim=1)


def affine(weights, name):
    """The matrix that maps homogeneous coordinates as the layer maps its input."""
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    last = torch.zeros(1, weight.shape[1] + 1, dtype=weight.dtype)
    last[0, -1] = 1
    return torch.cat([torch.cat([weight, bias.unsqueeze(1)], dim=1), last])


def core(weights, name, dim, chunks, rank):
    """The core tensor (dim + 1, dim + 1, dim), written out entry by entry."""
    size = dim // chunks
    tensor = torch.zeros(dim + 1, dim + 1, dim, dtype=torch.double)
    for c in range(chunks):
        places = [*range(c * size, (c + 1) * size), dim]  # the chunk, and the constant 1
        left, right = (affine(weights, f"{name}.{side}.{c}") for side in ("left", "right"))
        for k in range(size):
            for r in range(rank):
                outer = torch.outer(left[r * size + k], right[r * size + k])
                for a, i in enumerate(places):
                    for b, j in enumerate(places):
                        tensor[i, j, c * size + k] += outer[a, b]
    return tensor


def contracted(tensor, weights, image, text):
    """Both sides through their projections and the core tensor, as one sum over all entries."""
    u, v = affine(weights, "from_image"), affine(weights, "from_text")
    return torch.einsum("ijk,ip,bp,jq,bq->bk", tensor, u, with_one(image), v, with_one(text))


def test_mutan_is_the_tucker_tensor():
    module, weights = make("mutan", dim=4, out_dim=6, rank=3)
    image, text, found = pooled(module)
    expected = contracted(core(weights, "tensor", 4, 1, 3), weights, image, text)
    torch.testing.assert_close(found, linear(expected, weights, "project"))


@pytest.mark.parametrize("normalize", [False, True])
def test_block_is_the_block_diagonal_tensor(normalize):
    module, weights = make("block", dim=6, out_dim=5, chunks=3, rank=2, normalize=normalize)
    image, text, found = pooled(module)
    tensor = core(weights, "tensor", 6, 3, 2)
    assert tensor[:2, 2:6].abs().max() == tensor[:2, :2, 2:].abs().max() == 0  # off the diagonal
    joined = contracted(tensor, weights, image, text)
    if normalize:
        joined = torch.stack([roots_of_unit_length(row, chunks=3) for row in joined])
    torch.testing.assert_close(found, linear(joined, weights, "project"))


def roots_of_unit_length(row, chunks):
    """Signed square roots, each chunk of them divided by its length; a loop over features."""
    out = []
    for chunk in row.view(chunks, -1).tolist():
        roots = [math.copysign(math.sqrt(abs(value)), value) for value in chunk]
        length = math.sqrt(sum(root**2 for root in roots))
        out += [root / length for root in roots]
    return torch.tensor(out, dtype=row.dtype)


def test_power_normalization_by_hand():
    x = torch.tensor([[4.0, -9.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    found = power_normalize(x)
    expected = torch.tensor([[2.0, -3.0, 0.0], [0.0, 0.0, 0.0]]) / math.sqrt(13)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert x.grad.isfinite().all()


def norm(x, weights, name):
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def bilinear_attention(x, memory, mask, w):
    """The attention of one ``baf`` layer: a loop over images and pairs of tokens."""
    queries, keys = norm(x, w, "query_norm"), norm(memory, w, "memory_norm")
    query, key, value = (
        linear(source, w, name)
        for source, name in ((queries, "query"), (keys, "key"), (keys, "value"))
    )
    tensor = core(w, "pair", 6, 3, 2)
    out, weights = torch.zeros_like(x), torch.zeros(len(x), x.shape[1], memory.shape[1]).double()
    for b in range(len(x)):
        for i in range(x.shape[1]):
            words = [j for j in range(memory.shape[1]) if mask[b, j]]
            for j in words:
                pair = torch.einsum(
                    "ijk,i,j->k", tensor, with_one(query[b, i : i + 1])[0],
                    with_one(key[b, j : j + 1])[0],
                )  # fmt: skip
                score = roots_of_unit_length(pair, chunks=3) @ w["score.weight"][0]
                weights[b, i, j] = math.exp(score)
            weights[b, i] /= weights[b, i].sum()
            out[b, i] = weights[b, i] @ value[b]
    return linear(out, w, "merge"), weights


def test_baf_against_a_loop():
    options = {"dim": 6, "out_dim": 4, "layers": 2, "chunks": 3, "rank": 2}
    module, weights = make("baf", **options, direction="image_to_text")
    image, text = torch.randn(2, 4, 5).double(), torch.randn(2, 3, 7).double()
    mask = torch.tensor([[True, True, True], [True, True, False]])
    x = norm(linear(image, weights, "from_image.0"), weights, "from_image.1")
    memory = norm(linear(text, weights, "from_text.0"), weights, "from_text.1")
    fused = module(image, text, mask)
    for i in range(2):
        prefix = f"streams.image_to_text.{i}."
        w = {n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)}
        found, shares = bilinear_attention(x, memory, mask, w)
        torch.testing.assert_close(fused.attention["image_to_text"][:, i, 0], shares)
        x = x + found
        hidden = linear(norm(x, w, "mlp.0"), w, "mlp.1")
        x = x + linear(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2, w, "mlp.3")
    expected = linear(norm(x.mean(dim=1), weights, "norm"), weights, "project")
    torch.testing.assert_close(fused.vector, expected)
