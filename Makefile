# Two commands do everything on a fresh machine: `make demo` and `make test`.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# A KUBECONFIG of the environment is somebody's current cluster: only one given on the command line counts.
ifeq ($(origin KUBECONFIG),command line)
export DEMO_KUBECONFIG := $(abspath $(KUBECONFIG))
endif
unexport KUBECONFIG

CLUSTER := tests/cluster

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: demo
demo: ## From nothing to a trace in MLflow; KUBECONFIG=path uses that cluster; MODE=cr shows two teams on a shared MLflow
	@$(if $(filter cr CR,$(MODE)),tests/demo/shared.sh,tests/demo/demo.sh) up

.PHONY: demo-down
demo-down: ## Remove what `make demo` made
	@tests/demo/demo.sh down

.PHONY: test
test: ## Everything: lints, unit, property, golden, API-server and node tests
	@tests/run.sh all

.PHONY: check
check: ## The quick part of the tests: lints, unit, property and golden tests, no cluster
	@tests/run.sh quick

.PHONY: soak
soak: ## The long counts
	@tests/run.sh soak

.PHONY: bench
bench: ## Measure what docs/measurements.md says about speed and memory
	@benches/run.sh

.PHONY: generate
generate: ## Write what is derived from the code: CRD, chart's CRD, reference in docs/, golden files of rendered objects
	@tests/generate.sh

.PHONY: image
image: ## Write the operator's image as an archive to target/; ARCH=arm64 cross-builds that one
	@$(if $(filter arm64 aarch64,$(ARCH)),tests/cluster/arm64-image.sh,tests/cluster/operator-image.sh)

.PHONY: cluster
cluster: ## Bring up the test cluster: one real node in a network namespace
	@$(CLUSTER)/prereq.sh
	@$(CLUSTER)/node.sh up

.PHONY: cluster-down
cluster-down: ## End the test clusters; nothing of them stays but the caches
	@tests/run.sh down
