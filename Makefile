# Sluice: `make run` starts everything on this machine, `make test` proves it.
PYTHON ?= python3
VENV   ?= .venv
# ONNX Runtime reports to its maker unless told not to; ours sets this itself, the benchmarks and tests import it directly.
export ORT_DISABLE_TELEMETRY = 1
BIN    := $(VENV)/bin
# Another PYTHON than the one that .venv was made with makes it anew.
STAMP  := $(VENV)/.installed-$(shell $(PYTHON) -c "import sys; print(*sys.version_info[:2], sep=chr(46))")

.PHONY: help setup tools run test check check-tools build bench faults soak lock clean
.DEFAULT_GOAL := help

help:  ## show what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup: $(STAMP)  ## prepare .venv from the lock and build the example models
	@$(BIN)/python -m examples.build

$(STAMP): requirements/lock.txt requirements/uv.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] <= (3, 13) else f"Sluice needs Python 3.11 to 3.13, and {sys.executable} is {v[0]}.{v[1]}: name another with PYTHON=…")'
	@! { [ -x $(BIN)/sluice ] && $(BIN)/sluice status >/dev/null 2>&1; } || { echo "The stack is up and runs from $(VENV): end it with $(BIN)/sluice down first."; exit 1; }
	@echo "Preparing $(VENV) from requirements/lock.txt"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/lock.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

# The SAM CLI and checkov, each in an environment of its own below .venv-tools.
tools: .venv-tools/sam/.installed .venv-tools/checkov/.installed  ## prepare the checkers of the template

.venv-tools/%/.installed: requirements/%.txt | $(STAMP)
	@echo "Preparing .venv-tools/$*"
	@rm -rf $(@D)
	@$(BIN)/uv venv --quiet --python $(BIN)/python $(@D)
	@$(BIN)/uv pip install --quiet --python $(@D)/bin/python --require-hashes -r $<
	@touch $@

run: setup  ## start the whole stack on 127.0.0.1 (PORT=… moves the API)
	@$(BIN)/sluice up

test: setup .venv-tools/sam/.installed  ## run every test, the ones that start the stack included
	@$(BIN)/python -m pytest -n 2 $(ARGS)

check: $(STAMP)  ## lint, types, import rule, template
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/hadolint --failure-threshold style --trusted-registry docker.io gpu_service/Dockerfile
	@$(BIN)/cfn-lint template.yaml infra/*.yaml

check-tools: tools  ## hold the template against the SAM CLI and checkov
	@SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=us-east-1 .venv-tools/sam/bin/sam validate --lint --template template.yaml
	@.venv-tools/checkov/bin/checkov --config-file .checkov.yaml

build: $(STAMP)  ## stage what sam deploy takes, without Docker (PYTHON313=… names an interpreter)
	@$(BIN)/python -m infra.packaging --arch both $(if $(PYTHON313),--python313 $(PYTHON313))

bench: setup  ## measure; writes build/bench (ARGS="--quick --only ours,baseline" is the short way)
	@$(BIN)/python -m benchmarks.first_light
	@$(BIN)/python -m benchmarks.front_door
	@$(BIN)/python -m benchmarks.serving $(ARGS)

faults: setup  ## inject faults into a running stack; writes build/faults (ARGS="--only hanging" is the short way)
	@$(BIN)/python -m benchmarks.faults $(ARGS)

soak: setup  ## 2,000 jobs while workers are killed and messages come twice; writes build/soak (ARGS="--jobs 200" is the short way)
	@$(BIN)/python -m benchmarks.soak $(ARGS)

lock: $(STAMP)  ## resolve requirements/ anew
	@for name in sam checkov; do $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --upgrade requirements/$$name.in -o requirements/$$name.txt; done
	@for name in uv weights; do $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --no-deps --upgrade requirements/$$name.in -o requirements/$$name.txt; done
	@$(BIN)/uv pip compile --quiet pyproject.toml --all-extras --universal --generate-hashes --no-emit-index-url --no-header --upgrade -o requirements/lock.txt
	@$(BIN)/uv pip compile --quiet pyproject.toml --extra container --constraint requirements/lock.txt --excludes requirements/container-excludes.txt --universal --python-version 3.13 --generate-hashes --no-emit-index-url --no-header --no-annotate --upgrade -o requirements/container-cpu.txt
	@for rival in benchmarks/rivals/*/requirements.in; do $(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --upgrade $$rival -o $${rival%.in}.txt; done
	@sed -n 's/^onnxruntime\(==[^ ]*\).*/onnxruntime-gpu[cuda,cudnn]\1/p' requirements/lock.txt > requirements/container-cuda.in
	@$(BIN)/uv pip compile --quiet pyproject.toml requirements/container-cuda.in --extra container --constraint requirements/lock.txt --excludes requirements/container-excludes.txt --no-emit-package onnxruntime --universal --python-version 3.13 --generate-hashes --no-emit-index-url --no-header --no-annotate --upgrade -o requirements/container-cuda.txt

clean:  ## remove what make and the stack have written here
	@rm -rf $(VENV) .venv-tools .sluice build .mypy_cache .ruff_cache
