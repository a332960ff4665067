import json

from benchmarks.defaults import main, table


def run(contender, seed, score):
    found = {"task": "cola", "metric": "matthews_correlation", "contender": contender}
    return {**found, "seed": seed, "score": score, "seconds": 1}


def test_the_table_has_means_and_each_seed():
    lines = table([run("ours", 1, 0.2), run("ours", 2, 0.4)]).splitlines()
    assert lines[0] == "| task | metric | ours | trainer |"
    assert lines[2] == "| cola | matthews_correlation | 0.300 (0.200, 0.400) |  |"


def test_what_was_run_is_not_run_again(tmp_path, capsys):
    output = tmp_path / "defaults.jsonl"
    runs = [run("ours", 1, 0.25), run("trainer", 1, 0.125)]
    output.write_text("".join(json.dumps(one) + "\n" for one in runs))
    main([f"--data_dir={tmp_path}", "--tasks=cola", "--seeds=1", f"--output={output}"])
    assert capsys.readouterr().out == table(runs) + "\n"
    assert [json.loads(line) for line in output.read_text().splitlines()] == runs
