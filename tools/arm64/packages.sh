# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2034 # whoever sources this uses them
# What the arm64 guest has, by Debian's names; what they depend on comes along. One tree serves as
# the cross compiler's sysroot and as the guest's root, so that the tests run on the very libraries
# that were linked.
packages=(
	# a system that a shell script is at home in
	base-files base-passwd libc-bin bash coreutils findutils grep sed mawk diffutils tar gzip
	util-linux mount procps kmod iproute2 libcap2-bin
	# build: as tools/deps has it, for the cross compiler
	libc6-dev linux-libc-dev libgcc-12-dev libssl-dev libp11-kit-dev liburing-dev libsqlite3-dev
	libmosquitto-dev libconfuse-dev libjansson-dev uthash-dev libbpf-dev
	libqrencode-dev
	# a few tests compile a page of C themselves
	gcc pkgconf-bin
	# run
	openssl softhsm2 opensc
	# test: other people's clients, and Python with what the end-to-end tests import
	mosquitto-clients python3 python3-paho-mqtt python3-cryptography
)

# Kernel modules, each behind what it needs: the disk that results go to, and network namespaces.
modules=(virtio_ring virtio virtio_mmio virtio_blk veth)
