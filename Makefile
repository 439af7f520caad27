# All set-up is in here: `make smoke` and `make test` need no more than Python 3.11 and make.

HARNESS_DATA ?= ./runs
export HARNESS_DATA
SMOKE = specs/smoke/base.yaml specs/smoke/sft.yaml
EXECUTOR ?= docker
# The first that runs and is new enough; a version manager's stand-in may be there and not run.
PYTHON ?= $(shell for p in python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.DEFAULT_GOAL := help
.PHONY: help install slim smoke first-rows results twins twins-covering test test-docker test-gpu lint lock images clean

help: ## What there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The file says which lock was installed; where ACCELERATOR says another, or nothing of torch is there, it
# is out of date.
INSTALLED = $(shell cat .venv/installed 2>/dev/null)
ifneq ($(filter-out $(INSTALLED),$(ACCELERATOR))$(if $(LOCK),,$(filter slim,$(INSTALLED))),)
.PHONY: .venv/installed
endif

install: .venv/installed ## The development environment in .venv, from the lock that fits this machine

.venv/installed: requirements/local-cpu.txt requirements/local-cuda.txt requirements/install.py pyproject.toml
	@[ -z "$(filter-out cpu cuda,$(ACCELERATOR))" ] || { echo "ACCELERATOR is $(ACCELERATOR): it can" \
		"be cpu or cuda" >&2; exit 1; }
	@[ -n "$(PYTHON)" ] || { echo "There is no Python 3.11 or newer on PATH. On Debian or Ubuntu:" \
		"apt install python3.11 python3.11-venv; or name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual" \
		"environments. On Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python requirements/install.py $(or $(LOCK),local) $@

slim: ## Without torch: plan, audit, table, report, verify, and runs in the images (--executor docker)
	@$(MAKE) --no-print-directory LOCK=slim ACCELERATOR= .venv/installed

smoke: install ## Run the smoke table on this machine and print its matrix
	.venv/bin/harness run $(SMOKE)
	.venv/bin/harness table >/dev/null

FIRST = $(if $(ALL),specs/first_rows,$(addprefix specs/first_rows/, \
	arc_challenge.yaml openbookqa.yaml loss_base.yaml sft.yaml))

first-rows: install ## A real model, real data: the quick rows of specs/first_rows (ALL=1: every row)
	.venv/bin/harness run $(FIRST)
	.venv/bin/harness table >/dev/null
	.venv/bin/harness table $(FIRST)

# real_inputs.yaml by its name: without its given data (HARNESS_INPUTS) this is an error, and no row that
# is missing. The picture, report.png, is taken by hand of what `harness report specs/smoke` writes.
results: install ## Run the rows of specs/smoke in the images (`make images`), rewrite results/ from them
	.venv/bin/harness run --executor $(EXECUTOR) specs/smoke specs/smoke/real_inputs.yaml
	.venv/bin/harness table --executor $(EXECUTOR) --out results specs/smoke

twins: install ## Run the scaled-down twin of every row of the five studies, offline
	.venv/bin/harness run --scale tiny $$(.venv/bin/python -m tests.specs.twins all)
	.venv/bin/python -m tests.specs.twins check --volume $(HARNESS_DATA)

# As few of them as go every way that the studies' rows go.
twins-covering: install
	.venv/bin/harness run --scale tiny $$(.venv/bin/python -m tests.specs.twins few)
	.venv/bin/python -m tests.specs.twins check few --volume $(HARNESS_DATA)

test: install ## Everything that needs neither Docker nor a GPU
	.venv/bin/pytest -m "not docker and not gpu" -n 2

test-docker: install ## Tests of and in the images; `make images` first
	.venv/bin/pytest -m docker

test-gpu: install ## Tests on a GPU
	.venv/bin/pytest -m gpu

lint: install ## ruff, mypy and the layers of imports
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

lock: ## Rewrite requirements/*.txt; needs WHEELHOUSE or TORCH_INDEX, see requirements/lock
	PYTHON="$(PYTHON)" requirements/lock

# CUDA's where there is an NVIDIA GPU, as a run will look for them; COMPOSE_FILE or HARNESS_ACCELERATOR=cpu
# says otherwise.
images: ## Build the three images; compose.yaml lists the settings
	@[ "$$HARNESS_ACCELERATOR" = cpu ] || [ -n "$$COMPOSE_FILE" ] || grep -qs '^COMPOSE_FILE=' .env \
		|| { ! ls /dev/nvidia[0-9]* >/dev/null 2>&1 && ! nvidia-smi -L >/dev/null 2>&1; } \
		|| { echo "There is an NVIDIA GPU: CUDA's images, by COMPOSE_FILE in .env"; \
			echo COMPOSE_FILE=compose.yaml:compose.cuda.yaml >>.env; }
	@grep -qs '^HARNESS_UID=' .env || printf 'HARNESS_UID=%s\nHARNESS_GID=%s\n' "$$(id -u)" "$$(id -g)" >>.env
	docker compose build

clean: ## Remove the environment and the tools' caches; runs stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build *.egg-info
	find harness tests -name __pycache__ -type d -exec rm -rf {} +
