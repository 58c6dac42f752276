# shellcheck shell=bash
# The compiler and the standard library of each target, pinned. Sourced by build.sh after env.sh.
# rustup's is the first choice; where it cannot be had, Debian's packages of the same release (rustc-web, with rust-web-src).
# A target's standard library comes from `rustup target add`, or else is compiled from the toolchain's own source, once. That
# of armv7 always is: the ready-made one counts seconds in 32 bits, which end in 2038, and is not on every mirror.

# Digests of what rustup unpacks on an x86_64 machine. Another machine has other compilers; there only the commit is compared.
declare -A DIGEST=(
  [compiler]=fc18288c68d825215072815a0f604b014dfe5b8078d1d0d8244f51bb76566091
  [source]=4427f085f968729dce84c20ea59ebea14b18cdc0ea2366081e4597c4793ae960
  [x86_64-unknown-linux-musl]=29c6d061ad02779556081b85bd24ba8030596fbf0d0dcfe57f03c7099fa3a7c9
  [aarch64-unknown-linux-musl]=e38e7d4bd90beac1962090c07a8cb573335bc657ab6c0dd55b5b64bbb36da16d
)
digest() ( # FOLDER PATTERN...: of every file there
  cd "$1" && shift
  # shellcheck disable=SC2068 # the patterns are of this folder
  find $@ -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1
)
pinned() { # NAME FOLDER PATH...
  [ "$(uname -m)" = x86_64 ] || return 0
  local name=$1 got; shift; got=$(digest "$@")
  [ "$got" = "${DIGEST[$name]}" ] || die "$name of Rust $RUST is not the pinned one: $got"
}

# What a calling cargo, rustup or user has left in the environment would build something else.
unset CARGO RUSTC RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER RUSTUP_TOOLCHAIN RUSTFLAGS CARGO_ENCODED_RUSTFLAGS RUSTC_BOOTSTRAP \
  CARGO_BUILD_TARGET CARGO_BUILD_RUSTFLAGS CC CXX CFLAGS CXXFLAGS AR LD LIBRARY_PATH C_INCLUDE_PATH CARGO_PROFILE_RELEASE_LTO
export CARGO_HOME=${CARGO_HOME:-$HOME/.cargo} CARGO_INCREMENTAL=0

rustup_toolchain() {
  command -v rustup >/dev/null || return 1
  rustc "+$RUST" -vV >/dev/null 2>&1 ||
    again 600 rustup toolchain install "$RUST" --profile minimal --no-self-update >/dev/null 2>&1 || return 1
  export RUSTUP_TOOLCHAIN=$RUST
  pinned compiler "$(rustc --print sysroot)" bin/rustc bin/cargo 'lib/librustc_driver-*.so' lib/rustlib/x86_64-unknown-linux-gnu/lib
}
debian_toolchain() {
  local p; for p in rustc-web cargo-web rust-web-src gcc libc6-dev; do dpkg -s $p >/dev/null 2>&1 || {
    may_install || die "no Rust $RUST: get https://rustup.rs, or apt-get install rustc-web cargo-web rust-web-src gcc libc6-dev"
    root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 install --no-install-recommends \
      rustc-web cargo-web rust-web-src gcc libc6-dev >/dev/null || die "Debian's rustc-web could not be installed"
    break
  }; done
  export RUSTC=/usr/bin/rustc CARGO=/usr/bin/cargo PATH=$TOOLS/venv/bin:/usr/bin:/bin
}
toolchain() { # sets ROUTE
  case ${ROUTE:-} in
    rustup) rustup_toolchain || die "rustup cannot give Rust $RUST" ;;
    debian) debian_toolchain ;;
    '') if rustup_toolchain; then ROUTE=rustup; else debian_toolchain; ROUTE=debian; fi ;;
    *) die "ROUTE=$ROUTE is none of rustup, debian, cross" ;;
  esac
  local commit; commit=$("${RUSTC:-rustc}" -vV | sed -n 's/^commit-hash: //p')
  [ "$commit" = "$RUST_COMMIT" ] || [ "$ROUTE:$("${RUSTC:-rustc}" -vV | sed -n 's/^release: //p')" = "debian:$RUST" ] ||
    die "the compiler is of commit $commit, not $RUST_COMMIT"
}

standard_library() { # TARGET: sets STD_FLAGS
  local target=$1 sysroot; sysroot=$("${RUSTC:-rustc}" --print sysroot)
  if [ "$ROUTE" = rustup ] && [ "$target" != "$ARMV7" ] && { [ -d "$sysroot/lib/rustlib/$target" ] ||
      again 300 rustup target add --toolchain "$RUST" "$target" >/dev/null 2>&1; }; then
    pinned "$target" "$sysroot" "lib/rustlib/$target/lib"
    STD_FLAGS=''
    return
  fi
  compile_standard_library "$target" "$sysroot"
  STD_FLAGS="--sysroot $SYSROOT"
}
compile_standard_library() { # TARGET THEIRS: into a folder of its own, SYSROOT, whose name has the compiler's version
  local target=$1 theirs=$2 lib work flags
  SYSROOT=$TOOLS/sysroot-$RUST-$("${RUSTC:-rustc}" -vV | sha256sum | cut -c1-12)
  lib=$SYSROOT/lib/rustlib/$target/lib
  [ ! -e "$lib/.done" ] || return 0
  echo "compiling the standard library for $target, once"
  if [ "$ROUTE" = rustup ]; then
    [ -d "$theirs/lib/rustlib/src/rust/library" ] || again 300 rustup component add --toolchain "$RUST" rust-src >/dev/null 2>&1 ||
      die "rust-src of Rust $RUST could not be had from rustup"
    pinned source "$theirs/lib/rustlib/src/rust" library
  fi
  rm -rf "$lib"; mkdir -p "$lib"; work=$(mktemp -d)
  flags=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$target")_RUSTFLAGS
  (
    cd "$work"; unset CARGO_TARGET_DIR
    "${CARGO:-cargo}" init -q --lib --vcs none --name stdseed .
    printf '\n[profile.release]\nopt-level = 3\ndebug = 0\n' >>Cargo.toml
    export RUSTC_BOOTSTRAP=1 "$flags=-Cembed-bitcode=yes --remap-path-prefix=$CARGO_HOME=/cargo --remap-path-prefix=$theirs=/rust --remap-path-prefix=$work=/std"
    # 64 bits for time_t. Only here: the crates are built for what the libc crate has by default.
    [ "$target" != "$ARMV7" ] || export RUST_LIBC_UNSTABLE_MUSL_V1_2_3=1
    "${CARGO:-cargo}" build -q --release -j"$JOBS" -Zbuild-std=std,panic_abort,proc_macro,test --target "$target"
    cp target/"$target"/release/deps/*.rlib "$lib/"
    rm -f "$lib"/libstdseed-* "$lib"/libpanic_abort-*
    # This one must be compiled with panic=abort, and the rest with unwinding, as rustup ships them.
    "${RUSTC:-rustc}" --sysroot "$SYSROOT" --crate-name panic_abort --crate-type rlib --edition 2024 -Zforce-unstable-if-unmarked \
      --cap-lints allow -Copt-level=3 -Cembed-bitcode=yes -Cpanic=abort -Cmetadata=stdseed -Cextra-filename=-stdseed \
      --remap-path-prefix="$theirs"=/rust --target "$target" --out-dir "$lib" "$theirs/lib/rustlib/src/rust/library/panic_abort/src/lib.rs"
  ) || die "the standard library for $target does not compile"
  rm -rf "$work"; touch "$lib/.done"
}
