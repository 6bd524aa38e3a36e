#!/bin/sh
# Installs what building Mainstay and running its lab (several libvirt hosts on one machine) need, on Debian 12 or later.
#
#   scripts/install-packages.sh            say what is missing, then install it
#   scripts/install-packages.sh --check    only say what is missing; exit status 1 if anything is
#
# It installs what is missing and nothing else, and does nothing (at once) when everything is there. It also creates the
# user that libvirt's QEMU driver insists on, and starts no service: every host of the lab runs a libvirtd of its own.
set -eu

# Compiling.
packages="build-essential cmake pkg-config libvirt-dev nasm"
# Hosts and guests. libvirt-daemon rather than libvirt-daemon-system: no services, no default network, no systemd.
packages="$packages qemu-system-x86 qemu-utils libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients"
# Shared storage and network faults.
packages="$packages glusterfs-server glusterfs-client nftables iproute2 iputils-ping procps util-linux mount e2fsprogs"
# A wall clock that a test can step for two processes.
packages="$packages faketime"

qemu_user=libvirt-qemu

say() { printf '%s\n' "$*"; }
die() { printf 'install-packages: %s\n' "$*" >&2; exit 2; }

case "${1:-}" in
    "" | --check) ;;
    *) die "unknown argument '$1'. Usage: scripts/install-packages.sh [--check]" ;;
esac

command -v apt-get >/dev/null 2>&1 && command -v dpkg-query >/dev/null 2>&1 ||
    die "this needs Debian (apt-get and dpkg). Elsewhere, install the like of: $packages"

# One dpkg-query for all of them: an empty run takes a few hundredths of a second.
# shellcheck disable=SC2086  # the list is meant to be split into words
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $packages 2>/dev/null | sed -n 's/^installed //p' | tr '\n' ' ')
missing=""
for package in $packages; do
    case " $installed " in
        *" $package "*) ;;
        *) missing="$missing $package" ;;
    esac
done
missing=${missing# }

user_missing=""
getent passwd "$qemu_user" >/dev/null && getent group "$qemu_user" >/dev/null || user_missing=yes

if [ -z "$missing" ] && [ -z "$user_missing" ]; then
    say "All packages are there: nothing to do."
    exit 0
fi

[ -z "$missing" ] || say "To install with apt-get: $missing"
[ -z "$user_missing" ] || say "To create: system user and group $qemu_user (libvirt's QEMU driver does not start without them)"
[ "${1:-}" != --check ] || exit 1

[ "$(id -u)" = 0 ] || die "must run as root. Try: sudo scripts/install-packages.sh"

if [ -n "$missing" ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q || die "apt-get update failed. Check the network and /etc/apt/sources.list, then run this again."

    # QEMU's packages must be of one version. Where qemu-utils came from backports, apt would rather remove it than
    # keep it; naming the version that belongs to the candidate of qemu-system-x86 makes it a downgrade instead.
    wanted=""
    for package in $missing; do
        if [ "$package" = qemu-system-x86 ]; then
            # `binNMU` suffixes (+b3) may differ between the two, so compare without them.
            version=$(apt-cache policy qemu-system-x86 | sed -n 's/^  Candidate: //p')
            match=$(apt-cache madison qemu-utils | awk -F' *\\| *' '{print $2}' | grep -F -m1 "${version%+b*}" || true)
            have=$(dpkg-query -W -f '${Version}' qemu-utils 2>/dev/null || true)
            if [ -n "$have" ] && [ -n "$match" ] && [ "$have" != "$match" ]; then
                say "qemu-utils $have does not fit qemu-system-x86 $version: changing it to $match"
                wanted="$wanted qemu-utils=$match"
            fi
        fi
        wanted="$wanted $package"
    done
    # shellcheck disable=SC2086
    apt-get install -y -q --no-install-recommends --allow-downgrades $wanted ||
        die "apt-get install failed; its own message is above. Nothing else was changed: run this again once it is solved."
fi

if [ -n "$user_missing" ]; then
    getent group "$qemu_user" >/dev/null || groupadd --system "$qemu_user"
    getent passwd "$qemu_user" >/dev/null ||
        useradd --system --gid "$qemu_user" --home-dir /var/lib/libvirt --shell /usr/sbin/nologin "$qemu_user"
fi
say "Done."
