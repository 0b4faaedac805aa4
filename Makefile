# Short commands for what Meson does. `make serve` and `make test` need nothing but a Debian 12 and, as root, install what
# is missing; as another user they say what that is.
BUILD  ?= build
PREFIX ?= $(if $(filter 0,$(shell id -u)),/opt/weir,$(CURDIR)/$(BUILD)/stage)
LISTEN ?= http://127.0.0.1:8080
TESTS  ?=
SEEDS  ?= 1000
FIRST  ?= 1
MATRIX ?=

all: $(BUILD)/build.ninja
	ninja -C $(BUILD)

$(BUILD)/build.ninja:
	tools/setup build
	meson setup $(BUILD) -Dtests=false >/dev/null

# The demo site in a place that the app's user can read.
stage: all
	tools/users
	tools/stage $(BUILD) $(PREFIX)

install: all
	meson install -C $(BUILD) >/dev/null
	ldconfig

serve: stage
	@exec $(PREFIX)/bin/weir serve $(PREFIX)/share/weir/demo --listen $(LISTEN)

test:
	tools/setup test
	tools/users
	tools/test $(TESTS)

# Other people's servers in front, other people's programs behind.
matrix:
	tools/setup test
	tools/users
	meson setup build-matrix >/dev/null 2>&1 || true
	ninja -C build-matrix >/dev/null
	@WEIR_BUILD=$(CURDIR)/build-matrix tests/system/interop/matrix.py $(MATRIX)

test-vm: all
	tools/setup vm
	tests/vm/run $(BUILD)

bench:
	tools/setup test
	tools/users
	meson setup build-bench --buildtype=release -Db_lto=true -Dtests=false >/dev/null 2>&1 || true
	ninja -C build-bench
	bench/bench.py build-bench $(BENCH)

fuzz:
	tools/setup test
	tools/fuzz $(or $(SECONDS_EACH),60)

# The simulation with more seeds, from FIRST on; a failing one is printed.
sim:
	tools/setup test
	meson setup build-sim >/dev/null 2>&1 || true
	ninja -C build-sim tests/sim/test-sim
	build-sim/tests/sim/test-sim --seeds $(SEEDS) $(FIRST)

stress:
	tools/setup test
	tools/users
	meson setup build-stress >/dev/null 2>&1 || true
	ninja -C build-stress
	tests/system/stress/once.py --build build-stress --rounds 1000
	tests/system/stress/exact.py --build build-stress
	tests/system/stress/loss.py --build build-stress
	tests/system/stress/loss.py --build build-stress --peer
	tests/system/stress/pools.py --build build-stress
	tests/system/stress/large.py --build build-stress
	LONG=1 WEIR_BUILD=$(CURDIR)/build-stress /usr/bin/python3 -m pytest -q -p no:cacheprovider tests/system/test_kills.py tests/system/test_front.py -k "killed or under_load"

clean:
	rm -rf build build-*

.PHONY: all stage install serve test test-vm bench fuzz sim stress matrix clean
