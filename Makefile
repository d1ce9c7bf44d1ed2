# Thin on purpose: each recipe is a line or two, and what takes more is a script in scripts/.
CARGO ?= cargo
SHELL := /bin/bash

.PHONY: help libtorch build demo test check check-cuda gpu-check parity bench cluster cluster-down docs

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

libtorch: ## find libtorch, or make a folder with it from PyPI
	@scripts/libtorch.sh cpu

build: libtorch ## target/release/segslurm
	$(CARGO) build --release

demo: build ## set up, build, make the demo dataset, train on the CPU, test, show the results
	@scripts/demo.sh

test: libtorch ## all set-up, then every test
	@scripts/test-tools.sh
	$(CARGO) test --workspace

check: libtorch ## rustfmt, clippy and rustdoc, warnings denied, and shellcheck
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps
	shellcheck scripts/*.sh .ci/run

check-cuda: ## compile and link the NCCL code against PyTorch's full CUDA wheels (5 GB the first time)
	@scripts/libtorch.sh cuda
	LIBTORCH=$${LIBTORCH:-$(CURDIR)/.libtorch-cuda} CARGO_TARGET_DIR=target/cuda \
		$(CARGO) test --package segslurm-native --features cuda --no-run

gpu-check: ## on a machine with a GPU: correctness against the CPU, NCCL, speed beside mmsegmentation's model
	@scripts/gpu-check.sh

parity: libtorch ## our numbers beside mmsegmentation's, on the same weights and pixels (5 GB and 10 minutes the first time)
	@scripts/parity.sh

bench: libtorch ## speed and memory beside mmsegmentation's on this machine, medians and ratios (about 20 minutes)
	@scripts/bench.sh

cluster: ## start a throwaway two-node Slurm cluster on this machine
	@scripts/cluster.sh up

cluster-down: ## stop that cluster
	@scripts/cluster.sh down

docs: ## the API documentation
	$(CARGO) doc --workspace --no-deps
