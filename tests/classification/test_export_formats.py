"""`--export_formats`, `--export_encoder` and the model card, from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

import run_classifier
from tf_finetune import load_classifier
from tf_finetune.formats.encoders import load_encoder
from tf_finetune.formats.peft import read_adapter

ROWS = "text\tlabel\n" + "the film is good\tgood\na bad plot\tbad\n" * 8


def run(folder: Path, *flags: str) -> int:
    (folder / "data.tsv").write_text(ROWS)
    files = [f"--{split}_file={folder}/data.tsv" for split in ("train", "test")]
    fixed = ["--max_seq_length=32", "--train_batch_size=8", "--max_steps=2", "--precision=float32"]
    fixed += ["--learning_rate=0.001"]
    return run_classifier.main(["x", *files, *fixed, f"--model_dir={folder}/out", *flags])


def card(folder: Path) -> tuple[dict, str]:
    text = (folder / "README.md").read_text()
    header = text.split("---")[1]
    return yaml.safe_load(header), text


def test_all_formats_of_a_run(folder_of, tmp_path, capsys):
    base = folder_of("roberta")
    (base / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    actions = ("--do_train", "--do_eval", "--do_export", "--export_encoder")
    formats = "--export_formats=hugging_face"
    assert run(tmp_path, f"--encoder={base}", *actions, formats) == 0
    out, printed = tmp_path / "out", capsys.readouterr().out
    for made in (out / "hugging_face", out / "encoder" / "hugging_face"):
        assert f"exported to {made}" in printed
    assert not (out / "export").exists() and "SavedModel that takes raw strings" not in printed
    trained = load_classifier(str(out))
    ours = trained.encoder.network.get_weights()
    for folder in (out / "hugging_face", out / "encoder" / "hugging_face"):
        written = load_encoder(str(folder)).network.get_weights()
        for value, expected in zip(written, ours, strict=True):
            np.testing.assert_array_equal(value, expected)
    config = json.loads((out / "hugging_face" / "config.json").read_text())
    assert config["architectures"] == ["RobertaForSequenceClassification"]
    assert config["label2id"] == {"bad": 0, "good": 1}
    tokenizer = json.loads((out / "hugging_face" / "tokenizer_config.json").read_text())
    assert tokenizer["model_max_length"] == 32
    header, text = card(out / "hugging_face")
    assert header["license"] == "mit" and header["library_name"] == "transformers"
    assert "| --learning_rate | 0.001 |" in text
    assert "accuracy" in text and "2: bad, good" in text and str(tmp_path) not in text
    # It is a classification checkpoint as any: evaluated without training.
    data = f"--test_file={tmp_path}/data.tsv"
    again = ["x", f"--init_from={out}/hugging_face", data, f"--model_dir={tmp_path}/again"]
    again += ["--do_eval", "--max_seq_length=32", "--precision=float32"]
    assert run_classifier.main(again) == 0
    first, second = (
        json.loads((f / "metrics.json").read_text()) for f in (out, tmp_path / "again")
    )
    assert second["test"]["loss"] == pytest.approx(first["test"]["loss"], abs=1e-4)


def test_adapters_of_a_run(folder_of, tmp_path):
    flags = ("--do_train", "--do_export", "--lora_rank=2", "--lora_targets=query,value")
    formats = "--export_formats=saved_model,hugging_face"
    assert run(tmp_path, f"--encoder={folder_of('bert')}", *flags, formats) == 0
    out = tmp_path / "out"
    assert (out / "export" / "saved_model.pb").is_file()
    adapter = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert adapter["task_type"] == "SEQ_CLS" and adapter["target_modules"] == ["query", "value"]
    assert adapter["modules_to_save"] == ["classifier", "pooler"]
    names = load_file(out / "adapter" / "adapter_model.safetensors")
    assert "base_model.model.classifier.weight" in names
    assert "base_model.model.bert.encoder.layer.1.attention.self.value.lora_B.weight" in names
    header, text = card(out / "adapter")
    assert header["library_name"] == "peft" and "PeftModel.from_pretrained" in text
    with pytest.raises(Exception, match="modules_to_save"):
        read_adapter(out / "adapter")


def test_mean_pooling_becomes_a_folder_of_sentence_transformers(folder_of, tmp_path):
    flags = ("--do_train", "--do_export", "--pooling=mean", "--export_formats=hugging_face")
    assert run(tmp_path, f"--encoder={folder_of('mpnet')}", *flags) == 0
    folder = tmp_path / "out" / "hugging_face"
    kinds = [module["type"] for module in json.loads((folder / "modules.json").read_text())]
    assert [kind.rpartition(".")[2] for kind in kinds] == ["Transformer", "Pooling", "Dense"]
    assert card(folder)[0]["library_name"] == "sentence-transformers"


def test_what_has_no_form_is_told_before_the_training(folder_of, tmp_path, capsys):
    flags = ("--do_train", "--do_export", "--pooling=pooled", "--head=mlp")
    formats = "--export_formats=hugging_face"
    assert run(tmp_path, f"--encoder={folder_of('bert')}", *flags, formats) == 2
    error = capsys.readouterr().err
    assert "--pooling=pooled with --head=MlpHead has no form" in error
    assert "Choose --head=native" in error and not (tmp_path / "out" / "checkpoints").exists()


def test_formats_that_do_not_exist(tmp_path, capsys):
    assert run(tmp_path, "--encoder=x", "--do_train", "--export_formats=coreml") == 2
    said = capsys.readouterr().err
    assert (
        "--export_formats=coreml: allowed are saved_model, hugging_face, openvino, onnx, " in said
    )


def test_a_folder_of_another_is_not_replaced(folder_of, tmp_path, capsys):
    other = tmp_path / "out" / "hugging_face"
    other.mkdir(parents=True)
    (other / "thesis.txt").write_text("mine")
    flags = ("--do_train", "--do_export", "--export_formats=hugging_face")
    assert run(tmp_path, f"--encoder={folder_of('bert')}", *flags) == 2
    assert "holds thesis.txt and no config.json" in capsys.readouterr().err
    assert (other / "thesis.txt").read_text() == "mine"


def test_a_format_that_is_asked_for_after_the_training(folder_of, tmp_path):
    assert run(tmp_path, f"--encoder={folder_of('bert')}", "--do_train") == 0
    again = ["x", f"--model_dir={tmp_path}/out", f"--test_file={tmp_path}/data.tsv", "--do_export"]
    assert run_classifier.main([*again, "--export_formats=hugging_face"]) == 0
    assert (tmp_path / "out" / "hugging_face" / "model.safetensors").is_file()
    assert not (tmp_path / "out" / "export").exists()


def test_what_auto_became_is_kept(folder_of, tmp_path):
    """Though the encoder's folder says something else later."""
    base = folder_of("roberta")
    assert run(tmp_path, f"--encoder={base}", "--do_train") == 0
    record = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (record["encoder"]["pooling"], record["encoder"]["head"]) == ("cls", "native")
    before = load_classifier(str(tmp_path / "out")).predict(["the film"]).logits
    (base / "1_Pooling").mkdir()
    (base / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    np.testing.assert_array_equal(
        load_classifier(str(tmp_path / "out")).predict(["the film"]).logits, before
    )
    assert run(tmp_path, f"--encoder={base}", "--do_train", "--max_steps=2") == 0


def test_a_training_in_the_folder_that_it_starts_from(folder_of, tmp_path, capsys):
    flags = ("--do_train", "--do_export", "--export_formats=hugging_face")
    assert run(tmp_path, f"--encoder={folder_of('bert')}", *flags) == 0
    inside = f"--init_from={tmp_path}/out/hugging_face"
    assert run(tmp_path, inside, "--do_train", "--overwrite") == 2
    assert "is a part of --model_dir=" in capsys.readouterr().err
    assert (tmp_path / "out" / "hugging_face" / "model.safetensors").is_file()


def test_the_activation_goes_along_with_a_run(folder_of, tmp_path, capsys):
    base = folder_of("bert")
    flags = (f"--encoder={base}", "--do_train", "--hidden_act=gelu_new")
    assert run(tmp_path, *flags) == 0
    more = f"--model_dir={tmp_path}/more"
    assert run(tmp_path, f"--init_from={tmp_path}/out", "--do_train", more) == 0
    assert load_classifier(f"{tmp_path}/more").encoder.network.approximate_gelu
    other = (f"--init_from={tmp_path}/out", "--do_train", f"--model_dir={tmp_path}/x")
    assert run(tmp_path, *other, "--hidden_act=gelu") == 2
    assert "was trained with gelu_new. Leave the flag out" in capsys.readouterr().err
