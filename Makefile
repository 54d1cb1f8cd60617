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

.PHONY: help demo test test-all lab gpu-check gpu-record bench tables lint doctor sim-peers sim-speed

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
	$(RUN) -m jupyterlab $(wildcard notebooks)

gpu-check: ## all that needs a GPU, with compute-sanitizer
	$(INSTALL) gpu
	$(RUN) tools/gpu_check.py

bench: ## time the ladder on a GPU, record it, and renew README's table (EXTRAS=peers: beside torch)
	$(INSTALL) gpu
	$(RUN) -m gemm_lessons bench; status=$$?; $(RUN) -m gemm_lessons.authoring && exit $$status

gpu-record: ## record all that is measured on a GPU, on every GPU side by side (EXTRAS=peers: beside torch)
	$(INSTALL) gpu
	$(RUN) tools/gpu_record.py

tables: ## renew what is generated: README's table and picture, the notebooks' kernel cells
	$(INSTALL) demo
	$(RUN) -m gemm_lessons.authoring

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
