# SPDX-License-Identifier: Apache-2.0
# make                 the release binary build/release/trefoil
# make check           unit tests and the simulator under ASan+UBSan    make tsan   the unit tests under TSan
# make install DESTDIR= PREFIX=/usr/local
# V=1 shows the commands. What the build needs: deploy/deps installs it.

NAME    := trefoil
VERSION := 0.1.0
MODE    ?= release
CC      ?= gcc
PREFIX  ?= /usr/local
B       := build/$(MODE)
GEN     := build/gen
Q       := $(if $(V),,@)

PKGS    := libuv openssl sqlite3 libnghttp2 libprotobuf-c jansson libcurl
CFLAGS  += -std=gnu11 -iquote src -iquote $(GEN) -MMD -MP -fstack-protector-strong -fstack-clash-protection -pthread
CFLAGS  += -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wno-missing-field-initializers -Werror
CFLAGS  += -DNAME='"$(NAME)"' -DVERSION='"$(VERSION)"' -D_GNU_SOURCE $(shell pkg-config --cflags $(PKGS))
LDLIBS  += $(shell pkg-config --libs $(PKGS)) -lunistring -pthread -lm
# The consensus library's core alone, and statically: its memory contract is that of one version (raft/core_inside.h).
LDLIBS  += -Wl,-Bstatic -lraft -Wl,-Bdynamic

ifeq ($(MODE),release)
CFLAGS  += -O2 -g -D_FORTIFY_SOURCE=2 -Wframe-larger-than=8192 -fPIE
LDFLAGS += -pie -Wl,-z,relro,-z,now
else ifeq ($(MODE),asan)
CFLAGS  += -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
LDFLAGS += -fsanitize=address,undefined
else ifeq ($(MODE),tsan)
CFLAGS  += -O1 -g -fsanitize=thread -fno-omit-frame-pointer
LDFLAGS += -fsanitize=thread
else
$(error MODE is release, asan or tsan, not '$(MODE)')
endif

