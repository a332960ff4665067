"""How much arithmetic the encoder's training takes."""

import numpy as np

# all-MiniLM-L6-v2
NUM_LAYERS = 6
HIDDEN_SIZE = 384
INTERMEDIATE_SIZE = 1536


def training_flops(
    lengths: np.ndarray,
    num_layers: int = NUM_LAYERS,
    hidden_size: int = HIDDEN_SIZE,
    intermediate_size: int = INTERMEDIATE_SIZE,
) -> float:
    """Returns the floating-point operations of one training pass over texts.

    The model's own, on real tokens: 2 for each multiplication with an addition, a backward pass
    twice a forward one (Kaplan et al., 2020, section 2.1, with the attention that they leave out):

        sum over texts of 3 * layers * (2 * n * (4 h^2 + 2 h i) + 4 * n^2 * h)

    with n tokens, width h and intermediate width i. Every contender is credited with the same
    number, whatever it computes on padding or leaves out; embeddings, the pooler and the head, less
    than 1 %, do not count.

    Args:
        lengths: int [n], tokens of each text.
        num_layers: Transformer layers.
        hidden_size: Their width.
        intermediate_size: The width between the two feed-forward layers.
    """
    n = lengths.astype(np.float64)
    products = 2 * n * (4 * hidden_size**2 + 2 * hidden_size * intermediate_size)
    attention = 4 * n**2 * hidden_size
    return float(np.sum(3 * num_layers * (products + attention)))
