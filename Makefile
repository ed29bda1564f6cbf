# SPDX-License-Identifier: MIT
# One non-recursive Makefile. Everything built goes to $(O); V=1 shows the commands.
# A folder of sources becomes one archive; NAME_main.c becomes the program ssdtf-NAME, but
# ctl_main.c becomes ssdtfctl;
# tests/test_NAME.c becomes $(O)/tests/test_NAME.

O ?= build
V ?= 0
.DELETE_ON_ERROR:
# Only the rules below: a built-in one takes the folder bench/flood for a program to be linked.
MAKEFLAGS += --no-builtin-rules
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@printf '  %-7s %s\n' $(1) $(2))

# --- compiler ----------------------------------------------------------------------------------
ifeq ($(origin CC),default)
CC := gcc
endif
PKG_CONFIG ?= pkg-config
OPT ?= -O2 -g
WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wpointer-arith -Wwrite-strings -Wvla -Wundef -Wcast-qual -Wno-unused-parameter \
	-Wno-missing-field-initializers -Wimplicit-fallthrough -Wswitch
HARDEN := -fstack-protector-strong -D_FORTIFY_SOURCE=2 -fPIE -fno-strict-overflow
ifneq ($(SANITIZE),)
HARDEN := -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer -fPIE
LDSAN := -fsanitize=$(SANITIZE)
endif
CPPFLAGS_ALL := -I. -isystem $(O)/gen -D_GNU_SOURCE $(CPPFLAGS)
CFLAGS_ALL := -std=gnu11 $(OPT) $(WARN) $(HARDEN) $(CFLAGS)
LDFLAGS_ALL := -pie -Wl,-z,relro,-z,now,--as-needed $(LDSAN) $(LDFLAGS)

# Each folder's own needs. libssdtf (userspace/client/lib) is plain C99.
CFLAGS_userspace/client/lib := -std=c99
pkgs = $(shell $(PKG_CONFIG) $(1) $(2) 2>/dev/null)
CFLAGS_hsm := $(call pkgs,--cflags,p11-kit-1)

# --- what there is -----------------------------------------------------------------------------
# Layers, lowest first: a folder may include itself and what is named behind it.
# tools/lint reads these lines too.
LAYERS := userspace/base userspace/mqtt userspace/crypto userspace/bundle hsm userspace/broker \
	userspace/core userspace/distributor userspace/client/lib userspace/client \
	userspace/manager userspace/admit userspace/ctl bench/lab bench/flood bench/flow \
	bench/ceiling bench/reach bench/fleet bench/page bench
DEPS_userspace/base := bpf
DEPS_userspace/mqtt := userspace/base
DEPS_userspace/crypto := userspace/base bpf
DEPS_userspace/bundle := userspace/crypto userspace/base bpf
DEPS_hsm := userspace/crypto userspace/base
DEPS_userspace/broker := userspace/mqtt userspace/bundle userspace/crypto userspace/base bpf
DEPS_userspace/core := userspace/broker hsm userspace/mqtt userspace/bundle userspace/crypto \
	userspace/base bpf
DEPS_userspace/distributor := hsm userspace/mqtt userspace/bundle userspace/crypto userspace/base \
	bpf
DEPS_userspace/manager := userspace/client userspace/client/lib hsm userspace/bundle \
	userspace/crypto userspace/base bpf
DEPS_userspace/client/lib := userspace/bundle userspace/crypto userspace/base bpf
DEPS_userspace/client := userspace/client/lib userspace/bundle userspace/crypto userspace/base \
	bpf
DEPS_userspace/admit := userspace/base bpf
DEPS_userspace/ctl := userspace/core userspace/base bpf
DEPS_bench/lab := userspace/client/lib userspace/bundle userspace/crypto userspace/mqtt \
	userspace/base bpf
