"""Kernels that are traced while another thread traces."""

import threading

import tensorflow as tf

from tf_finetune.models.kernels import fused, in_kernel


def test_each_thread_knows_what_it_traces_itself():
    found, traced, seen = {}, threading.Event(), threading.Event()

    def doubled(x: tf.Tensor) -> tf.Tensor:
        traced.set()
        assert seen.wait(60)
        found["kernel"] = in_kernel()
        return 2 * x

    kernel = threading.Thread(target=lambda: fused(doubled)(tf.ones(3), training=False))
    kernel.start()
    assert traced.wait(60)
    found["beside it"] = in_kernel()
    seen.set()
    kernel.join()
    assert found == {"kernel": True, "beside it": False} and not in_kernel()
