# One target a job. `make help` lists them.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(wildcard proto/onlinerlhf/v1/*.proto)
GENERATED := services/onlinerlhf/v1

.PHONY: help install proto manifests check format test bench demo reproduce clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; PYTHON=... picks one"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "no venv module: apt-get install python3-venv"; exit 1; }
# The file is the whole closure, so nothing is resolved: vLLM's CPU build would draw in packages that break torch here.
	$(BIN)/pip install --quiet --progress-bar off --no-deps -r constraints.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

install: $(VENV)/.installed  ## make .venv with every service, the CPU build of vLLM and the tools

proto: $(VENV)/.installed  ## generate services/onlinerlhf/v1 and the TypeScript client's from proto/
	rm -f $(GENERATED)/*_pb2*.py $(GENERATED)/*_pb2*.pyi
	PATH=$(BIN):$$PATH $(BIN)/python -m grpc_tools.protoc -Iproto --python_out=services --grpc_python_out=services \
	  --mypy_out=quiet:services --mypy_grpc_out=quiet:services $(PROTOS)
	cd clients/typescript && PATH=$(CURDIR)/$(BIN):$$PATH npm ci --silent
	cd clients/typescript && PATH=$(CURDIR)/$(BIN):$$PATH PYTHON=$(CURDIR)/$(BIN)/python npm run --silent generate

manifests: $(VENV)/.installed  ## render deploy/manifests from the Helm chart
	$(BIN)/python deploy/render.py

check: $(VENV)/.installed  ## formatting, lint, types, import contracts, generated code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy services clients/python tests benchmarks deploy
	$(BIN)/lint-imports
	$(BIN)/python tests/contract/proto_drift.py

format: $(VENV)/.installed  ## rewrite to the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(VENV)/.installed  ## unit, contract, integration (real Redis) and end-to-end (real vLLM) tests
	$(BIN)/pytest

bench: $(VENV)/.installed  ## one line a claim: name value unit goal
	$(BIN)/python benchmarks/run.py

demo: $(VENV)/.installed  ## bootstrap models, run the platform, train online, evaluate, write a report
	$(BIN)/onlinerlhf demo

reproduce: $(VENV)/.installed  ## train and compare base, SFT, PPO and PPO-ptx on three seeds; write docs/reproduction.md
	$(BIN)/onlinerlhf reproduce --out docs

clean:  ## remove .onlinerlhf: every model, run and report made here
	rm -rf .onlinerlhf
