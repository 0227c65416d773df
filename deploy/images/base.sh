#!/bin/sh
# Makes a base image's root file system in "$1" from Debian's packages: for a machine that reaches no image registry.
# Needs root and debootstrap. A copy of the outcome is kept under a digest of this very file.
set -eu

root=$1
suite=bookworm
mirror=http://deb.debian.org/debian

debootstrap --variant=minbase --include=ca-certificates,python3,tzdata "$suite" "$root" "$mirror"

# What debootstrap brings is the release; this is what was fixed since.
cat >"$root/etc/apt/sources.list" <<SOURCES
deb $mirror $suite main
deb $mirror $suite-updates main
deb $mirror-security $suite-security main
SOURCES
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
cp /etc/resolv.conf "$root/etc/resolv.conf"
chroot "$root" apt-get update -qq
DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get upgrade -y -qq
chroot "$root" apt-get clean

rm -f "$root/etc/resolv.conf" "$root/etc/hostname" "$root"/var/log/*.log "$root"/var/log/apt/*
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/* "$root"/usr/share/man/* "$root"/usr/share/locale/* \
  "$root"/usr/share/info/* "$root"/usr/share/lintian "$root"/tmp/* "$root"/dev/*
find "$root/usr/share/doc" -type f ! -name copyright -delete
find "$root/usr/share/doc" -type d -empty -delete
