# What the trials of the package have in common, scripts/tools/try-package and cross/try-package. Sourced, with `package`,
# `work` and `root` set: the Debian package, a folder, and the Debian that is to be within it. Each trial has its own
# `within COMMAND...`, which runs a command in there, its own `files`, which names all files there, and `settings`, the
# environment of commands.

say() { echo "try-package: $*"; }
fail() { say "$*" >&2; exit 1; }
# quietly COMMAND...: without a word unless it fails.
quietly() { "$@" >"$work/log" 2>&1 || { cat "$work/log"; fail "failed: $*"; }; }

may_begin() {
    [ "$(id -u)" = 0 ] || fail "run it as root: chroot and mounts need it"
    command -v mmdebstrap >/dev/null || fail "mmdebstrap is missing: apt-get install mmdebstrap"
}

# minimal_debian PACKAGES ARGUMENT...: Debian 12 in root, with these packages, by this machine's mirror, and with its network.
minimal_debian() {
    local include=$1 options=() file name sources=/etc/apt/sources.list.d/debian.sources
    shift
    say "a minimal Debian 12"
    for file in /etc/apt/apt.conf.d/*; do
        if grep -q '^Acquire' "$file"; then
            options+=("--aptopt=$file")
        fi
    done
    if [ ! -f "$sources" ] || ! grep -q bookworm "$sources"; then
        sources=""
    fi
    mmdebstrap --quiet --variant=minbase "${options[@]}" --include="$include" "$@" bookworm "$root" ${sources:+"$sources"}
    for file in /etc/resolv.conf /etc/hosts; do
        cp -L "$file" "$root$file"
    done
    for name in proc sys dev; do
        mount --rbind "/$name" "$root/$name"
    done
    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        [ -z "${!name:-}" ] || settings+=("$name=${!name}")
    done
}

# older_package FILE: an older version, made of the same files.
older_package() {
    dpkg-deb --raw-extract "$package" "$work/older"
    sed -i 's/^Version: .*/Version: 0.0.1/' "$work/older/DEBIAN/control"
    dpkg-deb --root-owner-group --build "$work/older" "$1" >/dev/null
}

keeps_its_mode() {
    [ "$(within stat -c '%a %U:%G' /etc/watchpost/watchpost.toml)" = "640 root:watchpost" ] || fail "$1"
}

# install_older FILE: the older package, and what is to be there then.
install_older() {
    local file
    say "install an older version, made of the same files"
    quietly within dpkg --install "$1"
    within getent passwd watchpost || fail "there is no user watchpost"
    within systemd-analyze verify /lib/systemd/system/watchpost.service || fail "systemd does not know the unit"
    keeps_its_mode "others may read the configuration"
    within watchpost --version
    for file in man/man1/watchpost.1.gz bash-completion/completions/watchpost.bash doc/watchpost/licences.txt.gz doc/watchpost/docs/guide.md; do
        within test -s "/usr/share/$file" || fail "/usr/share/$file is missing"
    done
}

check_names_what_is_missing() {
    say "check, before there are a library and a model"
    ! within watchpost check >"$work/log" 2>&1 || fail "check finds nothing missing"
    cat "$work/log"
    grep -q watchpost-get-openvino "$work/log" && grep -q yolox_nano.onnx "$work/log" || fail "check does not say what is missing"
}

# upgrade_to FILE: to the package that is tried.
upgrade_to() {
    say "upgrade"
    quietly within dpkg --install "$1"
    [ "$(within dpkg-query --show --showformat '${Version}' watchpost)" = "$(dpkg-deb --field "$package" Version)" ] || fail "the version is another"
    keeps_its_mode "the upgrade changed the configuration's mode"
}

# remove_but_keep LINE: the package, but not the configuration with this line.
remove_but_keep() {
    quietly within dpkg --remove watchpost
    within test ! -e /usr/bin/watchpost || fail "the program is still there"
    within grep -qF "$1" /etc/watchpost/watchpost.toml || fail "removing took the configuration along"
}

purge() {
    quietly within dpkg --purge watchpost
    ! within getent passwd watchpost || fail "the user is still there"
    ! within getent group watchpost || fail "the group is still there"
    files >"$work/after"
    diff "$work/before" "$work/after" || fail "the purge left these"
}

good() {
    local size program
    size=$(stat -c %s "$package") program=$(stat -c %s "$work/older/usr/bin/watchpost")
    say "good: the package has $size bytes, its program $program, installed $(dpkg-deb --field "$package" Installed-Size) KiB"
}
