"""CLIP and the published methods in plain loops: one image, one window, one head at a time, fp64.

Written from the specification of the methods, not from models/; nothing here is shared with it.
Weights are a dict of tensors named as in open_clip.
"""

import math

import torch


def weights_of(module):
    """The weights of ``module`` in fp64."""
    return {name: value.detach().double() for name, value in module.state_dict().items()}


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def quick_gelu(x):
    return x / (1 + torch.exp(-1.702 * x))


def norm(x, w, name):
    centred = x - x.mean(-1, keepdim=True)
    scale = torch.sqrt((centred * centred).mean(-1, keepdim=True) + 1e-5)
    return centred / scale * w[f"{name}.weight"] + w[f"{name}.bias"]


def unit(x):
    return x / torch.sqrt((x * x).sum(-1, keepdim=True))


def attention(q, k, v, heads, causal):
    """Heads one by one; ``(L, D)`` each."""
    dim = q.shape[1] // heads
    out = torch.zeros_like(q)
    for h in range(heads):
        part = slice(h * dim, (h + 1) * dim)
        scores = q[:, part] @ k[:, part].T / math.sqrt(dim)
        if causal:  # nobody looks at what comes later
            scores = scores.masked_fill(torch.ones(len(q), len(q)).triu(1).bool(), -math.inf)
        share = torch.exp(scores - scores.amax(-1, keepdim=True))
        out[:, part] = share / share.sum(-1, keepdim=True) @ v[:, part]
    return out


def qkv(normed, w, at):
    dim = normed.shape[1]
    weight, bias = w[f"{at}.attn.in_proj_weight"], w[f"{at}.attn.in_proj_bias"]
    return [
        normed @ weight[i * dim : (i + 1) * dim].T + bias[i * dim : (i + 1) * dim] for i in range(3)
    ]


def out_proj(x, w, at):
    return x @ w[f"{at}.attn.out_proj.weight"].T + w[f"{at}.attn.out_proj.bias"]


def feed_forward(x, w, at, act):
    hidden = act(norm(x, w, f"{at}.ln_2") @ w[f"{at}.mlp.c_fc.weight"].T + w[f"{at}.mlp.c_fc.bias"])
    return hidden @ w[f"{at}.mlp.c_proj.weight"].T + w[f"{at}.mlp.c_proj.bias"]


def block(x, w, at, heads, act, *, causal=False):
    q, k, v = qkv(norm(x, w, f"{at}.ln_1"), w, at)
    x = x + out_proj(attention(q, k, v, heads, causal), w, at)
    return x + feed_forward(x, w, at, act)


