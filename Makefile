# Every target installs what it needs first. To use a Python that has everything already:
#     make gpu-check PYTHON=python3 VENV=
PYTHON ?= python3
VENV ?= .venv

ifeq ($(strip $(VENV)),)
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
RUN := $(PYTHON)
INSTALL := @: #
else
RUN := $(VENV)/bin/python
INSTALL := @$(PYTHON) tools/install.py --venv $(VENV) $(addprefix --with ,$(EXTRAS)) --for
endif

.PHONY: help demo test test-all lab gpu-check gpu-record bench tables check-authoring lint doctor sim-peers sim-speed

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: ## grouped against padded, in under a minute
	$(INSTALL) demo
	@$(RUN) -m gemm_lessons demo

test: ## the core tests: no GPU, under 12 minutes on 2 cores
	$(INSTALL) test
	GEMM_LESSONS_DEVICE=sim $(RUN) -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow and not gpu"

test-all: ## every test that this machine can run
	$(INSTALL) test
	GEMM_LESSONS_DEVICE=sim $(RUN) -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not gpu"
	$(RUN) -m pytest -m gpu

lab: ## JupyterLab with the notebooks
	$(INSTALL) lab
	PATH="$(if $(VENV),$(abspath $(VENV))/bin:)$$PATH" $(RUN) -m jupyterlab $(wildcard notebooks)

gpu-check: ## all that needs a GPU, with compute-sanitizer
	$(INSTALL) gpu
	$(RUN) tools/gpu_check.py

bench: ## time the ladder on a GPU, record it, and renew README's table (EXTRAS=peers: beside torch)
	$(INSTALL) gpu
	$(RUN) -m gemm_lessons bench; status=$$?; $(RUN) -m gemm_lessons.authoring --readme && exit $$status

gpu-record: ## record all that is measured on a GPU, on every GPU side by side (EXTRAS=peers: beside torch)
	$(INSTALL) gpu
	$(RUN) tools/gpu_record.py

tables: ## renew what is generated: README's tables and picture, notebooks' kernel cells, exercises' stubs
	$(INSTALL) demo
	$(RUN) -m gemm_lessons.authoring $(if $(OVERWRITE),--overwrite)

check-authoring: ## whether what is generated is up to date
	$(INSTALL) demo
	$(RUN) -m gemm_lessons.authoring --check

lint: ## ruff and mypy
	$(INSTALL) test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

doctor: ## what runs here, and what to install
	$(INSTALL) demo
	@$(RUN) -m gemm_lessons doctor

sim-peers: ## numba-cuda's own tests through the simulator: stock, plain and checked
	$(INSTALL) test
	$(RUN) tests/sim/run_peers.py

sim-speed: ## the simulator's speed beside Numba's own
	$(INSTALL) test
	$(RUN) tests/sim/speed.py
