# SPDX-License-Identifier: GPL-2.0
#
# shellcheck shell=bash
#
# What the scripts share: messages, the cache and its locks. To be sourced.
#
# shellcheck disable=SC2034 # what is set here is used there

set -euo pipefail

repo=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
cache=${DM_REMAP_CACHE:-/var/cache/dm-remap}

# The clock of the whole run, not of one script.
export DM_REMAP_START=${DM_REMAP_START:-$(date +%s)}

die() {
	printf 'dm-remap: %s\n' "$*" >&2
	exit 1
}

step() {
	local seconds=$(($(date +%s) - DM_REMAP_START))
	printf '==> [%d:%02d] %s\n' $((seconds / 60)) $((seconds % 60)) "$*" >&2
}

in_root() {
	[ -n "${DM_REMAP_IN_ROOT:-}" ]
}

# The kernel that everything is for. In the Debian root, KVER is always set.
kernel_at_hand() {
	printf '%s\n' "${KVER:-$(uname -r)}"
}

# quietly LOG MESSAGE COMMAND...: all output goes to LOG. Where the command fails, so does the script,
# with the one line MESSAGE; a build machine, whose logs nobody can look at later, shows more.
quietly() {
	local log=$1 message=$2
	shift 2
	mkdir -p "$(dirname "$log")"
	if ! "$@" >"$log" 2>&1 </dev/null; then
		[ -z "${CI:-}" ] || tail -n 20 "$log" >&2
		die "$message; see $log"
	fi
}

# The version of the module, as DKMS has it.
module_version() {
	sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' "$repo/dkms.conf"
}

make_cache() {
	mkdir -p "$cache" 2>/dev/null ||
		die "cannot make the cache $cache (not root? set DM_REMAP_CACHE to another directory)"
	cache=$(cd -- "$cache" && pwd -P)
	[ -w "$cache" ] || die "cannot write to the cache $cache (not root? set DM_REMAP_CACHE)"
}

# The series of kernels that are supported, the newest first.
supported_series() {
	grep -E '^[0-9]' "$repo/scripts/kernels"
}

# need_space GIGABYTES WHAT: before a part of the cache is made.
need_space() {
	local free
	free=$(df --output=avail -k "$cache" | tail -n 1)
	[ "$free" -ge $(($1 * 1000 * 1000)) ] ||
		die "$2 needs $1 GB of free space in $cache, but there are only $((free / 1000 / 1000)) GB" \
			"(set DM_REMAP_CACHE to a larger place)"
}

# lock NAME: taken until the script ends. Two runs at once build a part of the cache only once.
lock() {
	exec {lock_fd}>"$cache/$1.lock"
	if ! flock -n "$lock_fd"; then
		step "waiting for another run that makes $1"
		flock "$lock_fd"
	fi
}

# A finished part of the cache carries a stamp: the digest of the names, kinds and sizes of all
# its files. Anything removed, truncated or added later is seen, in well under a second.
cache_digest() {
	(cd "$1" && find . -xdev ! -path ./.complete ! -type d -printf '%y %s %P\n') |
		LC_ALL=C sort | sha256sum | cut -d ' ' -f 1
}

cache_seal() {
	local digest
	digest=$(cache_digest "$1")
	printf '%s\n' "$digest" >"$1/.complete"
}

cache_whole() {
	[ -f "$1/.complete" ] && [ "$(cat "$1/.complete")" = "$(cache_digest "$1")" ]
}

# Parts made from older scripts or packages, not used for two weeks.
cache_prune() {
	find "$cache" -mindepth 1 -maxdepth 1 -type d -name "$1-*" ! -path "$2" -mtime +14 \
		-exec rm -rf --one-file-system {} +
}
