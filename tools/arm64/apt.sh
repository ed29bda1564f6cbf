# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Debian packages of another architecture, without a trace in this machine's own package state:
# apt with folders of its own, an empty list of what is installed, and the mirrors and keys that
# this machine uses. Signatures are verified as ever. No maintainer script runs, no root is needed.
#
#   apt_init DIR ARCHITECTURE     from then on apt works in DIR
#   apt_fetch DEBS PACKAGE...     downloads them with all that they depend on
#   apt_unpack DEBS ROOT          into one tree

apt_init() {
	local dir=$1 list keyring=/usr/share/keyrings/debian-archive-keyring.gpg

	mkdir -p "$dir"/{state/lists/partial,cache/archives/partial,dpkg} \
		"$dir"/etc/{sources.list.d,preferences.d,apt.conf.d} || return
	: >"$dir/dpkg/status"
	# shellcheck disable=SC2016 # apt's own variables
	list=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' | sort -u |
		awk -v key="$keyring" '$2 ~ /^bookworm/ && $3 == "main" {
			print "deb [signed-by=" key "] " $1 " " $2 " main" }')
	if [[ -z $list ]]; then
		echo 'no mirror of bookworm is known here: apt-get update' >&2
		return 1
	fi
	echo "$list" >"$dir/etc/sources.list"
	cat >"$dir/apt.conf" <<-END
		APT::Architecture "$2"; APT::Architectures { "$2"; };
		APT::Install-Recommends "false"; APT::Sandbox::User "$(id -un)";
		Dir "$dir/"; Dir::Etc "$dir/etc/"; Dir::Etc::SourceList "$dir/etc/sources.list";
		Dir::Etc::SourceParts "$dir/etc/sources.list.d/"; Dir::Log "$dir/";
		Dir::Etc::Parts "$dir/etc/apt.conf.d/"; Dir::State "$dir/state/";
		Dir::State::status "$dir/dpkg/status"; Dir::Cache "$dir/cache/";
		Acquire::Languages "none"; Acquire::GzipIndexes "true"; Acquire::Retries "3";
		Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
		Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
	END
	export APT_CONFIG=$dir/apt.conf
	apt-get -qq update
}

apt_fetch() {
	local debs=$1

	shift
	mkdir -p "$debs/partial" &&
		apt-get -qq -y --download-only -o "Dir::Cache::archives=$debs/" install "$@" \
			>/dev/null
}

# /lib and the like are links into /usr, as on every Debian of today.
apt_unpack() {
	local debs=$1 root=$2 folder deb

	mkdir -p "$root"/usr/{lib,bin,sbin} || return
	for folder in lib bin sbin; do
		ln -sfn "usr/$folder" "$root/$folder"
	done
	for deb in "$debs"/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" |
			tar -x -C "$root" --no-same-owner --keep-directory-symlink \
				--exclude='./usr/share/doc*' --exclude=./usr/share/man \
				--exclude=./usr/share/locale --exclude=./usr/share/lintian \
				--exclude=./usr/lib/*/gconv --exclude='*/lto1' \
				--exclude='*-lto-dump-*' --exclude='*san.*' || return
	done
}
