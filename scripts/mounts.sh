# SPDX-License-Identifier: GPL-2.0
#
# shellcheck shell=bash
#
# How a Debian root is furnished before chroot. Only ever called in a mount namespace of its own:
# nothing here can reach the host's mounts, and all of it is gone with the last process.

# The machine's devices, processes and names.
mount_host() {
	local root=$1
	mount -t proc proc "$root/proc"
	mount --rbind /sys "$root/sys"
	mount --rbind /dev "$root/dev"
	mount -t tmpfs -o mode=755 tmpfs "$root/run"
	mkdir -p "$root/run/lock"
	local file
	for file in resolv.conf hosts; do
		if [ -e "/etc/$file" ]; then
			[ -e "$root/etc/$file" ] || touch "$root/etc/$file"
			mount --bind "$(readlink -f "/etc/$file")" "$root/etc/$file"
		fi
	done
	host_certificates "$root" >"$root/run/host-certificates.crt"
}

# A company's proxy may be trusted by the host only.
host_certificates() {
	local root=$1 bundle
	for bundle in "$root/etc/ssl/certs/ca-certificates.crt" /etc/ssl/certs/ca-certificates.crt \
		"${SSL_CERT_FILE:-}" "${CURL_CA_BUNDLE:-}" "${CARGO_HTTP_CAINFO:-}"; do
		if [ -f "$bundle" ]; then
			cat "$bundle"
			echo
		fi
	done
}
