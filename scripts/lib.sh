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

# Where the checkout is for those who are not in the root.
in_root || export DM_REMAP_CHECKOUT=$repo

# The kernel that everything is for. In the Debian root, KVER is always set.
kernel_at_hand() {
	printf '%s\n' "${KVER:-$(uname -r)}"
}

# outside PATH: what it is called outside of the Debian root: in the checkout from there, in the cache by
# its real name.
outside() {
	local path=$1
	if in_root; then
		case $path in
		"$repo"/*) path=${path#"$repo"/} ;;
		/var/cache/dm-remap*) path=${DM_REMAP_CACHE_OUTSIDE:-/var/cache/dm-remap}${path#/var/cache/dm-remap} ;;
		esac
	fi
	printf '%s\n' "$path"
}

life_seconds=30

# tell_life LOG: until its input ends, shows the time and the last line of LOG: on a terminal every second
# in one line that goes again, else every half a minute (life_seconds).
tell_life() {
	local log=$1 every=$life_seconds columns=80 last='' status=0
	if [ -t 2 ]; then
		every=1
		columns=$(stty size <&2 2>/dev/null | cut -d ' ' -f 2)
		[ "${columns:-0}" -gt 20 ] || columns=80
	fi
	while true; do
		# Above 128: the time is over.
		status=0
		read -r -t $every _ || status=$?
		[ $status -gt 128 ] || break
		last=$(tail -c 4096 "$log" 2>/dev/null | tr '\r\t' '\n ' | tr -cd '[:print:]\n' |
			awk '/[^ ]/ { line = $0 } END { print line }')
		local seconds=$(($(date +%s) - DM_REMAP_START))
		last=$(printf '    [%d:%02d] %s' $((seconds / 60)) $((seconds % 60)) "$last")
		if [ -t 2 ]; then
			printf '\r%s\033[K' "${last:0:columns-1}" >&2
		else
			printf '%s\n' "${last:0:120}" >&2
		fi
	done
	[ ! -t 2 ] || printf '\r\033[K' >&2
}

# logged LOG COMMAND...: all output goes to LOG; what takes long shows that it lives.
logged() {
	local log=$1 status=0 teller
	shift
	mkdir -p "$(dirname "$log")"
	: >"$log"
	# Whatever becomes of this script, the other end sees its input end.
	exec 9> >(tell_life "$log")
	teller=$!
	"$@" >"$log" 2>&1 </dev/null 9>&- || status=$?
	exec 9>&-
	wait "$teller" || true
	return $status
}

# quietly LOG MESSAGE COMMAND...: as `logged`; where the command fails, so does the script,
# with the one line MESSAGE; a build machine, whose logs nobody can look at later, shows more.
quietly() {
	local log=$1 message=$2
	shift 2
	if ! logged "$log" "$@"; then
		[ -z "${CI:-}" ] || tail -n 20 "$log" >&2
		die "$message; see $(outside "$log")"
	fi
}

# compile WHAT COMMAND...: as `quietly`, but for what we wrote: all of it is shown if it fails.
compile() {
	local log="$repo/target/log/build-${1// /-}.log"
	if ! logged "$log" "${@:2}"; then
		cat "$log" >&2
		die "$1 cannot be built; see $(outside "$log")"
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
	[ -w "$cache" ] || die "cannot write to the cache $(outside "$cache") (not root? set DM_REMAP_CACHE)"
	in_root || export DM_REMAP_CACHE_OUTSIDE=$cache
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
		die "$2 needs $1 GB of free space in $(outside "$cache"), but there are only $((free / 1000 / 1000)) GB" \
			"(set DM_REMAP_CACHE to a larger place)"
}

# lock NAME: taken until the script ends. Two runs at once build a part of the cache only once.
lock() {
	exec {lock_fd}>"$cache/$1.lock"
	if ! flock -n "$lock_fd"; then
		step "waiting for another run that makes $1"
		until flock -w 30 "$lock_fd"; do
			step "still waiting for it"
		done
	fi
}

# Taken until the script and all that it starts have ended.
only_one_test_run() {
	mkdir -p "$repo/target/log"
	exec {test_fd}>"$repo/target/test.lock"
	flock -n "$test_fd" || die "another run of the tests is under way in this checkout"
}

# Builds what runs the tests. With the features of the whole workspace, as the tests are built.
test_runner() {
	"$repo/scripts/crates" && cargo build --quiet --locked --workspace --bin run-tests
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

# cache_use PART: nobody removes it until the script and all that it starts have ended.
cache_use() {
	exec {use_fd}<"$1"
	flock --shared "$use_fd"
}

# cache_discard PART: removes it once nobody uses it any more.
cache_discard() {
	local discard_fd
	[ -e "$1" ] || return 0
	exec {discard_fd}<"$1"
	until flock -w 30 "$discard_fd"; do
		step "waiting for another run that uses ${1##*/}"
	done
	rm -rf --one-file-system "$1"
	exec {discard_fd}<&-
}

# Parts made from older scripts or packages, not used for two weeks.
cache_prune() {
	find "$cache" -mindepth 1 -maxdepth 1 -type d -name "$1-*" ! -path "$2" -mtime +14 \
		-exec rm -rf --one-file-system {} +
}