DEPS_bench/flood := bench/lab $(DEPS_bench/lab)
DEPS_bench/ceiling := bench/lab hsm userspace/broker $(DEPS_bench/lab)
DEPS_bench/flow := bench/lab $(DEPS_bench/lab)
DEPS_bench/fleet := bench/lab $(DEPS_bench/lab)
DEPS_bench/reach := bench/flow bench/ceiling $(DEPS_bench/ceiling)
DEPS_bench/page := bench/flow bench/lab $(DEPS_bench/lab)
DEPS_bench := bench/flood bench/page bench/reach bench/fleet bench/flow bench/ceiling bench/lab \
	hsm userspace/broker $(DEPS_bench/lab)

LIBS_userspace/crypto := -lcrypto
LIBS_hsm :=
LIBS_userspace/broker :=
LIBS_userspace/core := -luring -lsqlite3 -lconfuse -lbpf -lpthread
LIBS_userspace/distributor := -lsqlite3 -lconfuse
LIBS_userspace/manager := -lsqlite3 -lqrencode
LIBS_userspace/client := -lmosquitto
LIBS_userspace/admit := -lbpf
LIBS_bench/lab := -lbpf -ljansson -lm

archive = $(O)/lib/lib$(subst /,-,$(1)).a
# Archives of a folder and all beneath it, in link order, and their libraries.
archives = $(foreach d,$(1) $(filter-out bpf,$(DEPS_$(1))),$(call archive,$(d)))
libs = $(sort $(LIBS_$(1)) $(foreach d,$(DEPS_$(1)),$(LIBS_$(d))))

