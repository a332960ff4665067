"""Whether a model fits into the memory, from its configuration alone."""

from pathlib import Path

from tf_finetune.errors import UserError

GIB = 2**30
# Bytes a weight: float32 weights, their gradient and AdamW's two moments; beside them the copy in
# half precision that a step multiplies.
TRAINED = 16
COPY = 2
# A frozen weight is kept in the precision that is computed in; reading it needs float32 for a part.
FROZEN = {"float32": 4}
FROZEN_HALF = 2


def check_memory(
    handle: str, num_weights: int, compute_dtype: str, *, trains_all: bool, available: int | None
) -> None:
    """Checks, before anything is loaded, that a model's weights fit into the memory.

    What a batch needs is not counted: a model that passes may still need a smaller batch.

    Args:
        handle: The model's handle.
        num_weights: The number of its weights.
        compute_dtype: The dtype that it computes in.
        trains_all: Whether all weights are trained, and not adapters alone.
        available: The bytes that are free; None: not known, and nothing is checked.

    Raises:
        UserError: It does not fit; the message says what would.
    """
    frozen = FROZEN.get(compute_dtype, FROZEN_HALF)
    whole = TRAINED + (0 if compute_dtype == "float32" else COPY)
    each = whole if trains_all else frozen
    if available is None or num_weights * each <= available:
        return
    what = "to train all" if trains_all else "for the frozen"
    text = (
        f"--model={handle}: {what} {num_weights / 1e6:,.0f} million weights takes "
        f"{num_weights * each / GIB:,.1f} GiB, {each} bytes each, without the batch; free are "
        f"{available / GIB:,.1f} GiB. "
    )
    if trains_all and num_weights * frozen <= available:
        text += (
            f"What fits: adapters (--lora_rank=16), with {num_weights * frozen / GIB:,.1f} GiB for "
            f"the weights; or all weights of a model of up to {available / whole / 1e6:,.0f} "
            "million."
        )
    else:
        text += f"What fits: a model of up to {available / frozen / 1e6:,.0f} million weights"
        text += ", with adapters (--lora_rank=16)."
    raise UserError(text)


def free_memory() -> int | None:
    """Returns the bytes of memory that this process may still take; None: not known."""
    free = []
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError, IndexError):
        pass
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        free.append(limit - int((group / "memory.current").read_text(encoding="ascii")))
    except (OSError, ValueError):  # "max": there is no limit.
        pass
    return min(free, default=None)
