"""A small byte-level Transformer, for the examples."""

from torch import Tensor, nn
from torch.nn import functional


class ByteTransformer(nn.Module):
    """Predicts the next byte. Tokens are int64 of shape (batch, context), logits (batch, context, 256)."""

    def __init__(self, context: int = 128, width: int = 128, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.embed_byte = nn.Embedding(256, width)
        self.embed_position = nn.Embedding(context, width)
        self.blocks = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.predict_byte = nn.Linear(width, 256)
        mask = nn.Transformer.generate_square_subsequent_mask(context)
        self.register_buffer("causal_mask", mask, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        embedded = self.embed_byte(tokens) + self.embed_position.weight
        logits: Tensor = self.predict_byte(self.blocks(embedded, mask=self.causal_mask, is_causal=True))
        return logits

    def loss(self, tokens: Tensor, following: Tensor) -> Tensor:
        """Return the mean cross entropy of a batch, in nats a byte."""
        return functional.cross_entropy(self(tokens).flatten(0, 1), following.flatten())
