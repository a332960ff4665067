"""How much arithmetic the encoder's training takes."""

import numpy as np

# all-MiniLM-L6-v2
NUM_LAYERS = 6
HIDDEN_SIZE = 384
INTERMEDIATE_SIZE = 1536


def training_flops(lengths: np.ndarray) -> float:
    """Returns the floating-point operations of one training pass over texts.

    The model's own, on real tokens: 2 for each multiplication with an addition, a backward pass
    twice a forward one (Kaplan et al., 2020, section 2.1, with the attention that they leave out):

        sum over texts of 3 * layers * (2 * n * (4 h^2 + 2 h i) + 4 * n^2 * h)

    with n tokens, width h and intermediate width i. Every contender is credited with the same
    number, whatever it computes on padding or leaves out; embeddings, the pooler and the head, less
    than 1 %, do not count.

    Args:
        lengths: int [n], tokens of each text.
    """
    n = lengths.astype(np.float64)
    products = 2 * n * (4 * HIDDEN_SIZE**2 + 2 * HIDDEN_SIZE * INTERMEDIATE_SIZE)
    attention = 4 * n**2 * HIDDEN_SIZE
    return float(np.sum(3 * NUM_LAYERS * (products + attention)))