class SlowClip:
    """CLIP's towers from their weights."""

    def __init__(self, clip, act):
        self.w, self.act = weights_of(clip), act
        self.image_heads = clip.visual.transformer.resblocks[0].attn.num_heads
        self.text_heads = clip.text.transformer.resblocks[0].attn.num_heads
        self.image_blocks = [
            f"visual.transformer.resblocks.{i}"
            for i in range(len(clip.visual.transformer.resblocks))
        ]
        self.text_blocks = [
            f"text.transformer.resblocks.{i}" for i in range(len(clip.text.transformer.resblocks))
        ]

    def tokens(self, image):
        """Bytes ``(3, H, W)`` to tokens with positions, before ``ln_pre``: ``(1 + N, D)``."""
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).double().view(3, 1, 1)
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).double().view(3, 1, 1)
        pixels = (image.double() / 255 - mean) / std
        kernel = self.w["visual.conv1.weight"]
        p = kernel.shape[-1]
        rows = [self.w["visual.class_embedding"]]
        for y in range(0, pixels.shape[1], p):
            for x in range(0, pixels.shape[2], p):
                patch = pixels[:, y : y + p, x : x + p]
                rows.append((kernel * patch).flatten(1).sum(1))
        return torch.stack(rows) + self.w["visual.positional_embedding"]

    def after_blocks(self, tokens):
        """What comes out of each image block."""
        x, found = norm(tokens, self.w, "visual.ln_pre"), []
        for at in self.image_blocks:
            x = block(x, self.w, at, self.image_heads, self.act)
            found.append(x)
        return found

    def project(self, x, *, ln_post=True):
        return (norm(x, self.w, "visual.ln_post") if ln_post else x) @ self.w["visual.proj"]

    def image(self, image, *, ln_post=True):
        """The embedding of an image, ``(D,)``, of length 1."""
        return unit(self.project(self.after_blocks(self.tokens(image))[-1][0], ln_post=ln_post))

    def text(self, ids, *, context=None, deep=()):
        """The embedding of one sentence of 77 word pieces, not normalised.

        ``context`` overwrites the word pieces from position 1 on before the first block,
        ``deep[i]`` what comes into block ``i + 2``.
        """
        x = self.w["text.token_embedding.weight"][ids]
        if context is not None:
            x[1 : 1 + len(context)] = context
        x = x + self.w["text.positional_embedding"]
        for i, at in enumerate(self.text_blocks):
            if 1 <= i <= len(deep):
                x = x.clone()
                x[1 : 1 + len(deep[i - 1])] = deep[i - 1]
            x = block(x, self.w, at, self.text_heads, self.act, causal=True)
        end = ids.tolist().index(49407)
        return norm(x, self.w, "text.ln_final")[end] @ self.w["text.text_projection"]

    def ensemble(self, tokenize, states, templates, name, *, per_prompt_norm=True):
        """The direction of all templates with all states filled in."""
        total, count = 0, 0
        for state in states:
            for template in templates:
                said = template.replace("{}", state.replace("{}", name))
                found = self.text(tokenize([said])[0])
                total = total + (unit(found) if per_prompt_norm else found)
                count += 1
        return unit(total / count)


def probability(embedding, normal, anomalous, temperature):
    """Softmax over two cosines: the share of "anomalous"."""
    a = math.exp(float(embedding @ normal) / temperature)
    b = math.exp(float(embedding @ anomalous) / temperature)
    return b / (a + b)


def interpolation(n_in, n_out, *, align_corners):
    """Weights of linear interpolation, ``(n_out, n_in)``."""
    weights = torch.zeros(n_out, n_in).double()
    for i in range(n_out):
        middle = (i + 0.5) * n_in / n_out - 0.5
        at = i * (n_in - 1) / (n_out - 1) if align_corners else middle
        at = min(max(at, 0.0), n_in - 1.0)
        low = min(int(at), n_in - 2)
        weights[i, low] += 1 - (at - low)
        weights[i, low + 1] += at - low
    return weights


def upsample(grid, size, *, align_corners=False):
    rows = interpolation(grid.shape[0], size[0], align_corners=align_corners)
    columns = interpolation(grid.shape[1], size[1], align_corners=align_corners)
    return rows @ grid @ columns.T


def blur(grid, sigma=4.0):
    """Gaussian filter cut at 4 sigma; the border is mirrored, edge pixel included."""
    reach = round(4 * sigma)
    kernel = [math.exp(-0.5 * (d / sigma) ** 2) for d in range(-reach, reach + 1)]

    def matrix(n):
        weights = torch.zeros(n, n).double()
        for i in range(n):
            for d, k in zip(range(-reach, reach + 1), kernel, strict=True):
                j = (i + d) % (2 * n)
                weights[i, j if j < n else 2 * n - 1 - j] += k / sum(kernel)
        return weights

    return matrix(grid.shape[0]) @ grid @ matrix(grid.shape[1]).T


