"""tf_finetune from Python, with its default settings."""

import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.encoder import HUB_DIR
from benchmarks.flops import training_flops
from benchmarks.work import (
    BATCH_SIZE,
    ENCODER,
    EVAL_BATCH_SIZE,
    LEARNING_RATE,
    MAX_SEQ_LENGTH,
    WARMUP_PROPORTION,
    WEIGHT_DECAY,
    Clock,
    Work,
    parse_work,
    report,
    report_start,
)
from tf_finetune import (
    Classifier,
    EncoderConfig,
    Evaluation,
    Examples,
    LoopConfig,
    OptimizerConfig,
    Problem,
    Runtime,
    build_classifier,
    build_optimizer,
    load_encoder,
    make_train_dataset,
    plan_batches,
    train,
)
from tf_finetune.classification.tokenize import table_rows
from tf_finetune.runtime.hardware import choose_jit_compile, choose_precision

PACKAGE = f"package:{ENCODER}"


def make(work: Work, handle: str, encoder_mode: Any = "auto") -> Classifier:
    """Returns a classifier as `run_classifier.py` makes it."""
    import keras

    keras.config.set_dtype_policy(choose_precision("auto")[0])
    keras.utils.set_random_seed(work.seed)
    columns = tuple(f"text_{i}" for i in range(len(work.train.texts)))
    problem = Problem("single_label", columns, work.label_names)
    encoder = load_encoder(handle, mode=encoder_mode)
    # Of another encoder than the default the head that the peers' models have.
    config = EncoderConfig(head="native" if work.encoder else "auto")
    return build_classifier(encoder, problem, config, max_seq_length=MAX_SEQ_LENGTH)


def examples(rows: Any) -> Examples:
    """Returns rows as the package takes them."""
    return Examples(rows.texts, np.asarray(rows.labels, np.int32))


def measure_training(work: Work, variant: str, max_steps: int | None = None) -> None:
    """Trains and reports; with `max_steps` it reports how long the process took until then.

    The variant is `lifted` or `wrapped`, of the default encoder in TF Hub's format.
    """
    clock = Clock()
    mode = {"lifted": "native", "wrapped": "saved_model"}[variant]
    classifier = make(work, work.encoder or str(HUB_DIR / "encoder"), mode)

    def end_epoch() -> dict[str, float]:
        clock.epoch()
        return {"loss": 0.0}

    # Tokenizing is part of the training's time, as it is of the peers'.
    clock.start()
    rows = classifier.tokenize(examples(work.train))
    loop = LoopConfig(num_train_epochs=work.num_epochs, max_steps=max_steps)
    batches = plan_batches(rows, BATCH_SIZE, loop, seed=work.seed)
    optimizer = OptimizerConfig(
        learning_rate=LEARNING_RATE,
        warmup_proportion=WARMUP_PROPORTION,
        weight_decay=WEIGHT_DECAY,
    )
    tables = table_rows(classifier.encoder, rows)  # As `Classifier.fit` trains them.
    train(
        classifier.model,
        batches,
        optimizer=build_optimizer(batches.num_steps, optimizer, table_rows=tables),
        evaluation=Evaluation(end_epoch),
        loop=loop,
        runtime=Runtime(jit_compile=choose_jit_compile("auto")),
    )
    if max_steps:
        report_start()
        return
    timing = clock.timing(work)
    metrics = classifier.evaluate(examples(work.test), EVAL_BATCH_SIZE)
    timing.accuracy = metrics["accuracy"]
    if not work.encoder:  # They are the default encoder's.
        timing.flops_per_example = training_flops(rows.lengths) / len(rows)
    report(timing)


def measure_prediction(work: Work) -> None:
    """Predicts the test texts twice from raw strings."""
    classifier = make(work, PACKAGE)

    def run() -> float:
        started = time.perf_counter()
        classifier.predict(work.test.texts, EVAL_BATCH_SIZE)
        return len(work.test) / (time.perf_counter() - started)

    report({"first_examples_per_second": run(), "examples_per_second": run()})


def measure_latency(work: Work) -> None:
    """Answers one row at a time with an exported SavedModel."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  # registers the ops of the export

    classifier = make(work, PACKAGE)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "export")
        classifier.export(path)
        loaded = tf.saved_model.load(path)
    serve = loaded.signatures["serving_default"]
    names = [f"text_{i}" for i in range(len(work.test.texts))]
    rows = list(zip(*work.test.texts, strict=True))
    seconds = []
    for row in [*rows[:20], *rows[:200]]:
        started = time.perf_counter()
        inputs = {name: tf.constant([text]) for name, text in zip(names, row, strict=True)}
        serve(**inputs)["probabilities"].numpy()
        seconds.append(time.perf_counter() - started)
    report({"p50_ms": 1000 * float(np.median(seconds[20:]))})


def measure_pipeline(work: Work) -> None:
    """Reads nothing but batches: the first pass tokenizes, the second finds the ids in memory."""
    import tensorflow as tf

    classifier = make(work, PACKAGE)
    # The first call of TensorFlow's data threads is not the pipeline's own time.
    list(tf.data.Dataset.range(10).map(lambda x: x))
    started = time.perf_counter()
    rows = classifier.tokenize(examples(work.train))
    dataset = make_train_dataset(rows, BATCH_SIZE)
    seconds = []
    for _ in range(3):
        for _ in dataset:
            pass
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    report(
        {
            "first_examples_per_second": len(rows) / seconds[0],
            "examples_per_second": len(rows) / min(seconds[1:]),
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
    )


if __name__ == "__main__":
    mode, variant, work = parse_work(__doc__, ("train", "start", "predict", "latency", "pipeline"))
    if mode in ("train", "start"):
        measure_training(work, variant, max_steps=1 if mode == "start" else None)
    else:
        measure = {
            "predict": measure_prediction,
            "latency": measure_latency,
            "pipeline": measure_pipeline,
        }
        measure[mode](work)
