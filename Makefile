# Two commands do everything on a fresh machine with Python 3.11 or newer and make:
#   make demo    runs the main job on the built-in example
#   make test    passes the tests
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# One thread a worker: more would only wait for each other. What Python compiles is kept for the many short processes.
STEADY := OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 PYTHONDONTWRITEBYTECODE=

.PHONY: demo test check lint types format bench soak clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: .venv/installed  ## extract, fit-sklearn, fit-keras and compare on the built-in example
	$(BIN)/tlfeat extract --layer avg_pool
	$(BIN)/tlfeat fit-sklearn --model svm
	$(BIN)/tlfeat fit-keras
	$(BIN)/tlfeat compare

test: lint types check  ## everything that has to pass

check: .venv/installed  ## the tests alone, on all cores
	$(STEADY) $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed
	$(BIN)/mypy

format: .venv/installed  ## rewrite the sources in the common form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed  ## the figures of docs/benchmarks/; many hours
	$(BIN)/python benchmarks/accuracy_and_time.py
	$(BIN)/python benchmarks/data_needed.py
	$(BIN)/python benchmarks/doubling.py
	$(BIN)/python benchmarks/backbones.py
	$(BIN)/python benchmarks/heads.py speed
	$(BIN)/python benchmarks/search.py --caches $(CACHES)  # CACHES=caches of real sets; without any the tables of the last run
	$(BIN)/python benchmarks/intervals.py
	$(BIN)/python benchmarks/reject.py
	$(BIN)/python benchmarks/reject_small.py
	$(BIN)/python benchmarks/workers.py
	$(BIN)/python benchmarks/audit.py
	$(BIN)/python benchmarks/extraction.py
	$(BIN)/python benchmarks/resizing.py
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/archives.py
	$(BIN)/python benchmarks/runtimes.py
	$(BIN)/python benchmarks/encoder_speed.py
	$(BIN)/python benchmarks/text.py
	$(BIN)/python benchmarks/adaptation.py
	$(BIN)/python benchmarks/adabn.py
	$(BIN)/python benchmarks/label.py
	$(BIN)/python benchmarks/label_page.py
	test -z "$(PHOTOGRAPHS)" || $(BIN)/python benchmarks/encoder_finetune.py $(PHOTOGRAPHS)  # a folder of class folders
	$(BIN)/python benchmarks/page.py
	$(BIN)/python benchmarks/export.py
	$(BIN)/python benchmarks/finetune.py $(POTATO)  # POTATO=folder of class folders; without it the table of the last run

soak: .venv/installed  ## the tests marked soak; then killed commands, power cuts, damaged files by the thousand; hours
	$(STEADY) $(BIN)/pytest -m soak -n auto --dist loadfile
	$(BIN)/python soak/cache.py
	$(BIN)/python soak/images.py
	$(BIN)/python soak/kills.py
	$(BIN)/python soak/starved.py
	$(BIN)/python soak/forged.py
	$(BIN)/python soak/nodes.py

clean:
	rm -rf .venv