MAINS := $(wildcard $(addsuffix /*_main.c,$(LAYERS)))
PROGRAM_NAMES := $(patsubst %_main.c,ssdtf-%,$(notdir $(MAINS)))
PROGRAMS := $(addprefix $(O)/,$(patsubst ssdtf-ctl,ssdtfctl,$(PROGRAM_NAMES)))
TEST_NAMES := $(patsubst tests/%.c,%,$(wildcard tests/test_*.c tests/vectors.c))
FUZZERS := $(patsubst %.c,$(O)/%,$(wildcard tests/fuzz/fuzz_*.c))

.DEFAULT_GOAL := all
.PHONY: all help deps deps-arm64 demo bench bench-flood check check-arm64 check-arm64-16k lint \
	format asan tsan fuzz fuzzers install clean tests FORCE

all: $(PROGRAMS) $(O)/libssdtf.a $(O)/lib/ssdtf-malloc-count.so ## build the programs and libssdtf.a
tests: all ## build the test programs too

help: ## this list
	@echo 'Targets (V=1 shows commands, O=DIR builds elsewhere):'
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-15s %s\n", $$1, $$2}' Makefile

# --- rules -------------------------------------------------------------------------------------
$(O)/obj/%.o: %.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(CFLAGS_$(patsubst %/,%,$(dir $<))) -MMD -MP \
		-c -o $@ $<

# Loaded into a program that is measured, not linked: it is no part of its folder's archive.
PRELOADED := bench/flow/malloc_count.c

define folder
SOURCES_$(1) := $$(filter-out %_main.c $(PRELOADED),$$(wildcard $(1)/*.c))
# The folder itself ("bench/.", for bench is a target too) is among the prerequisites: a source that
# goes away must leave the archive.
$$(call archive,$(1)): $$(patsubst %.c,$(O)/obj/%.o,$$(SOURCES_$(1))) $$(wildcard $(1)/.)
	$$(call say,AR,$$@)
	$$(Q)mkdir -p $$(@D)
	$$(Q)rm -f $$@ && $$(AR) rcs $$@ $$(filter %.o,$$^)

$$(patsubst $(1)/%_main.c,$(O)/ssdtf-%,$$(filter-out %/ctl_main.c,$$(wildcard $(1)/*_main.c))): \
		$(O)/ssdtf-%: $(O)/obj/$(1)/%_main.o $$(call archives,$(1))
	$$(call say,LD,$$@)
	$$(Q)$$(CC) $$(CFLAGS_ALL) $$(LDFLAGS_ALL) -o $$@ $$^ $$(call libs,$(1)) $$(LDLIBS)
endef
$(foreach d,$(LAYERS),$(eval $(call folder,$(d))))

$(O)/ssdtfctl: $(O)/obj/userspace/ctl/ctl_main.o $(call archives,userspace/ctl)
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) -o $@ $^ $(call libs,userspace/ctl) $(LDLIBS)

$(O)/lib/ssdtf-malloc-count.so: $(PRELOADED)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) -std=gnu11 $(OPT) $(WARN) -fPIC -shared -o $@ $<

# The commit that figures are of (bench/lab/results.h). The stamp is written only where it changed.
$(O)/gen/commit: FORCE
	$(Q)mkdir -p $(@D)
	$(Q)commit=$$(git -c safe.directory='*' describe --always --dirty --abbrev=12 \
		--exclude='*' 2>/dev/null || echo unknown); \
	test "$$commit" = "$$(cat $@ 2>/dev/null)" || echo "$$commit" > $@
$(O)/obj/bench/lab/results.o: CFLAGS_bench/lab += -DBENCH_COMMIT='"$(shell cat $(O)/gen/commit)"'
$(O)/obj/bench/lab/results.o: $(O)/gen/commit

# The kernel's filter. One object serves every processor and kernel: it asks for no type of theirs.
CLANG ?= clang
BPFTOOL ?= bpftool
BPF_OBJECT := $(O)/bpf/admission.bpf.o
BPF_SKELETON := $(O)/gen/bpf/admission.skel.h
# What <linux/types.h> of the build machine includes; the object is the same on each.
BPF_INCLUDE = -idirafter /usr/include/$(shell gcc -print-multiarch) -idirafter /usr/include
$(BPF_OBJECT): bpf/admission.bpf.c bpf/admission.h bpf/admission_judge.h
	$(call say,BPF,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) -target bpf -mcpu=v3 -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter \
		-I. $(BPF_INCLUDE) -c -o $@ $<
$(BPF_SKELETON): $(BPF_OBJECT)
	$(call say,GEN,$@)
	$(Q)mkdir -p $(@D)
	$(Q)PATH=$$PATH:/usr/sbin $(BPFTOOL) gen skeleton $< name admission > $@
$(O)/obj/userspace/admit/load.o $(O)/obj/tests/test_admission.o: $(BPF_SKELETON)

# What a device links: libssdtf and what it stands on, in one archive.
$(O)/libssdtf.a: $(call archives,userspace/client/lib)
	$(call say,AR,$@)
	$(Q)rm -rf $@ $(O)/obj/libssdtf && mkdir -p $(O)/obj/libssdtf
	$(Q)printf 'create %s\n' $@ > $(O)/obj/libssdtf/mri
	$(Q)printf 'addlib %s\n' $^ >> $(O)/obj/libssdtf/mri
	$(Q)printf 'save\nend\n' >> $(O)/obj/libssdtf/mri
	$(Q)$(AR) -M < $(O)/obj/libssdtf/mri

# Tests: each names the folder it tests, and links that folder and all beneath it. One that is not
# named here is not built, and lint says so.
TEST_OF_test_base := userspace/base
TEST_OF_test_mqtt := userspace/mqtt
TEST_OF_test_trie := userspace/mqtt
TEST_OF_test_crypto := userspace/crypto
TEST_OF_test_memory := userspace/crypto
TEST_OF_vectors := userspace/crypto
TEST_OF_test_bundle := userspace/bundle
TEST_OF_test_claim := userspace/bundle
TEST_OF_test_idtable := userspace/bundle
TEST_OF_test_online := userspace/bundle
TEST_OF_test_bundle_hops := userspace/bundle
TEST_OF_test_hsm := hsm
TEST_OF_test_token := hsm
TEST_OF_test_hsmd := hsm
TEST_OF_test_broker := userspace/broker
TEST_OF_test_broker_auth := userspace/broker
TEST_OF_test_broker_entry := userspace/broker
TEST_OF_test_broker_ingress := userspace/broker
TEST_OF_test_broker_delivery := userspace/broker
TEST_OF_test_broker_verify := userspace/broker
TEST_OF_test_broker_qos2 := userspace/broker
TEST_OF_test_broker_walk := userspace/broker
TEST_OF_test_broker_retained := userspace/broker
TEST_OF_test_broker_sys := userspace/broker
TEST_OF_test_broker_intake := userspace/broker
TEST_OF_test_broker_claims := userspace/broker
TEST_OF_test_broker_memory := userspace/broker
TEST_OF_test_broker_durable := userspace/broker
TEST_OF_test_broker_outlets := userspace/broker
TEST_OF_test_broker_updates := userspace/broker
TEST_OF_test_broker_keys := userspace/broker
TEST_OF_test_admission := userspace/broker
TEST_OF_test_core := userspace/core
TEST_OF_test_config := userspace/core
TEST_OF_test_store := userspace/core
TEST_OF_test_store_sessions := userspace/core
TEST_OF_test_bundlein := userspace/core
TEST_OF_test_hsmlink := userspace/core
TEST_OF_test_operators := userspace/core
TEST_OF_test_distributor := userspace/distributor
TEST_OF_test_distributor_session := userspace/distributor
TEST_OF_test_manager := userspace/manager
TEST_OF_test_audit := userspace/manager
TEST_OF_test_trace := userspace/manager
TEST_OF_test_distribution := userspace/manager
TEST_OF_test_rotation := userspace/manager
TEST_OF_test_upgrade := userspace/manager
TEST_OF_test_csv := userspace/manager
TEST_OF_test_bulk := userspace/manager
TEST_OF_test_client := userspace/client/lib
TEST_OF_test_client_batch := userspace/client/lib
TEST_OF_test_client_update := userspace/client/lib
TEST_OF_test_client_levels := userspace/client/lib
TEST_OF_test_pubsub := userspace/client
TEST_OF_test_flow := bench/flow
LIBS_vectors := -ljansson
LIBS_test_client_levels := -ljansson
LIBS_test_distributor := -ljansson
LIBS_test_admission := -lbpf
comma := ,
LIBS_test_broker_memory := $(addprefix -Wl$(comma)--wrap=,malloc calloc realloc aligned_alloc)
# Other sources of tests/ that a test links: names, or patterns of names.
WITH_test_broker := fake_*
WITH_test_broker_auth := fake_*
WITH_test_broker_entry := fake_*
WITH_test_broker_ingress := fake_*
WITH_test_broker_delivery := fake_*
WITH_test_broker_verify := fake_*
WITH_test_broker_qos2 := fake_*
WITH_test_broker_walk := fake_*
WITH_test_broker_retained := fake_*
WITH_test_broker_sys := fake_*
WITH_test_broker_intake := fake_*
WITH_test_broker_claims := fake_*
WITH_test_broker_memory := fake_*
WITH_test_broker_durable := fake_*
WITH_test_broker_outlets := fake_*
WITH_test_broker_updates := fake_*
WITH_test_broker_keys := fake_*
WITH_test_store_sessions := fake_durable
WITH_test_distributor := relay_fake
WITH_test_distributor_session := relay_fake
WITH_test_client := ends
WITH_test_client_batch := ends
WITH_test_client_update := ends
WITH_test_client_levels := ends

CFLAGS_tests := $(CFLAGS_hsm)
TESTS := $(foreach t,$(TEST_NAMES),$(if $(TEST_OF_$(t)),$(O)/tests/$(t)))
tests: $(TESTS)

.SECONDEXPANSION:
with = $(patsubst %.c,$(O)/obj/%.o,$(wildcard $(WITH_$(1):%=tests/%.c)))
$(TESTS): $(O)/tests/%: $(O)/obj/tests/%.o $(O)/obj/tests/harness.o $$(call with,$$*) \
		$$(call archives,$$(TEST_OF_$$*))
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) -o $@ $^ \
		$(call libs,$(TEST_OF_$*)) $(LIBS_$*) $(LDLIBS)

# A fuzzer says in its own text what it links ("FUZZ_OF: folder"). tests/fuzz/run makes these, with
# clang.
fuzz_of = $(shell sed -n 's|^.*FUZZ_OF: *\([a-z/]*\).*|\1|p' tests/fuzz/$(1).c)
fuzzers: $(FUZZERS)
$(FUZZERS): $(O)/tests/fuzz/%: $(O)/obj/tests/fuzz/%.o $$(call with,$$*) \
		$$(call archives,$$(call fuzz_of,$$*))
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) -fsanitize=fuzzer -o $@ $^ \
		$(call libs,$(call fuzz_of,$*)) $(LDLIBS)

-include $(shell find $(O)/obj -name '*.d' 2>/dev/null)

# --- jobs --------------------------------------------------------------------------------------
# The jobs call make again after deps, so that pkg-config is asked when the packages are there; on
# every core, unless the caller chose a number.
JOBS = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc))
AGAIN = +$(Q)$(MAKE) --no-print-directory $(JOBS)

deps: ## install what a fresh Debian 12 lacks (needs root)
	$(Q)tools/deps

demo: deps ## the main job: devices, gateway and receivers on this machine, in a minute
	$(AGAIN) all
	$(Q)O=$(O) tools/demo

# BENCH: options of compare and grow, such as --rounds 5; without --quick it takes twice as long.
BENCH_PAGE := $(addprefix $(O)/bench/,compare.json grow.json reach.json hsm.json crypto.json)
bench: BENCH ?= --quick
bench: deps ## measure against mosquitto, load and ceilings; build/bench/report.html (needs root)
	$(AGAIN) all
	$(Q)mkdir -p $(O)/bench
	$(Q)$(O)/ssdtf-bench hsm --json $(O)/bench/hsm.json
	$(Q)$(O)/ssdtf-bench crypto --json $(O)/bench/crypto.json
	$(Q)$(O)/ssdtf-bench compare --json $(O)/bench/compare.json $(BENCH)
	$(Q)$(O)/ssdtf-bench grow --json $(O)/bench/grow.json $(BENCH)
	$(Q)$(O)/ssdtf-bench reach --json $(O)/bench/reach.json
	$(Q)$(O)/ssdtf-bench page --out $(O)/bench/report.html $(BENCH_PAGE)

bench-flood: deps ## what floods cost, with the admission filter and without (needs root)
	$(AGAIN) all
	$(Q)$(O)/ssdtf-bench flood --json $(O)/bench-flood.json $(BENCH)

check: deps ## build and run every test (TAP)
	$(AGAIN) tests
	$(Q)O=$(O) tests/run

asan: deps ## the tests under the address and undefined-behaviour sanitizers
	$(AGAIN) O=$(O)/asan SANITIZE=address,undefined OPT='-O1 -g' tests
	$(Q)O=$(O)/asan tests/run

tsan: deps ## the threaded tests under the thread sanitizer
	$(AGAIN) O=$(O)/tsan SANITIZE=thread OPT='-O1 -g' tests
	$(Q)O=$(O)/tsan tests/run test_core test_store test_hsmlink test_crypto \
		test_broker_verify

# tools/arm64/check makes again, for arm64. KERNEL and ONLY (patterns, as for tests/run) narrow it.
deps-arm64: deps ## install the cross compiler and the emulator besides
	$(Q)tools/deps arm64

check-arm64: deps-arm64 ## every test on Debian 12's arm64 kernel 6.1, under the emulator (TAP)
	$(Q)O=$(O) KERNEL='$(KERNEL)' tools/arm64/check $(ONLY)

check-arm64-16k: KERNEL = linux-image-[0-9].*-arm64-16k
check-arm64-16k: check-arm64 ## the same on its newest kernel with pages of 16 KiB

lint: deps ## layering, banned calls, function length, formatting, cppcheck
	$(Q)tools/lint

format: ## put every C file into house style
	$(Q)git ls-files -co --exclude-standard '*.c' '*.h' | xargs -r clang-format -i

fuzz: deps ## run each fuzzer for FUZZ_SECONDS (30)
	$(Q)O=$(O) tests/fuzz/run

PREFIX ?= /usr/local
install: all ## install programs, libssdtf, headers and docs under PREFIX
	$(Q)DESTDIR='$(DESTDIR)' tools/install '$(O)' '$(PREFIX)'

clean: ## remove what was built
	$(Q)test ! -e '$(O)/.git' && rm -rf '$(O)'
