# SPDX-License-Identifier: GPL-2.0
#
# What people type. Everything happens in scripts/, and there inside a Debian root in the cache
# (${DM_REMAP_CACHE:-/var/cache/dm-remap}), so that the machine itself needs nothing but this.

export KVER DM_REMAP_HERE TEST

# Nothing goes on when make itself is killed.
run := setpriv --pdeathsig TERM

.PHONY: module test test-system quick test-debug breakages check doc editor fuzz bench bench-check bench-host demo vm promises packages \
	install uninstall clean help
.NOTPARALLEL:

module:
	@$(run) scripts/module

test:
	@$(run) scripts/test

test-system:
	@DM_REMAP_THOROUGH=1 $(run) scripts/test

quick:
	@$(run) scripts/quick

test-debug:
	@$(run) scripts/test-debug

breakages:
	@$(run) scripts/breakages

check:
	@$(run) scripts/check

doc:
	@$(run) scripts/doc

editor:
	@$(run) scripts/editor

fuzz:
	@DM_REMAP_FUZZ_SECONDS=$${DM_REMAP_FUZZ_SECONDS:-300} $(run) scripts/fuzz $(TEST)

bench:
	@$(run) scripts/bench --json target/bench.json $(if $(TEST),--only "$(TEST)")

bench-check:
	@$(run) scripts/bench --json target/bench.json --check docs/performance.md

bench-host:
	@$(run) scripts/bench-host $(TEST)

demo:
	@$(run) scripts/demo

vm:
	@$(run) scripts/vm

promises:
	@$(run) scripts/promises

packages:
	@$(run) scripts/dkms-deb

install:
	@$(run) scripts/install

uninstall:
	@$(run) scripts/uninstall

clean:
	rm -rf target src/dm_remap.ko

help:
	@echo 'make            build the module into target/module/<kernel>/dm_remap.ko: for the running'
	@echo '                kernel if its headers have the Rust artefacts, else for Debian 13 backports'
	@echo 'make demo       a failing disk without dm-remap and with it, in a virtual machine'
	@echo 'make vm         a shell in a virtual machine that has the module loaded'
	@echo 'make test       all tests: pure logic here, everything else in virtual machines, one more at once than'
	@echo '                there are processors (or DM_REMAP_JOBS=N); TEST="errors::moves logic::load" runs only'
	@echo '                those programs, modules or tests, or all whose names begin so'
	@echo 'make test-system what is too much for each run: packages that are installed, and all cases where the'
	@echo '                tests above take a sample, which takes hours; TEST="crash_replay" restricts it'
	@echo 'make quick      the tests of pure logic, and those in virtual machines on a kernel that is a program'
	@echo '                (User Mode Linux) and built for it first, which takes 7 minutes; TEST="name" restricts them'
	@echo 'make test-debug the tests in virtual machines, on such a kernel that looks for mistakes (KASAN, lockdep,'
	@echo '                kmemleak ...) and is built for it first, which takes 20 minutes; TEST="name" restricts them'
	@echo 'make breakages  breaks the module on purpose, one rule at a time, and looks whether the tests notice;'
	@echo '                TEST="m7" runs those breakages whose names begin so'
	@echo 'make check      formatting, lints, documentation, licences, shell scripts'
	@echo 'make doc        the documentation of all crates and of the module, and its examples compiled'
	@echo 'make editor     src/rust-project.json, so that rust-analyzer knows the kernel crate'
	@echo 'make fuzz       looks for inputs that the decoders get wrong, DM_REMAP_FUZZ_SECONDS=300 for each;'
	@echo '                TEST="name" restricts it to one'
	@echo 'make bench      the instructions that an I/O takes, on dm-remap and on others, counted in a virtual'
	@echo '                machine; also in target/bench.json; TEST="remap-0" restricts it'
	@echo 'make bench-check the same, compared with the limits of P11 and with docs/performance.md'
	@echo 'make bench-host how fast the remap table is on this machine, beside maps of others;'
	@echo '                TEST="filter" restricts it'
	@echo 'make promises   the tests, by the promise that they hold the code to'
	@echo 'make packages   Debian packages: the module, which DKMS builds wherever it is installed, and dmremap'
	@echo 'make install    install the module for the running kernel, and dmremap'
	@echo 'make uninstall  take both away again'
	@echo 'make clean      remove target/ (the cache stays, it is safe to delete)'
	@echo
	@echo 'KVER=...            an exact Debian kernel, such as KVER=7.2.12+deb13-amd64'
	@echo 'DM_REMAP_HERE=1     build the module without the Debian root, with the tools of this machine'
	@echo 'DM_REMAP_JOBS=N     how many tests run at once'
	@echo 'DM_REMAP_CACHE=...  the cache, outside of the checkout (now: $(or $(DM_REMAP_CACHE),/var/cache/dm-remap))'
