# pg_weir: build with PGXS, plus the project's own targets.
#
#   make && make install && make installcheck      as in any PGXS extension; installcheck
#                                                  uses the server that PGHOST, PGPORT name
#   make check | demo | bench | bench-quick | check-full | chaos | lint
#                                                  private build, private server, nothing installed
#
#   PG_CONFIG=...   which PostgreSQL                WEIR_TEST=1   compile crash points and test hooks in
#   WERROR=no       warnings do not fail the build

PG_CONFIG ?= pg_config

# The project's own targets must work before pg_config exists (they install what is missing),
# and PGXS defines a `check` of its own that only refuses; so PGXS is not even read for them.
OWN_TARGETS := check check-full chaos demo bench bench-quick lint
ifneq ($(filter $(OWN_TARGETS),$(MAKECMDGOALS)),)

.PHONY: $(MAKECMDGOALS)
.NOTPARALLEL:

check:       ; @tools/check
check-full:  ; @SUITES="$${SUITES:-lint model build docs regress isolation pgtap tap chaos}" tools/check
chaos:       ; @SUITES=chaos tools/check
demo:        ; @demo/run
bench:       ; @bench/run
bench-quick: ; @bench/run --quick
lint:        ; @tools/lint/run

# Goals of both kinds in one call, as in `make clean check`.
$(filter-out $(OWN_TARGETS),$(MAKECMDGOALS)):
	@$(MAKE) --no-print-directory $@

else

PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifeq ($(wildcard $(PGXS)),)
$(error no PGXS: install postgresql-server-dev-NN, or name another server with PG_CONFIG=/path/to/pg_config)
endif

# The sources are beside this file; the objects are in the current folder (a VPATH build
# is `make -f /path/to/Makefile` elsewhere).
here := $(patsubst %/,%,$(dir $(firstword $(MAKEFILE_LIST))))

EXTENSION  = pg_weir
MODULE_big = pg_weir
DATA      := $(patsubst $(here)/%,%,$(sort $(wildcard $(here)/pg_weir--*.sql)))
OBJS      := $(patsubst $(here)/%.c,%.o,$(sort $(wildcard $(here)/src/*.c $(here)/src/*/*.c)))

WERROR ?= yes
WARNINGS = -Wall -Wextra $(if $(filter yes,$(WERROR)),-Werror) \
	-Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
PG_CFLAGS  += -std=gnu99 $(WARNINGS) -MMD -MP
PG_CPPFLAGS = -I$(here)/src $(if $(filter 1,$(WEIR_TEST)),-DWEIR_TEST)

# := because PGXS asks `ifdef`, which is true for any text that is not yet expanded.
REGRESS   := $(patsubst $(here)/sql/%.sql,%,$(sort $(wildcard $(here)/sql/*.sql)))
ISOLATION := $(patsubst $(here)/specs/%.spec,%,$(sort $(wildcard $(here)/specs/*.spec)))
TAP_TESTS := $(if $(wildcard $(here)/t/*.pl),1)

DEPS := $(OBJS:.o=.d)
EXTRA_CLEAN = $(DEPS) .build-flags tmp_check output_iso

# Debian's servers are built with LLVM; without the clang they name, bitcode cannot be made.
pg_clang := $(shell sed -n 's/^CLANG = *//p' $(dir $(PGXS))../Makefile.global)
ifeq ($(shell command -v $(pg_clang) 2>/dev/null),)
override with_llvm = no
endif

include $(PGXS)

# After PGXS, which empties it.
PROVE_FLAGS += -I $(here)/t/perl

# Objects depend on the flags and server they were built for: .build-flags changes its
# time only when its text changes.
build_flags := $(VERSION) $(CC) $(CPPFLAGS) $(CFLAGS)
ifeq ($(filter clean distclean maintainer-clean,$(MAKECMDGOALS)),)
ifneq ($(shell cat .build-flags 2>/dev/null),$(strip $(build_flags)))
$(shell mkdir -p $(sort $(dir $(OBJS))); echo '$(strip $(build_flags))' > .build-flags)
endif
endif
$(OBJS): .build-flags $(firstword $(MAKEFILE_LIST))
.build-flags: ;

# Bitcode follows its object, which alone has header dependencies.
$(OBJS:.o=.bc): %.bc: %.o

-include $(DEPS)

endif