class SlowWinClip:
    """WinCLIP on one tile, 64 x 64 by default: 4 x 4 patches."""

    def __init__(self, slow, side, temperature, *, norm_references=False):
        self.slow, self.side, self.temperature = slow, side, temperature
        self.norm_references = norm_references

    def windows(self, tokens, size):
        """``{window's patches: embedding}``, the whole transformer run on each."""
        found = {}
        for top in range(self.side - size + 1):
            for left in range(self.side - size + 1):
                patches = [
                    (top + i) * self.side + left + j for i in range(size) for j in range(size)
                ]
                chosen = torch.stack([tokens[0], *(tokens[1 + p] for p in patches)])
                last = self.slow.after_blocks(chosen)[-1]
                found[tuple(patches)] = unit(self.slow.project(last[0]))
        return found

    def harmonic(self, scores):
        """From windows to patches."""
        grid = torch.zeros(self.side, self.side).double()
        for patch in range(self.side**2):
            over = [score for patches, score in scores.items() if patch in patches]
            grid[patch // self.side, patch % self.side] = len(over) / sum(1 / s for s in over)
        return grid

    def features(self, image):
        """Both scales of windows, and the patch tokens as they leave the last block.

        mala-lab/WinCLIP and Accurate-WinCLIP take the tokens before the tower's last norm.
        """
        tokens = self.slow.tokens(image)
        patches = self.slow.after_blocks(tokens)[-1][1:]
        if self.norm_references:
            patches = norm(patches, self.slow.w, "visual.ln_post")
        alone = {(i,): unit(patch) for i, patch in enumerate(patches)}
        return [self.windows(tokens, 2), self.windows(tokens, 3), alone]

    def __call__(self, image, normal, anomalous, references=()):
        score = probability(self.slow.image(image), normal, anomalous, self.temperature)
        features = self.features(image)
        maps = []
        for scale in features[:2]:
            found = {
                p: probability(e, normal, anomalous, self.temperature) for p, e in scale.items()
            }
            maps.append(self.harmonic(found))
        grid = 3 / (1 / maps[0] + 1 / maps[1] + 1 / score)
        if references:
            banks = [self.features(reference) for reference in references]
            association = 0
            for i, scale in enumerate(features):
                distances = {
                    p: min(0.5 * (1 - float(e @ r)) for bank in banks for r in bank[i].values())
                    for p, e in scale.items()
                }
                association = association + self.harmonic(distances) / 3
            score = (score + float(association.max())) / 2
            grid = grid + association
        return score, upsample(grid, (image.shape[1], image.shape[2]))


def slow_vand(slow, image, normal, anomalous, layers, levels):
    """Score and map of one image; ``layers``: weight and bias of each level."""
    size = (image.shape[1], image.shape[2])
    outputs = slow.after_blocks(slow.tokens(image))
    score = probability(unit(slow.project(outputs[-1][0])), normal, anomalous, 0.01)
    total = 0
    for (weight, bias), level in zip(layers, levels, strict=True):
        patches = outputs[level - 1][1:]
        side = round(len(patches) ** 0.5)
        logits = []
        for text in (normal, anomalous):
            cosines = [100 * (unit(patch @ weight.T + bias) @ text) for patch in patches]
            logits.append(upsample(torch.stack(cosines).view(side, side), size, align_corners=True))
        total = total + torch.exp(logits[1]) / (torch.exp(logits[0]) + torch.exp(logits[1]))
    return score, total


def slow_anomalyclip(slow, image, normal, anomalous, *, dual_blocks, levels):
    """Score and map of one image."""
    original = norm(slow.tokens(image), slow.w, "visual.ln_pre")
    second, total = None, 0
    for number, at in enumerate(slow.image_blocks, start=1):
        if number > len(slow.image_blocks) - dual_blocks:
            second = original if second is None else second
            _, _, value = qkv(norm(original, slow.w, f"{at}.ln_1"), slow.w, at)
            by_value = attention(value, value, value, slow.image_heads, causal=False)
            second = second + out_proj(by_value, slow.w, at)
        original = block(original, slow.w, at, slow.image_heads, slow.act)
        if number in levels:
            patches = [unit(slow.project(patch)) for patch in second[1:]]
            side = round(len(patches) ** 0.5)
            abnormal = [probability(patch, normal, anomalous, 0.07) for patch in patches]
            grid = torch.tensor(abnormal).double().view(side, side)
            up = upsample(grid, (image.shape[1], image.shape[2]))
            down = upsample(1 - grid, (image.shape[1], image.shape[2]))
            total = total + (up + 1 - down) / 2
    cls = unit(slow.project(original[0], ln_post=False))
    return probability(cls, normal, anomalous, 0.07), blur(total)
