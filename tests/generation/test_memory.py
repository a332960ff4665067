"""A model that does not fit is refused before it is loaded, with what would fit."""

import pytest

from tf_finetune.errors import UserError
from tf_finetune.generation.memory import GIB, check_memory, free_memory


def test_all_weights_of_a_model_that_is_too_large_are_refused_and_adapters_offered():
    with pytest.raises(UserError) as error:
        check_memory("hf://a/b", 3_000_000_000, "bfloat16", trains_all=True, available=24 * GIB)
    text = str(error.value)
    assert "--model=hf://a/b: to train all 3,000 million weights takes 50.3 GiB" in text
    assert "free are 24.0 GiB" in text and "--lora_rank=16" in text and "5.6 GiB" in text
    assert "up to 1,432 million" in text


def test_a_frozen_model_that_is_too_large_names_the_size_that_fits():
    with pytest.raises(UserError, match=r"What fits: a model of up to 12,885 million weights"):
        check_memory("x", 70_000_000_000, "bfloat16", trains_all=False, available=24 * GIB)


@pytest.mark.parametrize(
    ("weights", "dtype", "trains_all"),
    [(135_000_000, "bfloat16", True), (7_000_000_000, "bfloat16", False)],
)
def test_what_fits_passes(weights, dtype, trains_all):
    check_memory("x", weights, dtype, trains_all=trains_all, available=24 * GIB)
    check_memory("x", 10**15, dtype, trains_all=trains_all, available=None)


def test_free_memory_is_that_of_this_machine():
    free = free_memory()
    assert free is None or 0 < free < 2**50
