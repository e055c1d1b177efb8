"""The text tower of a CLIP."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from models.encoders.clip import clip_model, open_clip_library
from models.encoders.tower import Tower, Train
from utils.device import moved
from utils.errors import NothingToShowError

if TYPE_CHECKING:
    from open_clip.transformer import TextTransformer


class ClipTextEncoder(Tower):
    """A CLIP's text tower: one vector per word piece, or the embedding of the whole sentence.

    In a batch each different caption is encoded once, and all are cut to the length of the longest.
    This changes no result, because the attention is causal and the sentence embedding is computed
    from the end-of-text token. A tower that is not trained keeps the features of each caption.

    Args:
        pooled: ``False``: outputs of the text transformer up to and including end-of-text.
            ``True``: the sentence embedding (1024-d for RN50, 512-d for ViT-B-16).
        load_weights: Whether to load pretrained weights; ``False`` if a checkpoint follows.
        arch: Any architecture of open_clip with CLIP's own text transformer, or ``demo-ViT``,
            ``tiny-RN``, ``tiny-ViT`` of this repository.
        pre_trained: A tag (``openai``, ``laion400m_e31`` ...), a file, ``demo`` (of ``demo-ViT``),
            or ``random``.
        sha256: SHA-256 of the file, or its first digits; not needed for tags.
        train: How much of the tower is trained: ``all``, ``last_stage``, or ``none``.

    Raises:
        ValueError: As :func:`models.encoders.clip.clip_model`, or if the text tower of the
            architecture is not CLIP's own.
    """

    feature_dim: int

    def __init__(
        self,
        pooled: bool,
        load_weights: bool,
        *,
        arch: str,
        pre_trained: str,
        sha256: str = "",
        train: Train = "all",
    ) -> None:
        super().__init__()
        self._memory: dict[str, Tensor] = {}
        # Otherwise it would be compiled again for each new sentence. Not a decorator: that would
        # import the compiler with this module, and checking options would take a second longer.
        self._uncompiled = torch.compiler.disable(ClipTextEncoder._features)
        model = clip_model(
            arch, None, pre_trained=pre_trained, sha256=sha256, load_weights=load_weights
        )
        text = model.text
        check_causal(text, arch)
        self.pooled, self.text = pooled, text
        if not pooled:
            text.text_projection = None
        self.feature_dim = text.output_dim if pooled else text.width
        self.tokenize = open_clip_library().get_tokenizer(arch)
        last = [text.transformer.resblocks[-1], text.ln_final, text.text_projection]
        self.freeze_all_but(train, [part for part in last if part is not None])

    def forward(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Features of each caption.

        Args:
            captions: B sentences; only their first 75 word pieces are used.

        Returns:
            Features of shape ``(B, L, D)`` and a mask of shape ``(B, L)``, ``True`` where there is
            a word piece; L is 1 for sentence embeddings.
        """
        return self._uncompiled(self, captions)

    def _features(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`."""
        different = list(dict.fromkeys(captions))
        if any(parameter.requires_grad for parameter in self.parameters()):
            features = self._encode(different)
        else:
            features = self._recall(different)
        row = {caption: i for i, caption in enumerate(different)}
        places = torch.tensor([row[caption] for caption in captions])
        lengths = torch.tensor([len(f) for f in features])[places]
        device = features[0].device
        words = pad_sequence(features, batch_first=True)
        mask = torch.arange(words.shape[1]) < lengths.unsqueeze(1)
        return words[moved(places, device)], moved(mask, device)

    def words(self, caption: str) -> list[tuple[str, slice]]:
        """The words of a caption, and which of the L vectors belong to each.

        A word may have several pieces. The tokens for start and end of the text are left out.

        Raises:
            NothingToShowError: If the tokenizer of this architecture is not CLIP's own.
        """
        from open_clip.tokenizer import SimpleTokenizer

        has_own_tokenizer = isinstance(self.tokenize, SimpleTokenizer)
        if not has_own_tokenizer:
            raise NothingToShowError(
                "the words of a caption are known for CLIP's own tokenizer only"
            )
        ids = self.tokenize([caption])[0].tolist()
        words, start = [], 1
        for end in range(2, ids.index(max(ids)) + 1):
            text = self.tokenize.decode(ids[start:end])  # a piece may end within a letter
            if text.endswith(" "):  # the last piece of a word
                words.append((text.strip(), slice(start, end)))
                start = end
        return words

    def _recall(self, captions: Sequence[str]) -> list[Tensor]:
        """Features of each caption, computed once and kept.

        Only for a tower that is not trained: its features never change.
        """
        new = [caption for caption in captions if caption not in self._memory]
        if new:
            # Features that are first computed while scoring must work in training, too.
            with torch.inference_mode(mode=False), torch.no_grad():
                self._memory |= zip(new, self._encode(new), strict=True)
        return [self._memory[caption] for caption in captions]

    def _encode(self, captions: Sequence[str]) -> list[Tensor]:
        """Features of each caption, ``(L, D)`` at its own length L, or ``(1, D)`` if pooled."""
        # Cut on the CPU: reading a length from a GPU would wait for it.
        ids = self.tokenize(list(captions))
        end = ids.argmax(dim=-1)  # end-of-text has the highest id of all
        device = self.text.positional_embedding.device
        words = read_words(self.text, moved(ids[:, : int(end.max()) + 1], device))
        if self.pooled:
            each = moved(torch.arange(len(ids)), device)
            sentence = words[each, moved(end, device)] @ self.text.text_projection
            return list(sentence.unsqueeze(1))
        return [row[: last + 1] for row, last in zip(words, end.tolist(), strict=True)]

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        """Drops the features, which were computed on another device or in another type."""
        self._memory.clear()
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Drops the features, which were computed with other weights."""
        self._memory.clear()
        super()._load_from_state_dict(*args, **kwargs)


def read_words(text: "TextTransformer", ids: Tensor) -> Tensor:
    """Word pieces ``(B, L)`` to features ``(B, L, D)``; L may be less than the context length."""
    length = ids.shape[1]
    x = text.token_embedding(ids) + text.positional_embedding[:length]
    x = text.transformer(x, attn_mask=text.attn_mask[:length, :length])
    return text.ln_final(x)


def embed_sentences(
    text: "TextTransformer", tokenize: Callable[[list[str]], Tensor], sentences: Sequence[str]
) -> Tensor:
    """The embedding of each of N sentences, ``(N, D)``; a hundred at a time."""
    embeddings = []
    for start in range(0, len(sentences), 100):
        ids = tokenize(list(sentences[start : start + 100])).to(text.positional_embedding.device)
        end = ids.argmax(dim=-1)  # end-of-text has the highest id of all
        words = read_words(text, ids[:, : int(end.max()) + 1])
        embeddings.append(words[torch.arange(len(ids)), end] @ text.text_projection)
    return torch.cat(embeddings)


def check_causal(text: Any, arch: str) -> None:
    """Raises ValueError unless ``text`` is CLIP's own: causal, pooled at the end-of-text token."""
    from open_clip.transformer import TextTransformer

    causal = isinstance(text, TextTransformer) and text.attn_mask is not None
    if not causal or text.pool_type != "argmax" or text.cls_emb is not None:
        raise ValueError(f"the text tower of {arch} is not CLIP's own; choose another arch")
