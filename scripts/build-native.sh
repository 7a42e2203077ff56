#!/bin/bash
# Builds what is native into native/ (which git ignores): the addon with its types, the guest agent, the file daemon.
# cargo builds only what has changed. PROFILE=dev builds faster and runs slower.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${PROFILE:-release}
target=x86_64-unknown-linux-gnu
mkdir -p native

if ! command -v cargo >/dev/null; then
  if [ -x "$HOME/.cargo/bin/cargo" ]; then
    PATH="$HOME/.cargo/bin:$PATH"
  else
    echo "error: cargo is not installed (https://rustup.rs installs the stable toolchain)" >&2
    exit 1
  fi
fi

# Static, as the guest has no C library. With an explicit target the flags stay away from build scripts. A folder of its
# own, so that neither build throws the other's objects away, nor waits for its lock: together they take half as long.
agent_target=${CARGO_TARGET_DIR:-target}/agent
# Made here: cargo puts a whole new folder in the place of one that is missing, under the feet of the other build.
mkdir -p "$agent_target"
RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" CARGO_TARGET_DIR=$agent_target \
  cargo build --locked --profile "$profile" --package microvm-agent --target "$target" &
agent=$!
# What fails below does not leave it behind.
trap 'kill "$agent" 2>/dev/null || true' EXIT

# The file daemon is linked as the addon is: to the C library alone, which it asks for groups by name.
cargo build --locked --profile "$profile" --package microvm-virtiofsd

case $profile in
  dev) napi_profile=() folder=debug ;;
  *) napi_profile=(--profile "$profile") folder=$profile ;;
esac
# Into place by rename: programs that run the old ones are not disturbed.
new=$(mktemp -d native/new.XXXXXX)
trap 'kill "$agent" 2>/dev/null || true; rm -rf "$new"' EXIT
install -m 0755 "${CARGO_TARGET_DIR:-target}/$folder/microvm-virtiofsd" "$new/"
install -m 0644 crates/virtiofsd/vhost-user.json "$new/"
node_modules/.bin/napi build --platform --esm --no-js "${napi_profile[@]}" \
  --manifest-path crates/node/Cargo.toml --output-dir "$new" --dts binding.d.ts --no-const-enum -- --locked
wait "$agent"
trap 'rm -rf "$new"' EXIT
install -m 0755 "$agent_target/$target/$folder/microvm-agent" "$new/"
mv -f "$new"/* native/
