"""The flags of other tools, and which of ours do the same."""

import re
from collections.abc import Collection

# Ours: theirs. From Hugging Face's TrainingArguments, its run_glue.py and AutoTrain, TensorFlow
# Models, the first BERT's run_classifier.py, OpenAI's fine-tuning and fastText. What follows the
# name of our flag is said with it.
_SAME = {
    "model_dir": "output_dir out_dir output save_dir save_path checkpoint_dir project_name "
    "logging_dir log_dir resume_from_checkpoint",
    "overwrite": "overwrite_output_dir force",
    "encoder": "model model_name model_name_or_path model_type pretrained_model base_model bert "
    "bert_model hub_module_url hub_module tfhub_handle_encoder",
    "init_from": "init_checkpoint from_checkpoint warm_start_from",
    "preprocessor": "tokenizer tokenizer_name tfhub_handle_preprocess",
    "train_file": "training_file train_data train_data_path train_path train_data_file "
    "train_files input train train_split paths_train",
    "validation_file": "eval_file dev_file valid_file val_file eval_data eval_data_path dev_path "
    "valid_path validation_path eval_data_file validation_data valid_split paths_dev",
    "test_file": "test_data test_data_path test_path test_data_file",
    "test_file, with --do_predict": "predict_file prediction_file predict_data input_file",
    "data_dir": "data_path dataset_dir data",
    "tfds_name": "dataset dataset_name",
    "tokenized_cache_dir": "cache_dir",
    "train_batch_size": "batch_size bs batch per_device_train_batch_size per_gpu_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size per_gpu_eval_batch_size val_batch_size",
    "predict_batch_size": "test_batch_size",
    "num_train_epochs": "epochs epoch num_epochs n_epochs max_epochs nb_epochs train_epochs",
    "max_steps": "num_train_steps train_steps num_steps max_train_steps total_steps",
    "learning_rate": "lr lr_rate init_lr peak_lr initial_learning_rate",
    "lr_scheduler_type": "scheduler lr_scheduler lr_schedule learning_rate_schedule decay_type",
    "warmup_proportion": "warmup_ratio warmup",
    "warmup_proportion, a share of all steps": "warmup_steps num_warmup_steps",
    "weight_decay": "wd weight_decay_rate l2",
    "layerwise_lr_decay": "layerwise_learning_rate_decay llrd layer_decay",
    "max_grad_norm": "clip_norm gradient_clip_norm grad_clip gradient_clip_val clipnorm",
    "gradient_accumulation_steps": "gradient_accumulation accumulate_grad_batches grad_accum",
    "max_seq_length": "max_length max_len max_seq_len seq_length sequence_length seq_len "
    "block_size model_max_length maxlen",
    "long_text": "truncation truncation_strategy truncation_side",
    "long_text=window": "doc_stride stride sliding_window",
    "save_checkpoints_steps": "save_steps save_interval checkpoint_interval checkpointing_steps",
    "keep_checkpoint_max": "save_total_limit max_to_keep",
    "eval_steps": "evaluation_steps validation_steps eval_interval steps_between_evals",
    "eval_steps, or none for every epoch": "eval_strategy evaluation_strategy save_strategy "
    "evaluate_during_training",
    "early_stopping_patience": "patience early_stopping",
    "metric_for_best_model": "metric monitor best_metric",
    "steps_per_loop": "iterations_per_loop",
    "text_columns": "text_column text_column_name text_column_names sentence1_key input_column "
    "text_field text_key",
    "label_column": "label_column_name labels_column target_column target label_field label_key",
    "label_names": "labels classes class_names label_list",
    "problem_type": "task_type loss_function",
    "task_name": "task glue_task",
    "label_smoothing_factor": "label_smoothing",
    "class_weights=balanced": "class_weight balanced",
    "dropout": "classifier_dropout dropout_rate dropout_prob",
    "encoder_dropout": "hidden_dropout_prob hidden_dropout",
    "freeze=encoder": "freeze_encoder freeze_base freeze_bert",
    "lora_rank": "lora_r rank r",
    "lora_targets": "lora_target_modules target_modules lora_target lora_modules",
    "precision=mixed_float16": "fp16 amp use_fp16",
    "precision=mixed_bfloat16": "bf16 use_bf16 mixed_bfloat16",
    "precision": "mixed_precision dtype dtype_policy",
    "jit_compile=true": "xla use_xla enable_xla torch_compile",
    "deterministic": "full_determinism enable_op_determinism",
    "tpu": "tpu_name use_tpu tpu_address master",
    "distribution_strategy": "strategy num_gpus gpus",
    "seed": "random_seed random_state data_seed",
    "do_train": "train_mode training",
    "do_eval": "evaluate eval do_evaluate do_valid do_validate",
    "do_predict": "predict do_infer inference",
    "do_predict, and --do_eval for its metrics": "do_test",
    "do_export": "export export_model do_save save_model",
    "max_train_samples": "max_train_examples num_train_examples train_limit",
    "max_eval_samples": "max_eval_examples num_eval_examples max_val_samples",
    "max_predict_samples": "max_test_samples max_predict_examples",
    "flagfile": "config config_file params_file json_file",
}
# What to do: names of flags that nothing here has.
_NOT_NEEDED = {
    "Leave it out: rows are read and tokenized on all cores.": "num_workers "
    "dataloader_num_workers preprocessing_num_workers workers num_proc",
    "Leave it out: the encoder's vocabulary says it.": "do_lower_case lowercase vocab_file "
    "use_fast_tokenizer",
    "Leave it out: the encoder's files say it.": "bert_config_file config_name",
    "Leave it out: batches are padded to the longest of few lengths.": "pad_to_max_length padding "
    "group_by_length",
    "Leave it out: log.jsonl and TensorBoard's curves are written to --model_dir.": "report_to "
    "logging_steps logging_strategy log_interval run_name log_level",
    "The optimizer is AdamW; leave it out.": "optim optimizer adam_beta1 adam_beta2 adam_epsilon "
    "optimizer_type",
    "Set the environment variable CUDA_VISIBLE_DEVICES=, empty for no GPU.": "no_cuda use_cpu "
    "device gpu gpu_id gpu_ids cuda use_gpu",
}
_HERE = {their: our for our, names in _SAME.items() for their in names.split()}
_ADVICE = {their: advice for advice, names in _NOT_NEEDED.items() for their in names.split()}


def other_name_hint(name: str, flags: Collection[str]) -> str:
    """Returns what to type in place of a flag of another tool, or an empty string.

    Args:
        name: The unknown flag, without its hyphens at the front.
        flags: Those that the program has; no other one is named.
    """
    name = re.sub(r"\W", "_", name.lower())
    if name in flags:
        return f"Write --{name}."
    ours = _HERE.get(name, "")
    if re.split("[=,]", ours)[0] in flags:
        return f"Here it is --{ours}."
    return _ADVICE.get(name, "")
