# SPDX-License-Identifier: GPL-2.0
#
# shellcheck shell=bash
#
# The network as the Debian root will see it, tried from the machine before there is a root. To be sourced
# after lib.sh; apt is all that it takes.

# shellcheck disable=SC2154 # of lib.sh
# shellcheck source=mounts.sh
. "$repo/scripts/mounts.sh"

network_scratch=$(mktemp -d)
trap 'rm -rf "$network_scratch"' EXIT

# A machine without certificates: the root will have Debian's.
debian_certificates() (
	cd "$network_scratch" || exit
	apt-get -q -o APT::Sandbox::User=root download ca-certificates >/dev/null 2>&1 &&
		dpkg-deb -x ca-certificates_*.deb . &&
		cat usr/share/ca-certificates/mozilla/*.crt
)

# root_certificates: prints the file that has those that the root will trust. Fails if they cannot be told.
root_certificates() {
	local bundle=$network_scratch/certificates
	if [ ! -s "$bundle" ]; then
		[ -s /etc/ssl/certs/ca-certificates.crt ] || debian_certificates >"$bundle" || return 1
		host_certificates "" >>"$bundle"
	fi
	echo "$bundle"
}

# fetch URL [OPTION...]: whether that can be fetched; else prints why not. The options are apt's.
fetch() {
	local url=$1 said certificates
	shift
	if certificates=$(root_certificates); then
		set -- -o Acquire::https::CAInfo="$certificates" "$@"
	fi
	said=$(/usr/lib/apt/apt-helper -o APT::Sandbox::User=root -o Acquire::Retries=1 \
		-o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 "$@" \
		download-file "$url" "$network_scratch/fetched" 2>&1) && return
	sed -n 's/^[EW]: *//p' <<<"$said" | grep -v '^Download Failed' | head -n 1
	return 1
}

# what_to_set URL WHY: what the user can do about it.
what_to_set() {
	case $2 in
	*[Cc]ertificate*)
		echo "its certificate is not trusted here; is it a proxy's? make the machine trust that" \
			"(update-ca-certificates), or set SSL_CERT_FILE to a file that has it"
		;;
	*) echo "is there a network? behind a proxy, set ${1%%:*}_proxy" ;;
	esac
}