PROTOS  := $(wildcard src/api/proto/*.proto src/store/*.proto src/raft/*.proto)
GENC    := $(patsubst %.proto,$(GEN)/%.pb-c.c,$(notdir $(PROTOS)))
SRC     := $(filter-out src/main.c,$(wildcard src/*/*.c))
OBJ     := $(SRC:src/%.c=$(B)/%.o) $(GENC:$(GEN)/%.c=$(B)/gen/%.o)
LIBTEST := $(patsubst tests/lib/%.c,$(B)/tests/lib/%.o,$(wildcard tests/lib/*.c))
UNITS   := $(patsubst tests/unit/%.c,$(B)/tests/%,$(wildcard tests/unit/test_*.c))

.PHONY: all check unit tsan e2e golden suites install layers format clean
all: $(B)/$(NAME)

$(B)/$(NAME): $(B)/main.o $(OBJ)
	@echo "  LD $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/%.o: src/%.c | gen
	@echo "  CC $<"
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -c -o $@ $<

$(B)/gen/%.o: $(GEN)/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -w -c -o $@ $<

$(B)/tests/lib/%.o: tests/lib/%.c | gen
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -iquote tests -c -o $@ $<

$(B)/tests/%.o: tests/unit/%.c | gen
	@echo "  CC $<"
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -iquote tests -c -o $@ $<

$(B)/libtested.a: $(OBJ) $(LIBTEST)
	@rm -f $@
	$(Q)ar rcs $@ $^

# A stream's calls go through tests/lib/harness.c, which answers for its own and hands the others on.
WRAP    := -Wl,--wrap=call_recv,--wrap=call_send,--wrap=call_send_raw
$(B)/tests/test_%: $(B)/tests/test_%.o $(B)/libtested.a
	@echo "  LD $@"
	$(Q)$(CC) $(LDFLAGS) $(WRAP) -o $@ $< $(B)/libtested.a $(LDLIBS) -lcmocka

# make bench/NAME: tests/bench/NAME.c, which uses what lies below the API.
bench/%: $(B)/bench/%
	@:
$(B)/bench/%: tests/bench/%.c $(filter $(B)/base/% $(B)/store/% $(B)/raft/replica.o $(B)/raft/propose.o $(B)/raft/wal% $(B)/raft/pair.o $(B)/raft/entry.o $(addprefix $(B)/gen/,types.pb-c.o entry.pb-c.o command.pb-c.o),$(OBJ)) | gen
	@echo "  LD $@"
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

.PRECIOUS: $(B)/bench/%

# The simulator: `make sim` runs seeds for SECONDS, `make sim SEED=n` one again; MODE as above (asan is what counts).
SIMOBJ  := $(patsubst tests/sim/%.c,$(B)/tests/sim/%.o,$(wildcard tests/sim/*.c))
SIMWITH := $(filter $(B)/base/%,$(OBJ)) $(patsubst %,$(B)/raft/%.o,codec conf core core_receive core_send core_update entry \
	   member mirror reads)
SECONDS := 40
$(B)/tests/sim/%.o: tests/sim/%.c | gen
	@echo "  CC $<"
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -iquote tests -c -o $@ $<

$(B)/tests/simulator: $(SIMOBJ) $(SIMWITH)
	@echo "  LD $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

sim:
	$(Q)$(MAKE) --no-print-directory MODE=$(if $(filter command line environment,$(origin MODE)),$(MODE),asan) simulate
.PHONY: sim simulate
simulate: $(B)/tests/simulator
	$< $(if $(SEED),-s $(SEED) -v,-t $(SECONDS)) $(SIMFLAGS)

# make fuzz FUZZ=peer SECONDS=60: tests/fuzz/fuzz_NAME.c under clang's fuzzer; what it finds is left in build/fuzz.
FUZZ    := peer
FUZZBASE := $(addprefix src/base/,err.c buf.c arena.c)
FUZZ_peer := src/raft/codec.c src/raft/conf.c src/raft/entry.c
FUZZ_message := src/api/pb.c src/base/utf8.c $(addprefix $(GEN)/,$(addsuffix .pb-c.c,types agent bundle entry rpcstatus svid trustdomain))
FUZZ_frame := src/api/frame.c src/base/gotext.c $(FUZZ_message)
fuzz: gen
	@mkdir -p build/fuzz/$(FUZZ)
	clang -g -O1 -fsanitize=fuzzer,address,undefined -std=gnu11 -D_GNU_SOURCE -iquote src -iquote $(GEN) \
		-o build/fuzz/fuzz_$(FUZZ) tests/fuzz/fuzz_$(FUZZ).c $(FUZZ_$(FUZZ)) $(FUZZBASE) -lprotobuf-c -lunistring
	cd build/fuzz && ./fuzz_$(FUZZ) -max_total_time=$(SECONDS) -max_len=4096 -print_final_stats=1 $(FUZZ)
.PHONY: fuzz

.PHONY: gen
gen: $(GENC)
$(GENC) &: $(PROTOS)
	@echo "  PROTOC"
	@mkdir -p $(GEN)
	$(Q)protoc-c --proto_path=src/api/proto --proto_path=src/store --proto_path=src/raft --proto_path=/usr/include --c_out=$(GEN) $(PROTOS)

# The tests of one mode. UNIT=NAME runs tests/unit/test_NAME.c alone.
unit: $(if $(UNIT),$(B)/tests/test_$(UNIT),$(UNITS))
	@fail=0; for t in $^; do echo "  RUN $$t"; $$t || fail=1; done; exit $$fail

check: layers
	$(Q)$(MAKE) --no-print-directory MODE=asan unit all
	$(Q)$(MAKE) --no-print-directory MODE=asan SECONDS=20 simulate

# Steps of tests/run against the release binary: real processes, recorded answers, SPIRE's own suites.
e2e golden suites: all
	$(Q)tests/run $@

# Faults on a real cluster of three under writers; one hour: make jepsen SECONDS=3600
jepsen: all
	jepsen/faults -seconds $(SECONDS) $(if $(SEED),-seed $(SEED))
.PHONY: jepsen

tsan:
	$(Q)$(MAKE) --no-print-directory MODE=tsan unit

# Who may include whom: base < net, store, ca < raft < api < cmd; net, store and ca do not see each other.
layers:
	@grep -nE '^#include "[a-z]+/' src/*/*.[ch] | awk -F: ' \
	BEGIN { r["base"] = 0; r["net"] = r["store"] = r["ca"] = 1; r["raft"] = 2; r["api"] = 3; r["cmd"] = 4 } \
	{ split($$1, p, "/"); from = p[2]; match($$0, /"[a-z]+\//); to = substr($$0, RSTART + 1, RLENGTH - 2); \
	  if (from in r && to in r && from != to && r[to] >= r[from]) { print $$1 ": may not include " to "/"; bad = 1 } } \
	END { exit bad }'

install: all
	install -D -m 755 $(B)/$(NAME) $(DESTDIR)$(PREFIX)/bin/$(NAME)
	ln -sf $(NAME) $(DESTDIR)$(PREFIX)/bin/spire-server

format:
	clang-format -i src/*.c src/*/*.[ch] tests/*/*.[ch]

clean:
	rm -rf build/release build/asan build/tsan build/gen

-include $(OBJ:.o=.d) $(B)/main.d $(LIBTEST:.o=.d) $(SIMOBJ:.o=.d) $(UNITS:=.d)
