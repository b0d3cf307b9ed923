#!/bin/sh
# Stops and disables the pool's services, unless another version of the package takes its place.
set -eu
case ${1-} in upgrade | failed-upgrade | [1-9]*) exit 0 ;; esac
[ -d /run/systemd/system ] || exit 0
systemctl stop btcpool.target 'btcpool@*.service' || true
systemctl disable btcpool.target btcpool@.service || true # of the template: of all its instances
