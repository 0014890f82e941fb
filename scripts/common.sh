# What scripts/demo and scripts/test share. Sourced by them with `set -euo pipefail` in force.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

say() { printf '\n== %s\n' "$*"; }

fail() {
    printf 'scripts/%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# Root is needed for network namespaces and TUN devices, and to install packages.
need_root() {
    [ "$(uname -s)" = Linux ] || fail "needs Linux"
    [ "$(id -u)" -eq 0 ] ||
        fail "needs root for network namespaces and TUN devices: run 'sudo scripts/$(basename "$0")'"
    [ -c /dev/net/tun ] ||
        fail "there is no /dev/net/tun: load the driver with 'modprobe tun', or allow the device in this container"
    unshare --net true 2>/dev/null ||
        fail "may not make network namespaces here: a container needs the capabilities SYS_ADMIN and NET_ADMIN"
}

# Installs Debian's packages of the commands that are missing: need_commands COMMAND=PACKAGE ...
need_commands() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null 2>&1 || missing+=("${pair#*=}")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    command -v apt-get >/dev/null 2>&1 ||
        fail "missing, and not to be installed without apt-get: ${missing[*]} (Debian's package names)"
    say "Installing ${missing[*]}"
    apt-get update -qq
    # What comes with a service (coturn) is not started: tests start what they need in namespaces of their own.
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        made=1
    fi
    local installed=0
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" || installed=$?
    [ -z "$made" ] || rm -f "$policy"
    [ "$installed" -eq 0 ] || fail "apt-get cannot install ${missing[*]}"
}

# The user who builds: the one who called sudo, else root itself.
builder=root
if [ "$(id -u)" -eq 0 ] && [ -n "${SUDO_USER:-}" ]; then
    builder=$SUDO_USER
fi

# Runs a command as the builder, so that cargo and the files that it makes are theirs.
as_builder() {
    if [ "$builder" = root ]; then
        env "PATH=$builder_path" "$@"
    else
        sudo -u "$builder" -H env "PATH=$builder_path" "CI=${CI:-}" "$@"
    fi
}

# Finds cargo where rustup and Debian put it.
need_cargo() {
    local home
    home=$(getent passwd "$builder" | cut -d: -f6)
    builder_path="${CARGO_HOME:-$home/.cargo}/bin:$home/.cargo/bin:$PATH"
    if [ "$builder" != root ] && ! sudo -u "$builder" test -w .; then
        fail "$builder may not write in $PWD: clone the project as the user who builds it"
    fi
    as_builder cargo --version >/dev/null 2>&1 ||
        fail "there is no cargo for the user $builder: install Rust 1.88 or newer (https://rustup.rs), then run this again"
}
