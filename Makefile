# Targets install the Debian packages they need (see contrib/build/packages), checked first so that a second call is quick.
#
#   make build     target/release/rtx
#   make run       build, then run a container from contrib/bundles (BUNDLE=hello)
#   make test      every test
#   make test-integrations   rtx under podman, containerd, CRI, buildah, Docker, Swarm and Slurm, runc beside it; minutes
#   make bench     rtx beside runc, crun and the floor, and below podman and ctr (ROUNDS=50; PEERS=..., SVG=FILE and more: see contrib/bench/run)
#   make install   PREFIX=/usr/local DESTDIR= SYSCONFDIR=/etc
#   make deb       target/rtx_VERSION_ARCHITECTURE.deb
#   make lint      formatting and clippy
#   make sanitize  what reads the words of others, by libFuzzer with AddressSanitizer (SECONDS_EACH=60) and under Miri
#   make docs      docs/config.md, the table of what config.json can say
#   make clean

PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=
BUNDLE ?= hello
ROUNDS ?= 50
CARGO ?= $(or $(shell command -v cargo 2>/dev/null),$(wildcard $(HOME)/.cargo/bin/cargo),cargo)

BUILD_PACKAGES = gcc libc6-dev libseccomp-dev pkg-config
RUN_PACKAGES = busybox-static jq
TEST_PACKAGES = $(RUN_PACKAGES) runc crun criu podman conmon umoci uidmap strace lintian python3-yaml python3-fusepy
# For a machine with cgroup v2 alone and with systemd, which few are: see contrib/guest.
GUEST_PACKAGES = user-mode-linux mmdebstrap e2fsprogs qemu-system-x86 seabios kmod cpio

CALLER_PACKAGES = buildah containerd docker.io iptables iproute2 procps tini slurmctld slurmd slurm-client munge \
	containernetworking-plugins curl protobuf-compiler python3-grpcio python3-protobuf python3-websocket

RTX = target/release/rtx
DOCS = target/docs
# The binary is looked for in target, wherever the caller's own builds go.
export CARGO_TARGET_DIR = $(CURDIR)/target
export CARGO

# libseccomp is linked statically. .cargo/config.toml names its directory on x86_64; the compiler knows it everywhere. This
# is a shell word, not a make variable, because the package may be installed by the same make.
CARGO_ENV = LIBSECCOMP_LIB_PATH="$$(dirname "$$(realpath "$$(gcc -print-file-name=libseccomp.a)")")"

.PHONY: build run test test-integrations bench install deb lint sanitize docs clean build-needs test-needs

# Where rtx is linked with musl, cargo has it in a directory of that target.
build: build-needs
	target=$$(contrib/build/target) && \
	RTX_COMMIT="$$(git describe --always 2>/dev/null || echo unknown)" $(CARGO_ENV) $(CARGO) build --release $${target:+--target $$target} && \
	if [ -n "$$target" ]; then mkdir -p target/release && ln -f target/$$target/release/rtx $(RTX); fi

build-needs:
	@contrib/build/packages $(BUILD_PACKAGES)
	@command -v $(CARGO) >/dev/null || { \
		echo "no cargo: install Rust 1.90 or later, see https://rustup.rs" >&2; exit 1; }

run: build
	@contrib/build/packages $(RUN_PACKAGES)
	@RTX=$(CURDIR)/$(RTX) contrib/bundles/run $(BUNDLE)

test-needs: build-needs
	@contrib/build/packages $(TEST_PACKAGES)
	@[ "$$(uname -m) $$(id -u)" != "x86_64 0" ] || { contrib/build/packages $(GUEST_PACKAGES) && contrib/guest/build && contrib/guest/qemu-build; }
	@contrib/bundles/build

# The integration tests drive the binary that is shipped, not the debug build beside them. Those that boot a machine come
# last and alone: beside them, on few processors, everything else would wait longer than a test may.
MACHINES = guest:: debian:: checkpoint::a_saved_container_goes_on
test: test-needs build
	RTX_TEST_RUNTIME=$(CURDIR)/$(RTX) $(CARGO_ENV) contrib/build/test -- $(addprefix --skip ,$(MACHINES))
	RTX_TEST_RUNTIME=$(CURDIR)/$(RTX) $(CARGO_ENV) contrib/build/test --test integration -- --test-threads 1 $(MACHINES)

# Two at a time: daemons that start all at once on a small machine answer too late.
test-integrations: test-needs build
	@contrib/build/packages $(CALLER_PACKAGES)
	RTX_TEST_CALLERS=1 RTX_TEST_RUNTIME=$(CURDIR)/$(RTX) $(CARGO_ENV) contrib/build/test --test integration callers:: -- --test-threads 2
	RTX_TEST_CALLERS=1 RTX_TEST_RUNTIME="$$(command -v runc)" $(CARGO_ENV) contrib/build/test --test integration podman:: -- --test-threads 2
	RTX_TEST_CALLERS=1 RTX_TEST_RUNTIME=$(CURDIR)/$(RTX) $(CARGO_ENV) contrib/build/test --test integration podman:: -- --test-threads 2

bench: build test-needs
	contrib/bench/run $(RTX) $(ROUNDS)
	contrib/bench/callers $(RTX) $(ROUNDS)

# Does not depend on build: `sudo make install` must not run cargo as root where it need not.
install:
	[ -x $(RTX) ] || $(MAKE) build
	rm -rf $(DOCS)
	$(RTX) docs man $(DOCS)/man
	$(RTX) docs completions $(DOCS)/completions
	install -D -m 755 $(RTX) $(DESTDIR)$(PREFIX)/bin/rtx
	install -d $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 $(DOCS)/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -D -m 644 $(DOCS)/completions/rtx.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/rtx
	install -D -m 644 $(DOCS)/completions/_rtx $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_rtx
	install -D -m 644 $(DOCS)/completions/rtx.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/rtx.fish
	install -d $(DESTDIR)$(SYSCONFDIR)/containers/containers.conf.d
	sed 's|^rtx = .*|rtx = ["$(PREFIX)/bin/rtx"]|' contrib/containers.conf.d/50-rtx.conf \
		>$(DESTDIR)$(SYSCONFDIR)/containers/containers.conf.d/50-rtx.conf

deb: build
	@contrib/build/deb $(RTX) target

lint: build-needs
	$(CARGO) fmt --check
	$(CARGO_ENV) $(CARGO) clippy --all-targets -- -D warnings

# libFuzzer is C++. Miri comes with a nightly Rust alone.
sanitize: build-needs
	@contrib/build/packages g++
	contrib/build/fuzz
	@$(CARGO) +nightly miri --version >/dev/null 2>&1 || { echo "no Miri: rustup component add miri rust-src --toolchain nightly" >&2; exit 1; }
	contrib/build/miri

docs: build-needs
	RTX_WRITE_DOCS=1 $(CARGO_ENV) $(CARGO) test --test integration schema::table::

clean:
	$(CARGO) clean
	rm -rf contrib/bundles/*/rootfs contrib/bundles/service/data
