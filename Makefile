# What people and CI call. Every target sets up what it needs; `make help` lists them.
SHELL := /bin/bash
BIN := .venv/bin
STATE := .state
export PYTHONSAFEPATH :=
# Thousands of Python processes are started: none should compile again what another has.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup setup.run constraints provision down test unit simulate torture check lint sanity molecule docs bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z.]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make the virtual environment .venv, with everything that tests need
	@scripts/bootstrap

setup.run: ## make .venv with what running needs, and no more
	@scripts/bootstrap run

constraints: ## write constraints.txt anew: the newest releases that fit, tried by `make test`
	scripts/constraints

provision: setup.run ## start a hub and a latent fleet on this machine, and run a build on it
	@$(BIN)/ansible-playbook playbooks/provision.yml

down: setup.run ## stop what `make provision` started, and prove that nothing is left
	@$(BIN)/ansible-playbook playbooks/down.yml

# Checks compute and tests mostly wait: side by side they need the longer one's time.
test: setup ## every check and every test
	@mkdir -p .cache
	@make --no-print-directory check >.cache/check.log 2>&1 & check=$$!; \
	$(BIN)/python scripts/test -n 4 $(PYTEST); tests=$$?; \
	wait $$check; check=$$?; cat .cache/check.log; \
	if [ $$check -ne 0 ]; then echo 'make check failed'; fi; \
	exit $$((tests ? tests : check))

unit: setup ## the tests that need no peer, in a minute or so: the loop one works in
	$(BIN)/python -m pytest -n 3 -m unit $(PYTEST)

check: setup lint ## style, types, dependency rules, generated docs
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 -p hostler_agent
	$(BIN)/lint-imports
	$(BIN)/python scripts/state-diagram --check
	$(BIN)/python scripts/module-returns --check
	$(BIN)/python scripts/security-table --check

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ansible-lint --offline -q
	git diff --exit-code --stat -- collections

simulate: setup ## random scenarios on virtual time: SEEDS=1000, or SEED=7 to replay one
	@PYTHONPATH=tests $(BIN)/python -m simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000) $(if $(FIRST),--first $(FIRST)))

torture: setup ## kill, freeze, lock and fill at random for twenty rounds, on both databases: ROUNDS=20 HOSTLER_SEED=7
	HOSTLER_TORTURE_ROUNDS=$(or $(ROUNDS),20) $(BIN)/python -m pytest -s -p no:randomly tests/e2e/test_torture.py $(PYTEST)

sanity: setup ## ansible-test sanity on the collection as it is built
	scripts/ansible-test

molecule: setup ## Molecule: the roles, here and on a machine with systemd, and a fleet on Docker (root)
	scripts/molecule

docs: setup ## generate what in docs/ and in the modules' RETURN is generated
	$(BIN)/python scripts/state-diagram
	$(BIN)/python scripts/module-returns
	$(BIN)/python scripts/security-table

agent.pyz: setup ## the agent as one file, for machines with nothing but Python 3.9+
	$(BIN)/python scripts/make-agent-pyz agent.pyz

bench: setup ## measure against peers and floors; writes benchmarks/results/latest.json
	$(BIN)/python -m benchmarks

clean: ## remove the environment and caches (not the state of a running fleet)
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache agent.pyz
